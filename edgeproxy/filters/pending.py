"""A hook that takes its time: waited for within its deadline, and no longer than the exchange."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import DebugInfo, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.transport.deadlines import NEVER

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.filters.chain import Entry
    from edgeproxy.transport.deadlines import Deadlines

_log = Logger()

#: Hooks of one filter that wait at a time with no request behind them; the rest is cancelled.
_MOST_BESIDE = 1000


class TimedOut(Exception):
    """A hook has not given its result in time."""


class _Shared(DebugInfo):
    """What is known here of one Deferred: who waits for it, and the failure that they have seen.

    A failure stays in its Deferred, for whoever asks next; Twisted would say of it that nobody
    has handled it, unless this stands where it looks.
    """

    def __init__(self) -> None:
        self.waiting: list[Pending] = []
        self.seen: Failure | None = None

    def __del__(self) -> None:
        if self.failResult is not self.seen:
            super().__del__()


def _shared(deferred: Deferred[Any]) -> _Shared:
    before = deferred._debugInfo
    if isinstance(before, _Shared):
        return before
    if before is not None:
        before.failResult = None
    deferred._debugInfo = made = _Shared()
    return made


class Pending:
    """A Deferred or coroutine of a hook's. ``done`` when its result was there at once; else
    ``follow`` is called with it, with what it raised, or with :class:`TimedOut`.

    Several may wait for one Deferred: its result is the same for all of them, also for those who
    come later. When the last is dropped, or when it is too late, it is cancelled, and whatever it
    still gives is not looked at. It is too late for all whose ``timeout`` is no longer than that
    of the first who has waited for so long: else newcomers would keep alive what never ends. One
    that is ``beside``, with no request behind it, ends for itself alone.
    """

    __slots__ = (
        "_beside",
        "_deadlines",
        "_deferred",
        "_follow",
        "_shared",
        "_timeout",
        "_waiting",
        "deadline",
        "done",
        "result",
    )

    def __init__(
        self,
        deadlines: Deadlines,
        timeout: float,
        awaited: Deferred[Any] | Coroutine[Any, Any, Any],
        follow: Callable[[Any], None],
        *,
        beside: bool = False,
    ) -> None:
        self._beside = beside
        self._deadlines = deadlines
        self._timeout = timeout
        self._follow = follow
        self._waiting = self.done = False
        self.result: Any = None
        self.deadline = NEVER
        if not isinstance(awaited, Deferred):
            awaited = Deferred.fromCoroutine(awaited)
        self._deferred = awaited
        self._shared = _shared(awaited)
        awaited.addBoth(self._fired)
        if not self.done:
            self._waiting = True
            self._shared.waiting.append(self)
            self.deadline = deadlines.clock.now() + timeout
            deadlines.waiting.add(self)

    def _fired(self, result: Any) -> Any:
        if isinstance(result, Failure):
            self._shared.seen = result
        if not self.done:
            self.done = True
            self.result = result.value if isinstance(result, Failure) else result
            if self._waiting:
                self._leave()
                self._follow(self.result)
        return result

    def drop(self) -> None:
        """Nobody waits for it any more, here."""
        if not self.done:
            self.done = True
            self._leave()
            self._cancel()

    def cancelled(self, exchange: Exchange) -> None:
        """From the exchange that waits: it has ended."""
        self.drop()

    def expired(self, now: float) -> None:
        """Its time is over."""
        late = [self]
        if not self._beside:
            late = [each for each in self._shared.waiting if each._timeout <= self._timeout]
        for each in late:
            if not each.done:
                each.done = True
                each._leave()
                each._follow(TimedOut())
        self._cancel()

    def _leave(self) -> None:
        self.deadline = NEVER
        self._deadlines.waiting.discard(self)
        self._shared.waiting.remove(self)

    def _cancel(self) -> None:
        if self._shared.waiting:
            return
        try:
            self._deferred.cancel()
        except Exception:
            _log.failure("Cancelling what a filter waits for failed")


def beside(
    deadlines: Deadlines,
    entry: Entry,
    awaited: Deferred[Any] | Coroutine[Any, Any, Any],
    judge: Callable[[Any], object],
) -> None:
    """Let a hook take its time, while no request waits for it; ``judge`` is called with what it
    gives."""
    made, began = entry.made, perf_counter()

    def follow(result: Any) -> None:
        made.beside -= 1
        entry.counts.seconds += perf_counter() - began
        judge(result)

    pending = Pending(deadlines, entry.timeout, awaited, follow, beside=True)
    if pending.done:
        judge(pending.result)
        return
    made.beside += 1
    if made.beside > _MOST_BESIDE:
        pending.expired(0.0)
