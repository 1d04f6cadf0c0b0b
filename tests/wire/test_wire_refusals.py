"""What is malformed or doubtful is answered, the connection ended, and nothing of it, or after
it, reaches a service: however its bytes arrive."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from wire_support import HOST, OK, answer, connections, get, post, standard

from edgeproxy.testing import Ending, MemoryGateway, Way, Wire

Make = Callable[..., MemoryGateway]

SMUGGLED = b"GET /open/smuggled HTTP/1.1\r\nHost: api.example.com\r\n\r\n"


def head(fields: bytes, first: bytes = b"POST /open HTTP/1.1") -> bytes:
    return first + b"\r\n" + fields + b"\r\n"


REFUSED = {
    "bare LF": b"GET /open HTTP/1.1\nHost: api.example.com\n\n",
    "bare LF in a line": head(HOST + b"A: 1\nB: 2\r\n"),
    "bare LF at the end": head(HOST + b"A: 1\r\n")[:-2] + b"\n",
    "bare CR": head(HOST + b"A: 1\rB: 2\r\n"),
    "CR CR LF": head(HOST + b"A: 1\r\r\n"),
    "NUL": head(HOST + b"A: 1\0\r\n"),
    "NUL in a name": head(HOST + b"A\0: 1\r\n"),
    "control byte": head(HOST + b"A: \x0b1\r\n"),
    "DEL": head(HOST + b"A: 1\x7f\r\n"),
    "folded line": head(HOST + b"A: 1\r\n 2\r\n"),
    "folded first line": head(b" " + HOST),
    "space before the colon": head(HOST + b"Content-Length : 3\r\n"),
    "tab before the colon": head(HOST + b"Transfer-Encoding\t: chunked\r\n"),
    "no colon": head(HOST + b"Content-Length\r\n"),
    "empty name": head(HOST + b": 1\r\n"),
    "name that is no token": head(HOST + b"A(b): 1\r\n"),
    "name beyond ASCII": head(HOST + b"\xc3\xa4: 1\r\n"),
    "length list": head(HOST + b"Content-Length: 3, 3\r\n"),
    "length with plus": head(HOST + b"Content-Length: +3\r\n"),
    "length with minus": head(HOST + b"Content-Length: -3\r\n"),
    "length in hex": head(HOST + b"Content-Length: 0x3\r\n"),
    "length with underscore": head(HOST + b"Content-Length: 1_0\r\n"),
    "length with space": head(HOST + b"Content-Length: 3 3\r\n"),
    "length empty": head(HOST + b"Content-Length:\r\n"),
    "length of 19 digits": head(HOST + b"Content-Length: 1000000000000000000\r\n"),
    "length in other digits": head(HOST + "Content-Length: \u0663\r\n".encode()),
    "length twice": head(HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n"),
    "length twice the same": head(HOST + b"Content-Length: 3\r\ncontent-length: 3\r\n"),
    "both framings": head(HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
    "both, other order": head(HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
    "coding gzip": head(HOST + b"Transfer-Encoding: gzip\r\n"),
    "coding list": head(HOST + b"Transfer-Encoding: gzip, chunked\r\n"),
    "coding chunked twice": head(HOST + b"Transfer-Encoding: chunked, chunked\r\n"),
    "coding on two lines": head(HOST + b"Transfer-Encoding: chunked\r\n" * 2),
    "coding identity": head(HOST + b"Transfer-Encoding: identity\r\n"),
    "coding with parameter": head(HOST + b"Transfer-Encoding: chunked;a=b\r\n"),
    "coding quoted": head(HOST + b'Transfer-Encoding: "chunked"\r\n'),
    "coding misspelled": head(HOST + b"Transfer-Encoding: xchunked\r\n"),
    "coding empty": head(HOST + b"Transfer-Encoding:\r\n"),
    "coding in HTTP/1.0": head(HOST + b"Transfer-Encoding: chunked\r\n", b"POST /open HTTP/1.0"),
    "no Host": head(b""),
    "no Host in HTTP/1.0": head(b"", b"GET /open HTTP/1.0"),
    "two Hosts": head(HOST + b"Host: other.example.com\r\n"),
    "the same Host twice": head(HOST + HOST),
    "empty Host": head(b"Host:\r\n"),
    "Host with user": head(b"Host: a@api.example.com\r\n"),
    "Host with path": head(b"Host: api.example.com/open\r\n"),
    "Host list": head(b"Host: api.example.com, b\r\n"),
    "Host with a large port": head(b"Host: api.example.com:65536\r\n"),
    "Host with space": head(b"Host: api.example.com b\r\n"),
    "Host of dots": head(b"Host: ..\r\n"),
    "HTTP/0.9": b"GET /open\r\n\r\n",
    "HTTP/1.2": head(HOST, b"GET /open HTTP/1.2"),
    "HTTP/2.0": head(HOST, b"GET /open HTTP/2.0"),
    "HTTP/1.10": head(HOST, b"GET /open HTTP/1.10"),
    "lower case version": head(HOST, b"GET /open http/1.1"),
    "two spaces": head(HOST, b"GET  /open HTTP/1.1"),
    "tab": head(HOST, b"GET\t/open HTTP/1.1"),
    "space at the end": head(HOST, b"GET /open HTTP/1.1 "),
    "space first": head(HOST, b" GET /open HTTP/1.1"),
    "space in the target": head(HOST, b"GET /open /a HTTP/1.1"),
    "method that is no token": head(HOST, b"GE(T /open HTTP/1.1"),
    "raw bytes in the target": head(HOST, b"GET /open/\xc3\xa4 HTTP/1.1"),
    "control byte in the target": head(HOST, b"GET /open/\x01 HTTP/1.1"),
    "TLS on top of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "fragment": head(HOST, b"GET /open#a HTTP/1.1"),
    "no slash": head(HOST, b"GET open HTTP/1.1"),
    "asterisk": head(HOST, b"OPTIONS * HTTP/1.1"),
    "CONNECT": head(HOST, b"CONNECT api.example.com:443 HTTP/1.1"),
    "other scheme": head(HOST, b"GET ftp://api.example.com/open HTTP/1.1"),
    "target and Host differ": head(HOST, b"GET https://b.example.com/open HTTP/1.1"),
    "user in the target": head(HOST, b"GET https://a@api.example.com/open HTTP/1.1"),
    "two slashes": head(HOST, b"GET //open HTTP/1.1"),
    "two slashes within": head(HOST, b"GET /open//a HTTP/1.1"),
    "dot segment": head(HOST, b"GET /open/./a HTTP/1.1"),
    "two dots": head(HOST, b"GET /open/../users HTTP/1.1"),
    "two dots at the end": head(HOST, b"GET /open/.. HTTP/1.1"),
    "encoded dots": head(HOST, b"GET /open/%2e%2e/users HTTP/1.1"),
    "half encoded dots": head(HOST, b"GET /open/.%2E/users HTTP/1.1"),
    "an encoded dot": head(HOST, b"GET /open/a%2eb HTTP/1.1"),
    "dots with parameter": head(HOST, b"GET /open/..;/users HTTP/1.1"),
    "dots with parameter, encoded": head(HOST, b"GET /open/..%3b/users HTTP/1.1"),
    "parameter alone": head(HOST, b"GET /open/;/users HTTP/1.1"),
    "backslash": head(HOST, b"GET /open\\..\\users HTTP/1.1"),
    "encoded backslash": head(HOST, b"GET /open/..%5cusers HTTP/1.1"),
    "encoded NUL": head(HOST, b"GET /open/a%00 HTTP/1.1"),
    "encoded line end": head(HOST, b"GET /open/a%0d%0a HTTP/1.1"),
    "encoded slash": head(HOST, b"GET /open%2fa HTTP/1.1"),
    "bad escape": head(HOST, b"GET /open/%zz HTTP/1.1"),
    "cut escape": head(HOST, b"GET /open/%4 HTTP/1.1"),
    "frame named in Connection": head(HOST + b"Connection: content-length\r\n"),
    "host named in Connection": head(HOST + b"Connection: close, Host\r\n"),
    "coding named in Connection": head(
        HOST + b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n"
    ),
}


def assert_refused(gateway: MemoryGateway, client: Wire, status: int = 400) -> None:
    assert client.ending is Ending.ENDED, client.transcript()
    (found,) = client.answers()
    assert found.status == status
    assert found.field("connection") == "close"
    assert found.field("content-type") == "application/problem+json"
    assert found.json["status"] == status
    assert found.json["request_id"] == found.field("x-request-id")
    assert connections(gateway) == 0


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_nothing_after_it_is_read(make: Make, name: str) -> None:
    gateway = make()
    client = gateway.client()
    client.send(REFUSED[name] + SMUGGLED)
    client.send(SMUGGLED)
    assert_refused(gateway, client)
    assert len(gateway.finished) == 1
    client.end()


@pytest.mark.parametrize("way", [Way.WHOLE, Way.TLS], ids=["plain", "tls"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_every_split(way: Way, gateways: list[MemoryGateway], name: str) -> None:
    """With stock parts, a bad head in two records was answered, and then dispatched without
    its bad line."""
    gateway = MemoryGateway(standard(), way)
    data = REFUSED[name]
    for split in range(1, len(data)):
        client = gateway.client()
        client.send(data[:split])
        client.send(data[split:] + SMUGGLED)
        assert_refused(gateway, client)
        client.end()
        gateway.clients.clear()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_after_a_good_request(make: Make, name: str) -> None:
    """The good one is answered first, in order, and alone reaches the service."""
    gateway = make()
    client = gateway.client()
    client.send(get("/open/good") + REFUSED[name] + SMUGGLED)
    service = gateway.service("users").accept()
    service.send(OK)
    client.send(SMUGGLED)
    first, second = client.answers()
    assert (first.status, second.status) == (200, 400)
    assert client.ending is Ending.ENDED
    assert gateway.service("users").received.count(b"HTTP/1.1") == 1
    assert connections(gateway) == 1


CHUNKED = get("/open", b"Transfer-Encoding: chunked\r\n", "POST")
BODIES = {
    "size not hex": b"x\r\n",
    "size with prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size with sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "size negative": b"-3\r\nabc\r\n0\r\n\r\n",
    "size empty": b"\r\nabc\r\n0\r\n\r\n",
    "size empty, extension": b";a=b\r\nabc\r\n0\r\n\r\n",
    "size after a space": b" 3\r\nabc\r\n0\r\n\r\n",
    "size of 17 digits": b"00000000000000003\r\nabc\r\n0\r\n\r\n",
    "size and LF": b"3\nabc\r\n0\r\n\r\n",
    "size and CR": b"3\rabc\r\n0\r\n\r\n",
    "size, space, digit": b"3 3\r\nabc\r\n0\r\n\r\n",
    "underscore": b"1_0\r\nabc\r\n0\r\n\r\n",
    "extension with LF": b"3;a\n=b\r\nabc\r\n0\r\n\r\n",
    "extension with NUL": b"3;a\0\r\nabc\r\n0\r\n\r\n",
    "extension too long": b"3;" + b"a" * 300 + b"\r\nabc\r\n0\r\n\r\n",
    "longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "other bytes after the data": b"3\r\nabcde0\r\n\r\n",
    "LF CR after the data": b"3\r\nabc\n\r0\r\n\r\n",
    "LF after the data": b"3\r\nabc\n0\r\n\r\n",
    "CR after the data": b"3\r\nabc\r0\r\n\r\n",
    "trailer without colon": b"3\r\nabc\r\n0\r\nA\r\n\r\n",
    "trailer folded": b"3\r\nabc\r\n0\r\nA: 1\r\n 2\r\n\r\n",
    "trailer with LF": b"3\r\nabc\r\n0\r\nA: 1\n\r\n",
    "trailer with space": b"3\r\nabc\r\n0\r\nA : 1\r\n\r\n",
    "end with LF": b"3\r\nabc\r\n0\r\n\n",
    "trailers too large": b"3\r\nabc\r\n0\r\n" + b"A: 1\r\n" * 2000 + b"\r\n",
}


@pytest.mark.parametrize("name", BODIES)
def test_broken_chunks(make: Make, name: str) -> None:
    """The service that was being sent the body must never take it for whole."""
    gateway = make()
    client = gateway.client()
    client.send(CHUNKED)
    service = gateway.service("users").accept()
    client.send(BODIES[name] + SMUGGLED)
    client.send(SMUGGLED)
    (found,) = client.answers()
    assert found.status == 400
    assert client.ending is Ending.ENDED
    assert service.ending is Ending.ABORTED
    assert not service.received.endswith(b"0\r\n\r\n")
    assert b"smuggled" not in gateway.service("users").received
    assert len(gateway.finished) == 1


@pytest.mark.parametrize("name", BODIES)
def test_broken_chunks_at_every_split(gateways: list[MemoryGateway], name: str) -> None:
    gateway = MemoryGateway(standard())
    data = BODIES[name]
    for split in range(min(len(data), 40)):
        client = gateway.client()
        client.send(CHUNKED + data[:split])
        client.send(data[split:] + SMUGGLED)
        assert [each.status for each in client.answers()] == [400], split
        assert client.ending is Ending.ENDED
        client.end()
    for wire in gateway.service("users").connections:
        assert wire.ending is Ending.ABORTED
        assert not wire.received.endswith(b"0\r\n\r\n")
    assert b"smuggled" not in gateway.service("users").received


def test_the_answer_to_a_refusal(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    client.send(b"GET /open HTTP/1.1\r\nHost : a\r\n\r\n")
    assert re.sub(r"Date: .* GMT", "Date: {now}", client.transcript()) == (
        ">> GET /open HTTP/1.1\n"
        ">> Host : a\n"
        ">>\n"
        "<< HTTP/1.1 400 Bad Request\n"
        "<< Content-Type: application/problem+json\n"
        "<< Content-Length: 156\n"
        "<< Cache-Control: no-store\n"
        "<< X-Request-Id: {id}\n"
        "<< Date: {now}\n"
        "<< Connection: close\n"
        "<<\n"
        '<< {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": '
        '"The request head is malformed.", "request_id": "{id}"}\n'
        "<< [end]\n"
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get("/" + "a" * 8192), 414),
        (b"GET /" + b"a" * 20000, 414),
        (get("/open", b"A: " + b"a" * 16384 + b"\r\n"), 431),
        (get("/open", b"A: 1\r\n" * 100), 431),
        (get("/open", b"A: 1\r\n" * 4000), 431),
        (b"GET /open HTTP/1.1\r\n" + b"A: 1\r\n" * 4000, 431),
    ],
    ids=["target", "target without end", "line", "fields", "both", "without end"],
)
def test_too_large(make: Make, data: bytes, status: int) -> None:
    gateway = make()
    client = gateway.client()
    client.send(data + SMUGGLED)
    assert_refused(gateway, client, status)


def test_just_not_too_large(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    fields = b"A: 1\r\n" * 98 + b"B: " + b"b" * 1000 + b"\r\n"
    client.send(get("/open/" + "a" * 8185, fields))
    service = gateway.service("users").accept()
    service.send(answer())
    assert [each.status for each in client.answers()] == [200]


def test_a_refusal_is_seen_by_who_still_sends(make: Make) -> None:
    """The client is in the middle of a large body: it can read the answer, is not reset, and
    is cut off in the end."""
    gateway = make()
    client = gateway.client()
    client.send(b"POST /open HTTP/1.1\r\nHost : a\r\nContent-Length: 1000000\r\n\r\n", apart=False)
    for _ in range(10):
        client.send(b"x" * 10000, apart=False)
    assert_refused(gateway, client)
    gateway.wait(3)
    assert not gateway.gateway.listeners[0].connections


def test_refused_while_posting(make: Make) -> None:
    """A whole small body behind a refused head does not become the next request."""
    gateway = make()
    client = gateway.client()
    data = post(b"GET /open HTTP/1.1\r\n" + HOST + b"\r\n", "/nothing") + get("/open/next")
    client.send(data, apart=False)
    service = gateway.service("users").accept()
    service.send(OK)
    assert [each.status for each in client.answers("POST")] == [404, 200]
    assert service.received.startswith(b"GET /open/next HTTP/1.1\r\n")
