"""Tells the operator what is wrong with the certificates, once for each change, and counts it."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping
from datetime import datetime

from twisted.logger import Logger

from edgeproxy.certs.advice import Aging, aging, open_keys, overlaps
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import Chain, Problem


class Counts:
    """Since the start of the process: how often the certificates changed, and broken files."""

    __slots__ = ("changes", "problems")

    def __init__(self) -> None:
        self.changes = 0
        """Maps of names published: one for each change of the folder."""
        self.problems = 0
        """Times that something was wrong with a file and was not before."""

    def as_dict(self) -> dict[str, int]:
        return {"changes": self.changes, "problems": self.problems}


class Telling:
    """What is wrong in one folder, and what is not wrong yet; the log has each once."""

    log = Logger()

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.problems: tuple[Problem, ...] = ()
        """What is wrong now."""
        self.warnings: tuple[Problem, ...] = ()
        """What is not wrong yet."""
        self.due: datetime | None = None
        """When `advise` has something else to say although nothing changed; None for never."""
        # By fingerprint, what was told of a certificate's age, until it expires.
        self._aged: dict[str, tuple[int, datetime]] = {}

    def tell(self, found: Collection[Problem], kept: Iterable[Problem]) -> bool:
        """Take what is wrong now, and what stays in use although its files are broken; log what
        was not wrong before. True if anything is other than before."""
        problems = tuple(sorted({*found, *kept}))
        new = set(problems).difference(self.problems)
        for problem in sorted(new):
            line = self.log.error if problem.error else self.log.warn
            line("certificates: {file}: {text}", file=problem.file, text=problem.message)
        self.counts.problems += len({problem.file for problem in new.intersection(found)})
        changed = problems != self.problems
        self.problems = problems
        return changed

    def ended(self, chains: Iterable[Chain]) -> None:
        """Log that certificates have expired that were in use although their files are broken."""
        for chain in chains:
            self.log.error(
                "certificates: {file}: the certificate for {name} that was kept has expired",
                file=chain.files[0],
                name=chain.names[0],
            )

    def advise(
        self, names: NameMap, key_files: Iterable[str], modes: Mapping[str, int], now: datetime
    ) -> Generator[None, None, None]:
        """Log what is not wrong yet and was not told; yields every few milliseconds."""
        old, self.due = yield from aging(names, now)
        others = {*(yield from overlaps(names)), *open_keys(key_files, modes)}
        for problem in sorted(others.difference(self.warnings)):
            self._warn(problem)
        for each in old:
            if self._aged.get(each.chain.fingerprint, (0, now))[0] < each.part:
                self._warn(each.problem)
        self._remember(old, now)
        self.warnings = tuple(sorted({*others, *(each.problem for each in old)}))

    def _remember(self, old: Iterable[Aging], now: datetime) -> None:
        """A certificate that comes back is not told again; one that has expired is forgotten."""
        for chain, part in old:
            self._aged[chain.fingerprint] = (part, chain.not_after)
        self._aged = {name: told for name, told in self._aged.items() if told[1] >= now}

    def _warn(self, problem: Problem) -> None:
        self.log.warn("certificates: {file}: {text}", file=problem.file, text=problem.message)
