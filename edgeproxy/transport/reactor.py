"""An epoll reactor that spends less per event.

Twisted's wraps each event in ``log.callWithLogger`` and ``callWithContext``, 2 to 3 µs that only
serve to name a system in legacy log lines. This one calls a readable descriptor directly; every
other event, and every failure, goes Twisted's own way. Stock reactors keep working: nothing in
the gateway depends on this one.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import main
from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

from edgeproxy.transport.stream import Outbox

_log = Logger()
#: Events of one turn: the first of them waits for its answer until all have been looked at.
_MOST = 64
_READABLE = EPollReactor._POLL_IN


class DirectEPollReactor(EPollReactor):
    """See the module's text. ``outbox`` collects what streams write in the course of a turn."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        super().__init__()  # type: ignore[no-untyped-call]

    def doPoll(self, timeout: float | None) -> None:
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, _MOST)
        except InterruptedError:
            return
        outbox = self.outbox
        outbox.open = True
        try:
            self._go_round(events)
        finally:
            outbox.flush()

    def _go_round(self, events: list[tuple[int, int]]) -> None:
        """Look at all events: answers of services before new requests of clients, which then find
        the connections that have become free."""
        selectables: dict[int, Any] = self._selectables
        last = []
        for fd, event in events:
            selectable = selectables.get(fd)
            if selectable is None:
                continue
            if event != _READABLE:
                self._doReadOrWrite(selectable, fd, event)  # type: ignore[no-untyped-call]
            elif getattr(selectable, "last", False):
                last.append(selectable)
            else:
                self._read(selectable)
        for stream in last:
            if not stream.disconnected:
                self._read(stream)

    def _read(self, selectable: Any) -> None:
        try:
            why = selectable.doRead()
        except BaseException as error:
            _log.failure("A descriptor's reader failed")
            why = error
        if why:
            self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]

    doIteration = doPoll


def install() -> None:
    """Make this the process's reactor; called by the reactor plugin and by the tap."""
    main.installReactor(DirectEPollReactor())
