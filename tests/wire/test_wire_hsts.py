"""Strict-Transport-Security on every answer of a host, whoever gives it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from wire_support import HOST, answer, get, standard

from edgeproxy.testing import MemoryGateway

Make = Callable[..., MemoryGateway]

FIELD = "strict-transport-security"
TOLD = "max-age=31536000; includeSubDomains"
TOP = "hsts: { api.example.com: { max_age: 365d, subdomains: true } }"
THEIRS = b"Strict-Transport-Security: max-age=7\r\n"


def relayed(gateway: MemoryGateway, fields: bytes = b"", path: str = "/open") -> list[str]:
    """The values that the client of a relayed answer gets."""
    client = gateway.client()
    client.send(get(path))
    gateway.service("users").accept().send(answer(fields=fields))
    (found,) = client.answers()
    assert (found.status, found.body) == (200, b"ok")
    return [value for name, value in found.fields if name.lower() == FIELD]


def test_relayed_answers(make: Make) -> None:
    assert relayed(make(standard(top=TOP))) == [TOLD]
    assert relayed(make()) == []


def test_a_service_is_not_contradicted_unless_that_is_asked(quick: Make) -> None:
    assert relayed(quick(standard(top=TOP)), THEIRS) == ["max-age=7"]
    replacing = "hsts: { '*': { max_age: 1h, replace: true } }"
    assert relayed(quick(standard(top=replacing)), THEIRS * 2) == ["max-age=3600"]
    assert relayed(quick(), THEIRS) == ["max-age=7"]


def test_nor_is_a_route(quick: Make) -> None:
    own = ", response: { set: { Strict-Transport-Security: max-age=9 } }"
    assert relayed(quick(standard(top=TOP, users=own)), THEIRS) == ["max-age=9"]


@pytest.mark.parametrize(
    ("path", "status"), [("/users", 401), ("/nowhere", 404), ("/small", 413), ("/once", 429)]
)
def test_refusals_of_our_own(quick: Make, path: str, status: int) -> None:
    routes = "    /once: { to: users, auth: none, limit: fewer }"
    gateway = quick(standard(top=TOP, routes=routes))
    if status == 429:
        assert relayed(gateway, path=path) == [TOLD]
    client = gateway.client()
    client.send(get(path, b"Content-Length: 11\r\n", "POST") + b"12345678901")
    (found,) = client.answers("POST")
    assert found.status == status
    assert found.field(FIELD) == TOLD


def test_a_host_that_this_connection_is_not_for_says_nothing(make: Make) -> None:
    routes = "  b.example.com: { /: { to: users, auth: none } }"
    text = standard(top="hsts: { '*': 1h }", routes=routes)
    gateway = make(text, certificates=[["api.example.com"], ["b.example.com"]])
    client = gateway.client(name="api.example.com")
    client.send(get().replace(HOST, b"Host: b.example.com\r\n"))
    client.send(get("/nowhere"))
    (other, own) = client.answers()
    assert (other.status, other.field(FIELD)) == (421, None)
    assert (own.status, own.field(FIELD)) == (404, "max-age=3600")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get(fields=b"No Name: x\r\n"), 400),
        (get("/" + "a" * 9000), 414),
        (get(fields=b"X: %b\r\n" % (b"a" * 70000)), 431),
    ],
)
def test_a_head_that_cannot_be_read_is_of_no_host(quick: Make, data: bytes, status: int) -> None:
    client = quick(standard(top=TOP)).client()
    client.send(data)
    (found,) = client.answers()
    assert (found.status, found.field(FIELD)) == (status, None)


def test_one_host_says_it_another_does_not(quick: Make) -> None:
    routes = "  b.example.com: { /: { to: users, auth: none } }"
    gateway = quick(standard(top=TOP, routes=routes))
    client = gateway.client()
    for host in (b"api.example.com", b"b.example.com", b"api.example.com"):
        client.send(b"TRACE / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    assert [found.field(FIELD) for found in client.answers()] == [TOLD, None, TOLD]


def test_nothing_is_said_without_tls(make: Make) -> None:
    """RFC 6797 7.2: whoever is on the way could have written it there."""
    gateway = make(standard(top="hsts: { '*': 1h }"))
    for data, status in ((get(), 308), (get().replace(b"Host", b"Hast"), 400)):
        client = gateway.client(plain=True)
        client.send(data)
        (found,) = client.answers()
        assert (found.status, found.field(FIELD)) == (status, None)


def test_the_rules_of_a_route_with_a_page(quick: Make) -> None:
    own = "set: { Strict-Transport-Security: max-age=9, X-Mine: a }, remove: [cache-control]"
    own = f"response: {{ {own} }}"
    gateway = quick(standard(top=TOP, routes=f"    /page: {{ page: true, auth: none, {own} }}"))
    client = gateway.client()
    client.send(get("/page") + get("/page", method="HEAD"))
    for page in client.answers("GET", "HEAD"):
        assert [v for n, v in page.fields if n.lower() == FIELD] == ["max-age=9"]
        assert (page.status, page.field("X-Mine"), page.field("Cache-Control")) == (200, "a", None)


def test_a_page_and_a_websocket(quick: Make) -> None:
    routes = "    /page: { page: true, auth: none }\n"
    routes += "    /chat: { to: users, auth: none, websocket: true }"
    gateway = quick(standard(top=TOP, routes=routes))
    client = gateway.client()
    client.send(get("/page"))
    (page,) = client.answers()
    assert (page.status, page.field(FIELD)) == (200, TOLD)
    wanted = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    client.send(get("/chat", wanted + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"))
    gateway.service("users").accept().send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    assert client.received.count(b"Strict-Transport-Security: " + TOLD.encode()) == 2
