"""The CAs whose client certificates are valid for a name, and what they have revoked.

Exactly the certificates in the files are trusted: an intermediate alone is enough, and then nothing
that a sibling of it has issued is valid, although both lead to the same root. Each CA has its
revocation list, or none has: a CA without one beside others would let in what it has revoked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from edgeproxy.certs.certificate import first_line, without_warnings
from edgeproxy.certs.scan import Problem

MOST_CAS = 100
"""In one credential: their names are sent in each handshake."""

_PART = 20
"""What is left of a list's life, as a part of it, when it is told. Microsoft's CA, by default,
writes the next one 12 hours before the end of one that lasts 7.5 days (CRLOverlapPeriod): a
fifteenth. At a twentieth it has not come."""

_PEM_CRL = b"-----BEGIN X509 CRL-----"
_PEM_CRL_END = b"-----END X509 CRL-----"

File = tuple[str, bytes]
"""A file's name, for messages, and its bytes."""


class Authority:
    """See the module's text; a value, equal to another of the same certificates and lists.

    ``until`` is the moment from which the oldest revocation list is too old; None without lists.
    """

    __slots__ = ("_by_issuer", "_digest", "_files", "_trusted", "cas", "lists", "until")

    def __init__(
        self,
        cas: Sequence[x509.Certificate],
        lists: Sequence[x509.CertificateRevocationList] = (),
        files: Sequence[str] = (),
    ) -> None:
        """``files``, for messages: that of the CAs, then that of each list."""
        self.cas = tuple(cas)
        self.lists = tuple(lists)
        self._files = tuple(files) or ("",) * (1 + len(self.lists))
        self._trusted = frozenset(ca.fingerprint(SHA256()) for ca in cas)
        self._by_issuer: dict[bytes, list[x509.CertificateRevocationList]] = {}
        for each in self.lists:
            self._by_issuer.setdefault(each.issuer.public_bytes(), []).append(each)
        ends = [each.next_update_utc for each in self.lists]
        self.until = min((end for end in ends if end is not None), default=None)
        # A list's signature stands for the list: its fingerprint would have the whole of it written
        # out again, 13 ms for 10,000 certificates.
        everything = (*self._trusted, *(each.signature for each in self.lists))
        self._digest = hashlib.sha256(b"".join(sorted(everything))).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Authority) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def trusts(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate is one of the CAs."""
        return certificate.fingerprint(SHA256()) in self._trusted

    def untimely(self, now: datetime) -> list[Problem]:
        """What is out of its time, for which nobody is let in; nothing of it is for good."""
        found = []
        if self.cas and not any(_valid(ca, now) for ca in self.cas):
            message = "no CA here is valid now: all have expired, or begin later"
            found.append(Problem(self._files[0], message, error=True))
        for file, each in zip(self._files[1:], self.lists, strict=True):
            wrong = _untimely(each, now)
            if wrong:
                found.append(Problem(file, wrong, error=True))
        return found

    def aging(self, now: datetime) -> list[Problem]:
        """The lists that will soon be too old."""
        found = []
        for file, each in zip(self._files[1:], self.lists, strict=True):
            start, end = each.last_update_utc, each.next_update_utc
            if end is not None and end - (end - start) / _PART <= now <= end:
                message = (
                    f"the revocation list of {_name(each.issuer)} is good until "
                    f"{end:%Y-%m-%d %H:%M} UTC: less than a twentieth of its life is left; fetch "
                    "the next one"
                )
                found.append(Problem(file, message))
        return found

    def objection(self, chain: Sequence[x509.Certificate], now: datetime) -> str:
        """What speaks against a chain whose signatures and purposes OpenSSL has verified, from
        the leaf to the CA that was trusted then; "" for nothing.

        For connections that outlive a change of the CAs or the lists.
        """
        if not chain or not self.trusts(chain[-1]):
            return "issued by a CA that is not trusted any more"
        if any(now > each.not_valid_after_utc for each in chain):
            return "expired"
        if self.until is not None:
            if now > self.until:
                return "the revocation list is too old"
            if any(now < each.last_update_utc for each in self.lists):
                return "the revocation list is not valid yet"
            for certificate in chain[:-1]:
                lists = self._by_issuer.get(certificate.issuer.public_bytes())
                if lists is None:
                    return "no revocation list is there for its CA"
                for each in lists:
                    number = certificate.serial_number
                    if each.get_revoked_certificate_by_serial_number(number) is not None:
                        return "revoked"
        return ""


def read_authority(
    ca_files: Sequence[File], list_files: Sequence[File]
) -> tuple[Authority, list[Problem]]:
    """The CAs and lists in some files' bytes, and everything that is wrong with them whenever one
    looks (`Authority.untimely` tells the rest).

    With any problem the result must not be used.
    """
    problems: list[Problem] = []
    cas = [ca for file in ca_files for ca in _cas(file, problems)]
    if len(cas) > MOST_CAS:
        problems.append(Problem(ca_files[0][0], f"more than {MOST_CAS} CAs; narrow it"))
    found = [(file[0], each) for file in list_files for each in _lists(file, problems)]
    issuers = {ca.subject.public_bytes(): ca for ca in reversed(cas)}
    for name, each in found:
        wrong = _wrong_list(each, cas)
        if wrong:
            problems.append(Problem(name, wrong))
        issuers.pop(each.issuer.public_bytes(), None)
    if list_files and not problems:
        for ca in issuers.values():
            message = f"no revocation list of {_name(ca.subject)}; each CA needs one"
            problems.append(Problem(list_files[0][0], message))
    files = [ca_files[0][0], *(name for name, _ in found)]
    return Authority(cas, [each for _, each in found], files), problems


def _valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _cas(file: File, problems: list[Problem]) -> Iterator[x509.Certificate]:
    name, data = file
    if b"-----BEGIN" not in data:
        problems.append(Problem(name, "no certificate in PEM form is here"))
        return
    try:
        with without_warnings():
            found = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        problems.append(Problem(name, f"cannot be read as certificates: {first_line(error)}"))
        return
    for certificate in found:
        wrong = _wrong_ca(certificate)
        if wrong:
            problems.append(Problem(name, f"{_name(certificate.subject)}: {wrong}"))
        yield certificate


def _wrong_ca(certificate: x509.Certificate) -> str:
    """Why a certificate cannot vouch for others; trusted all the same, it would vouch for its own
    holder."""
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return "not a CA: it says nothing of issuing others"
    except (ValueError, x509.DuplicateExtension) as error:
        return f"cannot be read: {first_line(error)}"
    if not constraints.ca:
        return "not a CA: it may not issue others"
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    return "" if usage.key_cert_sign else "not a CA: its key may not sign certificates"


def _lists(file: File, problems: list[Problem]) -> Iterator[x509.CertificateRevocationList]:
    name, data = file
    blocks = [_PEM_CRL + block for block in data.split(_PEM_CRL)[1:]]
    try:
        if not blocks:
            yield x509.load_der_x509_crl(data)
        for block in blocks:
            if _PEM_CRL_END not in block:
                raise ValueError("a block has no end: the file is cut short")
            yield x509.load_pem_x509_crl(block)
    except ValueError as error:
        message = f"cannot be read as a revocation list: {first_line(error)}"
        problems.append(Problem(name, message))


def _wrong_list(each: x509.CertificateRevocationList, cas: Sequence[x509.Certificate]) -> str:
    issuer = _name(each.issuer)
    signers = [ca for ca in cas if ca.subject == each.issuer]
    if not signers:
        return f"a revocation list of {issuer}, which is none of the CAs"
    if not any(_signed(each, ca) for ca in signers):
        return f"the revocation list of {issuer} is not signed by it"
    if each.next_update_utc is None:
        return f"the revocation list of {issuer} says no time of its next update"
    return _partial(each, issuer)


def _untimely(each: x509.CertificateRevocationList, now: datetime) -> str:
    """Why a list does not count now."""
    start, end = each.last_update_utc, each.next_update_utc
    what = f"the revocation list of {_name(each.issuer)}"
    if now < start:
        return f"{what} begins on {start:%Y-%m-%d %H:%M:%S} UTC"
    if end is not None and end < now:
        return f"{what} is too old: the next one was due on {end:%Y-%m-%d %H:%M} UTC; fetch it"
    return ""


def _signed(each: x509.CertificateRevocationList, ca: x509.Certificate) -> bool:
    try:
        return each.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm, InvalidSignature):
        return False


def _partial(each: x509.CertificateRevocationList, issuer: str) -> str:
    """A list that speaks of some certificates only would let the others in."""
    try:
        for extension in each.extensions:
            value = extension.value
            if isinstance(value, x509.DeltaCRLIndicator) or (
                isinstance(value, x509.IssuingDistributionPoint)
                and (
                    value.indirect_crl
                    or value.only_some_reasons
                    or value.only_contains_user_certs
                    or value.only_contains_ca_certs
                    or value.only_contains_attribute_certs
                )
            ):
                return f"the revocation list of {issuer} is a partial one; give the whole"
    except (ValueError, x509.DuplicateExtension) as error:
        return f"the revocation list of {issuer} cannot be read: {first_line(error)}"
    return ""


def _name(name: x509.Name) -> str:
    text = name.rfc4514_string()
    return text if text.isprintable() else ascii(text)


def der(certificate: x509.Certificate) -> bytes:
    """A certificate's bytes, as it was issued."""
    return certificate.public_bytes(Encoding.DER)
