"""Things that may come by the thousand, and are told once a minute."""

from __future__ import annotations

#: Seconds between two lines about the same thing.
PAUSE = 60.0


class Burst:
    """Counts one kind of thing; ``count`` is how many there were since the start."""

    __slots__ = ("_next", "count")

    def __init__(self) -> None:
        self.count = 0
        self._next = float("-inf")

    def another(self, now: float) -> bool:
        """One more, at ``now`` (monotonic seconds); whether it is time for a line."""
        self.count += 1
        if now < self._next:
            return False
        self._next = now + PAUSE
        return True
