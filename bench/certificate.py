"""The one certificate that every peer serves: ECDSA P-256, as a public CA gives by default."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificate(NamedTuple):
    """Paths of the chain, of its key, and of a file holding both (HAProxy wants that)."""

    chain: Path
    key: Path
    both: Path


def make(folder: Path, name: str) -> Certificate:
    """Write a self-signed certificate for `name` into `folder`, which is made."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain_pem = certificate.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    made = Certificate(folder / "chain.pem", folder / "key.pem", folder.parent / "both.pem")
    for path, content in zip(made, (chain_pem, key_pem, chain_pem + key_pem), strict=True):
        path.write_bytes(content)
        path.chmod(0o600)
    return made
