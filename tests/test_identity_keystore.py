"""The key file watched: what goes live, and what does not, on a fake clock and real files."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from edgeproxy.identity import apikey
from edgeproxy.identity.keyfile import KeyFileError
from edgeproxy.identity.keyindex import KeyIndex
from edgeproxy.identity.keystore import INTERVAL, KeyStore, load


def credential(number: int) -> bytes:
    return apikey.generate(number.to_bytes(apikey.RANDOM_BYTES, "big")).encode()


def lines(*numbers: int) -> bytes:
    return b"".join(
        json.dumps(
            {"id": f"k{n}", "name": f"n{n}", "digest": apikey.digest(credential(n)).hex()}
        ).encode()
        + b"\n"
        for n in numbers
    )


class House:
    """A store over a real file, and a clock that is turned by hand."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.path = folder / "keys.jsonl"
        self.swapped: list[KeyIndex] = []
        self.store = KeyStore(self.clock, self.path, self.swapped.append)

    def put(self, text: bytes) -> None:
        """As careful tools write: beside it, then renamed over it."""
        beside = self.path.with_suffix(".tmp")
        beside.write_bytes(text)
        beside.replace(self.path)

    def put_in_place(self, text: bytes) -> None:
        """As careless ones do. The clock of the file system may stand still: move the time."""
        before = self.path.stat()
        self.path.write_bytes(text)
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))

    def turn(self) -> None:
        """The next call that is due, and none that it leads to, as in one turn of a reactor."""
        call = min(self.clock.getDelayedCalls(), key=lambda call: call.time)
        self.clock.calls.remove(call)
        self.clock.rightNow = max(self.clock.rightNow, call.time)
        call.called = 1
        call.func(*call.args, **call.kw)

    def second(self) -> None:
        """To the end of the next look, with all the steps that it leads to."""
        self.clock.advance(INTERVAL)

    def valid(self, *numbers: int) -> bool:
        """True if exactly these of the keys 1 to 9 are known."""
        found = {n for n in range(1, 10) if self.store.index.find(credential(n), 0.0)}
        return found == set(numbers) and len(self.store.index) == len(numbers)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.store.stop()
    assert made.clock.getDelayedCalls() == []


@pytest.fixture
def log() -> Iterator[Callable[[], list[str]]]:
    """What was logged as a warning or worse since it was last asked."""
    with capturedLogs() as captured:
        yield lambda: [
            str(event.get("trouble", event))
            for event in [captured.pop(0) for _ in range(len(captured))]
            if event["log_level"] >= LogLevel.warn
        ]


def test_keys_go_live_by_themselves(house: House, log: Callable[[], list[str]]) -> None:
    house.put(lines(1))
    house.store.start()
    assert house.valid(1)
    house.put(lines(1, 2))
    assert house.valid(1)
    house.second()
    assert house.valid(1, 2)
    house.put(lines(2, 3))
    house.second()
    assert house.valid(2, 3)
    assert house.swapped[-1] is house.store.index
    assert len(house.swapped) == 3
    assert log() == []


def test_an_unchanged_file_is_not_read_again(house: House) -> None:
    house.put(lines(1))
    house.store.start()
    for _ in range(5):
        house.second()
    assert len(house.swapped) == 1


def test_lines_appended_in_place_go_live(house: House) -> None:
    house.put(lines(1))
    house.store.start()
    house.put_in_place(lines(1, 2))
    house.second()
    assert house.valid(1, 2)


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        (lines(1, 2, 3)[:-40], ":3: "),
        (lines(1) + b"<html>\n", ":2: "),
        (lines(1, 1), ":2: "),
        (lines(1) + lines(1).replace(b"k1", b"k2"), ":2: "),
        (b"\xff\xfe" + lines(1), ":1: "),
        (b"\x00" * 300, ":1: "),
    ],
)
def test_a_broken_file_changes_nothing_and_is_told_once(
    house: House, log: Callable[[], list[str]], broken: bytes, where: str
) -> None:
    house.put(lines(1, 2))
    house.store.start()
    house.put(broken)
    house.second()
    (told,) = log()
    assert told.startswith(f"{house.path}{where}")
    assert told.endswith("; the keys loaded before stay in use")
    assert house.store.trouble == told
    house.second()
    house.second()
    assert house.valid(1, 2)
    assert log() == []
    house.put(lines(3))
    house.second()
    assert house.valid(3)
    assert house.store.trouble == ""
    house.put(broken)  # broken in the same way once more: told once more
    house.second()
    assert len(log()) == 1


