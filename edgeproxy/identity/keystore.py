"""The key file watched and reloaded while requests go on.

The file is looked at once a second (a `stat`; that works on every file system, through links and
renames). When it has changed, the new index is built beside the old one in short steps between
other events, and swapped in at the end. A file that is broken, or that changes while it is read,
changes nothing: the keys loaded before stay in use, and one line in the log says where and why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.identity.keyfile import KeyFileError
from edgeproxy.identity.keyindex import PIECE, KeyIndex, build, slices
from edgeproxy.identity.pepper import Pepper

INTERVAL = 1.0
"""Seconds between two looks at the file: what a revocation takes to work, at most twice that."""


class Timers(Protocol):
    """The part of `IReactorTime` that is used here, in a form that the type checker follows."""

    def callLater(self, delay: float, callable: Callable[..., Any], /) -> Any: ...


_Seen = tuple[int, int, int, int]
_KEPT = "the keys loaded before stay in use"
_log = Logger()


def load(path: Path, pepper: Pepper | None = None) -> KeyIndex:
    """The keys of a file, at once; none if there is no file. Raises KeyFileError, OSError."""
    try:
        with path.open("rb") as file:
            return build(_pieces(file), pepper)
    except FileNotFoundError:
        return KeyIndex()


class KeyStore:
    """The keys now in force, kept in step with their file.

    `on_swap` is called with each index that comes into force, the first one included. Where the
    last look found the file missing or broken, `trouble` says so; it is "" else. `last` is when
    keys were last used, as it was known before (`KeyIndex.last`).
    """

    def __init__(
        self,
        reactor: Timers,
        path: Path,
        on_swap: Callable[[KeyIndex], object],
        pepper: Pepper | None = None,
        last: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.index = KeyIndex()
        self.last = last  # until the first index is there, which keeps what it has use for
        self._pepper = pepper
        self.trouble = ""
        self._reactor = reactor
        self._path = path
        self._on_swap = on_swap
        self._loaded: _Seen | None = None  # what the index was built from
        self._known: object = None  # what needs no further look: loaded, or refused
        self._last: _Seen | None = None  # what the last look saw
        self._call: Any = None  # an IDelayedCall
        self._work: Generator[None, None, None] | None = None
        self._old: list[KeyIndex] = []

    def start(self) -> None:
        """Load the file, at once, and begin to watch it. Raises KeyFileError, OSError."""
        for _ in self.opening():
            pass

    def opening(self) -> Generator[None, None, None]:
        """Do the work of `start` in short steps. Raises the same."""
        self._known = self._last = self._loaded = seen = _seen(self._path)
        index: KeyIndex | None = KeyIndex()
        if seen is None:
            self._warn("there is no such file: no API key is valid")
        else:
            with self._path.open("rb") as file:
                pieces = _pieces(file)
                for index in slices(pieces, pepper=self._pepper, last=self.last):  # noqa: B007
                    yield  # the last is the index
        assert index is not None
        self.last = {}
        if _seen(self._path) != seen:
            self._known = object()  # it changed meanwhile: it is read again at the first look
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
        try:
            seen = _seen(self._path)
        except OSError as error:
            self._warn(f"{error.strerror}; {_KEPT}")
        else:
            self._judge(seen)
        self._step()

    def _judge(self, seen: _Seen | None) -> None:
        doubtful = self._doubtful(seen)
        if seen == self._known:
            if seen is not None and seen == self._loaded:
                self.trouble = ""
            self._work = self._release_old()
        elif not doubtful:
            self._known = seen
            self._work = self._reload(seen)

    def _doubtful(self, seen: _Seen | None) -> bool:
        """True for what is believed only when two looks agree.

        Some editors take the file away, or cut it short, and write it the moment after.
        """
        last, self._last = self._last, seen
        if seen is None or seen == last:
            return seen != last
        # The same inode as a second ago: it was not renamed into place but is written in place.
        in_place = last is not None and seen[0] == last[0]
        return in_place and self._loaded is not None and seen[1] < self._loaded[1]

    def _step(self) -> None:
        """One slice of the work there is; other events come between two."""
        if self._work is not None:
            try:
                next(self._work)
            except StopIteration:
                self._work = None
            except Exception:
                # A fault of ours, or of whoever is told of the swap, must not end the watch.
                _log.failure("{path}: loading failed", Failure(), path=str(self._path))
                self._work = None
        if self._work is None:
            self._later(INTERVAL, self._look)
        else:
            self._later(0, self._step)

    def _reload(self, seen: _Seen | None) -> Generator[None, None, None]:
        if seen is None:
            self._loaded = None
            self._warn("the file is gone: no API key is valid")
            yield from self.index.collecting(self.index)
            empty = KeyIndex()
            # The file may come back, and with it the keys.
            empty.last, self.index.last = self.index.last, {}
            empty.stale = self.index.stale
            self._swap(empty)
            return
        index = None
        try:
            with self._path.open("rb") as file:
                pieces, last = _pieces(file), self.index.last
                for index in slices(pieces, pepper=self._pepper, last=last):  # noqa: B007
                    yield  # the last is the index
            changed = _seen(self._path) != seen
        except KeyFileError as error:
            changed = _seen(self._path) != seen
            if not changed:
                self._warn(f"{error.message}; {_KEPT}", error.line)
                return
        except OSError as error:
            self._warn(f"{error.strerror}; {_KEPT}")
            changed = True
        if changed or index is None:
            self._known = object()  # unlike anything: it is read again at the next look
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

    def follow(self, before: KeyStore) -> None:
        """Take the place of a store, with what is known there of the use of keys."""
        self._old += [*before._old, before.index]
        before.index, before._old = KeyIndex(), []

    def collecting(self) -> Generator[None, None, None]:
        """Bring `index.last` up to date, in short steps."""
        for index in (*self._old, self.index):
            yield from self.index.collecting(index)

    def _release_old(self) -> Generator[None, None, None]:
        """Free what no request holds any more, in steps: a million keys take a while to free."""
        for index in self._old:
            yield from self.index.collecting(index)
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
    """What tells two states of a file apart; None if there is none. Raises OSError."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece
