"""What a filter is told of a request's end: the entry of the access log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_LONGEST = 4096  # characters of a member's JSON
_MOST = 32  # members that filters may add


class LogEntry(Mapping[str, Any]):
    """The members of one line, as they will stand there; ``entry["tenant"] = "acme"`` adds one.

    What the gateway itself says cannot be changed. Whoever adds a member answers for it: nothing
    secret belongs into a log.
    """

    def __init__(self, members: dict[str, Any]) -> None:
        self._members = members
        self._added: dict[str, str] = {}

    def __getitem__(self, name: str) -> Any:
        return self._members[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Raises ``ValueError`` for what cannot stand there."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a member: letters, digits and _ are")
        if name in self._members and name not in self._added:
            raise ValueError(f"{name!r} is the gateway's own member; choose another name")
        if name not in self._added and len(self._added) >= _MOST:
            raise ValueError(f"{_MOST} members were added already")
        try:
            written = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the value of {name!r} is no JSON: {error}") from None
        if len(written) > _LONGEST:
            raise ValueError(f"the value of {name!r} is longer than {_LONGEST} characters")
        self._members[name] = value
        self._added[name] = written

    def copied(self, guard: object) -> LogEntry:
        """The same, to be added to without consequence."""
        made = LogEntry(dict(self._members))
        made._added = dict(self._added)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def notes(self) -> str:
        """What was added, ready to be written: each member with a comma after it."""
        return "".join(f'"{name}":{written},' for name, written in self._added.items())
