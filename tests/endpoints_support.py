"""An HTTP endpoint that a gateway asks about callers, as a test plays it, on a port of its own."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Came(NamedTuple):
    """One request: names of fields in lower case; the port tells its connection."""

    method: str
    path: str
    fields: dict[str, str]
    body: bytes
    port: int


#: What is answered: status, fields, body.
Answer = tuple[int, dict[str, str], bytes]


class Endpoint(ThreadingHTTPServer):
    """`answer` says what is answered, or raises, which ends the connection; `came` has the
    requests, `connections` is the number of those."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Came], Answer], port: int = 0) -> None:
        self.answer = answer
        self.came: list[Came] = []
        self.connections = 0
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are expected."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        fields = {name.lower(): value for name, value in self.headers.items()}
        port = self.client_address[1]
        came = Came(self.command, self.path, fields, self.rfile.read(length), port)
        self.server.came.append(came)
        status, answered, body = self.server.answer(came)
        self.send_response(status)
        for name, value in answered.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def endpoint(
    answer: Callable[[Came], Answer], tls: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[Endpoint]:
    """One that runs until the end of the block."""
    server = Endpoint(answer, port)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
