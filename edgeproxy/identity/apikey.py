"""The form of an API key: `edge_<12 base62 id>_<43 base62 secret>_<6 base62 CRC-32>`.

The fixed beginning and the checksum let secret scanners find a leaked key and be sure of it. The
checksum is zlib's CRC-32 of all that stands before its underscore, in base62 (digits, upper case,
lower case), most significant digit first, padded with zeros; it protects against typing errors
only. The secret carries 256 bits: 43 base62 digits are the fewest that hold them.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import NamedTuple

PREFIX = "edge_"
RANDOM_BYTES = 48
"""What `generate` needs: 16 bytes for the id, 32 for the secret."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID, _SECRET, _CHECKSUM = 12, 43, 6
_FORM = re.compile(rb"(edge_[0-9A-Za-z]{12}_[0-9A-Za-z]{43})_([0-9A-Za-z]{6})")


class NewKey(NamedTuple):
    """A key just made. `credential` is shown to its holder once and kept nowhere."""

    id: str
    credential: str

    def __repr__(self) -> str:
        return f"NewKey(id={self.id!r}, credential=<hidden>)"


def make(random_bytes: bytes) -> NewKey:
    """A key out of exactly `RANDOM_BYTES` bytes of a cryptographic source; ValueError otherwise."""
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"an API key needs {RANDOM_BYTES} random bytes, not {len(random_bytes)}")
    # 128 bits folded into 62**12 values: the bias is below 2**-56, and an id is no secret.
    key_id = _base62(int.from_bytes(random_bytes[:16], "big") % 62**_ID, _ID)
    secret = _base62(int.from_bytes(random_bytes[16:], "big"), _SECRET)
    stem = f"{PREFIX}{key_id}_{secret}"
    return NewKey(key_id, f"{stem}_{_checksum(stem.encode('ascii'))}")


def generate(random_bytes: bytes) -> str:
    """The credential alone, see `make`."""
    return make(random_bytes).credential


def well_formed(credential: bytes) -> bool:
    """True for our form with the right checksum: not mistyped, which is not yet valid."""
    found = _FORM.fullmatch(credential)
    return found is not None and found[2].decode("ascii") == _checksum(found[1])


def digest(credential: bytes) -> bytes:
    """The 32 bytes under which a key is stored and looked up: SHA-256 of the whole credential.

    A fast hash is right here, unlike for passwords: 256 random bits cannot be searched.
    """
    return hashlib.sha256(credential).digest()


def _checksum(stem: bytes) -> str:
    return _base62(zlib.crc32(stem), _CHECKSUM)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
