"""The server's side of HTTP/1.1: one connection, its requests one after the other.

The life of a connection is a small machine (:class:`State`). Requests that came ahead of their
time (pipelining) wait in the buffer until the answer before them is complete, so that answers
keep their order. After a refusal that closes, all later input is dropped by the state itself:
closing alone would not stop bytes that OpenSSL already holds from being read as a request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from twisted.logger import Logger

from edgeproxy.errors import GatewayError, malformed, title
from edgeproxy.exchange import Exchange, Outcome, Peer, Sink, Throttle
from edgeproxy.http1.fields import passing_trailers
from edgeproxy.http1.framing import Chunked, Decoder, Length, chunk, last_chunk
from edgeproxy.http1.grammar import HeadLimits, RequestHead, parse_request
from edgeproxy.transport.deadlines import NEVER, Clock
from edgeproxy.transport.stream import HIGH_WATER, Stream

if TYPE_CHECKING:
    from edgeproxy.snapshot import Snapshot

_log = Logger()

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]{1,8192})")
_EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")
_TOO_LITTLE = (b"", b"\r")


class State(Enum):
    """What the connection does with the next bytes."""

    SHAKING = "handshake under way"
    HEAD = "between requests, or in a head"
    BODY = "in a request's body"
    ANSWER = "the request is complete, its answer is not"
    LINGER = "closing: what comes is dropped"
    CLOSED = "gone"


# Looking a member up on its Enum calls Python code.
SHAKING, HEAD, BODY = State.SHAKING, State.HEAD, State.BODY
ANSWER, LINGER, CLOSED = State.ANSWER, State.LINGER, State.CLOSED


class Timeouts:
    """Seconds and rates of one listener; the numbers of the configuration."""

    __slots__ = (
        "body_grace",
        "body_rate",
        "client_write",
        "close",
        "handshake",
        "head",
        "keep_alive",
        "requests",
    )

    def __init__(
        self,
        handshake: float = 10.0,
        head: float = 10.0,
        keep_alive: float = 75.0,
        client_write: float = 60.0,
        close: float = 2.0,
        body_rate: int = 500,
        body_grace: float = 20.0,
        requests: int = 1000,
    ) -> None:
        self.handshake = handshake
        self.head = head
        self.keep_alive = keep_alive
        self.client_write = client_write
        self.close = close
        self.body_rate = body_rate
        self.body_grace = body_grace
        self.requests = requests


class Listener:
    """What all connections of one listener share.

    ``handle`` takes an exchange; ``snapshot`` gives the one in force; ``closed`` is told when a
    connection has gone. ``draining`` makes every answer the last on its connection.
    """

    def __init__(
        self,
        handle: Callable[[Exchange], None],
        snapshot: Callable[[], Snapshot],
        closed: Callable[[Http1Server], None],
        clock: Clock,
        timeouts: Timeouts,
        limits: HeadLimits,
    ) -> None:
        self.handle = handle
        self.snapshot = snapshot
        self.closed = closed
        self.clock = clock
        self.timeouts = timeouts
        self.limits = limits
        self.draining = False


class Http1Server:
    """One client's connection. A :class:`edgeproxy.transport.stream.StreamProtocol`."""

    __slots__ = (
        "_backlog_seen",
        "_body_seen",
        "_decoder",
        "_head_begun",
        "_seen",
        "_sink",
        "_working",
        "buffer",
        "close_wanted",
        "deadline",
        "exchange",
        "listener",
        "now",
        "peer",
        "requests",
        "source",
        "state",
        "stream",
        "waiting_to_drain",
    )

    stream: Stream

    def __init__(self, listener: Listener, peer: Peer) -> None:
        self.listener = listener
        self.now = listener.clock.now
        self.peer = peer
        self.state = SHAKING
        self.buffer = b""
        self.exchange: Http1Exchange | None = None
        self.requests = 0
        self.close_wanted = False
        self.source: Throttle | None = None
        self.waiting_to_drain = False
        self._working = False
        self._decoder: Decoder | None = None
        self._sink: Sink | None = None
        self._body_seen = 0
        self._backlog_seen = 0
        self._head_begun = False
        #: How much of the buffer is known to be no whole head.
        self._seen = 0
        self.deadline = self.now() + listener.timeouts.handshake

    # -- from the stream ---------------------------------------------------------------------

    def secured(self) -> None:
        """The connection can carry requests; called at once where there is no TLS."""
        self.peer.tls, self.peer.sni, self.peer.certified = self.stream.tls()
        self.state = HEAD
        timeouts = self.listener.timeouts
        self.deadline = self.now() + (timeouts.close if self.close_wanted else timeouts.head)

    def received(self, data: bytes) -> None:
        state = self.state
        if state is HEAD:
            self.buffer = self.buffer + data if self.buffer else data
            self._work()
        elif state is BODY:
            if self._sink is None:
                self._store(data)
            else:
                self._read_body(data)
        elif state is ANSWER:
            self._store(data)

    def drained(self) -> None:
        timeouts = self.listener.timeouts
        if self.state is LINGER:
            self.deadline = self.now() + timeouts.close
        if not self.waiting_to_drain:
            return
        self.waiting_to_drain = False
        if self.source is not None:
            body = self.state is BODY
            self.deadline = self.now() + timeouts.body_grace if body else NEVER
            self.source.resume_reading()
        elif self.state is HEAD:
            self.deadline = self.now() + timeouts.keep_alive
            self.stream.resume_reading()
            self._work()

    def lost(self, clean: bool) -> None:
        self.state = CLOSED
        self.buffer = b""
        exchange = self.exchange
        if exchange is not None:
            exchange.finish(Outcome.CLIENT_GONE)
        self._forget()
        self.listener.closed(self)

    # -- requests ----------------------------------------------------------------------------

    def _store(self, data: bytes) -> None:
        """Keep what came too early; a client that sends more than its share is not read."""
        self.buffer = self.buffer + data if self.buffer else data
        if len(self.buffer) > HIGH_WATER:
            self.stream.pause_reading()

    def _work(self) -> None:
        """Begin as many requests as can be begun; one that is answered at once ends here too,
        so this loops where recursion would grow with the pipeline."""
        if self._working:
            return
        self._working = True
        while self.state is HEAD and self.buffer and not self.waiting_to_drain:
            if not self._begin_request():
                break
        self._working = False
        if self.waiting_to_drain and self.state is HEAD and len(self.buffer) > HIGH_WATER:
            # A client that asks on but takes no answers: what it says is left to its own side.
            self.stream.pause_reading()

    def _begin_request(self) -> bool:
        """Read one head and hand its exchange over; ``False`` when more bytes are needed."""
        listener = self.listener
        buffer = self.buffer
        try:
            if buffer[:1] == b"\r" and self.requests:
                # RFC 9112 2.2: empty lines before a request are ignored, however they arrive
                buffer = self.buffer = _EMPTY_LINES.sub(b"", buffer, 1)
                self._seen = 0
                if buffer in _TOO_LITTLE:
                    return False
            found = parse_request(
                buffer, listener.snapshot().request_fields, listener.limits, self._seen
            )
        except GatewayError as error:
            self._refuse_head(error)
            return False
        if found is None:
            self._seen = len(buffer)
            # A connection's first head has had its time since the connection began.
            if self.requests and not self._head_begun:
                self._head_begun = True
                self.deadline = self.now() + listener.timeouts.head
            return False
        head, taken = found
        exchange = self.exchange = Http1Exchange(head, self.peer, self.now())
        exchange.connection = self
        self.requests += 1
        self._seen = 0
        self._head_begun = False
        self.deadline = NEVER
        self.buffer = buffer[taken:]
        if head.close or self.requests >= listener.timeouts.requests or listener.draining:
            self.close_wanted = True
        if head.length:
            self._decoder = Length(head.length)
            self.state = BODY
        elif head.chunked:
            self._decoder = Chunked()
            self.state = BODY
        else:
            self.state = ANSWER
        listener.handle(exchange)
        return True

    def _refuse_head(self, error: GatewayError) -> None:
        """What came is no request: answer, close, and drop all that follows."""
        match = _REQUEST_LINE.match(self.buffer)
        method, target = match.groups() if match else (b"-", b"-")
        head = RequestHead(method, None, b"", target, b"1", [])
        exchange = self.exchange = Http1Exchange(head, self.peer, self.now())
        exchange.connection = self
        exchange.snapshot = self.listener.snapshot()
        self.buffer = b""
        self.close_wanted = True
        self.state = ANSWER
        exchange.refuse(error)

    # -- the request's body --------------------------------------------------------------------

    def take_body(self) -> bytes | None:
        if self.state is not BODY:
            return b""
        decoder = self._decoder
        if type(decoder) is Length and len(self.buffer) >= decoder.remaining:
            payload, rest = decoder.feed(self.buffer)
            self.buffer = rest or b""
            self._body_complete()
            return payload
        return None

    def unread(self) -> bool:
        """Whether some of the request's body is still to come; a small one that is here
        already, unasked for, is dropped, so that a refusal need not cost the connection."""
        return self._sink is not None or self.take_body() is None

    def stream_body(self, sink: Sink) -> None:
        self._sink = sink
        exchange = self.exchange
        if exchange is not None and exchange.head.expect is not None and not self.buffer:
            self.stream.write(_CONTINUE)
        timeouts = self.listener.timeouts
        self._body_seen = 0
        self.deadline = self.now() + timeouts.body_grace
        data, self.buffer = self.buffer, b""
        if data:
            self._read_body(data)
        if self.state is BODY:
            self.stream.resume_reading()

    def _read_body(self, data: bytes) -> None:
        decoder, sink, exchange = self._decoder, self._sink, self.exchange
        assert decoder is not None and sink is not None and exchange is not None
        try:
            payload, rest = decoder.feed(data)
        except ValueError as error:
            self._body_failed(malformed(f"The chunked body is malformed: {error}."))
            return
        self._body_seen += len(data)
        if payload:
            exchange.received += len(payload)
            route = exchange.route
            if route is not None and exchange.received > route.body:
                self._body_failed(
                    GatewayError(413, "The request body is larger than allowed.", close=True)
                )
                return
            sink.body(payload)
        if rest is not None and self._sink is sink:
            self.buffer = rest
            self._body_complete()
            trailers = decoder.trailers
            if trailers:
                route = exchange.route
                rules = None if route is None else route.request_rules
                trailers = passing_trailers(trailers, exchange.snapshot.request_fields, rules)
                if route is not None and route.filters is not None:
                    trailers = exchange.untouched(trailers)
            sink.body_end(trailers)

    def _body_failed(self, error: GatewayError) -> None:
        """The body cannot be read to its end: the upstream must never take it for whole."""
        exchange = self.exchange
        self._sink = None
        self.buffer = b""
        if exchange is not None:
            worker, exchange.worker = exchange.worker, None
            if worker is not None:
                worker.cancelled(exchange)
            exchange.refuse(error)

    def _body_complete(self) -> None:
        self._decoder = None
        self._sink = None
        self.state = ANSWER
        if self.source is None or not self.waiting_to_drain:
            self.deadline = NEVER

    # -- the answer ----------------------------------------------------------------------------

    def answered(self, outcome: Outcome) -> None:
        """The exchange's answer has been written whole."""
        exchange, self.exchange = self.exchange, None
        incomplete = self.state is BODY
        self.source = None
        self._sink = None
        self._decoder = None
        if exchange is not None:
            exchange.finish(outcome)
        if self.state is CLOSED:
            return
        if self.close_wanted or incomplete:
            self._close(linger=incomplete or bool(self.buffer) or outcome is Outcome.REFUSED)
            return
        self.state = HEAD
        self.deadline = self.now() + self.listener.timeouts.keep_alive
        self.waiting_to_drain = self.stream.backlog > HIGH_WATER
        if self.buffer:
            if len(self.buffer) > HIGH_WATER:
                self.stream.resume_reading()
            self._work()

    def _close(self, linger: bool) -> None:
        """End in order. Where the client may still be sending, go on reading and dropping, so
        that no reset overtakes the answer (RFC 9112 9.6)."""
        self.state = LINGER
        self.buffer = b""
        self._backlog_seen = self.stream.backlog
        now = self.now()
        if linger or self.stream.backlog:
            timeouts = self.listener.timeouts
            self.deadline = now + (timeouts.client_write if self.stream.backlog else timeouts.close)
            self.stream.resume_reading()
            self.stream.close()
        else:
            self.deadline = now + self.listener.timeouts.close
            self.stream.finish()

    def abort(self) -> None:
        self.state = LINGER
        self.buffer = b""
        self.exchange = None
        self.stream.abort()

    def shut(self) -> None:
        """Drain: an idle connection ends now, another after its answer. It is not idle when its
        next request has come and waits to be read, nor while its first one is on its way: whoever
        has just connected has `timeouts: close:` to say what for."""
        self.close_wanted = True
        if self.buffer or self.state not in (SHAKING, HEAD):
            return
        if not self.requests:
            self.deadline = min(self.deadline, self.now() + self.listener.timeouts.close)
        elif self.stream.quiet():
            self._close(linger=False)

    def cut(self) -> None:
        """The drain's time is over."""
        if self.exchange is not None:
            self.exchange.finish(Outcome.DRAINED)
        self.abort()

    def _forget(self) -> None:
        self.exchange = None
        self.source = None
        self._sink = None
        self._decoder = None
        self.deadline = NEVER

    # -- deadlines -----------------------------------------------------------------------------

    def expired(self, now: float) -> None:
        """The deadline of the present state has passed."""
        state = self.state
        if state is CLOSED:
            self.deadline = NEVER
        elif self.stream.backlog and self._write_stalled(now):
            return
        elif state is HEAD and self.buffer:
            self._refuse_head(GatewayError(408, "The request head took too long.", close=True))
        elif state is HEAD:
            self._close(linger=False)
        elif state is BODY and self._sink is not None:
            self._check_body_rate(now)
        elif state in (SHAKING, LINGER):
            self.abort()
        else:
            self.deadline = NEVER

    def _write_stalled(self, now: float) -> bool:
        """Whether the client's slowness explains the deadline; aborts if it takes nothing."""
        timeouts = self.listener.timeouts
        if not self.waiting_to_drain and self.state is not LINGER:
            return False
        if self.stream.backlog == self._backlog_seen:
            exchange = self.exchange
            if exchange is not None:
                exchange.finish(Outcome.CLIENT_STALLED)
            self.abort()
        else:
            self._backlog_seen = self.stream.backlog
            self.deadline = now + timeouts.client_write
        return True

    def _check_body_rate(self, now: float) -> None:
        """A body slower than the configured rate over the grace period is refused."""
        timeouts = self.listener.timeouts
        seen, self._body_seen = self._body_seen, 0
        self.deadline = now + timeouts.body_grace
        if self.stream.reading and seen < timeouts.body_rate * timeouts.body_grace:
            self._body_failed(GatewayError(408, "The request body came too slowly.", close=True))

    def congested(self) -> None:
        """The client takes the answer more slowly than it comes."""
        if not self.waiting_to_drain:
            self.waiting_to_drain = True
            self._backlog_seen = self.stream.backlog
            self.deadline = self.now() + self.listener.timeouts.client_write
            if self.source is not None:
                self.source.pause_reading()


