"""wrk in front and nginx behind: under load everything is changed that can be changed, and no
request is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from real_support import Start
from running_support import Child, Nginx, RunningGateway, wait_for, write_config

from edgeproxy.certs.development import make
from edgeproxy.control import connected
from edgeproxy.identity import keyadmin
from edgeproxy.identity.apikey import RANDOM_BYTES

pytestmark = pytest.mark.debian("nginx", "wrk")

CONNECTIONS = 50
SECONDS = 4
SERVER = "location / { return 200 hello; } location /new { return 200 new; }"


def config(origin: Nginx, *, new: bool = False) -> dict[str, Any]:
    routes: dict[str, Any] = {"/": {"to": "web", "limit": "much"}}
    if new:
        routes["/new"] = {"to": "web", "response": {"set": {"X-New": "yes"}}}
    return {
        "upstreams": {"web": origin.url},
        "limits": {"much": "1000000/s"},
        "timeouts": {"drain": "5s", "requests_per_connection": 1000},
        "routes": {"*": routes},
    }


def wrk(running: RunningGateway, child: Callable[..., Child]) -> Child:
    return child(
        ["wrk", f"-c{CONNECTIONS}", "-t2", f"-d{SECONDS}s", "--latency"]
        + ["-H", f"X-API-Key: {running.development.credential}", running.url + "/x"]
    )


class Told:
    """What wrk told at its end."""

    def __init__(self, text: str) -> None:
        found = re.search(r"(\d+) requests in", text)
        assert found is not None, text
        self.text = text
        self.requests = int(found[1])

    @property
    def clean(self) -> bool:
        """wrk writes these lines only where there is something to tell."""
        return "Socket errors" not in self.text and "Non-2xx" not in self.text


def outcomes(running: RunningGateway) -> tuple[int, int]:
    """How many requests for /x were answered in full, and how many their client left."""
    answered = left = 0
    for line in running.log_lines():
        if line["path"] == "/x":
            assert line["status"] == 200 or line["outcome"] == "client_gone", line
            if line["outcome"] == "ok":
                answered += 1
            else:
                assert line["outcome"] == "client_gone", line
                left += 1
    return answered, left


def served(running: RunningGateway) -> str:
    """The certificate that a new connection is given."""
    text = ssl.get_server_certificate(("localhost", running.port))
    return text.strip()


def swap_certificate(running: RunningGateway) -> str:
    """A new certificate in place of the old one, file by file; the text of the new one."""
    made = make(["localhost", "127.0.0.1", "::1"], datetime.now(UTC))
    for name, data in (("localhost.pem", made.chain_pem), ("localhost-key.pem", made.key_pem)):
        beside = running.folder / "certs" / (name + ".new")
        beside.write_bytes(data)
        beside.replace(running.folder / "certs" / name)
    return made.chain_pem.decode().strip()


def test_nothing_is_lost_while_everything_changes(
    gateway: Start, nginx: Callable[..., Nginx], child: Callable[..., Child]
) -> None:
    origin = nginx(SERVER)
    running = gateway(config(origin))
    assert running.ask("/new").fields["X-New"] is None
    load = wrk(running, child)
    wait_for(lambda: (running.folder / "access.log").stat().st_size > 10_000)

    write_config(running.folder, config(origin, new=True))
    running.child.signal(signal.SIGHUP)
    running.child.wait_until_said("reloaded: .*/new")
    assert running.ask("/new").fields["X-New"] == "yes"

    new = swap_certificate(running)
    wait_for(lambda: served(running) == new, what="the new certificate is served")

    made = keyadmin.add(
        running.folder / "keys.jsonl",
        "another",
        now=time.time(),
        random_bytes=os.urandom(RANDOM_BYTES),
    )
    trusting(running, new)
    wait_for(lambda: running.ask("/y", key=made.credential).status == 200, what="the new key")

    running.child.signal(signal.SIGHUP)
    running.child.wait_until_said("reloaded: nothing changed")
    assert load.running, "all of it was to happen under load"
    assert load.wait(30) == 0
    told = Told(load.said())
    assert told.clean, told.text
    print(*re.findall(r"Requests/sec:.*|99%.*", told.text))

    def all_told() -> tuple[int, int] | None:
        found = outcomes(running)
        return found if sum(found) >= told.requests else None

    answered, left = wait_for(all_told)
    # wrk leaves what is under way when its time is over.
    assert told.requests <= answered <= told.requests + CONNECTIONS
    assert left <= CONNECTIONS


def ask_control(running: RunningGateway, command: str) -> dict[str, Any]:
    """One command to the control socket, without the start of a process for it."""
    with connected(running.folder / "edgeproxy.sock", 20) as sock, sock.makefile("rb") as answers:
        sock.sendall(json.dumps({"command": command}).encode() + b"\n")
        found: dict[str, Any] = json.loads(answers.readline())
        return found


def trusting(running: RunningGateway, chain: str) -> None:
    """Trust the new certificate from now on; the session's stays as it is."""
    path = running.folder / "trusted.pem"
    path.write_text(chain)
    mine = running.development
    running.development = type(mine)(mine.certs, path, mine.key_line, mine.credential, mine.key_id)


def test_nothing_is_lost_by_reload_after_reload(
    gateway: Start, nginx: Callable[..., Nginx], child: Callable[..., Child]
) -> None:
    """Reload after reload, as fast as they are taken."""
    origin = nginx(SERVER)
    running = gateway(config(origin))
    load = wrk(running, child)
    wait_for(lambda: (running.folder / "access.log").stat().st_size > 10_000)
    count = 0
    while load.running:
        write_config(running.folder, config(origin, new=count % 2 == 0))
        reloaded = ask_control(running, "reload")
        assert reloaded["ok"], reloaded
        count += 1
    told = Told(load.said())
    assert told.clean, told.text
    print(f"{count} reloads", *re.findall(r"Requests/sec:.*|99%.*", told.text))
    assert count > 3
    wait_for(lambda: sum(outcomes(running)) >= told.requests)
