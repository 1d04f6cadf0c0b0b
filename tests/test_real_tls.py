"""Services behind TLS: who is believed, what is sent before that, and how connections end."""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certs_support import Issued
from peers_support import DAY, NOW, OK, Peer, authority, certificate, peer, polite, server_context
from real_support import Memory, MiB, Start, curl, random_file, sha256
from running_support import Nginx, RunningGateway, wait_for

CA = authority()
STRANGER = authority("Stranger", 2001)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(CA.pem)
    return path


def config(port: int, host: str = "localhost", **tls: Any) -> dict[str, Any]:
    upstream: dict[str, Any] = {"targets": f"https://{host}:{port}", "eject": {"time": "100ms"}}
    if tls:
        upstream["tls"] = {name: str(v) if isinstance(v, Path) else v for name, v in tls.items()}
    return {"upstreams": {"web": upstream}, "routes": {"*": {"/": "web"}}}


def reason(running: RunningGateway) -> str:
    """Why the last request was refused, as the access log has it."""
    lines = wait_for(running.log_lines)
    found: str = lines[-1]["reason"]
    return found


# -- who is believed -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_service_that_proves_who_it_is(
    gateway: Start, tmp_path: Path, ca: Path, host: str
) -> None:
    context = server_context(tmp_path, certificate(["localhost", "127.0.0.1"], CA))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with peer(polite, context) as service:
        running = gateway(config(service.port, host, ca=ca))
        for _ in range(5):
            assert running.ask().body == b"ok"
        assert service.count == 1, "the connection is kept"
        assert service.names == ["localhost" if host == "localhost" else None]
        head = service.heads[0].decode()
        assert f"Host: localhost:{running.port}\r\n" in head, "the client's, as ever"
        assert "X-Forwarded-Proto: https" in head


UNTRUSTED: list[tuple[Callable[[], Issued], str]] = [
    (lambda: certificate(["localhost"], STRANGER), "its certificate is not trusted: unable to get"),
    (
        lambda: certificate(["localhost"], CA, start=NOW - 9 * DAY, end=NOW - DAY),
        "its certificate is not trusted: certificate has expired",
    ),
    (
        lambda: certificate(["localhost"], CA, start=NOW + DAY / 2),
        "its certificate is not trusted: certificate is not yet valid",
    ),
    (lambda: certificate(["localhost"]), "its certificate is not trusted: self-signed certificate"),
    (lambda: certificate(["other.test"], CA), "its certificate is not for localhost"),
    (lambda: certificate([], CA, cn="localhost"), "its certificate is for no name"),
    (lambda: certificate(["127.0.0.1"], CA), "its certificate is not for localhost"),
]


@pytest.mark.parametrize(("issued", "why"), UNTRUSTED)
def test_a_service_that_does_not(
    gateway: Start, tmp_path: Path, ca: Path, issued: Callable[[], Issued], why: str
) -> None:
    got: list[bytes] = []

    def serve(this: Peer, sock: Any) -> None:
        got.append(sock.recv(65536))

    with peer(serve, server_context(tmp_path, issued())) as service:
        running = gateway(config(service.port, ca=ca))
        assert running.ask(method="POST", body=b"secret").status == 502
        assert why in reason(running)
        where = f"https://localhost:{service.port} (127.0.0.1:{service.port})"
        line = f"{where}: ejected for 0.1 s: cannot connect: {why}"
        assert running.child.said().count(line) == 1
    wait_for(lambda: got or service.errors)
    assert b"".join(got) == b"", "not a byte of the request was sent"


def test_the_system_trusts_others(gateway: Start, tmp_path: Path) -> None:
    """Without `ca` it is the system's bundle that counts: here one that a variable names."""
    context = server_context(tmp_path, certificate(["localhost"], CA))
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(CA.pem)
    with peer(polite, context) as service:
        running = gateway(config(service.port), name="plain")
        assert running.ask().status == 502
        assert "unable to get local issuer" in reason(running)
        named = gateway(
            config(service.port), name="named", environment={"SSL_CERT_FILE": str(bundle)}
        )
        assert named.ask().status == 200


