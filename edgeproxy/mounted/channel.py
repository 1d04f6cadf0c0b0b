"""An exchange as ``twisted.web`` sees it: the channel of one request, as its own ``H2Stream`` is.

A resource's answer is read as a service's is, by the same grammar, so what is removed, hidden and
added on the way out is the same; and it is held to its length: what is cut short or runs over
never ends cleanly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IConsumer, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from edgeproxy.errors import GatewayError, Source, malformed
from edgeproxy.exchange import Outcome
from edgeproxy.forward import response_lines
from edgeproxy.http1.client import is_event_stream
from edgeproxy.http1.grammar import ResponseHead, parse_response, split_host, without
from edgeproxy.transport.deadlines import NEVER

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.mounted.mount import Mount
    from edgeproxy.mounted.request import GatewayRequest
    from edgeproxy.snapshot import Route

_log = Logger()
_LENGTH = frozenset((b"content-length",))
_BODILESS = (204, 304)
_FAILED = "The gateway failed to handle this request."


@implementer(ITransport, IConsumer)
class Channel:
    """See the module's text. The source of the answer (a ``Throttle``), whoever is at work on the
    exchange (``Answering``), and what waits for the resource (``Waiting``)."""

    request: GatewayRequest

    def __init__(self, mount: Mount, exchange: Exchange, route: Route) -> None:
        self.over = False
        self.route = route
        self.mount = route.mount
        self.site = mount.site
        self.disconnecting = False
        self._mount = mount
        self._exchange = exchange
        self._secure = exchange.peer.scheme == "https"
        self._left: int | None = None
        self._bodiless = False
        self._producer: Any = None
        self._pulling = False
        self._call: Any = None
        self._paused = False
        self._between = route.between
        self.deadline = mount.now() + route.first_byte
        exchange.worker = self
        mount.deadlines.waiting.add(self)

    @property
    def transport(self) -> Channel:
        return self

    # -- for the request: who is speaking --------------------------------------------------------

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The client, whoever stands between; a port only where it is the client's own."""
        exchange = self._exchange
        port = exchange.peer.remote_port if exchange.client == exchange.peer.address else 0
        kind = IPv6Address if ":" in exchange.client else IPv4Address
        return kind("TCP", exchange.client, port)

    def getHost(self) -> IPv4Address:
        """Ourselves as the client named us, so that URLs made of it lead here."""
        _, _, authority = self._exchange.origin.partition(b"://")
        port = split_host(authority)[1] or (443 if self._secure else 80)
        return IPv4Address("TCP", self._exchange.host, port)

    def isSecure(self) -> bool:
        return self._secure

    # -- for the request: the answer -------------------------------------------------------------

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
        """The resource's head; framing is ours, whatever stands there about it."""
        if self.over:
            return
        self.request.chunked = 0
        try:
            head = self._head(code, reason, headers)
        except ValueError as error:
            self._broken(f"the head of its answer: {error}")
            return
        exchange, route = self._exchange, self.route
        exchange.first_byte = self._mount.now() - exchange.started
        lines = response_lines(
            head,
            limited=bool(exchange.limit_lines),
            origins=(),
            public=exchange.origin,
            rules=route.response_rules,
        )
        if head.status == 304 and head.length == 0:
            lines = without(lines, _LENGTH)  # RFC 9110 8.6: it would be that of a 200
        self._bodiless = exchange.method == b"HEAD" or head.status in _BODILESS
        self._left = 0 if self._bodiless else head.length
        if head.length is None and is_event_stream(lines):
            self._between = route.tunnel
        self._worked()
        exchange.begin(head.status, head.reason, lines, self._left, b"", False, self)

    def _head(self, code: bytes, reason: bytes, headers: Any) -> ResponseHead:
        """
        :raises ValueError: it is no head of an answer.
        """
        headers.removeHeader(b"Transfer-Encoding")
        lines = [
            b"%b: %b\r\n" % (name, value)
            for name, values in headers.getAllRawHeaders()
            for value in values
        ]
        written = b"HTTP/1.1 %b %b\r\n%b\r\n" % (code, reason, b"".join(lines))
        snapshot = self._exchange.snapshot
        found = parse_response(written, snapshot.response_fields, snapshot.config.heads.response)
        if found is None or found[1] != len(written):
            raise ValueError("malformed, or too large")
        if found[0].status < 200:
            raise ValueError(f"{found[0].status} is not the status of an answer")
        return found[0]

    def write(self, data: bytes) -> None:
        if self.over or self._bodiless:
            return
        exchange = self._exchange
        if not exchange.began:
            raise RuntimeError("the answer's head has to be written first")
        if self._left is not None:
            if len(data) > self._left:
                self._broken("it wrote more than its Content-Length")
                return
            self._left -= len(data)
        self._worked()
        exchange.send(data)

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def requestDone(self, request: object) -> None:
        """The resource says that this is all."""
        if self.over:
            return
        if self._left:
            self._broken("it wrote less than its Content-Length")
            return
        self._end()
        self._exchange.worker = None
        self._exchange.end([])
        del self.request  # which holds us: no collector is needed for what has ended

    # -- for the request: producers --------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.over:
            producer.stopProducing()
            return
        self._producer = producer
        self._pulling = not streaming
        if self._pulling:
            self._pull_later()
        elif self._paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def _pull_later(self) -> None:
        if self._call is None:
            self._call = self._mount.reactor.callLater(0, self._pull)

    def _pull(self) -> None:
        """A turn of the reactor for each piece, so that a large answer holds nobody up."""
        self._call = None
        if self._producer is not None and self._pulling and not self._paused:
            self._tell("resumeProducing")
            if self._producer is not None:
                self._pull_later()

    def _tell(self, what: str) -> None:
        request = self.request
        try:
            getattr(self._producer, what)()
        except Exception:
            request.processingFailed(Failure())

    # -- from the client's side ------------------------------------------------------------------

    def pause_reading(self) -> None:
        self._paused = True
        self.deadline = NEVER  # it is the client's time now
        if self._producer is not None and not self._pulling:
            self._tell("pauseProducing")

    def resume_reading(self) -> None:
        self._paused = False
        self._worked()
        if self._producer is None:
            return
        if self._pulling:
            self._pull_later()
        else:
            self._tell("resumeProducing")

    def cancelled(self, exchange: Exchange) -> None:
        """The exchange has ended without the resource's doing: the client has gone, or a drain's
        time is over."""
        if not self.over:
            self._end()
            self._lost(ConnectionLost())

    def expired(self, now: float) -> None:
        self.deadline = NEVER
        detail = "The gateway took too long to answer."
        reason = "the resource took too long"
        self.fail(GatewayError(504, detail, source=Source.OURSELVES, reason=reason))

    # -- ends ------------------------------------------------------------------------------------

    def fail(self, error: GatewayError) -> None:
        """Answer with an error, or abort an answer that has begun. The resource is told in a turn
        of its own, since it may be at work right now."""
        if self.over:
            return
        self._end()
        exchange = self._exchange
        exchange.worker = None
        if error.source is Source.OURSELVES:
            exchange.failure = Outcome.ERROR
        exchange.refuse(error)
        self._mount.reactor.callLater(0, self._lost, ConnectionAborted())

    def _broken(self, what: str) -> None:
        _log.error(
            "{route}: the resource failed at request {request}: {what}",
            route=self.route.label,
            request=self.request.request_id,
            what=what,
        )
        error = GatewayError(500, _FAILED, source=Source.OURSELVES, reason=f"resource: {what}")
        self.fail(error)

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted's word for a form that it cannot read."""
        self.fail(malformed("The form in the request's body is malformed."))

    def loseConnection(self) -> None:
        """What is asked of a transport when an answer is not to end as it should."""
        self._broken("it closed the connection")

    abortConnection = forceAbortClient = loseConnection

    def _worked(self) -> None:
        if not self._paused:
            self.deadline = self._mount.now() + self._between

    def _end(self) -> None:
        self.over = True
        self.disconnecting = True
        self.deadline = NEVER
        self._mount.deadlines.waiting.discard(self)
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _lost(self, why: Exception) -> None:
        producer, self._producer = self._producer, None
        request = self.request
        del self.request
        if request.finished:
            return
        if producer is not None:
            request.producer = None
            try:
                producer.stopProducing()
            except Exception:
                _log.failure("{route}: stopping a producer failed", route=self.route.label)
        request.connectionLost(Failure(why))  # type: ignore[no-untyped-call]
