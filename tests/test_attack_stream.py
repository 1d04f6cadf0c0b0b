"""Streams on real sockets, and our reactor, against peers that read slowly or speak unasked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from edgeproxy.transport.deadlines import Deadlines
from edgeproxy.transport.reactor import DirectEPollReactor
from edgeproxy.transport.stream import Stream

BIG = b"x" * 3_000_000


class Heard:
    """A protocol that remembers what it was told, and does ``then`` about what it received."""

    def __init__(self) -> None:
        self.said: list[tuple[str, object]] = []
        self.then: Any = None

    def received(self, data: bytes) -> None:
        self.said.append(("received", data))
        if self.then is not None:
            self.then(data)

    def drained(self) -> None:
        self.said.append(("drained", None))

    def lost(self, clean: bool) -> None:
        self.said.append(("lost", clean))

    def secured(self) -> None:
        self.said.append(("secured", None))


class Pair:
    """A stream of ``reactor`` and the far end of its socket."""

    def __init__(self, reactor: Any) -> None:
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.far.settimeout(5.0)
        self.protocol = Heard()
        self.stream = Stream(reactor, near, self.protocol)
        self.stream.resume_reading()

    def read_to_end(self, reactor: Any) -> bytes:
        """All that comes, while the reactor turns."""
        self.far.setblocking(False)
        got = b""
        for _ in range(100_000):
            reactor.iterate(0)
            try:
                data = self.far.recv(65536)
            except BlockingIOError:
                continue
            if not data:
                return got
            got += data
        raise AssertionError(f"no end after {len(got)} bytes")


@pytest.fixture
def reactor() -> Iterator[DirectEPollReactor]:
    made = DirectEPollReactor()
    yield made
    for each in made.removeAll():  # type: ignore[no-untyped-call]
        each.socket.close()
    made._poller.close()


def turn(reactor: DirectEPollReactor) -> None:
    reactor.iterate(0)


@pytest.mark.parametrize("how", ["close", "finish"])
def test_what_was_written_in_the_turn_of_the_end_arrives_whole(
    reactor: DirectEPollReactor, how: str
) -> None:
    """The kernel may take only part of what is handed over when the turn ends."""
    pair = Pair(reactor)

    def answer_and_end(data: bytes) -> None:
        pair.stream.write(BIG)
        getattr(pair.stream, how)()

    pair.protocol.then = answer_and_end
    pair.far.sendall(b"?")
    turn(reactor)
    assert len(pair.read_to_end(reactor)) == len(BIG)


def test_bytes_read_but_not_looked_at_yet_make_a_stream_unfit(reactor: DirectEPollReactor) -> None:
    """What a service says unasked must not answer the request that is sent there next."""
    pairs = [Pair(reactor) for _ in range(2)]
    seen: list[bool] = []
    for mine, other in (pairs, pairs[::-1]):
        mine.protocol.then = lambda data, other=other: seen.append(other.stream.quiet())
    for pair in pairs:
        pair.far.sendall(b"!")
    turn(reactor)
    assert len(seen) == 2
    assert seen[0] is False


def test_more_events_than_one_look_takes_hide_none(reactor: DirectEPollReactor) -> None:
    """Who keeps many connections busy must not make a dead pooled connection look alive."""
    service = Pair(reactor)
    clients = [Pair(reactor) for _ in range(200)]
    wrong: list[int] = []

    def check(number: int) -> None:
        heard = bool(service.protocol.said)
        if not heard and service.stream.quiet():
            wrong.append(number)

    for number, client in enumerate(clients):
        client.stream.last = True
        client.protocol.then = lambda data, number=number: check(number)
        client.far.sendall(b"?")
    service.far.sendall(b"!")
    for _ in range(10):
        turn(reactor)
    assert service.protocol.said == [("received", b"!")]
    assert all(client.protocol.said for client in clients)
    assert wrong == []
    for client in clients:
        client.stream.abort()
        client.far.close()
    turn(reactor)


def test_it_is_fit_again_afterwards(reactor: DirectEPollReactor) -> None:
    pair = Pair(reactor)
    pair.far.sendall(b"!")
    turn(reactor)
    assert pair.protocol.said == [("received", b"!")]
    assert pair.stream.quiet()


def test_what_the_kernel_took_late_counts_as_written(reactor: DirectEPollReactor) -> None:
    """A request of which something was written is not repeated."""
    pair = Pair(reactor)
    pair.stream.write(BIG)
    before = pair.stream.writes
    pair.stream.write(b"POST")
    assert pair.stream.writes == before
    got = 0
    while got < len(BIG):
        turn(reactor)
        got += len(pair.far.recv(65536))
    turn(reactor)
    assert pair.stream.backlog == 0
    assert pair.stream.writes > before


def test_one_stream_that_fails_keeps_no_other_from_writing(
    reactor: DirectEPollReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good, asked = Pair(reactor), Pair(reactor), Pair(reactor)

    def fail(*_: object) -> None:
        raise MemoryError

    def write_both(data: bytes) -> None:
        bad.stream.write(b"bad")
        good.stream.write(b"good")

    monkeypatch.setattr(type(bad.stream), "_write", _failing_for(bad.stream))
    asked.protocol.then = write_both
    asked.far.sendall(b"?")
    turn(reactor)
    assert good.far.recv(10) == b"good"
    turn(reactor)
    assert bad.stream.disconnected


def _failing_for(stream: Stream) -> Any:
    real = Stream._write

    def write(self: Stream, data: bytes) -> None:
        if self is stream:
            raise MemoryError
        real(self, data)

    return write


def test_one_deadline_that_fails_stops_no_other() -> None:
    from twisted.internet.task import Clock as TaskClock

    from edgeproxy.transport.deadlines import Clock

    class Due:
        deadline = 0.0
        told = 0

        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def expired(self, now: float) -> None:
            self.told += 1
            if self.fails:
                raise RuntimeError("on purpose")

    reactor = TaskClock()
    deadlines = Deadlines(reactor, Clock())
    due = [Due(fails) for fails in (True, False, True, False)]
    deadlines.waiting.update(due)
    deadlines.start()
    reactor.advance(1)
    reactor.advance(1)
    assert all(each.told >= 2 for each in due)


def test_a_deadline_that_was_moved_meanwhile_has_not_passed() -> None:
    from twisted.internet.task import Clock as TaskClock

    from edgeproxy.transport.deadlines import Clock

    class Due:
        deadline = 0.0
        other: Any = None

        def expired(self, now: float) -> None:
            assert self.other.deadline != float("inf"), "told of a deadline that it has no more"
            self.other.deadline = float("inf")

    reactor = TaskClock()
    deadlines = Deadlines(reactor, Clock())
    one, two = Due(), Due()
    one.other, two.other = two, one
    deadlines.waiting.update((one, two))
    deadlines.sweep()
    assert sorted((one.deadline, two.deadline)) == [0.0, float("inf")]