def test_a_broken_file_refuses_to_start(house: House) -> None:
    house.put(lines(1) + b"oops")
    with pytest.raises(KeyFileError, match="line 2: not a JSON object"):
        house.store.start()


def test_no_file_is_no_key_and_said_so(house: House, log: Callable[[], list[str]]) -> None:
    house.store.start()
    assert house.valid()
    (told,) = log()
    assert told == f"{house.path}: there is no such file: no API key is valid"
    house.second()
    assert log() == []
    house.put(lines(1))
    house.second()
    assert house.valid(1)


def test_a_file_taken_away_closes_the_door_at_the_second_look(
    house: House, log: Callable[[], list[str]]
) -> None:
    house.put(lines(1))
    house.store.start()
    house.path.unlink()
    house.second()
    assert house.valid(1)  # an editor may be about to put it back
    assert log() == []
    house.second()
    assert house.valid()
    assert log() == [f"{house.path}: the file is gone: no API key is valid"]
    house.put(lines(2))
    house.second()
    assert house.valid(2)


def test_a_file_that_is_back_at_the_second_look_was_never_gone(house: House) -> None:
    house.put(lines(1))
    house.store.start()
    house.path.rename(house.path.with_suffix(".bak"))
    house.second()
    house.path.write_bytes(lines(1, 2))
    house.second()
    assert house.valid(1, 2)
    assert len(house.swapped) == 2


def test_a_file_cut_short_in_place_is_believed_at_the_second_look(house: House) -> None:
    house.put(lines(1, 2))
    house.store.start()
    house.put_in_place(b"")  # as `>` does before it writes
    house.second()
    assert house.valid(1, 2)
    house.put_in_place(lines(1))  # still shorter than what was loaded
    house.second()
    assert house.valid(1, 2)
    house.second()
    assert house.valid(1)
    house.put_in_place(b"")
    house.second()
    house.second()
    assert house.valid()  # meant: no keys


def test_an_empty_file_renamed_into_place_is_no_keys(house: House) -> None:
    house.put(lines(1))
    house.store.start()
    house.put(b"")
    house.second()
    assert house.valid()


def test_a_link_is_followed(house: House, tmp_path: Path) -> None:
    for name, number in (("one", 1), ("two", 2)):
        (tmp_path / name).write_bytes(lines(number))
    house.path.symlink_to("one")
    house.store.start()
    assert house.valid(1)
    (tmp_path / "link").symlink_to("two")
    (tmp_path / "link").replace(house.path)
    house.second()
    assert house.valid(2)


def many(count: int) -> bytes:
    return b"".join(
        b'{"id":"x%d","name":"n","digest":"%064x"}\n' % (number, number) for number in range(count)
    )


def test_other_events_come_between_the_steps_and_the_swap_is_one(house: House) -> None:
    house.put(lines(1))
    house.store.start()
    house.put(many(5000) + lines(2))
    turns = 0
    while not house.store.index.find(credential(2), 0.0):
        assert house.valid(1)  # whole, until the moment of the swap
        house.turn()
        turns += 1
    assert turns >= 20
    assert len(house.store.index) == 5001


def test_a_file_that_changes_while_it_is_read_is_read_again(house: House) -> None:
    house.put(lines(1))
    house.store.start()
    house.put(many(5000) + lines(2))
    house.turn()
    house.turn()
    house.put(lines(3))
    house.second()
    assert house.valid(1)  # neither the one nor a mixture
    house.second()
    assert house.valid(3)
    assert len(house.swapped) == 2


def test_a_file_that_breaks_while_it_is_read_is_judged_by_what_it_is_then(
    house: House, log: Callable[[], list[str]]
) -> None:
    house.put(lines(1))
    house.store.start()
    house.put_in_place(many(5000) + b"oops\n")
    house.turn()
    house.turn()
    house.put(lines(2))
    house.second()
    house.second()
    assert house.valid(2)
    assert log() == []


def test_a_file_that_cannot_be_read_is_tried_again(
    house: House, log: Callable[[], list[str]]
) -> None:
    house.put(lines(1))
    house.store.start()
    house.path.unlink()
    house.path.mkdir()  # reading it fails for root too
    house.second()
    house.second()
    assert log() == [f"{house.path}: Is a directory; the keys loaded before stay in use"]
    assert house.valid(1)
    house.path.rmdir()
    house.path.write_bytes(lines(2))
    house.second()
    assert house.valid(2)


def test_no_descriptor_left_for_a_moment(house: House, log: Callable[[], list[str]]) -> None:
    house.put(lines(1))
    house.store.start()
    house.put(lines(2))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        house.second()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert log() == [f"{house.path}: Too many open files; the keys loaded before stay in use"]
    assert house.valid(1)
    house.second()  # the file is as it was: it is tried again all the same
    assert house.valid(2)
    assert house.store.trouble == ""


def test_a_folder_that_cannot_be_looked_into_for_a_moment(
    tmp_path: Path, log: Callable[[], list[str]]
) -> None:
    folder, aside = tmp_path / "folder", tmp_path / "aside"
    folder.mkdir()
    house = House(folder)
    house.put(lines(1))
    house.store.start()
    folder.rename(aside)
    folder.symlink_to("folder")
    house.second()
    house.second()
    (told,) = log()
    assert told.endswith("; the keys loaded before stay in use")
    assert house.store.trouble == told
    folder.unlink()
    aside.rename(folder)
    house.second()
    assert house.valid(1)
    assert house.store.trouble == ""
    assert len(house.swapped) == 1
    house.store.stop()


def test_stopped_in_the_middle_of_a_load(house: House) -> None:
    house.put(lines(1))
    house.store.start()
    house.put(many(5000))
    house.turn()
    house.turn()
    house.store.stop()
    assert house.clock.getDelayedCalls() == []
    assert house.valid(1)


def test_an_old_index_is_emptied_once_nobody_holds_it(house: House) -> None:
    house.put(lines(1))
    house.store.start()
    old = house.store.index
    house.swapped.clear()
    house.put(lines(2))
    house.second()
    house.second()
    house.second()
    assert old.find(credential(1), 0.0)  # an exchange that began before the swap still asks it
    shards = old._shards
    del old
    house.second()
    assert not any(shards)
    assert house.store._old == []


def test_a_fault_of_who_is_told_does_not_end_the_watch(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.put(lines(1))
    house.store.start()
    told: list[KeyIndex] = []

    def on_swap(index: KeyIndex) -> None:
        told.append(index)
        raise RuntimeError("in the gateway")

    house.store._on_swap = on_swap
    with capturedLogs() as captured:
        house.put(lines(2))
        house.second()
        house.put(lines(3))
        house.second()
    assert len(told) == 2
    assert [event["log_level"] for event in captured] == [LogLevel.critical] * 2
    house.store.stop()


def test_load_alone(tmp_path: Path) -> None:
    assert len(load(tmp_path / "none")) == 0
    (tmp_path / "some").write_bytes(lines(1, 2))
    assert len(load(tmp_path / "some")) == 2
    with pytest.raises(OSError):
        load(tmp_path)
