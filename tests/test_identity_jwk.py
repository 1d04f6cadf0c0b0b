"""Key sets: which keys are usable, for which algorithms, and which are gone."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc.jwk import OctKey, RSAKey
from tokens_support import dumped, key, key_set

from edgeproxy.identity.jwk import ASYMMETRIC, read_set, secret_set, symmetric_algorithms

EC = key_set(key())["keys"][0]
RSA = key_set(key("RS256"))["keys"][0]


@pytest.mark.parametrize(
    ("entry", "algorithms"),
    [
        (RSA, "RS256 RS384 RS512 PS256 PS384 PS512"),
        (RSA | {"alg": "PS384"}, "PS384"),
        (EC, "ES256"),
        (EC | {"use": "sig", "key_ops": ["verify"], "x5c": ["MII"]}, "ES256"),
        (key_set(key("ES384"))["keys"][0], "ES384"),
        (key_set(key("ES512"))["keys"][0], "ES512"),
        (key_set(key("Ed25519"))["keys"][0], "EdDSA Ed25519"),
        (key_set(key("Ed448"))["keys"][0] | {"alg": "EdDSA"}, "EdDSA"),
    ],
)
def test_algorithms_belong_to_the_key(entry: dict[str, Any], algorithms: str) -> None:
    (found,) = read_set(dumped({"keys": [entry]}), ASYMMETRIC).keys
    assert list(found.algorithms) == algorithms.split()


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (5, "not a JSON object"),
        ({}, "not text"),
        (EC | {"kid": 5}, "kid"),
        (EC | {"use": "enc"}, "use"),
        (EC | {"key_ops": ["encrypt"]}, "key_ops"),
        (EC | {"key_ops": "verify"}, "key_ops"),
        (EC | {"alg": "ES384"}, "alg"),
        (EC | {"alg": "none"}, "alg"),
        (EC | {"alg": "HS256"}, "alg"),
        (EC | {"alg": ["ES256"]}, "alg"),
        (EC | {"crv": "P-384"}, "cannot be read"),
        (EC | {"crv": "secp256k1"}, "curve is not known"),
        (EC | {"kty": ["EC"]}, "not text"),
        (EC | {"x": EC["y"]}, "cannot be read"),  # not a point of the curve
        (EC | {"x": 5}, "cannot be read"),
        (key().as_dict(private=True), "private key"),
        (key("RS256").as_dict(private=True), "private key"),
        (OctKey.generate_key(256).as_dict(private=True), "shared secret"),
        (RSAKey.generate_key(1024).as_dict(private=False), "less than 2048 bits"),
        (RSA | {"e": "A" * 100}, "too large"),
        (RSA | {"n": "A" * 3000}, "too large"),
        (RSA | {"e": None}, "no n or e"),
        (RSA | {"n": "é"}, "cannot be read"),
    ],
)  # fmt: skip
def test_unusable(entry: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"no key in it is usable: key 1: .*{why}"):
        read_set(dumped({"keys": [entry]}), ASYMMETRIC)
    found = read_set(dumped({"keys": [entry, EC]}), ASYMMETRIC)  # those beside it are
    assert len(found.keys) == len(found.unused) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no list"),
        (b'{"keys":[]}', "empty"),
        (b'{"keys":[],"keys":[]}', "twice"),
        (b'{"keys":' + b"[" * 100_000, "deeply"),
        (dumped({"keys": [EC] * 101}), "more than 100"),
    ],
)
def test_no_sets(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_set(data, ASYMMETRIC)


def test_algorithms_narrowed() -> None:
    assert list(read_set(dumped({"keys": [RSA]}), ["PS256"]).keys[0].algorithms) == ["PS256"]
    with pytest.raises(ValueError, match="not among those allowed"):
        read_set(dumped({"keys": [EC]}), ["PS256"])


def test_at_most_four_are_tried() -> None:
    others = [{key: v for key, v in EC.items() if key != "kid"} | {"n": n} for n in range(5)]
    assert len(read_set(dumped({"keys": others[:4]}), ASYMMETRIC).fitting(None, "ES256")) == 4
    assert read_set(dumped({"keys": others}), ASYMMETRIC).fitting(None, "ES256") == ()


def test_a_key_without_a_name_may_be_of_any() -> None:
    nameless = {name: value for name, value in EC.items() if name != "kid"}
    found = read_set(dumped({"keys": [EC | {"kid": "e"}, nameless, RSA]}), ASYMMETRIC)
    named, other, _ = found.keys
    assert found.fitting("e", "ES256") == (named,)
    assert found.fitting("other", "ES256") == (other,)
    assert found.fitting("other", "RS256") == found.fitting("other", "ES384") == ()
    assert found.fitting(None, "ES256") == (named, other)
    assert [found.knows(name, "ES256") for name in ("e", "other", "r")] == [True, False, False]
    many = read_set(dumped({"keys": [nameless] * 5}), ASYMMETRIC)
    assert many.fitting("other", "ES256") == ()


def test_what_leaves_is_gone() -> None:
    first = read_set(dumped({"keys": [EC, RSA]}), ASYMMETRIC).after(None)
    changed = EC | {"kid": "new"}
    second = read_set(dumped({"keys": [changed, RSA]}), ASYMMETRIC).after(first)
    assert [key.gone for key in first.keys] == [True, False]
    assert second.keys[1] is first.keys[1]
    assert [key.gone for key in second.keys] == [False, False]


def test_secrets() -> None:
    assert symmetric_algorithms(b"x" * 31) == ()
    assert symmetric_algorithms(b"x" * 48) == ("HS256", "HS384")
    made = secret_set(b"x" * 32, ["HS256"])
    assert made.fitting("any", "HS256") == made.keys
    assert made.fitting(None, "HS512") == ()
    assert made.fitting(None, "RS256") == ()
