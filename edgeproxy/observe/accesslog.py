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

from edgeproxy.exchange import Exchange, Peer
from edgeproxy.transport.deadlines import Clock

_log = Logger()

#: Bytes (about) that are collected before they are written at once.
_BATCH = 65536
_INTERVAL = 1.0
_VALUE = re.compile(r"=[^&]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f\x7f-\U0010ffff]*+\Z')


@lru_cache(4096)
def _quoted(text: str) -> str:
    """``text`` as a JSON string; control characters are escaped, all of it is ASCII."""
    return json.dumps(text)


def _string(text: str) -> str:
    return f'"{text}"' if _PLAIN.match(text) else json.dumps(text)


class AccessLog:
    """See the module's text.

    ``destination`` is a path, ``-`` for standard output, or ``off``. A file that cannot be
    written loses lines, which are counted, never requests.
    """

    def __init__(self, reactor: Any, clock: Clock, destination: Path | str) -> None:
        self._destination = destination
        self._clock = clock
        self._lines: list[str] = []
        self._size = 0
        self._second = -1
        self._stamp = ""
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
            self._stamp = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        peer = exchange.peer
        route = exchange.route
        if route is None:
            label = '""'
        else:
            label = route.log or _label(route)
        principal = exchange.principal
        path = exchange.path.decode("latin-1")
        line = (
            '{"time":"%s.%03dZ","id":"%s",%s,"client":"%s","method":"%s","host":"%s","path":%s,'
            '"route":%s,"principal":%s,"status":%d,"received":%d,"sent":%d,"ms":%.2f,%s%s'
            '"outcome":"%s"}\n'
            % (
                self._stamp,
                (unix - second) * 1000,
                exchange.id.decode("ascii"),
                peer.log or _connection(peer),
                exchange.client,
                exchange.method.decode("ascii"),
                exchange.host,
                _string(path),
                label,
                '""' if principal is None else _quoted(principal.id),
                exchange.status,
                exchange.received,
                exchange.sent,
                (now - exchange.started) * 1000,
                _upstream(exchange) if exchange.attempts else "",
                _more(exchange),
                exchange.outcome.value if exchange.outcome is not None else "",
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
        data = "".join(self._lines).encode("ascii", "backslashreplace")
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


def _connection(peer: Peer) -> str:
    """The part of a line that a connection's requests share."""
    peer.log = '"peer":"%s","tls":"%s","sni":%s,"protocol":"%s"' % (
        peer.address,
        peer.tls,
        _quoted(peer.sni or ""),
        peer.protocol,
    )
    return peer.log


def _label(route: Any) -> str:
    quoted: str = json.dumps(route.label)
    route.log = quoted
    return quoted


def _upstream(exchange: Exchange) -> str:
    return '"upstream":"%s","attempts":%d,"connect_ms":%.2f,"first_byte_ms":%.2f,' % (
        exchange.upstream,
        exchange.attempts,
        exchange.connect_time * 1000 if exchange.connect_time > 0 else 0,
        exchange.first_byte * 1000 if exchange.first_byte > 0 else 0,
    )


def _more(exchange: Exchange) -> str:
    """What most lines do not need."""
    more = ""
    if exchange.limit:
        more = '"limit":"%s","remaining":%d,' % (exchange.limit, exchange.remaining)
    if exchange.query:
        query = _VALUE.sub("=*", exchange.query[1:].decode("latin-1"))
        more += f'"query":{_string(query)},'
    if exchange.reason:
        more += f'"reason":{json.dumps(exchange.reason)},'
    return more
