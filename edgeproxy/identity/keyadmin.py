"""What `edgeproxy keys add`, `import`, `list`, `rotate` and `revoke` do; their command line is
elsewhere.

The time and the random bytes are passed in. A change is made under a lock that all commands take
(`flock` on a file beside the key file), written to a new file in the same folder, forced to disk,
and renamed over the old one: two commands at once lose nothing, and a reader, or a machine that
stops at any moment, sees the old file or the new one, whole.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from edgeproxy.identity import keyfile, keyimport
from edgeproxy.identity.apikey import RANDOM_BYTES, NewKey, digest, make
from edgeproxy.identity.keyfile import KeyFileError, stamp
from edgeproxy.identity.keyimport import Findings, Plan
from edgeproxy.identity.keyrecord import KeyRecord, KeyState
from edgeproxy.identity.pepper import Pepper

PATIENCE = 30.0
"""Seconds that a command waits for its turn; with a million keys each takes some fifteen."""

_UNKNOWN: Mapping[str, int] = MappingProxyType({})


class KeyCommandError(Exception):
    """What was asked for cannot be done; the text says why, for people."""


class Listed(NamedTuple):
    """A key as `edgeproxy keys list` shows it. Times in seconds since 1970, None where not set."""

    id: str
    name: str
    state: KeyState
    plan: str
    groups: tuple[str, ...]
    scopes: tuple[str, ...]
    created: float | None
    not_before: float | None
    expires: float | None
    consumer: str
    replaces: str
    note: str
    pepper: str
    last_used: float | None


def add(
    path: Path,
    name: str,
    *,
    now: float,
    random_bytes: bytes,
    groups: Sequence[str] = (),
    scopes: Sequence[str] = (),
    plan: str = "",
    not_before: float | None = None,
    expires: float | None = None,
    note: str = "",
    pepper: Pepper | None = None,
) -> NewKey:
    """Add a key (the file is made if there is none). Its credential is in the answer and nowhere.

    `random_bytes`: `apikey.RANDOM_BYTES` of them, from `os.urandom`. Raises KeyCommandError,
    KeyFileError for a file that is broken, or made with another pepper (it is left alone), OSError.
    """
    key = make(random_bytes)
    if expires is not None and expires <= now:
        raise KeyCommandError("expires must be later than now")
    found = _without_blanks(
        id=key.id,
        name=name,
        **hashed(key.credential.encode("ascii"), pepper),
        created=stamp(now),
        not_before=_stamp(not_before),
        expires=_stamp(expires),
        plan=plan,
        scopes=list(scopes),
        groups=list(groups),
        note=note,
    )
    with changing(path, pepper) as file:
        file.write(_appended(file.text, found))
    return key


def rotate(
    path: Path,
    key_id: str,
    *,
    overlap: float,
    now: float,
    random_bytes: bytes,
    expires: float | None = None,
    pepper: Pepper | None = None,
) -> NewKey:
    """Make a successor of a key; the old one works for `overlap` more seconds, or to its own end.

    The successor has the same name, consumer, groups, scopes and plan. If the old key was made to
    expire and `expires` is not given, the new one lives as long as the old one was meant to.
    Raises as `add`, and KeyCommandError if the key is unknown, revoked or expired.
    """
    key = make(random_bytes)
    if overlap < 0:
        raise KeyCommandError("the overlap must not be negative")
    with changing(path, pepper) as file:
        old = _object(file, key_id)
        record = keyfile.record_from(old)
        if record.state(now) in (KeyState.REVOKED, KeyState.EXPIRED):
            raise KeyCommandError(f"key {key_id} is {record.state(now)}: add a new one")
        if expires is None and "expires" in old:
            begun = keyfile.moment(old.get("created", now), "created")
            expires = now + max(record.expires - max(begun, record.not_before), 1.0)
        new = {name: value for name, value in old.items() if name in _INHERITED}
        new |= _without_blanks(
            id=key.id,
            **hashed(key.credential.encode("ascii"), pepper),
            created=stamp(now),
            expires=_stamp(expires),
            consumer=record.consumer,
            replaces=key_id,
        )
        ends = math.floor(min(record.expires, now + overlap))
        text = keyfile.replaced(file.text, key_id, _ending(record, ends, now))
        file.write(_appended(text, new))
    return key


def revoke(path: Path, key_id: str, *, now: float) -> None:
    """End a key for good. One that was rotated from it, or into it, is not touched.

    Its line stays, so that its id is never given again. Raises as `rotate`; revoking twice is fine.
    """
    with changing(path, peppered=False) as file:
        if not keyfile.record_from(_object(file, key_id)).revoked:
            file.write(keyfile.replaced(file.text, key_id, {"revoked": stamp(now)}))


def bring(
    path: Path,
    found: Findings,
    *,
    now: float,
    random: Callable[[int], bytes],
    pepper: Pepper | None = None,
    dry_run: bool = False,
) -> Plan:
    """Add the keys of another gateway, all of them or, if there are problems, none.

    `random`: `os.urandom`. Keys that are there already are left as they are, so that the same
    import twice adds nothing. Raises as `add`.
    """

    def new_id() -> str:
        return make(random(RANDOM_BYTES)).id

    with changing(path, pepper) as file:
        plan = keyimport.plan(found, file.text, pepper, now, new_id)
        if plan.added and not plan.problems and not dry_run:
            text = file.text
            if text and not text.endswith(b"\n"):
                text += b"\n"
            file.write(text + b"".join(keyfile.line_of(each.line) for each in plan.added))
    return plan


def listed(path: Path, *, now: float, last: Mapping[str, int] = _UNKNOWN) -> list[Listed]:
    """All keys, in the order of the file; `last` is when each was last used, by id.

    Raises KeyFileError, OSError (also if there is none).
    """
    text = path.read_bytes()
    _check(text)
    return [_listed(keyfile.parse_object(line), now, last) for _, line in keyfile.lines(text)]


def hashed(credential: bytes, pepper: Pepper | None) -> dict[str, str]:
    """The fields of a line that say by what a key is found."""
    if pepper is None:
        return {"digest": digest(credential).hex()}
    return {"digest": pepper.digest(credential).hex(), "pepper": pepper.fingerprint}


_INHERITED = ("name", "plan", "scopes", "groups", "note")


def _ending(record: KeyRecord, ends: float, now: float) -> dict[str, str]:
    if record.not_before >= ends:  # it never begins; a file cannot say that by times
        return {"revoked": stamp(now)}
    return {"expires": stamp(ends)}


def _stamp(when: float | None) -> str | None:
    try:
        return None if when is None else stamp(when)
    except (ValueError, OverflowError, OSError):
        raise KeyCommandError("a time must lie before the year 10000") from None


def _without_blanks(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def _appended(text: bytes, found: dict[str, Any]) -> bytes:
    if found["id"].encode() in text and any(
        keyfile.parse_object(line)["id"] == found["id"] for _, line in keyfile.lines(text)
    ):
        raise KeyCommandError(f"key {found['id']} is already there: are the random bytes random?")
    try:
        return keyfile.appended(text, found)
    except ValueError as error:
        raise KeyCommandError(str(error)) from None


def _object(file: KeyFile, key_id: str) -> dict[str, Any]:
    for _, line in keyfile.lines(file.text):
        found = keyfile.parse_object(line)
        if found["id"] == key_id:
            return found
    raise KeyCommandError(f"there is no key {key_id}")


def _listed(found: dict[str, Any], now: float, last: Mapping[str, int]) -> Listed:
    record = keyfile.record_from(found)

    def when(field: str) -> float | None:
        return keyfile.moment(found[field], field) if field in found else None

    return Listed(
        id=record.id,
        name=record.name,
        state=record.state(now),
        plan=record.plan,
        groups=record.groups,
        scopes=tuple(found.get("scopes", ())),
        created=when("created"),
        not_before=when("not_before"),
        expires=when("expires"),
        consumer=record.consumer,
        replaces=found.get("replaces", ""),
        note=found.get("note", ""),
        pepper=record.pepper,
        last_used=last.get(record.id),
    )


def _check(text: bytes, pepper: Pepper | None = None, *, peppered: bool = False) -> None:
    """Raise KeyFileError for what is wrong first; of the pepper only where keys are `peppered`
    with it now."""
    for found in keyfile.records(text):
        if isinstance(found, KeyFileError):
            raise found
        if peppered and (wrong := keyfile.wrong_pepper(found, pepper)):
            raise KeyFileError(0, f"key {found.id}: {wrong}")


class KeyFile(NamedTuple):
    """The file under its lock: its text, checked, and the one way to change it."""

    text: bytes
    write: Callable[[bytes], None]


@contextmanager
def changing(
    path: Path, pepper: Pepper | None = None, *, peppered: bool = True
) -> Iterator[KeyFile]:
    """Hold the lock of a file, which is sound, while it is changed. Only who makes no key needs no
    pepper (`peppered`).

    Raises KeyCommandError if another command holds it for too long, KeyFileError if a line is
    wrong or made with another pepper than `pepper`, OSError.
    """
    real = Path(os.path.realpath(path))  # a link stays a link
    lock = os.open(f"{real}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(lock, real)
        text = real.read_bytes() if real.exists() else b""
        _check(text, pepper, peppered=peppered)
        yield KeyFile(text, lambda changed: _write(real, changed))
    finally:
        os.close(lock)  # and with it the lock goes


def _take(lock: int, path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise KeyCommandError(
                    f"another command has held {path.name}.lock for {PATIENCE:g} s; "
                    "nothing was changed; try again when it has ended"
                ) from None
        time.sleep(0.02)


def _write(path: Path, text: bytes) -> None:
    """Put `text` in the place of the file, in one step that is on disk when this returns."""
    # One name for all: whoever holds the lock may overwrite what a killed command left behind.
    beside = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(beside, flags, 0o600), "wb") as file:
        _same_owner(file.fileno(), path)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _same_owner(new: int, path: Path) -> None:
    """Mode 0600, or what the file has now: a service must not lose sight of it because of root."""
    try:
        old = path.stat()
    except FileNotFoundError:
        os.fchmod(new, 0o600)
        return
    os.fchmod(new, old.st_mode & 0o777)
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(new, old.st_uid, old.st_gid)
