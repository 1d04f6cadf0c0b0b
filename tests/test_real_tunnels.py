"""Tunnels through a gateway in a process of its own, over real sockets with TLS."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import peers_support
import pytest
from real_support import Memory, Start
from running_support import DEADLINE, RunningGateway, free_port, wait_for
from tunnel_support import Talker, agree, agreed, ask, pair, pieces

FRAMES = 50_000
"""That each of the two peers says."""
TUNNELS = 2_000
MOST = 100_000
"""KiB that so many idle ones may cost."""
AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
ASK = (
    "GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "X-API-Key: {}\r\n\r\n"
)


def configuration(port: int, **upstream: Any) -> dict[str, Any]:
    return {
        "upstreams": {"chat": {"targets": f"http://127.0.0.1:{port}", **upstream}},
        "routes": {"localhost": {"/chat": {"to": "chat", "websocket": True}}},
    }


def log(running: RunningGateway) -> list[dict[str, Any]]:
    path = running.folder / "access.log"
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- a long talk ---------------------------------------------------------------------------------

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def say(talker: Talker, writer: asyncio.StreamWriter, note: Callable[[bytes], None]) -> None:
    """Say everything, cut at random, as fast as the other side takes it."""
    random = Random(talker.left)
    while talker.left:
        data = talker.say()
        note(data)
        for piece in pieces(data, random):
            writer.write(piece)
            await asyncio.sleep(0)
        await writer.drain()


async def hear(talker: Talker, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(1 << 16):
        talker.hear(data)


async def talk(running: RunningGateway, port: int, seed: int) -> None:
    client, server, client_hears, server_hears = pair(seed, FRAMES)
    accepted: asyncio.Queue[Streams] = asyncio.Queue()
    listening = await asyncio.start_server(
        lambda reader, writer: accepted.put_nowait((reader, writer)), "127.0.0.1", port
    )
    near_reader, near = await asyncio.open_connection(
        "localhost", running.port, ssl=running.development.trust
    )
    near.write(ask(client, {"X-API-Key": running.development.credential}))
    far_reader, far = await accepted.get()
    far.write(agree(server, await head(far_reader)))
    agreed(client, await head(near_reader))

    hearing = (
        asyncio.create_task(hear(client, near_reader)),
        asyncio.create_task(hear(server, far_reader)),
    )
    await asyncio.gather(say(client, near, server_hears.hear), say(server, far, client_hears.hear))
    # Pongs are still owed; then the one closes, and the other agrees.
    for talker, writer, hears in ((server, far, client_hears), (client, near, server_hears)):
        if talker is client:
            talker.protocol.send_close(1000, "enough")
        data = talker.flush()
        hears.hear(data)
        writer.write(data)
        await writer.drain()
    while server.protocol.close_rcvd is None:
        await asyncio.sleep(0.01)  # a look, as in wait_for; the test's own time-out is the deadline
    data = server.flush()
    client_hears.hear(data)
    far.write(data)
    far.close()
    await asyncio.gather(*hearing)
    near.close()
    listening.close()
    await listening.wait_closed()
    for talker in (client, server):
        talker.protocol.receive_eof()
        assert talker.protocol.close_code == 1000
    assert server.heard.digest() == client.said.digest()
    assert client.heard.digest() == server.said.digest()
    assert server_hears.same(server)
    assert client_hears.same(client)
    assert min(client.count, server.count) >= FRAMES


def test_a_talk_of_many_frames(gateway: Start) -> None:
    port = free_port()
    running = gateway(configuration(port))
    asyncio.run(talk(running, port, 11))
    (line,) = wait_for(lambda: log(running))
    assert (line["status"], line["outcome"]) == (101, "ok")
    assert line["received"] > 15 << 20
    assert line["sent"] > 15 << 20
    assert "Traceback" not in running.child.said()


# -- many that say nothing -----------------------------------------------------------------------


class Origin:
    """A service that agrees to everything, in a thread; ``ends`` are its connections."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listening.getsockname()[1]
        self.ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            sock.settimeout(DEADLINE)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += sock.recv(65536)
            sock.sendall(AGREED)
            self.ends.append(sock)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in self.ends:
            sock.close()


@pytest.fixture
def origin() -> Iterator[Origin]:
    made = Origin()
    yield made
    made.close()


def strict(running: RunningGateway) -> ssl.SSLContext:
    """A client that tells an end in order from one without close_notify."""
    context = running.development.trust
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


