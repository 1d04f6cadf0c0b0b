"""Connections that begin with a PROXY head, from HAProxy and by hand."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from peers_support import authority, peer, polite
from real_support import Start
from running_support import DEADLINE, Child, RunningGateway, accepts, free_port, wait_for

HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend in
    bind 127.0.0.1:{port}
    default_backend edge
backend edge
    server edge 127.0.0.1:{target} source 127.0.0.2 {how} check inter 100ms
"""
V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 8080 443\r\n"


def config(*proxies: str, **more: Any) -> dict[str, Any]:
    listen = {"https": "127.0.0.1:0", "http": "127.0.0.1:0", "proxy_protocol": list(proxies)}
    routes = {"*": {"/": {"page": True, "auth": "none"}}}
    return {"listen": listen, "routes": routes, **more}


@contextmanager
def haproxy(folder: Path, target: int, how: str) -> Iterator[int]:
    port = free_port()
    file = folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(port=port, target=target, how=how))
    child = Child.start(["/usr/sbin/haproxy", "-db", "-f", file], folder / "haproxy.out")
    try:
        wait_for(lambda: accepts(port))
        yield port
    finally:
        child.end()


@contextmanager
def talk(running: RunningGateway, head: bytes, source: str = "127.0.0.1") -> Iterator[Any]:
    """A TLS connection that begins with ``head``."""
    address = ("127.0.0.1", running.port)
    with socket.create_connection(address, DEADLINE, (source, 0)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head:
            sock.sendall(bytes((byte,)))
        context = running.development.trust
        with context.wrap_socket(sock, server_hostname="localhost") as secure:
            yield secure


def asked(secure: Any) -> int:
    secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return int(secure.recv(65536).split()[1])


def client_of(running: RunningGateway, count: int = 1) -> str:
    lines = wait_for(lambda: len(found := running.log_lines()) >= count and found)
    found: str = lines[-1]["client"]
    return found


@pytest.mark.debian("haproxy")
@pytest.mark.parametrize(
    "how",
    [
        "send-proxy check-send-proxy",
        "send-proxy-v2 check-send-proxy",
        "send-proxy-v2-ssl-cn proxy-v2-options crc32c,unique-id check-send-proxy",
        "send-proxy-v2",
    ],
)
def test_haproxy_tells_whose_connection_it_is(gateway: Start, tmp_path: Path, how: str) -> None:
    running = gateway(config("127.0.0.2"))
    with haproxy(tmp_path, running.port, how) as port:
        through = RunningGateway(running.folder, running.development, running.child, port)
        for count in range(1, 4):
            assert through.ask().status == 200
            assert client_of(running, count) == "127.0.0.1", "not HAProxy's own 127.0.0.2"
        status = running.control("status")
        wait_for(
            lambda: (
                running.control("status")["listeners"][0]["accepted"]
                > status["listeners"][0]["accepted"] + 2
            ),
            what="health checks go on",
        )
        assert through.ask().status == 200
    assert "refused" not in running.child.said()


@pytest.mark.debian("haproxy")
def test_haproxy_before_the_plain_listener(gateway: Start, tmp_path: Path) -> None:
    running = gateway(config("127.0.0.2"))
    plain = int(running.child.wait_until_said(r"listening on http port (\d+)")[1])
    with haproxy(tmp_path, plain, "send-proxy-v2 check-send-proxy") as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request("GET", "/")
        assert connection.getresponse().status == 308
        connection.close()
    assert client_of(running) == "127.0.0.1"


def test_byte_by_byte_and_limits_by_the_address_told(gateway: Start) -> None:
    routes = {"*": {"/": {"page": True, "auth": "none", "limit": "few"}}}
    limits = {"few": {"rate": "1/min", "by": "address"}}
    running = gateway(config("127.0.0.1", limits=limits) | {"routes": routes})
    statuses = []
    for number in (7, 7, 8):
        with talk(running, V1.replace(b"192.0.2.7", b"192.0.2.%d" % number)) as secure:
            statuses.append(asked(secure))
    assert statuses == [200, 429, 200]
    assert client_of(running, 3) == "192.0.2.8"
    with talk(running, b"PROXY UNKNOWN\r\n") as secure:
        assert asked(secure) == 200
    assert client_of(running, 4) == "127.0.0.1", "the proxy's own"


def test_who_is_not_named_cannot_tell_and_who_is_has_to(gateway: Start) -> None:
    running = gateway(config("127.0.0.2"))
    with pytest.raises((ssl.SSLError, ConnectionError)), talk(running, V1):
        pass
    with talk(running, b"") as secure:
        assert asked(secure) == 200
    for _ in range(3):
        with pytest.raises((ssl.SSLError, ConnectionError)), talk(running, b"", "127.0.0.2"):
            pass
    said = "connection from 127.0.0.2 refused: it does not begin with a PROXY head"
    assert running.child.said().count(said) == 1, "not a line for each"
    with talk(running, V1, "127.0.0.2") as secure:
        assert asked(secure) == 200
    client_of(running, 2)
    assert [line["client"] for line in running.log_lines()] == ["127.0.0.1", "192.0.2.7"]


V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
    + bytes((192, 0, 2, 7, 192, 0, 2, 1))
    + b"\x1f\x90\x01\xbb"
)


