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
from edgeproxy.observe.counters import Counters
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


def _escaped(text: bytes) -> bytes:
    """Bytes from the wire, each byte a character, as they stand within a JSON string."""
    return text if _PLAIN.match(text) else quoted(text.decode("latin-1"))[1:-1]


@lru_cache(4096)
def _principal(id: str) -> bytes:
    return quoted(id)


class AccessLog:
    """See the module's text.

    Each exchange is counted too. Times are microseconds.
    ``destination`` is a path, ``-`` for standard output, or ``off``. A file that cannot be
    written loses lines, which are counted, never requests.
    """

    def __init__(
        self, reactor: Any, clock: Clock, counters: Counters, destination: Path | str
    ) -> None:
        self._destination = destination
        self._clock = clock
        self._now = clock.now
        self._count = counters.count
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
            counters.count if destination == "off" else self._record
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

    def _record(self, exchange: Exchange) -> None:
        self._count(exchange)
        now = self._now()
        unix = now + self._clock.epoch
        second = int(unix)
        if second != self._second:
            self._second = second
            self._stamp = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second)).encode("ascii")
        head = exchange.head
        peer = exchange.peer
        route = exchange.route
        principal = exchange.principal
        line = (
            b'{"time":"%b.%03dZ","id":"%b",%b"method":"%b","host":"%b","path":"%b","route":%b,'
            b'"principal":%b,"limit":"%b","remaining":%d,"status":%d,"received":%d,"sent":%d,'
            b'"upstream":"%b","attempts":%d,"connect_us":%d,"first_byte_us":%d,"us":%d,'
            b'%b"outcome":"%b"}\n'
            % (
                self._stamp,
                (unix - second) * 1000,
                exchange.id,
                peer.log
                if peer.log and exchange.client is peer.address
                else _connection(peer, exchange.client),
                exchange.method,
                exchange.host.encode("ascii"),
                head.path if head.path is not None else _escaped(head.target.partition(b"?")[0]),
                b'""' if route is None else route.log,
                b'""' if principal is None else _principal(principal.id),
                exchange.limit.encode("ascii"),
                exchange.remaining,
                exchange.status,
                exchange.received,
                exchange.sent,
                exchange.upstream.encode("ascii"),
                exchange.attempts,
                exchange.connect_time * 1e6,
                exchange.first_byte * 1e6,
                (now - exchange.started) * 1e6,
                _details(exchange) if exchange.query or exchange.reason else b"",
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


def _connection(peer: Peer, client: str) -> bytes:
    """The part of a line that a connection's requests share; for one that trusted proxies vouch
    for, ``client`` is not the peer, and differs from request to request."""
    who = b'"client":"%b",' % client.encode("ascii")
    if client is not peer.address:
        who += b'"peer":"%b",' % peer.address.encode("ascii")
    log = b'%b"tls":"%b","sni":%b,"protocol":"%b",' % (
        who,
        peer.tls.encode("ascii"),
        quoted(peer.sni or ""),
        peer.protocol.encode("ascii"),
    )
    if client is peer.address:
        peer.log = log
    return log


def _outcome(exchange: Exchange) -> bytes:
    return (exchange.outcome or Outcome.ERROR).value.encode("ascii")


def _details(exchange: Exchange) -> bytes:
    """What not every line needs."""
    details = b""
    if exchange.query:
        details = b'"query":"%b",' % _escaped(_VALUE.sub(b"=*", exchange.query[1:]))
    if exchange.reason:
        details += b'"reason":%b,' % quoted(exchange.reason)
    return details
