"""The bare price of a TLS handshake: server side only, no socket, for both libraries in play."""

import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median

from OpenSSL import SSL

from bench import job, load
from bench.certificate import Certificate
from bench.process import BenchError


def system(
    certificate: Certificate, count: int = 300, *, resumed: bool = False
) -> tuple[str, float]:
    """Version and CPU µs per TLS 1.3 handshake of the library that Python's ssl is linked to.

    On Debian that is the one nginx, HAProxy and wrk use too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)

    def once(client: Client) -> float:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(incoming, outgoing, server_side=True)
        return client.shake(
            lambda data: _swallow(incoming.write, data, server.do_handshake), outgoing.read
        )

    return " ".join(ssl.OPENSSL_VERSION.split()[:2]), _median(once, count, resumed)


def wheel(
    certificate: Certificate, count: int = 300, *, resumed: bool = False
) -> tuple[str, float]:
    """The same for the library in pyOpenSSL's wheel, which edgeproxy and Twisted use."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(str(certificate.chain))
    context.use_privatekey_file(str(certificate.key))

    def once(client: Client) -> float:
        server = SSL.Connection(context, None)
        server.set_accept_state()
        return client.shake(
            lambda data: _swallow(server.bio_write, data, server.do_handshake),
            lambda: server.bio_read(65536),
        )

    version = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()
    return " ".join(version.split()[:2]), _median(once, count, resumed)


class Client:
    """The other side, always Python's ssl, so that only the server's library differs."""

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self._resumes = session is not None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=job.HOST, session=session
        )

    def shake(self, feed: Callable[[bytes], bool], answer: Callable[[], bytes]) -> float:
        """Do one handshake; give the CPU seconds spent in the server's two steps."""
        spent = 0.0
        done = False
        while not done:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            hello = self._outgoing.read()
            begun = time.thread_time()
            done = feed(hello)
            flight = answer()
            spent += time.thread_time() - begun
            self._incoming.write(flight)
        if bool(self._tls.session_reused) != self._resumes:
            raise BenchError("a bare handshake was not the kind that it should be")
        return spent

    def session(self) -> ssl.SSLSession | None:
        """What the tickets say that came behind the handshake."""
        with suppress(ssl.SSLWantReadError):
            self._tls.read(1)
        return self._tls.session


def _swallow(write: Callable[[bytes], object], data: bytes, step: Callable[[], object]) -> bool:
    """Give the server what came; say whether its handshake is over."""
    write(data)
    try:
        step()
    except (ssl.SSLWantReadError, SSL.WantReadError):
        return False
    return True


def _median(once: Callable[[Client], float], count: int, resumed: bool) -> float:
    """Each of a new client; or resumed, each with the ticket of the one before."""
    context = load.client_context()
    session: ssl.SSLSession | None = None
    costs: list[float] = []
    for number in range(count + 1):
        client = Client(context, session)
        cost = once(client)
        if number:  # the first is always a full one
            costs.append(cost)
        if resumed:
            session = client.session()
    return median(costs) * 1e6
