"""Credentials that endpoints are asked for, as they are written: what is right, what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking_support import World
from certs_support import root
from config_support import assert_problems

from edgeproxy.config import ConfigError, parse
from edgeproxy.config.asking import Asked
from edgeproxy.config.authorization import AuthorizationForm
from edgeproxy.config.lookups import IntrospectionForm, SessionForm
from edgeproxy.upstream.trust import unverified

TOP = "upstreams: { shop: http://127.0.0.1:9001 }\nroutes: { '*': { /: { to: shop, auth: p } } }\n"


def read(text: str, folder: Path = Path(), **environ: str) -> Asked:
    config = parse(f"{TOP}auth: {{ p: {{ {text} }} }}", folder=folder, environ=environ)
    found = config.credentials["p"]
    assert isinstance(found, Asked)
    return found


def test_introspection() -> None:
    found = read(
        "introspect: https://id/i, client_id: edge, client_secret: '${env:S}', audience: shop",
        S="geheim",
    )
    said = found.said
    assert isinstance(said, IntrospectionForm)
    assert said.client_secret is not None
    assert said.client_secret.get_secret_value() == "geheim"
    assert said.audience == ("shop",)
    assert (said.cache, said.refused, said.stale, said.timeout) == (30, 5, None, 2)
    assert "geheim" not in repr(found)


def test_session() -> None:
    said = read("cookie: sid, at: 'https://accounts/session', stale: 5m").said
    assert isinstance(said, SessionForm)
    assert (said.cookie, said.url, said.stale, said.keep) == (
        "sid",
        "https://accounts/session",
        300,
        False,
    )


def test_authorization() -> None:
    found = read("authorize: http://127.0.0.1:4181/, take: [X-User, X-Groups], principal: X-User")
    assert isinstance(found.said, AuthorizationForm)
    assert found.alone
    assert found.reserved == ("X-User", "X-Groups")
    assert found.said.send == ("authorization", "cookie")
    config = parse(
        f"{TOP}auth: {{ p: {{ authorize: https://a/, take: X-User }}, "
        "q: { authorize: https://b/, take: [X-Role] } }"
    )
    assert config.reserved == ("X-User", "X-Role")


def test_authorities(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(root().pem)
    found = read("introspect: https://id/i, ca: ca.pem", tmp_path)
    assert found.authorities is not None
    assert b"BEGIN CERTIFICATE" in found.authorities
    (tmp_path / "ca.pem").write_bytes(b"no")
    with pytest.raises(ConfigError, match="holds no certificate"):
        read("introspect: https://id/i, ca: ca.pem", tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        read("introspect: https://id/i, ca: other.pem", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("introspect: »http://id.example.com/i", "add `plain: true` if nobody else can listen"),
        ("introspect: »https://u:p@id/i", "is not a URL of a host"),
        ("introspect: »id.example.com", "is not"),
        ("introspect: »'https://id/i#x'", "is not a URL"),
        ("introspect: https://id/i, client_id: »edge", "add `client_secret`"),
        ("introspect: https://id/i, client_id: e, client_secret: »x", "a secret stands outside"),
        ("introspect: https://id/i, cache: »31s", "at most 30 s"),
        ("introspect: https://id/i, refused: »1m", "at most 30 s"),
        ("introspect: https://id/i, stale: »2d", "at most 86400 s"),
        ("introspect: https://id/i, timeout: »31s", "at most 30 s"),
        ("introspect: https://id/i, connections: »0", "at least 1"),
        ("introspect: https://id/i, »cookie: sid", "cookie"),
        ("introspect: http://127.0.0.1/i, ca: »ca.pem", "http:// shows no certificate"),
        ("at: https://a/, cookie: »'a b'", "is not the name of a cookie"),
        ("authorize: https://a/, take: »Authorization", "is the caller's own on other routes"),
        ("authorize: https://a/, take: »Cookie", "is the caller's own"),
        ("authorize: https://a/, take: »Content-Type", "is the caller's own"),
        ("authorize: https://a/, take: »X-Consumer-Id", "only the gateway writes it"),
        ("authorize: https://a/, take: »Host", "host"),
        ("authorize: https://a/, send: »X-Forwarded-For", "is written by the gateway"),
        ("authorize: https://a/, send: »[X-A, X_Original_URI]", "is what the gateway says of"),
        ("authorize: https://a/, send: »X.Request.Id", "is what the gateway says of"),
        ("authorize: https://a/, send: X-A, take: »X_A", "cannot stand in `send` too"),
        ("authorize: https://a/, keep: »X-A", "is not sent"),
        ("authorize: https://a/, groups: »X-A", "add `principal`"),
        ("authorize: https://a/, »fail: open", "fail"),
    ],
)
def test_problems(text: str, message: str) -> None:
    assert_problems(f"{TOP}auth: {{ p: {{ {text} }} }}", message)


def test_nothing_is_shown_that_contradicts_the_gateway() -> None:
    """Whatever the gateway says of a request to the endpoint, a client does not say too."""
    world = World({"authorize": "https://a/"})
    world.send()
    told = [name.decode() for name in world.questions[0].fields]
    assert len(told) == 9
    for name in (name for each in told for name in (each, each.lower().replace("-", "_"))):
        assert_problems(
            f"{TOP}auth: {{ p: {{ authorize: https://a/, send: »{name} }} }}", "the gateway"
        )


def test_half_of_it() -> None:
    with pytest.raises(ConfigError, match="add `client_id`"):
        read("introspect: https://id/i, client_secret: '${env:S}'", S="geheim")
    assert_problems(f"{TOP}auth: {{ p: »{{ cookie: sid }} }}", "'at' is missing here")


def test_plain() -> None:
    assert read("authorize: 'http://auth:4181/check', plain: true").said.plain


def test_it_stands_alone() -> None:
    assert_problems(
        "upstreams: { shop: http://127.0.0.1:9001 }\n"
        "auth: { p: { authorize: https://a/ } }\n"
        "routes: { '*': { »/: { to: shop, auth: [p, api_key] } } }",
        "asked about every request, so nothing can stand beside it",
    )
    assert_problems(
        "upstreams: { shop: http://127.0.0.1:9001 }\n"
        "auth: { p: { authorize: https://a/ } }\n"
        "routes: { '*': { »/: { to: shop, auth: [p, anonymous] } } }",
        "nothing can stand beside it",
    )


@pytest.mark.parametrize("url", ["https://u:geheim@id/i", "https://u:ge/heim@id", "ftp://geheim@i"])
@pytest.mark.parametrize("key", ["introspect", "authorize", "cookie: a, at"])
def test_a_password_in_a_url_is_never_shown(key: str, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"{key}: '{url}'")
    assert "heim" not in str(caught.value)
    assert "://…@i" in str(caught.value)


def test_a_secret_is_never_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        read("introspect: http://id/i, client_id: e, client_secret: '${env:S}'", S="geheim")
    assert "geheim" not in str(caught.value)


ASKED = "auth: { p: { authorize: https://a/, take: X-User-Id } }\n"


@pytest.mark.parametrize(
    "more", ["request: { set: { X_User_ID: a } }", "request: { add: { X-User-Id: a } }"]
)
def test_nobody_else_sets_what_it_sets(more: str) -> None:
    top = "upstreams: { shop: http://127.0.0.1:9001 }\n" + ASKED
    assert_problems(
        f"{top}routes: {{ '*': {{ »/: {{ to: shop, auth: p, {more} }} }} }}",
        "is set by 'p' and by this route or its upstream",
    )
    assert parse(f"{top}routes: {{ '*': {{ /: {{ to: shop, {more} }} }} }}")


def test_nor_does_an_upstream() -> None:
    assert_problems(
        "upstreams: { shop: { targets: http://127.0.0.1:9001, set: { X-User-Id: a } } }\n"
        + ASKED
        + "routes: { '*': { »/: { to: shop, auth: p } } }",
        "is set by 'p' and by this route or its upstream",
    )


def test_routes_are_not_told_apart_by_what_clients_cannot_send() -> None:
    assert_problems(
        "upstreams: { shop: http://127.0.0.1:9001 }\n"
        + ASKED
        + "routes: { '*': { /: { to: shop, when: { »X-User_Id: a } } } }",
        "is removed from what clients send",
    )


def test_what_is_not_safe_is_told() -> None:
    text = TOP + "auth: { p: { authorize: 'http://auth:4181/', plain: true } }"
    assert unverified(parse(text)) == [
        "auth p: `plain: true`: whoever is on the way to http://auth:4181/ says who is calling"
    ]
    assert not unverified(parse(TOP + "auth: { p: { authorize: https://auth/, plain: true } }"))


def test_nor_do_two_of_them() -> None:
    top = (
        "upstreams: { shop: http://127.0.0.1:9001 }\n"
        "auth: { p: { authorize: https://a/, take: X-User }, "
        "q: { authorize: https://b/, take: X-USER } }\n"
    )
    assert_problems(
        f"{top}routes: {{ '*': {{ »/: {{ to: shop, auth: {{ all: [p, q] }} }} }} }}",
        "X-USER is set by 'q' and by 'p'; set it once",
    )


def test_beside_others_that_are_all_asked_for() -> None:
    config = parse(
        "upstreams: { shop: http://127.0.0.1:9001 }\n"
        f"{ASKED}routes: {{ '*': {{ /: {{ to: shop, auth: {{ all: [api_key, p] }} }} }} }}"
    )
    assert config.routes[0].auth == ("api_key", "p")
