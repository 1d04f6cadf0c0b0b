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

from email.utils import formatdate
from enum import Enum
from functools import lru_cache
from random import SystemRandom, getrandbits, seed
from time import time
from typing import TYPE_CHECKING, Protocol

from edgeproxy.errors import GatewayError, Source, problem, title
from edgeproxy.http1.fields import FOLD
from edgeproxy.http1.grammar import RequestHead

if TYPE_CHECKING:
    from edgeproxy.certs.clients import Certified
    from edgeproxy.cors import Grant
    from edgeproxy.filters.run import Run
    from edgeproxy.hsts import StrictTransport
    from edgeproxy.identity.principal import Principal
    from edgeproxy.snapshot import Route, Snapshot
    from edgeproxy.transport.stream import Stream
    from edgeproxy.upstream.target import Target

# Request ids and span ids must differ between processes; they need not be secret.
seed(SystemRandom().getrandbits(256))


@lru_cache(2)
def _date(unix: int) -> bytes:
    """A moment as HTTP writes it (RFC 9110 5.6.7)."""
    return formatdate(unix, usegmt=True).encode("ascii")


class Outcome(Enum):
    """How an exchange ended, as it stands in the log."""

    OK = "ok"
    REFUSED = "refused"
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    IDLE = "idle"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_RESET = "upstream_reset"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    DRAINED = "drained"
    ERROR = "error"


class Peer:
    """What is known of a client's connection, the same for all its requests.

    ``host_view`` is kept by the resource (what the last Host field on this connection led to),
    ``log`` by the access log (the part of a line that is the connection's).

    ``address`` is text (an IPv4 address is never in its IPv6 form), ``tls`` the protocol version
    and ``sni`` the name asked for, both empty without TLS; ``port`` is the listener's.
    ``certified`` is the client certificate that was shown, where one was asked for.
    """

    __slots__ = ("address", "certified", "host_view", "log", "port", "remote_port", "sni", "tls")

    def __init__(
        self,
        address: str,
        remote_port: int,
        port: int,
        tls: str = "",
        sni: str | None = None,
    ) -> None:
        self.address = address
        self.remote_port = remote_port
        self.port = port
        self.tls = tls
        self.sni = sni
        self.certified: Certified | None = None
        self.host_view: object = None
        self.log = ""

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


class Held(Protocol):
    """Whose stream a tunnel has, to be told when that is gone."""

    stream: Stream

    def lost(self, clean: bool) -> None: ...


class Exchange:
    """See the module's text. Times are monotonic seconds; sizes are bytes of bodies.

    ``now`` is when it began, or last went on after waiting for a decision: the time of the phases
    that follow.

    ``trace`` (32 hex digits) is fresh for each request: its id, its trace id unless the caller
    sent one, and in its first half our span. ``id`` is the same, or what a trusted proxy said.
    ``client`` is the caller's address: the peer's, or the one that trusted proxies vouch for.
    ``origin`` is our public origin as the client named it, ``https://host[:port]``.
    ``credential`` is the line of the head that identified the caller; it is not passed on.
    ``chunked`` tells that the answer is sent so.
    ``limit_lines`` are lines that every answer carries once limits were looked at, each with
    CRLF; ``limit`` and ``remaining`` say the same to the log. ``failure`` is how a refusal on
    behalf of somebody else is logged. ``worker`` is told when the exchange ends without its doing.

    ``hsts`` is put on the answer, whoever gives it, where the host wants that and TLS is spoken;
    ``cors`` where the route says which other origins' pages may read it.

    ``upgrade`` tells that a WebSocket was asked for where the route allows it.

    ``shadow`` is what policies in shadow mode would have answered, and why, in their order.

    ``notes`` are further members of its line in the log, ready JSON, each with its comma. On routes
    with filters ``filtering`` is its way through them, where they have a part in its answer or its
    end, and ``written`` are the fields that they have set or removed in its head, folded; on routes
    that take a prefix away ``asked`` is the path as it was asked for.

    What the relay keeps: ``head_out`` and ``payload`` (the body if it was at hand whole, ``None``
    if it is streamed, and so cannot be sent again), the targets ``tried``, ``retries``.
    """

    __slots__ = (
        "asked",
        "attempts",
        "began",
        "chunked",
        "client",
        "connect_time",
        "cors",
        "credential",
        "duration",
        "ended",
        "failure",
        "filtering",
        "first_byte",
        "head",
        "head_out",
        "host",
        "hsts",
        "id",
        "limit",
        "limit_lines",
        "method",
        "notes",
        "now",
        "origin",
        "outcome",
        "path",
        "payload",
        "peer",
        "principal",
        "query",
        "reason",
        "received",
        "remaining",
        "retries",
        "route",
        "sent",
        "shadow",
        "snapshot",
        "source",
        "started",
        "status",
        "trace",
        "tried",
        "upgrade",
        "upstream",
        "worker",
        "written",
    )

    #: Whether the channel can give its stream away, as a tunnel needs it.
    tunnels = False
    snapshot: Snapshot
    duration: float
    head_out: bytes
    payload: bytes | None
    asked: bytes
    filtering: Run | None
    written: frozenset[bytes]

    def __init__(self, head: RequestHead, peer: Peer, started: float) -> None:
        self.head = head
        self.method = head.method
        self.peer = peer
        self.client = peer.address
        self.started = self.now = started
        self.id = self.trace = b"%032x" % getrandbits(128)
        self.path = self.query = self.origin = self.limit_lines = b""
        self.host = self.limit = self.notes = self.reason = self.upstream = ""
        self.route: Route | None = None
        self.hsts: StrictTransport | None = None
        self.cors: Grant | None = None
        self.principal: Principal | None = None
        self.credential: bytes | None = None
        self.worker: Answering | None = None
        self.outcome: Outcome | None = None
        self.failure: Outcome | None = None
        self.source: Source | None = None
        self.tried: tuple[Target, ...] = ()
        self.shadow: tuple[tuple[int, str], ...] = ()
        self.status = self.received = self.sent = self.attempts = self.retries = 0
        self.remaining = -1
        self.connect_time = self.first_byte = 0.0
        self.began = self.chunked = self.ended = self.upgrade = False

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

    def switch(self, lines: list[bytes]) -> tuple[Held, bytes]:
        """Answer 101 and give the client's stream away, with what the client sent too early.

        Only where :attr:`tunnels`. From now on the exchange's worker has to end it.
        """
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
        lines.append(b"Date: " + _date(int(time())))
        self.begin(status, title(status).encode("ascii"), lines, len(payload), payload, True, None)

    def give(self, lines: list[bytes], body: bytes) -> None:
        """Give what a route has in a service's place: its rules for answers hold here too."""
        route = self.route
        if route is not None and route.response_rules is not None:
            lines = route.response_rules.apply(lines)
        self.reply(200, lines, body)

    def shadowed(self, status: int, what: str) -> None:
        """Note what would have been answered, were it not for a policy's shadow mode."""
        self.shadow += ((status, what),)

    def untouched(self, trailers: list[bytes]) -> list[bytes]:
        """The trailers of the request that its filters have neither taken out of its head nor
        set there."""
        written = self.written
        return [line for line in trailers if line.partition(b":")[0].translate(FOLD) not in written]

    def close_after(self) -> None:
        """Keep no connection alive after this answer."""

    def finish(self, outcome: Outcome) -> None:
        """The one end of every way."""
        if self.ended:
            return
        self.ended = True
        self.outcome = outcome
        worker = self.worker
        if worker is not None:
            self.worker = None
            worker.cancelled(self)
        self.snapshot.finished(self)
