"""What the gateway tells systemd: sd_notify(3), and the watchdog.

One datagram to the socket in ``$NOTIFY_SOCKET``, of lines ``NAME=value``:

    READY=1                          it serves; also the end of a reload
    RELOADING=1, MONOTONIC_USEC=…    a reload has begun (the time is for Type=notify-reload)
    STOPPING=1, EXTEND_TIMEOUT_USEC= a drain has begun, and how long it may take
    WATCHDOG=1                       the reactor turns, at half of $WATCHDOG_USEC
    STATUS=…                         a line for `systemctl status`

Without a socket nothing is told, and nothing else changes. The variables are taken out of the
environment, so that no child speaks in our name.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger()

_PATIENCE = 0.1  # seconds that systemd may take to make room for a datagram
_LONGEST = 1000  # characters of a status line
_DIGITS = 18  # of a time in microseconds: 30,000 years
_MARGIN = 10.0  # seconds for what follows the drain itself


class Notify:
    """See the module's text. ``environ`` is changed; an empty one makes it silent."""

    def __init__(self, reactor: Any, environ: MutableMapping[str, str]) -> None:
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        self._interval = _interval(
            environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        )
        self._failing = False
        self._watchdog = LoopingCall(self._send, "WATCHDOG=1")
        self._watchdog.clock = reactor

    def ready(self, status: str) -> None:
        """It serves, or does so again after a reload."""
        self._send("READY=1", f"STATUS={_one_line(status)}")
        if self._interval and self._address and not self._watchdog.running:
            self._watchdog.start(self._interval)

    def reloading(self) -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def stopping(self, status: str, drain: float) -> None:
        """A drain of at most ``drain`` seconds has begun."""
        longest = int((drain + _MARGIN) * 1e6)
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={longest}", f"STATUS={_one_line(status)}")

    def end(self) -> None:
        """No more signs of life."""
        if self._watchdog.running:
            self._watchdog.stop()

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_PATIENCE)
                sock.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._failing = True
                _log.warn("systemd cannot be told {what}: {why}", what=lines[0], why=str(error))


def _address(text: str) -> str:
    """A path, or an abstract name, which is written with ``@``; other families (``vsock:``) are
    for virtual machines."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _interval(usec: str, pid: str) -> float:
    """Seconds between two signs of life, 0 for none: sd_watchdog_enabled(3)."""
    if (
        not (usec.isascii() and usec.isdigit())
        or len(usec) > _DIGITS
        or (pid and pid != str(os.getpid()))
    ):
        return 0.0
    return int(usec) / 2e6


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
