"""One certificate: parsed once, with all that is asked of it."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from edgeproxy.certs.hostname import normalise_pattern


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and what is asked of it. Equal when the same, octet by octet."""

    fingerprint: str
    """SHA-256 of the DER form, hexadecimal."""
    parsed: x509.Certificate = field(repr=False, compare=False)
    pem: bytes = field(repr=False, compare=False)
    public_key: bytes = field(repr=False, compare=False)
    """SHA-256 of the SubjectPublicKeyInfo."""
    subject: bytes = field(repr=False, compare=False)
    """The distinguished name in DER."""
    issuer: bytes = field(repr=False, compare=False)
    issuer_name: str = field(compare=False)
    """The issuer's common name where it has one."""
    label: str = field(compare=False)
    """What to call it before an operator: its first host name, or its subject."""
    names: tuple[str, ...] = field(compare=False)
    """Host names and addresses in the subjectAltName."""
    not_before: datetime = field(compare=False)
    not_after: datetime = field(compare=False)
    is_authority: bool = field(compare=False)
    tells_issuer: bool = field(compare=False)
    """It carries the address from which its issuer's certificate can be fetched."""
    weakness: str | None = field(compare=False)
    """Why clients or OpenSSL's security level 2 would refuse it as a server's, if they would."""
    signers: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)
    """By fingerprint, who was found to have signed it, and who not: a signature costs 0.1 ms, and
    thousands of certificates are looked at again when one of them changes."""

    @property
    def self_signed(self) -> bool:
        """Its own issuer: the end of a chain."""
        return self.subject == self.issuer

    def valid(self, now: datetime) -> bool:
        """Say whether `now` is within its validity (RFC 5280 4.1.2.5: both ends included)."""
        return self.not_before <= now <= self.not_after

    def issued(self, other: Certificate) -> bool:
        """Say whether this certificate's key signed the other one, and the names agree."""
        known = other.signers.get(self.fingerprint)
        if known is None:
            known = other.signers[self.fingerprint] = self._signed(other)
        return known

    def _signed(self, other: Certificate) -> bool:
        try:
            other.parsed.verify_directly_issued_by(self.parsed)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True


@contextmanager
def without_warnings() -> Iterator[None]:
    """For reading certificates: authorities with odd serial numbers are in every bundle, and to
    be told of them again and again helps nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def parse(block: bytes) -> Certificate:
    """Parse one PEM block; ValueError says what is wrong in words for the operator."""
    try:
        with without_warnings():
            # "X509 CERTIFICATE" is an old spelling that OpenSSL still reads.
            return _facts(x509.load_pem_x509_certificate(block.replace(b" X509 CERT", b" CERT")))
    # cryptography parses lazily and has many ways to say no: ValueError, TypeError,
    # InvalidVersion, UnsupportedAlgorithm, UnsupportedGeneralNameType, DuplicateExtension.
    except Exception as error:
        raise ValueError(f"a certificate cannot be read: {first_line(error)}") from None


def _facts(parsed: x509.Certificate) -> Certificate:
    spki = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    names = _names(parsed)
    return Certificate(
        fingerprint=parsed.fingerprint(hashes.SHA256()).hex(),
        parsed=parsed,
        pem=parsed.public_bytes(Encoding.PEM),
        public_key=hashlib.sha256(spki).digest(),
        subject=parsed.subject.public_bytes(),
        issuer=parsed.issuer.public_bytes(),
        issuer_name=_common_name(parsed.issuer),
        label=names[0] if names else f"“{_common_name(parsed.subject)}”",
        names=names,
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        is_authority=_is_authority(parsed),
        tells_issuer=_tells_issuer(parsed),
        weakness=_weakness(parsed),
    )


def _names(parsed: x509.Certificate) -> tuple[str, ...]:
    """Return the names that clients will look at: subjectAltName only (RFC 9525 section 2)."""
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    names: dict[str, None] = {}
    for general in extension.value:
        if isinstance(general, x509.DNSName):
            name = normalise_pattern(general.value)
            if name is not None:
                names[name] = None
        elif isinstance(general, x509.IPAddress):
            names[str(general.value)] = None
    return tuple(names)


def _is_authority(parsed: x509.Certificate) -> bool:
    try:
        return parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _tells_issuer(parsed: x509.Certificate) -> bool:
    """Look for caIssuers in the authority information access (RFC 5280 4.2.2.1)."""
    try:
        found = parsed.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except x509.ExtensionNotFound:
        return False
    wanted = AuthorityInformationAccessOID.CA_ISSUERS
    return any(description.access_method == wanted for description in found.value)


def _weakness(parsed: x509.Certificate) -> str | None:
    algorithm = parsed.signature_hash_algorithm
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1) and parsed.issuer != parsed.subject:
        return f"it is signed with {algorithm.name.upper()}, which clients refuse"
    if not _for_servers(parsed):
        return "its extended key usage lacks serverAuth: clients refuse it as a server's"
    return None


def _for_servers(parsed: x509.Certificate) -> bool:
    """Look at the extended key usage; without one it is for everything (RFC 5280 4.2.1.12)."""
    try:
        usage = parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in usage or (
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage
    )


def _common_name(name: x509.Name) -> str:
    """Return the common name, else the whole name, fit for one line of a log."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(found[0].value) if found else name.rfc4514_string()
    return "".join(c if c.isprintable() else "?" for c in text[:100]) or "(no name)"


def first_line(error: BaseException) -> str:
    """Return the beginning of what a library says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:119] + "…"
