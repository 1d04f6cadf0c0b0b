"""Tokens and key sets for tests, made by another library (joserfc), or by hand where it refuses."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from edgeproxy.testing.reactor import EPOCH

ISSUER = "https://id.example.com"
NOW = EPOCH
#: What makes a key, by the algorithm that it is for.
KINDS: dict[str, tuple[Any, Any]] = {
    "RS256": (RSAKey, 2048), "RS384": (RSAKey, 2048), "RS512": (RSAKey, 2048),
    "PS256": (RSAKey, 2048), "PS384": (RSAKey, 2048), "PS512": (RSAKey, 2048),
    "ES256": (ECKey, "P-256"), "ES384": (ECKey, "P-384"), "ES512": (ECKey, "P-521"),
    "EdDSA": (OKPKey, "Ed25519"), "Ed25519": (OKPKey, "Ed25519"), "Ed448": (OKPKey, "Ed448"),
}  # fmt: skip
SECRET = "0123456789abcdef" * 4


def key(algorithm: str = "ES256", kid: str | None = "k1") -> Any:
    """A private key; the same one for the same arguments."""
    return _key(algorithm, kid)


@cache
def _key(algorithm: str, kid: str | None) -> Any:
    if algorithm.startswith("HS"):
        return OctKey.import_key(SECRET)
    kind, size = KINDS[algorithm]
    return kind.generate_key(size, None if kid is None else {"kid": kid})


def key_set(*keys: Any, **more: Any) -> dict[str, Any]:
    """The set that an issuer shows; `more` stands on each key."""
    return {"keys": [{**each.as_dict(private=False), **more} for each in keys]}


def claims(**changed: Any) -> dict[str, Any]:
    """Good claims; ``None`` takes one away."""
    good = {"iss": ISSUER, "aud": "shop", "sub": "alice", "iat": NOW, "exp": NOW + 300}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def token(
    algorithm: str = "ES256", private: Any = None, kid: str | None = "k1", **said: Any
) -> str:
    """A token that joserfc has signed."""
    header = {"alg": algorithm} | ({} if kid is None else {"kid": kid})
    private = private or key(algorithm)
    return jwt.encode(header, claims(**said), private, algorithms=[algorithm])


def by_hand(header: Any, payload: Any, private: Any = None) -> str:
    """A token of any header and payload (as bytes, or to be made JSON), signed with ES256."""
    parts = [each if isinstance(each, bytes) else dumped(each) for each in (header, payload)]
    signed = b".".join(base64url(part) for part in parts)
    der = (private or key()).private_key.sign(signed, ECDSA(SHA256()))
    raw = b"".join(each.to_bytes(32, "big") for each in decode_dss_signature(der))
    return (signed + b"." + base64url(raw)).decode("ascii")


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")


def base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
