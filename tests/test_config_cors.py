"""`cors:` as it is written."""

from __future__ import annotations

import pytest
from config_support import assert_problems

from edgeproxy.config import parse
from edgeproxy.config.cors import Cors, origin
from edgeproxy.config.model import Config

TOP = "upstreams: { shop: http://127.0.0.1:9001 }\n"


def cors_of(config: Config) -> list[Cors | None]:
    return [route.cors for route in config.routes]


def test_short_long_and_inherited() -> None:
    config = parse(
        TOP
        + """
defaults: { cors: https://app.example.com }
routes:
  a.example.com:
    /inherited: shop
    /off: { to: shop, cors: none }
    /list: { to: shop, cors: [https://a.example, "https://*.b.example"] }
    /long:
      to: shop
      cors:
        origins: HTTPS://App.Example.com:443
        methods: [GET, PUT]
        headers: X-One
        expose: [X-Request-Id, RateLimit]
        credentials: true
        max_age: 10m
"""
    )
    assert cors_of(config) == [
        Cors(origins=("https://app.example.com",)),
        None,
        Cors(origins=("https://a.example", "https://*.b.example")),
        Cors(
            origins=("https://app.example.com",),
            methods=("GET", "PUT"),
            headers=("X-One",),
            expose=("X-Request-Id", "RateLimit"),
            credentials=True,
            max_age=600,
        ),
    ]
    usual = Cors(origins=("*",))
    assert usual.headers == ("Authorization", "Content-Type", "X-API-Key")
    assert (usual.methods, usual.expose, usual.credentials, usual.max_age) == ((), (), False, 1800)
    assert cors_of(parse(TOP + "routes: { a.example.com: { /: shop } }")) == [None]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.COM", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("https://*.example.com:8443", "https://*.example.com:8443"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
        ("http://[::1]", "http://[::1]"),
        ("http://127.0.0.1:08080", "http://127.0.0.1:8080"),
        ("chrome-extension://ABcd", "chrome-extension://ABcd"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", "null"),
        ("*", "*"),
    ],
)
def test_origins_as_browsers_write_them(written: str, meant: str) -> None:
    assert origin(written) == meant


ONE = "routes: { a.example.com: { %s: { to: shop, cors: %s } } }"


@pytest.mark.parametrize(
    ("cors", "message"),
    [
        ("»app.example.com", "is not an origin; write it as https://app.example.com"),
        ("»https://", "is not an origin"),
        ("»https://app.example.com/", "did you mean 'https://app.example.com'?"),
        ("»https://app.example.com/path", "did you mean 'https://app.example.com'?"),
        ("»https://user@app.example.com", "is not an origin"),
        ('»"https://*example.com"', "a * elsewhere than in front of a name"),
        ('»"https://a.*.example.com"', "a * elsewhere than in front of a name"),
        ('»"https://*.*.example.com"', "a * elsewhere than in front of a name"),
        ('»"https://*.com"', "covers what anybody can have"),
        ('»"https://*.0.0.1"', "is neither a name nor an IPv4 address"),
        ('»"https://*"', "a * elsewhere than in front of a name"),
        ('»"app://*.example"', "which only http and https may have"),
        ("»https://app.example.com:99999", "is not a host"),
        ('{ origins: ["*", "https://a.example"] }', "`*` covers all origins"),
        ('»{ origins: "*", credentials: true }', "any page could act for whoever is signed in"),
        ('»{ origins: "null", credentials: true }', "sandboxed frame could act for"),
        (
            '»{ origins: https://a.example, headers: "*", credentials: true }',
            "the `*` of `headers`",
        ),
        ('»{ origins: https://a.example, expose: "*", credentials: true }', "the `*` of `expose`"),
        ('»{ origins: https://a.example, expose: ["*", A] }', "`*` covers all of `expose`"),
        ("{ origins: https://a.example, max_age: »2d }", "at most"),
        ("{ origins: https://a.example, max_age: »500ms }", "not whole seconds"),
        ("{ origins: https://a.example, methods: »get }", "did you mean 'GET'?"),
        ("{ origins: https://a.example, methods: »TRACE }", "TRACE is never relayed"),
        ("{ origins: https://a.example, methods: »GET|PUT }", "write them as a list"),
        ("{ origins: https://a.example, »orgins: x }", "did you mean 'origins'?"),
        ("»{ methods: GET }", "origins"),
        ("{ origins: »[] }", "an empty list says nothing"),
        ("»yes", "is not an origin"),
    ],
)
def test_problems(cors: str, message: str) -> None:
    if "»" not in cors:
        cors = "»" + cors
    assert_problems(TOP + ONE % ("/", cors), message)


def test_methods_that_the_route_does_not_take() -> None:
    cors = "{ origins: https://a.example, methods: [GET, HEAD, »PUT] }"
    assert_problems(TOP + ONE % ("GET /", cors), "this route does not take PUT")


def test_a_rule_that_would_be_overwritten() -> None:
    route = "{ to: shop, cors: '*', response: { set: { »access-control-allow-origin: x } } }"
    text = TOP + f"routes: {{ a.example.com: {{ /: {route} }} }}"
    assert_problems(text, "is written by `cors` here")
