"""Which route answers a request: compiled rules in one total order.

Exact host before one-label wildcard before any; exact path before longest prefix before regular
expression; then a method named before none, then more header conditions before fewer, then the
order in the file. The first rule that matches wholly wins. ``Router.ordered`` is that order.

A rule that names GET takes HEAD too (RFC 9110 9.3.2: the same answer without its body).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar, cast

from edgeproxy.http1.grammar import RequestHead

T = TypeVar("T")


class PathKind(IntEnum):
    """How a rule's path is compared; the value is its rank."""

    EXACT = 0
    PREFIX = 1
    REGEX = 2


@dataclass(frozen=True)
class Rule(Generic[T]):
    """One route's conditions and what stands behind it.

    ``host`` is a name in lower case, ``*.example.com``, or ``*``. ``path`` is in decoded form.
    ``methods`` empty means any. ``when`` are header conditions: names in lower case, exact values.
    """

    host: str
    methods: frozenset[bytes]
    kind: PathKind
    path: bytes
    when: tuple[tuple[bytes, bytes], ...]
    order: int
    action: T
    pattern: re.Pattern[bytes] | None = field(default=None, compare=False)
    #: Asks for nothing but the path, as most rules do.
    plain: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", not self.methods and not self.when)

    @property
    def rank(self) -> tuple[int, ...]:
        """Sorting by this gives the total order."""
        host = 2 if self.host == "*" else 1 if self.host.startswith("*.") else 0
        longest = -len(self.path) if self.kind is PathKind.PREFIX else 0
        return (
            host,
            self.kind,
            longest,
            0 if self.methods else 1,
            -len(self.when),
            self.order,
        )

    def takes(self, method: bytes, head: RequestHead) -> bool:
        """Whether method and header conditions hold; the path is compared by the router."""
        if self.methods and method not in self.methods:
            return False
        return not self.when or self.conditions_hold(head)

    def conditions_hold(self, head: RequestHead) -> bool:
        sent = {(name.lower(), value) for name, value in head.fields}
        return all(condition in sent for condition in self.when)


class NoRoute(Exception):
    """Nothing matches; ``allowed`` are the methods that would have found a route."""

    def __init__(self, allowed: frozenset[bytes]) -> None:
        super().__init__(allowed)
        self.allowed = allowed


class HostTable(Generic[T]):
    """The rules of one host, found by path in a few look-ups, however many there are."""

    def __init__(self, rules: Sequence[Rule[T]]) -> None:
        self.exact: dict[bytes, list[Rule[T]]] = {}
        #: A prefix whose first rule asks for nothing else leads straight to what is behind it.
        self.prefixes: dict[bytes, T | list[Rule[T]]] = {}
        self.patterns: list[Rule[T]] = []
        prefixes: dict[bytes, list[Rule[T]]] = {}
        for rule in rules:
            if rule.kind is PathKind.EXACT:
                self.exact.setdefault(rule.path, []).append(rule)
            elif rule.kind is PathKind.PREFIX:
                prefixes.setdefault(rule.path, []).append(rule)
            else:
                self.patterns.append(rule)
        for path, found in prefixes.items():
            self.prefixes[path] = found[0].action if found[0].plain else found
        self.longest = max(map(len, self.prefixes), default=0)
        self.slashed = any(len(prefix) > 1 and prefix.endswith(b"/") for prefix in self.prefixes)

    def find(self, path: bytes, method: bytes, head: RequestHead, seen: set[bytes]) -> T | None:
        """The first rule in order; methods of rules that only lack the method go to ``seen``."""
        if self.exact:
            rules = self.exact.get(path)
            if rules is not None:
                action = _first(rules, method, head, seen)
                if action is not None:
                    return action
        # The longest prefix that can match ends at the last slash that is not beyond all of them.
        prefixes = self.prefixes
        end = len(path)
        if end > self.longest:
            end = path.rfind(b"/", 0, self.longest + 1)
            if self.slashed and end > 0:
                end += 1
        while True:
            found = prefixes.get(path[:end] if end > 0 else b"/")
            if found is not None:
                if not isinstance(found, list):
                    return found
                action = _first(cast("list[Rule[T]]", found), method, head, seen)
                if action is not None:
                    return action
            if end <= 0:
                break
            cut = path.rfind(b"/", 0, end)
            # Where some prefix ends in a slash, both forms are tried: with it, then without.
            end = cut + 1 if self.slashed and 0 < cut < end - 1 else cut
        for rule in self.patterns:
            if rule.pattern is not None and rule.pattern.fullmatch(path):
                action = _first((rule,), method, head, seen)
                if action is not None:
                    return action
        return None


def _first(
    rules: Sequence[Rule[T]], method: bytes, head: RequestHead, seen: set[bytes]
) -> T | None:
    for rule in rules:
        if rule.takes(method, head):
            return rule.action
        if (
            rule.methods
            and method not in rule.methods
            and (not rule.when or rule.conditions_hold(head))
        ):
            seen |= rule.methods
    return None


class Router(Generic[T]):
    """All rules, compiled. Immutable."""

    def __init__(self, rules: Iterable[Rule[T]]) -> None:
        self.ordered: tuple[Rule[T], ...] = tuple(sorted(rules, key=lambda rule: rule.rank))
        by_host: dict[str, list[Rule[T]]] = {}
        for rule in self.ordered:
            by_host.setdefault(rule.host, []).append(rule)
        self._tables = {host: HostTable(found) for host, found in by_host.items()}

    def tables(self, host: str) -> tuple[HostTable[T], ...]:
        """The tables that a request for ``host`` looks through, in order."""
        parent = host.partition(".")[2]
        names = (host, f"*.{parent}" if parent else "", "*")
        return tuple(self._tables[name] for name in names if name in self._tables)


def find(tables: tuple[HostTable[T], ...], path: bytes, method: bytes, head: RequestHead) -> T:
    """Look a decoded path up in the tables of its host.

    :raises NoRoute: with the methods that would have matched.
    """
    seen: set[bytes] = set()
    for table in tables:
        action = table.find(path, method, head, seen)
        if action is not None:
            return action
    raise NoRoute(frozenset(seen))
