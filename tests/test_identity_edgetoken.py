"""X-Edge-Token: what it says, verified by another library, and how seldom one is signed."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from edgeproxy.identity.edgekeys import Key, arranged, published, signing
from edgeproxy.identity.edgetoken import Audience
from edgeproxy.identity.principal import Principal

START = 1_800_000_000
DAY = 86400


class Made:
    """An audience with its keys, which rotate as time is told."""

    def __init__(self, **settings: Any) -> None:
        self.keys = arranged((), START, DAY, 60)
        numbers = count(1)
        audience = settings.pop("audience", ("users",))
        self.audience = Audience(
            "https://edge.example.com",
            audience,
            60,
            self.key,
            lambda: f"n{next(numbers)}",
            **settings,
        )

    def key(self, now: float) -> Key:
        self.keys = arranged(self.keys, now, DAY, 60)
        return signing(self.keys, now)

    def claims(self, principal: Principal, now: float, audience: str = "users") -> dict[str, Any]:
        """Of the token, as a service verifies it."""
        line = self.audience.lines(principal, now)
        name, _, token = line.decode("ascii").rstrip("\r\n").partition(": ")
        assert name == "X-Edge-Token"
        keys = KeySet.import_key_set(json.loads(published(self.keys)))
        found = jwt.decode(token, keys, algorithms=["ES256"])
        jwt.JWTClaimsRegistry(
            now=int(now),
            iss={"essential": True, "value": "https://edge.example.com"},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        ).validate(found.claims)
        assert set(found.header) == {"alg", "typ", "kid"}
        return dict(found.claims)


ADA = Principal(
    "ada-1", "Ada, <b>Lovelace</b> ü", ("staff", "ops"), frozenset({"w", "r"}), "gold", "jwt"
)
BOB = Principal("bob", "Bob")


def test_what_it_says() -> None:
    made = Made()
    assert made.claims(ADA, START + 0.9) == {
        "iss": "https://edge.example.com",
        "sub": "ada-1",
        "name": "Ada, <b>Lovelace</b> ü",
        "groups": ["staff", "ops"],
        "scopes": ["r", "w"],
        "plan": "gold",
        "kind": "jwt",
        "aud": "users",
        "iat": START,
        "nbf": START,
        "exp": START + 60,
        "jti": "n1",
    }
    claims = made.claims(BOB, START)
    assert "plan" not in claims
    assert (claims["groups"], claims["scopes"], claims["jti"]) == ([], [], "n2")


def test_several_audiences() -> None:
    made = Made(audience=("a", "b"))
    assert made.claims(ADA, START, "b")["aud"] == ["a", "b"]
    with pytest.raises(JoseError):
        made.claims(ADA, START, "c")


def test_one_is_signed_once_until_half_of_its_life_is_over() -> None:
    made = Made()
    first = made.audience.lines(ADA, START)
    for now in (START, START + 1, START + 29.9):
        assert made.audience.lines(ADA, now) is first
    second = made.audience.lines(ADA, START + 30)
    assert second != first
    assert made.audience.lines(ADA, START + 59) is second
    assert made.audience.signed == 2


def test_callers_of_whom_the_same_is_known_share_one() -> None:
    made = Made()
    line = made.audience.lines(BOB, START)
    assert made.audience.lines(Principal("bob", "Bob"), START) is line
    for other in (
        Principal("bob", "Bob", groups=("ops",)),
        Principal("bob", "Bob", scopes=frozenset({"r"})),
        Principal("bob", "Bob", plan="gold"),
        Principal("bob", "Bob", kind="jwt"),
        Principal("bob", "Rob"),
        Principal("rob", "Bob"),
    ):
        assert made.audience.lines(other, START) != line
    assert made.audience.signed == 7


def test_a_clock_that_was_set_back_keeps_none_too_long() -> None:
    made = Made()
    made.audience.lines(ADA, START + 3600)
    claims = made.claims(ADA, START)
    assert (claims["iat"], made.audience.signed) == (START, 2)


def test_the_table_is_bounded() -> None:
    made = Made(most=3)
    callers = [Principal(str(number), "x") for number in range(5)]
    for each in callers:
        made.audience.lines(each, START)
    assert len(made.audience) == 3
    made.audience.lines(callers[4], START)
    assert made.audience.signed == 5
    made.audience.lines(callers[0], START)
    assert made.audience.signed == 6


def test_rotation() -> None:
    made = Made()
    token = made.audience.lines(ADA, START + DAY - 1)
    old = signing(made.keys, START)
    assert made.audience.lines(ADA, START + DAY + 10) is token, "its key is still published"
    claims = made.claims(ADA, START + DAY + 30)
    assert claims["iat"] == START + DAY + 30
    assert signing(made.keys, START + DAY + 30) is not old
    assert old in made.keys


def test_with_the_other_fields() -> None:
    line = Made(fields=True).audience.lines(BOB, START)
    assert line.startswith(b"X-Consumer-Id: bob\r\nX-Consumer-Name: Bob\r\nX-Edge-Token: ey")
    assert line.count(b"\r\n") == 3
