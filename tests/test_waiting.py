"""An exchange that waits, and work that several wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from edgeproxy.waiting import Flights, Waiting


class Exchange:
    """What `Waiting` touches of an exchange."""

    def __init__(self) -> None:
        self.ended = False
        self.worker: Any = None

    def end(self) -> None:
        self.ended = True
        self.worker.cancelled(self)


@pytest.fixture
def said() -> list[Any]:
    return []


def waiting(said: list[Any], deferred: Deferred[Any]) -> Exchange:
    exchange = Exchange()
    Waiting(exchange, deferred, said.append, said.append)  # type: ignore[arg-type]
    return exchange


def test_it_goes_on_with_the_result(said: list[Any]) -> None:
    deferred: Deferred[str] = Deferred()
    exchange = waiting(said, deferred)
    assert exchange.worker is not None
    deferred.callback("so")
    assert said == ["so"]
    assert exchange.worker is None


def test_a_failure_is_told(said: list[Any]) -> None:
    deferred: Deferred[str] = Deferred()
    exchange = waiting(said, deferred)
    error = ValueError("no")
    deferred.errback(Failure(error))
    assert said == [error]
    assert exchange.worker is None


def test_what_follows_may_fail(said: list[Any]) -> None:
    deferred: Deferred[str] = Deferred()
    error = ValueError("later")

    def then(_: str) -> None:
        raise error

    Waiting(Exchange(), deferred, then, said.append)  # type: ignore[arg-type]
    deferred.callback("so")
    assert said == [error]


def test_the_end_of_the_exchange_cancels(said: list[Any]) -> None:
    cancelled: list[object] = []
    deferred: Deferred[str] = Deferred(cancelled.append)
    waiting(said, deferred).end()
    assert cancelled == [deferred]
    assert said == []


def test_a_result_for_an_ended_exchange_is_dropped(said: list[Any]) -> None:
    deferred: Deferred[str] = Deferred()
    exchange = waiting(said, deferred)
    exchange.ended = True
    deferred.callback("too late")
    assert said == []


def test_what_is_under_way_is_shared() -> None:
    flights: Flights[int] = Flights()
    begun: list[Deferred[int]] = []

    def begin() -> Deferred[int]:
        begun.append(Deferred())
        return begun[-1]

    first, second, other = (flights.join(key, begin) for key in "aab")
    assert len(begun) == len(flights) == 2
    got: list[Any] = []
    for each in (first, second):
        each.addCallback(got.append)
    begun[0].callback(7)
    assert got == [7, 7]
    flights.join("a", begin)
    assert len(begun) == 3  # what has landed is not joined
    other.addErrback(got.append)
    begun[1].errback(Failure(ValueError("no")))
    assert got[2].check(ValueError)


def test_only_the_last_who_leaves_cancels_the_work() -> None:
    flights: Flights[int] = Flights()
    cancelled: list[object] = []
    work: Deferred[int] = Deferred(cancelled.append)
    first, second = (flights.join("a", lambda: work) for _ in range(2))
    left: list[Failure] = []
    first.addErrback(left.append)
    second.addErrback(left.append)
    first.cancel()
    assert not cancelled
    assert left[0].check(CancelledError)
    second.cancel()
    assert cancelled == [work]
    assert len(left) == 2
    assert len(flights) == 0


def test_work_that_is_done_at_once() -> None:
    flights: Flights[int] = Flights()

    def begin() -> Deferred[int]:
        done: Deferred[int] = Deferred()
        done.callback(1)
        return done

    got: list[int] = []
    flights.join("a", begin).addCallback(got.append)
    assert got == [1]
    assert len(flights) == 0


class Turns:
    """A reactor that does one thing in each turn."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def callLater(self, delay: float, call: Callable[[], None]) -> None:
        self.calls.append(call)


def test_many_who_wait_are_told_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    reactor = Turns()
    passed = iter(range(10_000))
    monkeypatch.setattr("edgeproxy.slices.time.monotonic", lambda: next(passed) * 0.001)
    flights: Flights[int] = Flights(reactor)
    work: Deferred[int] = Deferred()
    told: list[int] = []
    waiting = [flights.join("a", lambda: work) for _ in range(100)]
    for each in waiting:
        each.addCallbacks(told.append, lambda _: None)
    work.callback(5)
    assert told == []
    reactor.calls.pop()()
    assert 0 < len(told) < 10
    waiting[-1].cancel()
    while reactor.calls:
        reactor.calls.pop()()
    assert told == [5] * 99
