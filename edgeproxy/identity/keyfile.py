"""The key file: UTF-8, one JSON object a line, empty lines allowed.

    {"id": "…", "name": "…", "digest": "<SHA-256 of the credential, 64 hex digits>", …}

With `"pepper": "<fingerprint>"` beside it the digest is the HMAC with that pepper (`pepper`): lines
of both kinds may stand in one file, since a digest cannot be turned into the other kind.

Optional: `created`, `not_before`, `expires`, `revoked` (times as RFC 3339 text with an offset, or
seconds since 1970; `revoked` also true or false), `plan`, `scopes`, `groups`, `consumer` (default:
the id), `replaces` (the id of the key that this one was rotated from), `note`.

What is not understood is an error and never ignored: a mistyped `expires` must not make a key that
lives for ever. Functions that change a file take and return its whole text and leave every line
that they do not change as it was, byte for byte.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from edgeproxy.identity.keyrecord import KeyRecord
from edgeproxy.identity.pepper import Pepper

LONGEST_LINE = 64 * 1024
"""Bytes. A key with hundreds of scopes fits; a file that is something else is noticed early."""

_END_OF_TIME = 253402300800.0  # the year 10000, which RFC 3339 cannot write
_TIMES = ("created", "not_before", "expires")
_LISTS = ("scopes", "groups")
_TEXTS = ("plan", "consumer", "replaces", "note", "pepper")
_KNOWN = frozenset(("id", "name", "digest", "revoked", *_TIMES, *_LISTS, *_TEXTS))
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# Neither control characters nor half a surrogate pair, which JSON can spell and UTF-8 cannot.
_NAME = re.compile(r"(?! )[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}(?<! )")
_NOTE = re.compile(r"[^\ud800-\udfff]*")
_WORD = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}", re.ASCII)  # RFC 6749's scope-token
_ID_FORM = "1 to 64 of A-Z a-z 0-9 . _ -"
_OPTIONAL = {
    "plan": (_WORD, "a word"),
    "consumer": (_ID, _ID_FORM),
    "replaces": (_ID, _ID_FORM),
    "note": (_NOTE, "text"),
    "pepper": (re.compile(r"[0-9a-f]{16}", re.ASCII), "the fingerprint of a pepper, 16 hex digits"),
}


class KeyFileError(Exception):
    """A line (from 1; 0 for the file as a whole) that cannot be used, and why."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


