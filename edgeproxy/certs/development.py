"""A self-signed certificate for the first minutes, before a real one is there."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeproxy.certs.hostname import normalise_address, normalise_pattern

DEFAULT_NAMES = ("localhost", "127.0.0.1", "::1")


class Development(NamedTuple):
    """What `make` returns, as PEM."""

    ca_pem: bytes
    """For `curl --cacert`; the certificate itself, which vouches for itself."""
    chain_pem: bytes
    key_pem: bytes


def make(names: Sequence[str], now: datetime, days: int = 90) -> Development:
    """Return a fresh ECDSA P-256 certificate for host names and IP addresses.

    `now` is aware (UTC). Raises ValueError for a name that is neither. The certificate is no
    authority for others (CA:FALSE): a client told to trust it trusts nothing but these names.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    common_name = "edgeproxy development certificate"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A clock that is a little behind must not find it "not yet valid".
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Development(ca_pem=pem, chain_pem=pem, key_pem=key_pem)


def _general(name: str) -> x509.GeneralName:
    address = normalise_address(name)
    if address is not None:
        return x509.IPAddress(ipaddress.ip_address(address))
    normal = normalise_pattern(name)
    if normal is None:
        raise ValueError(f"{name!r} is neither a host name nor an IP address")
    return x509.DNSName(normal)