class Http1Exchange(Exchange):
    """An exchange whose answer is written as HTTP/1.1."""

    __slots__ = ("connection",)

    tunnels = True
    connection: Http1Server

    def take_body(self) -> bytes | None:
        payload = self.connection.take_body()
        if payload:
            self.received = len(payload)
        return payload

    def stream_body(self, sink: Sink) -> None:
        self.connection.stream_body(sink)

    def pause_body(self) -> None:
        self.connection.stream.pause_reading()

    def resume_body(self) -> None:
        self.connection.stream.resume_reading()

    def close_after(self) -> None:
        self.connection.close_wanted = True

    def switch(self, lines: list[bytes]) -> tuple[Http1Server, bytes]:
        connection = self.connection
        self.began = True
        self.status = 101
        early, connection.buffer = connection.buffer, b""
        if self.hsts is not None:
            lines = self.hsts.apply(lines)
        if self.cors is not None:
            lines = self.cors.apply(lines)
        lines.append(b"")
        connection.stream.write(
            b"HTTP/1.1 101 Switching Protocols\r\n%b%b\r\n"
            % (b"\r\n".join(lines), self.limit_lines)
        )
        return connection, early

    def inform(self, status: int, lines: list[bytes]) -> None:
        if self.head.minor == b"1":
            line = b"HTTP/1.1 %d %b" % (status, title(status).encode("ascii"))
            self.connection.stream.write(b"\r\n".join([line, *lines, b"\r\n"]))

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
        connection = self.connection
        self.began = True
        self.status = status
        self.sent = len(payload)
        if self.hsts is not None:
            lines = self.hsts.apply(lines)
        if self.cors is not None:
            lines = self.cors.apply(lines)
        if length is None:
            self._frame(lines)
            if payload and self.chunked:
                payload = chunk(payload)
            if complete and self.chunked:
                payload += b"0\r\n\r\n"
        if connection.state is BODY and connection.unread():
            connection.close_wanted = True
        if connection.close_wanted:
            lines.append(b"Connection: close")
        elif self.head.minor == b"0":
            lines.append(b"Connection: keep-alive")
        lines.append(b"")  # so that each line, if there are any, has its CRLF
        connection.stream.write(
            b"HTTP/1.1 %d %b\r\n%b%b\r\n%b"
            % (status, reason, b"\r\n".join(lines), self.limit_lines, payload)
        )
        if complete:
            ours = status in _OURS and source is None
            connection.answered((self.failure or Outcome.REFUSED) if ours else Outcome.OK)
        else:
            connection.source = source
            if connection.stream.backlog > HIGH_WATER:
                connection.congested()

    def _frame(self, lines: list[bytes]) -> None:
        """A body of unknown length: chunked, or ended by the connection for HTTP/1.0."""
        if self.head.minor == b"1":
            self.chunked = True
            lines.append(b"Transfer-Encoding: chunked")
        else:
            self.connection.close_wanted = True

    def send(self, data: bytes) -> None:
        connection = self.connection
        self.sent += len(data)
        connection.stream.write(chunk(data) if self.chunked else data)
        if connection.stream.backlog > HIGH_WATER:
            connection.congested()

    def end(self, trailers: list[bytes]) -> None:
        if self.chunked:
            self.connection.stream.write(last_chunk(trailers))
        self.connection.answered(Outcome.OK)

    def abort(self) -> None:
        if self.connection.exchange is self:
            self.connection.abort()


#: Answers of these statuses by ourselves are refusals; a redirect or the built-in page is not.
_OURS = frozenset(range(400, 600))
