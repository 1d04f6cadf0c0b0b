"""Keys from CSV (RFC 4180): a first line that names the columns, then a key a line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from edgeproxy.identity.keyfile import moment
from edgeproxy.identity.keyimport import Findings, Foreign, Place

_LISTS = {"groups": "groups", "group": "groups", "scopes": "scopes", "scope": "scopes"}
_TIMES = ("not_before", "expires")
_TEXTS = ("plan", "consumer", "note", "id")
COLUMNS = ("key", "sha256", "name", "groups", "scopes", "plan", *_TIMES, "consumer", "note", "id")


def read(text: str, file: str) -> Findings:
    """The keys of a file. The comma, the semicolon or the tab separates, whichever stands in the
    first line; a list is separated by spaces, commas or semicolons; a time is RFC 3339, a date
    (its first moment in UTC), or seconds since 1970."""
    found = Findings()
    text = text.removeprefix("\ufeff")
    first = text.partition("\n")[0]
    separator = next((each for each in ",;\t" if each in first), ",")
    try:
        rows = _rows(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
        line, header = next(rows, (1, []))
        names = [name.strip().lower() for name in header]
        if not _header(names, Place(file, line), found):
            return found
        for line, row in rows:
            _row(dict(zip(names, row, strict=False)), len(row), names, Place(file, line), found)
    except _Malformed as error:
        found.wrong(Place(file, error.line), f"this is not CSV: {error}")
    return found


class _Malformed(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _rows(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the line that it begins on."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _Malformed(line, str(error)) from None
        if any(field.strip() for field in row):
            yield line, row


def _header(names: list[str], place: Place, found: Findings) -> bool:
    before = len(found.problems)
    for name in names:
        if names.count(name) > 1:
            found.wrong(place, f"the column {name!r} is there twice")
            break
    for name in names:
        if name not in COLUMNS and name not in _LISTS:
            near = get_close_matches(name, COLUMNS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COLUMNS)}"
            # It may be that there is no header, and this a key.
            shown = repr(name) if re.fullmatch(r"[a-z_ ]{1,20}", name) else "one of them"
            found.wrong(place, f"the first line names the columns, and {shown} is none; {hint}")
    if len(found.problems) == before:
        for needed in (["name"], ["key", "sha256"]):
            if not set(needed) & set(names):
                column = " or ".join(map(repr, needed))
                found.wrong(place, f"the first line names the columns; there is no {column}")
    return len(found.problems) == before


def _row(row: dict[str, str], width: int, names: list[str], place: Place, found: Findings) -> None:
    if width != len(names):
        found.wrong(place, f"{width} fields stand here, and the first line names {len(names)}")
        return
    values = {name: value.strip() for name, value in row.items()}
    key, digest = values.get("key", ""), values.get("sha256", "")
    problems = len(found.problems)
    if bool(key) == bool(digest):
        found.wrong(place, "one of `key` and `sha256` is right, and here are both, or none")
    if digest and not re.fullmatch(r"[0-9A-Fa-f]{64}", digest):
        found.wrong(place, "sha256 must be 64 hex digits")
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name in _LISTS:
            fields[_LISTS[name]] = [each for each in re.split(r"[ ,;]+", value) if each]
        elif name in _TEXTS:
            fields[name] = value
        elif name in _TIMES and value:
            _take(fields, name, value, place, found)
    if len(found.problems) > problems:
        return
    known = bytes.fromhex(digest)
    found.keys.append(Foreign(place, values["name"], key, known, fields=fields))


def _take(fields: dict[str, Any], name: str, value: str, place: Place, found: Findings) -> None:
    try:
        fields[name] = _moment(value, name)
    except ValueError as error:
        found.wrong(place, str(error))


def _moment(value: str, name: str) -> float:
    if re.fullmatch(r"[0-9]{1,12}", value):
        return moment(int(value), name)
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        parsed: Callable[[str], datetime] = datetime.fromisoformat
        try:
            return parsed(value).replace(tzinfo=UTC).timestamp()
        except ValueError:
            pass
    return moment(value, name)
