"""How many requests may be repeated: a share of the recent ones, never under a floor.

Without a budget, retries multiply the load on a service that is failing under load (Envoy's
retry budgets are the precedent).
"""

from __future__ import annotations

from collections import deque

SHARE = 0.2
FLOOR = 32
SPAN = 10.0


class RetryBudget:
    """Counts plainly on the path; the window moves when :meth:`tick` is called."""

    __slots__ = ("_marks", "requests", "retries")

    def __init__(self) -> None:
        self.requests = 0
        self.retries = 0
        self._marks: deque[tuple[float, int, int]] = deque()

    def tick(self, now: float) -> None:
        """Remember the totals of this moment; called about once a second."""
        self._marks.append((now, self.requests, self.retries))
        while len(self._marks) > 1 and self._marks[1][0] <= now - SPAN:
            self._marks.popleft()

    def spend(self) -> bool:
        """Take one retry from the budget; ``False`` when it is used up."""
        requests, retries = (self._marks[0][1], self._marks[0][2]) if self._marks else (0, 0)
        if self.retries - retries >= max(FLOOR, SHARE * (self.requests - requests)):
            return False
        self.retries += 1
        return True
