"""Keys from a declarative file of Kong (YAML or JSON), as `deck` writes it too.

Consumers with their `keyauth_credentials` and `acls`, nested or at the top, become keys with
groups. Everything else in the file is about routes and services, and not looked at.
"""

from __future__ import annotations

import math
from typing import Any

from edgeproxy.config.nodes import Node
from edgeproxy.config.nodes import read as read_nodes
from edgeproxy.config.syntax import Unreadable
from edgeproxy.identity.keyimport import Findings, Foreign, Place

#: What else may prove who a consumer is: not keys, so it is told that it is left behind.
_OTHERS = (
    "basicauth_credentials",
    "hmacauth_credentials",
    "jwt_secrets",
    "oauth2_credentials",
    "mtls_auth_credentials",
    "groups",
    "plugins",
)

#: What consumers are known by, and what names them elsewhere in the file: the first that fits.
_NAMES = ("id", "username", "custom_id")


def read(text: str, file: str, now: float, header: str = "") -> Findings:
    """The keys of a file; a `ttl` counts from the key's `created_at`, or from `now`. Callers may
    show them in the field `header`: others that Kong reads them from are told."""
    found = Findings()
    try:
        root, problems = read_nodes(text, file)
    except Unreadable as error:
        problem = error.problem
        found.wrong(Place(file, problem.line), problem.message)
        return found
    for problem in problems:
        found.wrong(Place(file, problem.line), problem.message)
    _Reader(found, file, now).take(root)
    for name, place in _fields(root).items() if found.keys else ():
        if _folded(name) not in ("x-api-key", _folded(header)):
            found.note(
                Place(file, place.line),
                f"Kong's callers send their keys as `{name}`, a field or a query parameter; "
                f"`auth: {{ api_key: {{ header: {name}, query: {name} }} }}` lets them go on so",
            )
    return found


def _fields(root: Node) -> dict[str, Node]:
    """The names that the file's plugins say keys are sent under; Kong's own default is `apikey`."""
    found: dict[str, Node] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        waiting += node.items or [value for _, _, value in node.entries()]
        plugin, config = node.get("name"), node.get("config")
        if plugin is None or plugin.scalar != "key-auth" or config is None:
            continue
        names = config.get("key_names")
        for each in (names.items or ()) if names is not None else ():
            if isinstance(each.scalar, str):
                found[each.scalar] = each
    return found or {"apikey": root}


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")


class _Consumer:
    """One that the file names; `id` is what its services know it by."""

    def __init__(self, name: str, id: str) -> None:
        self.name = name
        self.id = id
        self.groups: list[str] = []
        self.credentials: list[Node] = []


