"""Key sets of issuers (JSON Web Keys, RFC 7517): which keys are usable, and for which algorithms.

An algorithm belongs to a key, never to a token (RFC 8725 3.1): what a token says of itself only
chooses among what its key's type, curve and own statements allow.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from jwt.algorithms import Algorithm

from edgeproxy.identity.strictjson import strict_object

#: Hash sizes in bytes: a shared secret has at least as many (RFC 7518 3.2).
SYMMETRIC = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
#: By type, and by curve where there are several (RFC 7518 3.1, RFC 8037 3.1, RFC 9864 2.2).
_ALGORITHMS: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA", "Ed25519"),
    ("OKP", "Ed448"): ("EdDSA", "Ed448"),
}
ASYMMETRIC = tuple(dict.fromkeys(name for names in _ALGORITHMS.values() for name in names))
#: RFC 9864 names for what PyJWT knows as EdDSA.
_SAME = {"Ed25519": "EdDSA", "Ed448": "EdDSA"}

_MOST_KEYS = 100
_LEAST_BITS, _MOST_BITS = 2048, 8192
"""Of an RSA modulus: RFC 7518 3.3; beyond that one signature costs a millisecond and more."""
_LONGEST_EXPONENT = 8
"""Characters of an RSA exponent: 65537 has four; a long one makes each signature slow."""
_MOST_TRIED = 4


class Unusable(ValueError):
    """A key that verifies nothing for us; the text says why."""


class Key:
    """One key. `kid` is its name in the set; `algorithms` are those it may verify.

    `gone` is set when its issuer no longer shows it: what it verified is worth nothing then.
    """

    __slots__ = ("_key", "algorithms", "gone", "kid", "text")

    def __init__(self, key: Any, kid: str | None, algorithms: Iterable[str], text: str) -> None:
        self._key = key
        self.kid = kid
        self.algorithms: dict[str, Algorithm] = {
            name: jwt.get_algorithm_by_name(_SAME.get(name, name)) for name in algorithms
        }
        #: The whole key in one spelling, to be compared.
        self.text = text
        self.gone = False

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's, by an algorithm of `algorithms`."""
        return self.algorithms[algorithm].verify(signed, self._key, signature)

    def __repr__(self) -> str:
        return f"<Key {self.kid!r} {'/'.join(self.algorithms)}>"


class KeySet:
    """The usable keys of a set; `unused` says of each other one why it is not."""

    def __init__(self, keys: Collection[Key], unused: Collection[str] = ()) -> None:
        self.keys = tuple(keys)
        self.unused = tuple(unused)
        named: dict[tuple[str | None, str], list[Key]] = {}
        nameless: dict[str, list[Key]] = {}
        for key in self.keys:
            for algorithm in key.algorithms:
                named.setdefault((None, algorithm), []).append(key)
                if key.kid is not None:
                    named.setdefault((key.kid, algorithm), []).append(key)
                else:
                    nameless.setdefault(algorithm, []).append(key)
        self._named = {name: tuple(found) for name, found in named.items()}
        self._nameless = {name: tuple(found) for name, found in nameless.items()}

    def fitting(self, kid: str | None, algorithm: str) -> tuple[Key, ...]:
        """The keys that may have signed a token which says this; at most four are tried. One that
        names none of the set may be by a key without a name, as Envoy has it: RFC 7515 4.1.4 calls
        `kid` a hint, and RFC 7517 4.5 lets a key do without."""
        found = self._named.get((kid, algorithm)) or self._nameless.get(algorithm, ())
        return found if len(found) <= _MOST_TRIED else ()

    def knows(self, kid: str, algorithm: str) -> bool:
        """Whether a key of the set has that name."""
        return (kid, algorithm) in self._named

    def after(self, before: KeySet | None) -> KeySet:
        """This set in place of an earlier one: keys in both stay the same objects, and those that
        are in the earlier one alone are gone."""
        if before is None:
            return self
        known = {key.text: key for key in before.keys}
        kept = [known.pop(key.text, key) for key in self.keys]
        for key in known.values():
            key.gone = True
        return KeySet(kept, self.unused)


