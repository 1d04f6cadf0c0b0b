"""Which certificate answers for a name: exact, then a wildcard over one label, then the default.

A `NameMap` is immutable and complete: what a handshake needs is two dictionary look-ups.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from types import MappingProxyType
from typing import Literal, NamedTuple

from edgeproxy.certs.certificate import Certificate
from edgeproxy.certs.hostname import normalise, normalise_address, parent_pattern
from edgeproxy.certs.scan import Chain
from edgeproxy.certs.steps import run

__all__ = ["Candidate", "Choice", "Entry", "NameMap", "Rule", "normalise"]

Rule = Literal["exact", "wildcard", "default", "refused"]

# The kinds of key that one OpenSSL context holds side by side, the preferred first.
_KEY_TYPES = ("ECDSA", "RSA", "Ed25519")


@dataclass(frozen=True, slots=True)
class Entry:
    """The chains that answer together, at most one per key type; the client's abilities decide.

    Entries are equal when they send the same certificates; names that are served by the same
    chains share one `Entry`.
    """

    name: str
    """A name of the first chain: what logs and listings call the entry."""
    ecdsa: Chain | None = None
    rsa: Chain | None = None
    ed25519: Chain | None = None

    @property
    def chains(self) -> tuple[Chain, ...]:
        """The chains there are, the preferred key type first."""
        return tuple(c for c in (self.ecdsa, self.rsa, self.ed25519) if c is not None)


class Candidate(NamedTuple):
    """A chain that covers a name, and why it answers or does not."""

    chain: Chain
    pattern: str
    verdict: str


class Choice(NamedTuple):
    """The answer to "who answers for this name, and why", for `edgeproxy certs --for`."""

    name: str | None
    rule: Rule
    entry: Entry | None
    candidates: tuple[Candidate, ...]


class NameMap:
    """An immutable map from names to entries, made at one moment from the chains of a folder.

    Per name and key type the valid chain that lasts longest wins, among those that are without a
    fault if there are any. A chain outside its validity answers only for names that no valid chain
    covers, be it exactly or by a wildcard: its clients then say "expired", which helps more than
    a refused handshake.
    """

    __slots__ = ("_by_name", "chains", "default", "default_name", "entries", "made", "until")

    def __init__(
        self,
        chains: Iterable[Chain],
        default: str | None,
        now: datetime,
        chosen: _Chosen | None = None,
    ) -> None:
        """Choose among `chains`; `default` is a name whose entry answers where no name matches.

        `now` is aware (UTC). `chosen` is for `in_steps` and `with_default`.
        """
        self.chains: tuple[Chain, ...] = tuple(chains)
        """All chains, the losing ones too."""
        self.made: datetime = now
        self.until: datetime | None = _next_change(self.chains, now)
        """The next moment when the same chains would give another map; None for never."""
        if chosen is None:
            chosen = run(_choose(self.chains, now))
        self._by_name: Mapping[str, Entry] = MappingProxyType(chosen.by_name)
        self.entries: tuple[Entry, ...] = chosen.entries
        """Each distinct entry once."""
        self.default_name: str | None = default
        self.default: Entry | None = None if default is None else self._find(default)[1]
        """The default's entry; None also when `default_name` names nothing that is here."""

    @classmethod
    def in_steps(
        cls, chains: Iterable[Chain], default: str | None, now: datetime
    ) -> Generator[None, None, NameMap]:
        """Do the work of the constructor, yielding every few milliseconds."""
        chains = tuple(chains)
        chosen = yield from _choose(chains, now)
        yield
        return cls(chains, default, now, chosen)

    def with_default(self, default: str | None) -> NameMap:
        """Return the same choices with another default."""
        chosen = _Chosen(dict(self._by_name), self.entries)
        return NameMap(self.chains, default, self.made, chosen)

    def __repr__(self) -> str:
        return f"<NameMap {len(self._by_name)} names, {len(self.entries)} entries>"

    @property
    def by_name(self) -> Mapping[str, Entry]:
        """The entries by name, wildcards as `*.example.com`."""
        return self._by_name

    def answered(self, chain: Chain) -> list[str]:
        """Return the names of a chain for which it answers, to clients that can take its key."""
        found = ((name, self._by_name.get(name)) for name in chain.names)
        return [name for name, entry in found if entry is not None and chain in entry.chains]

    def choose(self, name: str | None) -> Entry | None:
        """Return the entry for a name in any spelling (None: no SNI), or None to refuse."""
        if name is not None:
            entry = self._by_name.get(name)
            # Mostly the name comes as we spell it. An asterisk is a letter of no name.
            if entry is None or name[0] == "*":
                entry = self._find(name)[1]
            if entry is not None:
                return entry
        return self.default

    def _find(self, name: str) -> tuple[Rule, Entry | None]:
        """Return the entry that covers the name, and by which rule. Never the default."""
        normal = normalise(name)
        if normal is None:
            address = normalise_address(name)
            entry = None if address is None else self._by_name.get(address)
            return ("exact", entry) if entry is not None else ("refused", None)
        entry = self._by_name.get(normal)
        if entry is not None:
            return "exact", entry
        pattern = parent_pattern(normal)
        entry = None if pattern is None else self._by_name.get(pattern)
        return ("wildcard", entry) if entry is not None else ("refused", None)

    def why(self, name: str | None) -> Choice:
        """Explain the choice for a name: the rule, the entry, and each chain that covers it."""
        rule: Rule = "refused"
        entry = None
        if name is not None:
            rule, entry = self._find(name)
        normal = None if name is None else normalise(name) or normalise_address(name)
        if entry is None and self.default is not None:
            rule, entry = "default", self.default
        patterns = () if normal is None else (normal, parent_pattern(normal))
        candidates = tuple(
            Candidate(chain, pattern, self._verdict(chain, pattern, entry))
            for pattern in patterns
            if pattern is not None
            for chain in self.chains
            if pattern in chain.names
        )
        return Choice(normal, rule, entry, candidates)

    def _verdict(self, chain: Chain, pattern: str, entry: Entry | None) -> str:
        if entry is not None and chain in entry.chains:
            return "answers"
        if not chain.valid(self.made):
            return "expired" if self.made > chain.not_after else "not yet valid"
        if self._by_name.get(pattern) is not entry:
            return "the exact name goes before a wildcard"
        fault = chain.fault(self.made)
        if fault is not None:
            return fault
        return f"another {chain.key_type} certificate lasts longer"


