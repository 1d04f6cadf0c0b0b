"""Tokens taken apart: what is no token, and whose signature counts."""

from __future__ import annotations

import pytest
from tokens_support import by_hand, claims, dumped, key, key_set, token

from edgeproxy.identity import token as token_module
from edgeproxy.identity.jwk import ASYMMETRIC, read_set
from edgeproxy.identity.token import LARGEST, Refused, Token, UnknownKey, signer

KEYS = read_set(dumped(key_set(key())), ASYMMETRIC)


def test_a_good_one() -> None:
    found = Token(token(extra="é").encode())
    assert (found.algorithm, found.kid) == ("ES256", "k1")
    assert found.claims["extra"] == "é"
    assert signer(found, KEYS) is KEYS.keys[0]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ("", "three parts"),
        ("a.b", "three parts"),
        ("a.b.c.d.e", "three parts"),
        ("a.b.c\n", "three parts"),
        ("a..c", "three parts"),
        ("é.b.c", "three parts"),
        (token() + "=", "three parts"),
        ("a.e30.e30", "not base64url"),
        ("e30.e30.e31", "not base64url"),
        ("e30.e30.e30", "without alg"),
        (by_hand(b'{"alg":"ES256","alg":"none"}', claims()), "header is wrong: a member"),
        (by_hand({"alg": "ES256"}, b'{"iss":"a","iss":"b"}'), "payload is wrong: a member"),
        (by_hand({"alg": "ES256"}, b'{"a":{"b":1,"b":2}}'), "payload is wrong: a member"),
        (by_hand({"alg": "ES256"}, b"[1]"), "not a JSON object"),
        (by_hand({"alg": "ES256"}, b'{"exp":NaN}'), "NaN is no number"),
        (by_hand({"alg": "ES256"}, b'{"a":"\xff"}'), "not UTF-8"),
        (by_hand({"alg": "ES256"}, b"[" * 4000), "nested too deeply"),
        (by_hand({"alg": "ES256"}, b'{"exp":' + b"9" * 4500 + b"}"), "payload is wrong"),
        (by_hand({"alg": "ES256"}, dumped(claims()).decode().encode("utf-16")), "not UTF-8"),
        (by_hand({"alg": 5}, claims()), "without alg"),
        (by_hand({"alg": "ES256", "kid": 5}, claims()), "kid is not text"),
        *(
            (by_hand({"alg": "ES256", name: value}, claims()), f"with {name} in its header")
            for name, value in {
                "jku": "https://evil.example.com/keys",
                "x5u": "https://evil.example.com/chain",
                "jwk": key().as_dict(private=False),
                "x5c": ["MIIB"],
                "crit": ["exp"],
                "b64": False,
            }.items()
        ),
        ("e30." + "A" * LARGEST + ".e30", "more than 8192 bytes"),
    ],
)
def test_no_tokens(sent: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        Token(sent.encode())


def test_another_key_of_the_same_name() -> None:
    with pytest.raises(Refused, match="its signature is wrong") as caught:
        signer(Token(token(private=key("ES256", "other")).encode()), KEYS)
    assert not isinstance(caught.value, UnknownKey)


def test_no_such_key() -> None:
    with pytest.raises(UnknownKey, match="no key 'k2' for 'ES256'"):
        signer(Token(token(kid="k2").encode()), KEYS)


def test_without_a_kid() -> None:
    assert signer(Token(token(kid=None).encode()), KEYS) is KEYS.keys[0]
    with pytest.raises(UnknownKey, match="none of the keys"):
        signer(Token(token(kid=None, private=key("ES256", "other")).encode()), KEYS)


def test_headers_met_before_are_bounded_and_never_those_that_were_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgeproxy.identity.token._MOST_HEADERS", 2)
    known = token_module._headers
    known.clear()
    for number in range(5):
        for _ in range(2):
            found = Token(by_hand({"alg": "ES256", "kid": f"k{number}"}, claims()).encode())
            assert (found.algorithm, found.kid) == ("ES256", f"k{number}")
        assert len(known) <= 2
    before = dict(known)
    for _ in range(2):
        with pytest.raises(Refused, match="jku"):
            Token(by_hand({"alg": "ES256", "jku": "https://evil.example.com"}, claims()).encode())
    Token(by_hand({"alg": "ES256", "x": "y" * 600}, claims()).encode())
    assert known == before
