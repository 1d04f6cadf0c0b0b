"""What clients get of TLS from a gateway at work, and after a reload."""

from __future__ import annotations

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
