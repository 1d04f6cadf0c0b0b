"""Probes: a target is asked how it is, by treq over a connection of the kind that requests get.

The first probe goes out at once, each further one ``interval`` after the one before has
begun, a tenth earlier at most, so that the probes of several gateways do not fall together. A
probe is decided by the answer's status. Of what follows only so much is read that the service can
end in peace; redirects are not followed, cookies not kept, and when the time-out is over nothing
is left of it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, Protocol

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from edgeproxy.transport.stream import Stream, StreamProtocol
from edgeproxy.upstream.watch import Check

_log = Logger()

#: Bytes of an answer, head and body, after which the connection is cut.
MOST = 65536
#: Answers before the final one, as many as the relay takes.
MOST_INTERIM = 16
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9])[0-9][0-9][ \r\n]")
_SHORTEST = len(b"HTTP/1.1 200\n")
_END = re.compile(rb"\r?\n\r?\n")  # as lenient as twisted.web
_JITTER = 0.1


class Dial(Protocol):
    """How a connection to the target is made; see :class:`edgeproxy.upstream.target.Target`."""

    def dial(self, connected: Callable[[Any], None], failed: Callable[[str], None]) -> Any: ...
    def stream(self, sock: Any, protocol: StreamProtocol) -> Stream: ...


#: Told of each probe: when it began, what was wrong (empty: it passed), the result in words.
Told = Callable[[float, str, str], None]


class Prober:
    """Probes one target from :meth:`start` until :meth:`stop`. ``host`` is what Host says."""

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        target: Dial,
        host: str,
        check: Check,
        told: Told,
    ) -> None:
        self.check = check
        self.host = host
        self._reactor = reactor
        self._now = now
        self._target = target
        self._told = told
        self._timer: Any = None
        self._probe: Probe | None = None
        self._headers = Headers({"Host": [host], "User-Agent": ["edgeproxy"]})

    def start(self) -> None:
        """Probe at once, and from then on."""
        self._timer = self._reactor.callLater(0, self._begin)

    def stop(self) -> None:
        """No more probes; one under way ends without being told of."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._probe is not None:
            self._probe.end()

    def _begin(self) -> None:
        if self._probe is not None:
            self._probe.end()  # its answer came, its connection is still there
        began = self._now()
        check = self.check

        def ended(wrong: str, told: str) -> None:
            later = began + check.interval * (1 - _JITTER * random.random()) - self._now()
            self._timer = self._reactor.callLater(max(0.0, later), self._begin)
            self._told(began, wrong, told)

        self._probe = Probe(self._reactor, self._target, check, self._headers, ended)
        self._probe.begin()