_Best = dict[str, dict[str, Chain]]
_CHUNK = 500  # names or chains for which the work below takes a millisecond or two


class _Chosen(NamedTuple):
    by_name: dict[str, Entry]
    entries: tuple[Entry, ...]


def _choose(chains: Iterable[Chain], now: datetime) -> Generator[None, None, _Chosen]:
    """Return the entry for each name; equal entries are one object."""
    valid: _Best = {}
    invalid: _Best = {}
    # The longest-lasting comes last and stays; among equals the fingerprint decides, never the
    # file's name.
    ranked = []
    for number, chain in enumerate(chains):
        ranked.append(
            (chain.rank(now), chain.not_after, chain.not_before, chain.fingerprint, chain)
        )
        if number % _CHUNK == 0:
            yield
    ranked.sort(key=itemgetter(0, 1, 2, 3))
    yield
    for number, (rank, *_, chain) in enumerate(ranked):
        target = valid if rank else invalid
        for name in chain.names:
            target.setdefault(name, {})[chain.key_type] = chain
        if number % _CHUNK == 0:
            yield
    for name in invalid.keys() & valid.keys():
        del invalid[name]
    chosen: dict[str, Entry] = {}
    shared: dict[Entry, Entry] = {}
    for number, (name, best) in enumerate((*valid.items(), *invalid.items())):
        if best is not valid.get(name) and _wildcard_over(name) in valid:
            continue
        entry = _entry(best)
        chosen[name] = shared.setdefault(entry, entry)
        if number % _CHUNK == 0:
            yield
    return _Chosen(chosen, tuple(shared))


def _wildcard_over(name: str) -> str | None:
    return None if name.startswith("*.") else parent_pattern(name)


def _entry(best: Mapping[str, Chain]) -> Entry:
    first = next(best[kind] for kind in _KEY_TYPES if kind in best)
    return Entry(first.names[0], best.get("ECDSA"), best.get("RSA"), best.get("Ed25519"))


def _next_change(chains: Iterable[Chain], now: datetime) -> datetime | None:
    """Return the next moment when a chain, or a part of one, begins or ceases to be valid."""
    parts: dict[int, Chain | Certificate] = {}
    for chain in chains:
        parts[id(chain)] = chain
        parts.update((id(each), each) for each in chain.intermediates)
    moments = (moment for part in parts.values() for moment in (part.not_before, part.not_after))
    return min((moment for moment in moments if moment > now), default=None)
