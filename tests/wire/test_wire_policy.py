"""Who may come in, where to, how often: each answer of our own, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from wire_support import HOST, OK, answer, connections, get, lines, names, post, standard

from edgeproxy.exchange import Outcome
from edgeproxy.identity.keyfile import parse_line
from edgeproxy.testing import Answer, Ending, MemoryGateway, Way

Make = Callable[..., MemoryGateway]


def refused(
    gateway: MemoryGateway, data: bytes, *methods: str, address: str = "192.0.2.1"
) -> Answer:
    """What is said to a request that must not reach a service; the connection lives on."""
    client = gateway.client(address)
    client.send(data)
    before = connections(gateway)
    (found,) = client.answers(*methods)
    assert client.ending is Ending.OPEN
    assert found.field("content-type") == "application/problem+json"
    assert found.field("connection") is None
    if "HEAD" not in methods:
        assert found.json["status"] == found.status
        assert found.json["request_id"] == found.field("x-request-id")
    assert connections(gateway) == before == 0
    return found


# -- identity ------------------------------------------------------------------------------------


def test_no_credential(make: Make) -> None:
    found = refused(make(), get("/users"))
    assert found.status == 401
    assert found.field("www-authenticate") == "Bearer"


def credentials(gateway: MemoryGateway) -> dict[str, list[str]]:
    good = gateway.key("good")
    other = gateway.key("other")
    return {
        "unknown": [f"X-API-Key: {good[:-1]}!"],
        "cut": [f"X-API-Key: {good[:-1]}"],
        "empty": ["X-API-Key:"],
        "expired": [f"X-API-Key: {gateway.key('old', expires=-1)}"],
        "not yet valid": [f"X-API-Key: {gateway.key('young', not_before=60)}"],
        "revoked": [f"X-API-Key: {gateway.key('gone', revoked=True)}"],
        "twice": [f"X-API-Key: {good}", f"X-API-Key: {good}"],
        "two": [f"X-API-Key: {good}", f"X-API-Key: {other}"],
        "two kinds": [f"X-API-Key: {good}", f"Authorization: Bearer {good}"],
        "two bearers": [f"Authorization: Bearer {good}", f"Authorization: Bearer {other}"],
        "list": [f"X-API-Key: {good}, {other}"],
        "unknown bearer": ["Authorization: Bearer edge_x"],
        "other case": [f"X-API-Key: {good.upper()}"],
    }


@pytest.mark.parametrize("name", [
    "unknown", "cut", "empty", "expired", "not yet valid", "revoked", "twice", "two", "two kinds",
    "two bearers", "list", "unknown bearer", "other case",
])  # fmt: skip
def test_bad_credentials(make: Make, name: str) -> None:
    gateway = make()
    sent = credentials(gateway)[name]
    found = refused(gateway, get("/users", "".join(f"{line}\r\n" for line in sent).encode()))
    assert found.status == 401
    assert found.field("www-authenticate") == 'Bearer error="invalid_token"'
    (exchange,) = gateway.finished
    assert exchange.outcome is Outcome.REFUSED
    assert exchange.principal is None
    # The reason is the log's alone.
    assert found.json["detail"] == "A valid credential is needed."


@pytest.mark.parametrize("line", [
    "X-API-Key: {}", "x-api-key:{}", "X-Api-Key: \t{}  ", "Authorization: Bearer {}",
    "authorization: bearer {}", "AUTHORIZATION:BEARER {}",
])  # fmt: skip
def test_good_credentials(make: Make, line: str) -> None:
    gateway = make()
    key = gateway.key("Ada Lövelace", groups=["staff", "a+b,c"])
    client = gateway.client()
    client.send(get("/users", line.format(key).encode() + b"\r\nA: 1\r\n"))
    service = gateway.service("users").accept()
    service.send(OK)
    assert [each.status for each in client.answers()] == [200]
    sent = lines(service.received)
    assert b"X-Consumer-Name: Ada L%C3%B6velace" in sent
    assert b"X-Consumer-Groups: staff,a+b%2Cc" in sent
    assert sum(each.startswith(b"X-Consumer-Id: ") for each in sent) == 1
    assert key.encode() not in service.received
    assert b"A: 1" in sent
    assert gateway.finished[0].principal is not None


def test_another_partys_token_passes(make: Make) -> None:
    """Only what identified the caller is removed: the application has tokens of its own."""
    gateway = make()
    key = gateway.key("good").encode()
    client = gateway.client()
    fields = b"Authorization: Basic abc\r\nX-API-Key: " + key + b"\r\nX-Auth-Token: t\r\n"
    client.send(get("/users", fields))
    sent = lines(gateway.service("users").accept().received)
    assert b"Authorization: Basic abc" in sent
    assert b"X-Auth-Token: t" in sent
    assert b"x-api-key" not in names(gateway.service("users").received)


def test_a_key_in_the_query(make: Make) -> None:
    gateway = make(standard(top="auth: { api_key: { query: key } }"))
    key = gateway.key("good")
    client = gateway.client()
    service = gateway.service("users")
    targets = []
    for query in (f"?key={key}", f"?a=1&key={key}&b=2", f"?a=%20&key={key}"):
        client.send(get(f"/users{query}"))
        targets.append(service.connections[0].take().split(b" ")[1])
        service.connections[0].send(OK)
    assert targets == [b"/users", b"/users?a=1&b=2", b"/users?a=%20"]
    assert key.encode() not in service.received
    client.send(get(f"/users?key={key}", f"X-API-Key: {key}\r\n".encode()))
    client.send(get(f"/users?key={key}&key={key}"))
    client.send(get("/users?key="))
    assert [each.status for each in client.answers()] == [200, 200, 200, 401, 401, 401]


APIKEY = standard(top="auth: { api_key: { header: Shop-Key, query: key } }")


@pytest.mark.parametrize("name", ["Shop-Key", "shop_key", "SHOP-KEY", "X-API-Key"])
def test_a_key_in_a_field_that_the_configuration_names(make: Make, name: str) -> None:
    """For callers of another gateway, which had its own name for it."""
    gateway = make(APIKEY)
    key = gateway.key("good")
    client = gateway.client()
    client.send(get("/users", f"{name}: {key}\r\nA: 1\r\n".encode()))
    service = gateway.service("users").accept()
    got = service.take()
    assert b"X-Consumer-Name: good" in got and b"A: 1" in lines(got)
    assert key.encode() not in got and b"shop" not in got.lower()
    service.send(OK)
    # Where none is asked for, ours is withheld and the application's own passes.
    client.send(get("/open", f"{name}: {key}\r\n".encode()))
    assert key.encode() not in service.take()
    service.send(OK)
    client.send(get("/open", f"{name}: theirs\r\n".encode()))
    assert f"{name}: theirs".encode() in service.take()
    service.send(OK)
    assert [each.status for each in client.answers()] == [200, 200, 200]


@pytest.mark.parametrize("sent", [
    "Shop-Key: KEY\r\nX-API-Key: KEY", "Shop-Key: KEY\r\nshop_key: KEY", "Shop-Key: wrong",
    "Shop-Key: KEY\r\nAuthorization: Bearer KEY", "Shop-Key:", "Shop-Key: Bearer KEY",
])  # fmt: skip
def test_a_field_that_the_configuration_names_counts_as_the_others(make: Make, sent: str) -> None:
    gateway = make(APIKEY)
    fields = sent.replace("KEY", gateway.key("good")) + "\r\n"
    assert refused(gateway, get("/users", fields.encode())).status == 401


def test_a_key_in_a_field_that_nobody_named(make: Make) -> None:
    gateway = make()
    key = f"Shop-Key: {gateway.key('good')}\r\n".encode()
    assert refused(gateway, get("/users", key)).status == 401


@pytest.mark.parametrize("sent", ["aGVs+G8/d29y=bGQhIQ==", "aGVs%2BG8%2Fd29y%3DbGQhIQ%3D%3D",
                                  "aGVs+G8%2Fd29y=bGQhIQ%3d%3d"])  # fmt: skip
@pytest.mark.parametrize("name", ["the_key", "the%5Fkey", "%74he%5fkey"])
def test_a_key_in_the_query_is_the_same_in_every_spelling(make: Make, name: str, sent: str) -> None:
    """Senders encode `+`, `/` and `=`, or do not."""
    gateway = make(standard(top="auth: { api_key: { query: the_key } }"))
    line = {"id": "x", "name": "Ann", "digest": sha256(b"aGVs+G8/d29y=bGQhIQ==").hexdigest()}
    text = json.dumps(line).encode()
    gateway.gateway.keys.index.add(parse_line(text, 1), text)
    client = gateway.client()
    client.send(get(f"/users?a=1%2B&{name}={sent}"))
    service = gateway.service("users").accept()
    assert service.take().split(b" ")[1] == b"/users?a=1%2B"
    service.send(OK)
    # Beside another one it is the second; where none is asked for, it is withheld.
    client.send(get(f"/users?{name}={sent}", f"X-API-Key: {gateway.key('good')}\r\n".encode()))
    client.send(get(f"/open?{name}={sent}&b=%31"))
    assert service.take().split(b" ")[1] == b"/open?b=%31"
    service.send(OK)
    assert [each.status for each in client.answers()] == [200, 401, 200]


def test_a_key_in_the_query_where_none_may_be(make: Make) -> None:
    gateway = make()
    assert refused(gateway, get(f"/users?key={gateway.key('good')}")).status == 401


def test_an_open_route_does_not_read_credentials(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", b"X-API-Key: nonsense\r\nAuthorization: Bearer edge_x\r\n"))
    service = gateway.service("users").accept()
    # The application's own passes; a key of ours is kept from a service that needs none.
    assert b"X-API-Key: nonsense" in service.received
    assert b"edge_x" not in service.received
    service.send(OK)
    assert [each.status for each in client.answers()] == [200]


def test_anonymous(make: Make) -> None:
    gateway = make(standard(routes="    /any: { to: users, auth: [api_key, anonymous] }"))
    key = gateway.key("good").encode()
    client = gateway.client()
    client.send(get("/any"))
    service = gateway.service("users").accept()
    assert b"x-consumer-id" not in names(service.received)
    service.send(OK)
    service.take()
    client.send(get("/any", b"X-API-Key: " + key + b"\r\n"))
    assert b"X-Consumer-Name: good" in service.take()
    service.send(OK)
    client.send(get("/any", b"X-API-Key: wrong\r\n"))
    assert [each.status for each in client.answers()] == [200, 200, 401]


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/scoped", {"scopes": ["read", "write", "x"]}, 200),
        ("/scoped", {"scopes": ["read"]}, 403),
        ("/scoped", {"groups": ["read", "write"]}, 403),
        ("/grouped", {"groups": ["ops"]}, 200),
        ("/grouped", {"groups": ["others"]}, 403),
        ("/grouped", {}, 403),
    ],
)
def test_scopes_and_groups(make: Make, path: str, options: dict[str, Any], status: int) -> None:
    gateway = make()
    data = get(path, b"X-API-Key: " + gateway.key("good", **options).encode() + b"\r\n")
    if status == 403:
        found = refused(gateway, data)
        assert found.status == 403
        wanted = 'Bearer error="insufficient_scope"' if path == "/scoped" else "Bearer"
        assert found.field("www-authenticate") == wanted
    else:
        gateway.client().send(data)
        assert gateway.service("users").accept().received


SPELLINGS = [b"X-Consumer-Id", b"x-consumer-id", b"X_Consumer_Id", b"X-CONSUMER_NAME",
             b"x_consumer-groups", b"X-Edge-Token", b"x_edge_token", b"Client-Cert",
             b"CLIENT_CERT", b"client-cert-chain", b"Client_Cert_Chain"]  # fmt: skip


@pytest.mark.parametrize("path", ["/open", "/users"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_identity_cannot_be_spoofed(make: Make, path: str, name: bytes) -> None:
    """On every route, in every spelling, also in trailers and as a name in Connection."""
    gateway = make()
    key = gateway.key("good").encode()
    client = gateway.client()
    fields = b"%b: root\r\nConnection: X-Consumer-Id, %b\r\nX-API-Key: %b\r\n" % (name, name, key)
    fields += b"Transfer-Encoding: chunked\r\n"
    trailers = b"%b: root\r\nX-Sum: 1\r\n" % name
    client.send(get(path, fields, "POST") + b"2\r\nhi\r\n0\r\n" + trailers + b"\r\n")
    received = gateway.service("users").accept().received
    assert b"root" not in received
    assert b"X-Sum: 1" in received
    if path == "/users":
        assert b"X-Consumer-Name: good" in received


# -- routes --------------------------------------------------------------------------------------


def test_no_route(make: Make) -> None:
    assert refused(make(), get("/nothing")).status == 404
    assert refused(make(), get("/opened")).status == 404
    assert refused(make(), get("/")).status == 404
    assert refused(make(), get("/OPEN")).status == 404


def test_method_not_allowed(make: Make) -> None:
    found = refused(make(), get("/methods", method="DELETE"))
    assert found.status == 405
    assert found.field("allow") == "GET, HEAD, PUT"


def test_trace_is_never_allowed(make: Make) -> None:
    found = refused(make(), get("/open", method="TRACE"))
    assert found.status == 405
    allow = found.field("allow")
    assert allow is not None and "TRACE" not in allow


def test_methods_are_case_sensitive(make: Make) -> None:
    assert refused(make(), get("/methods", method="get")).status == 405


def test_head_where_get_may(make: Make) -> None:
    gateway = make()
    gateway.client().send(get("/methods", method="HEAD"))
    assert gateway.service("users").accept().received.startswith(b"HEAD /methods ")


def test_a_refused_head_has_no_body(make: Make) -> None:
    found = refused(make(), get("/nothing", method="HEAD"), "HEAD")
    assert found.status == 404
    assert int(found.field("content-length") or 0) > 0
    assert found.body == b""


def test_the_query_is_not_looked_at(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open?a=//../%2f%zz;\\"))
    assert gateway.service("users").accept().received.startswith(b"GET /open?a=//../%2f%zz;\\ HTTP")


@pytest.mark.parametrize("target", [
    b"https://api.example.com/open", b"HTTPS://API.EXAMPLE.COM:443/open",
    b"http://api.example.com./open",
])  # fmt: skip
def test_absolute_targets(make: Make, target: bytes) -> None:
    gateway = make()
    client = gateway.client()
    client.send(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    received = gateway.service("users").accept().received
    assert received.startswith(b"GET /open HTTP/1.1\r\nHost: api.example.com\r\n")


def test_an_absolute_target_without_path(make: Make) -> None:
    gateway = make(standard(routes="    /: { to: users, auth: none }"))
    gateway.client().send(b"GET https://api.example.com?a HTTP/1.1\r\n" + HOST + b"\r\n")
    assert gateway.service("users").accept().received.startswith(b"GET /?a HTTP/1.1\r\n")


def test_another_authority_is_not_served_here(make: Make) -> None:
    gateway = make(certificates=[["api.example.com"], ["other.example.com"]])
    client = gateway.client()
    client.send(b"GET https://other.example.com/ HTTP/1.1\r\nHost: other.example.com\r\n\r\n")
    assert [each.status for each in client.answers()] == [421]
    assert connections(gateway) == 0


@pytest.mark.parametrize(
    ("sni", "host", "status"),
    [
        ("api.example.com", "api.example.com", 200),
        ("api.example.com", "API.example.COM.:8443", 200),
        ("api.example.com", "b.example.com", 421),
        ("b.example.com", "api.example.com", 421),
        ("b.example.com", "c.example.com", 200),  # one certificate has both
        ("api.example.com", "unknown.example.org", 200),  # the default's are those of api
        ("b.example.com", "unknown.example.org", 421),
        ("x.wild.example.com", "y.wild.example.com", 200),
        ("x.wild.example.com", "x.y.wild.example.com", 421),
    ],
)
def test_a_host_that_would_choose_another_certificate(
    make: Make, sni: str, host: str, status: int
) -> None:
    text = "upstreams: {u: http://10.0.0.1:9001}\nroutes: {'*': {/: {to: u, auth: none}}}"
    sets = [["api.example.com"], ["b.example.com", "c.example.com"], ["*.wild.example.com"]]
    gateway = make(text, certificates=sets)
    client = gateway.client(name=sni)
    client.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
    if status == 421:
        assert [each.status for each in client.answers()] == [421]
        assert connections(gateway) == 0
    else:
        assert gateway.service("u").accept().received


def test_no_server_name_stands_for_the_default(gateways: list[MemoryGateway]) -> None:
    text = "upstreams: {u: http://10.0.0.1:9001}\nroutes: {'*': {/: {to: u, auth: none}}}"
    gateway = MemoryGateway(text, Way.WHOLE, [["a.example"], ["b.example"]])
    gateways.append(gateway)
    client = gateway.client()
    stream = gateway.streams[0]
    stream._secure = ("TLSv1.3", None)
    stream.protocol.secured()
    client.send(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
    assert [each.status for each in client.answers()] == [421]
    client.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert gateway.service("u").accept().received


# -- expectations, sizes -------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/open", "/users", "/nothing"])
def test_other_expectations(make: Make, path: str) -> None:
    gateway = make()
    client = gateway.client()
    client.send(post(b"body", path, b"Expect: 200-ok\r\n") + get("/open/smuggled"))
    client.send(get("/open/smuggled"))
    (found,) = client.answers("POST")
    assert found.status == (404 if path == "/nothing" else 417)
    if path != "/nothing":
        assert client.ending is Ending.ENDED
        assert connections(gateway) == 0


def test_a_known_length_that_is_too_large(make: Make) -> None:
    """Refused before a byte goes to the service."""
    gateway = make()
    client = gateway.client()
    client.send(get("/small", b"Content-Length: 11\r\n", "POST"))
    (found,) = client.answers("POST")
    assert found.status == 413
    assert client.ending is Ending.ENDED
    client.send(b"12345678901" + get("/open/smuggled"))
    assert connections(gateway) == 0


def test_a_body_just_not_too_large(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(post(b"1234567890", "/small"))
    gateway.service("users").accept().send(OK)
    client.send(post(b"1234567890", "/small", chunked=True))
    gateway.service("users").connections[-1].send(OK)
    assert [each.status for each in client.answers("POST", "POST")] == [200, 200]


def test_chunks_that_become_too_large(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/small", b"Transfer-Encoding: chunked\r\n", "POST") + b"6\r\n123456\r\n")
    service = gateway.service("users").accept()
    client.send(b"5\r\n12345\r\n0\r\n\r\n" + get("/open/smuggled"))
    (found,) = client.answers("POST")
    assert found.status == 413
    assert client.ending is Ending.ENDED
    assert service.ending is Ending.ABORTED
    assert not service.received.endswith(b"0\r\n\r\n")
    assert b"smuggled" not in gateway.service("users").received


def test_the_length_is_looked_at_after_identity(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/users", b"Content-Length: 99999999\r\n", "POST"))
    assert [each.status for each in client.answers("POST")] == [401]
    assert client.ending is Ending.ENDED  # its body is still to come


# -- limits --------------------------------------------------------------------------------------


def exhaust(gateway: MemoryGateway, path: str, count: int, fields: bytes = b"") -> list[Answer]:
    client = gateway.client()
    service = gateway.service("users")
    service.greet = None
    for _ in range(count):
        client.send(get(path, fields))
        for wire in service.connections:
            if wire.take():
                wire.send(answer(fields=b"RateLimit: theirs\r\nRateLimit-Policy: theirs\r\n"))
        gateway.wait(1)
    return client.answers()


def test_over_the_limit(make: Make) -> None:
    gateway = make()
    first, second, third = exhaust(gateway, "/limited", 3)
    assert [each.status for each in (first, second, third)] == [200, 200, 429]
    for each, left, reset in ((first, 1, 60), (second, 0, 59), (third, 0, 58)):
        assert each.field("ratelimit-policy") == '"few";q=2;w=60'
        assert each.field("ratelimit") == f'"few";r={left};t={reset}'
    assert third.field("retry-after") == "58"
    assert third.field("connection") is None
    assert gateway.service("users").received.count(b"GET /limited") == 2
    gateway.wait(57.5)
    (again,) = exhaust(gateway, "/limited", 1)
    assert again.status == 200


def test_refused_requests_do_not_count(make: Make) -> None:
    gateway = make()
    assert [a.status for a in exhaust(gateway, "/limited", 30)] == [200, 200] + [429] * 28
    gateway.wait(30.5)
    assert [a.status for a in exhaust(gateway, "/limited", 2)] == [200, 200]


def test_two_limits_are_looked_at_before_any_is_charged(make: Make) -> None:
    gateway = make()
    key = gateway.key("good").encode()
    found = exhaust(gateway, "/limited2", 3, b"X-API-Key: " + key + b"\r\n")
    assert [each.status for each in found] == [200, 429, 429]
    assert found[0].field("ratelimit-policy") == '"few";q=2;w=60, "fewer";q=1;w=60'
    assert found[0].field("ratelimit") == '"few";r=1;t=60, "fewer";r=0;t=60'
    assert found[2].field("ratelimit") == '"few";r=1;t=58, "fewer";r=0;t=58'
    assert found[2].field("retry-after") == "58"


def test_limits_are_each_callers_own(make: Make) -> None:
    gateway = make()
    one, two = (gateway.key(name).encode() for name in ("one", "two"))
    assert exhaust(gateway, "/limited2", 1, b"X-API-Key: " + one + b"\r\n")[0].status == 200
    assert exhaust(gateway, "/limited2", 1, b"X-API-Key: " + two + b"\r\n")[0].status == 200
    assert exhaust(gateway, "/limited2", 1, b"X-API-Key: " + one + b"\r\n")[0].status == 429


def test_a_401_says_nothing_of_limits_and_costs_none(make: Make) -> None:
    gateway = make()
    for found in exhaust(gateway, "/limited2", 5):
        assert found.status == 401
        assert found.field("ratelimit") is None
    key = gateway.key("good").encode()
    assert exhaust(gateway, "/limited2", 1, b"X-API-Key: " + key + b"\r\n")[0].status == 200


def test_limits_by_address_stand_before_identity(make: Make) -> None:
    """Guessing keys is limited too."""
    gateway = make()
    found = exhaust(gateway, "/guarded", 4, b"X-API-Key: guess\r\n")
    assert [each.status for each in found] == [401, 401, 401, 429]
    assert found[3].field("retry-after") == "57"
    key = gateway.key("good").encode()
    client = gateway.client("192.0.2.2")
    client.send(get("/guarded", b"X-API-Key: " + key + b"\r\n"))
    assert gateway.service("users").accept().received


def test_addresses_of_one_network_are_one_caller(make: Make) -> None:
    gateway = make()
    statuses = []
    for host in range(5):
        client = gateway.client(f"2001:db8:1:2::{host + 1}")
        client.send(get("/guarded"))
        statuses += [each.status for each in client.answers()]
    client = gateway.client("2001:db8:1:3::1")
    client.send(get("/guarded"))
    statuses += [each.status for each in client.answers()]
    assert statuses == [401, 401, 401, 429, 429, 401]


def test_the_services_own_limit_fields_pass_where_we_have_none(make: Make) -> None:
    gateway = make()
    (found,) = exhaust(gateway, "/open", 1)
    assert found.field("ratelimit") == "theirs"
    assert found.field("ratelimit-policy") == "theirs"


def test_plans(make: Make) -> None:
    top = "limits: { p: { rate: 1/min, plans: { gold: 3/min } } }"
    text = f"{top}\nupstreams: {{users: http://10.0.0.1:9001}}\n"
    text += "routes: {api.example.com: {/p: {to: users, limit: p}}}"
    gateway = make(text)
    gold = gateway.key("gold", plan="gold").encode()
    tin = gateway.key("tin", plan="tin").encode()
    found = exhaust(gateway, "/p", 4, b"X-API-Key: " + gold + b"\r\n")
    assert [each.status for each in found] == [200, 200, 200, 429]
    found = exhaust(gateway, "/p", 2, b"X-API-Key: " + tin + b"\r\n")
    assert [each.status for each in found] == [200, 429]


def test_a_limit_in_shadow_mode_only_logs(make: Make) -> None:
    text = (
        "limits: { s: { rate: 1/min, shadow: true } }\nupstreams: {users: http://10.0.0.1:9001}\n"
    )
    text += "routes: {api.example.com: {/s: {to: users, auth: none, limit: s}}}"
    gateway = make(text)
    found = exhaust(gateway, "/s", 3)
    assert [each.status for each in found] == [200, 200, 200]
    assert [each.shadow for each in gateway.finished] == [(), *[((429, "429 limit s"),)] * 2]
    assert not any(each.reason for each in gateway.finished)
