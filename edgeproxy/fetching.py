"""Small documents of others (key sets), fetched by treq.

Each over a connection of its own, with everything bounded: the time, and the bytes of head and
body together. Redirects are not followed and nothing is unpacked, so that what is read is what the
configured address has said.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from treq.content import collect
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from edgeproxy.certs.loading import openssl_words
from edgeproxy.certs.pem import read_content

LONGEST = 5.0
"""Seconds for all of it: Envoy's default for remote JWKS is 1 s, PyJWT's 30 s."""
LARGEST = 512 << 10
"""Bytes of head and body: the largest key sets in use have some tens of thousands."""


class FetchError(Exception):
    """There is no such document to be had; the text says why, for the log."""


class Fetcher:
    """Fetches documents from addresses that the configuration names.

    ``authorities`` are the certificates (PEM) that servers are verified by, ``None`` for the
    system's. ``reactor`` connects and has the time.
    """

    def __init__(self, reactor: Any, authorities: bytes | None = None) -> None:
        self._reactor = reactor
        if authorities is None:
            self._trust: Any = platformTrust()
        else:
            found = read_content(authorities).certificates
            self._trust = trustRootFromCertificates([Certificate.loadPEM(c.pem) for c in found])

    def get(self, url: str) -> Deferred[bytes]:
        """The body of a 200 answer; the Deferred fails with `FetchError` alone."""
        return _Fetch(self._reactor, self._trust).get(url)


@implementer(IAgentEndpointFactory, IStreamClientEndpoint, IAgent)
class _Fetch:
    """One of them. It is its own agent and endpoint: it sees the head that goes out and the bytes
    that come in."""

    def __init__(self, reactor: Any, trust: Any) -> None:
        self._reactor = reactor
        self._trust = trust
        self._agent = Agent.usingEndpointFactory(reactor, self)
        self._endpoint: Any = None
        self._tls: Any = None
        self._wire: _Wire | None = None
        self._left = LARGEST

    def get(self, url: str) -> Deferred[bytes]:
        done: Deferred[bytes] = self._get(url)
        done.addTimeout(LONGEST, self._reactor)
        done.addBoth(self._end)
        return done

    @inlineCallbacks
    def _get(self, url: str) -> Any:
        client = HTTPClient(self)  # type: ignore[arg-type]  # zope's interface
        response = yield client.get(
            url,
            headers=Headers({b"Accept": [b"application/json"]}),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        if response.code != 200:
            raise FetchError(f"status {response.code}")
        parts: list[bytes] = []
        yield collect(response, parts.append)
        return b"".join(parts)

    def _end(self, result: Any) -> Any:
        """Nothing is left of it, however it went."""
        wire, self._wire = self._wire, None
        if wire is not None and wire.transport is not None:
            wire.transport.abortConnection()
        if self._left < 0:
            return Failure(FetchError(f"more than {LARGEST} bytes"))
        if not isinstance(result, Failure):
            return result
        return Failure(FetchError(words(result.value or TimeoutError(), LONGEST)))

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> Deferred[Any]:
        assert headers is not None
        headers = headers.copy()
        headers.setRawHeaders("accept-encoding", ["identity"])  # treq asks for gzip
        answer: Deferred[Any] = self._agent.request(method, uri, headers, bodyProducer)
        return answer.addCallback(_plain)

    def endpointForURI(self, uri: Any) -> _Fetch:
        self._endpoint = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=LONGEST)
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
        reached: Deferred[Any] = self._endpoint.connect(factory)
        return reached.addCallback(lambda _: self._wire and self._wire.wrappedProtocol)

    def _made(self, factory: Any, wrapped: Any) -> _Wire:
        self._wire = _Wire(factory, wrapped)
        self._wire.take = self._take
        return self._wire

    def _take(self, size: int) -> bool:
        self._left -= size
        return self._left >= 0


class _Wire(ProtocolWrapper):
    """Passes on what comes as long as it may."""

    take: Any

    def dataReceived(self, data: bytes) -> None:
        if self.take(len(data)):
            super().dataReceived(data)  # type: ignore[no-untyped-call]
        elif self.transport is not None:
            self.transport.abortConnection()


def _plain(response: Any) -> Any:
    """The answer, before treq unpacks it: a small one could become large."""
    if response.headers.hasHeader(b"content-encoding"):
        raise FetchError("an answer in an encoding that was not asked for")
    return response


def words(error: BaseException, longest: float) -> str:
    """Why nothing came, in a few words; nothing of what the other side has said. `longest` are
    the seconds that were given."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        error = reasons[0].value
    if isinstance(error, FetchError):
        return str(error)
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
