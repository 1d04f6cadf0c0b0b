"""The gateway mounted in a stock ``twisted.web.server.Site``.

There twisted.web reads the request: the body is buffered before we see it, field order and
``Expect`` are its business, and so are the refusals of malformed framing. Everything after that
is the same as on our own channel.
"""

from __future__ import annotations

import re
from typing import Any

from edgeproxy.errors import GatewayError, title
from edgeproxy.exchange import Exchange, Outcome, Peer, Sink, Throttle
from edgeproxy.http1.fields import FieldTable
from edgeproxy.http1.grammar import HeadLimits, RequestHead, parse_request

#: twisted.web has bounds of its own; ours must not refuse what it let through.
_LIMITS = HeadLimits(size=1 << 20, target=1 << 16, fields=1000)
_PIECE = 65536
_METHOD = re.compile(rb"[A-Z]{1,32}\Z")


class SiteExchange(Exchange):
    """An exchange around an ``IRequest``; ``unreadable`` is what our own grammar has against a
    request that twisted.web let through."""

    def __init__(self, request: Any, started: float, fields: FieldTable) -> None:
        self.request = request
        self._lost = False
        self._source: Throttle | None = None
        self.unreadable: GatewayError | None = None
        try:
            head = _head(request, fields)
        except GatewayError as error:
            self.unreadable = error
            method = request.method if _METHOD.match(request.method) else b"-"
            head = RequestHead(method, None, b"", request.uri, b"1", [])
        super().__init__(head, _peer(request), started)
        request.notifyFinish().addErrback(self._gone)

    # -- the request's body ----------------------------------------------------------------------

    def take_body(self) -> bytes | None:
        content = self.request.content
        content.seek(0, 2)
        size = content.tell()
        content.seek(0)
        self.received = size
        if size > _PIECE:
            return None
        data: bytes = content.read()
        return data

    def stream_body(self, sink: Sink) -> None:
        self._sink = sink
        self._paused = False
        self._pump()

    def _pump(self) -> None:
        while not self._paused and not self.ended:
            data = self.request.content.read(_PIECE)
            if not data:
                self._sink.body_end([])
                return
            self._sink.body(data)

    def pause_body(self) -> None:
        self._paused = True

    def resume_body(self) -> None:
        if self._paused:
            self._paused = False
            self._pump()

    # -- the answer ------------------------------------------------------------------------------

    def inform(self, status: int, lines: list[bytes]) -> None:
        """twisted.web has no way to send one."""

    def begin(
        self,
        status: int,
        reason: bytes,
        lines: list[bytes],
        length: int | None,
        payload: bytes,
        complete: bool,
        source: Throttle | None,
    ) -> None:
        self.began = True
        self.status = status
        request = self.request
        if self.hsts is not None:
            lines = self.hsts.apply(lines)
        if self.cors is not None:
            lines = self.cors.apply(lines)
        request.setResponseCode(status, reason or title(status).encode("ascii"))
        # twisted.web's own: the service's pass instead, and what software this is stays hidden.
        request.defaultContentType = None
        for name in (b"content-type", b"server"):
            request.responseHeaders.removeHeader(name)
        if any(line[:5].lower() == b"date:" for line in lines):
            request.responseHeaders.removeHeader(b"date")
        for line in (*lines, *self.limit_lines.split(b"\r\n")):
            name, _, value = line.partition(b":")
            if name:
                request.responseHeaders.addRawHeader(name, value.strip(b" \t"))
        if payload:
            self.sent = len(payload)
            request.write(payload)
        if complete:
            self._complete()
        elif source is not None:
            self._source = source
            if not payload:
                request.write(b"")  # send the head now: the body may take its time
            request.registerProducer(_Producer(source, self), True)

    def send(self, data: bytes) -> None:
        self.sent += len(data)
        self.request.write(data)

    def end(self, trailers: list[bytes]) -> None:
        self._complete()

    def _complete(self) -> None:
        request = self.request
        if self._source is not None:
            request.unregisterProducer()
        if not self._lost:
            request.finish()
        self.finish(Outcome.OK if self.status < 400 or self.attempts else Outcome.REFUSED)

    def abort(self) -> None:
        if self._source is not None:
            self.request.unregisterProducer()
        if not self._lost:
            self.request.channel.forceAbortClient()

    def _gone(self, reason: Any) -> None:
        self._lost = True
        self.finish(Outcome.CLIENT_GONE)


class _Producer:
    """What twisted.web pauses when the client is slow."""

    def __init__(self, source: Throttle, exchange: SiteExchange) -> None:
        self._source = source
        self._exchange = exchange

    def pauseProducing(self) -> None:
        self._source.pause_reading()

    def resumeProducing(self) -> None:
        self._source.resume_reading()

    def stopProducing(self) -> None:
        self._exchange.finish(Outcome.CLIENT_GONE)


def _head(request: Any, fields: FieldTable) -> Any:
    """The request's head written out again and read by our own grammar: nothing that we would
    refuse on our own channel gets in by this door."""
    lines = [
        b"%b: %b" % (name, value)
        for name, values in request.requestHeaders.getAllRawHeaders()
        for value in values
        if name.lower() not in (b"transfer-encoding", b"content-length", b"expect")
    ]
    request.content.seek(0, 2)
    size = request.content.tell()
    if size:
        lines.append(b"Content-Length: %d" % size)
    first = b"%b %b HTTP/1.1" % (request.method, request.uri)
    data = b"\r\n".join([first, *lines]) + b"\r\n\r\n"
    found = parse_request(data, fields, _LIMITS)
    if found is None:
        raise GatewayError(400, "The request head is malformed.")
    return found[0]


def _peer(request: Any) -> Peer:
    client, host = request.getClientAddress(), request.getHost()
    return Peer(
        getattr(client, "host", "") or "unknown",
        getattr(client, "port", 0) or 0,
        getattr(host, "port", 0) or 0,
        tls="TLS" if request.isSecure() else "",
    )
