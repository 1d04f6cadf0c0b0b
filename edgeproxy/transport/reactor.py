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

_log = Logger()
_READABLE = EPollReactor._POLL_IN


class DirectEPollReactor(EPollReactor):
    """See the module's text."""

    def doPoll(self, timeout: float | None) -> None:
        selectables: dict[int, Any] = self._selectables
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, len(selectables) or 1)
        except InterruptedError:
            return
        for fd, event in events:
            selectable = selectables.get(fd)
            if selectable is None:
                continue
            if event != _READABLE:
                self._doReadOrWrite(selectable, fd, event)  # type: ignore[no-untyped-call]
                continue
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
    main.installReactor(DirectEPollReactor())  # type: ignore[no-untyped-call]