def test_another_name_than_the_urls(gateway: Start, tmp_path: Path, ca: Path) -> None:
    context = server_context(tmp_path, certificate(["pay.test"], CA))
    with peer(polite, context) as service:
        running = gateway(config(service.port, "127.0.0.1", ca=ca, name="pay.test"))
        assert running.ask().status == 200
        assert service.names == ["pay.test"]


def test_a_certificate_named_as_its_own_authority(gateway: Start, tmp_path: Path) -> None:
    issued = certificate(["localhost"], CA)
    pinned = tmp_path / "pinned.pem"
    pinned.write_bytes(issued.pem)
    with peer(polite, server_context(tmp_path, issued)) as service:
        running = gateway(config(service.port, ca=pinned))
        assert running.ask().status == 200


def test_no_verification_is_said_loudly(gateway: Start, tmp_path: Path) -> None:
    context = server_context(tmp_path, certificate(["other.test"]))
    with peer(polite, context) as service:
        running = gateway(config(service.port, verify=False))
        assert running.ask().status == 200
        warning = "upstream web: `verify: false`: whoever answers is believed to be the service"
        assert warning in running.child.said()
        checked = running.command("check")
        assert checked.returncode == 0
        assert warning in checked.stderr


def test_the_next_target_is_tried(gateway: Start, tmp_path: Path, ca: Path) -> None:
    """A service that is not believed was sent nothing: even a POST goes to the next one."""
    good = server_context(tmp_path, certificate(["localhost"], CA))
    (tmp_path / "bad").mkdir()
    bad = server_context(tmp_path / "bad", certificate(["localhost"], STRANGER))

    def post(this: Peer, sock: Any) -> None:
        data = b""
        while piece := sock.recv(65536):
            data += piece
            if data.endswith(b"secret"):
                this.heads.append(data)
                sock.sendall(OK)
                data = b""

    with peer(post, good) as right, peer(polite, bad) as wrong:
        settings = config(wrong.port, ca=ca)
        settings["upstreams"]["web"]["targets"] = [
            f"https://localhost:{wrong.port}",
            f"https://localhost:{right.port}",
        ]
        running = gateway(settings)
        for _ in range(2):
            assert running.ask(method="POST", body=b"secret").status == 200
        assert (len(right.heads), wrong.heads) == (2, [])


# -- what is not TLS, or does not come to an end -------------------------------------------------


def test_a_plain_service_behind_https(gateway: Start, ca: Path) -> None:
    def plain(this: Peer, sock: Any) -> None:
        this.raw.append(sock.recv(65536))
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        sock.recv(1)

    with peer(plain) as service:
        running = gateway(config(service.port, ca=ca))
        assert running.ask().status == 502
        assert reason(running).endswith("TLS handshake: it does not speak TLS")
        assert b"GET" not in b"".join(service.raw)


def test_a_tls_service_behind_http(gateway: Start, tmp_path: Path) -> None:
    context = server_context(tmp_path, certificate(["localhost"], CA))
    with peer(polite, context) as service:
        running = gateway(
            {
                "upstreams": {"web": f"http://127.0.0.1:{service.port}"},
                "routes": {"*": {"/": "web"}},
            }
        )
        assert running.ask().status == 502
        assert service.heads == []


def test_a_handshake_that_stalls(gateway: Start, ca: Path) -> None:
    def silent(this: Peer, sock: Any) -> None:
        while sock.recv(65536):
            pass

    with peer(silent) as service:
        settings = config(service.port, ca=ca)
        settings["upstreams"]["web"]["timeouts"] = {"connect": "500ms"}
        running = gateway(settings)
        began = time.monotonic()
        assert running.ask().status == 504
        assert 0.4 < time.monotonic() - began < 5
        assert reason(running).endswith("timed out")


@pytest.mark.parametrize("reset", [False, True])
def test_a_handshake_that_breaks_off(gateway: Start, ca: Path, reset: bool) -> None:
    def hang_up(this: Peer, sock: Any) -> None:
        sock.recv(65536)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with peer(hang_up) as service:
        running = gateway(config(service.port, ca=ca))
        assert running.ask().status == 502
        assert "TLS handshake: " in reason(running)


def test_nobody_there(gateway: Start, ca: Path, free_port: int) -> None:
    running = gateway(config(free_port, ca=ca))
    assert running.ask().status == 502
    assert reason(running).endswith("Connection refused")