def opened(running: RunningGateway, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A tunnel's client end."""
    plain = socket.create_connection(("127.0.0.1", running.port), DEADLINE)
    sock = context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
    sock.sendall(ASK.format(running.development.credential).encode())
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += sock.recv(65536)
    assert data.startswith(b"HTTP/1.1 101 "), data
    return sock


def state(running: RunningGateway) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(running.command("status", "--json").stdout)
    return found


@contextmanager
def descriptors(wanted: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files: ulimit -n")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_tunnels_cost_little(gateway: Start, origin: Origin) -> None:
    with descriptors(2 * TUNNELS + 500):
        running = gateway(configuration(origin.port, connections=TUNNELS + 200))
        context = strict(running)
        clients = [opened(running, context) for _ in range(100)]  # what is made once is not counted
        memory = Memory(running.child.process.pid)
        base = memory.now
        clients += [opened(running, context) for _ in range(TUNNELS)]
        used = memory.now - base
        print(f"{used / TUNNELS:.1f} KiB for each tunnel")
        assert used <= MOST
        assert state(running)["tunnels"] == TUNNELS + 100
        assert f"tunnels       {TUNNELS + 100}\n" in running.command("status").stdout
        # And they are as good as new.
        for sock, end in list(zip(clients, origin.ends, strict=True))[::100]:
            sock.sendall(b"there")
            assert end.recv(100) == b"there"
            end.sendall(b"back")
            assert sock.recv(100) == b"back"
        for sock in clients:
            sock.close()
        wait_for(lambda: state(running)["tunnels"] == 0)
        assert state(running)["listeners"][0]["connections"] == 0
        assert all(end.recv(1) == b"" for end in origin.ends)


# -- ends ----------------------------------------------------------------------------------------


def test_each_direction_ends_by_itself(gateway: Start, origin: Origin) -> None:
    """Over TLS too: with close_notify one way, the other stays open."""
    running = gateway(configuration(origin.port))
    sock = opened(running, strict(running))
    wait_for(lambda: origin.ends)
    (end,) = origin.ends
    size = 1 << 20
    data = Random(1).randbytes(size)
    writing = threading.Thread(target=lambda: (end.sendall(data), end.shutdown(socket.SHUT_WR)))
    writing.start()
    got = b""
    while piece := sock.recv(1 << 16):
        got += piece
    writing.join()
    assert got == data
    # close_notify has come, in order: `recv` would have raised else. The other way is open.
    back = Random(2).randbytes(size)
    writing = threading.Thread(target=lambda: (sock.sendall(back), sock.unwrap().close()))
    writing.start()
    got = b""
    while piece := end.recv(1 << 16):
        got += piece
    writing.join()
    assert got == back
    (line,) = wait_for(lambda: log(running))
    assert (line["outcome"], line["received"], line["sent"]) == ("ok", size, size)


def test_a_service_behind_tls(gateway: Start, tmp_path: Path) -> None:
    """Both ends know close_notify: each direction ends by itself there too, and a break shows."""
    authority = peers_support.authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    certificate = peers_support.certificate(["localhost"], authority)
    context = peers_support.server_context(tmp_path, certificate)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    origin = Origin(context)
    config = configuration(origin.port, tls={"ca": str(tmp_path / "ca.pem")})
    config["upstreams"]["chat"]["targets"] = f"https://localhost:{origin.port}"
    running = gateway(config)
    sock = opened(running, strict(running))
    end = wait_for(lambda: origin.ends)[0]
    assert isinstance(end, ssl.SSLSocket)
    sock.sendall(b"there")
    assert end.recv(100) == b"there"
    unwrapping = threading.Thread(target=end.unwrap)
    unwrapping.start()
    assert sock.recv(100) == b""
    sock.unwrap().close()
    unwrapping.join(DEADLINE)

    second = opened(running, strict(running))
    second.shutdown(socket.SHUT_RDWR)  # without close_notify
    with pytest.raises(ssl.SSLError):
        wait_for(lambda: origin.ends[1:])[0].recv(1)
    found = wait_for(lambda: log(running)[1:] and log(running))
    assert [line["outcome"] for line in found] == ["ok", "client_gone"]
    assert found[0]["received"] == len(b"there")
    origin.close()


def reset(sock: socket.socket) -> None:
    """Go without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("half", [False, True], ids=["both open", "one direction over"])
def test_a_client_that_breaks_off(gateway: Start, origin: Origin, half: bool) -> None:
    running = gateway(configuration(origin.port))
    sock = opened(running, strict(running))
    (end,) = wait_for(lambda: origin.ends)
    if half:
        end.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    reset(sock)
    assert end.recv(1) == b""
    (line,) = wait_for(lambda: log(running))
    assert line["outcome"] == ("ok" if half else "client_gone")  # all that was for it had come
    assert state(running)["tunnels"] == 0


def test_a_service_that_breaks_off(gateway: Start, origin: Origin) -> None:
    running = gateway(configuration(origin.port))
    sock = opened(running, strict(running))
    (end,) = wait_for(lambda: origin.ends)
    reset(end)
    with pytest.raises(ssl.SSLError):
        sock.recv(1)
    (line,) = wait_for(lambda: log(running))
    assert line["outcome"] == "upstream_reset"
    assert "Traceback" not in running.child.said()


def test_a_drain_cuts_what_is_left(gateway: Start, origin: Origin) -> None:
    running = gateway({**configuration(origin.port), "timeouts": {"drain": "1s"}})
    sock = opened(running, strict(running))
    found = running.command("drain")
    assert found.returncode == 0
    assert "1 connection" in found.stdout + found.stderr
    with pytest.raises(ssl.SSLError):
        sock.recv(1)
    running.child.wait()
    assert [line["outcome"] for line in log(running)] == ["drained"]
