"""The fields of a head as a filter sees them, over the lines as they came.

Nothing is taken apart before somebody asks for it, and what nobody touches goes on byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Protocol

from edgeproxy.filters.contract import FieldError, field_line
from edgeproxy.http1.fields import FOLD, folded


class Guard(Protocol):
    """Who says which fields may be written now; raises :class:`FieldError` for others."""

    def may_write(self, headers: Headers, name: str, *, remove: bool) -> None: ...


class _Closed:
    """The guard of a head that has gone."""

    def may_write(self, headers: Headers, name: str, *, remove: bool) -> None:
        raise FieldError(f"{name} cannot be written any more: this head has gone")


CLOSED: Guard = _Closed()


class Headers:
    """Ordered fields; names in any case. Text on this side is latin-1 on the wire.

    ``get`` joins several of a name by commas, as services may read them (RFC 9110 5.3), cookies
    by semicolons; ``get_all`` tells them apart. Who sets or removes one does it to every spelling
    that a service might take for the same: ``X_Tenant`` for ``X-Tenant``.
    """

    __slots__ = ("_guard", "_lines", "request", "written")

    def __init__(self, lines: list[bytes], guard: Guard, *, request: bool) -> None:
        self._lines = lines
        self._guard = guard
        #: Whether they are a request's; an answer's else.
        self.request = request
        #: Names that were set or removed, as :data:`~edgeproxy.http1.fields.FOLD` makes them.
        self.written: set[bytes] = set()

    def get_all(self, name: str) -> list[str]:
        """Every value of that name, in order."""
        lower = name.lower().encode("latin-1", "replace")
        size = len(lower)
        return [
            line[size + 1 :].strip(b" \t").decode("latin-1")
            for line in self._lines
            # Where the colon stands is the quickest thing to tell that it is another.
            if line[size : size + 1] == b":" and line[:size].lower() == lower
        ]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value; ``default`` where there is none."""
        found = self.get_all(name)
        if not found:
            return default
        return found[0] if len(found) == 1 else _joint(name).join(found)

    def set(self, name: str, value: str) -> None:
        """One field of that name, in place of those that are there."""
        line = field_line(name, value)
        self._guard.may_write(self, name, remove=False)
        self._take_out(name)
        self._lines.append(line)

    def add(self, name: str, value: str) -> None:
        """One more field of that name."""
        line = field_line(name, value)
        self._guard.may_write(self, name, remove=False)
        self.written.add(folded(name))
        self._lines.append(line)

    def remove(self, name: str) -> None:
        """No field of that name; there need not be one."""
        field_line(name, "")
        self._guard.may_write(self, name, remove=True)
        self._take_out(name)

    def items(self) -> list[tuple[str, str]]:
        """All fields as they stand there."""
        pairs = (line.decode("latin-1").partition(":") for line in self._lines)
        return [(name, value.strip(" \t")) for name, _, value in pairs]

    def close(self) -> Set[bytes]:
        """The head has gone: nothing in it can be changed any more.

        :return: the names that were written.
        """
        self._guard = CLOSED
        return self.written

    def copied(self, guard: Guard) -> Headers:
        """The same fields, written to by nobody else."""
        closed = self._guard is CLOSED
        return Headers(list(self._lines), CLOSED if closed else guard, request=self.request)

    def _take_out(self, name: str) -> None:
        gone = folded(name)
        self.written.add(gone)
        size = len(gone)
        self._lines[:] = [
            line
            for line in self._lines
            if line[size : size + 1] != b":" or line[:size].translate(FOLD) != gone
        ]

    def __getitem__(self, name: str) -> str:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    __setitem__ = set
    __delitem__ = remove

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.items())

    def __len__(self) -> int:
        return len(self._lines)

    def __repr__(self) -> str:
        # Without values: a head holds cookies and credentials.
        return f"<Headers {', '.join(self)}>"


def _joint(name: str) -> str:
    return "; " if name.lower() == "cookie" else ", "
