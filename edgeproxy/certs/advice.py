"""What is not wrong yet: certificates near their end, names in two of them, keys that all can read.

None of it keeps a certificate from being served.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import Chain, Problem
from edgeproxy.certs.steps import run

PARTS = {5: "a fifth", 10: "a tenth"}
"""What is left of a certificate's life when it is told. Renewals are due when a third is left
(certbot, https://letsencrypt.org/docs/integration-guide/#when-to-renew): at a fifth several have
failed."""

# Others than the owner may write, or all may read. A group of its own may read: that is how a
# service gets at keys that root has written.
_TOO_OPEN = 0o026

_CHUNK = 500  # certificates looked at in a millisecond or two
_MOST = 3  # names, and files, told of one certificate


class Aging(NamedTuple):
    """A certificate in use that has little of its life left."""

    chain: Chain
    part: int
    """One of `PARTS`."""

    @property
    def problem(self) -> Problem:
        """The same in words."""
        chain = self.chain
        return Problem(
            chain.files[0],
            f"the certificate for {chain.names[0]} expires on {chain.not_after:%Y-%m-%d %H:%M} UTC:"
            f" less than {PARTS[self.part]} of its life is left, and nothing here replaces it",
        )


def part_left(chain: Chain, now: datetime) -> int | None:
    """Return the smallest of `PARTS` that a certificate has reached; None: it has enough left,
    or has expired."""
    if now > chain.not_after:
        return None
    return max((part for part in PARTS if now >= _moment(chain, part)), default=None)


def _moment(chain: Chain, part: int) -> datetime:
    life: timedelta = chain.not_after - chain.not_before
    return chain.not_after - life / part


def aging(
    names: NameMap, now: datetime
) -> Generator[None, None, tuple[list[Aging], datetime | None]]:
    """Return the certificates in use that have a fifth or less of their life left, and when that
    will be another list (None for never). Yields every few milliseconds.

    In use is what answers for some name: what a renewal left behind may grow old."""
    found: list[Aging] = []
    following: datetime | None = None
    seen: set[str] = set()
    for number, chain in enumerate(chain for entry in names.entries for chain in entry.chains):
        if number % _CHUNK == 0:
            yield
        if chain.fingerprint in seen:
            continue
        seen.add(chain.fingerprint)
        part = part_left(chain, now)
        if part is not None:
            found.append(Aging(chain, part))
        for moment in (_moment(chain, part) for part in PARTS):
            if moment > now and (following is None or moment < following):
                following = moment
    return found, following


def overlaps(names: NameMap) -> Generator[None, None, list[Problem]]:
    """Return a problem for each certificate that loses names to others of its key type in a way
    that is hardly meant: while it answers for the rest of its names, or although it is the newer
    one. Yields every few milliseconds.

    An older one that answers for nothing is what a renewal left behind: no word of it.
    """
    found: list[Problem] = []
    for number, chain in enumerate(names.chains):
        if number % _CHUNK == 0:
            yield
        mine = names.answered(chain)
        if len(mine) == len(chain.names) or not chain.valid(names.made):
            continue
        lost = [
            (name, other)
            for name in chain.names
            if name not in mine
            for other in names.by_name[name].chains
            if other.key_type == chain.key_type
        ]
        if mine:
            words = "is for {} too, and {} answers: one name, two certificates in use"
        else:
            lost = [(name, other) for name, other in lost if _outlives(other, chain)]
            words = "for {} is not used: {} began earlier, and goes before it as it lasts longer"
        if lost:
            files = (other.files[0] for _, other in lost)
            words = words.format(_few(name for name, _ in lost), _few(files))
            found.append(Problem(chain.files[0], f"its certificate {words}"))
    return found


def _outlives(older: Chain, newer: Chain) -> bool:
    return older.not_before < newer.not_before and older.not_after > newer.not_after


def _few(texts: Iterable[str]) -> str:
    each = list(dict.fromkeys(texts))
    return ", ".join(each[:_MOST]) + ("" if len(each) <= _MOST else ", …")


def open_keys(files: Iterable[str], modes: Mapping[str, int]) -> list[Problem]:
    """Return a problem for each file with a private key that too many may read or write."""
    return [
        Problem(
            file,
            f"holds a private key and has mode {modes[file]:04o}: others may "
            f"{'write' if modes[file] & 0o022 else 'read'} it; `chmod 640` or less",
        )
        for file in files
        if modes.get(file, 0) & _TOO_OPEN
    ]


def all_advice(
    names: NameMap, key_files: Iterable[str], modes: Mapping[str, int]
) -> tuple[Problem, ...]:
    """Return everything that this module can say at the moment at which `names` was made."""
    old = [each.problem for each in run(aging(names, names.made))[0]]
    return tuple(sorted({*old, *run(overlaps(names)), *open_keys(key_files, modes)}))
