"""The client's side of HTTP/1.1: one pooled connection to an upstream.

It sends one request at a time and tells its relay what comes back. The rule for reuse is strict:
a connection whose state is not perfectly known (more bytes than the answer, an answer before the
request was whole, anything after a broken framing) is closed and never used again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from edgeproxy.http1.fields import FieldTable, passing_trailers
from edgeproxy.http1.framing import Chunked, Decoder, Length, UntilClose, chunk, last_chunk
from edgeproxy.http1.grammar import ResponseHead, parse_response
from edgeproxy.http1.upgrade import agrees_to_websocket
from edgeproxy.transport.deadlines import NEVER
from edgeproxy.transport.stream import HIGH_WATER, Stream

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.snapshot import Route

#: 1xx answers that one request may cause; more is no service but a fault.
_MOST_INTERIM = 16


class Failure(Enum):
    """Why an exchange with an upstream failed, before or within its answer."""

    REFUSED = "refused"
    RESET = "reset"
    TIMEOUT = "timeout"
    BROKEN = "broken framing"


class State(Enum):
    IDLE = "idle"
    HEAD = "waiting for an answer's head"
    BODY = "in an answer's body"
    DEAD = "never to be used again"


IDLE, HEAD, BODY = State.IDLE, State.HEAD, State.BODY
#: Answers without a body (RFC 9112 6.3).
_BODILESS = frozenset((204, 304))
_EVENT_STREAM = re.compile(rb"(?i:content-type:[ \t]*+text/event-stream)[ \t]*+(?:;|\Z)")


class Owner(Protocol):
    """The target that a connection belongs to."""

    def released(self, client: Http1Client, now: float) -> None:
        """The exchange is complete and the connection may be used again."""

    def lost(self, client: Http1Client) -> None:
        """The connection has ended."""


class Relaying(Protocol):
    """Who is told what became of an exchange."""

    def interim(self, exchange: Exchange, head: ResponseHead) -> None: ...

    def answer(
        self,
        exchange: Exchange,
        client: Http1Client,
        head: ResponseHead,
        payload: bytes,
        done: bool,
        now: float,
    ) -> None:
        """The head has come, with what of the body came along; ``done`` when that is all."""

    def switched(
        self, exchange: Exchange, client: Http1Client, head: ResponseHead, rest: bytes, now: float
    ) -> None:
        """The upstream speaks another protocol from now on; ``rest`` is the first of it."""

    def failed(
        self, exchange: Exchange, client: Http1Client, failure: Failure, reason: str, began: bool
    ) -> None:
        """No whole answer will come; ``began`` when its head had been passed on."""


class Http1Client:
    """See the module's text. A :class:`edgeproxy.transport.stream.StreamProtocol`, and the
    :class:`edgeproxy.exchange.Sink` of a request's body, and the throttle of an answer's."""

    __slots__ = (
        "_between",
        "_decoder",
        "_fields",
        "_head_size",
        "_interim",
        "_now",
        "_owner",
        "_relay",
        "_request_done",
        "_writes",
        "buffer",
        "deadline",
        "exchange",
        "idle_since",
        "reusable",
        "route",
        "state",
        "stream",
    )

    stream: Stream

    def __init__(
        self,
        owner: Owner,
        relay: Relaying,
        fields: FieldTable,
        head_size: int,
        now: Callable[[], float],
    ) -> None:
        self._owner = owner
        self._relay = relay
        self._now = now
        self._fields = fields
        self._head_size = head_size
        self.state = IDLE
        self.buffer = b""
        self.exchange: Exchange | None = None
        self.idle_since = 0.0
        self.deadline = NEVER
        self.reusable = True
        self._decoder: Decoder | None = None
        self._request_done = True
        self._interim = 0
        self.route: Route | None = None
        self._between = 0.0
        self._writes = 0

    # -- sending -------------------------------------------------------------------------------

    def request(self, exchange: Exchange, data: bytes, done: bool, now: float) -> None:
        """Send a request's head, and all of its body if ``done``; :meth:`body` follows else.

        The exchange's route says how long the answer may take to begin and to go on.
        """
        self.exchange = exchange
        self.route = route = exchange.route
        self.state = HEAD
        self._request_done = done
        self._interim = 0
        self.deadline = now + route.first_byte if done else NEVER  # type: ignore[union-attr]
        stream = self.stream
        self._writes = stream.writes
        stream.write(data)

    @property
    def unsent(self) -> bool:
        """Whether nothing of the last request can have reached the upstream, nor ever will."""
        stream = self.stream
        return stream.writes == self._writes and (stream.broken or stream.disconnected)

    def body(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        self.stream.write(chunk(data) if exchange.head.chunked else data)
        if self.stream.backlog > HIGH_WATER:
            exchange.pause_body()
            self.deadline = self._now() + self._route().between

    def body_end(self, trailers: list[bytes]) -> None:
        exchange = self.exchange
        if exchange is not None and exchange.head.chunked:
            self.stream.write(last_chunk(trailers))
        self._request_done = True
        if self.state is HEAD:
            self.deadline = self._now() + self._route().first_byte

    def _route(self) -> Route:
        """The route of the exchange at hand; there is one while there is an exchange."""
        assert self.route is not None
        return self.route

    # -- from the stream -----------------------------------------------------------------------

    def secured(self) -> None:
        """Plain connections to upstreams have no handshake."""

    def drained(self) -> None:
        if self.exchange is not None and not self._request_done:
            self.deadline = NEVER
            self.exchange.resume_body()

    def received(self, data: bytes) -> None:
        state = self.state
        if state is HEAD:
            seen = len(self.buffer)
            if seen:
                data = self.buffer + data
                self.buffer = b""
            elif self.stream.writes == self._writes:
                self._unasked()
                return
            try:
                found = parse_response(data, self._fields, self._head_size, seen)
            except ValueError as error:
                self._break(str(error))
                return
            if found is None:
                self.buffer = data
            else:
                self._answer(found[0], data[found[1] :])
        elif state is BODY:
            self._read_body(data)
        else:
            # An idle connection that speaks is in an unknown state.
            self.retire()

    def lost(self, clean: bool) -> None:
        state, self.state = self.state, State.DEAD
        exchange, self.exchange = self.exchange, None
        self.reusable = False
        self.deadline = NEVER
        self._owner.lost(self)
        if exchange is None:
            return
        if state is BODY and clean and type(self._decoder) is UntilClose:
            exchange.worker = None
            exchange.end([])
            return
        self._relay.failed(
            exchange, self, Failure.RESET, "the connection ended early", state is BODY
        )

    # -- answers -------------------------------------------------------------------------------

    def _answer(self, head: ResponseHead, data: bytes) -> None:
        """A head is here, with what came after it."""
        exchange = self.exchange
        assert exchange is not None
        if head.status < 200:
            self._read_interim(exchange, head, data)
            return
        now = self._now()
        # What most answers are: a body of known length that came along with its head.
        if (
            head.length == len(data)
            and self._request_done
            and not head.close
            and head.status not in _BODILESS
            and exchange.method != b"HEAD"
        ):
            self.exchange = None
            self.deadline = NEVER
            self.state = IDLE
            # Free before the answer is passed on: the client's next request may be here already.
            self._let_go(now)
            self._relay.answer(exchange, self, head, data, True, now)
            return
        self._begin_body(exchange, head, data, now)

    def _read_interim(self, exchange: Exchange, head: ResponseHead, rest: bytes) -> None:
        self._interim += 1
        if head.status == 101 and exchange.upgrade:
            self._switch(exchange, head, rest)
            return
        if head.status == 101 or self._interim > _MOST_INTERIM:
            self._break("an interim answer that nobody asked for")
            return
        if head.status != 100:
            self._relay.interim(exchange, head)
        if rest and self.exchange is exchange:
            self.received(rest)

    def _switch(self, exchange: Exchange, head: ResponseHead, rest: bytes) -> None:
        """The end of HTTP on this connection: its stream goes to a tunnel."""
        if not agrees_to_websocket(head):
            self._break("it changed to a protocol that nobody asked for")
            return
        self.exchange = None
        self.state = State.DEAD
        self.reusable = False
        self.deadline = NEVER
        self._relay.switched(exchange, self, head, rest, self._now())

    def _begin_body(self, exchange: Exchange, head: ResponseHead, data: bytes, now: float) -> None:
        if head.close:
            self.reusable = False
        decoder: Decoder
        if exchange.method == b"HEAD" or head.status in _BODILESS:
            decoder = Length(0)
        elif head.chunked:
            decoder = Chunked()
        elif head.length is not None:
            decoder = Length(head.length)
        else:
            decoder = UntilClose()
            self.reusable = False
        try:
            payload, rest = decoder.feed(data)
        except ValueError as error:
            self._break(str(error))
            return
        if rest is not None and not decoder.trailers:
            self._complete(rest)
            self._let_go(now)
            self._relay.answer(exchange, self, head, payload, True, now)
            return
        self.state = BODY
        self._decoder = decoder
        route = self._route()
        events = head.length is None and is_event_stream(head.lines)
        self._between = route.tunnel if events else route.between
        self.deadline = now + self._between
        self._relay.answer(exchange, self, head, payload, False, now)
        if rest is not None and self.exchange is exchange:
            self._end(exchange, decoder, rest)

    def _read_body(self, data: bytes) -> None:
        exchange, decoder = self.exchange, self._decoder
        assert exchange is not None and decoder is not None
        try:
            payload, rest = decoder.feed(data)
        except ValueError as error:
            self._break(str(error))
            return
        self.deadline = self._now() + self._between
        if payload:
            exchange.send(payload)
        if rest is not None and self.exchange is exchange:
            self._end(exchange, decoder, rest)

    def _end(self, exchange: Exchange, decoder: Decoder, rest: bytes) -> None:
        self._complete(rest)
        exchange.worker = None
        trailers = decoder.trailers
        if trailers:
            route = exchange.route
            rules = None if route is None else route.response_rules
            trailers = passing_trailers(trailers, self._fields, rules)
        self._let_go(self._now())
        exchange.end(trailers)

    def _complete(self, rest: bytes) -> None:
        """The answer is whole: what follows it, or a request that is not, spoils the connection."""
        self.exchange = None
        self._decoder = None
        self.deadline = NEVER
        self.state = IDLE
        if rest or not self._request_done:
            self.reusable = False

    def _let_go(self, now: float) -> None:
        if self.state is not IDLE or self.exchange is not None:
            return
        stream = self.stream
        if self.reusable and not stream.disconnected:
            if not stream.reading:
                stream.resume_reading()
            self._owner.released(self, now)
        else:
            self.retire()

    def _break(self, reason: str) -> None:
        """What the upstream says cannot be understood: this connection is over."""
        began = self.state is BODY
        exchange, self.exchange = self.exchange, None
        self.retire()
        if exchange is not None:
            self._relay.failed(exchange, self, Failure.BROKEN, reason, began)

    def _unasked(self) -> None:
        """An answer before any byte of its request has left: it belongs to nobody. The request
        is as if this connection had been found unfit for it."""
        exchange, self.exchange = self.exchange, None
        self.retire()
        if exchange is not None:
            self._relay.failed(
                exchange, self, Failure.RESET, "an answer came before its request was sent", False
            )

    # -- ends ----------------------------------------------------------------------------------

    def cancelled(self, exchange: Exchange) -> None:
        """The exchange ended without our doing: what is under way here is of no more use."""
        if self.exchange is exchange:
            self.retire()

    def retire(self) -> None:
        """Close, and never use again; an exchange on it is not told."""
        self.exchange = None
        self._decoder = None
        self.state = State.DEAD
        self.reusable = False
        self.deadline = NEVER
        self.stream.abort()

    def expired(self, now: float) -> None:
        exchange, state = self.exchange, self.state
        self.deadline = NEVER
        if exchange is None:
            return
        if state is BODY and not self.stream.reading:
            return  # we do not read because the client does not: its own deadline counts
        self.retire()
        self._relay.failed(
            exchange, self, Failure.TIMEOUT, "the upstream took too long", state is BODY
        )

    def pause_reading(self) -> None:
        self.stream.pause_reading()
        self.deadline = NEVER

    def resume_reading(self) -> None:
        if self.state is BODY:
            self.deadline = self._now() + self._between
        self.stream.resume_reading()


def is_event_stream(lines: list[bytes]) -> bool:
    """Whether an answer is a stream of events, which may be silent for long (WHATWG HTML 9.2)."""
    return any(_EVENT_STREAM.match(line) for line in lines)
