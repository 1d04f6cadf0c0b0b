"""The files of a folder as bytes: bounded, through links and subfolders, never stuck.

A survey looks at everything (names, links, stat) and reads nothing; reading then touches only
what changed. Both are generators, so that ten thousand files take many short turns.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeproxy.certs.scan import Problem
from edgeproxy.certs.steps import run

MAX_FILES = 10_000
MAX_SIZE = 1 << 20
"""Octets in one file; the longest chains are a few KiB."""

_MAX_LINKS = 40  # as Linux, path_resolution(7)

Signature = tuple[int, int, int, int, int]
"""Device, inode, size, time of last change of content and of metadata (ns)."""


Identity = tuple[int, int]
"""Device and inode."""


@dataclass(slots=True)
class Survey:
    """What stands in a folder. Files are named relative to it, with `/`."""

    files: dict[str, Signature] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    """Permission bits of `files`, of what a link leads to."""
    problems: list[Problem] = field(default_factory=list)
    present: set[str] = field(default_factory=set)
    """What is there and no folder, be it readable or not, and a file or not."""
    filled: dict[str, Identity] = field(default_factory=dict)
    """Folders with something in them; "" is the folder itself."""
    hollow: dict[str, Identity] = field(default_factory=dict)
    """Folders with nothing in them."""
    unreadable: set[str] = field(default_factory=set)
    """Folders whose files are unknown, or not all known."""
    watch: set[str] = field(default_factory=set)
    """Real folders in which a change may change what stands here."""

    def there(self, name: str) -> bool:
        """Say whether something of a name is there, be it a file or not."""
        return name in self.present or name in self.filled or name in self.hollow

    def unknown(self, file: str) -> bool:
        """Say whether a file may be there although it was not seen."""
        return any(not parent or file.startswith(parent + "/") for parent in self.unreadable)

    def compare(self, root: Path, before: dict[str, Identity]) -> dict[str, Identity]:
        """Find the folders that stand empty in the place of others: what a file system leaves that
        was unmounted. What was in them is unknown, not gone.

        `before` is what the last comparison returned: the folders by their names that had
        something in them. `root` is the folder itself, as it is called in a problem.
        """
        for name, identity in self.hollow.items():
            if before.get(name, identity) != identity:
                self.problems.append(Problem(name or str(root), _HOLLOW))
                self.unreadable.add(name)
        if not self.unreadable:  # else those may come back that were not seen
            before = {name: before[name] for name in before.keys() & self.hollow}
        return before | self.filled


_HOLLOW = (
    "is another folder than before, and empty: is a file system not mounted? What was read from "
    "it stays in use"
)


def survey_in_steps(folder: Path) -> Generator[None, None, Survey]:
    """Look at a folder and everything below it, yielding now and then. Never raises OSError."""
    survey = Survey()
    seen: set[tuple[int, int]] = set()
    pending = [""]
    survey.watch.update(_link_folders(str(folder)))
    while pending:
        relative = pending.pop()
        path = os.path.join(folder, relative)
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue  # a loop of links, or a second way to the same folder
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
            kind = survey.filled if listed else survey.hollow
            kind[relative] = (status.st_dev, status.st_ino)
        except OSError as error:
            survey.problems.append(Problem(relative or str(folder), _words(error)))
            survey.unreadable.add(relative)
            continue
        survey.watch.add(os.path.realpath(path))
        yield
        subfolders: list[str] = []
        for number, entry in enumerate(listed):
            if len(survey.present) >= MAX_FILES:
                message = f"more than {MAX_FILES:,} files: the rest is not looked at"
                survey.problems.append(Problem(str(folder), message))
                survey.unreadable.add("")
                return survey
            _look_at(entry, relative, survey, subfolders)
            if number % 100 == 99:
                yield
        pending.extend(reversed(subfolders))
    return survey


def _look_at(entry: os.DirEntry[str], parent: str, survey: Survey, subfolders: list[str]) -> None:
    """Add one directory entry to the survey, or to the folders still to be looked at."""
    # A Kubernetes volume keeps its generations in `..2026_11_24_…` behind a link `..data`, and
    # shows them by links with plain names: those are followed, and swap all at once.
    if entry.name.startswith(".."):
        return
    name = f"{parent}/{entry.name}" if parent else entry.name
    try:
        if entry.is_symlink():
            survey.watch.update(_link_folders(entry.path))
        status = entry.stat()
    except OSError as error:
        survey.present.add(name)
        survey.problems.append(Problem(name, _words(error)))
        return
    if stat.S_ISDIR(status.st_mode):
        subfolders.append(name)
        return
    survey.present.add(name)
    # A pipe, a socket or a device is nobody's certificate, and opening it might never return.
    if stat.S_ISREG(status.st_mode):
        if entry.is_symlink():
            survey.watch.add(os.path.dirname(os.path.realpath(entry.path)))
        if status.st_size > MAX_SIZE:
            message = f"larger than {MAX_SIZE >> 20} MiB: not looked at"
            survey.problems.append(Problem(name, message))
        else:
            survey.files[name] = _signature(status)
            survey.modes[name] = stat.S_IMODE(status.st_mode)


def read_file(path: str) -> tuple[Signature, bytes]:
    """Return a regular file's bytes and the signature they had; OSError where it cannot be read."""
    # Non-blocking, in case that a pipe has taken the file's place since the survey.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        parts: list[bytes] = []
        size = 0
        while data := file.read(MAX_SIZE + 1 - size):
            parts.append(data)
            size += len(data)
            if size > MAX_SIZE:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return _signature(status), b"".join(parts)


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every readable file below a folder, by its path relative to it.

    At most 10,000 files of at most 1 MiB each; links and subfolders are followed, loops end.
    What cannot be read is left out; a `CertificateFolder` tells why.
    """
    files: dict[str, bytes] = {}
    for name in run(survey_in_steps(folder)).files:
        try:
            files[name] = read_file(os.path.join(folder, name))[1]
        except OSError:
            continue
    return files


def _link_folders(path: str) -> Iterator[str]:
    """Yield each real folder in which a link on the way to `path` stands.

    Replacing any of those links changes what the path means: certbot replaces the one in
    `live/`, a deployment the one called `current`.
    """
    pending = [part for part in os.path.abspath(path).split("/") if part]
    current = "/"
    links = 0
    while pending:
        part = pending.pop(0)
        if part == "..":
            current = os.path.dirname(current)
            continue
        candidate = os.path.join(current, part)
        try:
            target = os.readlink(candidate)
        except OSError:  # no link, or nothing there
            current = candidate
            continue
        yield current
        links += 1
        if links > _MAX_LINKS:
            return
        pending[:0] = [step for step in target.split("/") if step not in ("", ".")]
        if target.startswith("/"):
            current = "/"


def _signature(status: os.stat_result) -> Signature:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _words(error: OSError) -> str:
    """Return what went wrong in words for the operator."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "cannot be read: permission denied (certbot's keys are root's: docs/certificates.md)"
    if error.errno == errno.ENOENT:
        return "does not exist, or is a link that leads nowhere"
    if error.errno == errno.ELOOP:
        return "is a link that leads back to itself"
    return f"cannot be read: {error.strerror or error}"


def cannot_read(name: str, error: OSError) -> Problem:
    """Return the problem for a file that could not be read."""
    return Problem(name, _words(error))
