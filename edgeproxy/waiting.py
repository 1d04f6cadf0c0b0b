"""Exchanges that wait for an answer from elsewhere: a key set, an endpoint, a filter.

Nothing of this is on the way of a request that need not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from edgeproxy.exchange import Exchange
from edgeproxy.slices import in_slices

T = TypeVar("T")

_FEW = 20
"""Waiters that are told at once: some milliseconds, if each verifies a signature."""


class Waiting:
    """An exchange whose next phase begins when a Deferred has fired.

    If the exchange ends before (its client went away, the gateway drained), the Deferred is
    cancelled, and nothing follows. `failed` takes what the Deferred, or `then`, raised.
    """

    __slots__ = ("_deferred", "_exchange", "_failed", "_then")

    def __init__(
        self,
        exchange: Exchange,
        deferred: Deferred[T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._exchange = exchange
        self._deferred = deferred
        self._then = then
        self._failed = failed
        exchange.worker = self
        deferred.addCallbacks(self._go_on, self._stop)

    def cancelled(self, exchange: Exchange) -> None:
        """From the exchange: it has ended."""
        self._deferred.cancel()

    def _go_on(self, result: Any) -> None:
        exchange = self._exchange
        if exchange.ended:
            return
        exchange.worker = None
        try:
            self._then(result)
        except Exception as error:
            self._failed(error)

    def _stop(self, failure: Failure) -> None:
        exchange = self._exchange
        if exchange.ended:
            return
        exchange.worker = None
        error = failure.value
        if not isinstance(error, Exception):
            error = CancelledError()
        self._failed(error)


class Flights(Generic[T]):
    """Work under way, shared: who asks for what is being fetched already waits for that.

    Each caller has a Deferred of its own, so that one that is cancelled disturbs no other; when
    the last has gone the work itself is cancelled. With a `reactor` they are told in slices, since
    each may go a long way then, and there may be thousands.
    """

    def __init__(self, reactor: Any = None) -> None:
        self._reactor = reactor
        self._under_way: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def join(self, key: Hashable, begin: Callable[[], Deferred[T]]) -> Deferred[T]:
        """The result of the work named `key`, which `begin` begins unless it is under way."""
        flight = self._under_way.get(key)
        if flight is None:
            flight = _Flight[T](self._reactor)
            self._under_way[key] = flight
            waiter = flight.board()
            work = flight.work = begin()

            def land(result: T | Failure) -> None:
                if self._under_way.get(key) is flight:
                    del self._under_way[key]
                flight.land(result)

            work.addBoth(land)
            return waiter
        return flight.board()


class _Flight(Generic[T]):
    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.work: Deferred[T] | None = None
        self._waiters: list[Deferred[T]] = []

    def board(self) -> Deferred[T]:
        waiter: Deferred[T] = Deferred(self._leave)
        self._waiters.append(waiter)
        return waiter

    def land(self, result: Any) -> None:
        waiters, self._waiters = self._waiters, []
        telling = _tell(waiters, result)
        if self._reactor is None or len(waiters) <= _FEW:
            for _ in telling:
                pass
        else:
            in_slices(self._reactor, telling)

    def _leave(self, waiter: Deferred[T]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            if not self._waiters and self.work is not None:
                self.work.cancel()


def _tell(waiters: list[Deferred[Any]], result: Any) -> Generator[None, None, None]:
    for waiter in waiters:
        waiter.callback(result)  # a Failure makes an errback of it
        yield
