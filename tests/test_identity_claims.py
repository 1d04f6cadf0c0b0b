"""Claims against what a credential asks for, and the principal that they make."""

from __future__ import annotations

from typing import Any

import pytest
from tokens_support import ISSUER, NOW, claims, token

from edgeproxy.identity import claims as claims_module
from edgeproxy.identity.claims import Mapped, Terms, at, principal
from edgeproxy.identity.token import Refused, Token

TERMS = Terms(ISSUER, frozenset(["shop", "till"]), frozenset(["ES256"]))


class Said:
    """A token as far as claims go."""

    def __init__(self, header: dict[str, Any] | None = None, **changed: Any) -> None:
        self.header = {} if header is None else header
        self.claims = {**claims(), **changed}
        self.algorithm = "ES256"


@pytest.mark.parametrize(
    ("changed", "unlike"),
    [
        ({}, ""),
        ({"aud": ["else", "till"]}, ""),
        ({"iss": "https://id.example.com/"}, "issuer 'https://id.example.com/'"),
        ({"iss": None}, "issuer missing"),
        ({"iss": [ISSUER]}, "issuer ['https://id.example.com']"),
        ({"aud": "Shop"}, "audience 'Shop'"),
        ({"aud": []}, "audience []"),
        ({"aud": None}, "no audience"),
        ({"aud": {"shop": 1}}, "no audience"),
        ({"aud": ["shop", 5]}, "no audience"),
        ({"aud": "evil\r\n\u2028" * 50}, "audience 'evil\\r\\n\\u2028"),
    ],
)
def test_meant_for_us(changed: dict[str, Any], unlike: str) -> None:
    found = TERMS.meant(Said(**changed))  # type: ignore[arg-type]
    assert found.startswith(unlike) if unlike else found == ""
    assert len(found) < 120
    assert found.isascii()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"exp": None}, "exp is no time: missing"),
        ({"exp": "1795521900"}, "exp is no time"),
        ({"exp": True}, "exp is no time"),
        ({"exp": 10**400}, "exp is no time"),
        ({"exp": 1e300}, "exp is no time"),
        ({"exp": -1}, "exp is no time"),
        ({"exp": NOW - 30}, "expired"),
        ({"nbf": NOW + 30.5}, r"not yet valid \(nbf\)"),
        ({"nbf": "soon"}, "nbf is no time"),
        ({"iat": NOW + 31}, r"not yet valid \(iat\)"),
        ({"iat": [NOW]}, "iat is no time"),
        ({"cnf": {"jkt": "x"}}, "bound to a key"),
    ],
)
def test_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        TERMS.check(Said(**changed), NOW)  # type: ignore[arg-type]


def test_without_exp() -> None:
    said = Said()
    del said.claims["exp"]
    with pytest.raises(Refused, match="no exp"):
        TERMS.check(said, NOW)  # type: ignore[arg-type]


def test_leeway() -> None:
    said: Any = Said(exp=NOW - 29.5, nbf=NOW + 30, iat=NOW + 30)
    assert TERMS.check(said, NOW) == NOW + 0.5
    with pytest.raises(Refused):
        TERMS._replace(leeway=0.0).check(said, NOW)


def test_algorithm_of_another_credential() -> None:
    with pytest.raises(Refused, match="algorithm 'ES384'"):
        TERMS.check(Token(token("ES384").encode()), NOW)


@pytest.mark.parametrize(
    ("asked", "said", "good"),
    [
        (None, {}, True),
        (None, {"typ": "JWT"}, True),
        (None, {"typ": "application/at+jwt"}, True),
        (None, {"typ": None}, True),
        (None, {"typ": "logout+jwt"}, False),
        (None, {"typ": ["JWT"]}, False),
        ("at+jwt", {"typ": "AT+JWT"}, True),
        ("at+jwt", {"typ": "JWT"}, False),
        ("at+jwt", {}, False),
        ("secevent+jwt", {"typ": "secevent+jwt"}, True),
    ],
)
def test_types(asked: str | None, said: dict[str, Any], good: bool) -> None:
    terms = TERMS._replace(type=asked)
    if good:
        terms.check(Said(said), NOW)  # type: ignore[arg-type]
    else:
        with pytest.raises(Refused, match="type"):
            terms.check(Said(said), NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("required", "said", "good"),
    [
        ({"tenant": ("acme",)}, {"tenant": "acme"}, True),
        ({"tenant": ("acme", "emca")}, {"tenant": "emca"}, True),
        ({"tenant": ("acme",)}, {"tenant": ["x", "acme"]}, True),
        ({"tenant": ("acme",)}, {}, False),
        ({"tenant": ("acme",)}, {"tenant": None}, False),
        ({"tenant": ("acme",)}, {"tenant": "acme "}, False),
        ({"tenant": ("acme",)}, {"tenant": {"acme": 1}}, False),
        ({"email_verified": (True,)}, {"email_verified": True}, True),
        ({"email_verified": (True,)}, {"email_verified": 1}, False),
        ({"email_verified": (True,)}, {"email_verified": "true"}, False),
        ({"level": (3,)}, {"level": 3}, True),
        ({"a.b": ("c",)}, {"a": {"b": "c"}}, True),
        ({"a": ("x",), "b": ("y",)}, {"a": "x", "b": "z"}, False),
    ],
)
def test_required(required: dict[str, Any], said: dict[str, Any], good: bool) -> None:
    terms = TERMS._replace(required=required)
    if good:
        terms.check(Said(**said), NOW)  # type: ignore[arg-type]
    else:
        with pytest.raises(Refused, match="claim"):
            terms.check(Said(**said), NOW)  # type: ignore[arg-type]


