"""Keys of another gateway: what was read of its file, and which lines that makes.

The readers (`keycsv`, `kong`, `nginxmap`) say who holds which key; here is decided what of it is
added to a key file, which has to be all of it or nothing. No text of a key is ever part of a
message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, NamedTuple

from edgeproxy.identity import keyfile
from edgeproxy.identity.keyrecord import KeyRecord
from edgeproxy.identity.pepper import LEAST_BITS, Pepper, bits

SHORTEST, LONGEST = 8, 512
"""Bytes of a key: what Kong and nginx take, and what stays far from the bound of a head."""

_CREDENTIAL = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
#: What tools that fill in a file put a value for: envsubst, decK, Ansible, Helm.
_PLACEHOLDER = re.compile(r"\$\{.*\}|\{\{.*\}\}", re.DOTALL)
_TIMES = ("not_before", "expires")
_CONSUMER = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class Place(NamedTuple):
    """A line of a file, from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Told(NamedTuple):
    """Something about a line, for people."""

    place: Place
    message: str

    def __str__(self) -> str:
        """One line that every terminal takes, whatever stands in the file."""
        text = f"{self.place}: {self.message}"
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Foreign(NamedTuple):
    """A key as another gateway knows it: its text, or its SHA-256 in `digest`.

    `holder` is the same for all keys of one caller, "" for a key by itself. `fields` are further
    fields of the line, as a key file has them, times in seconds since 1970.
    """

    place: Place
    name: str
    credential: str = ""
    digest: bytes = b""
    holder: str = ""
    fields: dict[str, Any] = {}  # nobody changes it

    def __repr__(self) -> str:
        return f"<Foreign {self.place} {self.name!r}>"


class Findings:
    """What a reader has found: keys, problems that stop everything, notes that stop nothing."""

    def __init__(self) -> None:
        self.keys: list[Foreign] = []
        self.problems: list[Told] = []
        self.notes: list[Told] = []

    def wrong(self, place: Place, message: str) -> None:
        self.problems.append(Told(place, message))

    def note(self, place: Place, message: str) -> None:
        self.notes.append(Told(place, message))


class Added(NamedTuple):
    """A key that comes in: where it stands, and its line as an object."""

    place: Place
    line: dict[str, Any]


class Plan(NamedTuple):
    """What is to be done; nothing if there are problems."""

    added: list[Added]
    present: list[Told]
    problems: list[Told]
    notes: list[Told]


def plan(
    found: Findings, text: bytes, pepper: Pepper | None, now: float, new_id: Callable[[], str]
) -> Plan:
    """What an import adds to a key file whose text is `text`, which has been checked."""
    records = [each for each in keyfile.records(text) if isinstance(each, KeyRecord)]
    return _Planning(found, records, pepper, now, new_id).plan()


class _Planning:
    def __init__(
        self,
        found: Findings,
        records: Iterable[KeyRecord],
        pepper: Pepper | None,
        now: float,
        new_id: Callable[[], str],
    ) -> None:
        self._pepper = pepper
        self._now = now
        self._new_id = new_id
        self._keys = found.keys
        self._result = Plan([], [], list(found.problems), list(found.notes))
        self._by_digest = {record.digest: record for record in records}
        self._ids = {record.id for record in records}
        self._names = {record.consumer: record.name for record in records}
        self._seen: dict[bytes, Place] = {}
        self._consumers: dict[str, str] = {}  # by holder

    def plan(self) -> Plan:
        new = [each for each in self._keys if not self._present(each)]
        for each in new:
            try:
                self._add(each)
            except ValueError as error:
                self._result.problems.append(Told(each.place, str(error)))
        self._result.problems.sort()
        return self._result

    def _present(self, key: Foreign) -> bool:
        record = None
        for digest in self._digests(key):
            record = record or self._by_digest.get(digest)
        if record is None:
            return False
        if key.holder:
            self._consumers.setdefault(key.holder, record.consumer)
        state = record.state(self._now)
        message = f"this key is there already, as {record.id} ({record.name!r}, {state})"
        self._result.present.append(Told(key.place, message))
        return True

    def _digests(self, key: Foreign) -> Iterable[bytes]:
        if key.digest:
            return [key.digest]
        credential = key.credential.encode("utf-8", "surrogatepass")
        plain = sha256(credential).digest()
        return [plain] if self._pepper is None else [plain, self._pepper.digest(credential)]

    def _add(self, key: Foreign) -> None:
        """Raises ValueError with what is wrong."""
        if not key.digest:
            _check_credential(key.credential, self._pepper)
        plain, *_ = self._digests(key)
        first = self._seen.setdefault(plain, key.place)
        if first is not key.place:
            where = f"line {first.line}" if first.file == key.place.file else str(first)
            raise ValueError(f"this is the key of {where} again; leave one of the two")
        line = self._line(key)
        record = keyfile.record_from(line)
        if record.id in self._ids:
            raise ValueError(f"there is a key with the id {record.id} already; leave `id` out")
        known = self._names.setdefault(record.consumer, record.name)
        if known != record.name:
            raise ValueError(
                f"the consumer {record.consumer} is {known!r} already; one consumer has one name"
            )
        if record.expires <= self._now:
            self._result.notes.append(Told(key.place, "this key has expired; it is added so"))
        self._ids.add(record.id)
        self._result.added.append(Added(key.place, line))

    def _line(self, key: Foreign) -> dict[str, Any]:
        line = {"id": key.fields.get("id") or self._new_id(), "name": key.name}
        if key.digest:
            line["digest"] = key.digest.hex()
        elif self._pepper is None:
            line["digest"] = sha256(key.credential.encode("ascii")).hexdigest()
        else:
            line["digest"] = self._pepper.digest(key.credential.encode("ascii")).hex()
            line["pepper"] = self._pepper.fingerprint
        line["created"] = keyfile.stamp(self._now)
        for name, value in key.fields.items():
            if value and name != "id":
                line[name] = keyfile.stamp(value) if name in _TIMES else value
        if key.holder:
            own = key.holder if _CONSUMER.fullmatch(key.holder) else line["id"]
            line["consumer"] = self._consumers.setdefault(key.holder, own)
        return line


def _check_credential(text: str, pepper: Pepper | None) -> None:
    """Whether a key of this text can be shown and kept; ValueError says why not."""
    if _PLACEHOLDER.fullmatch(text):
        raise ValueError(
            "the key is a placeholder, not a key; import the file in which it is filled in"
        )
    if not SHORTEST <= len(text) <= LONGEST:
        raise ValueError(f"the key has {len(text)} characters; {SHORTEST} to {LONGEST} are right")
    if not _CREDENTIAL.fullmatch(text):
        raise ValueError(
            "the key holds what a header field cannot carry; printable ASCII without space at "
            "its ends is right"
        )
    has = bits(text)
    if pepper is None and has < LEAST_BITS:
        raise ValueError(
            f"the key has {has} bits at most, and one of fewer than {LEAST_BITS} can be found from "
            "its SHA-256 by trying; set a pepper (`keys: { file: …, pepper: … }`), "
            "or give its holder a new key"
        )
