"""An HTTP endpoint of somebody else that is asked, by treq, over connections that are kept.

Everything is bounded: how many are asked at once, the time, and the bytes of an answer, head and
body together. Redirects are not followed, cookies not kept and nothing is unpacked, so that what
is read is what the configured address has said to this question.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from treq.content import collect
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.internet.task import Cooperator
from twisted.logger import Logger, LogPublisher
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web._newclient import HTTPClientParser
from twisted.web.client import (
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from edgeproxy.certs.loading import openssl_words
from edgeproxy.certs.pem import read_content

LARGEST = 64 << 10
"""Bytes of an answer: what Envoy lets a head have, and more than any session."""
IDLE = 4
"""Seconds until an unused connection is closed: servers in use keep theirs for 5 s and more."""

_UNHEARD: Any = LogPublisher()
#: It tells of each interim answer (100 Continue), and of nothing else: an endpoint that sends them
#: with every answer, or thousands with one, would fill the log.
HTTPClientParser._log = Logger(observer=_UNHEARD)


class Unanswered(Exception):
    """Nobody could say; the text says why, for the log. `ours`: it is not the endpoint's doing."""

    def __init__(self, why: str, *, ours: bool = False) -> None:
        super().__init__(why)
        self.ours = ours


class Reply(NamedTuple):
    """An answer, whatever its status."""

    status: int
    headers: Headers
    body: bytes

    def all(self, name: bytes) -> Sequence[bytes]:
        """Every value of a field."""
        return self.headers.getRawHeaders(name, [])


