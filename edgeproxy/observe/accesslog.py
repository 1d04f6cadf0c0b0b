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

from edgeproxy.exchange import Exchange, Outcome
from edgeproxy.http1.grammar import RequestHead
from edgeproxy.observe.counters import Counters
from edgeproxy.transport.deadlines import Clock

_log = Logger()

#: Exchanges whose lines are written together. Formatting them in one go costs half of doing it
#: one by one; more of them would only keep memory from being used again.
_BATCH = 32
_INTERVAL = 1.0
_VALUE = re.compile(rb"=[^&]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f\x7f-\xff]*+\Z')
_OK = Outcome.OK
_NONE = '""'
_NOBODY = '"","kind":""'
_MILLISECONDS = tuple(f".{number:03d}Z" for number in range(1000))


@lru_cache(4)
def _second(unix: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(unix))


def _line(exchange: Exchange, epoch: float) -> str:
    head = exchange.head
    peer = exchange.peer
    route = exchange.route
    principal = exchange.principal
    path = head.path
    duration = exchange.duration
    unix = exchange.started + duration + epoch
    second = int(unix)
    return (
        f'{{"time":"{_second(second)}{_MILLISECONDS[int((unix - second) * 1000)]}",'
        f'"id":"{exchange.id.decode()}",'
        f"{peer.log if exchange.client is peer.address and peer.log else _peer(exchange)}"
        f'"protocol":"HTTP/1.{head.minor.decode()}","method":"{exchange.method.decode()}","host":"{exchange.host}",'
        f'"path":"{path.decode() if path is not None else _escaped(_raw_path(head))}",'
        f'"route":{_NONE if route is None else route.log},'
        f'"principal":{_NOBODY if principal is None else principal.log},'
        f'"limit":"{exchange.limit}","remaining":{exchange.remaining},'
        f'"status":{exchange.status},"received":{exchange.received},"sent":{exchange.sent},'
        f'"upstream":"{exchange.upstream}","attempts":{exchange.attempts},'
        f'"connect_us":{int(exchange.connect_time * 1e6)},'
        f'"first_byte_us":{int(exchange.first_byte * 1e6)},"us":{int(duration * 1e6)},'
        f"{exchange.notes}"
        f"{_details(exchange) if exchange.query or exchange.reason or exchange.shadow else ''}"
        f'"outcome":"{"ok" if exchange.outcome is _OK else _outcome(exchange)}"}}\n'
    )


def members(exchange: Exchange, epoch: float) -> dict[str, Any]:
    """The members of an exchange's line, as they would stand there now."""
    found: dict[str, Any] = json.loads(_line(exchange, epoch))
    return found


def _escaped(text: bytes) -> str:
    """Bytes from the wire, each byte a character, as they stand within a JSON string."""
    return text.decode() if _PLAIN.match(text) else json.dumps(text.decode("latin-1"))[1:-1]


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
        self._ended: list[Exchange] = []
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
        exchange.duration = self._now() - exchange.started
        self._ended.append(exchange)
        if len(self._ended) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Count and write what was collected."""
        ended = self._ended
        if not ended:
            return
        epoch = self._clock.epoch
        for exchange in ended:
            self._count(exchange)
        data = "".join([_line(exchange, epoch) for exchange in ended]).encode("ascii")
        count = len(ended)
        ended.clear()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            self._failing = False
        except OSError as error:
            self.lost += count
            if not self._failing:
                self._failing = True
                _log.error("access log: {why}; lines are being lost", why=error.strerror)


def _peer(exchange: Exchange) -> str:
    """The part of a line that a connection's requests share. Where trusted proxies vouch for the
    client it differs from request to request, and the peer is told too."""
    peer = exchange.peer
    client = exchange.client
    who = f'"client":"{client}",'
    if client is not peer.address:
        who += f'"peer":"{peer.address}",'
    # The name was brought into its one spelling, which has letters, digits, "-", "_", "." and ":".
    log = f'{who}"tls":"{peer.tls}","sni":"{peer.sni or ""}",'
    if client is peer.address:
        peer.log = log
    return log


def _raw_path(head: RequestHead) -> bytes:
    return head.target.partition(b"?")[0]


def _outcome(exchange: Exchange) -> str:
    outcome: str = (exchange.outcome or Outcome.ERROR).value
    return outcome


def _details(exchange: Exchange) -> str:
    """What not every line needs. Of a query only the parameters' names are told."""
    details = ""
    if exchange.query:
        details = f'"query":"{_escaped(_VALUE.sub(b"=*", exchange.query[1:]))}",'
    if exchange.reason:
        details += f'"reason":{json.dumps(exchange.reason)},'
    if exchange.shadow:
        details += f'"shadow":{json.dumps("; ".join(what for _, what in exchange.shadow))},'
    return details
