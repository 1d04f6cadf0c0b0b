"""CAs, client certificates and revocation lists, made with the real clock: OpenSSL looks at it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from certs_support import Issued, key, key_pem
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeproxy.testing.reactor import EPOCH
from edgeproxy.testing.tls import client_context

DAY = timedelta(days=1)
REAL = datetime.now(UTC).replace(microsecond=0)
FAKE = datetime.fromtimestamp(EPOCH, UTC)
EARLY = min(REAL, FAKE) - 30 * DAY
LATE = max(REAL, FAKE) + 300 * DAY
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)


def subject(cn: str | None, ou: Sequence[str] = ()) -> x509.Name:
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, each) for each in ou]
    common = [x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn is not None else []
    return x509.Name([*units, *common])


def issue(
    cn: str | None,
    issuer: Issued | None = None,
    *,
    number: int = 1,
    ca: bool = False,
    ou: Sequence[str] = (),
    names: Sequence[x509.GeneralName] = (),
    usage: Sequence[x509.ObjectIdentifier] = CLIENT,
    start: datetime = EARLY,
    end: datetime = LATE,
) -> Issued:
    """A certificate; `number` tells its key from others'."""
    private = key("ECDSA", 5000 + number)
    name = subject(cn, ou)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if ca:
        builder = builder.add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False), True
        )
    elif usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    signer = issuer.private if issuer else private
    return Issued(builder.sign(signer, hashes.SHA256()), private, issuer)


def revoke(
    issuer: Issued,
    *revoked: Issued,
    start: datetime = EARLY,
    end: datetime | None = LATE,
    extension: x509.ExtensionType | None = None,
    signer: Any = None,
) -> bytes:
    """A revocation list, PEM."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(start)
        .next_update(end or LATE)
        .add_extension(x509.CRLNumber(1), False)
    )
    if extension is not None:
        builder = builder.add_extension(extension, True)
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(start).build())
    made = builder.sign(signer or issuer.private, hashes.SHA256())
    return made.public_bytes(Encoding.PEM)


@dataclass
class Shop:
    """A root with two CAs below, one for staff and one for partners, and what they have issued."""

    folder: Path

    def __post_init__(self) -> None:
        self.root = issue("Root", number=1, ca=True)
        self.staff = issue("Staff CA", self.root, number=2, ca=True)
        self.partner = issue("Partner CA", self.root, number=3, ca=True)
        self.write()

    def write(self, *revoked: Issued) -> None:
        """The files that the configuration names; `revoked` by the staff's CA."""
        (self.folder / "staff-ca.pem").write_bytes(self.staff.pem)
        (self.folder / "partner-ca.pem").write_bytes(self.partner.pem)
        self.write_list(*revoked)

    def write_list(self, *revoked: Issued) -> None:
        (self.folder / "staff.crl").write_bytes(revoke(self.staff, *revoked))

    def person(self, cn: str = "alice", issuer: Issued | None = None, **options: Any) -> Issued:
        names = options.pop("names", [x509.RFC822Name(f"{cn}@example.com")])
        options.setdefault("number", 10)
        return issue(cn, issuer or self.staff, names=names, **options)

    def context(
        self, shown: Issued | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ) -> ssl.SSLContext:
        """A client's context that shows a certificate with all that is above it."""
        context = client_context()
        context.minimum_version = context.maximum_version = version
        if shown is not None:
            pem, above = shown.pem, shown.issuer
            while above is not None:
                pem, above = pem + above.pem, above.issuer
            path = self.folder / "shown.pem"
            path.write_bytes(pem + key_pem(shown.private))
            context.load_cert_chain(path)
        return context
