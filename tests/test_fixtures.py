"""What the shared fixtures promise: programs that are missing are skipped, and fail under CI."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from running_support import ROOT, Nginx, accepts, run, wait_for

MISSING = """
import pytest

@pytest.mark.debian("no-such-program")
def test_it():
    pass
"""


@pytest.mark.parametrize(("ci", "status", "said"), [("", 0, "1 skipped"), ("true", 1, "1 error")])
def test_a_missing_program(tmp_path: Path, ci: str, status: int, said: str) -> None:
    (tmp_path / "test_missing.py").write_text(MISSING)
    done = run(
        *(sys.executable, "-m", "pytest", "-c", ROOT / "setup.cfg", "-p", "conftest"),
        *("-p", "no:cacheprovider", tmp_path / "test_missing.py"),
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    assert said in done.stdout, done
    assert "apt-get install no-such-program" in done.stdout
    assert done.returncode == status


@pytest.mark.debian("nginx")
def test_nginx_serves_from_a_folder_of_its_own(nginx: Callable[..., Nginx]) -> None:
    first = nginx("location /told { return 200 told; }")
    second = nginx()
    (first.folder / "html" / "file").write_bytes(b"from the disk")
    for path, right in (("told", b"told"), ("file", b"from the disk")):
        with urllib.request.urlopen(f"{first.url}/{path}") as answer:
            assert answer.read() == right
    first.stop()
    wait_for(lambda: not accepts(first.port))
    assert accepts(second.port)
    assert len(first.log()) == 2 and second.log() == []


def test_wait_for_returns_what_it_waited_for_and_gives_up() -> None:
    answers = iter([0, None, "", "found"])
    assert wait_for(lambda: next(answers)) == "found"
    with pytest.raises(AssertionError, match="did not happen within 0.05 s: never"):
        wait_for(lambda: False, deadline=0.05, what="never")
