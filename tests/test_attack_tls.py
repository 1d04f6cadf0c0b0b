"""Peers that keep TLS itself busy: each is cut off, and others are served meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from peers_support import OK, Peer, authority, certificate, peer, server_context
from real_support import CPU, Start, calling
from records_support import ALERT, USER_CANCELED, Protected, Spoken, key_log
from running_support import DEADLINE, RunningGateway, wait_for

from edgeproxy.testing import MemoryReactor
from edgeproxy.transport.client import ClientTLS, ClientTLSStream, Secured

OPEN = {"routes": {"*": {"/": {"page": True, "auth": "none"}}}}
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

Make = Callable[[Spoken], bytes]
FLOODS: dict[str, tuple[ssl.TLSVersion, Make]] = {
    "key updates that ask for one": (TLS13, Spoken.key_update),
    "key updates that ask for none": (TLS13, lambda client: client.key_update(0)),
    "empty records": (TLS13, Spoken.data),
    "empty records in TLS 1.2": (TLS12, Spoken.data),
    "warnings": (TLS13, lambda client: client.record(ALERT, USER_CANCELED)),
    "warnings in TLS 1.2": (TLS12, lambda client: client.record(ALERT, USER_CANCELED)),
    "renegotiations in TLS 1.2": (TLS12, Spoken.renegotiation),
}


def serving(port: int) -> dict[str, Any]:
    """A configuration with a service behind it."""
    routes = {**OPEN["routes"]["*"], "/service": {"to": "service", "auth": "none"}}
    return {"upstreams": {"service": f"http://127.0.0.1:{port}"}, "routes": {"*": routes}}


@pytest.mark.parametrize("what", FLOODS)
def test_records_without_data_end_the_connection(gateway: Start, what: str) -> None:
    """OpenSSL by itself ends floods of empty records and of warnings; key updates and refused
    renegotiations it would take in for ever, in one call, and nobody else would be served."""
    version, make = FLOODS[what]
    running = gateway(OPEN)
    with calling(running, "/", count=1, keep=False) as others, Spoken(running.port, version) as bad:
        wait_for(lambda: others.ended)
        cpu = CPU(running.child.process.pid)
        before, asked = cpu.used(), len(others.ended)
        sent = bad.flood(lambda: make(bad))
        assert sent < 100_000, "it was cut off"
        assert cpu.used() - before < 1.0
        wait_for(lambda: len(others.ended) > asked + 5)
    assert set(others.statuses) == {200}
    assert max(each.took for each in others.ended) < 2.0
    assert "Traceback" not in running.child.said()
    if "key updates" in what or "renegotiations" in what:
        line = "connection with 127.0.0.1 ended: 1000 TLS reads in a row brought no data"
        running.child.wait_until_said(line)


#: Records in plain text, whole.
PLAIN = {
    "changes of the cipher": b"\x14\x03\x03\x00\x01\x01",
    "empty parts of a message": b"\x16\x03\x03\x00\x00",
    "a hello byte by byte": b"\x16\x03\x03\x00\x01\x01",
    "warnings": b"\x15\x03\x03\x00\x02\x01\x5a",
    "empty data": b"\x17\x03\x03\x00\x00",
}


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_floods_within_the_handshake(gateway: Start, version: ssl.TLSVersion) -> None:
    """In place of the hello, and in place of what has to follow it; OpenSSL ends each."""
    running = gateway(OPEN)
    cpu = CPU(running.child.process.pid)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    hello = out.read()
    for record in PLAIN.values():
        for begun in (b"", hello):
            before = cpu.used()
            with socket.create_connection(("127.0.0.1", running.port), DEADLINE) as sock:
                sock.sendall(begun)
                with pytest.raises(ConnectionError):
                    for _ in range(5000):
                        sock.sendall(record * 1000)
            assert running.ask(key=None).status == 200
            assert cpu.used() - before < 1.0
    counted = running.control("counters")["counters"]["connections"]
    assert counted["unfinished_handshakes"] == 2 * len(PLAIN)


@pytest.mark.parametrize("what", [each for each in FLOODS if "renegotiations" not in each])
def test_a_few_of_them_spoil_nothing(gateway: Start, what: str) -> None:
    version, make = FLOODS[what]
    running = gateway(OPEN)
    with Spoken(running.port, version) as client:
        client.sock.settimeout(DEADLINE)
        for _ in range(20):
            client.sock.sendall(b"".join(make(client) for _ in range(3)) + client.data(GET))
            assert client.read().startswith(b"HTTP/1.1 200 OK\r\n")


def test_key_updates_between_data_are_no_flood(gateway: Start) -> None:
    running = gateway({**OPEN, "timeouts": {"requests_per_connection": 10_000}})
    with Spoken(running.port, TLS13) as client:
        client.sock.settimeout(DEADLINE)
        for _ in range(5):
            updates = b"".join(client.key_update(0) for _ in range(500))
            client.sock.sendall(updates + client.data(GET))
            assert client.read().startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_record_in_small_pieces_is_no_flood(gateway: Start) -> None:
    """The largest record there is, byte by byte at first and then in small segments."""
    received: list[int] = []

    def take(this: Peer, sock: ssl.SSLSocket) -> None:
        data = b""
        while not data.endswith(b"end"):
            data += sock.recv(65536)
        received.append(len(data.partition(b"\r\n\r\n")[2]))
        sock.sendall(OK)

    with peer(take) as service:
        running = gateway(serving(service.port))
        with Spoken(running.port, TLS13) as client:
            client.sock.settimeout(DEADLINE)
            size = 16384 * 4
            head = b"POST /service HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size
            client.sock.sendall(client.data(head))
            body = b"x" * (size - 3) + b"end"
            for start in range(0, size, 16384):
                record = client.data(body[start : start + 16384])
                pieces = [record[at : at + 1] for at in range(100)]
                pieces += [record[at : at + 88] for at in range(100, len(record), 88)]
                for piece in pieces:
                    client.sock.sendall(piece)
            assert client.read().startswith(b"HTTP/1.1 200 OK\r\n")
    assert received == [size]


def test_key_updates_while_the_client_takes_no_answer(gateway: Start) -> None:
    """OpenSSL has no place for their answers behind data that wait to be sent, and ends it."""
    size = 30_000_000

    def serve(this: Peer, sock: ssl.SSLSocket) -> None:
        this.answer(sock, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    with peer(serve) as service:
        running = gateway(serving(service.port))
        with Spoken(running.port, TLS13) as client:
            client.sock.settimeout(DEADLINE)
            client.sock.sendall(client.data(GET.replace(b"/", b"/service", 1)))
            client.read()
            stalled(running)
            cpu = CPU(running.child.process.pid)
            before = cpu.used()
            client.sock.sendall(client.key_update() + client.key_update() + client.data(GET))
            stalled(running)
            assert cpu.used() - before < 1.0, "it does not spin"
        (line,) = [each for each in running.log_lines() if each["path"] == "/service"]
        assert line["outcome"] == "client_gone"
        assert running.control("status")["upstreams"]["service"][0]["connections"] == 0


def stalled(running: RunningGateway) -> None:
    """Requests of others, one after the other: by then whatever moves has moved."""
    for _ in range(60):
        assert running.ask(key=None).status == 200


@pytest.mark.parametrize("flood", [True, False])
def test_a_service_that_keeps_tls_busy(gateway: Start, tmp_path: Path, flood: bool) -> None:
    """Data behind a key update, unasked for, are no answer to the next request either."""
    ca = authority()
    context = server_context(tmp_path, certificate(["localhost"], ca))
    context.minimum_version = TLS13
    context.num_tickets = 0
    context.set_ciphers("ECDHE+AESGCM")
    log = tmp_path / "keys.log"
    context.keylog_filename = str(log)

    def serve(this: Peer, sock: ssl.SSLSocket) -> None:
        cipher = sock.cipher()
        assert cipher is not None
        with log.open() as lines:
            secrets = key_log([*lines][-5:])
        mine = Protected(cipher[0], secrets["SERVER_TRAFFIC_SECRET_0"])
        with socket.socket(fileno=os.dup(sock.fileno())) as raw:
            sock.recv(65536)
            if not flood:
                raw.sendall(
                    mine.data(OK) + mine.key_update(0) + mine.data(OK.replace(b"ok", b"no"))
                )
                sock.recv(65536)
                return
            try:
                while True:
                    raw.sendall(b"".join(mine.key_update(0) for _ in range(50)))
            except OSError:
                return

    with peer(serve, context) as service:
        (tmp_path / "ca.pem").write_bytes(ca.pem)
        config = serving(service.port)
        config["upstreams"]["service"] = {
            "targets": [f"https://localhost:{service.port}"],
            "tls": {"ca": str(tmp_path / "ca.pem")},
        }
        running = gateway(config)
        for _ in range(3):
            answer = running.ask("/service", key=None)
            assert (answer.status, answer.body != b"no") == (502 if flood else 200, True)
            assert running.ask(key=None).status == 200
        assert service.count >= 3, "no connection is used again"
    assert "Traceback" not in running.child.said()


def test_data_behind_a_key_update_are_seen_before_the_next_request(tmp_path: Path) -> None:
    """Where all streams have just been looked at, once each, this one has more to be looked at."""
    context = server_context(tmp_path, certificate(["localhost"]))
    context.minimum_version = TLS13
    context.num_tickets = 0
    context.keylog_filename = str(tmp_path / "keys.log")
    near, far = socket.socketpair()
    reactor = MemoryReactor()
    tls = ClientTLS(SSL.Context(SSL.TLS_CLIENT_METHOD), "localhost", verify=False)
    connection = tls.connection(near)
    with ThreadPoolExecutor(1) as beside:
        shaken = beside.submit(context.wrap_socket, far, server_side=True)
        connection.do_handshake()
        service = shaken.result(DEADLINE)
    near.setblocking(False)
    protocol = Silent()
    stream = ClientTLSStream(reactor, Secured(near, connection, tls), protocol)
    secrets = key_log((tmp_path / "keys.log").read_text().splitlines())
    cipher = service.cipher()
    assert cipher is not None
    mine = Protected(cipher[0], secrets["SERVER_TRAFFIC_SECRET_0"])

    for records, quiet in ((mine.key_update(0), True), (mine.key_update(0) + mine.data(OK), False)):
        os.write(service.fileno(), records)
        assert stream.read() is None
        reactor.outbox.looked = True
        assert stream.quiet() is quiet
    stream.abort()
    reactor.settle()
    service.close()


class Silent:
    """A protocol that is told nothing but the end."""

    def received(self, data: bytes) -> None: ...
    def drained(self) -> None: ...
    def secured(self) -> None: ...
    def lost(self, clean: bool) -> None: ...


def test_openssl_asks_for_a_renegotiation_and_for_new_keys(gateway: Start) -> None:
    """OpenSSL's own client: `R` is refused, and the connection goes on; so it does after `K`."""
    running = gateway(OPEN)
    for version, key, said in (("-tls1_2", "R", "no renegotiation"), ("-tls1_3", "K", "KEYUPDATE")):
        client = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{running.port}", version, "-msg"]
            + ["-servername", "localhost"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            assert client.stdin is not None and client.stdout is not None
            client.stdin.write(f"{key}\n".encode())
            client.stdin.flush()
            found = b""
            while said.encode() not in found.lower() + found:
                line = client.stdout.readline()
                assert line, found.decode()
                found += line
        finally:
            client.kill()
            client.wait()
    assert running.ask(key=None).status == 200
