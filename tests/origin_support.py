"""A real server on 127.0.0.1 that answers as a test says; a real reactor whose time it moves."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

from edgeproxy.certs.development import make

PATIENCE = 20.0


class Origin:
    """Each connection gets one answer: that of its path, or `answers`; with `hangs` it then stays
    open. `tls` is the name in its certificate, which `authority` vouches for."""

    def __init__(self, tls: str = "") -> None:
        self.answers = ok(b"{}")
        self.by_path: dict[str, bytes] = {}
        self.hangs = False
        self.asked: list[bytes] = []
        self.sent = 0
        self.closed = threading.Event()
        self.authority = b""
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = self._own(tls)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []

    def _own(self, name: str) -> ssl.SSLContext:
        made = make([name], datetime.now(UTC))
        self.authority = made.ca_pem
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(made.chain_pem + made.key_pem)
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def __enter__(self) -> Self:
        self._begin(self._serve)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [each.split(b" ")[1].decode("ascii") for each in self.asked]

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                self._begin(self._answer, connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._connections.append(connection)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                more = connection.recv(65536)
                if not more:
                    return
                head += more
            self.asked.append(head)
            path = head.split(b" ")[1].decode("ascii")
            connection.sendall(self.by_path.get(path, self.answers))
            self.sent += 1
            if self.hangs:
                with suppress(ConnectionError):
                    connection.recv(1)
                self.closed.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        connection.close()


def ok(body: bytes, fields: Mapping[str, str] = {}) -> bytes:
    """A good answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 200 OK\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Reactor(SelectReactor):
    """Not the global one: turned by the test alone."""

    def __init__(self) -> None:
        self._ahead = 0.0
        super().__init__()

    def seconds(self) -> float:  # type: ignore[override]
        return time.monotonic() + self._ahead

    def pass_time(self, seconds: float) -> None:
        """Let time pass, for timers alone."""
        self._ahead += seconds

    def turn_until(self, true: Callable[[], Any]) -> None:
        """Turn until something is true."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, "it does not come"
            self.iterate(0.005)

    def until(self, deferred: Deferred[Any]) -> Any:
        """What the Deferred fires with; raises what it fails with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.turn_until(lambda: results)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]


@contextmanager
def running() -> Iterator[Reactor]:
    """A reactor that has begun, and is ended."""
    reactor = Reactor()
    reactor.startRunning(installSignalHandlers=False)
    try:
        yield reactor
    finally:
        reactor.stop()
        reactor.turn_until(lambda: not reactor.running)
        reactor.disconnectAll()
