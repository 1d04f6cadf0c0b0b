"""The bare price of a TLS handshake: server side only, no socket, for both libraries in play."""

import ssl
import time
from collections.abc import Callable
from statistics import median

from OpenSSL import SSL

from bench import job, load
from bench.certificate import Certificate


def system(certificate: Certificate, count: int = 300) -> tuple[str, float]:
    """Version and CPU µs per full TLS 1.3 handshake of the library that Python's ssl is linked to.

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

    return " ".join(ssl.OPENSSL_VERSION.split()[:2]), _median(once, count)


def wheel(certificate: Certificate, count: int = 300) -> tuple[str, float]:
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
    return " ".join(version.split()[:2]), _median(once, count)


class Client:
    """The other side, always Python's ssl, so that only the server's library differs."""

    def __init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = load.client_context().wrap_bio(
            self._incoming, self._outgoing, server_hostname=job.HOST
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
        return spent


def _swallow(write: Callable[[bytes], object], data: bytes, step: Callable[[], object]) -> bool:
    """Give the server what came; say whether its handshake is over."""
    write(data)
    try:
        step()
    except (ssl.SSLWantReadError, SSL.WantReadError):
        return False
    return True


def _median(once: Callable[[Client], float], count: int) -> float:
    return median(once(Client()) for _ in range(count)) * 1e6
