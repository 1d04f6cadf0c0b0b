"""Faults of services that only a kernel can show: SYNs that nobody answers, resets, late ends.

`tests/wire/test_wire_faults.py` has the whole table, in memory; here are the rows in which the
socket matters, with a gateway started by twistd before services that are scripted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

import pytest
from running_support import DEADLINE, Development, RunningGateway, start_gateway, wait_for


class Step(Enum):
    """What a service does beside sending bytes."""

    RESET = "closes so that the kernel sends RST"
    STALL = "says nothing until the gateway ends the connection"


RESET, STALL = Step
Script = Sequence[bytes | Step]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


class Service:
    """Answers by a script, each connection in a thread; after it the connection ends in order.

    ``asked`` are the requests, as ``(method, path)``.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[tuple[str, str]] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listening.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
            self.threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(DEADLINE)
            if not self._request(sock):
                return
            for step in self.script:
                if step is RESET:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif step is STALL:
                    sock.recv(1)
                elif isinstance(step, bytes):
                    sock.sendall(step)

    def _request(self, sock: socket.socket) -> bool:
        """Read one request; ``False`` at the end."""
        data = b""
        while b"\r\n\r\n" not in data or (data.startswith(b"P") and not data.endswith(b"body")):
            more = sock.recv(65536)
            if not more:
                return False
            data += more
        method, path, _ = data.split(b" ", 2)
        self.asked.append((method.decode(), path.decode()))
        return True

    def stop(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        self.listening.close()


class Deaf:
    """A listening socket whose backlog is full: the kernel answers no further SYN."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))
        self.listening.listen(0)
        self.filling: list[socket.socket] = []
        while True:
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(self.listening.getsockname())
            self.filling.append(sock)
            if not select.select([], [sock], [], 0.2)[1]:
                break  # its SYN was dropped: the backlog is full
            assert len(self.filling) < 100

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def stop(self) -> None:
        for sock in (*self.filling, self.listening):
            sock.close()


class Closed(Deaf):
    """A port that nobody else can have, and on which nobody listens."""

    def __init__(self) -> None:
        self.asked = []
        self.filling = []
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))


class Row(NamedTuple):
    """What is expected of GET, PUT and POST: the status, with `!` where the answer is cut, and how
    often services saw the request; with this target alone, and with a healthy one beside it."""

    script: Script | type[Deaf]
    one: str
    two: str
    outcome: str


REPEATED = ("502x3 502x3 502x1", "200x2 200x2 502x1", "upstream_reset")
LATE = ("504x3 504x3 504x1", "200x2 200x2 504x1", "upstream_timeout")
CUT = ("200!x1 200!x1 200!x1", "200!x1 200!x1 200!x1", "upstream_reset")
ROWS = {
    "refused": Row(Closed, "502x0 502x0 502x0", "200x1 200x1 200x1", "upstream_failed"),
    "deaf": Row(Deaf, "504x0 504x0 504x0", "200x1 200x1 200x1", "upstream_timeout"),
    "reset": Row([RESET], *REPEATED),
    "reset-in-head": Row([HEAD[:20], RESET], *REPEATED),
    "end": Row([], *REPEATED),
    "end-in-head": Row([HEAD[:20]], *REPEATED),
    "reset-after-head": Row([HEAD, b"1", RESET], *CUT),
    "end-in-body": Row([HEAD, b"hello"], *CUT),
    "reset-until-close": Row([b"HTTP/1.1 200 OK\r\n\r\n", b"hello", RESET], *CUT),
    "silent": Row([STALL], *LATE),
    "silent-after-100": Row([b"HTTP/1.1 100 Continue\r\n\r\n", STALL], *LATE),
    "stalls-in-body": Row([HEAD, b"hello", STALL], *CUT[:2], "upstream_timeout"),
}


class Scene(NamedTuple):
    gateway: RunningGateway
    services: dict[str, Service | Deaf]
    healthy: Service
    outcomes: dict[str, str]  # expected, by path

    def seen(self, name: str, asked: tuple[str, str]) -> int:
        return (self.services[name].asked + self.healthy.asked).count(asked)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, development: Development) -> Iterator[Scene]:
    services: dict[str, Service | Deaf] = {}
    for name, row in ROWS.items():
        script = row.script
        services[name] = script() if isinstance(script, type) else Service(script)
    healthy = Service([OK])
    common = {
        "eject": {"time": "10ms"},
        "timeouts": {"connect": "200ms", "first_byte": "200ms", "between_bytes": "200ms"},
    }
    upstreams = {}
    for name, service in services.items():
        upstreams[f"{name}-1"] = {"targets": [service.url], **common}
        for number, method in enumerate(("GET", "PUT", "POST")):
            # each its own, so that it is the faulty one's turn
            upstreams[f"{name}-2-{method}"] = {"targets": [service.url, healthy.url], **common}
    routes = {f"/{name}": {"to": name, "auth": "none"} for name in upstreams}
    config = {"upstreams": upstreams, "routes": {"*": routes}}
    gateway = start_gateway(tmp_path_factory.mktemp("faults"), development, config)
    yield Scene(gateway, services, healthy, {})
    gateway.child.end()
    for service in (*services.values(), healthy):
        service.stop()


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
@pytest.mark.parametrize("name", ROWS)
def test_fault(scene: Scene, name: str, method: str, targets: int) -> None:
    row = ROWS[name]
    word = (row.one, row.two)[targets - 1].split()[("GET", "PUT", "POST").index(method)]
    expected, _, times = word.partition("x")
    path = f"/{name}-1/{method}" if targets == 1 else f"/{name}-2-{method}/{method}"
    body = None if method == "GET" else b"body"
    connection = scene.gateway.connect()
    if method == "POST":  # in one piece, so that nothing but its method speaks against repeating
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
        connection.connect()
        connection.sock.sendall(head.encode() + b"body")
        answer = http.client.HTTPResponse(connection.sock, method=method)
        answer.begin()
    else:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
    assert answer.status == int(expected.rstrip("!"))
    if expected.endswith("!"):
        with pytest.raises((http.client.IncompleteRead, OSError)):
            answer.read()
    elif answer.status == 200:
        assert answer.read() == b"well"
    else:
        assert json.loads(answer.read())["status"] == answer.status
    connection.close()
    assert scene.seen(name, (method, path)) == int(times)
    scene.outcomes[path] = "ok" if expected == "200" else row.outcome


def test_what_is_told_and_left(scene: Scene) -> None:
    """Each request of the tests above has one line, which tells how it ended. No connection is
    kept of those that ended badly, and nobody waits."""
    gateway = scene.gateway
    lines = wait_for(lambda: len(found := gateway.log_lines()) >= len(scene.outcomes) and found)
    assert len(lines) == len(scene.outcomes)
    assert {line["path"]: line["outcome"] for line in lines} == scene.outcomes

    def left() -> list[object]:
        found = json.loads(gateway.command("status", "--json").stdout)["upstreams"]
        targets = [each for upstream in found.values() for each in upstream]
        assert len(targets) == len(ROWS) * 7
        return [each for each in targets if each["connections"] or each["waiting"]]

    wait_for(lambda: not left())
