"""One listener at work: its port, its open connections, and their orderly end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from heapq import nsmallest
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from OpenSSL import SSL
from twisted.logger import Logger

from edgeproxy.announced import Announced
from edgeproxy.bursts import Burst
from edgeproxy.exchange import Peer
from edgeproxy.forward import is_trusted
from edgeproxy.http1.server import Http1Server, Listener, State
from edgeproxy.proxyprotocol import Told, looks_cut
from edgeproxy.transport.deadlines import Deadlines
from edgeproxy.transport.openssl import Accepted
from edgeproxy.transport.port import Port
from edgeproxy.transport.stream import Stream
from edgeproxy.transport.tls import TLSStream

_log = Logger()

#: One of how many connections is ended at a time when all are taken: looking at all of them
#: (2 ms for 10,000) then costs a tenth of the handshakes that follow.
_ROOM = 64

Networks = tuple[IPv4Network | IPv6Network, ...]
Strange = Callable[[str, bytes], None]
"""Told of a handshake that failed at its first bytes: the client, and what waits to be read."""


class Listening:
    """See the module's text. ``kind`` is ``https``, ``http`` or ``health``; ``context`` gives the
    TLS context for a new connection, ``None`` for a plain listener. ``idle`` is called when a
    draining listener's last connection ends. What comes from ``proxies`` has a PROXY head."""

    def __init__(
        self,
        reactor: Any,
        deadlines: Deadlines,
        kind: str,
        sock: socket.socket,
        limit: int,
        context: Callable[[], SSL.Context] | None,
        proxies: Networks = (),
    ) -> None:
        self._reactor = reactor
        self._deadlines = deadlines
        self._context = context
        self.kind = kind
        self.connections: set[Http1Server | Announced] = set()
        self._proxies = proxies
        self._headless = Burst()
        self._unnamed = Burst()
        self._doubled = Burst()
        self._strange = self._tell_strange
        self.accepted = 0
        #: Connections that ended before their handshake was done.
        self.unfinished = 0
        self.made_room = 0
        self._limit = limit
        self.port = Port(reactor, sock, self._accept, limit, self.make_room)
        self.number: int = self.port.address[1]
        self.listener: Listener
        self.idle: Callable[[], None] | None = None

    def start(self) -> None:
        self.port.start()

    def drain(self) -> None:
        """Accept no more; idle connections end now, the others after their answer."""
        self.port.stop()
        self.listener.draining = True
        for connection in tuple(self.connections):
            connection.shut()

    def abort(self) -> int:
        """End what is left; how many there were."""
        left = [c for c in self.connections if c.state is not State.LINGER]
        for connection in tuple(self.connections):
            connection.cut()
        return len(left)

    def closed(self, connection: Http1Server | Announced) -> None:
        self.connections.discard(connection)
        self._deadlines.waiting.discard(connection)
        self.port.left()
        if self._context is not None and isinstance(connection, Http1Server):
            self.unfinished += not connection.peer.tls
        if not self.connections and self.idle is not None:
            self.idle()

    def make_room(self) -> int:
        """End some connections for newcomers: of those that have not asked for anything yet and
        those between two requests, the ones that have waited longest in the larger crowd, so that
        neither kind can crowd out the other, nor newcomers. How many."""
        unasked: list[Http1Server | Announced] = []
        idle: list[Http1Server | Announced] = []
        for each in self.connections:
            if each.state is State.SHAKING:
                unasked.append(each)
            elif each.state is State.HEAD and isinstance(each, Http1Server):
                if not each.requests:
                    unasked.append(each)
                elif not each.buffer and not each.waiting_to_drain:
                    idle.append(each)
        crowd = unasked if len(unasked) >= len(idle) else idle
        # Within a crowd all have the same time: who is first to expire has waited longest.
        oldest = nsmallest(max(1, self._limit // _ROOM), crowd, key=lambda each: each.deadline)
        for each in oldest:
            if crowd is idle:
                each.shut()  # in order, unless its next request is here
            else:
                each.cut()
        self.made_room += len(oldest)
        return len(oldest)

    def _accept(self, sock: socket.socket, address: Any) -> None:
        host: str = address[0]
        if host.startswith("::ffff:"):
            host = host[7:]
        self.accepted += 1
        if self._proxies and is_trusted(host, self._proxies):
            self._wait_for_head(sock, host, address[1])
        else:
            self._begin(sock, host, address[1])

    def _wait_for_head(self, sock: socket.socket, host: str, port: int) -> None:
        def doubled(_: str, waiting: bytes) -> None:
            self._tell_doubled(host, waiting)

        def taken(announced: Announced, told: Told | None) -> None:
            self.connections.discard(announced)
            self._deadlines.waiting.discard(announced)
            try:
                connection = self._begin(sock, *(told or (host, port)), doubled)
            except Exception:
                _log.failure("A connection could not be taken")
                sock.close()
                self.port.left()
                return
            if self.listener.draining:
                connection.shut()

        def ended(announced: Announced, reason: str) -> None:
            if reason:
                self._tell_refused(host, reason)
            self.closed(announced)

        announced = Announced(self._reactor, sock, self.listener, taken, ended)
        self.connections.add(announced)
        self._deadlines.waiting.add(announced)

    def _tell_refused(self, host: str, reason: str) -> None:
        """One line a minute at most: a proxy that is set up wrongly fails with each connection."""
        if self._headless.another(self.listener.clock.now()):
            _log.warn(
                "connection from {host} refused: {reason}; `listen: proxy_protocol:` names it, so "
                "a PROXY head has to come first (refused so far: {count})",
                host=host,
                reason=reason,
                count=self._headless.count,
            )

    def _tell_strange(self, host: str, waiting: bytes) -> None:
        """A handshake failed at its first bytes; told where a proxy was forgotten."""
        if looks_cut(waiting) and self._unnamed.another(self.listener.clock.now()):
            _log.warn(
                "connection from {host} refused: it begins with a PROXY head, which is taken from "
                "those alone that `listen: proxy_protocol:` names (refused so far: {count})",
                host=host,
                count=self._unnamed.count,
            )

    def _tell_doubled(self, proxy: str, waiting: bytes) -> None:
        """The same after a head of a named proxy, whose client cannot be blamed for the next."""
        if looks_cut(waiting) and self._doubled.another(self.listener.clock.now()):
            _log.warn(
                "connection from {host} refused: a second PROXY head follows the first; one is "
                "right: another proxy behind {host} sends one too (refused so far: {count})",
                host=proxy,
                count=self._doubled.count,
            )

    def _begin(
        self, sock: socket.socket, host: str, port: int, strange: Strange | None = None
    ) -> Http1Server:
        peer = Peer(host, port, self.number)
        connection = Http1Server(self.listener, peer)
        if self._context is None:
            connection.stream = Stream(self._reactor, sock, connection)
        else:
            tls = Accepted(self._context(), sock)
            connection.stream = stream = TLSStream(
                self._reactor, sock, connection, tls, client=host, strange=strange or self._strange
            )
        connection.stream.last = True
        self.connections.add(connection)
        self._deadlines.waiting.add(connection)
        connection.stream.resume_reading()
        if self._context is None:
            connection.secured()
        else:
            stream.begin()
        return connection
