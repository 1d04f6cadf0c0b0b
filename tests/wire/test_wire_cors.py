"""CORS through a whole gateway: every answer of such a route, preflights before identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from wire_support import HOST, answer, connections, get, post, standard

from edgeproxy.filters import Filter, Refuse
from edgeproxy.testing import Answer, MemoryGateway

Make = Callable[..., MemoryGateway]

APP = "https://app.example.com"
EVIL = "https://evil.example"
ORIGIN = b"Origin: https://app.example.com\r\n"
TOP = f"defaults: {{ cors: {APP} }}"
CREDENTIALS = f", cors: {{ origins: [{APP}, 'https://*.example.org'], credentials: true }}"
PREFLIGHT_VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def access(found: Answer) -> dict[str, str]:
    """What an answer says about other origins."""
    fields = {name.lower(): value for name, value in found.fields}
    assert len(fields) == len(found.fields), "a field stands there twice"
    return {n: v for n, v in fields.items() if n.startswith("access-control-") or n == "vary"}


def asks(path: str, method: str, origin: str = APP, headers: str = "") -> bytes:
    fields = f"Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n"
    if headers:
        fields += f"Access-Control-Request-Headers: {headers}\r\n"
    return get(path, fields.encode(), "OPTIONS")


def one(gateway: MemoryGateway, data: bytes, method: str = "GET", says: bytes = b"") -> Answer:
    client = gateway.client()
    client.send(data)
    if says:
        gateway.service("users").accept().send(says)
    (found,) = client.answers(method)
    return found


# -- answers -------------------------------------------------------------------------------------

ALLOWED = {"access-control-allow-origin": APP, "vary": "Origin"}


@pytest.mark.parametrize(
    ("settings", "origin", "said"),
    [
        ("", APP, {}),
        (f", cors: {APP}", APP, ALLOWED),
        (f", cors: {APP}", EVIL, {"vary": "Origin"}),
        (f", cors: {APP}", None, {"vary": "Origin"}),
        (f", cors: {APP}", "null", {"vary": "Origin"}),
        (CREDENTIALS, APP, ALLOWED | {"access-control-allow-credentials": "true"}),
        (
            CREDENTIALS,
            "https://a.example.org",
            {
                "access-control-allow-origin": "https://a.example.org",
                "access-control-allow-credentials": "true",
                "vary": "Origin",
            },
        ),
        (CREDENTIALS, "https://a.b.example.org", {"vary": "Origin"}),
        (CREDENTIALS, "http://a.example.org", {"vary": "Origin"}),
        (", cors: '*'", EVIL, {"access-control-allow-origin": "*"}),
        (", cors: '*'", None, {"access-control-allow-origin": "*"}),
        (
            f", cors: {{ origins: {APP}, expose: [X-Request-Id, RateLimit] }}",
            APP,
            ALLOWED | {"access-control-expose-headers": "X-Request-Id, RateLimit"},
        ),
        (f", cors: {{ origins: {APP}, methods: PUT }}", APP, {"vary": "Origin"}),
    ],
)
@pytest.mark.parametrize("theirs", [b"", b"Access-Control-Allow-Origin: *\r\nVARY: ORIGIN\r\n"])
def test_origins_and_settings(
    quick: Make, settings: str, origin: str | None, said: dict[str, str], theirs: bytes
) -> None:
    gateway = quick(standard(users=settings))
    fields = b"" if origin is None else b"Origin: %b\r\n" % origin.encode()
    found = one(gateway, get(fields=fields), says=answer(fields=theirs))
    assert (found.status, found.body) == (200, b"ok")
    if theirs and not settings:
        said = {"access-control-allow-origin": "*", "vary": "ORIGIN"}
    elif theirs:
        said = said | {"vary": "ORIGIN"}
    assert access(found) == said
    assert fields in gateway.service("users").received, "the service sees who asks"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/users", 401), ("/scoped", 403), ("/small", 413), ("/once", 429), ("/orders", 502)],
)
def test_refusals_of_our_own_can_be_read(quick: Make, path: str, status: int) -> None:
    gateway = quick(standard(top=TOP, routes="    /once: { to: users, auth: none, limit: fewer }"))
    for number in range(3):
        gateway.service("orders", number).mode = "refuse"
    key = b"X-API-Key: " + gateway.key("ada").encode() + b"\r\n" if status == 403 else b""
    if status == 429:
        one(gateway, get(path), says=answer())
    found = one(gateway, post(b"12345678901", path, ORIGIN + key), "POST")
    assert found.status == status
    assert access(found) == ALLOWED


def test_where_no_route_is_chosen_nothing_is_said(make: Make) -> None:
    gateway = make(standard(top=TOP))
    for data in (get("/nowhere", ORIGIN), get("//", ORIGIN), get("/open", ORIGIN + b" : x\r\n")):
        assert access(one(gateway, data)) == {}
    assert access(one(gateway, get("/methods", ORIGIN, "DELETE"), "DELETE")) == {}


def test_a_route_without_it_beside_one_with_it(make: Make) -> None:
    gateway = make(standard(top=TOP, routes="    /off: { to: users, auth: none, cors: none }"))
    client = gateway.client()
    service = gateway.service("users")
    for number, path in enumerate(("/open", "/off", "/open")):
        client.send(get(path, ORIGIN))
        if number == 0:
            target = service.accept()
        target.send(answer())
    assert [access(found) for found in client.answers()] == [ALLOWED, {}, ALLOWED]


def test_a_page_and_a_websocket(quick: Make) -> None:
    routes = "    /page: { page: true, auth: none }\n"
    routes += "    /chat: { to: users, auth: none, websocket: true }"
    gateway = quick(standard(top=TOP, routes=routes))
    assert access(one(gateway, get("/page", ORIGIN))) == ALLOWED
    client = gateway.client()
    wanted = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    client.send(get("/chat", ORIGIN + wanted + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"))
    gateway.service("users").accept().send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Access-Control-Allow-Origin: *\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    assert client.received.count(b"Access-Control-Allow-Origin: " + APP.encode()) == 1
    assert b"Access-Control-Allow-Origin: *" not in client.received


# -- preflights ----------------------------------------------------------------------------------


def test_a_preflight_stands_before_identity(make: Make) -> None:
    gateway = make(standard(top=TOP))
    found = one(gateway, asks("/users/7?a=b", "DELETE", headers="x-api-key"), "OPTIONS")
    assert found.status == 204
    assert found.field("content-length") is None
    assert access(found) == {
        "access-control-allow-origin": APP,
        "access-control-allow-methods": "DELETE",
        "access-control-allow-headers": "Authorization, Content-Type, X-API-Key",
        "access-control-max-age": "1800",
        "vary": PREFLIGHT_VARY,
    }
    assert connections(gateway) == 0
    (line,) = gateway.log
    told = ("OPTIONS", "/users/7", "api.example.com /users", 204, "ok")
    assert tuple(line[n] for n in ("method", "path", "route", "status", "outcome")) == told
    assert found.field("x-request-id") == line["id"]


def test_the_connection_goes_on_after_a_preflight(make: Make) -> None:
    gateway = make(standard(top=TOP))
    client = gateway.client()
    key = gateway.key("ada").encode()
    client.send(asks("/users", "PUT") + get("/users", ORIGIN + b"X-API-Key: %b\r\n" % key, "PUT"))
    gateway.service("users").accept().send(answer())
    assert [found.status for found in client.answers("OPTIONS", "PUT")] == [204, 200]


@pytest.mark.parametrize(
    ("origin", "method", "reason"),
    [
        (EVIL, "GET", "cors: the origin is not allowed"),
        ("null", "GET", "cors: the origin is not allowed"),
        (APP, "DELETE", "cors: the method is not allowed"),
    ],
)
def test_a_preflight_that_is_refused(quick: Make, origin: str, method: str, reason: str) -> None:
    cors = f", cors: {{ origins: {APP}, methods: [GET, PUT] }}"
    gateway = quick(standard(users=cors))
    found = one(gateway, asks("/open", method, origin), "OPTIONS")
    assert (found.status, access(found)) == (204, {"vary": PREFLIGHT_VARY})
    assert gateway.log[0]["reason"] == reason
    assert connections(gateway) == 0


ROUTES = f"""
    /both: {{ to: users, auth: none, cors: none }}
    PUT /both: {{ to: users, cors: {APP} }}
    POST /only: {{ to: users, cors: {{ origins: {APP}, credentials: true }} }}
