"""TLS to a service: the handshake, the proof of who it is, and the stream that follows.

No byte of a request is written before the service's certificate was verified and found to be for
its name. Until then nothing of it counts as a connection, so whatever fails is a connect that
failed, and the next target is tried.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from edgeproxy.transport.connect import Attempt, Network
from edgeproxy.transport.openssl import one_record_a_read, verify_failure
from edgeproxy.transport.stream import StreamProtocol
from edgeproxy.transport.tls import TLSStream


class ClientTLS:
    """What is needed to speak TLS to one address. ``name`` is a host name or an IP address that
    the certificate has to carry; a host name is asked for (SNI, RFC 6066 section 3).

    ``session`` is the latest one, for the next handshake to resume.
    """

    def __init__(self, context: SSL.Context, name: str, *, verify: bool) -> None:
        self.context = context
        self.name = name
        self.verify = verify
        self.session: SSL.Session | None = None
        self._check: Callable[[SSL.Connection, str], None] = verify_ip_address
        self._sni = b""
        try:
            ip_address(name)
        except ValueError:
            self._check, self._sni = verify_hostname, name.encode("ascii")

    def connection(self, sock: socket.socket) -> SSL.Connection:
        """A client's end of a handshake that is to come."""
        connection = SSL.Connection(self.context, sock)
        connection.set_connect_state()
        if self._sni:
            connection.set_tlsext_host_name(self._sni)
        if self.session is not None:
            connection.set_session(self.session)
        return connection

    def objection(self, connection: SSL.Connection) -> str:
        """What is wrong with a service that has shaken hands; empty if nothing is."""
        if connection.get_alpn_proto_negotiated() not in (b"", b"http/1.1"):
            return "it insists on another protocol than http/1.1"
        if not self.verify:
            return ""
        try:
            self._check(connection, self.name)
        except VerificationError:
            return f"its certificate is not for {self.name}"
        except CertificateError as error:
            return f"its certificate is for no name: {error}"
        except Exception as error:  # what a stranger sends may be anything
            return f"its certificate cannot be read: {type(error).__name__}"
        return ""

    def over(self, network: Network) -> Network:
        """The network that reaches the service in this way."""

        def connect(*arguments: Any) -> Securing:
            return Securing(self, network.connect, *arguments)

        return network._replace(connect=connect, stream=ClientTLSStream)


class Secured(NamedTuple):
    """A connection whose handshake is done, to a service that has proved who it is."""

    socket: socket.socket
    connection: SSL.Connection
    tls: ClientTLS


@implementer(IReadWriteDescriptor)
class Securing:
    """An attempt under way, with the contract of
    :class:`~edgeproxy.transport.connect.Connecting`: a connection first, then the handshake."""

    def __init__(
        self,
        tls: ClientTLS,
        connect: Callable[..., Attempt],
        reactor: Any,
        family: socket.AddressFamily,
        address: Any,
        connected: Callable[[Secured], None],
        failed: Callable[[str], None],
    ) -> None:
        self._tls = tls
        self._reactor = reactor
        self._connected = connected
        self._failed = failed
        self._socket: socket.socket | None = None
        self._connecting = connect(reactor, family, address, self._shake, failed)

    def _shake(self, sock: socket.socket) -> None:
        """The connection stands."""
        self._socket = sock
        try:
            self._connection = self._tls.connection(sock)
        except SSL.Error as error:
            self._give_up(_words(error))
            return
        self._step()

    def _step(self) -> None:
        """Go on with the handshake, and wait for what it needs."""
        reactor = self._reactor
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            reactor.removeWriter(self)
            reactor.addReader(self)
        except SSL.WantWriteError:
            reactor.removeReader(self)
            reactor.addWriter(self)
        except SSL.Error as error:
            self._give_up(self._reason(error))
        else:
            objection = self._tls.objection(self._connection)
            if objection:
                self._give_up(objection)
                return
            self._stop()
            sock, self._socket = self._socket, None
            assert sock is not None
            self._connected(Secured(sock, self._connection, self._tls))

    def _reason(self, error: SSL.Error) -> str:
        untrusted = verify_failure(self._connection) if self._tls.verify else ""
        if untrusted:
            return f"its certificate is not trusted: {untrusted}"
        return f"TLS handshake: {_words(error)}"

    def _give_up(self, why: str) -> None:
        self.cancel()
        self._failed(why)

    def cancel(self) -> None:
        """Give up; neither callback is called any more."""
        self._connecting.cancel()
        if self._socket is not None:
            self._stop()
            self._socket.close()
            self._socket = None

    def _stop(self) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)

    # -- for the reactor -------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "Securing"

    def doRead(self) -> None:
        self._step()

    def doWrite(self) -> None:
        self._step()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw the descriptor hang up; what was said before may be read yet."""
        if self._socket is not None:
            self._step()
        if self._socket is not None:
            self._give_up("TLS handshake: the connection was closed")


def _words(error: SSL.Error) -> str:
    """OpenSSL's reasons for people."""
    if isinstance(error, SSL.SysCallError):
        code = error.args[0]
        return os.strerror(code) if code > 0 else "the connection was closed"
    reasons = [str(each[-1]) for each in error.args[0]] if error.args else []
    if _NO_TLS.intersection(reasons):
        return "it does not speak TLS"
    if "unexpected eof while reading" in reasons:
        return "the connection was closed"
    return ", ".join(reasons) or "it failed"


#: Session tickets taken in at once; OpenSSL sends two, GnuTLS as many, BoringSSL one or two.
_TICKETS = 8

#: What OpenSSL makes of a service that answers in plain text.
_NO_TLS = frozenset(
    ("wrong version number", "packet length too long", "record layer failure", "http request")
)


class ClientTLSStream(TLSStream):
    """The stream to a service over a connection that is secured."""

    __slots__ = ("_tls",)

    def __init__(self, reactor: Any, secured: Secured, protocol: StreamProtocol) -> None:
        super().__init__(reactor, secured.socket, protocol, secured.connection, shaking=False)
        self._tls = secured.tls
        one_record_a_read(secured.connection)

    def quiet(self) -> bool:
        """Whether nothing waits to be read. What is readable may be a session ticket, which is
        no data (RFC 8446 4.6.1): OpenSSL takes it in, and finds nothing to read. Data may come
        right behind it, where a look at all streams that ended with it has not seen them."""
        if not self._fruitless and super().quiet():
            return True
        for _ in range(_TICKETS):
            if self.disconnected or self.arrived:
                return False
            if not self._readable():
                return True
            if self.read() is not None:
                return False
        return False

    def abort(self) -> None:
        # An unused connection is ended in order, for services that log it otherwise; a tunnel that
        # broke off is not, since only its framing would tell.
        if self.tunnel is None and not self.disconnected and not self.backlog:
            self._say_goodbye()
        super().abort()

    def _release(self) -> None:
        self._tls.session = self.connection.get_session() or self._tls.session
        super()._release()
