"""What is relayed: heads rewritten both ways, bodies in every framing, early answers."""

# What has ended meanwhile is not seen by the type checker.
# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

from collections.abc import Callable

import pytest
from wire_support import HOST, OK, answer, connections, get, lines, names, post, standard

from edgeproxy.testing import Ending, MemoryGateway, MemoryWire, Way, Wire

Make = Callable[..., MemoryGateway]


def talk(gateway: MemoryGateway, data: bytes, back: bytes = OK) -> tuple[Wire, MemoryWire]:
    client = gateway.client()
    client.send(data)
    service = gateway.service("users").accept()
    service.send(back)
    return client, service


# -- whole conversations -------------------------------------------------------------------------


def test_a_request_and_its_answer(make: Make) -> None:
    gateway = make()
    fields = b"User-Agent: t\r\naCCEPT:  */*\r\nCookie: a=1\r\nCookie: b=2\r\nX-Empty:\r\n"
    back = (
        b"HTTP/1.1 200 Fine\r\nDate: now\r\nSet-Cookie: a\r\nset-cookie: b\r\n"
        b"Content-Length: 5\r\nServer: secret/1\r\nX-Powered-By: secret\r\n\r\nhello"
    )
    client, service = talk(gateway, get("/open/a?b=c%20d", fields), back)
    assert service.transcript().startswith(
        "<< GET /open/a?b=c%20d HTTP/1.1\n"
        "<< Host: api.example.com\n"
        "<< User-Agent: t\n"
        "<< aCCEPT:  */*\n"
        "<< Cookie: a=1\n"
        "<< Cookie: b=2\n"
        "<< X-Empty:\n"
        "<< X-Forwarded-For: 192.0.2.1\n"
        "<< X-Forwarded-Proto: https\n"
        "<< X-Forwarded-Host: api.example.com\n"
        "<< X-Forwarded-Port: 8443\n"
        "<< Via: 1.1 edgeproxy\n"
        "<< X-Request-Id: {id}\n"
        "<< traceparent: 00-{trace}-01\n"
        "<<\n"
        ">> HTTP/1.1 200 Fine\n"
    )
    assert client.received == (
        b"HTTP/1.1 200 Fine\r\nDate: now\r\nSet-Cookie: a\r\nset-cookie: b\r\n"
        b"Content-Length: 5\r\n\r\nhello"
    )


def test_keep_alive_on_both_sides(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    for number in range(5):
        client.send(get(f"/open/{number}"))
        service = gateway.service("users").connections[0]
        assert service.take().startswith(b"GET /open/%d " % number)
        service.send(answer(b"%d" % number))
    assert [each.body for each in client.answers()] == [b"0", b"1", b"2", b"3", b"4"]
    assert connections(gateway) == 1
    assert client.ending is Ending.OPEN


def test_pipelining_is_answered_in_order(make: Make) -> None:
    """Answers of our own stand between those of services, and POST bodies between heads."""
    gateway = make()
    client = gateway.client()
    client.send(
        get("/open/1")
        + get("/nothing")
        + post(b"two", "/open/2")
        + get("/users")
        + post(b"three", "/open/3", chunked=True)
        + get("/open/4", method="HEAD")
        + get("/open/5")
    )
    done = set()
    service = gateway.service("users")
    for _ in range(5):
        for wire in list(service.connections):
            data = wire.take()
            if data:
                number = data.partition(b" HTTP")[0][-1:]
                assert number not in done
                done.add(number)
                body = b"" if number == b"4" else number
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + body)
    methods = ("GET", "GET", "POST", "GET", "POST", "HEAD", "GET")
    found = client.answers(*methods)
    assert [each.status for each in found] == [200, 404, 200, 401, 200, 200, 200]
    assert [each.body for each in found if each.status == 200] == [b"1", b"2", b"3", b"", b"5"]
    assert service.received.count(b"two") == service.received.count(b"three") == 1


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


