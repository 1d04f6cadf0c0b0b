"""Connections that wait for their PROXY head: what becomes of them in a drain, in memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from edgeproxy.announced import Announced
from edgeproxy.testing import MemoryGateway

CONFIG = """
listen: { proxy_protocol: 10.0.0.5 }
timeouts: { handshake: 10s, close: 2s, drain: 30s }
routes: { "*": { /: { page: true, auth: none } } }
"""
V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 8080 443\r\n"


class Waiting:
    """A gateway with one connection from its balancer; ``far`` is the balancer's end."""

    def __init__(self) -> None:
        self.gateway = MemoryGateway(CONFIG)
        self.listening = self.gateway.gateway.listeners[0]
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.far.settimeout(5.0)
        self.listening.port.open += 1
        self.listening._accept(near, ("10.0.0.5", 50000))
        (only,) = self.listening.connections
        assert isinstance(only, Announced)

    @property
    def over(self) -> bool:
        gone = not self.listening.connections
        assert self.listening.port.open == (0 if gone else 1)
        return gone


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    made = Waiting()
    yield made
    made.far.close()
    made.gateway.wait(60)
    assert made.over
    assert not any(isinstance(each, Announced) for each in made.gateway.gateway.deadlines.waiting)


def test_its_time_without_a_drain(waiting: Waiting) -> None:
    waiting.gateway.wait(9)
    assert not waiting.over
    waiting.gateway.wait(1.5)
    assert waiting.over
    assert waiting.far.recv(1) == b""


def test_a_drain_leaves_it_as_long_as_whoever_has_just_connected(waiting: Waiting) -> None:
    done = waiting.gateway.gateway.drain()
    waiting.gateway.wait(1.5)
    assert not waiting.over
    waiting.gateway.wait(1)
    assert waiting.over
    assert done.called
    assert waiting.far.recv(1) == b""


def test_a_drain_never_gives_it_more(waiting: Waiting) -> None:
    waiting.gateway.wait(9)
    waiting.gateway.gateway.drain()
    waiting.gateway.wait(1.5)
    assert waiting.over


def test_its_head_in_a_drain(waiting: Waiting) -> None:
    """The connection that follows has no more than that either."""
    waiting.gateway.gateway.drain()
    waiting.gateway.wait(1)
    waiting.far.sendall(V1)
    waiting.gateway.wait(1.5)
    (client,) = waiting.listening.connections
    assert not isinstance(client, Announced)
    assert client.peer.address == "192.0.2.7"
    waiting.gateway.wait(1)
    assert waiting.over


def test_the_end_of_a_drain_cuts_it(waiting: Waiting) -> None:
    done = waiting.gateway.gateway.drain()
    waiting.gateway.gateway.cut()
    assert waiting.over
    assert done.called
    assert waiting.far.recv(1) == b""
