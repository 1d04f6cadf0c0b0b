"""Files that the gateway keeps for itself."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

import pytest

from edgeproxy.state import StateFile, state_folder


def test_where_the_folder_is() -> None:
    beside = Path("/etc/edgeproxy")
    systemd = {"STATE_DIRECTORY": "/var/lib/edgeproxy:/var/lib/other"}
    assert state_folder(Path("/x"), beside, systemd) == Path("/x")
    assert state_folder(None, beside, systemd) == Path("/var/lib/edgeproxy")
    assert state_folder(None, beside, {"STATE_DIRECTORY": ""}) == Path("/etc/edgeproxy/state")


def test_what_is_written_is_for_nobody_else(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "new" / "folder" / "file")
    assert file.read() is None
    assert file.stamp() is None
    before = os.umask(0)
    try:
        with file.locked():
            file.write(b"one")
    finally:
        os.umask(before)
    assert file.read() == b"one"
    assert [each.stat().st_mode & 0o777 for each in (file.path, file.path.parent)] == [0o600, 0o700]
    assert not file.shared()
    file.path.chmod(0o640)
    assert file.shared()
    stamp = file.stamp()
    left = file.path.with_name(".file.new")  # of one that was killed
    left.touch()
    left.chmod(0o666)
    with file.locked():
        file.write(b"two")
    assert file.stamp() != stamp
    assert not file.shared()
    file.set_aside()
    assert file.read() is None
    assert (file.path.parent / "file.broken").read_bytes() == b"two"


def test_changes_follow_each_other(tmp_path: Path) -> None:
    """Each reads, adds and writes: with no lock some would be lost."""
    path = tmp_path / "count"

    def add() -> None:
        for _ in range(25):
            file = StateFile(path)
            with file.locked(30):
                file.write(b"%d" % (int(file.read() or 0) + 1))

    threads = [Thread(target=add) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert path.read_bytes() == b"100"


def test_whoever_has_it_is_not_waited_for_without_end(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "file")
    with file.locked():
        for patience in (0.0, 0.02):
            with pytest.raises(BlockingIOError), StateFile(file.path).locked(patience):
                pass
    with StateFile(file.path).locked():
        pass


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), StateFile(tmp_path / "file").locked():
        pass
    assert not (tmp_path / "elsewhere").exists()
