"""What signals mean to a running gateway.

SIGTERM, SIGINT   drain; the second one ends what is left at once
SIGHUP            reload
SIGUSR1           begin a new access log; then what twistd does with its own log
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeproxy.service import Gateway


class Signals:
    """Handlers in front of those that are there: the reactor's and twistd's stay in charge of
    what they do. ``install`` is called once the reactor runs."""

    def __init__(self, reactor: Any, gateway: Gateway) -> None:
        self._reactor = reactor
        self._gateway = gateway
        self._before: dict[int, Any] = {}
        self._ending = False

    def install(self) -> None:
        """Python allows that in the main thread only; elsewhere somebody else handles signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not callable: ignored, or the reactor was told to leave signals alone.
            if callable(signal.getsignal(number)):
                self._put(number, self._end)
        self._put(signal.SIGHUP, self._reload)
        self._put(signal.SIGUSR1, self._reopen)

    def restore(self) -> None:
        """Put back what was there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _put(self, number: signal.Signals, handler: Any) -> None:
        self._before[number] = signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._ending or self._gateway.draining is not None:
            self._reactor.callFromThread(self._gateway.cut)
            return
        self._ending = True
        self._before[number](number, frame)

    def _reload(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._gateway.reloader.reload)

    def _reopen(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._gateway.log.reopen)
        before = self._before.get(number)
        if callable(before):
            before(number, frame)
