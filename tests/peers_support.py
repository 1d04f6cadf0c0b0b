"""Services that a test writes out: what each does with a connection is a function."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from certs_support import Issued, issue, key

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Serve = Callable[[Any], None]


def authority(name: str = "Test CA", number: int = 2000) -> Issued:
    """An authority that is in force today."""
    return issue(cn=name, ca=True, private=key("ECDSA", number), start=NOW - DAY, end=NOW + DAY)


def certificate(names: list[str], issuer: Issued | None = None, **options: Any) -> Issued:
    return issue(names, issuer, **{"start": NOW - DAY, "end": NOW + DAY, **options})


def server_context(folder: Path, issued: Issued) -> ssl.SSLContext:
    """A server's end that shows this certificate."""
    chain, private = folder / "server.pem", folder / "server.key"
    chain.write_bytes(issued.full)
    private.write_bytes(issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)
    return context


class Peer:
    """A service that runs in threads. ``heads`` are those of the requests that came."""

    def __init__(self, serve: Serve, context: ssl.SSLContext | None, sock: socket.socket) -> None:
        self.heads: list[bytes] = []
        self.raw: list[bytes] = []
        self.resumed: list[bool] = []
        self.names: list[str | None] = []
        self.errors: list[str] = []
        self.count = self.ended = 0
        self._serve = serve
        self._context = context
        self._listener = sock
        if context is not None:
            context.sni_callback = lambda _sock, name, _context: self.names.append(name)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def close(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # the thread that waits in accept
        except OSError:
            pass
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: Any) -> None:
        with sock:
            try:
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True)
                    self.resumed.append(sock.session_reused)
                self._serve(sock)
            except (OSError, ssl.SSLError) as error:
                self.errors.append(str(error))
            finally:
                sock.close()
                self.ended += 1

    def answer(self, sock: Any, *answers: bytes) -> None:
        """Read requests without a body, and answer them in turn; the last one again and again."""
        for number in range(1_000_000):
            head = b""
            while b"\r\n\r\n" not in head:
                data = sock.recv(65536)
                if not data:
                    return
                head += data
            self.heads.append(head)
            sock.sendall(answers[min(number, len(answers) - 1)])


@contextmanager
def peer(
    serve: Callable[[Peer, Any], None],
    context: ssl.SSLContext | None = None,
    address: Any = ("127.0.0.1", 0),
) -> Iterator[Peer]:
    """A service on a free port, or at an address."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    if not isinstance(address, str) and ":" in address[0]:
        family = socket.AF_INET6
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen(64)
    started: Peer
    started = Peer(lambda connection: serve(started, connection), context, sock)
    try:
        yield started
    finally:
        started.close()


def polite(this: Peer, sock: Any) -> None:
    """Answers every request."""
    this.answer(sock, OK)