@pytest.mark.parametrize("pieces", [[OK], [CHUNKED], [CHUNKED[:-5], b"0\r\n\r\n"]])
def test_requests_that_come_together_share_a_connection(make: Make, pieces: list[bytes]) -> None:
    """It is free again before the answer is passed on and the next request is begun."""
    gateway = make()
    client = gateway.client()
    client.send(get("/open/1") + get("/open/2") + get("/open/3"))
    service = gateway.service("users").accept()
    for number in (b"1", b"2", b"3"):
        assert b"GET /open/" + number in service.take()
        for piece in pieces:
            service.send(piece)
    assert [each.body for each in client.answers()] == [b"ok"] * 3
    assert connections(gateway) == 1


def test_an_empty_line_between_requests(make: Make) -> None:
    """RFC 9112 2.2: some clients send one after a body."""
    gateway = make()
    client = gateway.client()
    client.send(get("/nothing") + b"\r\n" + get("/nothing"))
    assert [each.status for each in client.answers()] == [404, 404]


# -- request bodies ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_keep_their_framing(make: Make, chunked: bool) -> None:
    gateway = make()
    client, service = talk(gateway, post(b"hello world", chunked=chunked))
    head, _, body = service.received.partition(b"\r\n\r\n")
    if chunked:
        assert names(head).count(b"transfer-encoding") == 1
        assert b"content-length" not in names(head)
        assert body.endswith(b"\r\n0\r\n\r\n")
        assert b"".join(body.split(b"\r\n")[1::2]) == b"hello world"
    else:
        assert b"Content-Length: 11" in lines(head)
        assert b"transfer-encoding" not in names(head)
        assert body == b"hello world"
    assert [each.status for each in client.answers("POST")] == [200]
    assert gateway.finished[0].received == 11


def test_a_large_body(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    body = bytes(range(256)) * 2048
    client.send(get("/open", b"Content-Length: %d\r\n" % len(body), "PUT"))
    service = gateway.service("users").accept()
    for start in range(0, len(body), 65536):
        client.send(body[start : start + 65536], apart=False)
    assert service.received.partition(b"\r\n\r\n")[2] == body
    service.send(OK)
    assert [each.status for each in client.answers("PUT")] == [200]


def test_a_body_of_no_bytes(make: Make) -> None:
    gateway = make()
    _, service = talk(gateway, post(b""))
    assert b"Content-Length: 0" in lines(service.received)
    client, service = talk(
        make(), post(b"", chunked=True).replace(b"0\r\n\r\n0\r\n\r\n", b"0\r\n\r\n")
    )
    assert service.received.endswith(b"\r\n\r\n0\r\n\r\n")
    assert [each.status for each in client.answers("POST")] == [200]


def test_request_trailers(make: Make) -> None:
    gateway = make(standard(users=", request: {set: {X-Set: ours}, remove: X_Gone}"))
    trailers = [
        b"X-Sum: 1",
        b"X-Set: theirs",
        b"x_set: theirs",
        b"X-Gone: 1",
        b"Host: other",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Authorization: a",
        b"X-API-Key: a",
        b"X-Forwarded-For: 1.2.3.4",
        b"X_Forwarded_For: 1.2.3.4",
        b"Connection: close",
        b"Cookie: a",
        b"X-Request-Id: a",
        b"x-another: 2",
    ]
    data = get("/open", b"TE: trailers\r\nTransfer-Encoding: chunked\r\n", "POST")
    data += b"1\r\na\r\n0\r\n" + b"\r\n".join(trailers) + b"\r\n\r\n"
    _, service = talk(gateway, data)
    assert service.received.endswith(b"1\r\na\r\n0\r\nX-Sum: 1\r\nx-another: 2\r\n\r\n")
    assert b"TE: trailers" in lines(service.received)
    assert b"Connection: TE" in lines(service.received)


def test_continue_is_said_after_identity_and_limits(make: Make) -> None:
    gateway = make()
    key = gateway.key("good").encode()
    client = gateway.client()
    fields = b"Expect: 100-Continue\r\nContent-Length: 4\r\nX-API-Key: " + key + b"\r\n"
    client.send(get("/users", fields, "POST"))
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"body")
    service = gateway.service("users").accept()
    assert service.received.endswith(b"\r\n\r\nbody")
    assert b"expect" not in names(service.received)
    service.send(OK)
    assert [each.status for each in client.answers("POST")] == [100, 200]


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/users", b"Content-Length: 4\r\n", 401),
        ("/nothing", b"Content-Length: 4\r\n", 404),
        ("/small", b"Content-Length: 11\r\n", 413),
        ("/methods", b"Content-Length: 4\r\n", 405),
    ],
)
def test_continue_is_not_said_before(make: Make, path: str, fields: bytes, status: int) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get(path, fields + b"Expect: 100-continue\r\n", "POST"))
    assert [each.status for each in client.answers("POST")] == [status]
    assert client.ending is Ending.ENDED
    assert connections(gateway) == 0