def test_paths() -> None:
    said = {"a": {"b": 1}, "c.d": 2, "c": {"d": 3}, "https://x.example/r": 4, "e": [{"f": 5}]}
    assert at(said, "a.b") == 1
    assert at(said, "c.d") == 2
    assert at(said, "https://x.example/r") == 4
    for path in ("a.c", "a.b.c", "e.f", "https://y.example/r", "z"):
        assert not isinstance(at(said, path), int | dict), path


def test_whose_it_is() -> None:
    found = principal("partner", {"sub": "alice", "scope": "read  pay"}, Mapped())
    assert (found.id, found.name, found.kind) == ("partner:alice", "alice", "jwt")
    assert found.scopes == {"read", "pay"}
    assert (found.groups, found.plan) == ((), "")


@pytest.mark.parametrize(
    ("said", "scopes"),
    [
        ({}, set()),
        ({"scope": ""}, set()),
        ({"scope": None, "scp": "a"}, {"a"}),
        ({"scp": ["a", "b"]}, {"a", "b"}),
        ({"scope": "a", "scp": "b"}, {"a"}),
    ],
)
def test_scopes(said: dict[str, Any], scopes: set[str]) -> None:
    assert principal("p", {"sub": "a", **said}, Mapped()).scopes == scopes


def test_all_that_is_mapped() -> None:
    mapped = Mapped("client.id", "who", ("perms",), "realm_access.roles", "tier")
    said = {
        "client": {"id": "c-1"},
        "who": "Ändi",
        "perms": ["x:y"],
        "realm_access": {"roles": ["ops", "ops", "dev"]},
        "tier": "gold",
    }
    found = principal("p", said, mapped)
    assert (found.id, found.name, found.plan) == ("p:c-1", "Ändi", "gold")
    assert (found.scopes, found.groups) == ({"x:y"}, ("ops", "dev"))
    assert b"X-Consumer-Name: %C3%84ndi\r\n" in found.fields


@pytest.mark.parametrize(
    "changed",
    [
        {"sub": None},
        {"sub": ""},
        {"sub": 5},
        {"sub": ["alice"]},
        {"sub": " alice"},
        {"sub": "a\r\nX-Consumer-Id: root"},
        {"sub": "a\0"},
        {"sub": "\ud800"},
        {"sub": "a" * 1001},
        {"name": 5},
        {"name": "a\nb"},
        {"scope": 5},
        {"scope": ["a", 5]},
        {"scope": "a\0b"},
        {"groups": {"a": 1}},
        {"groups": ["a\n"]},
        {"groups": [str(number) for number in range(201)]},
        {"plan": ["gold"]},
    ],
)
def test_whose_is_open(changed: dict[str, Any]) -> None:
    mapped = Mapped(name="name", groups="groups", plan="plan")
    with pytest.raises(Refused, match="claim"):
        principal("p", {"sub": "alice", **changed}, mapped)


@pytest.mark.parametrize("kind", ["session", "introspection"])
@pytest.mark.parametrize(
    ("value", "id"),
    [(7, "p:7"), ("7", "p:7"), (1 << 64, "p:18446744073709551616")]
    + [(value, None) for value in (True, False, 7.0, 0, -1, None, [7], 10**1000)],
)
def test_endpoints_may_say_a_number(kind: str, value: Any, id: str | None) -> None:
    """Of numbers, 0 and less stand for nobody in many tables."""
    answer, mapped = {"user": {"id": value}}, Mapped("user.id")
    if id is None:
        with pytest.raises(Refused, match="names nobody"):
            principal("p", answer, mapped, kind)
    else:
        found = principal("p", answer, mapped, kind)
        assert (found.id, found.name) == (id, id[2:])
    if not isinstance(value, str):  # a token says it as text
        with pytest.raises(Refused, match="names nobody"):
            principal("p", answer, mapped)


def test_scopes_met_before_are_bounded_and_never_those_that_were_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgeproxy.identity.claims._MOST_KNOWN", 2)
    known = claims_module._known_scopes
    known.clear()
    for number in range(5):
        for _ in range(2):
            said = {"sub": "a", "scope": f"read s{number}"}
            assert principal("p", said, Mapped()).scopes == {"read", f"s{number}"}
        assert len(known) <= 2
    before = dict(known)
    for _ in range(2):
        with pytest.raises(Refused, match="scope"):
            principal("p", {"sub": "a", "scope": "a \x00"}, Mapped())
    principal("p", {"sub": "a", "scope": "x " * 600}, Mapped())
    assert known == before