"""


def test_the_announced_method_chooses_the_route(quick: Make) -> None:
    gateway = quick(standard(routes=ROUTES))
    found = one(gateway, asks("/both/x", "PUT"), "OPTIONS")
    assert found.field("access-control-allow-methods") == "PUT"
    found = one(gateway, asks("/only", "POST"), "OPTIONS")
    assert found.field("access-control-allow-credentials") == "true"
    # What has no say about other origins goes its ordinary way.
    found = one(gateway, asks("/both/x", "GET"), "OPTIONS", answer(b"theirs"))
    assert (found.status, found.body) == (200, b"theirs")
    found = one(gateway, asks("/only", "GET"), "OPTIONS")
    assert (found.status, found.field("allow"), access(found)) == (405, "POST", {})
    assert one(gateway, asks("/nowhere", "GET"), "OPTIONS").status == 404


def test_an_ordinary_options(make: Make) -> None:
    gateway = make(standard(top=TOP))
    found = one(gateway, get("/users", ORIGIN, "OPTIONS"), "OPTIONS")
    assert (found.status, access(found)) == (401, ALLOWED)
    method = b"Access-Control-Request-Method: PUT\r\n"
    found = one(gateway, get("/open", method, "OPTIONS"), "OPTIONS", answer())
    assert (found.status, access(found)) == (200, {"vary": "Origin"})


def test_limits_by_address_hold_for_preflights(quick: Make) -> None:
    gateway = quick(standard(top=TOP))
    for left in (2, 1, 0):
        found = one(gateway, asks("/guarded", "GET"), "OPTIONS")
        assert (found.status, found.field("ratelimit")) == (204, f'"address";r={left};t=60')
    found = one(gateway, asks("/guarded", "GET"), "OPTIONS")
    assert (found.status, access(found)) == (429, ALLOWED)
    # Limits by key are for those who have one.
    for _ in range(5):
        assert one(gateway, asks("/limited", "GET"), "OPTIONS").status == 204


def test_where_nobody_may_come_from_preflights_may_not(quick: Make) -> None:
    gateway = quick(
        "upstreams: { u: http://10.0.0.1:9001 }\n"
        f"routes: {{ api.example.com: {{ /: {{ to: u, cors: {APP}, deny: 192.0.2.0/24 }} }} }}"
    )
    found = one(gateway, asks("/", "GET"), "OPTIONS")
    assert (found.status, found.field("access-control-allow-methods")) == (403, None)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/users//x", 400), ("/users/%2e%2e/x", 400), ("/users/a%2fb", 400), ("/us%65rs", 204)],
)
def test_paths_of_preflights_are_read_as_others(quick: Make, path: str, status: int) -> None:
    gateway = quick(standard(top=TOP))
    assert one(gateway, asks(path, "GET"), "OPTIONS").status == status
    assert connections(gateway) == 0


def test_a_host_that_the_connection_is_not_for(quick: Make) -> None:
    routes = "  b.example.com: { /: { to: users, auth: none } }"
    certificates = [["api.example.com"], ["b.example.com"]]
    gateway = quick(standard(top=TOP, routes=routes), certificates=certificates)
    client = gateway.client(name="api.example.com")
    client.send(asks("/", "GET").replace(HOST, b"Host: b.example.com\r\n"))
    (found,) = client.answers("OPTIONS")
    assert (found.status, access(found)) == (421, {})


def test_a_preflight_with_a_body(make: Make) -> None:
    gateway = make(standard(top=TOP))
    body = b"Content-Length: 5\r\n\r\nhello"
    found = one(gateway, asks("/users", "PUT")[:-2] + body, "OPTIONS")
    assert found.status == 204
    assert connections(gateway) == 0


def test_a_resource(make: Make) -> None:
    """It is asked for no preflight, and its own word is replaced."""
    gateway = make(
        f"routes:\n  api.example.com:\n    /told: {{ resource: mounted_shop.Told, cors: {APP} }}\n"
    )
    assert one(gateway, asks("/told", "PUT"), "OPTIONS").status == 204
    assert access(one(gateway, get("/told", ORIGIN))) == ALLOWED
    key = b"X-API-Key: %b\r\n" % gateway.key("ada").encode()
    found = one(gateway, get("/told", ORIGIN + key))
    assert (found.status, access(found)) == (200, ALLOWED)


class Closed(Filter):
    """Answers in place of the service, and says something about other origins by itself."""

    def on_request(self, request: Any) -> None:
        raise Refuse(418, "Closed.", headers={"Access-Control-Allow-Origin": "*"})


def test_a_filter_that_refuses(quick: Make) -> None:
    filters = f", cors: {APP}, filters: {__name__}.Closed"
    found = one(quick(standard(users=filters)), get(fields=ORIGIN))
    assert (found.status, access(found)) == (418, ALLOWED)
    gateway = quick(standard(users=filters))
    assert one(gateway, asks("/open", "PUT"), "OPTIONS").status == 204
