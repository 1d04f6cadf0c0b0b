"""The relay: an exchange handed to an upstream, repeated where that is safe, and answered.

The rules of repeating (RFC 9110 9.2.2) are these. A connect that was refused or timed out moves on
to the next target. After that, a request is repeated only while no byte of an answer has been
passed on, its body (if any) is still at hand, and either its method is idempotent or nothing of it
can have been written; at most twice, within the upstream's budget. A POST is never sent twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.errors import GatewayError, Source
from edgeproxy.exchange import Exchange, Outcome
from edgeproxy.forward import request_head, response_lines
from edgeproxy.http1.client import Failure, Http1Client
from edgeproxy.http1.grammar import ResponseHead

if TYPE_CHECKING:
    from edgeproxy.snapshot import Route
    from edgeproxy.transport.deadlines import Clock
    from edgeproxy.upstream.target import Target
    from edgeproxy.upstream.upstream import Upstream

#: RFC 9110 9.2.2.
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))
_RETRIES = 2
#: A request that may not be repeated takes a pooled connection only if it was idle this short:
#: the shorter, the less likely that the upstream is closing it at this very moment.
_FRESH = 1.0

_STATUS = {Failure.REFUSED: 502, Failure.RESET: 502, Failure.BROKEN: 502, Failure.TIMEOUT: 504}
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


class Job:
    """What is kept for one relayed exchange while it is under way.

    ``head`` goes to every target; ``payload`` is the body if it was at hand whole, ``None`` if
    it is streamed (and so cannot be sent again once it was begun).
    """

    __slots__ = ("client", "head", "payload", "repeatable", "retries", "route", "tried", "upstream")

    def __init__(
        self, upstream: Upstream, route: Route, head: bytes, payload: bytes | None, repeatable: bool
    ) -> None:
        self.upstream = upstream
        self.route = route
        self.head = head
        self.payload = payload
        self.repeatable = repeatable
        self.tried: list[Target] = []
        self.retries = 0
        self.client: Http1Client | None = None

    def cancelled(self, exchange: Exchange) -> None:
        """The exchange ended without the upstream's doing: its connection is of no more use."""
        client, self.client = self.client, None
        if client is not None:
            client.retire()


class Relay:
    """One for the process. Implements :class:`edgeproxy.upstream.target.Relaying`."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now

    def start(
        self,
        exchange: Exchange,
        route: Route,
        upstream: Upstream,
        host_line: bytes,
        forwarded: bytes,
        target: bytes,
    ) -> None:
        """Relay the exchange.

        :raises GatewayError: what the head shows to be wrong, before anything is sent.
        """
        principal = exchange.principal
        payload = exchange.take_body()
        head = request_head(
            exchange,
            target,
            host_line,
            forwarded,
            route.request_rules,
            b"" if principal is None else principal.fields,
        )
        job = Job(upstream, route, head, payload, exchange.method in _IDEMPOTENT)
        exchange.job = job
        upstream.budget.requests += 1
        self._attempt(exchange, job)

    def _attempt(self, exchange: Exchange, job: Job) -> None:
        target = job.upstream.choose(self._now(), job.tried)
        if target is None:
            exchange.refuse(
                GatewayError(
                    503,
                    "No service behind this gateway is available.",
                    source=Source.UPSTREAM,
                    reason="no target left",
                    fields=(b"Retry-After: 1",),
                )
            )
            return
        job.tried.append(target)
        exchange.upstream = target.log
        exchange.attempts += 1
        client = target.lend(exchange, None if job.repeatable else _FRESH)
        if client is not None:
            self.connected(exchange, client)
        else:
            target.connect(exchange)

    # -- from targets and connections ------------------------------------------------------------

    def connected(self, exchange: Exchange, client: Http1Client) -> None:
        job = exchange.job
        assert job is not None
        job.client = client
        exchange.worker = job
        route = job.route
        payload = job.payload
        client.request(
            exchange,
            job.head if not payload else job.head + payload,
            done=payload is not None,
            chunked=exchange.head.chunked,
            first_byte=route.first_byte,
            between=route.between,
        )
        if payload is None:
            exchange.stream_body(client)

    def unreachable(self, exchange: Exchange, target: Target, why: Failure) -> None:
        job = exchange.job
        assert job is not None
        if job.upstream.choose(self._now(), job.tried) is None:
            self._give_up(exchange, why, f"{target.authority}: {why.value}")
        else:
            self._attempt(exchange, job)

    def crowded(self, exchange: Exchange, target: Target) -> None:
        exchange.refuse(
            GatewayError(
                503,
                "The service behind this gateway is busy.",
                source=Source.UPSTREAM,
                reason=f"{target.authority}: all connections are in use",
                fields=(b"Retry-After: 1",),
            )
        )

    def interim(self, exchange: Exchange, head: ResponseHead) -> None:
        exchange.inform(head.status, head.lines)

    def answer(
        self,
        exchange: Exchange,
        client: Http1Client,
        head: ResponseHead,
        payload: bytes,
        done: bool,
    ) -> None:
        job = exchange.job
        assert job is not None
        exchange.first_byte = self._now() - exchange.started
        status = head.status
        lines = response_lines(
            head,
            limited=bool(exchange.limit_lines),
            origins=job.upstream.origins,
            public=exchange.origin,
            rules=job.route.response_rules,
        )
        if exchange.method == b"HEAD" or status in (204, 304):
            length: int | None = 0
        else:
            length = head.length
        if done:
            job.client = None
            exchange.worker = None
        exchange.begin(status, head.reason, lines, length, payload, done, client)

    def failed(self, exchange: Exchange, failure: Failure, reason: str, began: bool) -> None:
        job = exchange.job
        assert job is not None
        client, job.client = job.client, None
        exchange.worker = None
        if began:
            exchange.reason = reason
            exchange.source = Source.UPSTREAM
            exchange.abort()
            exchange.finish(_OUTCOME[failure])
            return
        unsent = client is not None and client.unsent
        if (
            job.payload is not None
            and (job.repeatable or unsent)
            and failure is not Failure.BROKEN
            and job.retries < _RETRIES
            and job.upstream.budget.spend()
        ):
            job.retries += 1
            if job.upstream.choose(self._now(), job.tried) is None:
                job.tried.clear()  # every target has had its turn: begin again
            self._attempt(exchange, job)
            return
        self._give_up(exchange, failure, reason)

    def _give_up(self, exchange: Exchange, failure: Failure, reason: str) -> None:
        status = _STATUS[failure]
        exchange.failure = _OUTCOME[failure]
        exchange.refuse(
            GatewayError(status, _DETAIL[status], source=Source.UPSTREAM, reason=reason)
        )
