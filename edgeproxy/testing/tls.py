"""A client's end of a real ``TLSStream``, over a pair of connected sockets in this process."""

from __future__ import annotations

import socket
import ssl
from functools import cache

from edgeproxy.testing.reactor import MemoryReactor
from edgeproxy.testing.wire import Ending, Way, Wire

_READ = 65536


def client_context() -> ssl.SSLContext:
    """A client's context that takes any certificate.

    Certificates are made for the test: there is nobody to vouch for them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Python 3.11.2 takes the end of the bytes for the end of the stream.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


_context = cache(client_context)


class TLSWire(Wire):
    """Each piece that is sent is one record (or more, above 16 KiB).

    ``failure`` is what went wrong with TLS, if anything did. ``context`` is the client's, which may
    hold its certificate; ``session`` one to resume. Without ``name`` none is asked for.
    """

    def __init__(
        self,
        reactor: MemoryReactor,
        way: Way,
        sock: socket.socket,
        name: str,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        super().__init__(reactor, way)
        sock.setblocking(False)
        self.failure: ssl.SSLError | None = None
        self._socket = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = (context or _context()).wrap_bio(
            self._incoming, self._outgoing, server_hostname=name or None, session=session
        )
        self._shaken = False
        self._reads = True
        self._unsent = b""
        self._eof = False
        reactor.pumps.append(self._pump)

    @property
    def version(self) -> str | None:
        return self._tls.version()

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection may resume."""
        return self._tls.session

    @property
    def resumed(self) -> bool:
        return bool(self._tls.session_reused)

    def stall(self, window: int = 0) -> None:
        """``window`` is the kernel's here."""
        self._reads = False

    def flow(self) -> None:
        self._reads = True
        self._reactor.settle()

    def _deliver(self, data: bytes) -> None:
        if self._shaken and self._socket.fileno() != -1:
            self._tls.write(data)
            self._flush()

    def _finish_sending(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the gateway's own close_notify is read like everything else
        self._flush()
        if self._socket.fileno() != -1:
            self._socket.shutdown(socket.SHUT_WR)

    def _vanish(self) -> None:
        if self._socket.fileno() != -1:
            self._reactor.pumps.remove(self._pump)
            self._socket.close()

    def _pump(self) -> bool:
        if self._socket.fileno() == -1:
            return False
        before = len(self.received), self._shaken, self.ending, self._eof
        busy = self._reads and self._fetch()
        busy |= self._step()
        busy |= self._flush()
        return busy or before != (len(self.received), self._shaken, self.ending, self._eof)

    def _fetch(self) -> bool:
        if self._eof:
            return False
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if data:
            self._incoming.write(data)
        else:
            self._eof = True
            self._incoming.write_eof()
        return True

    def _step(self) -> bool:
        """Go on with the handshake, or read what has been decrypted."""
        if self.ending is not Ending.OPEN:
            return False
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
                return True
            data = self._tls.read(_READ)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except ssl.SSLZeroReturnError:
            self._gateway_ended(Ending.ENDED)
            return True
        except ssl.SSLError as error:
            self.failure = error
            self._gateway_ended(Ending.ABORTED)
            return True
        if data:
            self._arrived(data)
        else:
            self._gateway_ended(Ending.ENDED)
        return True

    def _flush(self) -> bool:
        self._unsent += self._outgoing.read()
        if not self._unsent or self._socket.fileno() == -1:
            return False
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return False
        except OSError:
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        return sent > 0
