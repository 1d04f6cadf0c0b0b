"""`edgeproxy init`: a folder that works, and nothing that was there is touched."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote

import pytest
from cli_support import call, called
from running_support import BIN, DEADLINE, Child, run

from edgeproxy.certs.development import make
from edgeproxy.config import load


@pytest.mark.debian("curl")
def test_the_curl_line_works_once_twistd_runs_there(
    tmp_path: Path, child: Callable[..., Child], free_port: int
) -> None:
    """The whole way of a newcomer, from an empty folder, in any folder afterwards."""
    folder = tmp_path / "my shop"
    made = run(BIN / "edgeproxy", "init", folder, "--port", free_port)
    assert made.returncode == 0, made.stderr
    line = next(line for line in made.stdout.splitlines() if line.startswith("curl "))
    assert " -k" not in line
    started = child([BIN / "twistd", "-n", "edgeproxy"], cwd=folder)
    started.wait_until_said("listening on https")
    done = run("sh", "-c", line, cwd="/")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["you"]["name"] == "first"
    # Without the key the door is shut.
    shut = run("sh", "-c", line.replace("X-API-Key", "X-Other"), cwd="/")
    assert json.loads(shut.stdout)["status"] == 401


def test_what_it_writes_is_right(tmp_path: Path) -> None:
    called("init", tmp_path)
    result = call("check", tmp_path / "edgeproxy.yaml")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "1 route," in result.stdout and "1 key" in result.stdout
    assert stat.S_IMODE((tmp_path / "keys.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "certs/localhost-key.pem").stat().st_mode) == 0o600


def test_the_configuration_explains_itself(tmp_path: Path) -> None:
    called("init", tmp_path)
    text = (tmp_path / "edgeproxy.yaml").read_text()
    assert text.count("#") > 10
    assert "page: true" in text


def test_the_commented_lines_are_right_too(tmp_path: Path) -> None:
    """Whoever takes the # away in front of an example gets a configuration that loads."""
    called("init", tmp_path)
    path = tmp_path / "edgeproxy.yaml"
    lines = path.read_text().splitlines()
    for mark in ("# http:", "# upstreams:", "#   app:", "# /public:"):
        (number,) = [n for n, line in enumerate(lines) if line.strip().startswith(mark)]
        lines[number] = lines[number].replace("# ", "", 1)
    path.write_text("\n".join(lines))
    result = call("check", path)
    assert result.exit_code == 0, result.stdout
    assert "open to everyone: * /public" in result.stderr


def test_the_key_is_shown_and_not_stored(tmp_path: Path) -> None:
    found = json.loads(called("init", tmp_path, "--json"))
    assert found["key"].startswith("edge_")
    assert found["key"] in found["curl"]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert found["key"].encode() not in path.read_bytes()


@pytest.mark.parametrize("name", ["edgeproxy.yaml", "keys.jsonl", "certs/localhost.pem"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    result = call("init", tmp_path)
    assert result.exit_code == 1
    assert f"{path} is there already" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert path.read_text() == "precious"


def test_a_link_that_leads_nowhere_is_there_too(tmp_path: Path) -> None:
    (tmp_path / "edgeproxy.yaml").symlink_to(tmp_path / "elsewhere")
    assert call("init", tmp_path).exit_code == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_certificate_for_localhost_that_is_there_is_used(tmp_path: Path) -> None:
    made = make(["localhost"], datetime.now(UTC))
    (tmp_path / "certs").mkdir()
    mine = tmp_path / "certs" / "mine.pem"
    mine.write_bytes(made.chain_pem + made.key_pem)
    found = json.loads(called("init", tmp_path, "--json"))
    assert f"--cacert {mine} " in found["curl"]
    assert list((tmp_path / "certs").iterdir()) == [mine]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("init", tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_for_the_service(tmp_path: Path) -> None:
    """What differs is where the unit has its sockets, its log and its control socket."""
    made = called("init", "--system", tmp_path)
    assert "Start the gateway: systemctl enable --now edgeproxy\n" in made
    assert "https://localhost:443/" in made
    config = load(tmp_path / "edgeproxy.yaml")
    assert (config.listen.https, config.listen.http) == ("systemd:https", "systemd:http")
    assert config.access_log == Path("/var/log/edgeproxy/access.log")
    assert config.control.path == Path("/run/edgeproxy/control.sock") and config.control.group
    assert call("check", tmp_path / "edgeproxy.yaml").exit_code == 0


# -- when it fails ---------------------------------------------------------------------------------


def whole(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("size", [0, 300, 1000])
@pytest.mark.parametrize("there", ["nothing", "folder", "certs"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, size: int, there: str) -> None:
    """No room for the certificate's key, for the certificate, and for the configuration alone."""
    folder = tmp_path / "a" / "shop"
    if there != "nothing":
        folder.mkdir(parents=True)
    if there == "certs":
        (folder / "certs").mkdir()
    before = whole(tmp_path)
    limit = (size, resource.RLIM_INFINITY)
    failed = run(
        BIN / "edgeproxy",
        "init",
        folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert failed.stderr.endswith("File too large; nothing was left behind\n")
    assert failed.stdout == ""
    assert whole(tmp_path) == before
    assert call("init", folder).exit_code == 0


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    """One writes everything, the others nothing."""
    pipe = subprocess.PIPE
    command = [str(BIN / "edgeproxy"), "init", str(tmp_path / "shop"), "--json"]
    started = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(6)]
    ended = [(*each.communicate(timeout=DEADLINE), each.returncode) for each in started]
    (won,) = [json.loads(out) for out, _, status in ended if status == 0]
    for out, error, status in ended:
        assert status == 0 or (out == "" and len(error.splitlines()) == 1), error
    (line,) = (tmp_path / "shop" / "keys.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == won["key"].split("_")[1]
    assert call("check", tmp_path / "shop" / "edgeproxy.yaml").exit_code == 0


def test_an_init_waits_for_no_other(tmp_path: Path) -> None:
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    result = call("init", tmp_path)
    os.close(lock)
    assert result.exit_code == 1
    assert result.stderr == f"edgeproxy: another `edgeproxy init` is at work in {tmp_path}\n"
    assert whole(tmp_path) == []


@pytest.mark.parametrize("way", [">&-", ">/dev/full"])
@pytest.mark.parametrize("option", ["", "--json"])
def test_a_key_that_nobody_would_see_is_not_made(tmp_path: Path, way: str, option: str) -> None:
    failed = run("sh", "-c", f"{quote(str(BIN))}/edgeproxy init {tmp_path}/shop {option} {way}")
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert ("nothing is done" if way == ">&-" else "nothing was left behind") in failed.stderr
    assert whole(tmp_path) == []
