"""One caller's window: never more than N admissions in any span of length W.

A span is half open, [s, s + W): an admission made at `a` is counted while now < a + W and has left
at a + W. So a caller that waits as long as it was told is admitted on the dot.

`ExactWindow` (N up to 1,024) keeps the moment at which each admission leaves. It holds an admission
exactly as long as it must, hence it refuses only while N are live; and since a new one is recorded
only when fewer than N are, any N + 1 admissions in a row span at least W.

`SlidingWindow` (larger N) counts admissions in sub-windows. One is opened by the first admission
after the last one closed, at `a`, stays open for W/64, and is forgotten as a whole at a + W/64 + W.
Every admission in it was made before a + W/64, so none is forgotten before its own W has passed,
and none later than W/64 after: it errs only towards refusing. Sub-windows do not overlap, so no
more than 66 are ever live.

Memory: eight bytes an admission (16 a sub-window), grown as they come and given back as they leave
(sub-windows in groups of 16).
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from typing import Protocol

from edgeproxy.limits.fields import Terms

EXACT_UP_TO = 1024
SUB_WINDOWS = 64
_GONE_KEPT = 16  # sub-windows that have left are taken out of the arrays together

_NEVER = math.inf
# (63.9 + 60) - 63.9 is a little more than 60 in floating point, and 60 s must not be told as 61.
_ROUNDING = 1e-6
_ceil = math.ceil

Admissions = list[tuple[float, int]]
"""Live admissions, oldest first: (the moment, or the latest that it can have been; how many)."""


class Window(Protocol):
    """What a request sees of a window. `now`: seconds, never less than in the call before."""

    @property
    def terms(self) -> Terms:
        """The limit's name and rate, and the bytes that tell them."""

    @property
    def remaining(self) -> int:
        """How many more are admitted: N less the live ones, as of the last `full` or `record`."""

    def full(self, now: float) -> bool:
        """Forget what has left; True when N admissions are live, that is, when to refuse."""

    def record(self, now: float) -> None:
        """Count one admission. Only after `full(now)` said False, with the same `now`."""

    def reset(self, now: float) -> int:
        """Whole seconds, rounded up, until the oldest counted admission leaves; 0 for none."""


class ExactWindow:
    """Remembers every live admission; see the module."""

    __slots__ = ("_first", "_leaves", "_span", "remaining", "terms")

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.remaining = terms.rate.count
        self._span = terms.rate.window
        self._first = _NEVER  # when the oldest leaves: the one comparison that most requests need
        self._leaves = array("d")  # when each leaves, oldest first

    def full(self, now: float) -> bool:
        if self._first <= now:
            self._forget(now)
        return self.remaining <= 0

    def record(self, now: float) -> None:
        leaves = now + self._span
        self._leaves.append(leaves)
        self.remaining -= 1
        if leaves < self._first:
            self._first = leaves

    def charge(self, now: float) -> None:
        """Count one admission made under another rate; if this window is full its oldest gives way.

        It stays as full as before: the N newest decide.
        """
        if self.full(now):
            del self._leaves[0]
            self.remaining += 1
            self._first = self._leaves[0] if self._leaves else _NEVER
        self.record(now)

    def reset(self, now: float) -> int:
        left = self._first - now
        return _ceil(left - _ROUNDING) if 0.0 < left < _NEVER else 0

    def _forget(self, now: float) -> None:
        leaves = self._leaves
        gone = bisect_right(leaves, now)
        del leaves[:gone]
        self.remaining += gone
        self._first = leaves[0] if leaves else _NEVER

    def dead(self, now: float) -> bool:
        """True when no admission is live: dropping the window then loses nothing."""
        return not self._leaves or self._leaves[-1] <= now

    def admissions(self, now: float) -> Admissions:
        """What is live, for a window that takes this one's place."""
        return [(leaves - self._span, 1) for leaves in self._leaves if leaves > now]

    def take_over(self, admissions: Admissions, now: float) -> None:
        """Into an empty window: those of `admissions` (oldest first) live under its own rate.

        Only the newest N are kept: this window is full exactly until the N-th newest leaves.
        """
        live = [made + self._span for made, count in admissions for _ in range(count)]
        live = [leaves for leaves in live if leaves > now][-self.terms.rate.count :]
        self._leaves = array("d", live)
        self._first = live[0] if live else _NEVER
        self.remaining = self.terms.rate.count - len(live)

    def __repr__(self) -> str:
        return f"<ExactWindow {self.terms.policy.decode()} remaining={self.remaining}>"


