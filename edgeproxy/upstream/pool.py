"""Which connection to a target is used, kept, closed or waited for: decisions only, no I/O.

Each method changes the pool's mind first and returns what the caller has to do.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar


class Pooled(Protocol):
    """A connection as the pool sees it: since when it has been idle, in monotonic seconds."""

    idle_since: float


C = TypeVar("C", bound=Pooled)
W = TypeVar("W")


class Pool(Generic[C, W]):
    """The connections to one target and the exchanges that wait for one.

    ``cap`` bounds all connections (idle, busy, and being made), ``queue`` those who wait,
    ``idle_for`` is how long an unused connection is kept, in seconds.
    """

    __slots__ = ("cap", "idle", "idle_for", "open", "queue", "waiting")

    def __init__(self, cap: int, queue: int, idle_for: float) -> None:
        self.cap = cap
        self.queue = queue
        self.idle_for = idle_for
        self.idle: list[C] = []  # the one used last stands last
        self.open = 0
        self.waiting: deque[W] = deque()

    def __repr__(self) -> str:
        return (
            f"<Pool open={self.open}/{self.cap} idle={len(self.idle)} waiting={len(self.waiting)}>"
        )

    @property
    def room(self) -> bool:
        """Whether nobody has to wait: a connection is idle, or one more may be made."""
        return self.open < self.cap or bool(self.idle)

    def take(self, now: float, fresh: float) -> C | None:
        """The idle connection used last; none that was idle for longer than ``fresh`` seconds."""
        idle = self.idle
        if not idle or now - idle[-1].idle_since > fresh:
            return None
        return idle.pop()

    def reserve(self) -> tuple[bool, C | None]:
        """Count a new connection in, if the cap allows.

        :return: whether to make it, and an idle connection to close in exchange for it.
        """
        if self.open < self.cap:
            self.open += 1
            return True, None
        if self.idle:
            return True, self.idle.pop(0)
        return False, None

    def wait(self, who: W) -> bool:
        """Queue up; ``False`` when too many are waiting."""
        if len(self.waiting) >= self.queue:
            return False
        self.waiting.append(who)
        return True

    def give(self, connection: C, now: float) -> W | None:
        """Take a connection back that can be used again; whoever waits gets it at once."""
        if self.waiting:
            return self.waiting.popleft()
        connection.idle_since = now
        self.idle.append(connection)
        return None

    def gone(self, connection: C | None) -> W | None:
        """A connection, or an attempt at one, has ended; who waits may make a new one."""
        if connection is not None and connection in self.idle:
            self.idle.remove(connection)
        self.open -= 1
        # One that was closed to make room for another has left no room behind.
        return self.waiting.popleft() if self.waiting and self.open < self.cap else None

    def leave(self, who: W) -> None:
        """Wait no longer."""
        try:
            self.waiting.remove(who)
        except ValueError:
            pass

    def expire(self, now: float) -> list[C]:
        """Take out the idle connections whose time is over; they are to be closed."""
        idle = self.idle
        count = 0
        while count < len(idle) and now - idle[count].idle_since > self.idle_for:
            count += 1
        old, idle[:count] = idle[:count], []
        return old

    def empty(self) -> list[C]:
        """Take out all idle connections; they are to be closed."""
        old, self.idle = self.idle, []
        return old
