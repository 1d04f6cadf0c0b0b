"""X-Edge-Token in a real process: switched on by a reload, kept over a restart, refused in time."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

from real_support import Start
from running_support import RunningGateway, write_config


def edge_token(running: RunningGateway) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(running.command("status", "--json").stdout)[
        "edge_token"
    ]
    return found


def published(port: int) -> list[str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/.well-known/edge-jwks.json")
        answer = connection.getresponse()
        body = answer.read()
        return [key["kid"] for key in json.loads(body)["keys"]] if answer.status == 200 else []
    finally:
        connection.close()


def test_the_life_of_keys(gateway: Start, free_port: int) -> None:
    plain: dict[str, Any] = {
        "health": f"127.0.0.1:{free_port}",
        "upstreams": {"users": "http://127.0.0.1:1"},
        "routes": {"localhost": {"/": "users"}},
    }
    issuing = {**plain, "edge_token": "https://edge.example.com"}
    running = gateway(plain)
    assert edge_token(running) is None
    assert published(free_port) == []
    # A folder that cannot be written refuses the reload, and nothing has changed.
    state = running.folder / "state"
    blocked = {**issuing, "state": "edgeproxy.yaml"}
    write_config(running.folder, blocked)
    refused = running.command("reload")
    assert refused.returncode == 1
    assert "`state:` names another folder" in refused.stdout + refused.stderr
    assert edge_token(running) is None
    # Another configuration switches it on.
    write_config(running.folder, issuing)
    assert "edge_token changed" in running.command("reload").stdout
    first = published(free_port)
    assert len(first) == 2
    found = edge_token(running)
    assert found is not None and (found["key"], found["published"]) == (first[0], 2)
    assert (state / "edge-token-keys.json").stat().st_mode & 0o777 == 0o600
    # The next process goes on with them.
    running.child.end()
    again = gateway(issuing)
    assert again.folder == running.folder
    assert published(free_port) == first
    # And without the setting nothing is published any more.
    write_config(again.folder, plain)
    assert again.command("reload").returncode == 0
    assert published(free_port) == []
