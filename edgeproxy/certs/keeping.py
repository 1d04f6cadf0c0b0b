"""Which certificates stay in use although their files offer no better ones any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from edgeproxy.certs.reading import Survey
from edgeproxy.certs.scan import Chain, Problem, Scan, faults_above


def kept(before: Iterable[Chain], found: Scan, survey: Survey, now: datetime) -> tuple[Chain, ...]:
    """Return the chains of `before` that a bad file would take away.

    A chain stays while it is valid and one of its files is still there and bad: half-written,
    unreadable, emptied, renewed without its other half, or with a chain in it that clients would
    sooner turn away from (expired, not valid yet, without its intermediate). A file that was
    removed, or that now carries another good chain, takes its old one with it.
    """
    here = {chain.fingerprint: chain for chain in found.chains}
    lost = [c for c in before if c != here.get(c.fingerprint) and c.valid(now)]
    if not lost:
        return ()
    by_file: dict[str, list[Chain]] = {}
    for chain in found.chains:
        for file in chain.files:
            by_file.setdefault(file, []).append(chain)

    def stays(chain: Chain) -> bool:
        rank = chain.rank(now)
        as_good = {
            file: [new for new in by_file.get(file, ()) if new.rank(now) >= rank]
            for file in chain.files
        }
        if any(set(chain.names).issubset(new.names) for each in as_good.values() for new in each):
            return False
        return any(
            file in found.broken or not as_good[file]
            if survey.there(file)
            else survey.unknown(file)
            for file in chain.files
        )

    return tuple(filter(stays, lost))


def removed(
    before: Iterable[Chain], found: Scan, survey: Survey, now: datetime
) -> tuple[Chain, ...]:
    """Return the chains of `before` whose files are all gone, though they are valid."""
    renewed = {chain.fingerprint for chain in found.chains}
    return tuple(
        chain
        for chain in before
        if chain.fingerprint not in renewed
        and chain.valid(now)
        and survey.present.isdisjoint(chain.files)
    )


def shortened(found: Scan, before: Collection[Chain], now: datetime) -> Scan:
    """Find the chains that were renewed without their intermediate.

    Where a certificate does not tell its issuer's address nobody else could know that there is
    one: but with the chain before it was sent.
    """
    above = {chain.issuer for chain in before if chain.intermediates}
    lacking = {
        chain: replace(chain, missing=chain.issuer)
        for chain in found.chains
        if chain.issuer in above and not chain.intermediates and chain.missing is None
    }
    if not lacking:
        return found
    return found._replace(
        chains=tuple(lacking.get(chain, chain) for chain in found.chains),
        problems=tuple(sorted({*found.problems, *faults_above(lacking.values(), now)})),
    )


def reasons(stay: Iterable[Chain], found: Scan, survey: Survey, now: datetime) -> Iterator[Problem]:
    """Yield why a file is bad where nothing else has told of it: by itself it is not, a README
    is no certificate either."""
    told = {problem.file for problem in (*found.problems, *survey.problems)}
    in_stead = {file: chain for chain in found.chains for file in chain.files}
    for chain in stay:
        if not told.isdisjoint(chain.files):
            continue
        for file in filter(survey.there, chain.files):
            new = in_stead.get(file)
            if new is not None:
                yield Problem(file, f"certificate for {new.names[0]}: {new.fault(now)}")
            elif file not in survey.files:
                yield Problem(file, "is no regular file any more")
            else:
                empty = survey.files[file][2] == 0
                yield Problem(file, "is empty" if empty else "holds no PEM block any more")


def eased(problems: Iterable[Problem], stay: Iterable[Chain]) -> Iterator[Problem]:
    """Pass problems on; nobody is turned away for the sake of files whose chains stay."""
    files = {file for chain in stay for file in chain.files}
    for problem in problems:
        yield problem._replace(error=False) if problem.file in files else problem


def told_of(chains: Iterable[Chain], present: Collection[str]) -> Iterator[Problem]:
    """Tell for each chain that was kept that it was."""
    for chain in chains:
        file = next((file for file in chain.files if file in present), chain.files[0])
        name = chain.names[0]
        yield Problem(
            file,
            f"the certificate for {name} that was read before stays in use, "
            f"until it expires on {chain.not_after:%Y-%m-%d %H:%M} UTC",
        )
