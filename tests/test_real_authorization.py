"""A gateway, a service that decides and one behind, all of them real: what each of them gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from endpoints_support import Answer, Came, endpoint
from real_support import Start
from running_support import RunningGateway, wait_for


def decides(came: Came) -> Answer:
    """Alice, by her cookie; others are to sign in, and what is under /admin is nobody's."""
    if came.fields["x-original-uri"].startswith("/admin"):
        return 403, {}, b"go away"
    if came.fields.get("cookie") == "sid=alice":
        return 200, {"X-User-Id": "alice", "X-User-Groups": "ops"}, b"hello"
    return 302, {"Location": "https://id.example.com/login", "Set-Cookie": "was=here"}, b""


def tells(came: Came) -> Answer:
    return 200, {}, json.dumps(came.fields).encode()


@contextmanager
def world(gateway: Start, **more: Any) -> Iterator[tuple[RunningGateway, Any, Any]]:
    with endpoint(decides) as checker, endpoint(tells) as service:
        asked = {
            "authorize": f"http://127.0.0.1:{checker.server_port}/check",
            "take": ["X-User-Id", "X-User-Groups"],
            "principal": "X-User-Id",
            "redirect": True,
            **more,
        }
        config = {
            "upstreams": {"shop": f"http://127.0.0.1:{service.server_port}"},
            "auth": {"checked": asked},
            "routes": {
                "localhost": {
                    "/": {"to": "shop", "auth": "checked"},
                    "/open": {"to": "shop", "auth": "none"},
                }
            },
        }
        yield gateway(config), checker, service


def test_who_is_let_in(gateway: Start) -> None:
    with world(gateway) as (running, checker, service):
        forged = {"X-User-Id": "admin", "x_user_groups": "root", "Cookie": "sid=alice"}
        for _ in range(3):
            found = running.ask("/cart?item=7", "POST", forged, key=None, body=b"x" * 100_000)
            assert found.status == 200
        got = found.json()
        assert (got["x-user-id"], got["x-user-groups"]) == ("alice", "ops")
        assert got["x-consumer-id"] == "checked:alice"
        assert "cookie" not in got
        assert "x_user_groups" not in got
        assert checker.connections == 1
        assert {came.body for came in checker.came} == {b""}
        assert checker.came[0].fields["x-original-method"] == "POST"
        assert checker.came[0].fields["x-original-uri"] == "/cart?item=7"
        assert checker.came[0].fields["host"] == f"127.0.0.1:{checker.server_port}"
        assert len(service.came[0].body) == 100_000
        line = wait_for(running.log_lines)[0]
        assert (line["principal"], line["kind"]) == ("checked:alice", "authorization")


def test_who_is_not(gateway: Start) -> None:
    with world(gateway) as (running, _, service):
        elsewhere = running.ask("/", key=None)
        assert elsewhere.status == 302
        assert elsewhere.fields["Location"] == "https://id.example.com/login"
        assert elsewhere.fields["Set-Cookie"] == "was=here"
        for path in ("/admin", "/%61dmin"):
            refused = running.ask(path, fields={"Cookie": "sid=alice"}, key=None)
            assert refused.status == 403
            assert b"go away" not in refused.body
        assert not service.came


def test_nobody_can_forge_it_anywhere(gateway: Start) -> None:
    with world(gateway) as (running, checker, _):
        forged = {"X-User-Id": "admin", "X_USER_ID": "admin", "x.user.groups": "root"}
        got = running.ask("/open", fields=forged, key=None).json()
        assert not [name for name in got if "user" in name and name != "user-agent"]
        assert not checker.came
