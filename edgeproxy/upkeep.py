"""What a running gateway does from time to time, whether or not anybody asks anything of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

from edgeproxy.certs.contexts import ServerTLS
from edgeproxy.limits.table import LimitTable

TICKET_KEYS = 86400.0
"""Seconds that session ticket keys live: who steals one can read what was resumed with it. A day,
as Mozilla's guidelines advise; nginx keeps its own as long as the process lives."""

# Steps of one sweep: 1,000 a second in each of ten tables, a quarter of a millisecond in all.
_STEPS = 2500
_STEPS_IN_ONE = 250
# Parts of what is not in force any more that one sweep lets go of: 3 µs each.
_PARTS = 1000


class Upkeep:
    """Forgets callers that are long gone and routes that were replaced, and makes new session
    ticket keys.

    A :class:`edgeproxy.transport.deadlines.Waiting` that is told of each sweep. ``tables`` gives
    the limits' tables in force; ``now`` is monotonic seconds.
    """

    def __init__(
        self, tls: ServerTLS, tables: Callable[[], Iterable[LimitTable]], now: float
    ) -> None:
        self.deadline = 0.0
        self._tls = tls
        self._tables = tables
        self._rotation = now + TICKET_KEYS
        self._replaced: list[tuple[weakref.ref[object], list[object]]] = []

    def let_go(self, whole: object, parts: list[object]) -> None:
        """Free ``parts`` a few at a time, once nobody holds ``whole``, which is made of them:
        five thousand routes take 15 ms."""
        self._replaced.append((weakref.ref(whole), parts))

    def expired(self, now: float) -> None:
        tables = [table for table in self._tables() if len(table)]
        if tables:
            steps = max(1, min(_STEPS_IN_ONE, _STEPS // len(tables)))
            for table in tables:
                table.sweep(now, steps)
        if now >= self._rotation:
            self._rotation = now + TICKET_KEYS
            self._tls.rotate()
        if self._replaced:
            self._release()

    def _release(self) -> None:
        for whole, parts in self._replaced:
            if whole() is None:
                del parts[-_PARTS:]
        self._replaced = [each for each in self._replaced if each[1]]
