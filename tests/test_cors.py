"""What answers and preflights say about other origins, by the settings."""

from __future__ import annotations

import pytest

from edgeproxy.config.cors import Cors
from edgeproxy.cors import CrossOrigin, Preflight, preflight

APP = "https://app.example.com"
ALLOW = b"Access-Control-Allow-Origin: "
VARY = b"Vary: Origin"


def written(settings: dict[str, object]) -> Cors:
    return Cors.model_validate({"origins": APP, **settings})


def said(origin: str | None, method: str = "GET", **settings: object) -> list[bytes]:
    lines = [b"Accept: */*"] if origin is None else [b"ORIGIN:  " + origin.encode() + b" "]
    return CrossOrigin(written(settings)).answering(lines, method.encode()).apply([])


PATTERNS = (APP, "https://*.example.org", "http://*.example.net:8080")


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (APP, APP, True),
        (APP, None, False),
        (APP, "http://app.example.com", False),
        (APP, "https://app.example.com:444", False),
        (APP, "https://app.example.com:443", False),  # no browser writes it so
        (APP, "https://app.example.com.evil.example", False),
        (APP, "https://evilapp.example.com", False),
        (APP, "https://app.example.com/", False),
        (APP, "https://app.example.com, https://evil.example", False),
        (APP, "https://app-example.com", False),
        (APP, "null", False),
        (APP, "*", False),
        (PATTERNS, "https://a.example.org", True),
        (PATTERNS, "https://example.org", False),
        (PATTERNS, "https://a.b.example.org", False),
        (PATTERNS, "https://.example.org", False),
        (PATTERNS, "https://a.exampleXorg", False),
        (PATTERNS, "https://a.example.org.evil.example", False),
        (PATTERNS, "https://evil.example?.example.org", False),
        (PATTERNS, "https://evil.example/.example.org", False),
        (PATTERNS, "https://user@a.example.org", False),
        (PATTERNS, "http://a.example.org", False),
        (PATTERNS, "https://a.example.org:8443", False),
        (PATTERNS, "http://a.example.net:8080", True),
        (PATTERNS, "http://a.example.net", False),
        (PATTERNS, "null", False),
        (("null", APP), "null", True),
        (("null", APP), "Null", False),
    ],
)
@pytest.mark.parametrize("credentials", [False, True])
def test_origins(
    origins: str | tuple[str, ...], origin: str | None, allowed: bool, credentials: bool
) -> None:
    if credentials and "null" in origins:
        return  # refused by the configuration
    found = said(origin, origins=origins, credentials=credentials)
    vouched = [b"Access-Control-Allow-Credentials: true"] if credentials else []
    assert found == ([ALLOW + str(origin).encode(), *vouched, VARY] if allowed else [VARY])


def test_anybody_is_told_the_same() -> None:
    """So caches may give one answer to all, and nothing is reflected."""
    for origin in (None, APP, "null", "https://evil.example"):
        assert said(origin, origins="*") == [ALLOW + b"*"]
    assert said(APP, "PUT", origins="*", methods="GET") == []


def test_methods_and_exposed_fields() -> None:
    shown = b"Access-Control-Expose-Headers: X-Request-Id, RateLimit"
    expose = ("X-Request-Id", "RateLimit")
    assert said(APP, expose=expose) == [ALLOW + APP.encode(), shown, VARY]
    assert said("https://evil.example", expose=expose) == [VARY]
    for method, allowed in (("GET", 2), ("HEAD", 2), ("POST", 1), ("get", 1)):
        assert len(said(APP, method, methods="GET")) == allowed, method


def test_two_origins_are_none() -> None:
    cross = CrossOrigin(Cors(origins=(APP,)))
    line = b"Origin: " + APP.encode()
    assert cross.answering([line, line], b"GET").apply([]) == [VARY]


def test_what_a_service_says_is_replaced() -> None:
    theirs = [
        b"A: b",
        b"access-control-allow-origin: *",
        b"Access-Control-Allow-Credentials: true",
        b"Access-Control-Whatever: x",
        b"Vary: Accept-Encoding",
    ]
    grant = CrossOrigin(Cors(origins=(APP,))).answering([b"Origin: " + APP.encode()], b"GET")
    assert grant.apply(theirs) == [b"A: b", theirs[-1], ALLOW + APP.encode(), VARY]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"Vary: Origin", True),
        (b"vary:accept ,\tORIGIN", True),
        (b"Vary: *", True),
        (b"Vary: X-Origin, Origins", False),
        (b"Varying: Origin", False),
    ],
)
def test_vary_is_told_once(line: bytes, told: bool) -> None:
    grant = CrossOrigin(Cors(origins=(APP,))).answering([], b"GET")
    assert grant.apply([line]) == ([line] if told else [line, VARY])


# -- preflights ----------------------------------------------------------------------------------

ASKS = [b"Origin: https://app.example.com", b"access-control-request-method: PUT"]


def test_what_is_a_preflight() -> None:
    wanted = b"Access-Control-Request-Headers: content-type,x-api-key"
    origin = APP.encode()
    assert preflight(ASKS) == Preflight(origin, b"PUT", b"")
    assert preflight([*ASKS, wanted]) == Preflight(origin, b"PUT", b"content-type,x-api-key")
    assert preflight(ASKS[:1]) is None
    assert preflight(ASKS[1:]) is None
    assert preflight([*ASKS, ASKS[0]]) is None
    assert preflight([*ASKS, ASKS[1]]) is None
    for method in (b"", b"P UT", b"PUT, GET", b"TRACE", b"CONNECT", b"A" * 33):
        assert preflight([ASKS[0], b"Access-Control-Request-Method: " + method]) is None, method


def allowed(
    origin: str, method: str = "PUT", headers: str = "", **settings: object
) -> tuple[list[bytes], str]:
    asked = Preflight(origin.encode(), method.encode(), headers.encode())
    return CrossOrigin(written(settings)).allowing(asked)


VARIES = b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def test_what_a_preflight_is_told() -> None:
    usual = b"Access-Control-Allow-Headers: Authorization, Content-Type, X-API-Key"
    assert allowed(APP, max_age=0) == (
        [
            ALLOW + APP.encode(),
            b"Access-Control-Allow-Methods: PUT",
            b"Access-Control-Max-Age: 0",
            usual,
            VARIES,
        ],
        "",
    )
    lines, _ = allowed(APP, credentials=True, max_age=60)
    assert b"Access-Control-Allow-Credentials: true" in lines
    assert b"Access-Control-Max-Age: 60" in lines
    lines, _ = allowed("https://evil.example", origins="*")
    assert lines[0] == ALLOW + b"*"


def test_a_preflight_that_is_refused_is_told_nothing() -> None:
    assert allowed("https://evil.example") == ([VARIES], "cors: the origin is not allowed")
    assert allowed(APP, "PUT", methods="GET") == ([VARIES], "cors: the method is not allowed")


def test_any_field_is_named_since_a_wildcard_leaves_authorization_out() -> None:
    name = b"Access-Control-Allow-Headers: "
    config = CrossOrigin(Cors(origins=(APP,), headers=("*",)))
    for asked, told in (
        (b"authorization,x-one", [name + b"authorization,x-one"]),
        (b"a, b", [name + b"a, b"]),
        (b"", []),
        (b"a b", []),
        (b"a,,b", []),
        (b"a;b=\x80", []),
    ):
        lines, _ = config.allowing(Preflight(APP.encode(), b"GET", asked))
        assert [line for line in lines if line.startswith(name)] == told, asked
