"""Files that the gateway keeps for itself, in its state folder; nobody else may read them.

A change is made under a lock (`flock` on a file beside it), so that two processes lose nothing of
each other's, and takes the file's place in one step, so that no reader, and no machine that stops,
ever leaves half of it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

_LARGEST = 1 << 20
_PAUSE = 0.01


def state_folder(written: Path | None, beside: Path, environ: Mapping[str, str]) -> Path:
    """The folder: what `state:` says, else systemd's ($STATE_DIRECTORY), else `state/` beside the
    configuration."""
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return written or (Path(given) if given else beside / "state")


class StateFile:
    """One file. All methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        """What it holds; ``None`` if it is not there."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, flags)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with open(descriptor, "rb") as file:
            return file.read(_LARGEST)

    def stamp(self) -> tuple[int, int, int] | None:
        """Differs when the file has changed."""
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def shared(self) -> bool:
        """Whether others than its owner could read it."""
        return bool(os.stat(self.path).st_mode & 0o077)

    @contextmanager
    def locked(self, patience: float = 0.0) -> Iterator[None]:
        """Alone with the file; makes the folder where there is none. Whoever has it already is
        waited for this many seconds, and then BlockingIOError is raised: it may be stopped."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(f"{self.path}.lock", flags, 0o600)
        try:
            end = monotonic() + patience
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if monotonic() >= end:
                        raise
                sleep(_PAUSE)
            yield
        finally:
            os.close(lock)  # and with it the lock goes

    def write(self, data: bytes) -> None:
        """Put `data` in its place, mode 0600; only while it is locked."""
        beside = self.path.with_name(f".{self.path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(beside, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def set_aside(self) -> None:
        """Keep what is no use under another name, for whoever wants to look at it."""
        os.replace(self.path, f"{self.path}.broken")