def test_a_proxy_that_was_forgotten_is_told_once(gateway: Start) -> None:
    """Both versions of its head, which TLS takes for nonsense; and other nonsense is not told."""
    running = gateway(config("127.0.0.2"))
    said = "connection from 127.0.0.1 refused: it begins with a PROXY head, which is taken from"
    for nonsense in (b"PROXYPROXYPROXY", b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", running.port), DEADLINE) as sock:
            sock.sendall(nonsense)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass
    assert "PROXY" not in running.child.said()
    for head in (V2, V1, b"PROXY UNKNOWN\r\n", V2):
        with socket.create_connection(("127.0.0.1", running.port), DEADLINE) as sock:
            sock.sendall(head)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                running.development.trust.wrap_socket(sock, server_hostname="localhost")
    running.child.wait_until_said(said)
    wait_for(lambda: running.control("status")["listeners"][0]["connections"] == 0)
    assert running.child.said().count(said) == 1
    plain = int(running.child.wait_until_said(r"listening on http port (\d+)")[1])
    with socket.create_connection(("127.0.0.1", plain), DEADLINE) as sock:
        sock.sendall(V1 + b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_second_head_is_told_of_the_proxy_and_not_of_its_client(gateway: Start) -> None:
    running = gateway(config("127.0.0.1"))
    for first, second in ((V1, V2), (V2, V1), (b"PROXY UNKNOWN\r\n", V1)):
        with (
            pytest.raises((ssl.SSLError, ConnectionError)),
            talk(running, first + second),
        ):
            pass
    said = "connection from 127.0.0.1 refused: a second PROXY head follows the first; one is right"
    running.child.wait_until_said(said)
    wait_for(lambda: running.control("status")["listeners"][0]["connections"] == 0)
    assert running.child.said().count(said) == 1
    assert "192.0.2.7" not in running.child.said()
    assert "those alone" not in running.child.said()


def test_services_are_told_the_client(gateway: Start) -> None:
    """X-Forwarded-For begins with whom the balancer names; what the client says is dropped."""
    with peer(polite) as service:
        upstreams = {"service": f"http://127.0.0.1:{service.port}"}
        routes = {"*": {"/": {"to": "service", "auth": "none"}}}
        told = config("127.0.0.1", upstreams=upstreams, trusted_proxies=["192.0.2.66"])
        running = gateway({**told, "routes": routes})
        lie = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
        for head in (V1, V2, V1.replace(b"192.0.2.7", b"192.0.2.66"), b"PROXY UNKNOWN\r\n"):
            with talk(running, head) as secure:
                secure.sendall(lie)
                assert secure.recv(65536).startswith(b"HTTP/1.1 200 ")
        fields = [re.findall(rb"(?im)^x-forwarded-(?:for|port): (.*)\r$", h) for h in service.heads]
    port = str(running.port).encode()
    assert fields == [
        [b"192.0.2.7", port],
        [b"192.0.2.7", port],
        [b"203.0.113.9, 192.0.2.66", port],
        [b"127.0.0.1", port],
    ]


def test_a_client_without_its_certificate_is_named(gateway: Start, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    running = gateway(
        config(
            "127.0.0.1",
            auth={"staff": {"client_certificate": str(tmp_path / "ca.pem")}},
            client_certificates={"*": "staff"},
        )
    )
    with pytest.raises((ssl.SSLError, ConnectionError)), talk(running, V1) as secure:
        asked(secure)
    running.child.wait_until_said(r"handshake refused: localhost from 192\.0\.2\.7: peer did not")


def test_a_head_that_never_comes_to_an_end(gateway: Start) -> None:
    timeouts = {"drain": "5s", "handshake": "300ms"}
    running = gateway(config("127.0.0.1", timeouts=timeouts))
    for begun in (b"", b"PROXY TCP4 192.0", b"\r\n\r\n\x00\r\nQUIT\n\x21"):
        with socket.create_connection(("127.0.0.1", running.port), DEADLINE) as sock:
            sock.sendall(begun)
            assert sock.recv(1) == b""
    assert "no whole PROXY head came in time" in running.child.said()
    wait_for(lambda: running.control("status")["listeners"][0]["connections"] == 0)


def test_a_stop_hurries_those_that_wait_for_a_head(gateway: Start) -> None:
    """They have `timeouts: close:`, as whoever has just connected, not all of the handshake's."""
    running = gateway(config("127.0.0.1", timeouts={"drain": "15s", "close": "300ms"}))
    with socket.create_connection(("127.0.0.1", running.port), DEADLINE) as sock:
        sock.sendall(V1[:9])
        wait_for(lambda: running.control("status")["listeners"][0]["connections"] == 1)
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 5
        assert sock.recv(1) == b""
    assert "no whole PROXY head came in time" in running.child.said()
    assert "were cut" not in running.child.said()


def test_a_head_that_comes_in_a_drain(gateway: Start) -> None:
    running = gateway(config("127.0.0.1", timeouts={"drain": "15s", "close": "5s"}))
    with socket.create_connection(("127.0.0.1", running.port), DEADLINE) as sock:
        wait_for(lambda: running.control("status")["listeners"][0]["connections"] == 1)
        running.child.signal(signal.SIGTERM)
        wait_for(lambda: not accepts(running.port))
        sock.sendall(V1)
        trust = running.development.trust
        with trust.wrap_socket(sock, server_hostname="localhost") as secure:
            assert asked(secure) == 200
            assert secure.recv(1) == b""
    running.child.wait()


def test_those_that_wait_are_cut_when_the_drain_is_over(gateway: Start) -> None:
    running = gateway(config("127.0.0.1", timeouts={"drain": "300ms", "close": "15s"}))
    with socket.create_connection(("127.0.0.1", running.port), DEADLINE) as sock:
        wait_for(lambda: running.control("status")["listeners"][0]["connections"] == 1)
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 5
        assert sock.recv(1) == b""
    assert "drain: 1 connections were cut" in running.child.said()
