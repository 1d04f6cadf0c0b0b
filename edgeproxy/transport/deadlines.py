"""Deadlines without a timer per request: one coarse sweep over everything that may wait.

Setting a deadline is one attribute assignment; a timer of the reactor costs a heap operation and
an object. The price is coarseness: a deadline is seen at most :data:`INTERVAL` late.
"""

from __future__ import annotations

from collections.abc import MutableSet
from time import monotonic, time
from typing import Any, Protocol

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger()

#: Seconds between two sweeps.
INTERVAL = 0.25

NEVER = float("inf")


class Waiting(Protocol):
    """Something with a deadline, in monotonic seconds; ``NEVER`` when it waits for nothing."""

    deadline: float

    def expired(self, now: float) -> None: ...


class Clock:
    """The two clocks of a process, replaced as one in tests.

    ``now()`` is monotonic seconds: deadlines and windows. ``epoch`` added to it gives unix time:
    key expiry and the log; it is refreshed at each sweep, so that a clock that was set is noticed.
    """

    def __init__(self) -> None:
        self.now = monotonic
        self.refresh()

    def refresh(self) -> None:
        self.epoch = time() - self.now()


class Deadlines:
    """The things that wait, and the sweep that tells those whose time has come."""

    def __init__(self, reactor: Any, clock: Clock) -> None:
        self.clock = clock
        self.waiting: MutableSet[Any] = set()
        self._loop = LoopingCall(self.sweep)
        self._loop.clock = reactor

    def start(self) -> None:
        self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def sweep(self) -> None:
        self.clock.refresh()
        now = self.clock.now()
        for each in [w for w in self.waiting if w.deadline <= now]:
            # What another did about its own deadline may have moved this one.
            if each.deadline <= now:
                try:
                    each.expired(now)
                except Exception:
                    _log.failure("A deadline failed")  # and the others have to hold all the same
