"""`edge_token:`, `identity:` and `jwks:` as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_support import assert_problems

from edgeproxy.config import parse
from edgeproxy.config.edgetoken import EdgeToken

TOP = "upstreams: { shop: http://127.0.0.1:9001 }\n"
ROUTES = "routes: { a.example.com: { /: shop } }\n"
TOKEN = "edge_token: https://edge.example.com\nhealth: :9000\n"


def test_short_and_long() -> None:
    config = parse(TOP + ROUTES + TOKEN)
    assert config.edge_token == EdgeToken(issuer="https://edge.example.com")
    assert config.state is None
    config = parse(
        TOP
        + ROUTES
        + "state: kept/\n"
        + "edge_token: { issuer: http://e, lifetime: 5m, audience: [a, b], rotate: 7d }",
        folder=Path("/etc/x"),
    )
    assert config.edge_token == EdgeToken(
        issuer="http://e", lifetime=300, audience=("a", "b"), rotate=7 * 86400
    )
    assert config.state == Path("/etc/x/kept")
    assert parse(TOP + ROUTES).edge_token is None


def test_identity_of_upstreams_and_routes() -> None:
    config = parse(
        TOKEN
        + """
upstreams:
  plain: http://127.0.0.1:1
  signed: { targets: http://127.0.0.1:2, identity: token }
routes:
  a.example.com:
    /plain: plain
    /both: { to: plain, identity: both }
    /signed: signed
    /fields: { to: signed, identity: fields }
    /keys: { jwks: true, auth: none }
"""
    )
    told = [route.identity for route in config.routes]
    assert told == ["fields", "both", "token", "fields", "fields"]
    assert [route.jwks for route in config.routes] == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("edge_token: »edge", "is not a URL; write it as https://edge.example.com"),
        ("edge_token: »https://", "is not a URL"),
        ("edge_token: »https://u@edge", "more than host and path"),
        ("edge_token: »https://edge/?a", "more than host and path"),
        ("edge_token: { issuer: https://e, lifetime: »1s }", "at least 5"),
        ("edge_token: { issuer: https://e, lifetime: »2h }", "at most"),
        ("edge_token: { issuer: https://e, lifetime: »5500ms }", "not whole seconds"),
        ("edge_token: { issuer: https://e, rotate: »1m }", "at least 3600"),
        ("edge_token: { issuer: https://e, audience: »'' }", "not an audience"),
        ("edge_token: { issuer: https://e, audience: »[] }", "empty list"),
        ("edge_token: »{ lifetime: 60s }", "issuer"),
        ("edge_token: { issuer: https://e, »isuer: x }", "did you mean 'issuer'?"),
    ],
)
def test_problems(text: str, message: str) -> None:
    assert_problems(TOP + ROUTES + text, message)


def test_tokens_that_nobody_issues() -> None:
    missing = "nothing says who issues the tokens; add `edge_token:"
    top = "upstreams: { shop: { targets: http://a, identity: »both } }\n"
    assert_problems(top + ROUTES, missing)
    route = "routes: { a.example.com: { /: { to: shop, identity: »token } } }"
    assert_problems(TOP + route, missing)
    assert_problems(TOP + "routes: { a.example.com: { /: { jwks: »true } } }", missing)


def test_keys_that_nobody_can_fetch() -> None:
    top = "upstreams: { shop: { targets: http://a, identity: token } }\n"
    text = top + "edge_token: »https://edge.example.com\n"
    assert_problems(text + ROUTES, "nothing publishes the keys")
    good = (
        ROUTES + "health: :9000",
        ROUTES + "listen: { http: ':8080' }",
        "routes: { a.example.com: { /: shop, /keys: { jwks: true, auth: none } } }",
        "routes: { a.example.com: { /: { to: shop, identity: fields } } }",
    )
    for rest in good:
        assert parse(text.replace("»", "") + rest).edge_token is not None


def test_what_has_no_service_is_told_nothing() -> None:
    route = "routes: { a.example.com: { /: { page: true, identity: »token } } }"
    assert_problems(TOKEN + route, "only a service behind")
    route = "routes: { a.example.com: { /: { to: shop, jwks: »true } } }"
    assert_problems(TOKEN + TOP + route, "a route has `to` or `jwks`, not both")
