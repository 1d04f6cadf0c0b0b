"""The end of a gateway under load: what is under way ends well, and the process in time."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from real_support import MiB, Start, calling, curl_command, random_file, sha256
from running_support import Child, Nginx, RunningGateway, accepts, wait_for

pytestmark = pytest.mark.debian("nginx", "curl")

SERVER = """
location / { return 200 hello; }
location /slow { limit_rate 1m; }
location /dav { dav_methods PUT; create_full_put_path on; }
"""
DRAIN = 6
ENDED = -signal.SIGTERM
"""twistd, after all is done, ends by the signal that it was sent (docs/operations.md)."""


@pytest.fixture
def origin(nginx: Callable[..., Nginx]) -> Nginx:
    return nginx(SERVER)


def start(gateway: Start, origin: Nginx, drain: float = DRAIN) -> RunningGateway:
    return gateway(
        {
            "upstreams": {"web": origin.url},
            "routes": {"*": {"/": "web"}},
            "timeouts": {"drain": drain},
        }
    )


def test_what_is_under_way_ends_well(
    gateway: Start, origin: Nginx, child: Callable[..., Child], tmp_path: Any
) -> None:
    digest = random_file(origin.folder / "html" / "slow", 2 * MiB)
    running = start(gateway, origin)
    got = tmp_path / "got"
    reader = child(curl_command(running, "/slow", "-o", got))
    wait_for(lambda: got.exists() and got.stat().st_size > 1000)
    with calling(running, "/", count=6) as callers:
        wait_for(lambda: len(callers.ended) > 200)
        began = time.monotonic()
        running.child.signal(signal.SIGTERM)
        wait_for(lambda: not accepts(running.port))
        assert reader.running, "the slow answer was to outlast the listener"
        assert running.child.wait() == ENDED
        took = time.monotonic() - began
        ended = len(callers.ended)
        wait_for(lambda: len(callers.ended) > ended)
    assert took < DRAIN
    assert reader.wait(5) == 0
    assert sha256(got) == digest

    # What the gateway took on, it answered, and the callers have the answers.
    lines = [line for line in running.log_lines() if line["path"] == "/"]
    assert {line["outcome"] for line in lines} == {"ok"}
    assert callers.statuses[200] == len(lines)
    assert callers.statuses.keys() == {200, 0}
    assert not any(each.body for each in callers.errors)
    print(Counter(each.error for each in callers.errors).most_common(5))


def test_every_answer_is_the_last_on_its_connection(gateway: Start, origin: Nginx) -> None:
    """A client that is in the middle of a request learns that the connection ends after it."""
    running = start(gateway, origin)
    connection = running.connect()
    fields = {"X-API-Key": running.development.credential}
    connection.putrequest("PUT", "/dav/late")
    for name, value in {**fields, "Content-Length": "5"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"he")
    wait_for(lambda: _connections(running) == 1)
    running.child.signal(signal.SIGTERM)
    wait_for(lambda: not accepts(running.port))
    connection.send(b"llo")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (201, b"")
    assert (origin.folder / "html/dav/late").read_bytes() == b"hello"
    assert answer.headers["Connection"] == "close"
    assert running.child.wait() == ENDED


def _connections(running: RunningGateway) -> int:
    found = running.command("status", "--json")
    return int(json.loads(found.stdout)["listeners"][0]["connections"])


def test_what_does_not_end_in_time_is_cut(
    gateway: Start, origin: Nginx, child: Callable[..., Child], tmp_path: Any
) -> None:
    random_file(origin.folder / "html" / "slow", 20 * MiB)
    running = start(gateway, origin, drain=1)
    got = tmp_path / "got"
    reader = child(curl_command(running, "/slow", "-o", got))
    wait_for(lambda: got.exists() and got.stat().st_size > 1000)
    began = time.monotonic()
    running.child.signal(signal.SIGTERM)
    assert running.child.wait() == ENDED
    assert 0.9 < time.monotonic() - began < 2.5
    assert reader.wait(5) != 0, "what was cut must not look whole"
    running.child.wait_until_said("drain: 1 connections were cut")
    assert [line["outcome"] for line in running.log_lines()] == ["drained"]


def test_the_second_signal_ends_at_once(
    gateway: Start, origin: Nginx, child: Callable[..., Child], tmp_path: Any
) -> None:
    random_file(origin.folder / "html" / "slow", 20 * MiB)
    running = start(gateway, origin, drain=60)
    got = tmp_path / "got"
    reader = child(curl_command(running, "/slow", "-o", got))
    wait_for(lambda: got.exists() and got.stat().st_size > 1000)
    running.child.signal(signal.SIGTERM)
    wait_for(lambda: not accepts(running.port))
    assert running.child.running
    began = time.monotonic()
    running.child.signal(signal.SIGTERM)
    assert running.child.wait() == ENDED
    assert time.monotonic() - began < 1
    assert reader.wait(5) != 0


def test_requests_that_had_come_by_then_are_answered(gateway: Start, origin: Nginx) -> None:
    """Idle connections end at once, but not one whose next request waits to be read."""
    running = start(gateway, origin)
    connections = [running.connect() for _ in range(200)]
    for each in connections:
        assert running.ask("/", connection=each).status == 200
    fields = {"X-API-Key": running.development.credential}
    running.child.signal(signal.SIGSTOP)
    wait_for(lambda: _state(running) == "T")
    for each in connections[:-20]:
        each.request("GET", "/", headers=fields)
    running.child.signal(signal.SIGTERM)
    running.child.signal(signal.SIGCONT)
    for each in connections[:-20]:
        answer = each.getresponse()
        assert (answer.status, answer.read()) == (200, b"hello")
    for each in connections[-20:]:
        assert each.sock.recv(1) == b"", "nothing was asked on this one"
    assert running.child.wait(DRAIN / 2) == ENDED
    for each in connections:
        each.close()


def _state(running: RunningGateway) -> str:
    stat = Path(f"/proc/{running.child.process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]
