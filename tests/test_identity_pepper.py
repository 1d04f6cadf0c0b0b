"""The pepper, and how much of a key could be guessed."""

from __future__ import annotations

import hmac
import secrets
import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.identity.pepper import LEAST_BITS, Pepper, bits


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=600))
def test_a_digest_is_the_hmac(secret: bytes, credential: bytes) -> None:
    pepper = Pepper(secret)
    right = hmac.digest(secret, credential, "sha256")
    assert pepper.digest(credential) == right
    assert pepper.digest(credential) == right, "nothing is left of the first"


def test_the_fingerprint_tells_peppers_apart_and_nothing_else() -> None:
    one, two = Pepper(b"a" * 32), Pepper(b"b" * 32)
    assert len(one.fingerprint) == 16
    assert one.fingerprint != two.fingerprint
    assert Pepper(b"a" * 32).fingerprint == one.fingerprint
    assert repr(one) == f"<Pepper {one.fingerprint}>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a" * 400, 0),
        ("ab" * 200, 400),
        ("12345678", 26),
        ("hunter2hunter2", 72),
        ("0123456789abcdef" * 2, 128),
        ("0123456789ABCDEF" * 2, 128),
        ("0123456789abcde" * 2, 120),
        ("-_.!~ " * 100, 0),
        (str(uuid.UUID(int=0x0123456789ABCDEF0123456789ABCDEF)), 122),
    ],
)
def test_bits(text: str, expected: int) -> None:
    assert bits(text) == expected


def test_what_was_drawn_at_random_is_not_refused() -> None:
    """Else it would be for a mere chance."""
    for _ in range(500):
        for size in (16, 24, 32, 48):
            assert bits(secrets.token_hex(size)) >= size * 8
            assert bits(secrets.token_urlsafe(size + 8)) >= LEAST_BITS
        letters = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))
        assert bits(letters) >= LEAST_BITS  # what Kong makes
