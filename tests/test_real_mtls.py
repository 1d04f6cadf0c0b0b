"""docs/client-certificates.md as it is written: openssl, twistd and curl, each of them real."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_support import of
from real_support import Start
from running_support import RunningGateway, wait_for

pytestmark = pytest.mark.debian("curl", "openssl")

PAGE = "docs/client-certificates.md"


class Telling(BaseHTTPRequestHandler):
    """Answers with the fields that it got."""

    def do_GET(self) -> None:
        body = json.dumps(dict(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Telling)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def sh(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-ec", text]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the certificates of the page's example."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    made = sh(of(PAGE, "sh")[0], folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def running(gateway: Start, folder: Path, service: int) -> RunningGateway:
    """The page's example: its certificates, its configuration."""
    return example(gateway, service)


def example(gateway: Start, service: int) -> RunningGateway:
    config = yaml.safe_load(of(PAGE, "yaml")[0])
    config["upstreams"] = {"admin": f"http://127.0.0.1:{service}"}
    config["client_certificates"] = {"localhost": {"by": "staff", "forward": "certificate"}}
    return gateway(config)


def call(running: RunningGateway, *without: str, more: str = "") -> tuple[int, str]:
    """The page's call of curl, without some of it; its exit status, and what it wrote."""
    command = of(PAGE, "sh")[1].strip().replace(":8443", f":{running.port}")
    for part in without:
        assert part in command
        command = command.replace(part, "")
    found = sh(f"{command} -sS {more}", running.folder)
    return found.returncode, found.stdout + found.stderr


def test_alice_is_let_in(running: RunningGateway) -> None:
    status, said = call(running)
    assert status == 0, said
    fields = json.loads(said)
    assert fields["X-Consumer-Id"] == "staff:alice@example.com"
    assert fields["X-Consumer-Name"] == "alice@example.com"
    assert fields["X-Consumer-Groups"] == "ops"
    der = sh("openssl x509 -in alice.pem -outform DER | openssl base64 -A", running.folder).stdout
    assert fields["Client-Cert"] == f":{der}:"
    (line,) = wait_for(running.log_lines)
    said_so = (line["principal"], line["kind"], line["status"])
    assert said_so == ("staff:alice@example.com", "client_certificate", 200)
    told = json.loads(running.command("status", "--json").stdout)
    assert told["client_certificates"] == {"names": {"localhost": "staff"}, "trouble": ""}


def test_in_tls_1_2(running: RunningGateway) -> None:
    assert call(running, more="--tls-max 1.2")[0] == 0
    assert call(running, "--cert alice.pem", "--key alice.key", more="--tls-max 1.2")[0] != 0


def test_nobody_else_is(running: RunningGateway) -> None:
    status, said = call(running, "--cert alice.pem", "--key alice.key")
    assert status != 0 and "certificate required" in said
    running.child.wait_until_said(
        r"handshake refused: localhost from 127\.0\.0\.1: peer did not return a certificate"
    )
    sh("cp alice.pem good.pem && openssl x509 -in alice.csr -req -signkey alice.key -out alice.pem",
       running.folder)  # fmt: skip
    status, said = call(running)
    assert status != 0, said
    running.child.wait_until_said(
        r"handshake refused: localhost from 127\.0\.0\.1: client certificate: signed by itself"
    )
    assert running.log_lines() == []


def test_the_alert_arrives(running: RunningGateway) -> None:
    """Also when the request came at once with the end of the handshake, as clients send it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, sent, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(sent.read())
                received.write(sock.recv(65536))
        tls.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.sendall(sent.read())
        while more := sock.recv(65536):  # to an end in order: a reset raises here
            received.write(more)
    with pytest.raises(ssl.SSLError, match="certificate required"):
        tls.read(1)


def test_revoked(running: RunningGateway) -> None:
    assert call(running)[0] == 0
    ca = "openssl ca -config ca.cnf -keyfile staff-ca.key -cert staff-ca.pem"
    done = sh(f"{ca} -revoke alice.pem && {ca} -gencrl -out staff.crl", running.folder)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: call(running)[0] != 0, what="the new list")
    running.child.wait_until_said("client certificate: revoked")


def test_a_list_that_is_broken(running: RunningGateway) -> None:
    (running.folder / "staff.crl").write_text("nothing")
    running.child.wait_until_said("staff.crl: cannot be read as a revocation list.*stay in use")
    assert call(running)[0] == 0
    checked = running.command("check")
    assert checked.returncode == 1
    assert "staff.crl:1:1: cannot be read as a revocation list" in checked.stdout
    reloaded = running.command("reload")
    assert reloaded.returncode == 1
    assert "staff.crl: cannot be read as a revocation list" in reloaded.stdout + reloaded.stderr
    assert call(running)[0] == 0
    assert "staff.crl: cannot be read" in running.command("status").stderr


def test_a_start_with_a_list_that_is_too_old(gateway: Start, folder: Path, service: int) -> None:
    """As after a night in which none was fetched; nothing else of the gateway depends on it."""
    ca = "openssl ca -config ca.cnf -keyfile staff-ca.key -cert staff-ca.pem -gencrl -out staff.crl"
    old = sh(f"{ca} -crl_lastupdate 20240101000000Z -crl_nextupdate 20240131000000Z", folder)
    assert old.returncode == 0, old.stderr
    running = example(gateway, service)
    why = r"staff.crl: the revocation list of CN=Staff CA is too old: .*; staff lets nobody in"
    running.child.wait_until_said(why)
    assert call(running)[0] != 0
    running.child.wait_until_said("client certificate: the revocation list is too old")
    reloaded = running.command("reload")
    assert reloaded.returncode == 0, reloaded.stderr
    assert re.search(why, reloaded.stdout + reloaded.stderr)
    checked = running.command("check")
    assert checked.returncode == 1
    assert "staff.crl:1:1: the revocation list of CN=Staff CA is too old" in checked.stdout
    assert re.search(why, running.command("status").stderr)
    assert sh(ca, folder).returncode == 0
    wait_for(lambda: call(running)[0] == 0, what="the new list")
