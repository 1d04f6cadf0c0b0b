"""YAML text into a tree in which every value knows its line and column.

The tree is built from PyYAML's events, not by its composer: so nesting and aliases are bounded
while reading (the C composer recurses on the C stack), duplicate keys are seen, and scalars
follow the core schema of YAML 1.2 (section 10.3.2): `no`, `off` and `1:30` stay text.
JSON is read by the same way.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

import yaml

from edgeproxy.config.problems import Problem
from edgeproxy.config.syntax import DEPTH, TOO_DEEP, Unreadable, explain, position
from edgeproxy.config.units import shown

MOST = 500_000  # values in one file: 5,000 long routes have 70,000
BORROWED = 100_000  # values that aliases may add: a bomb has billions, an honest file hundreds

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: What a YAML stream may hold (YAML 1.2, 5.1), apart from a byte order mark at its beginning.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_CONSTANTS: dict[str, bool | float | None] = (
    dict.fromkeys(["null", "Null", "NULL", "~", ""], None)
    | dict.fromkeys(["true", "True", "TRUE"], True)
    | dict.fromkeys(["false", "False", "FALSE"], False)
    | dict.fromkeys([".inf", ".Inf", ".INF", "+.inf"], float("inf"))
    | {"-.inf": float("-inf"), ".nan": float("nan"), ".NaN": float("nan")}
)
_LONGEST_NUMBER = 40  # digits; a longer one stays text, and whoever wanted a number says so
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")

Scalar = str | int | float | bool | None


@dataclass(slots=True, eq=False)
class Node:
    """One value: where it stands (1-based), and what it holds."""

    line: int
    column: int
    scalar: Scalar = None
    items: "list[Node] | None" = None
    #: key -> (where the key stands, the value)
    pairs: "dict[str, tuple[Node, Node]] | None" = None
    size: int = 1  # values below and including this one, aliases counted as often as they are used
    height: int = 1

    def plain(self) -> object:
        """The value as dict, list and scalars. Recursion is bounded by `DEPTH`."""
        if self.pairs is not None:
            return {key: value.plain() for key, (_, value) in self.pairs.items()}
        if self.items is not None:
            return [item.plain() for item in self.items]
        return self.scalar

    def get(self, key: str) -> "Node | None":
        """The value under `key`, if this is a mapping that has it."""
        found = self.pairs.get(key) if self.pairs else None
        return found[1] if found else None

    def entries(self) -> "Iterator[tuple[str, Node, Node]]":
        """(key, where it stands, value) of a mapping; nothing for anything else."""
        for key, (place, value) in (self.pairs or {}).items():
            yield key, place, value


def read(text: str, file: str) -> tuple[Node, list[Problem]]:
    """The tree of `text`, and problems that do not stop the reading (keys given twice).

    Raises `Unreadable` for what is not YAML, or nested or aliased beyond all measure.
    """
    text = text.removeprefix("\ufeff")
    bad = _UNPRINTABLE.search(text)
    if bad:
        line, column = position(text, bad.start())
        name = f"U+{ord(bad[0]):04X}"
        raise Unreadable(
            Problem(file, line, column, f"the character {name} is not text; remove it")
        )
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise Unreadable(explain(error, text, file)) from None
    except yaml.YAMLError:
        raise Unreadable(
            Problem(file, 1, 1, "this is not YAML; write `key: value` lines")
        ) from None
    return builder.root or Node(1, 1), builder.problems


@dataclass
class _Open:
    """A mapping or sequence whose end has not been read yet."""

    node: Node
    anchor: str | None
    key: Node | None = None
    keys: dict[str, int] = field(default_factory=dict)


class _Builder:
    """Takes events in order, holds the root and what is open."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._borrowed = 0
        self._values = 0

    def take(self, event: yaml.Event) -> None:
        """The next event of the stream; raises `Unreadable`."""
        self._values += 1
        if self._values > MOST:
            self._stop(self._at(event), f"more than {MOST} values stand in this file; split it")
        if isinstance(event, yaml.ScalarEvent):
            node = self._at(event)
            node.scalar = self._value(event, node)
            if event.anchor:
                self._anchors[event.anchor] = node
            self._add(node)
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._alias(event))
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            self._stop(self._at(event), "a second document begins; a file holds one")

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        node = self._at(event)
        if event.tag not in (None, "!"):
            self._stop(node, f"tags such as {shown(event.tag)} are not used here; remove it")
        if len(self._open) >= DEPTH:
            self._stop(node, TOO_DEEP)
        if self._open and self._open[-1].node.pairs is not None and self._open[-1].key is None:
            self._stop(node, "a key is one line of text, not a list or a mapping")
        if isinstance(event, yaml.MappingStartEvent):
            node.pairs = {}
        else:
            node.items = []
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_Open(node, event.anchor))

    def _end(self) -> None:
        closed = self._open.pop()
        if closed.anchor:
            self._anchors[closed.anchor] = closed.node
        self._add(closed.node)

    def _add(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        outer = self._open[-1]
        if outer.node.items is not None:
            outer.node.items.append(node)
        elif outer.key is None:
            outer.key = self._key(node)
            return
        else:
            self._pair(outer, outer.key, node)
        outer.node.size += node.size
        outer.node.height = max(outer.node.height, node.height + 1)

    def _pair(self, outer: _Open, key: Node, value: Node) -> None:
        name, outer.key = str(key.scalar), None
        assert outer.node.pairs is not None
        if name == "<<":
            self._problem(key, "`<<` is not part of YAML 1.2; use `defaults`, or repeat the lines")
        elif name in outer.node.pairs:
            first = outer.node.pairs[name][0].line
            message = f"{shown(name)} stands here twice, first on line {first}; remove one"
            self._problem(key, message)
        else:
            outer.node.pairs[name] = (key, value)

    def _key(self, node: Node) -> Node:
        if node.pairs is not None or node.items is not None:
            self._stop(node, "a key is one line of text, not a list or a mapping")
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        here = self._at(event)
        name = str(event.anchor)
        if name not in self._anchors:
            self._stop(
                here, f"no anchor &{name} stands above; text that begins with * needs quotes"
            )
        found = self._anchors[name]
        if found is None:
            self._stop(here, f"*{name} stands inside what it names")
        self._borrowed += found.size
        if self._borrowed > BORROWED or len(self._open) + found.height > DEPTH:
            self._stop(here, "aliases make this file too large; write it out")
        return Node(
            here.line, here.column, found.scalar, found.items, found.pairs, found.size, found.height
        )

    def _value(self, event: yaml.ScalarEvent, node: Node) -> Scalar:
        is_key = bool(
            self._open and self._open[-1].node.pairs is not None and self._open[-1].key is None
        )
        if event.tag is not None:
            if event.tag not in _TEXT_TAGS:
                self._stop(node, f"tags such as {shown(event.tag)} are not used here; remove it")
            return str(event.value)
        return str(event.value) if is_key or not event.implicit[0] else resolve(event.value)

    def _at(self, event: yaml.Event) -> Node:
        mark = event.start_mark
        return Node(mark.line + 1, mark.column + 1) if mark else Node(1, 1)

    def _problem(self, node: Node, message: str) -> None:
        self.problems.append(Problem(self.file, node.line, node.column, message))

    def _stop(self, node: Node, message: str) -> NoReturn:
        raise Unreadable(Problem(self.file, node.line, node.column, message))


def resolve(text: str) -> Scalar:
    """The value of a plain scalar by the core schema of YAML 1.2."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) > _LONGEST_NUMBER or text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        base = 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10
        return int(text, base)
    return float(text) if _FLOAT.fullmatch(text) else text
