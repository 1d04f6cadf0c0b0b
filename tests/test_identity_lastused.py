"""When keys were last used: written now and then, read again after a restart."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_identity_keystore import House, credential, lines
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from edgeproxy.identity.keystore import INTERVAL as LOOK
from edgeproxy.identity.keystore import KeyStore
from edgeproxy.identity.lastused import INTERVAL, NAME, LastUsed, read

NOW = 1_767_225_600.7


class Home(House):
    """The same with a state folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.put(lines(1, 2, 3))
        (folder / "state").mkdir(exist_ok=True)
        self.kept = LastUsed(self.clock, folder / "state" / NAME, lambda: self.store)
        self.store.last = self.kept.read(NOW + 999)
        self.store.start()
        self.kept.start()

    def use(self, number: int, when: float) -> None:
        assert self.store.index.find(credential(number), when) is not None

    def minute(self) -> None:
        self.clock.pump([LOOK] * int(INTERVAL / LOOK + 2))

    def written(self) -> dict[str, int]:
        return read(self.kept.path, NOW + 999)

    def stop(self) -> None:
        self.store.stop()
        self.kept.stop()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.stop()
    assert made.clock.getDelayedCalls() == []


def test_it_is_written_once_a_minute_and_at_the_end(home: Home) -> None:
    home.use(1, NOW)
    home.clock.advance(INTERVAL - 1)
    assert not home.kept.path.exists()
    home.minute()
    assert home.kept.path.read_text() == f"k1 {int(NOW)}\n"
    home.use(1, NOW + 61)
    home.use(2, NOW + 62)
    home.stop()
    assert home.written() == {"k1": int(NOW + 61), "k2": int(NOW + 62)}
    assert [entry.name for entry in home.kept.path.parent.iterdir()] == [NAME]


def test_what_has_not_changed_is_not_written_again(home: Home) -> None:
    home.use(1, NOW)
    home.minute()
    before = home.kept.path.stat()
    home.use(1, NOW + 0.1)  # the same second
    home.minute()
    home.stop()
    assert home.kept.path.stat().st_ino == before.st_ino


def test_it_is_for_its_owner_alone(home: Home) -> None:
    home.use(1, NOW)
    home.minute()
    assert stat.S_IMODE(home.kept.path.stat().st_mode) == 0o600


def test_a_restart_remembers(home: Home, tmp_path: Path) -> None:
    home.use(1, NOW)
    home.stop()
    again = Home(tmp_path)
    again.use(2, NOW + 5)
    again.stop()
    assert again.written() == {"k1": int(NOW), "k2": int(NOW + 5)}


def test_a_reload_remembers_and_forgets_what_is_no_more(home: Home) -> None:
    home.use(1, NOW)
    home.use(2, NOW)
    home.minute()
    home.use(1, NOW + 7)  # not yet collected when the file changes
    home.put(lines(1, 3, 4))
    home.second()
    home.second()
    assert home.valid(1, 3, 4)
    for number in (1, 3, 4):
        home.store.index.find(credential(number), NOW + 7)
    home.put(lines(1, 3))
    home.second()
    home.second()
    home.minute()
    assert home.written() == {"k1": int(NOW + 7), "k3": int(NOW + 7)}


def test_a_file_that_is_gone_for_a_while_costs_nothing(home: Home) -> None:
    home.use(1, NOW)
    home.path.unlink()
    for _ in range(3):
        home.second()
        home.swapped.clear()  # else it would hold what is to be freed
    assert home.valid()
    home.put(lines(1))
    for _ in range(3):
        home.second()
    home.stop()
    assert home.written() == {"k1": int(NOW)}


def test_another_store_takes_it_over(home: Home, tmp_path: Path) -> None:
    """As a reload of the configuration that names another file."""
    home.use(1, NOW)
    home.minute()
    home.use(2, NOW + 3)
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "keys.jsonl"
    other.write_bytes(lines(1, 2, 9))
    store = KeyStore(home.clock, other, lambda index: None, None, home.store.index.last)
    store.start()
    old = home.store
    old.stop()
    store.follow(old)
    home.store = store
    home.minute()
    assert home.written() == {"k1": int(NOW), "k2": int(NOW + 3)}
    assert len(old.index) == 0


def test_where_it_cannot_be_written_one_line_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "none").touch()
    home.kept.move(tmp_path / "none" / NAME)
    with capturedLogs() as said:
        for number in range(3):
            home.use(1, NOW + number)
            home.minute()
    warnings = [each for each in said if each["log_level"] is LogLevel.warn]
    assert len(warnings) == 1
    assert "Not a directory" in warnings[0]["trouble"]
    (tmp_path / "none").unlink()
    home.minute()
    assert home.written() == {"k1": int(NOW + 2)}
    home.stop()


def test_what_stands_in_the_file_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(
        b"k1 5\nk2\nk3 x\nk4 99999999999\n../k5 7\n" + b"k" * 65 + b" 7\n\xff 1\nk6 12"
    )
    assert read(path, NOW) == {"k1": 5, "k4": int(NOW), "k6": 12}
    assert read(tmp_path / "none", NOW) == {}


def test_a_file_that_is_too_large_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with path.open("wb") as file:
        file.truncate((128 << 20) + 1)
    clock = Clock()
    with capturedLogs() as said:
        assert LastUsed(clock, path, lambda: None).read(NOW) == {}  # type: ignore[arg-type,return-value]
    assert "larger than" in said[0]["trouble"]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / NAME
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is not a regular file"):
        read(path, NOW)
