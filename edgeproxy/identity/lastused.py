"""When each key was last used, kept in a file of the state folder over restarts.

The path of a request only notes the time in the key's record. Once a minute, and at the end, what
was noted is collected and written, in short steps between other events: to a new file, which then
takes the place of the old one. A line is a key's id and whole seconds since 1970; there is one for
each key of the key file at most, so that the file's size is bounded by that one's.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.config.secrets import read_regular
from edgeproxy.identity.keystore import KeyStore
from edgeproxy.slices import in_slices

INTERVAL = 60.0
"""Seconds between two writes."""

NAME = "keys.used"
_LARGEST = 128 << 20  # bytes; a million keys take 24 MB
_AT_ONCE = 2000  # lines in one step
_LINE = re.compile(rb"([A-Za-z0-9._-]{1,64}) ([0-9]{1,11})")
_log = Logger()


def read(path: Path, now: float) -> dict[str, int]:
    """What the file says, by id; nothing if there is none. Lines that are no such lines are left
    out, and no time is later than `now`. Raises OSError, also for one that is too large, or no
    regular file."""
    try:
        data = read_regular(path, _LARGEST)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise OSError(0, str(error), str(path)) from None
    latest = math.floor(now)
    return {
        found[1].decode("ascii"): min(int(found[2]), latest)
        for found in map(_LINE.fullmatch, data.split(b"\n"))
        if found is not None
    }


class LastUsed:
    """Keeps the file. `store` gives the keys that are in force."""

    def __init__(self, reactor: Any, path: Path, store: Callable[[], KeyStore]) -> None:
        self.path = path
        self._reactor = reactor
        self._store = store
        self._call: Any = None
        self._work: Deferred[None] | None = None
        self._trouble = ""

    def read(self, now: float) -> dict[str, int]:
        """What is known from before. Never fails: that a file is broken is told, no more."""
        try:
            return read(self.path, now)
        except OSError as error:
            self._warn(error)
            return {}

    def move(self, path: Path) -> None:
        """Write to another file from now on."""
        if path != self.path:
            self.path = path
            self._store().index.stale = True

    def start(self) -> None:
        """Begin to write, once a minute."""
        self._call = self._reactor.callLater(INTERVAL, self._turn)

    def stop(self) -> None:
        """Write what is left, at once."""
        if self._call is None:
            return
        if self._call.active():
            self._call.cancel()
        self._call = None
        if self._work is not None:
            self._work.cancel()
        for _ in self._saving():
            pass

    def _turn(self) -> None:
        self._work = in_slices(self._reactor, self._saving())
        self._work.addBoth(self._saved)

    def _saved(self, result: Any) -> None:
        self._work = None
        if isinstance(result, Failure) and not result.check(CancelledError):
            _log.failure("{path}: not written", result, path=str(self.path))
        if self._call is not None:
            self._call = self._reactor.callLater(INTERVAL, self._turn)

    def _saving(self) -> Generator[None, None, None]:
        """Collect, and write the file if there is anything new."""
        store = self._store()
        yield from store.collecting()
        index = store.index
        if not index.stale:
            return
        index.stale = False
        try:
            yield from _writing(self.path, index.last)
        except OSError as error:
            index.stale = True
            self._warn(error)
        except GeneratorExit:
            index.stale = True
            raise
        else:
            self._trouble = ""

    def _warn(self, error: OSError) -> None:
        trouble = f"{self.path}: {error.strerror}"
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warn(
                "{trouble}; when keys were last used is not kept; `state:` names another folder",
                trouble=trouble,
            )


def _writing(path: Path, last: dict[str, int]) -> Generator[None, None, None]:
    """The file anew, in short steps. Not forced to the disk, which would hold up all else: a
    machine that loses its power may lose the last minutes."""
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(beside, flags, 0o600), "wb") as file:
        ids = list(last)
        for start in range(0, len(ids), _AT_ONCE):
            lines = [f"{each} {last[each]}\n" for each in ids[start : start + _AT_ONCE]]
            file.write("".join(lines).encode("ascii"))
            yield
    os.replace(beside, path)
