"""The keys of X-Edge-Token in their file: restarts, rotation, broken files, two processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running_support import ROOT
from twisted.logger import capturedLogs

from edgeproxy.config import parse
from edgeproxy.config.edgetoken import EdgeToken
from edgeproxy.edgetokens import INTERVAL, NAME, Issuing, SigningKeys
from edgeproxy.identity.edgekeys import CACHE
from edgeproxy.starting import StartError, open_keys
from edgeproxy.state import StateFile
from edgeproxy.testing.reactor import EPOCH, MemoryClock, MemoryReactor

DAY = 86400
SETTINGS = EdgeToken(issuer="https://edge.example.com")


class Process:
    """One that has the file open; they share a clock."""

    def __init__(self, folder: Path, reactor: MemoryReactor | None = None) -> None:
        self.reactor = reactor or MemoryReactor()
        clock = MemoryClock(self.reactor)
        self.keys = SigningKeys(self.reactor, lambda: clock.now() + EPOCH, folder / NAME, SETTINGS)
        self.keys.use(SETTINGS)
        self.keys.open()
        self.keys.start()

    @property
    def now(self) -> str:
        """Which key signs."""
        return self.keys.signing(self.keys._now()).id

    @property
    def ids(self) -> list[str]:
        return [each["kid"] for each in json.loads(self.keys.published)["keys"]]


def test_a_restart_goes_on_with_the_same_keys(tmp_path: Path) -> None:
    first = Process(tmp_path / "state")
    path = tmp_path / "state" / NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    second = Process(tmp_path / "state")
    assert (second.ids, second.now) == (first.ids, first.now)
    assert len(first.ids) == 2


def test_rotation_by_itself(tmp_path: Path) -> None:
    process = Process(tmp_path)
    old, new = process.ids
    process.reactor.wait(DAY - 1)
    assert process.now == old
    process.reactor.wait(1)
    assert process.now == new
    process.reactor.wait(INTERVAL)
    assert process.ids[:2] == [old, new]
    assert len(process.ids) == 3
    process.reactor.wait(60 + CACHE)
    assert process.ids[0] == new
    assert len(process.ids) == 2
    restarted = Process(tmp_path, process.reactor)
    assert restarted.ids == process.ids


def test_two_processes_agree(tmp_path: Path) -> None:
    reactor = MemoryReactor()
    one, other = Process(tmp_path, reactor), Process(tmp_path, reactor)
    for _ in range(5):
        reactor.wait(DAY / 2)
        assert one.now == other.now
        reactor.wait(2 * INTERVAL)
        assert one.ids == other.ids


SCRIPT = """
import sys
from pathlib import Path
from time import time
from edgeproxy.config.edgetoken import EdgeToken
from edgeproxy.edgetokens import SigningKeys
keys = SigningKeys(None, time, Path(sys.argv[1]), EdgeToken(issuer="https://e.example"))
keys.open()
print(keys.published.decode())
"""


def test_real_processes_that_start_at_once_make_one_set(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / NAME)]
    children = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(4)]
    said = {child.communicate(timeout=60)[0] for child in children}
    assert len(said) == 1
    assert len(json.loads(said.pop())["keys"]) == 2


@pytest.mark.parametrize("text", [b"", b"{", b'{"keys": []}', b"\x00" * 100])
def test_a_broken_file_is_kept_aside_and_new_keys_take_its_place(
    tmp_path: Path, text: bytes
) -> None:
    path = tmp_path / NAME
    path.write_bytes(text)
    with capturedLogs() as logs:
        process = Process(tmp_path)
    assert len(process.ids) == 2
    assert (tmp_path / f"{NAME}.broken").read_bytes() == text
    (line,) = [each for each in logs if each["log_level"].name == "warn"]
    assert "another takes its place" in line["log_format"]
    assert Process(tmp_path).ids == process.ids


@pytest.mark.parametrize("text", [None, b"{"])
def test_a_file_lost_while_it_runs_is_written_anew(tmp_path: Path, text: bytes | None) -> None:
    process = Process(tmp_path)
    before = process.ids
    path = tmp_path / NAME
    path.unlink()
    if text is not None:
        path.write_bytes(text)
    with capturedLogs() as logs:
        process.reactor.wait(INTERVAL)
    assert process.ids == before
    assert len([each for each in logs if each["log_level"].name == "warn"]) == 1
    assert Process(tmp_path, process.reactor).ids == before


def test_a_file_that_others_could_read(tmp_path: Path) -> None:
    Process(tmp_path)
    path = tmp_path / NAME
    path.chmod(0o644)
    with capturedLogs() as logs:
        Process(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert any("others could read it" in each["log_format"] for each in logs)


def test_a_folder_that_cannot_be_written_while_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    process = Process(folder)
    (old, new) = process.ids
    folder.rename(tmp_path / "gone")
    folder.write_text("in the way")
    with capturedLogs() as logs:
        process.reactor.wait(DAY + 3 * INTERVAL)
    assert process.now == new, "the next one signs in its time all the same"
    assert len([each for each in logs if each["log_level"].name == "warn"]) == 1
    assert "the keys in use stay" in process.keys.trouble
    folder.unlink()
    (tmp_path / "gone").rename(folder)
    process.reactor.wait(INTERVAL)
    assert (process.keys.trouble, len(process.ids)) == ("", 3)
    assert old in process.ids


def test_a_process_that_holds_the_file_and_stands_still(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with StateFile(tmp_path / NAME).locked():
        process.reactor.wait(DAY + INTERVAL)
        assert process.keys.trouble
    process.reactor.wait(INTERVAL)
    assert (process.keys.trouble, len(process.ids)) == ("", 3)


def test_at_the_start_it_has_to_be_writable(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    reactor = MemoryReactor()
    issuing = Issuing(reactor, MemoryClock(reactor))
    config = parse("edge_token: https://e.example\nroutes: { '*': { /: { page: true } } }")
    tokens = issuing.build(config, tmp_path / "state")
    with pytest.raises(StartError, match="the keys of `edge_token` are kept there: `state:` names"):
        open_keys(tokens)


def test_a_folder_where_the_keys_should_be(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    reactor = MemoryReactor()
    config = parse("edge_token: https://e.example\nroutes: { '*': { /: { page: true } } }")
    tokens = Issuing(reactor, MemoryClock(reactor)).build(config, tmp_path)
    with pytest.raises(StartError, match=f"^{re.escape(str(tmp_path / NAME))}: Is a directory; "):
        open_keys(tokens)


def test_what_a_reload_keeps(tmp_path: Path) -> None:
    reactor = MemoryReactor()
    issuing = Issuing(reactor, MemoryClock(reactor))
    issuing.start()
    text = "routes: { '*': { /: { page: true } } }\nedge_token: "
    plain = parse(text + "https://e.example")
    first = issuing.build(plain, tmp_path)
    assert first is not None
    issuing.use(first)
    assert issuing.build(plain, tmp_path) is first
    longer = issuing.build(parse(text + "{ issuer: https://e.example, lifetime: 5m }"), tmp_path)
    assert longer is not None and longer is not first
    assert longer.keys is first.keys
    issuing.use(longer)
    assert longer.keys.lifetime == 300
    elsewhere = issuing.build(plain, tmp_path / "other")
    assert elsewhere is not None and elsewhere.keys is not first.keys
    issuing.use(elsewhere)
    assert not first.keys._loop.running
    assert elsewhere.keys._loop.running
    issuing.use(None)
    assert not elsewhere.keys._loop.running