@implementer(IAgentEndpointFactory, IStreamClientEndpoint, ITransport)
class Probe:
    """One probe. For treq's agent it is the endpoint to connect to, and the transport; for our
    stream it is the protocol. ``ended`` is called once, unless :meth:`end` came first."""

    disconnecting = False

    def __init__(
        self,
        reactor: Any,
        target: Dial,
        check: Check,
        headers: Headers,
        ended: Callable[[str, str], None],
    ) -> None:
        self._reactor = reactor
        self._target = target
        self._check = check
        self._headers = headers
        self._ended: Callable[[str, str], None] | None = ended
        self._late: Any = None
        self._asked: Any = None
        self._reached: Deferred[Any] | None = None
        self._connecting: Any = None
        self._stream: Stream | None = None
        self._http: Any = None  # treq's side of the connection, until its answer's head is here
        self._taken = 0
        self._interim = 0
        #: What came of heads that may be interim; ``None`` once the final answer has begun.
        self._before: bytes | None = b""

    def begin(self) -> None:
        self._late = self._reactor.callLater(self._check.timeout, self._timed_out)
        # Its cookies go with it.
        client = HTTPClient(Agent.usingEndpointFactory(self._reactor, self))
        self._asked = client.get(
            "http://target" + self._check.path,
            headers=self._headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        self._asked.addCallbacks(self._answered, self._failed)
        self._asked.addErrback(lambda failure: _log.failure("A probe failed", failure))

    def end(self) -> None:
        """It is over, whatever is under way."""
        self._ended = None
        self._http = None
        if self._late.active():
            self._late.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._stream is not None:
            self._stream.abort()

    # -- how it ends -----------------------------------------------------------------------------

    def _answered(self, response: Any) -> None:
        status = response.code
        self._http = None
        told = f"status {status}"
        self._tell("" if self._check.good(status) else told, told)
        if self._stream is not None:
            self._stream.resume_reading()  # the rest is dropped as it comes

    def _failed(self, failure: Failure) -> None:
        why = _words(failure)
        self._tell(why, why)
        self.end()

    def _timed_out(self) -> None:
        self._tell("timed out", "timed out")
        self.end()

    def _tell(self, wrong: str, told: str) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(wrong, told)

    # -- the endpoint ----------------------------------------------------------------------------

    def endpointForURI(self, uri: Any) -> Probe:
        return self

    def connect(self, factory: Any) -> Deferred[Any]:
        self._http = factory.buildProtocol(None)
        self._reached = Deferred()
        self._connecting = self._target.dial(self._connected, self._refused)
        return self._reached

    def _connected(self, sock: Any) -> None:
        self._connecting = None
        self._stream = self._target.stream(sock, self)
        self._stream.resume_reading()
        self._ready()

    def _ready(self) -> None:
        assert self._reached is not None
        self._http.makeConnection(self)
        self._reached.callback(self._http)

    def _refused(self, why: str) -> None:
        self._connecting = None
        assert self._reached is not None
        self._reached.errback(ConnectError(string=why))

    # -- from the stream -------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        self._taken += len(data)
        if self._taken > MOST:
            self._unusable("a head without end")
        elif self._http is not None:
            if self._before is not None:
                data = self._final(self._before, data)
            if data:
                self._http.dataReceived(data)

    def _final(self, before: bytes, data: bytes) -> bytes:
        """What came of the final answer; interim ones (RFC 9110 15.2) are dropped here, since
        twisted.web writes a line to the log for each."""
        looked, data = max(0, len(before) - 3), before + data
        while len(data) >= _SHORTEST or b"\n" in data:
            match = _STATUS.match(data)
            if match is None:
                return self._unusable("no answer that could be understood")
            if match[1] != b"1":
                self._before = None
                return data
            end = _END.search(data, looked)
            if end is None:
                break
            self._interim += 1
            if self._interim > MOST_INTERIM:
                return self._unusable(f"more than {MOST_INTERIM} interim answers")
            looked, data = 0, data[end.end() :]
        self._before = data
        return b""

    def _unusable(self, why: str) -> bytes:
        self._tell(why, why)
        self.end()
        return b""

    def drained(self) -> None:
        """A request this short waits for nobody."""

    def secured(self) -> None:
        """Nothing is to be done."""

    def lost(self, clean: bool) -> None:
        self._stream = None
        http, self._http = self._http, None
        if http is not None:
            http.connectionLost(Failure(ConnectionDone() if clean else ConnectionLost()))
        if self._late.active():
            self._late.cancel()

    # -- the transport ---------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.write(data)

    def writeSequence(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def pauseProducing(self) -> None:
        if self._stream is not None:
            self._stream.pause_reading()

    def resumeProducing(self) -> None:
        if self._stream is not None:
            self._stream.resume_reading()

    def loseConnection(self) -> None:
        if self._stream is not None:
            self._stream.finish()

    abortConnection = stopProducing = loseConnection

    def getPeer(self) -> None:
        """Nobody asks."""

    def getHost(self) -> None:
        """Nobody asks."""


def _words(failure: Failure) -> str:
    error = failure.value
    if isinstance(error, ConnectError):
        return f"cannot connect: {error.args[0]}"
    if isinstance(error, ResponseFailed):
        reasons = [reason.value for reason in error.reasons]
        if all(isinstance(each, ConnectionDone | ConnectionLost) for each in reasons):
            return "the connection ended early"
    return "no answer that could be understood"
