"""A JSON Web Token as it was sent (RFC 7519, in the compact form of RFC 7515), and its signature.

What a token says counts only after its signature was found right; before that it serves to choose
who verifies it. PyJWT verifies signatures and reads keys. It is stricter and quicker here to take
the token apart ourselves: PyJWT takes padding and members that stand twice, and spends 30 µs on it.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, b2a_base64
from typing import Any

from edgeproxy.identity.jwk import Key, KeySet
from edgeproxy.identity.strictjson import strict_object

LARGEST = 8 << 10
"""Bytes of a token, looked at before anything is decoded."""

_FORM = re.compile(rb"([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)\Z")
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
#: Keys that a token brings along are worth nothing (RFC 8725 3.10), and what `crit` demands is
#: unknown here (RFC 7515 4.1.11); `b64` is one of those (RFC 7797).
_REFUSED = frozenset(["jku", "jwk", "x5u", "x5c", "crit", "b64"])


class Refused(Exception):
    """A token that does not let in; the text says why, for the log."""


class UnknownKey(Refused):
    """The key that has signed the token is not among those known."""


class Token:
    """A token taken apart. Nothing of it is verified."""

    __slots__ = ("algorithm", "claims", "header", "kid", "signature", "signed")

    def __init__(self, bearer: bytes) -> None:
        """:raises Refused: it is no such token, or none that is ever accepted."""
        if len(bearer) > LARGEST:
            raise Refused(f"a token of more than {LARGEST} bytes")
        parts = _FORM.match(bearer)
        if parts is None:
            raise Refused("not a signed token of three parts")
        header, claims, signature = parts.groups()
        self.signed = bearer[: parts.end(2)]
        self.signature = _decoded(signature, "signature")
        self.header, self.algorithm, self.kid = _headers.get(header) or _read_header(header)
        self.claims = _object(claims, "payload")


#: Headers that were read, by their text: all tokens by one key have the same. Bounded.
_headers: dict[bytes, tuple[dict[str, Any], str, str | None]] = {}
_MOST_HEADERS = 64
_LONGEST_HEADER = 512


def _read_header(part: bytes) -> tuple[dict[str, Any], str, str | None]:
    header = _object(part, "header")
    read = (header, *_named(header))
    if len(part) <= _LONGEST_HEADER:
        if len(_headers) >= _MOST_HEADERS:
            _headers.clear()
        _headers[part] = read
    return read


def _named(header: dict[str, Any]) -> tuple[str, str | None]:
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise Refused("a token without alg")
    if not isinstance(kid, str | None):
        raise Refused("a token whose kid is not text")
    refused = _REFUSED & header.keys()
    if refused:
        raise Refused(f"a token with {', '.join(sorted(refused))} in its header")
    return algorithm, kid


def _decoded(part: bytes, what: str) -> bytes:
    """One part, from base64url without padding in its one spelling (RFC 7515 2)."""
    plain = part.translate(_TO_BASE64) + b"=" * (-len(part) % 4)
    try:
        data = a2b_base64(plain)
    except Error:
        raise Refused(f"a token whose {what} is not base64url") from None
    if b2a_base64(data, newline=False) != plain:
        raise Refused(f"a token whose {what} is not base64url")
    return data


def _object(part: bytes, what: str) -> dict[str, Any]:
    try:
        return strict_object(_decoded(part, what))
    except ValueError as error:
        raise Refused(f"a token whose {what} is wrong: {error}") from None


def signer(token: Token, keys: KeySet) -> Key:
    """The key that has signed the token.

    :raises UnknownKey: the set has no such key.
    :raises Refused: the signature is not right.
    """
    fitting = keys.fitting(token.kid, token.algorithm)
    for key in fitting:
        if key.verifies(token.algorithm, token.signed, token.signature):
            return key
    if token.kid is None:
        raise UnknownKey("signed by none of the keys, and it names none")
    if not keys.knows(token.kid, token.algorithm):
        rest = ", and signed by none without a name" if fitting else ""
        raise UnknownKey(f"no key {token.kid[:100]!a} for {token.algorithm[:20]!a}{rest}")
    raise Refused("its signature is wrong")
