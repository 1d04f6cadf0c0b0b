"""Keys paired with certificates, chains put in order.

Input are bytes by file name, output are the chains that can be served and one sentence for
each thing that is wrong. Names of files and of folders mean nothing; certbot's `live/` and
`archive/`, acme.sh's folders and a Kubernetes secret look the same here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from edgeproxy.certs.hostname import normalise_pattern
from edgeproxy.certs.pem import Certificate, Content, Key, read_content

MAX_CHAIN = 10
"""Certificates in one chain: OpenSSL's clients give up at 100, no public CA needs more than 4."""


class Problem(NamedTuple):
    """Something wrong, for the operator."""

    file: str
    message: str


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate that can be served: leaf, intermediates, private key.

    Two chains are equal when they send the same certificates.
    """

    names: tuple[str, ...] = field(compare=False)
    """DNS names as lower-case A-labels, perhaps with `*.` in front, and IP addresses, in the
    certificate's order."""
    key_type: str = field(compare=False)
    """"ECDSA", "RSA" or "Ed25519"."""
    not_before: datetime = field(compare=False)
    not_after: datetime = field(compare=False)
    chain_pem: bytes = field(repr=False)
    """Leaf first, each certificate followed by its issuer, without a self-signed root."""
    key_pem: bytes = field(repr=False, compare=False)
    files: tuple[str, ...] = field(compare=False)
    """The files in which the leaf and its key were found."""
    issuer: str = field(compare=False)
    fingerprint: str
    """SHA-256 of the leaf, hexadecimal."""

    def valid(self, now: datetime) -> bool:
        """Say whether the leaf is within its validity (RFC 5280 4.1.2.5: both ends included)."""
        return self.not_before <= now <= self.not_after


class Scan(NamedTuple):
    """What a folder offers."""

    chains: tuple[Chain, ...]
    problems: tuple[Problem, ...]


Memory = MutableMapping[bytes, Content]
"""Parsed files by their bytes: a caller that scans again passes the same one."""


def scan(files: Mapping[str, bytes], now: datetime, memory: Memory | None = None) -> Scan:
    """Return the chains that the files offer. `now` is aware (UTC). Never raises."""
    steps = scan_in_steps(files, now, memory)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Scan = end.value
            return result


def scan_in_steps(
    files: Mapping[str, bytes], now: datetime, memory: Memory | None = None
) -> Generator[None, None, Scan]:
    """Do the work of `scan`, yielding after each file and each chain: a few ms at most each."""
    memory = {} if memory is None else memory
    contents: dict[str, Content] = {}
    seen: dict[bytes, Content] = {}
    for file in sorted(files):
        data = files[file]
        content = seen.get(data) or memory.get(data) or read_content(data)
        contents[file] = seen[data] = content
        yield
    memory.clear()
    memory.update(seen)
    pool = _Pool(contents)
    problems = [Problem(f, message) for f, c in contents.items() for message in c.problems]
    chains: list[Chain] = []
    for certificate, places in pool.certificates.values():
        chain = _chain(pool, certificate, places, now, problems)
        if chain is not None:
            chains.append(chain)
        yield
    problems.extend(pool.lonely_keys())
    return Scan(tuple(chains), tuple(sorted(set(problems))))


class _Pool:
    """Everything found in all files, each certificate and key once, with the files it stood in."""

    def __init__(self, contents: Mapping[str, Content]) -> None:
        self.contents = contents
        self.certificates: dict[str, tuple[Certificate, list[str]]] = {}
        self.keys: dict[bytes, tuple[Key, list[str]]] = {}
        self.by_subject: dict[bytes, list[Certificate]] = {}
        for file, content in contents.items():
            for certificate in content.certificates:
                self._add(certificate, file)
            for key in content.keys:
                self.keys.setdefault(key.public_key, (key, []))[1].append(file)

    def _add(self, certificate: Certificate, file: str) -> None:
        known = self.certificates.get(certificate.fingerprint)
        if known is None:
            self.certificates[certificate.fingerprint] = (certificate, [file])
            subject = certificate.x509.subject.public_bytes()
            self.by_subject.setdefault(subject, []).append(certificate)
        elif file not in known[1]:
            known[1].append(file)

    def lonely_keys(self) -> Iterable[Problem]:
        """Yield a problem for each file with a key that fits no certificate here."""
        paired = {certificate.public_key for certificate, _ in self.certificates.values()}
        for public_key, (_, files) in self.keys.items():
            if public_key not in paired:
                for file in files:
                    yield Problem(file, "no certificate here belongs to this private key")


