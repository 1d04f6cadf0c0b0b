"""The keys that sign X-Edge-Token: which of them signs, which are published, when one follows.

Every key has a moment from which it signs. There is always one whose moment is still to come, and
it is published from the day it is made: when it begins to sign, services have known it for long.
One that signs no more stays published until its last token has expired, and what services have
remembered of the set has too. All of it follows from the keys and the time, so that processes that
share a file agree without asking each other.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

CACHE = 300
"""Seconds for which services may remember the set: what PyJWT's PyJWKClient does by default."""

LEAD = 3600
"""Seconds at least for which a key is published before it signs, if others are at work already."""

_MOST = 16
_SIZE = 32  # bytes of a coordinate of P-256


class Unusable(ValueError):
    """The text is no file of keys; says why."""


class Key(NamedTuple):
    """One key; `since` (unix seconds) is when it begins to sign, `public` its JWK."""

    id: str
    since: int
    private: ec.EllipticCurvePrivateKey
    public: dict[str, str]


def make(since: int) -> Key:
    """A new key of ES256 (RFC 7518 3.4)."""
    return _key(ec.generate_private_key(ec.SECP256R1()), since)


def _key(private: ec.EllipticCurvePrivateKey, since: int) -> Key:
    numbers = private.public_key().public_numbers()
    x, y = (_base64(number.to_bytes(_SIZE, "big")) for number in (numbers.x, numbers.y))
    thumbprint = json.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, separators=(",", ":"))
    name = _base64(sha256(thumbprint.encode("ascii")).digest())  # RFC 7638
    public = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
    return Key(name, since, private, {**public, "use": "sig", "alg": "ES256", "kid": name})


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def signing(keys: Sequence[Key], now: float) -> Key:
    """The one that signs now; `keys` in their order, at least one."""
    return next((key for key in reversed(keys) if key.since <= now), keys[0])


def arranged(keys: Iterable[Key], now: float, rotate: int, lifetime: int) -> tuple[Key, ...]:
    """What the keys should be now: without those that are done with, and with one to come.

    `rotate` and `lifetime` (of a token) in seconds.
    """
    found = sorted(keys, key=lambda key: key.since)
    if not found:
        found = [make(int(now))]
    if found[-1].since <= now:
        found.append(make(max(found[-1].since + rotate, int(now) + LEAD)))
    while len(found) > 2 and found[1].since + lifetime + CACHE <= now:
        del found[0]
    return tuple(found)


def published(keys: Iterable[Key]) -> bytes:
    """The set as services fetch it (RFC 7517 5)."""
    return json.dumps({"keys": [key.public for key in keys]}, separators=(",", ":")).encode("ascii")


def written(keys: Iterable[Key]) -> bytes:
    """The keys as they are kept. Secret."""
    return json.dumps(
        {
            "keys": [
                {
                    "since": key.since,
                    "private": key.private.private_bytes(
                        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                    ).decode("ascii"),
                }
                for key in keys
            ]
        },
        indent=1,
    ).encode("ascii")


def read(text: bytes) -> tuple[Key, ...]:
    """The keys that were kept, in their order.

    :raises Unusable: it is not what `written` writes.
    """
    try:
        entries = json.loads(text)["keys"]
        keys = [_kept(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, RecursionError, UnsupportedAlgorithm) as error:
        raise Unusable(f"it is no file of keys ({type(error).__name__})") from None
    if not 0 < len(keys) <= _MOST or len({key.id for key in keys}) < len(keys):
        raise Unusable(f"it holds {len(keys)} keys; 1 to {_MOST} different ones would be right")
    return tuple(sorted(keys, key=lambda key: key.since))


def _kept(entry: dict[str, Any]) -> Key:
    since = entry["since"]
    private = load_pem_private_key(entry["private"].encode("ascii"), None)
    if type(since) is not int or not 0 <= since < 1 << 40:
        raise ValueError
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
        raise ValueError
    return _key(private, since)