class _Reader:
    def __init__(self, found: Findings, file: str, now: float) -> None:
        self._found = found
        self._file = file
        self._now = now
        self._consumers: list[_Consumer] = []
        #: Each of what Kong knows consumers by is unique among its own kind only.
        self._known: dict[str, dict[str, _Consumer]] = {name: {} for name in _NAMES}
        self._holders: set[str] = set()

    def take(self, root: Node) -> None:
        if root.get("consumers") is None and root.get("keyauth_credentials") is None:
            self._wrong(root, "there are no `consumers`, as Kong's declarative files have them")
        for node in self._items(root, "consumers"):
            self._consumer(node)
        for node in self._items(root, "acls"):
            consumer = self._named(node)
            if consumer is not None:
                self._group(node, consumer)
        for node in self._items(root, "keyauth_credentials"):
            consumer = self._named(node)
            if consumer is not None:
                consumer.credentials.append(node)
        for consumer in self._consumers:
            for node in consumer.credentials:
                self._credential(node, consumer)

    def _consumer(self, node: Node) -> None:
        given = {name: text for name in _NAMES if (text := self._text(node, name))}
        if not given:
            self._wrong(node, "a consumer has a `username` or a `custom_id`")
            return
        name = given.get("username") or given.get("custom_id") or given["id"]
        consumer = _Consumer(name, given.get("id") or name)
        for kind, text in given.items():
            if self._known[kind].setdefault(text, consumer) is not consumer:
                self._wrong(node, f"another consumer has the `{kind}` {text!r} already")
        if consumer.id in self._holders:
            self._wrong(
                node,
                f"services would know another consumer as {consumer.id!r}, too; give both an `id`",
            )
        self._holders.add(consumer.id)
        self._consumers.append(consumer)
        for each in self._items(node, "acls"):
            self._group(each, consumer)
        consumer.credentials += self._items(node, "keyauth_credentials")
        for other in _OTHERS:
            place = node.get(other)
            if place is not None:
                self._note(place, f"{other} of {name!r} are not API keys: left behind")

    def _named(self, node: Node) -> _Consumer | None:
        """The consumer that an entry at the top is for: by a name, or by an object with one."""
        place = node.get("consumer")
        found = None
        if place is not None and place.pairs is not None:
            given = ((kind, self._text(place, kind)) for kind in _NAMES)
            found = next((self._known[kind].get(text) for kind, text in given if text), None)
        elif place is not None and isinstance(place.scalar, str):
            known = (self._known[kind].get(place.scalar) for kind in _NAMES)
            found = next((each for each in known if each is not None), None)
        if found is None:
            self._wrong(node, "its `consumer` must be one that `consumers` names")
        return found

    def _group(self, node: Node, consumer: _Consumer) -> None:
        group = self._text(node, "group")
        if not group:
            self._wrong(node, "an entry of `acls` has a `group`")
        elif group not in consumer.groups:
            consumer.groups.append(group)

    def _credential(self, node: Node, consumer: _Consumer) -> None:
        problems = len(self._found.problems)
        key = self._text(node, "key")
        if not key and len(self._found.problems) == problems:
            self._wrong(node, "there is no `key`: Kong would make one, and nobody here knows it")
        elif key.startswith("{vault://"):
            self._wrong(node, "the `key` is in a vault of Kong's; put its text here")
        elif "${{" in key:
            self._wrong(
                node,
                "the `key` is decK's placeholder for a variable; import what "
                "`deck file render --populate-env-vars` makes of the file",
            )
        fields: dict[str, Any] = {"groups": consumer.groups}
        ttl, created = self._number(node, "ttl"), self._number(node, "created_at")
        if ttl:
            fields["expires"] = math.floor((created or self._now) + ttl)
        tags = [each.scalar for each in self._list(node, "tags")]
        fields["note"] = ", ".join(str(tag) for tag in tags)
        if len(self._found.problems) == problems:
            place = Place(self._file, node.line)
            self._found.keys.append(
                Foreign(place, consumer.name, key, holder=consumer.id, fields=fields)
            )

    # -- parts of the tree -----------------------------------------------------------------------

    def _list(self, node: Node, name: str) -> list[Node]:
        place = node.get(name)
        if place is None or (place.scalar is None and place.pairs is None and place.items is None):
            return []
        if place.items is None:
            self._wrong(place, f"`{name}` must be a list")
            return []
        return list(place.items)

    def _items(self, node: Node, name: str) -> list[Node]:
        found = []
        for each in self._list(node, name):
            if each.pairs is None:
                self._wrong(each, f"an entry of `{name}` must be a mapping")
            else:
                found.append(each)
        return found

    def _text(self, node: Node, name: str) -> str:
        place = node.get(name)
        if place is None or (place.scalar is None and place.pairs is None and place.items is None):
            return ""
        if not isinstance(place.scalar, str):
            self._wrong(place, f"`{name}` must be text; put it in quotes")
            return ""
        return place.scalar

    def _number(self, node: Node, name: str) -> float:
        place = node.get(name)
        if place is None or (place.scalar is None and place.pairs is None and place.items is None):
            return 0
        value = place.scalar
        if type(value) not in (int, float) or not 0 <= value < 1e11:  # type: ignore[operator]
            self._wrong(place, f"`{name}` must be seconds")
            return 0
        return float(value)  # type: ignore[arg-type]

    def _wrong(self, node: Node, message: str) -> None:
        self._found.wrong(Place(self._file, node.line), message)

    def _note(self, node: Node, message: str) -> None:
        self._found.note(Place(self._file, node.line), message)
