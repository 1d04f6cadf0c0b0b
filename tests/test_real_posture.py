"""What clients get of TLS from a gateway at work, and after a reload."""

from __future__ import annotations

import http.client
import socket
import ssl

import pytest
from real_support import Start
from running_support import DEADLINE, RunningGateway, write_config

ROUTES = {"routes": {"*": {"/": {"page": True, "auth": "none"}}}}


def version(running: RunningGateway, most: ssl.TLSVersion) -> str | None:
    """The version that a client gets which speaks nothing newer than ``most``."""
    context = running.development.trust
    context.maximum_version = most
    with (
        socket.create_connection(("127.0.0.1", running.port), DEADLINE) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secure,
    ):
        return secure.version()


def test_modern_by_one_word_and_a_reload(gateway: Start) -> None:
    running = gateway(ROUTES)
    assert version(running, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    kept = running.connect()
    assert running.ask(connection=kept).status == 200

    listen = {"https": "127.0.0.1:0", "tls": "modern"}
    write_config(running.folder, {**ROUTES, "listen": listen})
    said = running.command("reload")
    assert said.returncode == 0
    assert "listen: tls is modern now" in said.stdout
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        version(running, ssl.TLSVersion.TLSv1_2)
    assert version(running, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    assert running.ask(connection=kept).status == 200, "what is open stays as it is"
    kept.close()

    modern = gateway({**ROUTES, "listen": listen}, name="modern")
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        version(modern, ssl.TLSVersion.TLSv1_2)
    assert version(modern, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


def test_strict_transport_over_tls_alone(gateway: Start) -> None:
    listen = {"https": "127.0.0.1:0", "http": "127.0.0.1:0"}
    running = gateway({**ROUTES, "listen": listen, "hsts": {"*": "365d"}})
    field = "Strict-Transport-Security"
    assert running.ask().fields[field] == "max-age=31536000"
    assert running.ask("/", "TRACE").fields[field] == "max-age=31536000"
    port = int(running.child.wait_until_said(r"listening on http port (\d+)")[1])
    plain = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    plain.request("GET", "/")
    answer = plain.getresponse()
    assert (answer.status, answer.headers[field]) == (308, None)
    plain.close()
    kept = running.connect()
    assert running.ask(connection=kept).fields[field] == "max-age=31536000"
    write_config(running.folder, {**ROUTES, "listen": listen, "hsts": {"*": 0}})
    assert running.command("reload").stdout == "hsts changed\n"
    assert running.ask(connection=kept).fields[field] == "max-age=0"
    kept.close()
