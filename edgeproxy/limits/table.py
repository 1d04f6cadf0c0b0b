"""The windows of one named limit, one per caller, in a table that is bounded.

An entry that holds live admissions is never dropped: dropping it would give its caller a fresh
window. Dead ones (nothing live) are taken out by a hand that goes round the table, a few steps for
each newcomer, so that no call costs more because there are many callers. When a newcomer finds
the table full of live entries, it shares a window with all others whose hash falls into the same of
256 slots: their admissions count against each other, which errs only towards refusing.

A table outlives reloads. A caller whose rate has changed keeps its live admissions, see `group`.
(Those which had left under a shorter window are gone: a longer one binds in full after its length.)
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.limits.fields import Terms
from edgeproxy.limits.group import WindowGroup
from edgeproxy.limits.window import OwnWindow, Window, new_window

if TYPE_CHECKING:
    from edgeproxy.config.units import Rate

OVERFLOW_SLOTS = 256
# Two steps a newcomer keep ahead of any rate of arrival. When full, a newcomer pays 16 (6 µs), so
# that a flood of them stays cheap; a dead entry is then found after at most size/16 of them.
_STEPS = 2
_STEPS_WHEN_FULL = 16
_TERMS_KEPT = 64

_Entry = OwnWindow | WindowGroup


class Usage(NamedTuple):
    """A caller's standing under one limit, for people. `reset` in whole seconds."""

    quota: int
    window: float
    remaining: int
    reset: int
    shared: bool


class LimitTable:
    """All windows of the limit `name`, of at most `size` callers (and 256 shared slots).

    `overflows` counts look-ups that were answered with a shared window since the start.
    """

    __slots__ = (
        "_hand",
        "_overflow",
        "_terms",
        "_windows",
        "callers",
        "name",
        "overflows",
        "size",
    )

    def __init__(self, name: str, size: int = 100_000) -> None:
        self.name = name
        self.size = size  # may be changed; a smaller one takes effect as entries die
        self.overflows = 0
        self._windows: dict[Hashable, _Entry] = {}
        self.callers: list[Hashable] = []  # the same keys, for the hand; always the same list
        self._hand = 0
        self._overflow: list[WindowGroup | None] = [None] * OVERFLOW_SLOTS
        self._terms: dict[int, Terms] = {}

    def __len__(self) -> int:
        return len(self.callers)

    def __contains__(self, caller: Hashable) -> bool:
        """Whether the caller has a window of its own."""
        return caller in self._windows

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

    def _changed(self, caller: Hashable, window: _Entry, rate: Rate, now: float) -> _Entry:
        terms = self._terms_of(rate)
        if isinstance(window, WindowGroup):
            return window.under(terms, now)
        if window.terms.rate == rate:  # after a reload: another object, the same rate
            window.terms = terms
            return window
        group = self._windows[caller] = WindowGroup(window)
        return group.under(terms, now)

    def _newcomer(self, caller: Hashable, rate: Rate, now: float) -> Window:
        self.sweep(now, _STEPS)
        if len(self.callers) >= self.size:
            self.sweep(now, _STEPS_WHEN_FULL)
        terms = self._terms_of(rate)
        number = hash(caller) % OVERFLOW_SLOTS
        slot = self._overflow[number]
        if len(self.callers) >= self.size:
            self.overflows += 1
            if slot is None:
                slot = self._overflow[number] = WindowGroup(new_window(terms))
            return slot.under(terms, now)
        window: _Entry
        if slot is None:
            window = new_window(terms)
        elif slot.dead(now):
            self._overflow[number] = None
            window = new_window(terms)
        else:  # it may have been admitted there: what is live there counts here
            window = slot.copy(now).under(terms, now)
        self._windows[caller] = window
        self.callers.append(caller)
        return window

    def sweep(self, now: float, steps: int) -> int:
        """Move the hand over at most `steps` entries and drop the dead ones; how many were.

        Newcomers do this by themselves. A coarse timer may, to give memory back in quiet times.
        """
        callers = self.callers
        dropped = 0
        for _ in range(min(steps, len(callers))):
            if self._hand >= len(callers):
                self._hand = 0
            caller = callers[self._hand]
            window = self._windows[caller]
            if not window.dead(now):
                if isinstance(window, WindowGroup):
                    self._windows[caller] = window.simplest(now)
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
            slot = self._overflow[hash(caller) % OVERFLOW_SLOTS]
            window = None if slot is None or slot.dead(now) else slot
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
