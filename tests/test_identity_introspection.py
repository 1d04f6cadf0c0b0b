"""What an endpoint says of a token, held against what its credential asks for."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.identity.claims import Mapped
from edgeproxy.identity.introspection import Expected, find, wrong_token
from edgeproxy.identity.token import Refused

NOW = 1000.0
GOOD = {"active": True, "sub": "ann"}
ASKS = Expected("introspection", Mapped(), "https://id", frozenset(["shop", "pay"]))
ANY = Expected("introspection", Mapped())
SESSION = Expected("session", Mapped(), active=False)


def test_who_it_is() -> None:
    found = find("legacy", {**GOOD, "scope": "a b"}, ANY, NOW)
    assert found.principal.id == "legacy:ann"
    assert found.principal.kind == "introspection"
    assert found.principal.scopes == {"a", "b"}
    assert found.life == float("inf")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"active": False}, "not active"),
        ({"active": "true"}, "not active"),
        ({"active": 1}, "not active"),
        ({"active": None}, "not active"),
        ({"exp": NOW - 30}, "expired"),
        ({"exp": "soon"}, "exp is no time"),
        ({"exp": None}, "exp is no time"),
        ({"exp": True}, "exp is no time"),
        ({"nbf": NOW + 31}, "not yet valid"),
        ({"sub": None}, "names nobody"),
        ({"sub": 5.0}, "names nobody"),
        ({"sub": ""}, "names nobody"),
        ({"sub": "a\nb"}, "names nobody"),
        ({"cnf": {"jkt": "x"}}, "bound to a key"),
        ({"scope": [1]}, "no list of names"),
    ],
)
def test_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        find("legacy", {**GOOD, **said}, ANY, NOW)


def test_active_must_be_said_of_a_token_alone() -> None:
    with pytest.raises(Refused, match="not active"):
        find("legacy", {"sub": "ann"}, ANY, NOW)
    assert find("session", {"sub": "ann"}, SESSION, NOW).principal.kind == "session"
    with pytest.raises(Refused, match="not active"):
        find("session", {"sub": "ann", "active": False}, SESSION, NOW)


@pytest.mark.parametrize("audience", ["shop", ["x", "pay"], ["shop", 1]])
def test_the_audience_is_ours(audience: Any) -> None:
    assert find("legacy", {**GOOD, "iss": "https://id", "aud": audience}, ASKS, NOW)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"aud": "shop"},
        {"iss": "https://id"},
        {"iss": "https://other", "aud": "shop"},
        {"iss": "https://id", "aud": "other"},
        {"iss": "https://id", "aud": ["other"]},
        {"iss": "https://id", "aud": []},
        {"iss": "https://id", "aud": {"shop": 1}},
        {"iss": ["https://id"], "aud": "shop"},
    ],
)
def test_another_issuer_or_audience(said: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="issuer|audience"):
        find("legacy", {**GOOD, **said}, ASKS, NOW)


@pytest.mark.parametrize(("expires", "life"), [(1010, 10), (1000, 0), (980, 0)])
def test_no_longer_than_it_lives(expires: float, life: float) -> None:
    assert find("legacy", {**GOOD, "exp": expires}, ANY, NOW).life == life


@pytest.mark.parametrize("token", [b"a", b"a.b-c_d~e+/==", b"x" * 8192])
def test_tokens(token: bytes) -> None:
    assert wrong_token(token) == ""


@pytest.mark.parametrize("token", [b"", b"a b", b"a=b", b"\xe4", b"a\x00", b"x" * 8193, b'"a"'])
def test_no_tokens(token: bytes) -> None:
    assert wrong_token(token)
