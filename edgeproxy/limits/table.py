"""The windows of one named limit, one per caller, in a table that is bounded.

An entry that holds live admissions is never dropped: dropping it would give its caller a fresh
window. Dead ones (nothing live) are taken out by a hand that goes round the table, a few steps for
each newcomer, so that no call costs more because there are many callers. When a newcomer finds
the table full of live entries, it shares a window with all others whose hash falls into the same of
256 slots: their admissions count against each other, which errs only towards refusing.

A table outlives reloads. A caller whose rate has changed keeps its live admissions. (Those which
had already left under a shorter window are gone: a longer one binds in full after its own length.)
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.limits.fields import Terms
from edgeproxy.limits.window import OwnWindow, Window, new_window

if TYPE_CHECKING:
    from edgeproxy.config.units import Rate

OVERFLOW_SLOTS = 256
# Two steps a newcomer keep ahead of any rate of arrival; 64 cost about 5 µs, paid only when full.
_STEPS = 2
_STEPS_WHEN_FULL = 64
_TERMS_KEPT = 64


class Usage(NamedTuple):
    """A caller's standing under one limit, for people. `reset` in whole seconds."""

    quota: int
    window: float
    remaining: int
    reset: int
    shared: bool


class SharedWindow:
    """An overflow slot as one rate sees it. What it records counts under every rate of the slot."""

    __slots__ = ("_own", "_slot")

    def __init__(self, slot: dict[Rate, OwnWindow], own: OwnWindow) -> None:
        self._slot = slot
        self._own = own

    @property
    def terms(self) -> Terms:
        return self._own.terms

    @property
    def remaining(self) -> int:
        return self._own.remaining

    def full(self, now: float) -> bool:
        return self._own.full(now)

    def record(self, now: float) -> None:
        for window in self._slot.values():
            window.charge(now)

    def reset(self, now: float) -> int:
        return self._own.reset(now)


class LimitTable:
    """All windows of the limit `name`, of at most `size` callers (and 256 shared slots).

    `overflows` counts look-ups that were answered with a shared window since the start.
    """

    __slots__ = (
        "_callers",
        "_hand",
        "_overflow",
        "_terms",
        "_windows",
        "name",
        "overflows",
        "size",
    )

    def __init__(self, name: str, size: int = 100_000) -> None:
        self.name = name
        self.size = size  # may be changed; a smaller one takes effect as entries die
        self.overflows = 0
        self._windows: dict[Hashable, OwnWindow] = {}
        self._callers: list[Hashable] = []  # the same keys, for the hand
        self._hand = 0
        self._overflow: list[dict[Rate, OwnWindow]] = [{} for _ in range(OVERFLOW_SLOTS)]
        self._terms: dict[int, Terms] = {}

    def __len__(self) -> int:
        return len(self._callers)

    def window(self, caller: Hashable, rate: Rate, now: float) -> Window:
        """The caller's window under `rate`, found or made. Use it at once, see the package.

        The quick way is for the very same `Rate` object as before; an equal one is as good.
        """
        window = self._windows.get(caller)
        if window is not None and window.terms.rate is rate:
            return window
        if window is None:
            return self._newcomer(caller, rate, now)
        return self._changed(caller, window, rate, now)

    def _changed(self, caller: Hashable, window: OwnWindow, rate: Rate, now: float) -> OwnWindow:
        terms = self._terms_of(rate)
        if window.terms.rate == rate:  # after a reload: another object, the same rate
            window.terms = terms
            return window
        successor = new_window(terms)
        successor.take_over(window.admissions(now), now)
        self._windows[caller] = successor
        return successor

    def _newcomer(self, caller: Hashable, rate: Rate, now: float) -> Window:
        self.sweep(now, _STEPS)
        if len(self._callers) >= self.size:
            self.sweep(now, _STEPS_WHEN_FULL)
        slot = self._overflow[hash(caller) % OVERFLOW_SLOTS]
        if len(self._callers) >= self.size:
            self.overflows += 1
            return SharedWindow(slot, self._slot_window(slot, rate, now))
        window = new_window(self._terms_of(rate))
        if slot:  # it may have been admitted there: what is live there counts here
            window.take_over(_live(slot, rate, now), now)
        self._windows[caller] = window
        self._callers.append(caller)
        return window

    def _slot_window(self, slot: dict[Rate, OwnWindow], rate: Rate, now: float) -> OwnWindow:
        window = slot.get(rate)
        if window is None:
            window = new_window(self._terms_of(rate))
            window.take_over(_live(slot, rate, now), now)
            for other in [other for other, held in slot.items() if held.dead(now)]:
                del slot[other]  # rates of former configurations
            slot[rate] = window
        return window

    def sweep(self, now: float, steps: int) -> int:
        """Move the hand over at most `steps` entries and drop the dead ones; how many were.

        Newcomers do this by themselves. A coarse timer may, to give memory back in quiet times.
        """
        callers = self._callers
        dropped = 0
        for _ in range(min(steps, len(callers))):
            if self._hand >= len(callers):
                self._hand = 0
            caller = callers[self._hand]
            if not self._windows[caller].dead(now):
                self._hand += 1
                continue
            del self._windows[caller]
            last = callers.pop()
            if self._hand < len(callers):
                callers[self._hand] = last
            dropped += 1
        return dropped

    def show(self, caller: Hashable, now: float) -> Usage | None:
        """The caller's standing, or None for one of whom nothing is held. Charges nothing."""
        window = self._windows.get(caller)
        shared = window is None
        if window is None:
            slot = self._overflow[hash(caller) % OVERFLOW_SLOTS].values()
            # It is not known under which rate the caller came: show the tightest.
            window = min((w for w in slot if not w.dead(now)), key=_room, default=None)
        if window is None:
            return None
        window.full(now)
        rate = window.terms.rate
        return Usage(rate.count, rate.window, window.remaining, window.reset(now), shared)

    def reset(self, caller: Hashable) -> bool:
        """Forget the caller's admissions. False when it has no window of its own.

        A shared one is left alone: clearing it would admit others beyond their bound.
        """
        window = self._windows.get(caller)
        if window is None:
            return False
        self._windows[caller] = new_window(window.terms)
        return True

    def _terms_of(self, rate: Rate) -> Terms:
        # By identity, so that `window` finds the very object again; held by Terms, so it stays.
        terms = self._terms.get(id(rate))
        if terms is None:
            if len(self._terms) >= _TERMS_KEPT:  # many reloads: windows hold on to their own
                self._terms.clear()
            terms = self._terms[id(rate)] = Terms(self.name, rate)
        return terms


def _room(window: OwnWindow) -> int:
    return window.remaining


def _live(slot: dict[Rate, OwnWindow], rate: Rate, now: float) -> list[tuple[float, int]]:
    """What is live in an overflow slot, as far as `rate` can tell; never less than there was.

    All windows of a slot were charged for everything, but each keeps only what its own rate needs.
    """
    if rate in slot:
        return slot[rate].admissions(now)
    return sorted(item for window in slot.values() for item in window.admissions(now))
