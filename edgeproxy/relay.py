"""The relay: an exchange handed to an upstream, repeated where that is safe, and answered.

The rules of repeating (RFC 9110 9.2.2) are these. A connect that was refused or timed out moves on
to the next target. After that, a request is repeated only while no byte of an answer has been
passed on, its body (if any) is still at hand, and either its method is idempotent or nothing of it
can have been written; at most twice, within the upstream's budget. A POST is never sent twice, and
neither is a request for a WebSocket: what it begins has effects that nobody knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.errors import GatewayError, Source
from edgeproxy.exchange import Exchange, Outcome
from edgeproxy.forward import request_head, response_lines
from edgeproxy.http1.client import Failure, Http1Client
from edgeproxy.http1.grammar import ResponseHead, split_host, without
from edgeproxy.http1.upgrade import LINES
from edgeproxy.tunnel import Tunnel

if TYPE_CHECKING:
    from edgeproxy.snapshot import Route
    from edgeproxy.transport.deadlines import Deadlines
    from edgeproxy.upstream.target import Target
    from edgeproxy.upstream.upstream import Upstream

#: A body up to this size is waited for where its request may be repeated (nginx
#: client_body_buffer_size).
_GATHERED = 16384
#: RFC 9110 9.2.2.
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))
_RETRIES = 2
_LENGTH = frozenset((b"content-length",))
_STATUS = {Failure.REFUSED: 502, Failure.RESET: 502, Failure.BROKEN: 502, Failure.TIMEOUT: 504}
_PORTS = {"http": 80, "https": 443}
_DETAIL = {
    502: "The service behind this gateway did not answer properly.",
    504: "The service behind this gateway took too long to answer.",
}
_OUTCOME = {
    Failure.REFUSED: Outcome.UPSTREAM_FAILED,
    Failure.RESET: Outcome.UPSTREAM_RESET,
    Failure.BROKEN: Outcome.UPSTREAM_FAILED,
    Failure.TIMEOUT: Outcome.UPSTREAM_TIMEOUT,
}


class Relay:
    """One for the process. Implements :class:`edgeproxy.http1.client.Relaying` and what a target
    tells of connections that could not be made."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._now = deadlines.clock.now

    def start(
        self,
        exchange: Exchange,
        route: Route,
        upstream: Upstream,
        host_line: bytes,
        forwarded: bytes,
        head_out: bytes = b"",
    ) -> None:
        """Relay the exchange; ``head_out`` is the upstream's head where it has been made already.

        :raises GatewayError: what the head shows to be wrong, before anything is sent.
        """
        principal = exchange.principal
        head = exchange.head
        exchange.payload = exchange.take_body() if head.length or head.chunked else b""
        if principal is None:
            identity = b""
        elif route.edge is None:
            identity = principal.fields
        else:
            identity = route.edge.lines(principal, exchange.now + self._deadlines.clock.epoch)
        exchange.head_out = head_out or request_head(
            exchange, host_line, forwarded, route.request_rules, identity
        )
        upstream.budget.requests += 1
        if (
            exchange.payload is None
            and exchange.method in _IDEMPOTENT
            and head.length is not None
            and head.length <= _GATHERED
        ):
            exchange.worker = gathering = _Gathering(self, exchange, upstream)
            exchange.stream_body(gathering)
            return
        # The present, near enough; an idle connection only seems older.
        self._attempt(exchange, upstream, exchange.now)

    def gathered(self, exchange: Exchange, upstream: Upstream, payload: bytes) -> None:
        """The body that was waited for is here."""
        exchange.worker = None
        exchange.payload = payload
        self._attempt(exchange, upstream, self._now())

    def _attempt(
        self, exchange: Exchange, upstream: Upstream, now: float, target: Target | None = None
    ) -> None:
        """Give the exchange to ``target``, or to the one whose turn it is."""
        tried = exchange.tried
        if target is None:
            target = upstream.choose(exchange) if tried or not upstream.only else upstream.only
        if target is None:
            exchange.refuse(
                GatewayError(
                    503,
                    "No service behind this gateway is available.",
                    source=Source.UPSTREAM,
                    reason="no target left" if tried else "no address of the service is known",
                    fields=(b"Retry-After: 1",),
                )
            )
            return
        exchange.tried = (*tried, target) if tried else target.alone
        exchange.upstream = target.name
        exchange.attempts += 1
        client = target.lend(now, exchange.method in _IDEMPOTENT and not exchange.upgrade)
        if client is None:
            if target is not upstream.only and not target.pool.room:
                other = upstream.with_room(exchange)
                if other is not None:
                    self._instead(exchange, other, now)
                    return
            target.connect(exchange)
        else:
            self._send(exchange, client, now)

    def _instead(self, exchange: Exchange, target: Target, now: float) -> None:
        """The exchange would have to wait at the target that was chosen, and need not here."""
        exchange.tried = (*exchange.tried[:-1], target)
        exchange.upstream = target.name
        client = target.lend(now, exchange.method in _IDEMPOTENT and not exchange.upgrade)
        if client is None:
            target.connect(exchange)
        else:
            self._send(exchange, client, now)

    def _send(self, exchange: Exchange, client: Http1Client, now: float) -> None:
        payload = exchange.payload
        exchange.worker = client
        client.request(
            exchange,
            exchange.head_out + payload if payload else exchange.head_out,
            payload is not None,
            now,
        )
        if payload is None:
            exchange.stream_body(client)

    # -- from targets and connections ------------------------------------------------------------

    def connected(self, exchange: Exchange, client: Http1Client) -> None:
        self._send(exchange, client, self._now())

    def unreachable(self, exchange: Exchange, target: Target, failure: Failure, why: str) -> None:
        upstream = _upstream(exchange)
        following = upstream.choose(exchange)
        if following is None:
            self._give_up(exchange, failure, f"{target.name}: {why}")
        else:
            self._attempt(exchange, upstream, self._now(), following)

    def crowded(self, exchange: Exchange, target: Target) -> None:
        exchange.refuse(
            GatewayError(
                503,
                "The service behind this gateway is busy.",
                source=Source.UPSTREAM,
                reason=f"{target.name}: all connections are in use",
                fields=(b"Retry-After: 1",),
            )
        )

    def interim(self, exchange: Exchange, head: ResponseHead) -> None:
        exchange.retries = _RETRIES  # something of the answer has been passed on: no more
        # RFC 9110 8.6: an interim answer has no body, so no length either.
        exchange.inform(head.status, without(head.lines, _LENGTH))

    def answer(
        self,
        exchange: Exchange,
        client: Http1Client,
        head: ResponseHead,
        payload: bytes,
        done: bool,
        now: float,
    ) -> None:
        route = exchange.route
        assert route is not None and route.upstream is not None
        exchange.first_byte = now - exchange.started
        status = head.status
        health = exchange.tried[-1].health
        if status >= 500:
            route.upstream.failed(exchange.tried[-1], f"status {status}", now)
        elif health.failures:
            health.failures = 0
        lines = head.lines
        if head.special or route.response_rules is not None or status == 204:
            lines = _rewritten(exchange, route, head)
        if done:
            exchange.worker = None
        bodiless = exchange.method == b"HEAD" or status in (204, 304)
        length = 0 if bodiless else head.length
        exchange.begin(status, head.reason, lines, length, payload, done, client)

    def switched(
        self, exchange: Exchange, client: Http1Client, head: ResponseHead, rest: bytes, now: float
    ) -> None:
        route = exchange.route
        assert route is not None
        exchange.first_byte = now - exchange.started
        lines = without(_rewritten(exchange, route, head), _LENGTH)
        held, early = exchange.switch([*lines, *LINES])
        Tunnel(exchange, held, client, route.tunnel, self._deadlines).open(early, rest)

    def failed(
        self, exchange: Exchange, client: Http1Client, failure: Failure, reason: str, began: bool
    ) -> None:
        exchange.worker = None
        upstream, now = _upstream(exchange), self._now()
        if not client.unsent:  # else it closed a connection that nobody needed
            upstream.failed(exchange.tried[-1], reason, now)
        if began:
            exchange.reason = reason
            exchange.source = Source.UPSTREAM
            exchange.finish(_OUTCOME[failure])
            exchange.abort()
            return
        if (
            exchange.payload is not None
            and (client.unsent or (exchange.method in _IDEMPOTENT and not exchange.upgrade))
            and failure is not Failure.BROKEN
            and exchange.retries < _RETRIES
            and upstream.budget.spend()
        ):
            exchange.retries += 1
            self._attempt(exchange, upstream, now, upstream.again(exchange))
            return
        self._give_up(exchange, failure, reason)

    def _give_up(self, exchange: Exchange, failure: Failure, reason: str) -> None:
        status = _STATUS[failure]
        exchange.failure = _OUTCOME[failure]
        exchange.refuse(
            GatewayError(status, _DETAIL[status], source=Source.UPSTREAM, reason=reason)
        )


