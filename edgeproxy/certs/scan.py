"""Keys paired with certificates, chains put in order.

Input are bytes by file name, output are the chains that can be served and one sentence for
each thing that is wrong. Names of files and of folders mean nothing; certbot's `live/` and
`archive/`, acme.sh's folders and a Kubernetes secret look the same here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from edgeproxy.certs.certificate import Certificate
from edgeproxy.certs.foreign import hint
from edgeproxy.certs.hostname import parent_pattern
from edgeproxy.certs.pem import Content, Key, content_in_steps
from edgeproxy.certs.steps import run

MAX_CHAIN = 10
"""Certificates in one chain: OpenSSL's clients give up at 100, no public CA needs more than 4."""


class Problem(NamedTuple):
    """Something wrong, for the operator."""

    file: str
    message: str
    error: bool = False
    """Clients are turned away because of it, now."""


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
    intermediates: tuple[Certificate, ...] = field(default=(), repr=False, compare=False)
    """What is sent above the leaf."""
    missing: str | None = field(default=None, compare=False)
    """The name of an intermediate that clients will need and that was not found."""
    damaged: bool = field(default=False, compare=False)
    """A file of the leaf has parts that cannot be read; what is above it may have been there."""

    def valid(self, now: datetime) -> bool:
        """Say whether the leaf is within its validity (RFC 5280 4.1.2.5: both ends included)."""
        return self.not_before <= now <= self.not_after

    def fault(self, now: datetime) -> str | None:
        """Return why clients would turn away from it now, or None if they would not."""
        if not self.valid(now):
            return _out_of_time(self.not_before, self.not_after, now)
        if self.missing is not None:
            return f"the chain is incomplete, “{self.missing}” is not here"
        for each in self.intermediates:
            if not each.valid(now):
                state = _out_of_time(each.not_before, each.not_after, now)
                return f"in its chain, {each.label} {state}"
        return "a part of its file cannot be read" if self.damaged else None

    def rank(self, now: datetime) -> int:
        """Return 0 for a leaf outside its validity, 1 for a fault above it, 2 for a good chain."""
        if not self.valid(now):
            return 0
        return 1 if self.fault(now) else 2


def _out_of_time(begin: datetime, end: datetime, now: datetime) -> str:
    if now > end:
        return f"expired on {end:%Y-%m-%d %H:%M} UTC"
    return f"is not valid before {begin:%Y-%m-%d %H:%M} UTC"


class Scan(NamedTuple):
    """What a folder offers."""

    chains: tuple[Chain, ...]
    problems: tuple[Problem, ...]
    broken: frozenset[str] = frozenset()
    """The files with something in them that ought to be served and is not."""
    key_files: tuple[str, ...] = ()
    """The files with a private key in them, be it used or not."""
    foreign: tuple[Problem, ...] = ()
    """Those of `problems` that are of files which are not read, and may be meant for others."""


Memory = MutableMapping[bytes, Content]
"""Parsed files by their bytes: a caller that scans again passes the same one."""


_NOTHING = Content()


def scan(files: Mapping[str, bytes], now: datetime, memory: Memory | None = None) -> Scan:
    """Return the chains that the files offer. `now` is aware (UTC). Never raises."""
    return run(scan_in_steps(files, now, memory))


def scan_in_steps(
    files: Mapping[str, bytes], now: datetime, memory: Memory | None = None
) -> Generator[None, None, Scan]:
    """Do the work of `scan`, yielding after each PEM block and each chain: a few ms at most."""
    memory = {} if memory is None else memory
    contents: dict[str, Content] = {}
    seen: dict[bytes, Content] = {}
    foreign: list[Problem] = []
    for file in sorted(files):
        data = files[file]
        content = seen.get(data) or memory.get(data)
        if content is None:
            content = yield from content_in_steps(data)
        contents[file] = seen[data] = content
        if content == _NOTHING and (said := hint(data)) is not None:
            foreign.append(Problem(file, said))
        yield
    memory.clear()
    memory.update(seen)
    pool = _Pool(contents)
    for number, file in enumerate(contents):
        pool.add(file)
        if number % 100 == 99:
            yield
    wrong = [Problem(f, message) for f, c in contents.items() for message in c.problems]
    wrong.extend(pool.lonely_keys())
    yield
    chains: list[Chain] = []
    for leaf, places in pool.certificates.values():
        reason = pool.reason_against(leaf)
        if reason is None:
            chains.append(_chain(pool, leaf, places, now))
        elif not pool.completes_chains(leaf):
            wrong.extend(Problem(f, f"certificate for {leaf.label}: {reason}") for f in places)
        yield
    old = list(_out_of_date(chains, now))
    yield
    problems = {*wrong, *faults_above(chains, now), *old, *foreign}
    broken = frozenset(problem.file for problem in wrong)
    key_files = tuple(file for file, content in contents.items() if content.keys)
    return Scan(tuple(chains), tuple(sorted(problems)), broken, key_files, tuple(foreign))


