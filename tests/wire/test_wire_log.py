"""The access log: one line for every request, whatever it held; and never a secret."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from wire_support import HOST, OK, get, standard

from edgeproxy.testing import MemoryGateway

Make = Callable[..., MemoryGateway]


def test_a_line(make: Make) -> None:
    gateway = make()
    key = gateway.key("good")
    client = gateway.client()
    fields = f"X-API-Key: {key}\r\nCookie: session=secret\r\n".encode()
    client.send(get("/limited2/a%20b?token=secret&b", fields))
    gateway.service("users").accept().send(OK)
    (line,) = gateway.log
    assert "secret" not in repr(line)
    assert {
        "time": "2026-11-24T12:00:00.000Z",
        "client": "192.0.2.1",
        "tls": "TLSv1.3",
        "sni": "api.example.com",
        "protocol": "HTTP/1.1",
        "method": "GET",
        "host": "api.example.com",
        "path": "/limited2/a%20b",
        "query": "token=*&b",
        "route": "api.example.com /limited2",
        "limit": "fewer",
        "remaining": 0,
        "status": 200,
        "received": 0,
        "sent": 2,
        "upstream": "10.0.0.1:9001",
        "attempts": 1,
        "outcome": "ok",
    }.items() <= line.items()
    assert line["principal"] == gateway.finished[0].principal.id  # type: ignore[union-attr]


HOSTILE = [
    b'GET /a"b\\c HTTP/1.2\r\n' + HOST + b"\r\n",
    b'GE"T,"status":200,"x":" / HTTP/1.1\r\n' + HOST + b"\r\n",
    b'GET /open/"\\u0000 HTTP/1.1\r\n' + HOST + b"Bad : 1\r\n\r\n",
    b'GET /open?"=\\"&"\x7f HTTP/1.1\r\n' + HOST + b"\r\n",
    b'GET /open?a"b=c"d HTTP/1.1\r\n' + HOST + b"\r\n",
    b'GET /nothing"\\ HTTP/1.1\r\n' + HOST + b"\r\n",
    b'GET https://api.example.com/nothing"\\?" HTTP/1.1\r\n' + HOST + b"\r\n",
    b'GET ftp://"/ HTTP/1.1\r\n' + HOST + b"\r\n",
    b"\x16\x03\x01 \x00\r\n\r\n",
    b'GET /a HTTP/1.1\r\nHost: a"b\r\n\r\n',
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_request_line(make: Make, data: bytes) -> None:
    """It is one line of JSON all the same, and says what we did."""
    gateway = make()
    client = gateway.client()
    client.send(data)
    for wire in gateway.service("users").connections:
        wire.send(OK)
    (line,) = gateway.log
    assert line["status"] == client.answers()[0].status
    assert "x" not in line


def test_a_key_in_a_query_is_not_logged(make: Make) -> None:
    gateway = make(standard(top="auth: { api_key: { query: key } }"))
    key = gateway.key("good")
    client = gateway.client()
    client.send(get(f"/users?key={key}&a=1"))
    gateway.service("users").accept().send(OK)
    client.send(get(f"/users?key={key}x"))
    client.send(get(f"/nothing?key={key}"))
    client.send(get(f"/users?key={key}", b"Bad : 1\r\n"))
    assert [line["status"] for line in gateway.log] == [200, 401, 404, 400]
    assert key not in repr(gateway.log)


def test_who_a_trusted_proxy_vouches_for(make: Make) -> None:
    gateway = make(standard(top="trusted_proxies: 192.0.2.0/24"))
    client = gateway.client()
    for address in ("203.0.113.1", "203.0.113.2"):
        client.send(get("/nothing", f"X-Forwarded-For: {address}\r\n".encode()))
    client.send(get("/nothing"))
    assert [line["client"] for line in gateway.log] == ["203.0.113.1", "203.0.113.2", "192.0.2.1"]
    assert gateway.log[0]["peer"] == "192.0.2.1"
