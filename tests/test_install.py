"""`make install` and `make uninstall` never take away what is not edgeproxy's own.

What they do on a machine is in `test_booted`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from running_support import ROOT, run


def make(goal: str, stage: Path, prefix: str) -> tuple[int, str]:
    done = run("make", "-C", ROOT, goal, f"DESTDIR={stage}", f"PREFIX={prefix}")
    return done.returncode, done.stderr


@pytest.mark.parametrize("prefix", ["/usr/", "//usr", "/opt/.", "/opt/..", "/opt/x/../../usr"])
def test_a_prefix_in_another_spelling(tmp_path: Path, prefix: str) -> None:
    theirs = tmp_path / "usr/bin/theirs"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    code, said = make("uninstall", tmp_path, prefix)
    assert code != 0 and "edgeproxy: PREFIX is" in said
    assert theirs.exists()


@pytest.mark.parametrize("goal", ["install", "uninstall"])
def test_a_prefix_where_something_else_is(tmp_path: Path, goal: str) -> None:
    theirs = tmp_path / "opt/theirs/file"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    code, said = make(goal, tmp_path, "/opt")
    assert code != 0 and f"in {tmp_path}/opt is something else" in said
    assert list(tmp_path.rglob("*")) == [tmp_path / "opt", theirs.parent, theirs]


def test_what_is_half_made_can_be_taken_away(tmp_path: Path) -> None:
    ours = tmp_path / "opt/edgeproxy/share/edgeproxy"
    ours.mkdir(parents=True)
    assert make("uninstall", tmp_path, "/opt/edgeproxy") == (0, "")
    assert not (tmp_path / "opt/edgeproxy").exists()


def test_a_stage_whose_name_would_be_a_pattern(tmp_path: Path) -> None:
    code, said = make("uninstall", tmp_path / "a|b", "/opt/edgeproxy")
    assert code != 0 and "edgeproxy: DESTDIR is" in said