class _Pool:
    """Everything found in all files, each certificate and key once, with the files it stood in.

    Files are kept as the keys of a dictionary: an intermediate stands in thousands of them.
    """

    def __init__(self, contents: Mapping[str, Content]) -> None:
        self.contents = contents
        self.certificates: dict[str, tuple[Certificate, dict[str, None]]] = {}
        self.keys: dict[bytes, tuple[Key, dict[str, None]]] = {}
        self.by_subject: dict[bytes, list[Certificate]] = {}
        self.issuers: set[bytes] = set()

    def add(self, file: str) -> None:
        """Take up what one file contains."""
        for certificate in self.contents[file].certificates:
            known = self.certificates.get(certificate.fingerprint)
            if known is None:
                known = self.certificates[certificate.fingerprint] = (certificate, {})
                self.by_subject.setdefault(certificate.subject, []).append(certificate)
                if not certificate.self_signed:
                    self.issuers.add(certificate.issuer)
            known[1][file] = None
        for key in self.contents[file].keys:
            self.keys.setdefault(key.public_key, (key, {}))[1][file] = None

    def reason_against(self, leaf: Certificate) -> str | None:
        """Return why the certificate cannot be served, or None if it can."""
        if leaf.public_key not in self.keys:
            return "its private key is not here"
        if not leaf.names:
            return "it names no host: clients look at its subjectAltName alone"
        return leaf.weakness

    def completes_chains(self, found: Certificate) -> bool:
        """Say whether it is a CA's, of which nothing is missing: one that stands above another
        certificate here, or has nothing of a server's, neither key nor host name.

        `openssl req -x509` marks what is meant for a server as a CA's too."""
        return found.is_authority and (
            found.subject in self.issuers or not (found.names or found.public_key in self.keys)
        )

    def lonely_keys(self) -> Iterable[Problem]:
        """Yield a problem for each file with a key that fits no certificate here."""
        paired = {certificate.public_key for certificate, _ in self.certificates.values()}
        for public_key, (_, files) in self.keys.items():
            if public_key not in paired:
                for file in files:
                    yield Problem(file, "no certificate here belongs to this private key")


def _chain(pool: _Pool, leaf: Certificate, places: Collection[str], now: datetime) -> Chain:
    """Return the chain that begins with a certificate against which nothing speaks."""
    key, key_files = pool.keys[leaf.public_key]
    issuers, missing = _issuers(pool, leaf, places, now)
    return Chain(
        names=leaf.names,
        key_type=key.kind,
        not_before=leaf.not_before,
        not_after=leaf.not_after,
        chain_pem=b"".join(c.pem for c in (leaf, *issuers)),
        key_pem=key.pem,
        files=tuple(dict.fromkeys((*places, *key_files))),
        issuer=leaf.issuer_name,
        fingerprint=leaf.fingerprint,
        intermediates=tuple(issuers),
        missing=missing,
        damaged=any(pool.contents[file].problems for file in places),
    )


def faults_above(chains: Iterable[Chain], now: datetime) -> Iterator[Problem]:
    """Yield a problem for each chain that clients will not be able to follow to its root. What is
    damaged has been told of its file."""
    for chain in chains:
        if chain.rank(now) == 1 and not chain.damaged:
            message = f"certificate for {chain.names[0]}: {chain.fault(now)}"
            yield Problem(chain.files[0], message)


def _out_of_date(chains: Iterable[Chain], now: datetime) -> Iterator[Problem]:
    """Yield a problem for each chain outside its validity, unless valid ones cover its names.

    A renewal leaves expired certificates behind (certbot's `archive/`), which is no problem.
    """
    covered = {name for chain in chains if chain.valid(now) for name in chain.names}
    for chain in chains:
        if chain.valid(now) or all(covered & {n, parent_pattern(n)} for n in chain.names):
            continue
        state = _out_of_time(chain.not_before, chain.not_after, now)
        yield Problem(chain.files[0], f"certificate for {chain.names[0]} {state}", error=True)


def _issuers(
    pool: _Pool, leaf: Certificate, places: Collection[str], now: datetime
) -> tuple[list[Certificate], str | None]:
    """Return the intermediates from the leaf's issuer upwards, and the name of one that lacks.

    Where several certificates could follow (cross-signing), the ones beside the leaf in its
    file win, in the file's order: that is the chain its CA meant. A self-signed root is left
    out: clients have it or do not trust it (RFC 8446 section 4.4.2).
    """
    beside = {
        certificate.fingerprint: position
        for file in reversed(tuple(places))
        for position, certificate in enumerate(pool.contents[file].certificates)
    }

    def preference(candidate: Certificate) -> tuple[bool, float, float]:
        position = beside.get(candidate.fingerprint, math.inf)
        return (not candidate.valid(now), position, -candidate.not_after.timestamp())

    chain: list[Certificate] = []
    current = leaf
    while not current.self_signed and len(chain) < MAX_CHAIN:
        candidates = [
            candidate
            for candidate in pool.by_subject.get(current.issuer, ())
            if candidate not in chain and candidate is not leaf and candidate.issued(current)
        ]
        if not candidates:
            # Only a certificate that tells where its issuer can be fetched is known to have an
            # intermediate above it; the root itself need not be here.
            return chain, None if chain or not current.tells_issuer else current.issuer_name
        current = min(candidates, key=preference)
        if current.self_signed:
            break
        chain.append(current)
    return chain, None
