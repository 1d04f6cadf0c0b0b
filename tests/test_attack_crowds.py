"""Crowds of connections that ask for nothing, against a gateway that takes only a few."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from peers_support import OK, Peer, peer
from real_support import CPU, Start
from running_support import DEADLINE, RunningGateway, wait_for

from edgeproxy.testing import Ending, MemoryGateway, Wire

MOST = 32
CONFIG: dict[str, Any] = {
    "listen": {"https": "127.0.0.1:0", "connections": MOST},
    "routes": {"*": {"/": {"page": True, "auth": "none"}}},
    "timeouts": {"drain": "1s", "handshake": "60s", "head": "60s", "keep_alive": "60s"},
}
TOLD = f"{MOST} connections are open, which is the most: the 1 that have waited longest"


class Slow:
    """A service that answers when it is told to; ``asked`` is how many requests have come."""

    def __init__(self, port: int, go: threading.Event, heads: list[bytes]) -> None:
        self.config = {
            **CONFIG,
            "upstreams": {"slow": f"http://127.0.0.1:{port}"},
            "routes": {"*": {**CONFIG["routes"]["*"], "/slow": {"to": "slow", "auth": "none"}}},
        }
        self.go = go
        self._heads = heads

    def begin(self, running: RunningGateway) -> http.client.HTTPSConnection:
        """A request that is under way, at the service."""
        before = len(self._heads)
        connection = running.connect()
        connection.request("GET", "/slow")
        wait_for(lambda: len(self._heads) > before)
        return connection


@pytest.fixture
def slow() -> Iterator[Slow]:
    go = threading.Event()
    heads: list[bytes] = []

    def serve(this: Peer, sock: Any) -> None:
        while head := sock.recv(65536):
            heads.append(head)
            go.wait(DEADLINE)
            sock.sendall(OK)

    with peer(serve) as service:
        yield Slow(service.port, go, heads)
        go.set()


class Crowd:
    """Connections from one address or many, each left where ``stage`` says."""

    def __init__(self, running: RunningGateway, stage: str) -> None:
        self._running = running
        self._stage = stage
        self._open = ExitStack()
        self._count = 0

    def come(self, count: int) -> None:
        for _ in range(count):
            self._count += 1
            source = f"127.0.{self._count % 7}.{1 + self._count % 50}"
            address = ("127.0.0.1", self._running.port)
            sock = socket.create_connection(address, DEADLINE, (source, 0))
            self._open.enter_context(sock)
            if self._stage == "says nothing":
                continue
            if self._stage == "stalls in its hello":
                sock.sendall(b"\x16\x03\x01\x02\x00\x01")
                continue
            trust = self._running.development.trust
            try:
                secure = trust.wrap_socket(sock, server_hostname="localhost")
                self._open.enter_context(secure)
                if self._stage == "begins a head":
                    secure.sendall(b"GET / HTTP/1.1\r\n")
                if self._stage == "asks once":
                    secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    secure.recv(65536)
            except (OSError, ssl.SSLError):
                pass  # it was its turn to go

    def close(self) -> None:
        self._open.close()


STAGES = ["says nothing", "stalls in its hello", "says no request", "begins a head", "asks once"]


@pytest.mark.parametrize("stage", STAGES)
def test_newcomers_are_served(gateway: Start, slow: Slow, stage: str) -> None:
    """However many there are, and whatever they left undone, one that asks is answered, and what
    is in the midst of a request stays."""
    running = gateway(slow.config)
    kept = slow.begin(running)
    crowd = Crowd(running, stage)
    try:
        for _ in range(3):
            crowd.come(MOST)
            for _ in range(5):
                assert running.ask(key=None).status == 200
        (listener,) = running.control("status")["listeners"]
        assert listener["connections"] <= MOST
        assert listener["ended_for_room"] >= MOST
        counted = running.control("counters")["counters"]["connections"]
        assert counted["ended_for_room"] >= listener["ended_for_room"]
        if stage in STAGES[:2]:
            assert counted["unfinished_handshakes"] >= MOST
        slow.go.set()
        assert kept.getresponse().status == 200
    finally:
        crowd.close()
        kept.close()
    assert running.child.said().count(TOLD) == 1, "a line for all of them"
    assert "Traceback" not in running.child.said()


def test_a_full_house_costs_no_processor_time(gateway: Start, slow: Slow) -> None:
    """All are in the midst of a request: newcomers wait, and nobody spins."""
    running = gateway({**slow.config, "listen": {"https": "127.0.0.1:0", "connections": 4}})
    busy = [slow.begin(running) for _ in range(4)]
    late = running.connect()
    late.timeout = 1.5
    cpu = CPU(running.child.process.pid)
    before = cpu.used()
    with pytest.raises(TimeoutError):
        late.connect()
    assert cpu.used() - before < 0.5
    late.close()
    running.child.wait_until_said("4 connections are open, which is the most: no more are accepted")
    slow.go.set()
    for each in busy:
        assert each.getresponse().read() == b"ok"
    assert running.ask(key=None).status == 200, "one that is idle now has gone"
    for each in busy:
        each.close()


# -- who goes, in memory -------------------------------------------------------------------------

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def small() -> Iterator[MemoryGateway]:
    yield MemoryGateway(
        "listen: { connections: 256 }\n"
        "upstreams: { shop: http://10.0.0.1:9001 }\n"
        'routes: { "*": { /: { page: true, auth: none }, /shop: { to: shop, auth: none } } }'
    )


def clients(gateway: MemoryGateway, *sent: bytes) -> list[Wire]:
    """One client after the other, each a moment later."""
    made = []
    for data in sent:
        made.append(gateway.client())
        if data:
            made[-1].send(data)
        gateway.wait(0.25)
    return made


def gone(wires: list[Wire]) -> list[int]:
    return [number for number, wire in enumerate(wires) if wire.ending is not Ending.OPEN]


def test_the_larger_crowd_gives_way_and_its_oldest_first(small: MemoryGateway) -> None:
    listening = small.gateway.listeners[0]
    idle = clients(small, GET, GET, GET)
    silent = clients(small, b"", b"GET", b"", b"", b"")
    busy = clients(small, GET.replace(b"/", b"/shop", 1))
    assert listening.make_room() == 4, "a 64th of the most"
    small.reactor.settle()
    assert (gone(idle), gone(silent), gone(busy)) == ([], [0, 1, 2, 3], [])
    assert listening.make_room() == 3
    small.reactor.settle()
    assert (gone(idle), gone(silent), gone(busy)) == ([0, 1, 2], [0, 1, 2, 3], [])
    assert all(each.ending is Ending.ENDED for each in idle), "in order"
    assert [listening.make_room(), listening.make_room()] == [1, 0]
    small.reactor.settle()
    assert (gone(silent), gone(busy)) == ([0, 1, 2, 3, 4], [])
    assert listening.made_room == 8
