"""One listener at work: its port, its open connections, and their orderly end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from edgeproxy.exchange import Peer
from edgeproxy.http1.server import Http1Server, Listener, State
from edgeproxy.transport.deadlines import Deadlines
from edgeproxy.transport.port import Port
from edgeproxy.transport.stream import Stream
from edgeproxy.transport.tls import TLSStream, accepting


class Listening:
    """See the module's text. ``kind`` is ``https``, ``http`` or ``health``; ``context`` gives the
    TLS context for a new connection, ``None`` for a plain listener. ``idle`` is called when a
    draining listener's last connection ends."""

    def __init__(
        self,
        reactor: Any,
        deadlines: Deadlines,
        kind: str,
        sock: socket.socket,
        limit: int,
        context: Callable[[], SSL.Context] | None,
    ) -> None:
        self._reactor = reactor
        self._deadlines = deadlines
        self._context = context
        self.kind = kind
        self.connections: set[Http1Server] = set()
        self.accepted = 0
        self.port = Port(reactor, sock, self._accept, limit)
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

    def closed(self, connection: Http1Server) -> None:
        self.connections.discard(connection)
        self._deadlines.waiting.discard(connection)
        self.port.left()
        if not self.connections and self.idle is not None:
            self.idle()

    def _accept(self, sock: socket.socket, address: Any) -> None:
        host: str = address[0]
        if host.startswith("::ffff:"):
            host = host[7:]
        self.accepted += 1
        peer = Peer(host, address[1], self.number)
        connection = Http1Server(self.listener, peer)
        if self._context is None:
            connection.stream = Stream(self._reactor, sock, connection)
        else:
            tls = accepting(self._context(), sock)
            connection.stream = TLSStream(self._reactor, sock, connection, tls)
        connection.stream.last = True
        self.connections.add(connection)
        self._deadlines.waiting.add(connection)
        connection.stream.resume_reading()
        if self._context is None:
            connection.secured()
