"""The keys of X-Edge-Token over time: which signs, which are published, how they are kept."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, KeySet

from edgeproxy.identity.edgekeys import (
    CACHE,
    LEAD,
    Unusable,
    arranged,
    make,
    published,
    read,
    signing,
    written,
)

DAY = 86400
LIFE = 60
START = 1_800_000_000


def test_the_first_signs_at_once_and_the_next_is_known_for_a_day() -> None:
    keys = arranged((), START + 0.5, DAY, LIFE)
    assert [key.since for key in keys] == [START, START + DAY]
    assert signing(keys, START + 0.5) is keys[0]
    assert arranged(keys, START + 1, DAY, LIFE) == keys


def test_a_year_on_a_fake_clock() -> None:
    """At every moment: who fetched the set within the last five minutes knows the key of every
    token that is good."""
    keys = arranged((), START, DAY, LIFE)
    known: dict[int, set[str]] = {}
    tokens: list[tuple[int, str]] = []
    changes = 0
    for now in range(START, START + 10 * DAY, 60):
        keys, before = arranged(keys, now, DAY, LIFE), keys
        changes += signing(keys, now) is not signing(before, now - 60)
        known[now] = {key.id for key in keys}
        tokens = [(made, key) for made, key in tokens if made + LIFE > now]
        tokens.append((now, signing(keys, now).id))
        for fetched in range(max(START, now - CACHE), now + 1, 60):
            assert {key for _, key in tokens} <= known[fetched], now
        assert len(keys) <= 3
    assert changes == 9
    assert len(keys) == 2 or keys[1].since + LIFE + CACHE > now


def test_the_old_one_stays_until_its_last_token_and_what_is_remembered_are_gone() -> None:
    keys = arranged((), START, DAY, LIFE)
    old, new = keys
    end = START + DAY + LIFE + CACHE
    keys = arranged(keys, START + DAY, DAY, LIFE)
    assert signing(keys, START + DAY) is new
    assert old in arranged(keys, end - 1, DAY, LIFE)
    assert old not in arranged(keys, end, DAY, LIFE)


def test_after_a_long_stop_a_new_one_is_known_before_it_signs() -> None:
    first = arranged((), START, DAY, LIFE)
    now = START + 30 * DAY
    keys = arranged(first, now, DAY, LIFE)
    assert signing(keys, now) is first[1]
    assert [key.since for key in keys] == [START + DAY, now + LEAD]


def test_a_clock_that_was_set_back() -> None:
    keys = arranged((), START, DAY, LIFE)
    assert signing(keys, START - 7 * DAY) is keys[0]
    assert arranged(keys, START - 7 * DAY, DAY, LIFE) == keys


def test_what_is_published_is_public_and_another_library_reads_it() -> None:
    keys = arranged((), START, DAY, LIFE)
    entries = json.loads(published(keys))["keys"]
    assert [sorted(each) for each in entries] == [["alg", "crv", "kid", "kty", "use", "x", "y"]] * 2
    found = KeySet.import_key_set({"keys": entries}).keys
    for key, theirs in zip(keys, found, strict=True):
        assert isinstance(theirs, ECKey)
        assert (theirs.kid, theirs.thumbprint()) == (key.id, key.id)  # RFC 7638
        assert theirs.public_key.public_numbers() == key.private.public_key().public_numbers()


def test_what_is_kept_comes_back() -> None:
    keys = arranged((), START, DAY, LIFE)
    found = read(written(reversed(keys)))
    assert [(key.id, key.since, key.public) for key in found] == [
        (key.id, key.since, key.public) for key in keys
    ]


GOOD = json.loads(written([make(START)]))["keys"][0]


def of_another_curve() -> str:
    """A private key like ours, but on a curve that nobody knows."""
    data = b64decode("".join(GOOD["private"].splitlines()[1:-1]))
    curve = bytes.fromhex("06082a8648ce3d030107")  # RFC 5480 2.1.1.1: secp256r1
    assert data.count(curve) == 1
    text = b64encode(data.replace(curve, curve[:-1] + b"c")).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"


def pem(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b'{"keys": null}',
        b'{"keys": []}',
        b'{"keys": [1]}',
        b"[" * 100_000,
        json.dumps({"keys": [GOOD, GOOD]}).encode(),
        json.dumps({"keys": [GOOD | {"since": "now"}]}).encode(),
        json.dumps({"keys": [GOOD | {"since": -1}]}).encode(),
        json.dumps({"keys": [GOOD | {"since": True}]}).encode(),
        json.dumps({"keys": [GOOD | {"private": GOOD["private"][:80]}]}).encode(),
        json.dumps({"keys": [GOOD | {"private": "ü"}]}).encode(),
        json.dumps({"keys": [{"since": 1}]}).encode(),
        json.dumps({"keys": [GOOD | {"private": of_another_curve()}]}).encode(),
        json.dumps({"keys": [GOOD | {"private": pem(Ed25519PrivateKey.generate())}]}).encode(),
        json.dumps({"keys": [GOOD | {"private": pem(generate_private_key(SECP384R1()))}]}).encode(),
        written([make(n) for n in range(17)]),
    ],
)
def test_what_is_no_file_of_keys(text: bytes) -> None:
    with pytest.raises(Unusable):
        read(text)
