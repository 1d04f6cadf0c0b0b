"""A gateway that asks a real endpoint over HTTP and HTTPS: connections kept, answers bounded."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from endpoints_support import Answer, Came, endpoint
from real_support import Start
from running_support import Development, RunningGateway, free_port, wait_for, write_config


def config(url: str, **more: Any) -> dict[str, Any]:
    """Tokens that `url` knows, before the page of the gateway itself."""
    return {
        "auth": {"legacy": {"introspect": url, **more}},
        "routes": {"localhost": {"/": {"page": True, "auth": "legacy"}}},
    }


def tokens(came: Came) -> Answer:
    """Knows every token that begins with `good`."""
    token = parse_qs(came.body.decode())["token"][0]
    active = token.startswith("good")
    said = {"active": active, "sub": token[4:] or "nobody"} if active else {"active": False}
    return 200, {"Content-Type": "application/json"}, json.dumps(said).encode()


def ask(running: RunningGateway, token: str) -> int:
    status: int = running.ask("/", fields={"Authorization": f"Bearer {token}"}, key=None).status
    return status


def told(running: RunningGateway) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(running.command("status", "--json").stdout)
    credential: dict[str, Any] = found["credentials"]["legacy"]
    return credential


def test_one_connection_for_many_tokens(gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s")
    with endpoint(tokens) as server:
        url = f"http://127.0.0.1:{server.server_port}/introspect"
        running = gateway(config(url, client_id="edge", client_secret="${env:SECRET}"))
        assert [ask(running, f"good{number}") for number in range(5)] == [200] * 5
        assert ask(running, "good1") == 200
        assert ask(running, "bad") == 401
        assert server.connections == 1
        assert len(server.came) == 6
        came = server.came[0]
        assert (came.method, came.path) == ("POST", "/introspect")
        assert came.fields["authorization"] == "Basic ZWRnZTpz"
        assert came.fields["accept-encoding"] == "identity"
        assert "cookie" not in came.fields
        assert told(running) == {
            "endpoint": url, "error": "", "under_way": 0, "remembered": 5, "refused": 1,
        }  # fmt: skip
        line = wait_for(lambda: [each for each in running.log_lines() if each["status"] == 200])[0]
        assert (line["principal"], line["kind"]) == ("legacy:0", "introspection")


def test_the_bound_is_each_answers_own(gateway: Start) -> None:
    def long(came: Came) -> Answer:
        status, fields, body = tokens(came)
        return status, fields, body + b" " * 40_000

    with endpoint(long) as server:
        running = gateway(config(f"http://127.0.0.1:{server.server_port}/"))
        assert [ask(running, f"good{number}") for number in range(4)] == [200] * 4
        assert server.connections == 1


def test_a_connection_that_is_closed_as_it_is_used(gateway: Start) -> None:
    """As by a server whose time for idle connections is over: nothing has come, so it is asked
    again."""
    seen: set[int] = set()

    def once(came: Came) -> Answer:
        if came.port in seen:
            raise ConnectionAbortedError
        seen.add(came.port)
        return tokens(came)

    with endpoint(once) as server:
        running = gateway(config(f"http://127.0.0.1:{server.server_port}/"))
        assert [ask(running, f"good{number}") for number in range(4)] == [200] * 4
        assert server.connections == 4
        assert len(server.came) == 7
        assert "fails" not in running.child.said()


def test_one_that_closes_always(gateway: Start) -> None:
    def never(came: Came) -> Answer:
        raise ConnectionAbortedError

    with endpoint(never) as server:
        running = gateway(config(f"http://127.0.0.1:{server.server_port}/"))
        assert ask(running, "good") == 503
        assert len(server.came) == 1


def test_cookies_of_answers_are_nobodys(gateway: Start) -> None:
    def setting(came: Came) -> Answer:
        status, fields, body = tokens(came)
        return status, {**fields, "Set-Cookie": "who=alice"}, body

    with endpoint(setting) as server:
        running = gateway(config(f"http://127.0.0.1:{server.server_port}/"))
        assert [ask(running, f"good{number}") for number in range(2)] == [200] * 2
        assert all("cookie" not in came.fields for came in server.came)


@pytest.mark.parametrize(
    ("status", "fields", "body", "why"),
    [
        (200, {}, b" " * 65536 + b"{}", "an answer of more than 65536 bytes"),
        (200, {f"X-{n}": "x" * 8000 for n in range(9)}, b"{}", "more than 65536 bytes"),
        (302, {"Location": "/other"}, b"{}", "status 302"),
        (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b", "an encoding that was not asked for"),
        (200, {}, b"<html>", "it is not JSON"),
        (503, {}, b"", "status 503"),
    ],
)  # fmt: skip
def test_answers_that_are_none(
    gateway: Start, status: int, fields: dict[str, str], body: bytes, why: str
) -> None:
    with endpoint(lambda came: (status, fields, body)) as server:
        running = gateway(config(f"http://127.0.0.1:{server.server_port}/"))
        assert ask(running, "good") == 503
        assert why in told(running)["error"]
        assert len(server.came) == 1
        server.answer = tokens
        assert ask(running, "good") == 200
        said = wait_for(lambda: "answers again" in running.child.said() and running.child.said())
        assert said.count("auth: legacy: its endpoint fails") == 1


def test_nobody_answers(gateway: Start) -> None:
    port = free_port()
    running = gateway(config(f"http://127.0.0.1:{port}/"))
    assert ask(running, "good") == 503
    assert "cannot connect" in told(running)["error"]
    said = running.command("status")
    assert "0 callers remembered" in said.stdout
    assert "auth: legacy: its endpoint fails: cannot connect" in said.stderr
    with endpoint(tokens, port=port):
        assert ask(running, "good") == 200
    assert told(running)["error"] == ""


def test_where_no_connection_can_be_made_one_tries_for_all(gateway: Start) -> None:
    """The address is that of a socket whose queue is full, so that connecting takes its time."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for each in fillers:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        running = gateway(config(f"http://127.0.0.1:{port}/", timeout="1s"))
        assert ask(running, "good0") == 503
        threads = [
            threading.Thread(target=ask, args=(running, f"good{number}")) for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for each in fillers:
            each.close()
        lines = wait_for(lambda: (found := running.log_lines())[8:] and found)
        assert {line["status"] for line in lines} == {503}
        assert sum(line["us"] < 500_000 for line in lines) >= 4, lines


def test_one_that_takes_too_long_and_too_many_at_once(gateway: Start) -> None:
    goon = threading.Event()

    def slow(came: Came) -> Answer:
        goon.wait(20)
        return tokens(came)

    with endpoint(slow) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
        running = gateway(config(url, timeout="700ms", connections=1))
        began = time.monotonic()
        found: list[int] = []
        first = threading.Thread(target=lambda: found.append(ask(running, "good1")))
        first.start()
        wait_for(lambda: server.came)
        assert ask(running, "good2") == 503
        assert not found
        first.join()
        assert found == [503]
        assert time.monotonic() - began < 10
        assert told(running)["error"] == "no answer within 0.7 s"
        goon.set()
        assert ask(running, "good3") == 200


def test_over_tls(gateway: Start, development: Development) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(development.chain, next(development.certs.glob("*key*")))
    with endpoint(tokens, tls) as server:
        url = f"https://localhost:{server.server_port}/"
        trusting = gateway(config(url, ca=str(development.chain)), "trusting")
        assert [ask(trusting, f"good{number}") for number in range(3)] == [200] * 3
        assert server.connections == 1
        doubting = gateway(config(url), "doubting")
        assert ask(doubting, "good") == 503
        assert "certificate verify failed" in told(doubting)["error"]
        assert len(server.came) == 3


def test_a_reload_lets_those_who_wait_have_their_answer(gateway: Start) -> None:
    """Though the credential is another one now, with connections of its own."""
    goon = threading.Event()

    def slow(came: Came) -> Answer:
        goon.wait(20)
        return tokens(came)

    with endpoint(slow) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
        running = gateway(config(url, timeout="20s"))
        found: list[int] = []
        first = threading.Thread(target=lambda: found.append(ask(running, "good1")))
        first.start()
        wait_for(lambda: server.came)
        write_config(running.folder, config(url, cache="5s"))
        assert running.command("reload").returncode == 0
        assert not found
        goon.set()
        first.join()
        assert found == [200]
        assert ask(running, "good1") == 200
        assert server.connections == 2


def test_clients_that_go_leave_nothing_behind(gateway: Start) -> None:
    goon = threading.Event()

    def slow(came: Came) -> Answer:
        goon.wait(20)
        return tokens(came)

    with endpoint(slow) as server:
        running = gateway(config(f"http://127.0.0.1:{server.server_port}/", timeout="20s"))
        descriptors = Path(f"/proc/{running.child.process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        clients = [running.connect() for _ in range(40)]
        for number, client in enumerate(clients):
            client.request("GET", "/", headers={"Authorization": f"Bearer good{number}"})
        wait_for(lambda: len(server.came) == 40)
        assert told(running)["under_way"] == 40
        for client in clients:
            client.close()
        wait_for(lambda: told(running)["under_way"] == 0)
        wait_for(lambda: len(list(descriptors.iterdir())) <= before + 1)
        assert told(running)["error"] == ""
        goon.set()
        assert ask(running, "good") == 200
        goon.clear()
        again = running.connect()  # over the connection that is kept
        again.request("GET", "/", headers={"Authorization": "Bearer good41"})
        wait_for(lambda: len(server.came) == 42)
        again.close()
        wait_for(lambda: told(running)["under_way"] == 0)
        goon.set()
        assert ask(running, "good42") == 200
        assert len(server.came) == 43
        assert told(running)["error"] == ""
