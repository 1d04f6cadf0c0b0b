"""Which certificates stay in use although their files no longer offer them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from edgeproxy.certs.reading import Survey
from edgeproxy.certs.scan import Chain, Problem, Scan


def kept(before: Iterable[Chain], found: Scan, survey: Survey, now: datetime) -> tuple[Chain, ...]:
    """Return the chains of `before` that a broken file would take away.

    A chain stays while it is valid and one of its files is still there and broken: half-written,
    unreadable, emptied, or renewed without its other half. A file that was removed, or that now
    carries another good chain, takes its old one with it.
    """
    renewed = {chain.fingerprint for chain in found.chains}
    good = {file for chain in found.chains for file in chain.files}

    def broken(file: str) -> bool:
        if file in survey.present:
            return file in found.broken or file not in good
        return any(not parent or file.startswith(parent + "/") for parent in survey.unreadable)

    return tuple(
        chain
        for chain in before
        if chain.fingerprint not in renewed
        and chain.valid(now)
        and any(broken(file) for file in chain.files)
    )


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


def told_of(chains: Iterable[Chain], present: Collection[str]) -> Iterable[Problem]:
    """Tell for each chain that was kept that it was."""
    for chain in chains:
        file = next((file for file in chain.files if file in present), chain.files[0])
        name = chain.names[0]
        yield Problem(
            file,
            f"the certificate for {name} that was read before stays in use, "
            f"until it expires on {chain.not_after:%Y-%m-%d %H:%M} UTC",
        )
