"""The form of an API key."""

from __future__ import annotations

import hashlib
import re
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.identity.apikey import RANDOM_BYTES, digest, generate, make, well_formed

FORM = re.compile(r"edge_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}")
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

some_random = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


def number(text: str) -> int:
    """Base62 read back, the long way."""
    value = 0
    for digit in text:
        value = value * 62 + DIGITS.index(digit)
    return value


@settings(deadline=None)
@given(some_random)
def test_a_key_has_the_form_and_keeps_all_the_randomness(random_bytes: bytes) -> None:
    key = make(random_bytes)
    assert FORM.fullmatch(key.credential)
    prefix, key_id, secret, checksum = key.credential.split("_")
    assert prefix == "edge"
    assert key_id == key.id
    assert number(secret) == int.from_bytes(random_bytes[16:], "big")
    assert number(key_id) == int.from_bytes(random_bytes[:16], "big") % 62**12
    assert number(checksum) == zlib.crc32(key.credential[:-7].encode())
    assert well_formed(key.credential.encode())
    assert generate(random_bytes) == key.credential


@pytest.mark.parametrize("edge", [b"\x00", b"\xff"])
def test_the_smallest_and_the_largest_fit(edge: bytes) -> None:
    assert well_formed(generate(edge * RANDOM_BYTES).encode())


@settings(deadline=None)
@given(some_random, st.data())
def test_one_wrong_character_is_noticed(random_bytes: bytes, data: st.DataObject) -> None:
    good = generate(random_bytes).encode()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[at]))
    assert not well_formed(good[:at] + bytes([bad]) + good[at + 1 :])


def test_other_lengths_are_no_key() -> None:
    good = generate(b"\x07" * RANDOM_BYTES).encode()
    for bad in (good[:-1], good + b"0", good + b"\n", b" " + good, b"", good[5:], good.upper()):
        assert not well_formed(bad)


def test_the_digest_is_sha256_of_the_whole() -> None:
    good = generate(b"\x07" * RANDOM_BYTES).encode()
    assert digest(good).hex() == hashlib.sha256(good).hexdigest()


@pytest.mark.parametrize("size", [0, RANDOM_BYTES - 1, RANDOM_BYTES + 1])
def test_too_little_randomness_makes_no_key(size: int) -> None:
    with pytest.raises(ValueError, match="48 random bytes"):
        make(bytes(size))


def test_a_key_does_not_show_in_a_repr() -> None:
    key = make(b"\x07" * RANDOM_BYTES)
    assert key.credential not in repr(key)
    assert key.credential[18:40] not in repr(key)
