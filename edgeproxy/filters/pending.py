"""A hook that takes its time: waited for within its deadline, and no longer than the exchange."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.transport.deadlines import NEVER

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.transport.deadlines import Deadlines

_log = Logger()


class TimedOut(Exception):
    """A hook has not given its result in time."""


class Pending:
    """A Deferred or coroutine of a hook's. ``done`` when its result was there at once; else
    ``follow`` is called with it, with what it raised, or with :class:`TimedOut`.

    What is dropped, or too late, is cancelled, and whatever it still gives is not looked at.
    """

    __slots__ = ("_deadlines", "_deferred", "_follow", "_waiting", "deadline", "done", "result")

    def __init__(
        self,
        deadlines: Deadlines,
        timeout: float,
        awaited: Deferred[Any] | Coroutine[Any, Any, Any],
        follow: Callable[[Any], None],
    ) -> None:
        self._deadlines = deadlines
        self._follow = follow
        self._waiting = self.done = False
        self.result: Any = None
        self.deadline = NEVER
        if not isinstance(awaited, Deferred):
            awaited = Deferred.fromCoroutine(awaited)
        self._deferred = awaited
        awaited.addBoth(self._fired)
        if not self.done:
            self._waiting = True
            self.deadline = deadlines.clock.now() + timeout
            deadlines.waiting.add(self)

    def _fired(self, result: Any) -> None:
        if self.done:
            return
        self.done = True
        self.result = result.value if isinstance(result, Failure) else result
        if self._waiting:
            self._leave()
            self._follow(self.result)

    def drop(self) -> None:
        """Nobody waits for it any more."""
        if not self.done:
            self.done = True
            self._leave()
            self._cancel()

    def cancelled(self, exchange: Exchange) -> None:
        """From the exchange that waits: it has ended."""
        self.drop()

    def expired(self, now: float) -> None:
        """Its time is over."""
        if not self.done:
            self.done = True
            self._leave()
            self._follow(TimedOut())
            self._cancel()

    def _leave(self) -> None:
        self.deadline = NEVER
        self._deadlines.waiting.discard(self)

    def _cancel(self) -> None:
        try:
            self._deferred.cancel()
        except Exception:
            _log.failure("Cancelling what a filter waits for failed")
