"""Credentials over reloads: what stays, what is begun, what is stopped."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.config import parse
from edgeproxy.config.clientcerts import ClientCertificate
from edgeproxy.credentials import MAKERS, Credentials
from edgeproxy.identifying import Credential
from edgeproxy.transport.deadlines import Clock


class Noted(Credential):
    def __init__(self, name: str) -> None:
        self.name = name
        self.said: list[str] = []

    def start(self) -> None:
        self.said.append("start")

    def stop(self) -> None:
        self.said.append("stop")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    monkeypatch.setitem(MAKERS, ClientCertificate, lambda name, *_: Noted(name))
    return Credentials(None, Clock(), lambda: None)  # type: ignore[arg-type, return-value]


def config(**files: str) -> Any:
    entries = ", ".join(f"{name}: {{ client_certificate: {file} }}" for name, file in files.items())
    rest = "upstreams: { u: http://127.0.0.1:1 }\nroutes: { '*': { /: u } }"
    return parse(f"auth: {{ {entries} }}\n{rest}")


def test_a_reload_keeps_what_is_the_same(credentials: Credentials) -> None:
    first = credentials.build(config(a="a.pem", b="b.pem"))
    credentials.use(first)
    a, b = first["a"][1], first["b"][1]
    assert isinstance(a, Noted)
    assert isinstance(b, Noted)
    assert a.said == []  # nothing begins before the gateway does
    credentials.start()
    second = credentials.build(config(a="a.pem", b="other.pem", c="c.pem"))
    assert second["a"][1] is a
    assert second["b"][1] is not b
    assert a.said == b.said == ["start"]  # built, not yet in force
    credentials.use(second)
    fresh = second["b"][1]
    assert isinstance(fresh, Noted)
    assert (a.said, b.said, fresh.said) == (["start"], ["start", "stop"], ["start"])
    credentials.stop()
    assert a.said == fresh.said == ["start", "stop"]
    assert b.said == ["start", "stop"]


def test_what_routes_may_name(credentials: Credentials) -> None:
    named = credentials.by_name(credentials.build(config(a="a.pem")))
    assert sorted(named) == ["a", "api_key"]