def test_continue_is_not_said_when_the_body_comes_unasked(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(post(b"body", fields=b"Expect: 100-continue\r\n"), apart=False)
    gateway.service("users").accept().send(OK)
    assert [each.status for each in client.answers("POST")] == [200]


def test_continue_is_not_said_when_some_of_the_body_came_unasked(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 4\r\nExpect: 100-continue\r\n", "POST") + b"bo",
                apart=False)  # fmt: skip
    client.send(b"dy")
    gateway.service("users").accept().send(OK)
    assert [each.status for each in client.answers("POST")] == [200]


def test_continue_is_not_said_to_http_1_0(make: Make) -> None:
    """RFC 9110 10.1.1: the expectation of an HTTP/1.0 client is ignored."""
    gateway = make()
    client = gateway.client()
    head = b"POST /open HTTP/1.0\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    client.send(head)
    assert client.received == b""
    client.send(b"body")
    gateway.service("users").accept().send(OK)
    assert [each.status for each in client.answers("POST")] == [200]


def test_a_continue_of_the_service_is_kept_to_ourselves(make: Make) -> None:
    gateway = make()
    client, _ = talk(gateway, post(b"body"), b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert [each.status for each in client.answers("POST")] == [200]


# -- answers -------------------------------------------------------------------------------------


def test_an_answer_in_chunks(make: Make) -> None:
    gateway = make()
    back = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    back += b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"
    client, _ = talk(gateway, get(), back)
    (found,) = client.answers()
    assert found.body == b"hello world"
    assert found.field("transfer-encoding") == "chunked"
    assert found.field("content-length") is None
    client.send(get())
    gateway.service("users").connections[0].send(OK)
    assert len(client.answers()) == 2
    assert connections(gateway) == 1


def test_trailers_of_an_answer(make: Make) -> None:
    gateway = make(standard(users=", response: {remove: X-Gone}"))
    back = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\n"
    back += b"X-Sum: 1\r\nSet-Cookie: a\r\nContent-Length: 3\r\nServer: b\r\nX-Gone: 1\r\n\r\n"
    client, _ = talk(gateway, get(fields=b"TE: trailers\r\n"), back)
    (found,) = client.answers()
    assert found.trailers == ("X-Sum: 1",)


def test_an_answer_that_ends_with_its_connection(make: Make) -> None:
    gateway = make()
    client, service = talk(gateway, get(), b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nhello")
    with pytest.raises(ValueError, match="not whole"):
        client.answers()
    service.send(b" world")
    service.end()
    (found,) = client.answers()
    assert found.body == b"hello world"
    assert found.field("transfer-encoding") == "chunked"
    client.send(get())
    gateway.service("users").accept().send(OK)
    assert len(client.answers()) == 2


def test_an_old_answer_to_an_old_client(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(b"GET /open HTTP/1.0\r\n" + HOST + b"\r\n")
    service = gateway.service("users").accept()
    assert service.received.startswith(b"GET /open HTTP/1.1\r\n")
    service.send(b"HTTP/1.0 200 OK\r\n\r\nhello")
    service.end()
    (found,) = client.answers()
    assert found.body == b"hello"
    assert found.field("transfer-encoding") is None
    assert found.field("connection") == "close"
    assert client.ending is Ending.ENDED


def test_chunks_to_an_old_client(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(b"GET /open HTTP/1.0\r\nConnection: keep-alive\r\n" + HOST + b"\r\n")
    back = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    gateway.service("users").accept().send(back)
    (found,) = client.answers()
    assert (found.body, found.field("transfer-encoding")) == (b"hello", None)
    assert client.ending is Ending.ENDED


def test_keep_alive_of_an_old_client(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    for _ in range(2):
        client.send(b"GET /open HTTP/1.0\r\nConnection: Keep-Alive\r\n" + HOST + b"\r\n")
        gateway.service("users").connections[0].send(OK)
    first, second = client.answers()
    assert first.field("connection") == second.field("connection") == "keep-alive"
    assert client.ending is Ending.OPEN
    client.send(b"GET /open HTTP/1.0\r\n" + HOST + b"\r\n")
    gateway.service("users").connections[0].send(OK)
    assert client.ending is Ending.ENDED


@pytest.mark.parametrize(
    "fields",
    [
        b"Connection: close\r\n",
        b"connection: CLOSE\r\n",
        b"Connection: keep-alive, close\r\n",
        b"Connection: close, keep-alive\r\n",
        b"Connection: close\r\nConnection: keep-alive\r\n",
        b"Connection: keep-alive\r\nConnection: close\r\n",
    ],
)
def test_a_client_that_closes(make: Make, fields: bytes) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get(fields=fields) + get("/open/smuggled"))
    gateway.service("users").accept().send(OK)
    (found,) = client.answers()
    assert found.field("connection") == "close"
    assert client.ending is Ending.ENDED
    assert b"smuggled" not in gateway.service("users").received
    assert len(gateway.finished) == 1


@pytest.mark.parametrize(
    ("status", "fields"),
    [(b"204 No Content", b""), (b"304 Not Modified", b"Content-Length: 99\r\nETag: a\r\n"),
     (b"204 No Content", b"Content-Length: 5\r\n"),
     (b"304 Not Modified", b"Transfer-Encoding: chunked\r\n")],
)  # fmt: skip
def test_answers_without_body(make: Make, status: bytes, fields: bytes) -> None:
    gateway = make()
    client, _ = talk(gateway, get(), b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n")
    client.send(get())
    gateway.service("users").connections[0].send(OK)
    first, second = client.answers()
    assert first.field("transfer-encoding") is None
    if first.status == 204:
        assert first.field("content-length") is None
    elif b"99" in fields:
        assert first.field("content-length") == "99"
    assert (second.status, second.body) == (200, b"ok")
    assert connections(gateway) == 1


@pytest.mark.parametrize(
    "fields", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""]
)
def test_answers_to_head(make: Make, fields: bytes) -> None:
    gateway = make()
    client, _ = talk(gateway, get(method="HEAD"), b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")
    client.send(get())
    gateway.service("users").connections[0].send(OK)
    assert [each.body for each in client.answers("HEAD", "GET")] == [b"", b"ok"]


def test_interim_answers_pass(make: Make) -> None:
    gateway = make()
    back = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
        b"Server: a\r\nKeep-Alive: b\r\nContent-Length: 7\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\n\r\n" + OK
    )
    client, _ = talk(gateway, get(), back)
    first, second, third = client.answers()
    assert (first.status, first.fields) == (103, (("Link", "</a>"),))
    assert (second.status, third.status) == (102, 200)


def test_interim_answers_do_not_reach_old_clients(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(b"GET /open HTTP/1.0\r\n" + HOST + b"\r\n")
    gateway.service("users").accept().send(b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + OK)
    assert [each.status for each in client.answers()] == [200]


def test_hop_by_hop_fields_are_removed_both_ways(make: Make) -> None:
    gateway = make()
    hop = (
        b"Connection: close, X-Hop\r\nX-Hop: 1\r\nx-hop: 2\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n"
        b"Proxy-Authenticate: Basic\r\nProxy-Authorization: Basic a\r\nX-Kept: 1\r\n"
    )
    client, service = talk(gateway, get(fields=hop), answer(fields=hop))
    gone = {b"connection", b"x-hop", b"keep-alive", b"proxy-connection", b"te", b"upgrade",
            b"http2-settings", b"proxy-authenticate", b"proxy-authorization"}  # fmt: skip
    assert gone.isdisjoint(names(service.received))
    assert b"X-Kept: 1" in lines(service.received)
    assert gone.isdisjoint({*names(client.received)} - {b"connection"})
    assert b"X-Kept: 1" in lines(client.received)


@pytest.mark.parametrize(
    "name", [b"Content-Length", b"content-length, X-A", b"Transfer-Encoding", b"Date, Location"]
)
def test_what_a_services_connection_field_names(make: Make, name: bytes) -> None:
    """A service may not make the answer lose its frame."""
    gateway = make()
    client, _ = talk(gateway, get(), answer(fields=b"Connection: " + name + b"\r\nX-A: 1\r\n"))
    client.send(get())
    for wire in gateway.service("users").connections:
        if b"GET" in wire.take():
            wire.send(OK)
    statuses = [each.status for each in client.answers()]
    assert statuses in ([200, 200], [502, 200])


def test_an_upgrade_is_not_passed_on(make: Make) -> None:
    gateway = make()
    fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n"
    client, service = talk(gateway, get(fields=fields), b"HTTP/1.1 101 Switching\r\n\r\n")
    assert b"upgrade" not in names(service.received)
    assert [each.status for each in client.answers()] == [502]


# -- fields --------------------------------------------------------------------------------------

CLAIMS = (
    b"X-Forwarded-For: 203.0.113.9, 10.1.1.1\r\nX-Forwarded-Proto: http\r\n"
    b"X-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 1\r\nForwarded: for=1.2.3.4\r\n"
    b"X-Real-IP: 1.2.3.4\r\nX-Original-URL: /users\r\nX-Rewrite-URL: /users\r\n"
    b"X_Forwarded_For: 1.2.3.4\r\nX_Real_IP: 1.2.3.4\r\nX-Request-Id: mine-12345678\r\n"
    b"Via: 1.1 other\r\n"
)


def test_what_a_client_claims_is_removed(make: Make) -> None:
    gateway = make()
    _, service = talk(gateway, get(fields=CLAIMS))
    sent = [line for line in lines(service.received) if b"orward" in line or b"X-R" in line]
    assert [line for line in sent if b"X-Request-Id" not in line] == [
        b"X-Forwarded-For: 192.0.2.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: api.example.com",
        b"X-Forwarded-Port: 8443",
    ]
    for claim in (b"1.1 other", b"1.2.3.4", b"evil", b"/users", b"203.0.113.9", b"mine-12345678"):
        assert claim not in service.received


@pytest.mark.parametrize("trusted", ["", "trusted_proxies: [192.0.2.0/24]"])
def test_loops_end(make: Make, trusted: str) -> None:
    """What Via says of gateways like this one goes on, whoever says it; five times are a loop."""
    own = b"Via: 1.1 edgeproxy"
    for sent in ([own] * 4, [b"via: 1.1 edgeproxy, 1.1 edgeproxy", own, own], [own]):
        gateway = make(standard(top=trusted))
        _, service = talk(gateway, get(fields=b"".join(line + b"\r\n" for line in sent)))
        count = sum(line.count(b"edgeproxy") for line in sent)
        assert service.received.count(b"1.1 edgeproxy") == count + 1
    gateway = make(standard(top=trusted))
    client = gateway.client()
    client.send(get(fields=(own + b"\r\n") * 3 + b"Via: 1.1 edgeproxy, 1.0 x, 1.1 edgeproxy\r\n"))
    (found,) = client.answers()
    assert found.status == 508
    assert found.field("Content-Type") == "application/problem+json"
    assert gateway.services["10.0.0.1", 9001].attempts == 0
    client.send(get(fields=own + b"\r\n"))
    assert gateway.service("users").attempts == 1, "the connection goes on"


def test_via_of_a_trusted_proxy_goes_on(make: Make) -> None:
    """RFC 9110 7.6.3: a proxy adds itself to those who were before it."""
    gateway = make(standard(top="trusted_proxies: 192.0.2.0/24"))
    _, service = talk(gateway, get(fields=b"Via: 1.0 first, 1.1 second\r\n"))
    via = [line.partition(b": ")[2] for line in lines(service.received) if line[:4] == b"Via:"]
    assert b", ".join(via) == b"1.0 first, 1.1 second, 1.1 edgeproxy"


def test_a_trusted_proxy_is_believed(make: Make) -> None:
    gateway = make(standard(top="trusted_proxies: [192.0.2.0/24, 10.0.0.0/8]"))
    _, service = talk(gateway, get(fields=CLAIMS))
    sent = lines(service.received)
    assert b"X-Forwarded-For: 203.0.113.9, 10.1.1.1, 192.0.2.1" in sent
    assert b"X-Forwarded-Proto: http" in sent
    assert b"X-Forwarded-Host: evil.example" in sent
    assert b"X-Request-Id: mine-12345678" in sent
    assert b"x-original-url" not in names(service.received)
    assert gateway.finished[0].client == "203.0.113.9"


@pytest.mark.parametrize(
    ("claim", "client", "chain"),
    [
        (b"203.0.113.9", "203.0.113.9", b"203.0.113.9, 192.0.2.1"),
        (b"1.1.1.1, 203.0.113.9", "203.0.113.9", b"203.0.113.9, 192.0.2.1"),
        (b"nonsense, 203.0.113.9", "203.0.113.9", b"203.0.113.9, 192.0.2.1"),
        (b"203.0.113.9, nonsense", "192.0.2.1", b"192.0.2.1"),
        (b"", "192.0.2.1", b"192.0.2.1"),
        (b"2001:db8::1", "2001:db8::1", b"2001:db8::1, 192.0.2.1"),
        (b"[2001:db8::1]", "2001:db8::1", b"2001:db8::1, 192.0.2.1"),
        (b'fe80::1%"evil\\', "192.0.2.1", b"192.0.2.1"),
    ],
)
def test_the_chain_is_read_from_the_right(
    make: Make, claim: bytes, client: str, chain: bytes
) -> None:
    gateway = make(standard(top="trusted_proxies: 192.0.2.0/24"))
    _, service = talk(gateway, get(fields=b"X-Forwarded-For: " + claim + b"\r\n"))
    assert gateway.finished[0].client == client
    assert b"X-Forwarded-For: " + chain in lines(service.received)


def test_an_untrusted_peer_is_not_believed(make: Make) -> None:
    gateway = make(standard(top="trusted_proxies: 198.51.100.0/24"))
    _, service = talk(gateway, get(fields=CLAIMS))
    assert b"203.0.113.9" not in service.received
    assert gateway.finished[0].client == "192.0.2.1"


def test_forwarded_by_configuration(make: Make) -> None:
    gateway = make(standard(top="forwarded: forwarded"))
    _, service = talk(gateway, get(fields=CLAIMS))
    sent = lines(service.received)
    assert b'Forwarded: for=192.0.2.1;host="api.example.com";proto=https' in sent
    assert not any(name.startswith(b"x-forwarded") for name in names(service.received))
    gateway = make(standard(top="forwarded: forwarded"))
    gateway.client("2001:db8::1").send(get())
    sent = lines(gateway.service("users").accept().received)
    assert b'Forwarded: for="[2001:db8::1]";host="api.example.com";proto=https' in sent


def test_a_trusted_proxy_that_speaks_forwarded(make: Make) -> None:
    gateway = make(standard(top="trusted_proxies: 192.0.2.0/24\nforwarded: forwarded"))
    _, service = talk(gateway, get(fields=b"Forwarded: for=203.0.113.9;proto=http\r\n"))
    assert gateway.finished[0].client == "203.0.113.9"
    sent = lines(service.received)
    assert b'Forwarded: for=203.0.113.9;host="api.example.com";proto=http, for=192.0.2.1' in sent


@pytest.mark.parametrize(("said", "client"), [
    (b'for="[2001:db8::9]:4711"', "2001:db8::9"),
    (b"for=203.0.113.9:80;by=x, FOR=192.0.2.7", "203.0.113.9"),
    (b"for=unknown", "192.0.2.1"),
    (b"for=_hidden, for=192.0.2.7", "192.0.2.7"),
    (b'for="a\\"b"', "192.0.2.1"),
    (b"nonsense", "192.0.2.1"),
])  # fmt: skip
def test_who_is_forwarded_for(make: Make, said: bytes, client: str) -> None:
    gateway = make(standard(top="trusted_proxies: 192.0.2.0/24\nforwarded: forwarded"))
    talk(gateway, get(fields=b"Forwarded: " + said + b"\r\n"))
    assert gateway.finished[0].client == client


def test_a_trace_is_continued(make: Make) -> None:
    trace = b"0af7651916cd43dd8448eb211c80319c"
    field = b"traceparent: 00-" + trace + b"-b7ad6b7169203331-00\r\ntracestate: a=b\r\n"
    _, service = talk(make(), get(fields=field))
    (found,) = [line for line in lines(service.received) if line.startswith(b"traceparent")]
    assert found.startswith(b"traceparent: 00-" + trace + b"-")
    assert found.endswith(b"-00")
    assert b"b7ad6b7169203331" not in found
    assert b"tracestate: a=b" in lines(service.received)


@pytest.mark.parametrize("value", [
    b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", b"nonsense",
    b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
    b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
    b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
])  # fmt: skip
def test_a_malformed_trace_is_replaced(make: Make, value: bytes) -> None:
    _, service = talk(make(), get(fields=b"traceparent: " + value + b"\r\n"))
    (found,) = [line for line in lines(service.received) if line.startswith(b"traceparent")]
    assert value[3:20] not in found


@pytest.mark.parametrize(
    ("sent", "host"),
    [
        (b"API.Example.COM", b"api.example.com"),
        (b"api.example.com.", b"api.example.com"),
        (b"api.example.com:443", b"api.example.com"),
        (b"api.example.com:8443", b"api.example.com:8443"),
    ],
)
def test_the_host_is_normalised_once(make: Make, sent: bytes, host: bytes) -> None:
    client = make()
    _, service = talk(client, b"GET /open HTTP/1.1\r\nHost: " + sent + b"\r\n\r\n")
    assert b"Host: " + host in lines(service.received)
    assert b"X-Forwarded-Host: " + host in lines(service.received)
    assert names(service.received).count(b"host") == 1


def test_the_host_by_configuration(make: Make) -> None:
    gateway = make(standard(upstream=", host: inner.example", users=""))
    _, service = talk(gateway, get())
    assert b"Host: inner.example" in lines(service.received)
    assert b"X-Forwarded-Host: api.example.com" in lines(service.received)
    gateway = make(standard(upstream=", host: inner.example", users=", host: 'route.example:81'"))
    _, service = talk(gateway, get())
    assert b"Host: route.example:81" in lines(service.received)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"http://10.0.0.1:9001/a?b", b"https://api.example.com/a?b"),
        (b"http://10.0.0.1:9001", b"https://api.example.com"),
        (b"http://10.0.0.1:9001?a", b"https://api.example.com?a"),
        (b"HTTP://10.0.0.1:9001/a", b"https://api.example.com/a"),
        (b"//10.0.0.1:9001/a", b"https://api.example.com/a"),
        (b"http://10.0.0.1:90011/a", b"http://10.0.0.1:90011/a"),
        (b"http://10.0.0.1:9001.evil/a", b"http://10.0.0.1:9001.evil/a"),
        (b"http://other.example/a", b"http://other.example/a"),
        (b"/a", b"/a"),
    ],
)
@pytest.mark.parametrize("name", [b"Location", b"content-location"])
def test_locations(make: Make, name: bytes, sent: bytes, shown: bytes) -> None:
    back = answer(fields=name + b": " + sent + b"\r\n", status=b"302 Found")
    client, _ = talk(make(), get(), back)
    assert name + b": " + shown in lines(client.received)
    assert names(client.received).count(name.lower()) == 1


def test_software_is_shown_by_configuration(make: Make) -> None:
    gateway = make(standard(top="server_header: keep"))
    client, _ = talk(gateway, get(), answer(fields=b"Server: a\r\nX-Powered-By: b\r\n"))
    assert b"Server: a" in lines(client.received)
    assert b"X-Powered-By: b" in lines(client.received)


def test_rules_for_fields(make: Make) -> None:
    rules = (
        ", request: {set: {X-Set: one}, add: {X-Add: two}, remove: [X-Gone, x_under]}"
        ", response: {set: {Strict: '1'}, add: {Vary: x}, remove: Etag}"
    )
    gateway = make(standard(users=rules, upstream=", set: {X-Token: '${env:TOKEN}'}"),
                   environ={"TOKEN": "s3cret"})  # fmt: skip
    fields = (
        b"x-set: theirs\r\nX_Set: theirs\r\nX-Add: theirs\r\nx-gone: 1\r\nX-Under: 1\r\n"
        b"X-Token: theirs\r\nx_token: theirs\r\nX-Other: 1\r\n"
    )
    back = answer(fields=b"strict: 0\r\nVary: y\r\nETAG: a\r\n")
    client, service = talk(gateway, get(fields=fields), back)
    sent = lines(service.received)
    assert [line for line in sent if line.lower()[:5] in (b"x-set", b"x_set")] == [b"X-Set: one"]
    assert [line for line in sent if line.startswith(b"X-Add")] == [b"X-Add: theirs", b"X-Add: two"]
    assert [line for line in sent if b"oken" in line] == [b"X-Token: s3cret"]
    assert b"x-gone" not in names(service.received)
    assert b"x-under" not in names(service.received)
    assert b"X-Other: 1" in sent
    got = lines(client.received)
    assert b"Strict: 1" in got and b"strict: 0" not in got
    assert b"Vary: y" in got and b"Vary: x" in got
    assert b"etag" not in names(client.received)


# -- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "sent", "out"),
    [
        ("strip: true", "/s/a/b?c=/s", "/a/b?c=/s"),
        ("strip: true", "/s", "/"),
        ("strip: true", "/s/", "/"),
        ("strip: true", "/s?a", "/?a"),
        ("strip: true", "/%73/%61%20", "/a%20"),
        ("strip: false", "/%73/%61%2a%2A", "/s/a%2A%2A"),
        ("encoded_slash: keep", "/s/a%2fb", "/s/a%2Fb"),
        ("strip: true, encoded_slash: keep", "/s/a%2fb", "/a%2Fb"),
    ],
)
def test_paths_on_their_way(make: Make, option: str, sent: str, out: str) -> None:
    gateway = make(standard(routes=f"    /s: {{ to: users, auth: none, {option} }}"))
    _, service = talk(gateway, get(sent))
    assert service.received.startswith(b"GET " + out.encode() + b" HTTP/1.1\r\n")


def test_an_encoded_slash_names_the_option(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open/a%2Fb"))
    (found,) = client.answers()
    assert found.status == 400
    assert "encoded_slash: keep" in found.json["detail"]


# -- answers that come early ---------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_an_early_answer_is_delivered_and_the_connection_ends(make: Make, chunked: bool) -> None:
    gateway = make()
    client = gateway.client()
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: 100\r\n"
    client.send(get("/open", framing, "POST") + (b"3\r\nabc\r\n" if chunked else b"abc"))
    service = gateway.service("users").accept()
    service.send(answer(b"no", status=b"413 Content Too Large"))
    (found,) = client.answers("POST")
    assert (found.status, found.body, found.field("connection")) == (413, b"no", "close")
    assert client.ending is Ending.ENDED
    assert service.ending is Ending.ABORTED
    client.send(b"z" * 97 + get("/open/smuggled"))
    assert b"smuggled" not in gateway.service("users").received
    assert b"zzz" not in gateway.service("users").received
    gateway.wait(3)
    assert not gateway.gateway.listeners[0].connections


def test_an_early_answer_that_takes_its_time(make: Make) -> None:
    """The body goes on meanwhile, as the service may want it (RFC 9110 9.3)."""
    gateway = make()
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 6\r\n", "POST") + b"abc")
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
    client.send(b"def")
    assert service.received.endswith(b"\r\n\r\nabcdef")
    service.send(b"ok")
    (found,) = client.answers("POST")
    assert (found.status, found.body) == (200, b"okok")
    assert client.ending is Ending.ENDED


def test_the_plain_listener_sends_to_https(way: Way, gateways: list[MemoryGateway]) -> None:
    gateway = MemoryGateway(standard(top="listen: { http: ':8080' }"), way)
    gateways.append(gateway)
    client = gateway.client(plain=True)
    client.send(b"POST /open/a?b=c HTTP/1.1\r\nHost: API.example.com:8080\r\n"
                b"Content-Length: 3\r\n\r\nabc", apart=False)  # fmt: skip
    client.send(get("/nothing", b"X-API-Key: a\r\n"))
    first, second = client.answers("POST")
    assert first.status == second.status == 308
    assert first.field("location") == "https://api.example.com:8443/open/a?b=c"
    assert connections(gateway) == 0
