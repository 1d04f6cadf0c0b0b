"""A stream that has ended and its protocol hold each other no longer: memory comes back at once,
not when the collector comes by."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.selectreactor import SelectReactor

from edgeproxy.transport.stream import Stream


class Ends:
    """A protocol that holds its stream, as all of them do."""

    def __init__(self) -> None:
        self.stream: Stream
        self.ends: list[bool] = []

    def received(self, data: bytes) -> None: ...
    def drained(self) -> None: ...
    def secured(self) -> None: ...

    def lost(self, clean: bool) -> None:
        self.ends.append(clean)


@pytest.fixture
def reactor() -> Iterator[SelectReactor]:
    made = SelectReactor()
    yield made
    for each in made.removeAll():
        each.connectionLost(None)


@pytest.fixture
def uncollected() -> Iterator[None]:
    before = gc.isenabled()
    gc.disable()
    yield
    if before:
        gc.enable()


@pytest.mark.parametrize("how", ["aborted", "finished", "left"])
@pytest.mark.usefixtures("uncollected")
def test_nothing_is_left_to_the_collector(reactor: SelectReactor, how: str) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    protocol = Ends()
    ends = protocol.ends
    stream = protocol.stream = Stream(reactor, near, protocol)
    known = weakref.ref(protocol), weakref.ref(stream)
    stream.resume_reading()
    end: dict[str, Callable[[], None]] = {
        "aborted": stream.abort,
        "finished": stream.finish,
        "left": far.close,
    }
    end[how]()
    del end, protocol, stream
    for _ in range(3):
        reactor.iterate(0)
    assert len(ends) == 1
    assert [each() for each in known] == [None, None]
    far.close()
