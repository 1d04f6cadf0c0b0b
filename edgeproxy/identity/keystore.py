"""The key file watched and reloaded while requests go on.

The file is looked at once a second (a `stat`; that works on every file system, through links and
renames). When it has changed, the new index is built beside the old one in short steps between
other events, and swapped in at the end. A file that is broken, or that changes while it is read,
changes nothing: the keys loaded before stay in use, and one line in the log says where and why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from twisted.logger import Logger

from edgeproxy.identity.keyfile import KeyFileError
from edgeproxy.identity.keyindex import PIECE, KeyIndex, build, slices

INTERVAL = 1.0
"""Seconds between two looks at the file: what a revocation takes to work, at most twice that."""


class Timers(Protocol):
    """The part of `IReactorTime` that is used here, in a form that the type checker follows."""

    def callLater(self, delay: float, callable: Callable[..., Any], /) -> Any: ...


_Seen = tuple[int, int, int, int]
_log = Logger()


def load(path: Path) -> KeyIndex:
    """The keys of a file, at once; none if there is no file. Raises KeyFileError, OSError."""
    try:
        with path.open("rb") as file:
            return build(_pieces(file))
    except FileNotFoundError:
        return KeyIndex()


class KeyStore:
    """The keys now in force, kept in step with their file.

    `on_swap` is called with each index that comes into force, the first one included. Where the
    last look found the file missing or broken, `trouble` says so; it is "" else.
    """

    def __init__(self, reactor: Timers, path: Path, on_swap: Callable[[KeyIndex], object]) -> None:
        self.index = KeyIndex()
        self.trouble = ""
        self._reactor = reactor
        self._path = path
        self._on_swap = on_swap
        self._loaded: _Seen | None = None  # what the index was built from
        self._known: _Seen | None = None  # what needs no further look: loaded, or refused
        self._doubted: _Seen | bool | None = False  # to be seen twice before it is believed
        self._call: Any = None  # an IDelayedCall
        self._work: Generator[None, None, None] | None = None
        self._old: list[KeyIndex] = []

    def start(self) -> None:
        """Load the file, at once, and begin to watch it. Raises KeyFileError, OSError."""
        self._known = self._loaded = _seen(self._path)
        index = load(self._path)
        if self._loaded is None:
            self._warn("there is no such file: no API key is valid")
        self._swap(index)
        self._call = self._reactor.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        """No more looks; a load under way is given up. The index stays."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if self._work is not None:
            self._work.close()
        self._work = None

    def _later(self, delay: float, step: Callable[[], None]) -> None:
        self._call = self._reactor.callLater(delay, step)

    def _look(self) -> None:
        """Once a second, while nothing is being loaded."""
        seen = _seen(self._path)
        if seen == self._known:
            self._doubted = False
            self._work = self._release_old()
        elif self._doubtful(seen) and self._doubted != seen:
            self._doubted = seen
        else:
            self._doubted = False
            self._known = seen
            self._work = self._reload(seen)
        self._step()

    def _doubtful(self, seen: _Seen | None) -> bool:
        """Some editors take the file away, or cut it short, and write it the moment after."""
        loaded = self._loaded
        if seen is None or loaded is None:
            return seen is None
        return seen[0] == loaded[0] and seen[1] < loaded[1]

    def _step(self) -> None:
        """One slice of the work there is; other events come between two."""
        if self._work is not None:
            try:
                next(self._work)
            except StopIteration:
                self._work = None
        if self._work is None:
            self._later(INTERVAL, self._look)
        else:
            self._later(0, self._step)

    def _reload(self, seen: _Seen | None) -> Generator[None, None, None]:
        if seen is None:
            self._loaded = None
            self._warn("the file is gone: no API key is valid")
            self._swap(KeyIndex())
            return
        try:
            with self._path.open("rb") as file:
                index = None
                for index in slices(_pieces(file)):  # noqa: B007  # the last is the index
                    yield
        except KeyFileError as error:
            if _seen(self._path) == seen:
                self._warn(f"{error.message}; the keys loaded before stay in use", error.line)
                return
        except OSError as error:
            self._warn(f"{error.strerror}; the keys loaded before stay in use")
            self._known = None if self._loaded else seen  # try again at the next look
            return
        if _seen(self._path) != seen or index is None:
            self._known = self._loaded  # it changed meanwhile: read it again
            return
        self._loaded = seen
        self.trouble = ""
        self._swap(index)
        _log.info("{path}: {count} API keys", path=str(self._path), count=len(index))

    def _swap(self, index: KeyIndex) -> None:
        if len(self.index):
            self._old.append(self.index)
        self.index = index
        self._on_swap(index)

    def _release_old(self) -> Generator[None, None, None]:
        """Free what no request holds any more, in steps: a million keys take a while to free."""
        for index in [self._old.pop() for _ in range(len(self._old))]:
            if sys.getrefcount(index) > _OURS:
                self._old.append(index)
            else:
                yield from index.release()

    def _warn(self, message: str, line: int = 0) -> None:
        """One line in the log for each new trouble."""
        place = f"{self._path}:{line}" if line else str(self._path)
        trouble = f"{place}: {message}"
        if trouble != self.trouble:
            self.trouble = trouble
            _log.warn("{trouble}", trouble=trouble)


_OURS = 3  # references to an old index: the loop variable, the list it runs over, getrefcount's own


def _seen(path: Path) -> _Seen | None:
    """What tells two states of a file apart; None if there is none, or none to be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece
