"""The access log: one JSON object a line for every request that had a request line.

No line ever holds a secret: keys, tokens and cookies are not in it, and of a query only the names
of its parameters are. Lines are collected and written in batches.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from time import gmtime, strftime
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from edgeproxy.exchange import Exchange, Outcome, Peer
from edgeproxy.transport.deadlines import Clock

_log = Logger()

#: Bytes that are collected before they are written at once.
_BATCH = 65536
_INTERVAL = 1.0
_VALUE = re.compile(rb"=[^&]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f\x7f-\xff]*+\Z')
_OK = Outcome.OK


def quoted(text: str) -> bytes:
    """``text`` as a JSON string; control characters are escaped, all of it is ASCII."""
    return json.dumps(text).encode("ascii")


def _string(text: bytes) -> bytes:
    """Bytes from the wire as a JSON string, each byte a character."""
    return b'"%b"' % text if _PLAIN.match(text) else quoted(text.decode("latin-1"))


@lru_cache(4096)
def _principal(id: str) -> bytes:
    return quoted(id)


class AccessLog:
    """See the module's text.

    ``destination`` is a path, ``-`` for standard output, or ``off``. A file that cannot be
    written loses lines, which are counted, never requests.
    """

    def __init__(self, reactor: Any, clock: Clock, destination: Path | str) -> None:
        self._destination = destination
        self._clock = clock
        self._lines: list[bytes] = []
        self._size = 0
        self._second = -1
        self._stamp = b""
        self._fd = -1
        self.lost = 0
        self._failing = False
        self._loop = LoopingCall(self.flush)
        self._loop.clock = reactor
        self.record: Callable[[Exchange], None] = (
            self._skip if destination == "off" else self._record
        )

    def start(self) -> None:
        """Open the file.

        :raises OSError: it cannot be opened.
        """
        self._fd = self._open()
        self._loop.start(_INTERVAL, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        self.flush()
        if self._fd > 2:
            os.close(self._fd)
        self._fd = -1

    def reopen(self) -> None:
        """Begin a new file after the old one was renamed."""
        self.flush()
        old, self._fd = self._fd, -1
        if old > 2:
            os.close(old)
        try:
            self._fd = self._open()
        except OSError as error:
            _log.error("access log: {why}", why=str(error))

    def _open(self) -> int:
        if self._destination == "-":
            return 1
        if self._destination == "off":
            return -1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._destination, flags, 0o640)

    def _skip(self, exchange: Exchange) -> None:
        """Nothing is logged."""

    def _record(self, exchange: Exchange) -> None:
        now = self._clock.now()
        unix = now + self._clock.epoch
        second = int(unix)
        if second != self._second:
            self._second = second
            self._stamp = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second)).encode("ascii")
        started = exchange.started
        route = exchange.route
        principal = exchange.principal
        path = exchange.path
        line = (
            b'{"time":"%b.%03dZ","id":"%b",%b"method":"%b","host":"%b","path":%b,"route":%b,'
            b'"principal":%b,"status":%d,"received":%d,"sent":%d,"us":%d,%b"outcome":"%b"}\n'
            % (
                self._stamp,
                (unix - second) * 1000,
                exchange.id,
                exchange.peer.log or _connection(exchange.peer),
                exchange.method,
                exchange.host.encode("ascii"),
                b'"%b"' % path if _PLAIN.match(path) else _string(path),
                b'""' if route is None else route.log,
                b'""' if principal is None else _principal(principal.id),
                exchange.status,
                exchange.received,
                exchange.sent,
                (now - started) * 1e6,
                _details(exchange),
                b"ok" if exchange.outcome is _OK else _outcome(exchange),
            )
        )
        self._lines.append(line)
        self._size += len(line)
        if self._size > _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        count = len(self._lines)
        self._lines.clear()
        self._size = 0
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            self._failing = False
        except OSError as error:
            self.lost += count
            if not self._failing:
                self._failing = True
                _log.error("access log: {why}; lines are being lost", why=error.strerror)


def _connection(peer: Peer) -> bytes:
    """The part of a line that a connection's requests share."""
    peer.log = b'"peer":"%b","tls":"%b","sni":%b,"protocol":"%b",' % (
        peer.address.encode("ascii"),
        peer.tls.encode("ascii"),
        quoted(peer.sni or ""),
        peer.protocol.encode("ascii"),
    )
    return peer.log


def _outcome(exchange: Exchange) -> bytes:
    return (exchange.outcome or Outcome.ERROR).value.encode("ascii")


def _details(exchange: Exchange) -> bytes:
    """What not every line needs; times in microseconds."""
    details = b""
    if exchange.attempts:
        details = b'"upstream":"%b","attempts":%d,"connect_us":%d,"first_byte_us":%d,' % (
            exchange.upstream.encode("ascii"),
            exchange.attempts,
            exchange.connect_time * 1e6,
            exchange.first_byte * 1e6,
        )
    if exchange.limit:
        details += b'"limit":"%b","remaining":%d,' % (
            exchange.limit.encode("ascii"),
            exchange.remaining,
        )
    if exchange.query:
        details += b'"query":%b,' % _string(_VALUE.sub(b"=*", exchange.query[1:]))
    if exchange.client is not exchange.peer.address:
        details += b'"client":%b,' % quoted(exchange.client)
    if exchange.reason:
        details += b'"reason":%b,' % quoted(exchange.reason)
    return details
