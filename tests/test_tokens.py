"""Tokens over whole requests: who is let in, what the service gets, what is remembered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokens_support import ISSUER, KINDS, SECRET, key, key_set, token

from edgeproxy.testing import MemoryGateway
from edgeproxy.tokens import Tokens

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ROUTES = """
upstreams: { users: http://10.0.0.1:9001 }
routes: { api.example.com: { /: { to: users, auth: AUTH } } }
"""


def gateway(auth: str = "partner", **credentials: dict[str, Any]) -> MemoryGateway:
    made = credentials or {"partner": settings(jwks=key_set(key()))}
    text = ROUTES.replace("AUTH", auth) + f"auth: {json.dumps(made)}"
    return MemoryGateway(text, environ={"SECRET": SECRET})


def settings(**more: Any) -> dict[str, Any]:
    return {"jwt": ISSUER, "audience": "shop", **more}


def ask(gateway: MemoryGateway, *fields: str) -> Any:
    client = gateway.client()
    lines = "".join(f"{field}\r\n" for field in fields)
    client.send(f"GET / HTTP/1.1\r\nHost: api.example.com\r\n{lines}\r\n".encode())
    return client


def passed(gateway: MemoryGateway) -> bytes:
    """What the service got, which then answers."""
    gateway.reactor.settle()
    service = gateway.services["10.0.0.1", 9001]
    assert service.attempts, gateway.finished[-1].reason
    wire = service.accept()
    wire.send(OK)
    return wire.received


def credential(gateway: MemoryGateway, name: str = "partner") -> Tokens:
    found = gateway.gateway.credentials.by_name(gateway.gateway.credentials._made)[name]
    assert isinstance(found, Tokens)
    return found


@pytest.mark.parametrize("algorithm", [*KINDS, "HS256", "HS384", "HS512"])
def test_every_algorithm(algorithm: str) -> None:
    symmetric = algorithm.startswith("HS")
    keys = {"secret": "${env:SECRET}"} if symmetric else {"jwks": key_set(key(algorithm))}
    made = gateway(partner=settings(**keys))
    client = ask(made, f"Authorization: Bearer {token(algorithm)}")
    got = passed(made)
    assert b"X-Consumer-Id: partner:alice\r\nX-Consumer-Name: alice\r\n" in got
    assert b"Authorization" not in got
    assert client.answers()[0].status == 200
    assert made.log[-1]["principal"] == "partner:alice"
    assert made.log[-1]["kind"] == "jwt"


def test_claims_make_the_principal() -> None:
    made = gateway(
        partner=settings(
            jwks=key_set(key()), name="preferred_username", groups="realm_access.roles"
        )
    )
    sent = token(preferred_username="Alice", realm_access={"roles": ["ops", "dev"]})
    ask(made, f"Authorization: Bearer {sent}")
    got = passed(made)
    assert b"X-Consumer-Name: Alice\r\nX-Consumer-Groups: ops,dev\r\n" in got


def test_remembered_until_it_expires() -> None:
    made = gateway()
    sent = f"Authorization: Bearer {token()}"
    ask(made, sent)
    wire = made.services["10.0.0.1", 9001]
    passed(made)
    assert len(credential(made).remembered) == 1
    ask(made, sent)
    made.reactor.settle()
    assert wire.received.count(b"X-Consumer-Id: partner:alice\r\n") == 2
    wire.connections[0].send(OK)
    first, second = made.finished
    assert first.principal is second.principal is not None
    made.wait(331)
    late = ask(made, sent)
    assert late.answers()[0].status == 401
    assert made.finished[-1].reason == "partner: expired"
    assert len(credential(made).remembered) == 0
