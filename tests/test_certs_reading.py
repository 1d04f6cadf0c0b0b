from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.certs import reading
from edgeproxy.certs.reading import Survey, read_file, read_folder, survey_in_steps


def survey(folder: Path) -> Survey:
    steps = survey_in_steps(folder)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_files_in_subfolders_and_behind_links_are_read(tmp_path: Path) -> None:
    certs, outside = tmp_path / "certs", tmp_path / "outside"
    (certs / "a" / "b").mkdir(parents=True)
    outside.mkdir()
    (certs / "one").write_bytes(b"1")
    (certs / "a" / "b" / "two").write_bytes(b"2")
    (outside / "three").write_bytes(b"3")
    (certs / "file-link").symlink_to(outside / "three")
    (certs / "folder-link").symlink_to("../outside")
    assert read_folder(certs) == {
        "one": b"1",
        "a/b/two": b"2",
        "file-link": b"3",
        "folder-link/three": b"3",
    }


def test_loops_of_links_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"1")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "ping").symlink_to("pong")
    (tmp_path / "pong").symlink_to("ping")
    (tmp_path / "nowhere").symlink_to("nothing")
    found = survey(tmp_path)
    assert list(found.files) == ["a/file"]
    assert {(p.file, p.message) for p in found.problems} == {
        ("self", "is a link that leads back to itself"),
        ("ping", "is a link that leads back to itself"),
        ("pong", "is a link that leads back to itself"),
        ("nowhere", "does not exist, or is a link that leads nowhere"),
    }
    assert read_folder(tmp_path) == {"a/file": b"1"}


def test_a_kubernetes_volume_shows_its_plain_names_only(tmp_path: Path) -> None:
    generation = tmp_path / "..2026_11_24"
    generation.mkdir()
    (generation / "tls.crt").write_bytes(b"c")
    (tmp_path / "..data").symlink_to("..2026_11_24")
    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    assert read_folder(tmp_path) == {"tls.crt": b"c"}
    assert survey(tmp_path).watch == {str(tmp_path), str(generation)}


def test_every_folder_in_which_a_link_on_the_way_stands_is_watched(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    live, archive = tmp_path / "le" / "live" / "x", tmp_path / "le" / "archive" / "x"
    for folder in (certs, live, archive, tmp_path / "releases" / "5"):
        folder.mkdir(parents=True)
    (archive / "key1").write_bytes(b"k")
    (live / "key").symlink_to("../../archive/x/key1")
    (certs / "key").symlink_to(live / "key")
    (tmp_path / "current").symlink_to("releases/5")
    (tmp_path / "releases" / "5" / "file").write_bytes(b"f")
    (certs / "deployed").symlink_to("../current")
    assert survey(certs).watch == {
        str(certs),
        str(live),
        str(archive),
        str(tmp_path),
        str(tmp_path / "releases" / "5"),
    }
    (tmp_path / "linked").symlink_to("certs")
    assert str(tmp_path) in survey(tmp_path / "linked").watch


def test_a_missing_folder_and_a_file_in_its_place_are_problems(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "nothing", tmp_path / "file"):
        found = survey(path)
        assert found.files == {}
        assert found.unreadable == {""}
        assert [p.file for p in found.problems] == [str(path)]
        assert read_folder(path) == {}


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_folder(tmp_path) == {}
    assert survey(tmp_path).problems == []
    with pytest.raises(OSError, match="not a regular file"):
        read_file(str(tmp_path / "pipe"))


def test_files_over_a_mebibyte_are_left_out(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "fits").write_bytes(b"x" * (1 << 20))
    (tmp_path / "large").write_bytes(b"x" * ((1 << 20) + 1))
    found = survey(tmp_path)
    assert list(found.files) == ["fits"]
    assert [(p.file, p.message) for p in found.problems] == [
        ("large", "larger than 1 MiB: not looked at")
    ]
    assert found.present == {"fits", "large"}
    with pytest.raises(OSError):
        read_file(str(tmp_path / "large"))  # it has grown since the survey


def test_more_than_ten_thousand_files_are_cut_off(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "MAX_FILES", 5)
    for name in "abcdefg":
        (tmp_path / name).write_bytes(b"x")
    assert list(read_folder(tmp_path)) == list("abcde")
    assert "more than 5 files" in survey(tmp_path).problems[0].message


def test_a_large_folder_is_looked_at_in_steps(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / str(number)).write_bytes(b"")
    assert len(list(survey_in_steps(tmp_path))) >= 5


AS_NOBODY = """
import os, sys, json
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[2])
from edgeproxy.certs.reading import survey_in_steps, read_folder, read_file
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
folder = Path(sys.argv[1])
steps = survey_in_steps(folder)
try:
    while True: next(steps)
except StopIteration as end:
    survey = end.value
try:
    read_file(str(folder / "secret"))
    said = "read"
except PermissionError:
    said = "permission"
print(json.dumps([sorted(read_folder(folder)), sorted(survey.unreadable), said,
                  sorted(p.file for p in survey.problems)]))
"""


def test_unreadable_files_and_folders_are_told_and_harm_no_other() -> None:
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "good").write_bytes(b"g")
        (folder / "secret").write_bytes(b"s")
        (folder / "secret").chmod(0)
        (folder / "closed").mkdir()
        (folder / "closed").chmod(0)
        run = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, name, json.dumps(sys.path)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        (folder / "closed").chmod(0o755)
    assert json.loads(run.stdout) == [["good"], ["closed"], "permission", ["closed"]]