class Endpoint:
    """One address, asked over at most `most` connections at once.

    `authorities` are the certificates (PEM) that it is verified by, ``None`` for the system's;
    `timeout` is in seconds, `largest` in bytes of an answer. `reactor` connects and has the time.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        authorities: bytes | None,
        timeout: float,
        most: int,
        largest: int = LARGEST,
    ) -> None:
        self.url = url
        #: For people: without a query, which may hold a secret.
        self.shown = url.partition("?")[0]
        self.timeout = timeout
        self.largest = largest
        self.reactor = reactor
        self._most = most
        self._trust = _trust(authorities)
        self._free: list[_Line] = []
        self._stopped = False
        self.busy = 0
        #: Why no connection could be made; then one question at a time tries again, and the others
        #: need not wait for what does not come, nor look its name up all together.
        self.unreachable = ""
        #: As `FileBodyProducer` wants it; bodies are short.
        self.cooperator = Cooperator(scheduler=lambda call: reactor.callLater(0, call))

    def ask(
        self, method: str, fields: Sequence[tuple[bytes, bytes]], body: bytes | None = None
    ) -> Deferred[Reply]:
        """Its answer. The Deferred fails with `Unanswered`; cancelled, it gives up."""
        if self.busy >= self._most:
            return fail(Unanswered(f"{self._most} questions are under way", ours=True))
        if self.unreachable and self.busy:
            return fail(Unanswered(self.unreachable))
        line = self._free.pop() if self._free else _Line(self, self._trust)
        self.busy += 1
        done = line.ask(method, fields, body)
        done.addBoth(self._over, line)
        return done

    def _over(self, result: Any, line: _Line) -> Any:
        self.busy -= 1
        if self._stopped:
            line.close()
        else:
            self._free.append(line)
        return result

    def stop(self) -> None:
        """What is under way still ends; no connection is kept."""
        self._stopped = True
        lines, self._free = self._free, []
        for line in lines:
            line.close()


@implementer(IAgentEndpointFactory, IStreamClientEndpoint, IAgent)
class _Line:
    """One connection at a time, kept while it lasts. It is its own agent and endpoint: it sees
    the head that goes out and the bytes that come in."""

    def __init__(self, endpoint: Endpoint, trust: Any) -> None:
        self._reactor = endpoint.reactor
        self._whole = endpoint
        self._trust = trust
        pool = self._pool = HTTPConnectionPool(self._reactor, persistent=True)
        pool.maxPersistentPerHost = 1
        pool.cachedConnectionTimeout = IDLE
        pool.retryAutomatically = False
        self._agent = Agent.usingEndpointFactory(self._reactor, self, pool=pool)
        self._address: Any = None
        self._tls: Any = None
        self._wire: _Wire | None = None
        self.flooded = self._reached = self._late = False

    def ask(
        self, method: str, fields: Sequence[tuple[bytes, bytes]], body: bytes | None
    ) -> Deferred[Reply]:
        self.flooded = False
        self._reached = self._wire is not None
        self._late = False
        done: Deferred[Reply] = self._ask(method, fields, body)
        # Not `addTimeout`: what was cancelled does not always say so in the end, and whether that
        # was the time or the caller is all the difference.
        timer = self._reactor.callLater(self._whole.timeout, self._expire, done)
        return done.addBoth(_stopped, timer).addErrback(self._failed)

    def _expire(self, done: Deferred[Reply]) -> None:
        self._late = True
        done.cancel()

    @inlineCallbacks
    def _ask(self, method: str, fields: Sequence[tuple[bytes, bytes]], body: bytes | None) -> Any:
        kept = self._wire
        try:
            return (yield self._ask_once(method, fields, body))
        except (ResponseFailed, ConnectionClosed) as error:
            # It was closed while nobody looked: then nothing has come on it, and a question has
            # no effect that asking again would double.
            if kept is None or not kept.silent or _cancelled(error):
                raise
        return (yield self._ask_once(method, fields, body))

    @inlineCallbacks
    def _ask_once(
        self, method: str, fields: Sequence[tuple[bytes, bytes]], body: bytes | None
    ) -> Any:
        headers = Headers()
        for name, value in fields:
            headers.addRawHeader(name, value)
        data: Any = None
        if body is not None:
            data = FileBodyProducer(BytesIO(body), cooperator=self._whole.cooperator)
        # Its cookies go with it: they are one caller's.
        agent: Any = self
        response = yield HTTPClient(agent).request(
            method,
            self._whole.url,
            headers=headers,
            data=data,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        parts: list[bytes] = []
        yield collect(response, parts.append)
        if self.flooded:  # one without a length looks whole wherever it is cut
            raise self._too_long()
        return Reply(response.code, response.headers, b"".join(parts))

    def _failed(self, failure: Failure) -> Failure:
        """Nothing is left of it."""
        wire = self._wire
        if wire is not None and wire.transport is not None:
            wire.transport.abortConnection()
        error = failure.value or TimeoutError()
        if _cancelled(error) and not self._late:
            return Failure(Unanswered("nobody waits for it any more", ours=True))
        if self.flooded:
            return Failure(self._too_long())
        if isinstance(error, Unanswered):
            return failure
        why = _words(error, self._whole.timeout)
        if not self._reached:
            self._whole.unreachable = why
        return Failure(Unanswered(why))

    def _too_long(self) -> Unanswered:
        return Unanswered(f"an answer of more than {self._whole.largest} bytes")

    def close(self) -> None:
        self._pool.closeCachedConnections()

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> Deferred[Any]:
        assert headers is not None
        headers = headers.copy()
        headers.setRawHeaders("accept-encoding", ["identity"])  # treq asks for gzip
        asked: Deferred[Any] = self._agent.request(method, uri, headers, bodyProducer)
        return asked.addCallback(_as_asked_for)

    # -- the endpoint ----------------------------------------------------------------------------

    def endpointForURI(self, uri: Any) -> _Line:
        timeout = self._whole.timeout
        self._address = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=timeout)
        if uri.scheme == b"https":
            host = uri.host.decode("ascii").strip("[]")
            self._tls = optionsForClientTLS(host, trustRoot=self._trust)
        return self

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        factory: Any = WrappingFactory(protocolFactory)
        factory.protocol = self._made
        # Two lines in the log for each connection would say nothing.
        factory.noisy = protocolFactory.noisy = False
        if self._tls is not None:
            factory = TLSMemoryBIOFactory(self._tls, True, factory, clock=self._reactor)
        made: Deferred[Any] = self._address.connect(factory)
        return made.addCallback(lambda _: self._wire and self._wire.wrappedProtocol)

    def _made(self, factory: Any, wrapped: Any) -> _Wire:
        self._wire = wire = _Wire(factory, wrapped, self, self._whole.largest)
        self._reached = True
        self._whole.unreachable = ""
        return wire

    def gone(self, wire: _Wire) -> None:
        if self._wire is wire:
            self._wire = None


class _Wire(ProtocolWrapper):
    """Passes on what comes as long as it may: so many bytes for each question. `silent` tells
    that nothing has come since the last one."""

    transport: Any

    def __init__(self, factory: Any, wrapped: Any, line: _Line, largest: int) -> None:
        super().__init__(factory, wrapped)
        self._line = line
        self._left = self._largest = largest

    @property
    def silent(self) -> bool:
        return self._left == self._largest

    def writeSequence(self, data: Any) -> None:
        """The head of the next question."""
        self._left = self._largest
        self.transport.writeSequence(data)

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
        elif self.transport is not None:
            self._line.flooded = True
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._line.gone(self)


def _stopped(result: Any, timer: Any) -> Any:
    if timer.active():
        timer.cancel()
    return result


def _cancelled(error: BaseException) -> bool:
    """Whether somebody has given up; within an exchange Twisted says so in its own words."""
    reasons = getattr(error, "reasons", None)
    return isinstance(reasons[0].value if reasons else error, CancelledError)


def _words(error: BaseException, longest: float) -> str:
    """Why nothing came, in a few words; nothing of what the other side has said. `longest` are
    the seconds that were given."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        error = reasons[0].value
    if isinstance(error, TimeoutError | CancelledError):
        return f"no answer within {longest:g} s"
    if isinstance(error, DNSLookupError):
        return "its name leads nowhere"
    if isinstance(error, ConnectError):
        return f"cannot connect: {error.args[0] if error.args else error.osError or 'refused'}"
    if isinstance(error, VerificationError):
        return "its certificate is for another name"
    if isinstance(error, SSL.Error):
        return f"TLS: {openssl_words(error)}"
    return "no answer that could be understood"


def _as_asked_for(response: Any) -> Any:
    """An answer that treq will not unpack: a few bytes could become a thousand times as many."""
    encodings = response.headers.getRawHeaders(b"content-encoding", [b"identity"])
    if encodings != [b"identity"]:
        raise Unanswered("an answer in an encoding that was not asked for")
    return response


def _trust(authorities: bytes | None) -> Any:
    if authorities is None:
        return platformTrust()
    found = read_content(authorities).certificates
    return trustRootFromCertificates([Certificate.loadPEM(each.pem) for each in found])