class _Gathering:
    """Takes the small body of a request that may be repeated, to have it at hand then. Until it
    is whole no service is troubled. An :class:`edgeproxy.exchange.Sink`."""

    __slots__ = ("_exchange", "_pieces", "_relay", "_upstream")

    def __init__(self, relay: Relay, exchange: Exchange, upstream: Upstream) -> None:
        self._relay = relay
        self._exchange = exchange
        self._upstream = upstream
        self._pieces: list[bytes] = []

    def body(self, data: bytes) -> None:
        self._pieces.append(data)

    def body_end(self, trailers: list[bytes]) -> None:
        self._relay.gathered(self._exchange, self._upstream, b"".join(self._pieces))

    def cancelled(self, exchange: Exchange) -> None:
        """Nothing was sent yet."""


def _rewritten(exchange: Exchange, route: Route, head: ResponseHead) -> list[bytes]:
    upstream = _upstream(exchange)
    return response_lines(
        head,
        limited=bool(exchange.limit_lines),
        origins=(*upstream.origins, *_own_origins(exchange, route)),
        public=exchange.origin,
        rules=route.response_rules,
    )


def _own_origins(exchange: Exchange, route: Route) -> tuple[bytes, ...]:
    """How a service names itself that goes by the Host it was sent and the port it listens on,
    as nginx does for its own redirects."""
    line = route.host_line
    name = exchange.host.encode("ascii") if line is None else split_host(line[6:])[0]
    target = exchange.tried[-1]
    origin = b"%b://%b" % (target.scheme.encode("ascii"), name)
    if not target.port:
        return (origin,)
    whole = b"%b:%d" % (origin, target.port)
    # nginx and others leave a port out that is the scheme's own.
    return (whole, origin) if target.port == _PORTS[target.scheme] else (whole,)


def _upstream(exchange: Exchange) -> Upstream:
    route = exchange.route
    assert route is not None and route.upstream is not None
    return route.upstream
