"""Many clients that say nothing, and a process that may open no more files."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from real_support import CPU, Memory, Start, calling
from running_support import DEADLINE, RunningGateway, wait_for

from edgeproxy.control import connected

CONNECTIONS = 1000
EACH = 28.0
"""KiB that an idle connection may cost."""
PAGE: dict[str, Any] = {"routes": {"*": {"/": {"page": True}}}}


@pytest.fixture(autouse=True)
def descriptors() -> None:
    """The test itself needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files: ulimit -n")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Clients:
    """TLS connections that are closed at the end."""

    def __init__(self, running: RunningGateway) -> None:
        self._running = running
        self._context = running.development.trust
        self.socks: list[ssl.SSLSocket] = []

    def open(self, timeout: float = DEADLINE) -> ssl.SSLSocket:
        """One more, its handshake done."""
        sock = socket.create_connection(("127.0.0.1", self._running.port), timeout)
        try:
            secured = self._context.wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise
        self.socks.append(secured)
        return secured

    def ask(self, sock: ssl.SSLSocket) -> bytes:
        """A request on it; the answer's status line."""
        key = self._running.development.credential
        sock.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n\r\n".encode())
        data = b""
        while not data.endswith(b"}\n"):
            piece = sock.recv(65536)
            if not piece:
                break
            data += piece
        return data.partition(b"\r\n")[0]

    def close(self, count: int | None = None) -> None:
        left = self.socks[: len(self.socks) if count is None else count]
        del self.socks[: len(left)]
        for each in left:
            each.close()


@pytest.fixture
def running(gateway: Start) -> RunningGateway:
    return gateway(PAGE)


@pytest.fixture
def clients(running: RunningGateway) -> Iterator[Clients]:
    made = Clients(running)
    yield made
    made.close()


def files(running: RunningGateway) -> int:
    return len(os.listdir(f"/proc/{running.child.process.pid}/fd"))


@pytest.mark.parametrize("asked", [False, True], ids=["silent", "after a request"])
def test_idle_connections_cost_little(
    running: RunningGateway, clients: Clients, asked: bool
) -> None:
    def more(count: int) -> None:
        for _ in range(count):
            sock = clients.open()
            if asked:
                assert clients.ask(sock) == b"HTTP/1.1 200 OK"

    before = files(running)
    more(100)  # what is made once is not counted
    clients.close()
    wait_for(lambda: files(running) == before)
    memory = Memory(running.child.process.pid)
    base = memory.now
    more(CONNECTIONS)
    each = (memory.now - base) / CONNECTIONS
    print(f"{each:.1f} KiB for each connection")
    assert files(running) == before + CONNECTIONS
    assert each <= EACH
    # And they are as good as new.
    cpu = CPU(running.child.process.pid)
    used = cpu.used()
    for sock in clients.socks[::50]:
        assert clients.ask(sock) == b"HTTP/1.1 200 OK"
    assert cpu.used() - used < 1.0
    clients.close()
    wait_for(lambda: files(running) == before, what="all are closed here too")


def test_no_descriptors_left(running: RunningGateway, clients: Clients) -> None:
    """It rests instead of spinning, serves those it has, and goes on when it can."""
    pid = running.child.process.pid
    first = clients.open()
    assert clients.ask(first) == b"HTTP/1.1 200 OK"
    room = 20
    limit = files(running) + room
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
    for _ in range(room):
        clients.open()
    waiting = [socket.create_connection(("127.0.0.1", running.port), DEADLINE) for _ in range(room)]
    try:
        running.child.wait_until_said("cannot accept connections")
        cpu = CPU(pid)
        used, began = cpu.used(), time.monotonic()
        # Whom it has it serves, and meanwhile looks for room once a second.
        assert clients.ask(first) == b"HTTP/1.1 200 OK"
        wait_for(lambda: running.child.said().count("cannot accept connections") >= 3)
        assert time.monotonic() - began > 1.5
        assert cpu.used() - used < 0.3, "it spins"
        assert running.child.said().count("cannot accept connections") < 6
        assert files(running) <= limit

        # Some leave: those who wait get in.
        clients.close(room)
        for sock in waiting:
            sock.settimeout(DEADLINE)
            secured = running.development.trust.wrap_socket(sock, server_hostname="localhost")
            clients.socks.append(secured)
            assert clients.ask(secured) == b"HTTP/1.1 200 OK"
    finally:
        for sock in waiting:
            sock.close()
    assert running.child.running


def test_the_control_socket_outlives_a_want_of_descriptors(running: RunningGateway) -> None:
    """One is left, and taking a connection over takes two."""
    pid = running.child.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    limit = files(running) + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    with (
        connected(running.folder / "edgeproxy.sock", DEADLINE) as sock,
        suppress(ConnectionError),
    ):
        sock.sendall(b'{"command": "status"}\n')
        sock.recv(1)  # an answer or the end
    running.child.wait_until_said("Too many open files")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert running.command("status").returncode == 0


@pytest.mark.debian("nginx")
def test_no_descriptor_for_the_service(gateway: Start, nginx: Any) -> None:
    """A service that cannot be reached for want of descriptors is a refusal like others, and
    the gateway goes on when there are some again."""
    origin = nginx("location / { return 200 hello; }")
    running = gateway({"upstreams": {"web": origin.url}, "routes": {"*": {"/": "web"}}})
    pid = running.child.process.pid
    clients = Clients(running)
    try:
        sock = clients.open()
        key = running.development.credential
        limit = files(running)
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        request = f"GET / HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n\r\n".encode()
        sock.sendall(request)
        assert sock.recv(65536).split(b" ")[1] in (b"502", b"503")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        with calling(running, "/", count=1) as callers:
            wait_for(lambda: callers.ended and callers.ended[-1].status == 200)
        assert not callers.errors
        assert "Traceback" not in running.child.said(), running.child.said()
    finally:
        clients.close()
    assert Path(f"/proc/{pid}").exists()
