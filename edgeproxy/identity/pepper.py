"""The pepper: a secret beside the key file, without which its digests are of no use.

With one, a key is stored and looked up by HMAC-SHA-256 (RFC 2104) of its text in place of SHA-256.
Who steals the key file alone cannot try texts on it then, so that keys may stand there which could
be guessed by trying: those that were brought along from another gateway.
"""

from __future__ import annotations

import math
import re
from hashlib import sha256

LEAST_BITS = 128
"""Of a key that is to stand in a key file without a pepper, and of the pepper itself."""

_BLOCK = 64  # bytes that SHA-256 works on at a time
_FINGERPRINT_OF = b"edgeproxy: the pepper of a key file"


class Pepper:
    """`fingerprint` is what lines of a key file say of the pepper that they were made with."""

    __slots__ = ("_inner", "_outer", "fingerprint")

    def __init__(self, secret: bytes) -> None:
        if len(secret) > _BLOCK:
            secret = sha256(secret).digest()
        secret = secret.ljust(_BLOCK, b"\0")
        # RFC 2104 written out: `hmac` takes 4.1 µs for a key, its own copy() included; with both
        # hashes begun beforehand it is 2.3, beside 1.3 for SHA-256 alone.
        self._inner = sha256(bytes(each ^ 0x36 for each in secret))
        self._outer = sha256(bytes(each ^ 0x5C for each in secret))
        self.fingerprint = self.digest(_FINGERPRINT_OF)[:8].hex()

    def digest(self, credential: bytes) -> bytes:
        """The 32 bytes under which a key is stored and looked up."""
        inner = self._inner.copy()
        inner.update(credential)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def __repr__(self) -> str:
        return f"<Pepper {self.fingerprint}>"


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
_UUID_BITS = 122  # RFC 9562 5.4; those of other versions have fewer
_ALPHABETS = (
    (10, re.compile(r"[0-9]*")),
    (16, re.compile(r"[0-9a-f]*|[0-9A-F]*")),
    (26, re.compile(r"[a-z]*|[A-Z]*")),
    (36, re.compile(r"[0-9a-z]*|[0-9A-Z]*")),
    (62, re.compile(r"[0-9A-Za-z]*")),
)


def bits(text: str) -> int:
    """The bits that a text has if it was drawn at random: its length times log2 of the alphabet.

    That is the most it can have: whether it was random cannot be seen. Only letters and digits
    count, since other characters mostly stand between parts; a text that repeats few characters
    is counted by these, and a UUID by what is random in one.
    """
    if _UUID.fullmatch(text):
        return _UUID_BITS
    counted = "".join(re.findall(r"[0-9A-Za-z]", text))
    alphabet = next((size for size, form in _ALPHABETS if form.fullmatch(counted)), 62)
    # Of a random text of some length about two thirds of the alphabet are met; fewer than a
    # third is no chance.
    met = len(set(counted))
    if met * 3 < min(alphabet, len(counted)):
        alphabet = met
    return math.floor(len(counted) * math.log2(alphabet)) if alphabet > 1 else 0