class Secret(KeySet):
    """The one key that issuer and gateway share; whatever a token calls it."""

    def fitting(self, kid: str | None, algorithm: str) -> tuple[Key, ...]:
        return super().fitting(None, algorithm)

    def knows(self, kid: str, algorithm: str) -> bool:
        return True


def secret_set(secret: bytes, algorithms: Collection[str]) -> KeySet:
    """A shared secret as a key set; `algorithms` are among those that its length allows."""
    return Secret([Key(secret, None, algorithms, "")])


def symmetric_algorithms(secret: bytes) -> tuple[str, ...]:
    """The algorithms that a secret is long enough for."""
    return tuple(name for name, size in SYMMETRIC.items() if len(secret) >= size)


def read_set(data: bytes, algorithms: Collection[str]) -> KeySet:
    """The keys of a JWK Set that verify signatures by some of `algorithms`.

    Keys of other kinds may stand beside them (RFC 7517 5). Raises `ValueError`, with the reason in
    a few words, when it is no such set or nothing in it is usable.
    """
    entries = strict_object(data).get("keys")
    if not isinstance(entries, list):
        raise ValueError("it is no key set: there is no list of `keys`")
    if len(entries) > _MOST_KEYS:
        raise ValueError(f"it has more than {_MOST_KEYS} keys")
    keys: list[Key] = []
    unused: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            keys.append(_key(entry, algorithms))
        except Unusable as error:
            unused.append(f"key {number}: {error}")
    if not keys:
        why = "; ".join(unused[:3]) or "it is empty"
        raise ValueError(f"no key in it is usable: {why}")
    return KeySet(keys, unused)


def _key(entry: Any, algorithms: Collection[str]) -> Key:
    if not isinstance(entry, dict):
        raise Unusable("it is not a JSON object")
    kid = entry.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise Unusable("its kid is not text")
    _check_purpose(entry)
    fitting = [name for name in _bound(entry) if name in algorithms]
    if not fitting:
        raise Unusable("its algorithm is not among those allowed")
    return Key(_public_key(entry, fitting[0]), kid, fitting, json.dumps(entry, sort_keys=True))


def _check_purpose(entry: dict[str, Any]) -> None:
    """RFC 7517 4.2, 4.3; and a private key that is shown around is nobody's any more."""
    if entry.get("kty") == "oct" or "k" in entry:
        raise Unusable("it is a shared secret, which only `secret` may hold")
    if "d" in entry:
        raise Unusable("it is a private key")
    if entry.get("use", "sig") != "sig":
        raise Unusable("it is not for signatures (use)")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise Unusable("it does not verify (key_ops)")


def _bound(entry: dict[str, Any]) -> Iterator[str]:
    """The algorithms of the key's type and curve, or the one of them that it names itself."""
    kind, curve = entry.get("kty"), entry.get("crv")
    if not isinstance(kind, str) or not isinstance(curve, str | None):
        raise Unusable("its kty or crv is not text")
    possible = _ALGORITHMS.get((kind, None if kind == "RSA" else curve))
    if possible is None:
        raise Unusable("its type or curve is not known")
    own = entry.get("alg")
    if own is None:
        yield from possible
    elif own in possible:
        yield own
    else:
        raise Unusable("its alg is none of its type")


def _public_key(entry: dict[str, Any], algorithm: str) -> Any:
    if entry["kty"] == "RSA":
        modulus, exponent = entry.get("n"), entry.get("e")
        if not isinstance(modulus, str) or not isinstance(exponent, str):
            raise Unusable("it has no n or e")
        if len(modulus) * 6 > _MOST_BITS + 64 or len(exponent) > _LONGEST_EXPONENT:
            raise Unusable("it is too large")
    try:
        key: Any = jwt.get_algorithm_by_name(_SAME.get(algorithm, algorithm)).from_jwk(entry)
    except (ValueError, TypeError, AttributeError, jwt.PyJWTError, UnsupportedAlgorithm):
        raise Unusable("it cannot be read") from None
    if entry["kty"] == "RSA" and key.key_size < _LEAST_BITS:
        raise Unusable(f"it has less than {_LEAST_BITS} bits")
    return key