def _chain(
    pool: _Pool, leaf: Certificate, places: list[str], now: datetime, problems: list[Problem]
) -> Chain | None:
    """Return the chain that begins with this certificate, or None if it is no leaf of ours."""
    names = _names(leaf.x509)
    is_authority = _is_authority(leaf.x509)
    pair = pool.keys.get(leaf.public_key)
    if pair is None or not names:
        # A CA's certificate is there to complete chains and needs neither.
        if not is_authority:
            what = "its private key is not here" if pair is None else "it names no host"
            problems.extend(Problem(f, f"certificate for {_label(leaf)}: {what}") for f in places)
        return None
    key, key_files = pair
    weak = _weakness(leaf.x509)
    if weak:
        problems.extend(Problem(f, f"certificate for {_label(leaf)}: {weak}") for f in places)
        return None
    issuers, complete = _issuers(pool, leaf, places, now)
    if not complete:
        missing = _common_name((issuers[-1] if issuers else leaf).x509.issuer)
        message = (
            f"certificate for {_label(leaf)}: the chain is incomplete, “{missing}” is not here"
        )
        problems.append(Problem(places[0], message))
    chain = Chain(
        names=names,
        key_type=key.kind,
        not_before=leaf.x509.not_valid_before_utc,
        not_after=leaf.x509.not_valid_after_utc,
        chain_pem=b"".join(c.pem for c in (leaf, *issuers)),
        key_pem=key.pem,
        files=tuple(dict.fromkeys((*places, *key_files))),
        issuer=_common_name(leaf.x509.issuer),
        fingerprint=leaf.fingerprint,
    )
    if not chain.valid(now):
        when = "expired on" if now > chain.not_after else "is not valid before"
        moment = chain.not_after if now > chain.not_after else chain.not_before
        message = f"certificate for {_label(leaf)} {when} {moment:%Y-%m-%d %H:%M} UTC"
        problems.extend(Problem(f, message) for f in places)
    return chain


def _issuers(
    pool: _Pool, leaf: Certificate, places: list[str], now: datetime
) -> tuple[list[Certificate], bool]:
    """Return the intermediates from the leaf's issuer upwards, and whether clients can do with it.

    Where several certificates could follow (cross-signing), the ones beside the leaf in its
    file win, in the file's order: that is the chain its CA meant. A self-signed root is left
    out: clients have it or do not trust it (RFC 8446 section 4.4.2).
    """
    beside = {
        certificate.fingerprint: position
        for file in reversed(places)
        for position, certificate in enumerate(pool.contents[file].certificates)
    }

    def preference(candidate: Certificate) -> tuple[bool, int, bool, float]:
        parsed = candidate.x509
        valid = parsed.not_valid_before_utc <= now <= parsed.not_valid_after_utc
        position = beside.get(candidate.fingerprint)
        last = -parsed.not_valid_after_utc.timestamp()
        return (not valid, MAX_CHAIN**3 if position is None else position, not valid, last)

    chain: list[Certificate] = []
    current = leaf
    while not _self_signed(current.x509) and len(chain) < MAX_CHAIN:
        candidates = [
            candidate
            for candidate in pool.by_subject.get(current.x509.issuer.public_bytes(), ())
            if candidate not in chain and candidate is not leaf and _issued(candidate, current)
        ]
        if not candidates:
            # Only a certificate that tells where its issuer can be fetched is known to have an
            # intermediate above it; the root itself need not be here.
            return chain, bool(chain) or not _tells_issuer(current.x509)
        current = min(candidates, key=preference)
        if _self_signed(current.x509):
            break
        chain.append(current)
    return chain, True


def _issued(issuer: Certificate, subject: Certificate) -> bool:
    try:
        subject.x509.verify_directly_issued_by(issuer.x509)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _self_signed(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names that clients will look at: subjectAltName only (RFC 9525 section 2)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
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


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def _tells_issuer(certificate: x509.Certificate) -> bool:
    """Say whether the certificate carries the address of its issuer's (RFC 5280 4.2.2.1)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    wanted = AuthorityInformationAccessOID.CA_ISSUERS
    return any(description.access_method == wanted for description in found.value)


def _weakness(certificate: x509.Certificate) -> str | None:
    """Return why OpenSSL's security level 2 would not serve it, or None."""
    try:
        algorithm = certificate.signature_hash_algorithm
    except Exception:  # an algorithm that cryptography does not know
        return "its signature algorithm is unknown"
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1) and not _self_signed(certificate):
        return f"it is signed with {algorithm.name.upper()}, which clients refuse"
    return None


def _label(certificate: Certificate) -> str:
    names = _names(certificate.x509)
    return names[0] if names else f"“{_common_name(certificate.x509.subject)}”"


def _common_name(name: x509.Name) -> str:
    for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME):
        return str(attribute.value)
    return name.rfc4514_string() or "(no name)"