def parse_line(line: bytes, number: int) -> KeyRecord:
    """The record on line `number`; KeyFileError if it is not one. The line must not be blank."""
    try:
        return record_from(parse_object(line))
    except ValueError as error:
        raise KeyFileError(number, str(error)) from None


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object on a line, its values not yet looked at; ValueError says what is wrong."""
    if len(line) > LONGEST_LINE:
        raise ValueError(f"longer than {LONGEST_LINE} bytes")
    try:
        found = _decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not a JSON object: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not a JSON object: nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def record_from(found: Mapping[str, Any]) -> KeyRecord:
    """The record that an object describes; ValueError says which value is wrong."""
    if not _KNOWN.issuperset(found):
        unknown = sorted(set(found) - _KNOWN)[0]
        raise ValueError(f"unknown field {unknown!r}; there are {', '.join(sorted(_KNOWN))}")
    key_id = _matching(found, "id", _ID, _ID_FORM)
    for field, (form, right) in _OPTIONAL.items():
        if field in found:
            _matching(found, field, form, right)
    moment(found.get("created", 0), "created")
    not_before = moment(found["not_before"], "not_before") if "not_before" in found else -math.inf
    expires = moment(found["expires"], "expires") if "expires" in found else math.inf
    if expires <= not_before:
        raise ValueError("expires must be later than not_before")
    return KeyRecord(
        key_id,
        _matching(found, "name", _NAME, "1 to 200 characters, no control characters"),
        _digest(found),
        not_before=not_before,
        expires=expires,
        revoked=_revoked(found),
        groups=tuple(_words(found, "groups")),
        scopes=frozenset(_words(found, "scopes")),
        plan=found.get("plan", ""),
        consumer=found.get("consumer", ""),
        pepper=found.get("pepper", ""),
    )


def wrong_pepper(record: KeyRecord, pepper: Pepper | None) -> str:
    """Why a key cannot be looked up with the pepper that is configured, if any; "" if it can."""
    if not record.pepper or (pepper is not None and pepper.fingerprint == record.pepper):
        return ""
    if pepper is None:
        return (
            f"the digest is made with a pepper ({record.pepper}), and none is configured; "
            'name it, as in `keys: { file: keys.jsonl, pepper: "${file:pepper}" }`'
        )
    return (
        f"the digest is made with another pepper ({record.pepper}) than the one that is "
        f"configured ({pepper.fingerprint}); configure that one, or add the key anew"
    )


def moment(value: Any, field: str) -> float:
    """Seconds since 1970, from a number or RFC 3339 text; ValueError names `field`."""
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            when = None
        if when is not None and when.tzinfo is not None:
            return when.timestamp()
    elif type(value) in (int, float) and abs(value) < _END_OF_TIME:
        return float(value)
    raise ValueError(f"{field} must be a time such as 2027-01-31T00:00:00Z")


def stamp(when: float) -> str:
    """RFC 3339 text in UTC, whole seconds."""
    return datetime.fromtimestamp(math.floor(when), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _matching(found: Mapping[str, Any], field: str, form: re.Pattern[str], right: str) -> str:
    value = found.get(field)
    if value is None:
        raise ValueError(f"{field} is missing")
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"{field} must be {right}")
    return value


def _digest(found: Mapping[str, Any]) -> bytes:
    text = found.get("digest")
    if text is None:
        raise ValueError("digest is missing")
    try:
        # fromhex skips spaces: such a text is too short for 32 bytes.
        value = bytes.fromhex(text) if isinstance(text, str) and len(text) == 64 else b""
    except ValueError:
        value = b""
    if len(value) != 32:
        raise ValueError("digest must be 64 hex digits")
    return value


def _revoked(found: Mapping[str, Any]) -> bool:
    value = found.get("revoked", False)
    if isinstance(value, bool):
        return value
    moment(value, "revoked")  # a time says when it was done, not when it begins
    return True


def _words(found: Mapping[str, Any], field: str) -> list[str]:
    values = found.get(field, [])
    if not isinstance(values, list):
        raise ValueError(f'{field} must be a list, such as ["read", "write"]')
    for value in values:
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            raise ValueError(f'{field} must be words without spaces, quotes or "\\"')
    return values


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant).decode


def lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Each line that is not blank, with its number from 1."""
    for number, line in enumerate(text.split(b"\n"), 1):
        if line.strip():
            yield number, line


def records(text: bytes) -> Iterator[KeyRecord | KeyFileError]:
    """Every line's record or what is wrong with it, ids and digests met twice included."""
    ids: dict[str, int] = {}
    digests: dict[bytes, int] = {}
    for number, line in lines(text):
        try:
            record = parse_line(line, number)
        except KeyFileError as error:
            yield error
            continue
        first = ids.setdefault(record.id, number)
        if first != number:
            yield KeyFileError(number, f"id {record.id} is already on line {first}")
            continue
        first = digests.setdefault(record.digest, number)
        if first != number:
            yield KeyFileError(number, f"digest of {record.id} is already on line {first}")
            continue
        yield record


def problems(text: bytes) -> list[KeyFileError]:
    """All that is wrong with a file, for `edgeproxy check`."""
    return [found for found in records(text) if isinstance(found, KeyFileError)]


def appended(text: bytes, found: Mapping[str, Any]) -> bytes:
    """`text` and one more line."""
    if text and not text.endswith(b"\n"):
        text += b"\n"
    return text + line_of(found)


def replaced(text: bytes, key_id: str, changes: Mapping[str, Any]) -> bytes:
    """`text` with fields of one key set, all other lines untouched; KeyError if it is not there."""
    whole = text.split(b"\n")
    for number, line in lines(text):
        found = parse_object(line)
        if found.get("id") == key_id:
            whole[number - 1] = line_of({**found, **changes}).rstrip(b"\n")
            return b"\n".join(whole)
    raise KeyError(key_id)


def line_of(found: Mapping[str, Any]) -> bytes:
    """An object as a line; ValueError if it would not be read back."""
    record_from(found)
    return json.dumps(found, ensure_ascii=False, allow_nan=False).encode() + b"\n"
