"""What people lay beside PEM or in its place: DER, PKCS#12, UTF-16. Known by its content, and told
with what makes PEM of it."""

from __future__ import annotations

import re
from base64 import encodebytes

from cryptography.hazmat.primitives.serialization import load_der_private_key

from edgeproxy.certs.certificate import parse

# A sequence, however its length is written, that begins with version 3 and a sequence (RFC 7292 4).
_PKCS12 = re.compile(
    rb"\x30(?:[\x00-\x80]|\x81.|\x82.{2}|\x83.{3}|\x84.{4})\x02\x01\x03\x30", re.DOTALL
)
_BEGIN = tuple("-----BEGIN ".encode(encoding) for encoding in ("utf-16-le", "utf-16-be"))


def hint(data: bytes) -> str | None:
    """Return what a file without a PEM block is, and how to make PEM of it; None where it is
    nothing that a server would need."""
    if _PKCS12.match(data):
        return "is PKCS#12, which is not read: `openssl pkcs12 -nodes -in … -out ….pem` makes PEM"
    if any(begin in data for begin in _BEGIN):
        return "is in UTF-16, which is not read: `iconv -f UTF-16 -t UTF-8` makes PEM"
    if data.startswith(b"\x30"):
        if _is_certificate(data):
            return "is DER, which is not read: `openssl x509 -in … -out ….pem` makes PEM"
        if _is_key(data):
            return "is a key in DER, which is not read: `openssl pkey -in … -out ….pem` makes PEM"
    return None


def _is_certificate(data: bytes) -> bool:
    """Say whether it is one that could be a server's; a CA's is for others."""
    block = b"-----BEGIN CERTIFICATE-----\n%b-----END CERTIFICATE-----\n" % encodebytes(data)
    try:
        found = parse(block)
    except ValueError:
        return False
    return not found.is_authority or bool(found.names)


def _is_key(data: bytes) -> bool:
    try:
        load_der_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        return True  # it is encrypted
    # ValueError, UnsupportedAlgorithm, and InternalError where OpenSSL's reason is not known.
    except Exception:
        return False
    return True