class SlidingWindow:
    """Counts admissions in sub-windows of W/64; see the module."""

    __slots__ = (
        "_counts",
        "_edge",
        "_first",
        "_gone",
        "_latest",
        "_leaves",
        "_span",
        "remaining",
        "terms",
    )

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.remaining = terms.rate.count
        self._span = terms.rate.window
        self._first = _NEVER  # when the oldest sub-window leaves
        self._edge = -_NEVER  # when the newest closes
        self._leaves = array("d")  # when each leaves, oldest first
        self._counts = array("Q")  # admissions in each; the newest's as of the last `_settle`
        self._latest = 0  # admissions in the newest: most requests then touch neither array
        self._gone = 0  # how many of the oldest have left, and are still in the two arrays

    def full(self, now: float) -> bool:
        if self._first <= now:
            self._forget(now)
        return self.remaining <= 0

    def record(self, now: float) -> None:
        self.remaining -= 1
        if now < self._edge:
            self._latest += 1
        else:
            self._open(now, 1)

    def charge(self, now: float) -> None:
        """Count one admission made under another rate; if this window is full its oldest gives way.

        It stays as full as before: the N newest decide.
        """
        if self.full(now):
            self._settle()
            self.remaining += 1
            self._counts[self._gone] -= 1
            self._latest = self._counts[-1]
            if not self._counts[self._gone]:
                self._forget(self._first)
                self._edge = self._edge if self._leaves else -_NEVER
        self.record(now)

    def reset(self, now: float) -> int:
        left = self._first - now
        return _ceil(left - _ROUNDING) if 0.0 < left < _NEVER else 0

    def _open(self, made: float, count: int) -> None:
        """A sub-window that begins with admissions made at `made`."""
        self._settle()
        self._edge = made + self._span / SUB_WINDOWS
        leaves = self._edge + self._span
        self._leaves.append(leaves)
        self._counts.append(count)
        self._latest = count
        if leaves < self._first:
            self._first = leaves

    def _settle(self) -> None:
        """Bring `_counts` up to date."""
        if self._counts:
            self._counts[-1] = self._latest

    def _forget(self, now: float) -> None:
        """Of a steady caller one sub-window leaves whenever one opens: no more work than that."""
        self._settle()
        leaves, gone, end = self._leaves, self._gone, len(self._leaves)
        while gone < end and leaves[gone] <= now:
            self.remaining += self._counts[gone]
            gone += 1
        if gone == end or gone >= _GONE_KEPT:
            del leaves[:gone], self._counts[:gone]
            gone = 0
        self._gone = gone
        self._first = leaves[gone] if leaves else _NEVER

    def dead(self, now: float) -> bool:
        """True when no admission is live: dropping the window then loses nothing."""
        return not self._leaves or self._leaves[-1] <= now

    def admissions(self, now: float) -> Admissions:
        """What is live, for a window that takes this one's place."""
        self._settle()
        # Each was made before its sub-window closed, and none in the future.
        live = zip(self._leaves[self._gone :], self._counts[self._gone :], strict=True)
        return [(min(leaves - self._span, now), n) for leaves, n in live if leaves > now]

    def take_over(self, admissions: Admissions, now: float) -> None:
        """Into an empty window: those of `admissions` (oldest first) live under its own rate.

        Only the newest N are kept: this window is full exactly until the N-th newest leaves.
        """
        live = [(made, count) for made, count in admissions if made + self._span > now]
        surplus = sum(count for _, count in live) - self.remaining
        for made, count in live:
            kept = count - min(count, max(surplus, 0))
            surplus -= count
            if not kept:
                continue
            self.remaining -= kept
            if made < self._edge:
                self._latest += kept
            else:
                self._open(made, kept)

    def __repr__(self) -> str:
        return f"<SlidingWindow {self.terms.policy.decode()} remaining={self.remaining}>"


OwnWindow = ExactWindow | SlidingWindow


def new_window(terms: Terms) -> OwnWindow:
    """The kind of window that the rate asks for, empty."""
    return ExactWindow(terms) if terms.rate.count <= EXACT_UP_TO else SlidingWindow(terms)
