"""Clients of other people's making: http.client on one connection, and pipelining on a bare one."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

import pytest
from real_support import MiB, Start
from running_support import DEADLINE, Nginx, RunningGateway

pytestmark = pytest.mark.debian("nginx")

SERVER = """
location ~ ^/n/(\\d+)$ { return 200 "this is $1"; }
location /dav { dav_methods PUT; create_full_put_path on; }
"""
COUNT = 100


@pytest.fixture
def running(gateway: Start, nginx: Callable[..., Nginx]) -> RunningGateway:
    origin = nginx(SERVER)
    (origin.folder / "html" / "large").write_bytes(b"large" * (MiB // 5))
    return gateway(
        {"upstreams": {"web": origin.url}, "routes": {"*": {"/": "web", "/shut": {"page": True}}}}
    )


def head(
    running: RunningGateway, path: str, *fields: str, method: str = "GET", key: str | None = ""
) -> bytes:
    mine = running.development.credential if key == "" else key
    lines = [f"{method} {path} HTTP/1.1", f"Host: localhost:{running.port}", *fields]
    if mine is not None:
        lines.append(f"X-API-Key: {mine}")
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def bare(running: RunningGateway) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", running.port), DEADLINE) as sock,
        running.development.trust.wrap_socket(sock, server_hostname="localhost") as secured,
    ):
        yield secured


class Answers:
    """The answers on one connection, each read to its own end."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.file = sock.makefile("rb")

    def makefile(self, *_: object) -> object:
        return _Open(self.file)

    def read(self, method: str = "GET") -> tuple[int, bytes]:
        answer = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
        answer.begin()
        return answer.status, answer.read()


class _Open:
    """A file that `HTTPResponse` may close without ending the connection."""

    def __init__(self, file: object) -> None:
        self._file = file

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def test_http_client_on_one_connection(running: RunningGateway) -> None:
    """More requests than one connection is good for: the client is told, and comes again."""
    connection = running.connect()
    used = set()
    for number in range(2_100):
        answer = running.ask(f"/n/{number}", connection=connection)
        assert (answer.status, answer.body) == (200, b"this is %d" % number)
        if connection.sock is not None:
            used.add(connection.sock.getsockname())
        else:
            assert answer.fields["Connection"] == "close"
    connection.close()
    assert len(used) == 3


def test_http_client_sends_a_file_in_chunks(running: RunningGateway) -> None:
    connection = running.connect()
    fields = {"X-API-Key": running.development.credential}
    data = b"0123456789abcdef" * 20_000
    for _ in range(3):
        connection.request(
            "PUT", "/dav/file", body=BytesIO(data), headers=fields, encode_chunked=True
        )
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (201, 204)
        assert running.ask("/dav/file", connection=connection).body == data
    connection.close()


@pytest.mark.parametrize("piece", [None, 1000, 7])
def test_a_hundred_requests_at_once(running: RunningGateway, piece: int | None) -> None:
    """All are sent before any answer is read, in one piece or in many; answers keep their order."""
    data = b"".join(head(running, f"/n/{n}") for n in range(COUNT))
    with bare(running) as sock:
        for start in range(0, len(data), piece or len(data)):
            sock.sendall(data[start : start + (piece or len(data))])
        answers = Answers(sock)
        for number in range(COUNT):
            assert answers.read() == (200, b"this is %d" % number)
        # And the connection is as good as before.
        sock.sendall(head(running, "/n/last", "Connection: close"))
        assert answers.read()[0] == 404
        assert answers.file.read() == b""


def test_a_hundred_of_all_kinds(running: RunningGateway) -> None:
    """Bodies, refusals and answers of our own between them: none takes another's place."""
    kinds: list[tuple[bytes, str, int]] = [
        (head(running, "/n/1"), "GET", 200),
        (head(running, "/n/1", key=None), "GET", 401),
        (head(running, "/n/1", method="HEAD"), "HEAD", 200),
        (head(running, "/dav/x", "Content-Length: 5", method="PUT") + b"hello", "PUT", 0),
        (
            head(running, "/dav/x", "Transfer-Encoding: chunked", method="PUT")
            + b"5\r\nhello\r\n0\r\n\r\n",
            "PUT",
            0,
        ),
        (
            head(running, "/dav/x", "Content-Length: 5", method="PUT", key=None) + b"GET /",
            "PUT",
            401,
        ),
        (head(running, "/shut"), "GET", 200),
        (head(running, "/absent"), "GET", 404),
    ]
    sent = [kinds[n % len(kinds)] for n in range(COUNT)]
    with bare(running) as sock:
        sock.sendall(b"".join(data for data, _, _ in sent))
        answers = Answers(sock)
        for _, method, status in sent:
            got, _ = answers.read(method)
            assert got == status or (status == 0 and got in (201, 204))


def test_large_answers_that_nobody_reads_yet(running: RunningGateway) -> None:
    """A hundred requests for 1 MB each: the gateway waits for its reader, and loses nothing."""
    with bare(running) as sock:
        sock.sendall(b"".join(head(running, "/large") for _ in range(COUNT)))
        # Others are served although that one reads nothing.
        for number in range(50):
            assert running.ask(f"/n/{number}").status == 200
        answers = Answers(sock)
        for _ in range(COUNT):
            status, body = answers.read()
            assert status == 200 and body == b"large" * (MiB // 5)


def test_what_follows_a_malformed_request_is_dropped(running: RunningGateway) -> None:
    good = head(running, "/n/1")
    bad = head(running, "/n/2", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST")
    with bare(running) as sock:
        sock.sendall(good * 50 + bad + good * 49)
        answers = Answers(sock)
        assert [answers.read()[0] for _ in range(50)] == [200] * 50
        assert answers.read()[0] == 400
        assert answers.file.read() == b""
