"""Notice by inotify that something changed in one of several folders.

inotify does not see through links and does not exist on macOS: whoever uses this names the
real folders, and looks at everything now and then besides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.interfaces import IReactorFDSet
from twisted.logger import Logger
from twisted.python.filepath import FilePath

try:
    from twisted.internet import inotify
except ImportError:  # macOS: libc has no inotify
    inotify = None  # type: ignore[assignment]


class FolderWatch:
    """Calls `on_event()` when an entry of a watched folder is written, made, renamed or removed.

    Best effort: without inotify, or at its limits, some or all folders go unwatched, and one
    line of the log says so.
    """

    log = Logger()

    def __init__(self, reactor: Any, on_event: Callable[[], None]) -> None:
        self._reactor = reactor
        self._on_event = on_event
        self._watched: set[str] = set()
        self._complained = False
        self._notifier: Any = None

    def watch(self, folders: Collection[str]) -> bool:
        """Watch exactly these folders; True if some were not watched before."""
        if inotify is None or not IReactorFDSet.providedBy(self._reactor):
            return False
        if self._notifier is None and not self._open():
            return False
        for folder in self._watched.difference(folders):
            self._forget(folder)
        added = [folder for folder in folders if folder not in self._watched and self._add(folder)]
        return bool(added)

    def close(self) -> None:
        """Stop watching."""
        if self._notifier is not None:
            self._notifier.close()
            self._notifier = None
            self._watched.clear()

    def _open(self) -> bool:
        try:
            self._notifier = _notifier(self._reactor)
        except Exception as error:  # INotifyError, OSError: the user's limit of instances
            self._complain(error)
            return False
        self._notifier.startReading()
        return True

    def _add(self, folder: str) -> bool:
        mask = (
            inotify.IN_CLOSE_WRITE
            | inotify.IN_CREATE
            | inotify.IN_DELETE
            | inotify.IN_MOVED
            | inotify.IN_ATTRIB
            | inotify.IN_MODIFY
            | inotify.IN_MOVE_SELF
        )
        try:
            self._notifier.watch(FilePath(folder), mask, callbacks=[self._event])
        except Exception as error:  # INotifyError has no common base with OSError
            if os.path.isdir(folder):  # else it has gone since it was seen
                self._complain(error)
            return False
        self._watched.add(folder)
        return True

    def _event(self, watch: Any, _path: FilePath[Any], mask: int) -> None:
        gone = inotify.IN_DELETE_SELF | inotify.IN_UNMOUNT | inotify.IN_MOVE_SELF
        if mask & gone:
            folder = watch.path.asTextMode().path
            if mask & inotify.IN_DELETE_SELF:
                self._watched.discard(folder)  # the notifier drops its watch by itself
            elif folder in self._watched:
                self._forget(folder)
        self._on_event()

    def _forget(self, folder: str) -> None:
        self._watched.discard(folder)
        try:
            self._notifier.ignore(FilePath(folder))
        except KeyError:
            pass

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            self.log.warn(
                "certificate folders cannot all be watched ({error}): changes are noticed later",
                error=repr(error),
            )


def _notifier(reactor: Any) -> Any:
    class Notifier(inotify.INotify):
        """Twisted's, which would stop altogether when any one of its folders is deleted."""

        def loseConnection(self) -> None:
            """Go on with the other folders."""

        def close(self) -> None:
            """Really stop."""
            super().loseConnection()  # type: ignore[no-untyped-call]

    return Notifier(reactor)  # type: ignore[no-untyped-call]