def test_old_versions_of_tls(gateway: Start, tmp_path: Path, ca: Path) -> None:
    context = server_context(tmp_path, certificate(["localhost"], CA))
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with peer(polite, context) as service:
        running = gateway(config(service.port, ca=ca))
        assert running.ask().status == 502
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with peer(polite, context) as service:
        running = gateway(config(service.port, ca=ca), name="newer")
        assert running.ask().status == 200


# -- connections: kept, ended, resumed -----------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(
    gateway: Start, tmp_path: Path, ca: Path, version: ssl.TLSVersion, clean: bool
) -> None:
    """A service that closes after each answer: its second handshake, and all later, are short."""
    context = server_context(tmp_path, certificate(["localhost"], CA))
    context.maximum_version = version

    def once(this: Peer, sock: Any) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        if clean:
            sock.unwrap()

    with peer(once, context) as service:
        running = gateway(config(service.port, ca=ca))
        for _ in range(5):
            assert running.ask().status == 200
        assert service.resumed == [False, True, True, True, True]


def test_tickets_that_come_late_spoil_no_connection(
    gateway: Start, tmp_path: Path, ca: Path
) -> None:
    """TLS 1.3 sends tickets after the handshake: on an idle connection they are no data."""
    context = server_context(tmp_path, certificate(["localhost"], CA))
    with peer(polite, context) as service:
        running = gateway(config(service.port, ca=ca))
        for _ in range(10):
            assert running.ask(method="POST", body=b"").status == 200
        assert service.count == 1


def test_data_that_nobody_asked_for_ends_an_idle_connection(
    gateway: Start, tmp_path: Path, ca: Path
) -> None:
    context = server_context(tmp_path, certificate(["localhost"], CA))

    def chatty(this: Peer, sock: Any) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        sock.sendall(OK)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        this.raw.append(sock.recv(1))

    with peer(chatty, context) as service:
        running = gateway(config(service.port, ca=ca))
        for number in range(1, 6):
            assert running.ask().body == b"ok"
            wait_for(lambda number=number: service.raw == [b""] * number)  # type: ignore[misc]
        assert service.count == 5


@pytest.mark.parametrize("clean", [True, False])
def test_an_idle_connection_that_the_service_ends(
    gateway: Start, tmp_path: Path, ca: Path, clean: bool
) -> None:
    """It is never given to a request, not even to a POST that could not be repeated."""
    context = server_context(tmp_path, certificate(["localhost"], CA))

    def once(this: Peer, sock: Any) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        sock.sendall(OK)
        if clean:
            sock.unwrap()

    with peer(once, context) as service:
        running = gateway(config(service.port, ca=ca))
        for number in range(1, 8):
            assert running.ask(method="POST", body=b"").status == 200
            wait_for(lambda number=number: service.ended == number)  # type: ignore[misc]
        assert service.count == 7


@pytest.mark.parametrize("clean", [True, False])
def test_an_answer_that_ends_with_the_connection(
    gateway: Start, tmp_path: Path, ca: Path, clean: bool
) -> None:
    """Only close_notify says that it was all (RFC 8446 6.1): else somebody may have cut it."""
    context = server_context(tmp_path, certificate(["localhost"], CA))

    def until_close(this: Peer, sock: Any) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        if clean:
            sock.unwrap()

    with peer(until_close, context) as service:
        running = gateway(config(service.port, ca=ca))
        if clean:
            assert running.ask().body == b"half"
        else:
            with pytest.raises((http.client.IncompleteRead, ssl.SSLError, ConnectionError)):
                running.ask()
            assert wait_for(running.log_lines)[-1]["outcome"] == "upstream_reset"


def test_other_files_make_other_connections(gateway: Start, tmp_path: Path, ca: Path) -> None:
    context = server_context(tmp_path, certificate(["localhost"], CA))
    with peer(polite, context) as service:
        running = gateway(config(service.port, ca=ca))
        assert running.ask().status == 200
        assert running.command("reload").returncode == 0
        assert running.ask().status == 200
        assert service.count == 1, "nothing has changed, the pool neither"
        ca.write_bytes(STRANGER.pem)
        said = running.command("reload")
        assert "upstream changed: web" in said.stdout
        assert running.ask().status == 502
        ca.write_bytes(b"nothing")
        said = running.command("reload")
        assert said.returncode == 1
        assert "holds no certificate" in said.stderr
        ca.write_bytes(CA.pem)
        assert running.command("reload").returncode == 0
        assert running.ask().status == 200
        assert service.count >= 2


# -- a real service ------------------------------------------------------------------------------

NGINX = """
listen 127.0.0.1:{port} ssl;
ssl_certificate {folder}/server.pem;
ssl_certificate_key {folder}/server.key;
{more}
location /dav {{ dav_methods PUT; create_full_put_path on; }}
location /here {{ return 302 /new; }}
location /who {{ return 200 "$ssl_client_verify $ssl_client_s_dn $ssl_session_reused"; }}
"""


@pytest.fixture
def origin(
    nginx: Callable[..., Nginx], tmp_path: Path, free_port: int
) -> Callable[..., tuple[Nginx, int]]:
    def start(more: str = "") -> tuple[Nginx, int]:
        server_context(tmp_path, certificate(["localhost"], CA))
        found = nginx(NGINX.format(port=free_port, folder=tmp_path, more=more))
        return found, free_port

    return start


@pytest.mark.debian("nginx")
def test_a_service_that_wants_a_certificate_of_ours(
    gateway: Start, origin: Callable[..., Any], tmp_path: Path, ca: Path
) -> None:
    _, port = origin(f"ssl_client_certificate {ca}; ssl_verify_client on;")
    ours = certificate(["edge.test"], CA, private=None)
    (tmp_path / "ours.pem").write_bytes(ours.full)
    (tmp_path / "ours.key").write_bytes(ours.key)
    without = gateway(config(port, ca=ca), name="without")
    assert without.ask("/who").status == 400, "nginx's word, passed on"
    running = gateway(
        config(port, ca=ca, certificate=tmp_path / "ours.pem", key=tmp_path / "ours.key")
    )
    assert running.ask("/who").body.startswith(b"SUCCESS CN=edge.test")


@pytest.mark.debian("nginx")
def test_a_redirect_to_itself_shows_the_public_origin(
    gateway: Start, origin: Callable[..., Any], ca: Path
) -> None:
    _, port = origin("location /whole { return 302 https://localhost:$server_port/new; }")
    running = gateway(config(port, ca=ca))
    for path in ("/here", "/whole"):
        assert running.ask(path).fields["Location"] == f"{running.url}/new"


@pytest.mark.debian("nginx", "curl")
def test_100_MB_each_way(
    gateway: Start, origin: Callable[..., Any], tmp_path: Path, ca: Path
) -> None:
    found, port = origin()
    settings = config(port, ca=ca)
    settings["routes"]["*"]["/"] = {"to": "web", "body": "200MiB"}
    running = gateway(settings)
    file = tmp_path / "random"
    digest = random_file(file, 100 * MiB)
    running.ask("/who")
    memory = Memory(running.child.process.pid)
    memory.forget_peak()
    before = memory.now
    put = curl(running, "/dav/up", "--upload-file", file, "-o", "/dev/null")
    assert (put.code, put.status) == (0, 201)
    assert sha256(found.folder / "html/dav/up") == digest
    got = curl(running, "/dav/up", "-o", tmp_path / "back")
    assert (got.code, got.size) == (0, 100 * MiB)
    assert sha256(tmp_path / "back") == digest
    assert memory.peak - before < 8 * 1024, "KiB"


@pytest.mark.debian("nginx", "curl")
def test_a_slow_client_holds_the_service_up(
    gateway: Start, origin: Callable[..., Any], tmp_path: Path, ca: Path
) -> None:
    found, port = origin()
    (found.folder / "html" / "large").write_bytes(b"x" * 50 * MiB)
    running = gateway(config(port, ca=ca))
    running.ask("/who")
    memory = Memory(running.child.process.pid)
    before = memory.now
    connection = running.connect()
    connection.request("GET", "/large", headers={"X-API-Key": running.development.credential})
    answer = connection.getresponse()
    digest = hashlib.sha256(answer.read(MiB))
    for _ in range(20):
        running.ask("/who")  # others are served while this one stalls
    assert memory.now - before < 8 * 1024, "KiB"
    while data := answer.read(MiB):
        digest.update(data)
    assert digest.digest() == hashlib.sha256(b"x" * 50 * MiB).digest()
