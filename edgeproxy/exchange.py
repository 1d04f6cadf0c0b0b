"""One exchange: a request, what was decided about it, and its answer.

The listener's channel makes an :class:`Exchange` for each request and hands it to
:class:`edgeproxy.resource.ReverseProxyResource`, which decides; whoever answers (the gateway
itself, the relay, later a resource or a filter) does it through the methods below. Each channel
implements the few that move bytes: HTTP/1.1 in :mod:`edgeproxy.http1.server`, a stock
``twisted.web`` site in :mod:`edgeproxy.site`.

An answer is either :meth:`Exchange.refuse`, or :meth:`Exchange.begin` followed by
:meth:`Exchange.send` and :meth:`Exchange.end`, or :meth:`Exchange.abort` at any time. Every way
ends in :meth:`Exchange.finish`, once, which releases what was taken and writes the log line.
"""

from __future__ import annotations

from enum import Enum
from random import SystemRandom, getrandbits, seed
from typing import TYPE_CHECKING, Protocol

from edgeproxy.errors import GatewayError, Source, problem, title
from edgeproxy.http1.grammar import RequestHead

if TYPE_CHECKING:
    from edgeproxy.identity.principal import Principal
    from edgeproxy.relay import Job
    from edgeproxy.snapshot import Route, Snapshot

# Request ids and span ids must differ between processes; they need not be secret.
seed(SystemRandom().getrandbits(256))


class Outcome(Enum):
    """How an exchange ended, as it stands in the log."""

    OK = "ok"
    REFUSED = "refused"
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_RESET = "upstream_reset"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    DRAINED = "drained"
    ERROR = "error"


class Peer:
    """What is known of a client's connection, the same for all its requests.

    ``address`` is text (an IPv4 address is never in its IPv6 form), ``tls`` the protocol version
    and ``sni`` the name asked for, both empty without TLS; ``port`` is the listener's.
    """

    __slots__ = ("address", "host_view", "log", "port", "protocol", "remote_port", "sni", "tls")

    def __init__(
        self,
        address: str,
        remote_port: int,
        port: int,
        protocol: str,
        tls: str = "",
        sni: str | None = None,
    ) -> None:
        self.address = address
        self.remote_port = remote_port
        self.port = port
        self.protocol = protocol
        self.tls = tls
        self.sni = sni
        #: Kept by the resource: what the last Host field on this connection led to.
        self.host_view: object = None
        #: Kept by the access log: the part of a line that is the connection's.
        self.log: str | None = None

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"


class Sink(Protocol):
    """Takes the request's body; told to pause the client through the exchange."""

    def body(self, data: bytes) -> None: ...
    def body_end(self, trailers: list[bytes]) -> None: ...


class Throttle(Protocol):
    """The source of an answer's body, paused while the client is slow."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Answering(Protocol):
    """Whoever is at work on an exchange, told when it ends without its doing."""

    def cancelled(self, exchange: Exchange) -> None: ...


class Exchange:
    """See the module's text. Times are monotonic seconds; sizes are bytes of bodies."""

    # Class attributes are the defaults: an instance only holds what was set.
    snapshot: Snapshot
    path: bytes = b""
    query: bytes = b""
    host: str = ""
    route: Route | None = None
    principal: Principal | None = None
    #: The line of the head that identified the caller; it is not passed on.
    credential: bytes | None = None
    #: Lines that every answer carries once limits were looked at, each with CRLF.
    limit_lines: bytes = b""
    #: For the log: the limit that decided, and what was left of it.
    limit: str = ""
    remaining: int = -1
    #: Our public origin as the client named it: ``https://host[:port]``.
    origin: bytes = b""
    status: int = 0
    outcome: Outcome | None = None
    reason: str = ""
    source: Source | None = None
    received: int = 0
    sent: int = 0
    upstream: str = ""
    attempts: int = 0
    connect_time: float = -1.0
    first_byte: float = -1.0
    worker: Answering | None = None
    #: What the relay keeps while it works on this.
    job: Job | None = None
    #: How a refusal on behalf of somebody else is logged.
    failure: Outcome | None = None
    began = False
    ended = False

    def __init__(self, head: RequestHead, peer: Peer, started: float) -> None:
        self.head = head
        self.method = head.method
        self.peer = peer
        #: The caller's address: the peer's, or the one that trusted proxies vouch for.
        self.client = peer.address
        self.started = started
        bits = b"%048x" % getrandbits(192)
        #: 32 hex digits: the request's id and, unless the caller sent one, its trace id.
        self.id = bits[:32]
        #: 16 hex digits: our span, the parent that the upstream sees.
        self.span = bits[32:]

    # -- what a channel implements -----------------------------------------------------------

    def take_body(self) -> bytes | None:
        """The whole request body if all of it is here already, ``b""`` when there is none;
        ``None`` when it has to be streamed by :meth:`stream_body`."""
        raise NotImplementedError

    def stream_body(self, sink: Sink) -> None:
        """Send the body on to ``sink`` as it comes; says 100 Continue if it was asked for."""
        raise NotImplementedError

    def pause_body(self) -> None:
        """Read no more of the body until :meth:`resume_body`."""
        raise NotImplementedError

    def resume_body(self) -> None:
        raise NotImplementedError

    def inform(self, status: int, lines: list[bytes]) -> None:
        """Pass a 1xx answer on."""
        raise NotImplementedError

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
        """Answer: the head and the first bytes of the body.

        ``lines`` are field lines without CRLF, ours to change; ``Content-Length`` is among them
        where it is known. ``length`` is the body's length, 0 where there is none by definition,
        ``None`` when it is not known. With ``complete`` the answer ends here.
        """
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Pass more of the body on; pauses the source while the client is slow."""
        raise NotImplementedError

    def end(self, trailers: list[bytes]) -> None:
        """The body is complete."""
        raise NotImplementedError

    def abort(self) -> None:
        """End the client's connection (or stream) so that nobody takes it for a clean end."""
        raise NotImplementedError

    # -- for whoever answers -----------------------------------------------------------------

    def refuse(self, error: GatewayError) -> None:
        """Answer with a problem document; if an answer has begun already, abort instead."""
        if self.ended:
            return
        self.reason = error.reason
        self.source = error.source
        if self.began:
            self.abort()
            self.finish(Outcome.ERROR)
            return
        body = problem(error.status, error.detail, self.id.decode("ascii"))
        lines = [
            b"Content-Type: application/problem+json",
            b"Content-Length: %d" % len(body),
            b"Cache-Control: no-store",
            b"X-Request-Id: " + self.id,
            *error.fields,
        ]
        if error.close:
            self.close_after()
        self.reply(error.status, lines, body)

    def reply(self, status: int, lines: list[bytes], body: bytes) -> None:
        """Give a short answer of our own, whole."""
        payload = b"" if self.method == b"HEAD" else body
        self.begin(status, title(status).encode("ascii"), lines, len(payload), payload, True, None)

    def close_after(self) -> None:
        """Keep no connection alive after this answer."""

    def finish(self, outcome: Outcome) -> None:
        """The one end of every way."""
        if self.ended:
            return
        self.ended = True
        self.outcome = outcome
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.cancelled(self)
        self.snapshot.finished(self)
