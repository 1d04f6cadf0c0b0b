"""One history of admissions under several rates.

The same caller may come under two rates: its plan was changed, its keys are of different plans, or
callers of different plans share an address or an overflow slot. A window knows only what its own
rate needs (the N newest, for W), so going back and forth between two would forget. A group keeps a
window for each rate and counts every admission in all of them: under whichever rate a request
comes, it is admitted only if fewer than N of *all* admissions are live.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgeproxy.limits.fields import Terms
from edgeproxy.limits.window import Admissions, OwnWindow, new_window

if TYPE_CHECKING:
    from edgeproxy.config.units import Rate


class WindowGroup:
    """A `Window` whose rate is chosen before each use, by `under`."""

    __slots__ = ("_asked", "_current", "_windows")

    def __init__(self, window: OwnWindow) -> None:
        self._current = window
        self._windows: dict[Rate, OwnWindow] = {window.terms.rate: window}
        self._asked: dict[Rate, float] = {}  # when one that is not current last was

    @property
    def terms(self) -> Terms:
        return self._current.terms

    @property
    def remaining(self) -> int:
        return self._current.remaining

    def full(self, now: float) -> bool:
        return self._current.full(now)

    def record(self, now: float) -> None:
        for window in self._windows.values():
            window.charge(now)

    def reset(self, now: float) -> int:
        return self._current.reset(now)

    def under(self, terms: Terms, now: float) -> WindowGroup:
        """This group, seen under a rate, which is new to it or not."""
        if not self._asked and terms.rate == self._current.terms.rate:  # one rate, as most have
            self._current.terms = terms
            return self
        self._asked[self._current.terms.rate] = now
        window = self._windows.get(terms.rate)
        if window is None:
            window = new_window(terms)
            window.take_over(self._admissions(now), now)
            self._windows[terms.rate] = window
        window.terms = terms  # an equal rate may have been another object, see LimitTable
        self._current = window
        self._prune(now)
        return self

    def _admissions(self, now: float) -> Admissions:
        """What any of the windows holds: of each moment, the most that one knows of.

        Never less than is live; sub-windows do not tell their moments, so these may count twice.
        """
        merged: Counter[float] = Counter()
        for window in self._windows.values():
            held: Counter[float] = Counter()
            for made, count in window.admissions(now):
                held[made] += count
            merged |= held
        return sorted(merged.items())

    def _prune(self, now: float) -> None:
        """Drop the rates under which nobody came for their whole window length."""
        self._asked.pop(self._current.terms.rate, None)
        for rate in [rate for rate, last in self._asked.items() if last + rate.window <= now]:
            del self._asked[rate], self._windows[rate]

    def simplest(self, now: float) -> OwnWindow | WindowGroup:
        """The one window that is left when the other rates are out of use, else this group."""
        self._prune(now)
        return self._current if len(self._windows) == 1 else self

    def dead(self, now: float) -> bool:
        return all(window.dead(now) for window in self._windows.values())

    def copy(self, now: float) -> WindowGroup:
        """A group of its own that has counted the same."""
        twin = WindowGroup(_copy(self._current, now))
        twin._windows |= {
            rate: _copy(window, now)
            for rate, window in self._windows.items()
            if window is not self._current
        }
        twin._asked = dict(self._asked)
        return twin


def _copy(window: OwnWindow, now: float) -> OwnWindow:
    twin = new_window(window.terms)
    twin.take_over(window.admissions(now), now)
    return twin
