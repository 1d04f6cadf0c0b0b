"""What one file contains: certificates, private keys, and what is wrong with it.

Files are recognised by their content, never by their name. A file without a PEM block
(a README, a DER file, a backup of something else) is not ours and is passed over in silence.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from edgeproxy.certs.certificate import Certificate, first_line, parse
from edgeproxy.certs.steps import run

MIN_RSA_BITS = 2048
"""Below, OpenSSL's security level 2 and every browser refuse the key."""

MAX_PROBLEMS = 10
"""So much may be wrong with one file before the rest of it is left."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_CERTIFICATE = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE"})
_KEY = frozenset({b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"})
# The curves of Mozilla's recommendation, and P-521, which OpenSSL's clients take too.
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True, slots=True)
class Key:
    """A private key that was found able to sign."""

    kind: str
    """"ECDSA", "RSA" or "Ed25519"."""
    pem: bytes = field(repr=False)
    public_key: bytes
    """SHA-256 of the SubjectPublicKeyInfo."""


@dataclass(frozen=True, slots=True)
class Content:
    """What was found in one file, in its order."""

    certificates: tuple[Certificate, ...] = ()
    keys: tuple[Key, ...] = ()
    problems: tuple[str, ...] = ()


def read_content(data: bytes) -> Content:
    """Return what a file's bytes contain. Never raises: what is wrong is told in `problems`."""
    return run(content_in_steps(data))


def content_in_steps(data: bytes) -> Generator[None, None, Content]:
    """Do the work of `read_content`, yielding after each PEM block (0.3 ms)."""
    certificates: list[Certificate] = []
    keys: list[Key] = []
    problems: list[str] = []
    for label, block in _blocks(data):
        if len(problems) == MAX_PROBLEMS:
            problems.append(f"{MAX_PROBLEMS} things are wrong with it: the rest is not read")
            break
        try:
            if block is None:
                text = label.decode("ascii")
                raise ValueError(f"a {text} block has no end: the file is cut short")
            if label in _CERTIFICATE:
                certificates.append(parse(block))
            elif label in _KEY:
                keys.append(_key(block))
            elif label == b"ENCRYPTED PRIVATE KEY":
                raise ValueError(_ENCRYPTED)
        except ValueError as error:
            problems.append(str(error))
        yield
    return Content(tuple(certificates), tuple(keys), tuple(problems))


def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield (label, the whole block) for each PEM block (RFC 7468); None where it has no end."""
    position = 0
    while begin := _BEGIN.search(data, position):
        label = begin[1]
        following = data.find(b"-----BEGIN ", begin.end())
        end_line = b"-----END " + label + b"-----"
        end = data.find(end_line, begin.end(), following if following >= 0 else len(data))
        if end < 0:
            yield label, None
            position = begin.end()
        else:
            position = end + len(end_line)
            yield label, data[begin.start() : position] + b"\n"


_ENCRYPTED = (
    "the private key is encrypted: write it without a passphrase (openssl pkey -in … -out …)"
)


def _key(block: bytes) -> Key:
    """Parse one private key and prove that it signs; ValueError says what is wrong."""
    if b"ENCRYPTED" in block[:200]:
        raise ValueError(_ENCRYPTED)
    try:
        # cryptography's own validation of an RSA key takes 41 ms for 2048 bits, twice what one
        # turn of the reactor may take. The signature below finds damage in under a millisecond.
        key = load_pem_private_key(block, None, unsafe_skip_rsa_key_validation=True)
    # ValueError, TypeError, UnsupportedAlgorithm, and InternalError, which is no other's subclass,
    # where OpenSSL gives a reason that cryptography does not know.
    except Exception as error:
        raise ValueError(f"a private key cannot be read: {first_line(error)}") from None
    if isinstance(key, rsa.RSAPrivateKey):
        kind = "RSA"
        if key.key_size < MIN_RSA_BITS:
            raise ValueError(
                f"an RSA key of {key.key_size} bits: at least {MIN_RSA_BITS} are needed"
            )
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        kind = "ECDSA"
        if key.curve.name not in _CURVES:
            raise ValueError(f"a key on curve {key.curve.name}: clients know {', '.join(_CURVES)}")
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        kind = "Ed25519"
    else:
        raise ValueError(
            "a private key of a kind that TLS servers do not use: RSA or ECDSA is needed"
        )
    if not _signs(key):
        raise ValueError("the private key is damaged: what it signs does not verify")
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(kind=kind, pem=block, public_key=hashlib.sha256(spki).digest())


def _signs(key: PrivateKey) -> bool:
    """Say whether the key's signature verifies under the public key that it claims."""
    text = b"edgeproxy"
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            scheme = padding.PKCS1v15()
            signature = key.sign(text, scheme, hashes.SHA256())
            key.public_key().verify(signature, text, scheme, hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            signature = key.sign(text, ec.ECDSA(hashes.SHA256()))
            key.public_key().verify(signature, text, ec.ECDSA(hashes.SHA256()))
        else:
            key.public_key().verify(key.sign(text), text)
    # OpenSSL reports a key that it cannot compute with in several ways (ValueError,
    # InternalError): all of them mean the same here.
    except (InvalidSignature, Exception):
        return False
    return True
