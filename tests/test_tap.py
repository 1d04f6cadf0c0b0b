"""`twistd edgeproxy`: with a file, without one, from any folder; every start error is one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_support import write
from running_support import (
    BIN,
    Child,
    Development,
    RunningGateway,
    accepts,
    free_port,
    run,
    wait_for,
)

PAGE = {"routes": {"*": {"/": {"page": True}}}}


def twistd(*arguments: Any, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run twistd to its end; its pid file is in `cwd`, as it is for everybody."""
    return run(BIN / "twistd", *arguments, cwd=cwd, env={**os.environ, **environment})


@pytest.fixture
def folder(tmp_path: Path, development: Development) -> Path:
    """A folder with everything that a gateway needs."""
    found = tmp_path / "gateway"
    found.mkdir()
    shutil.copytree(development.certs, found / "certs")
    (found / "keys.jsonl").write_bytes(development.key_line)
    write(found, listen={"https": "127.0.0.1:0"}, **PAGE)
    return found


def refused(done: subprocess.CompletedProcess[str], folder: Path) -> str:
    """The one line on standard error, and nothing left behind."""
    assert done.returncode == 1, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("edgeproxy: ")
    assert "Traceback" not in done.stdout
    assert not (folder / "twistd.pid").exists()
    assert not (folder / "edgeproxy.sock").exists()
    return lines[0]


# -- start errors --------------------------------------------------------------------------------


def _wrong_port(folder: Path) -> None:
    write(folder, listen={"https": ":84430"}, **PAGE)


def _misspelt(folder: Path) -> None:
    write(folder, listne={}, **PAGE)


def _no_certs(folder: Path) -> None:
    shutil.rmtree(folder / "certs")


def _no_key_for_the_certificate(folder: Path) -> None:
    (folder / "certs" / "localhost.pem").unlink()
    (folder / "certs" / "localhost-key.pem").unlink()


def _keys_cut_in_half(folder: Path) -> None:
    data = (folder / "keys.jsonl").read_bytes()
    (folder / "keys.jsonl").write_bytes(data + data[: len(data) // 2])


def _missing(folder: Path) -> None:
    (folder / "edgeproxy.yaml").unlink()


def _a_folder_in_its_place(folder: Path) -> None:
    _missing(folder)
    (folder / "edgeproxy.yaml").mkdir()


def _log_in_no_folder(folder: Path) -> None:
    write(folder, listen={"https": "127.0.0.1:0"}, access_log="nix/access.log", **PAGE)


def _control_in_no_folder(folder: Path) -> None:
    write(folder, listen={"https": "127.0.0.1:0"}, control="nix/edgeproxy.sock", **PAGE)


def _address_of_another_machine(folder: Path) -> None:
    write(folder, listen={"https": "192.0.2.1:0"}, **PAGE)


ERRORS: list[tuple[Callable[[Path], None], str]] = [
    (_wrong_port, "edgeproxy.yaml:3:12: ':84430' is not an address to listen on"),
    (_misspelt, "edgeproxy.yaml:2:2: 'listne' is not a setting here; did you mean 'listen'?"),
    (_no_certs, "certs: there is no such folder"),
    (_no_key_for_the_certificate, "certs: no usable certificate with its key"),
    (_keys_cut_in_half, "keys.jsonl:2: not a JSON object"),
    (_missing, "edgeproxy.yaml:1:1: cannot be read"),
    (_a_folder_in_its_place, "edgeproxy.yaml:1:1: cannot be read"),
    (_log_in_no_folder, "access.log: No such file or directory"),
    (_control_in_no_folder, "edgeproxy.sock: there is no such folder"),
    (_address_of_another_machine, "cannot listen on 192.0.2.1:0"),
]


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "background"])
@pytest.mark.parametrize(("spoil", "why"), ERRORS, ids=[e[0].__name__[1:] for e in ERRORS])
def test_a_start_error_is_one_line(
    folder: Path, spoil: Callable[[Path], None], why: str, daemon: bool
) -> None:
    spoil(folder)
    foreground = () if daemon else ("-n",)
    done = twistd(*foreground, "edgeproxy", "--config", "edgeproxy.yaml", cwd=folder)
    assert why in refused(done, folder)


def test_a_port_in_use(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        write(folder, listen={"https": f"127.0.0.1:{port}"}, **PAGE)
        done = twistd("-n", "edgeproxy", cwd=folder)
        assert f"port {port} is already in use" in refused(done, folder)


def test_a_plain_port_in_use(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        listen = {"https": "127.0.0.1:0", "http": f"127.0.0.1:{port}"}
        write(folder, listen=listen, **PAGE)
        done = twistd("-n", "edgeproxy", cwd=folder)
        assert f"port {port} is already in use" in refused(done, folder)


def powerless() -> list[str]:
    """A prefix for a command that makes root subject to the modes of files, as everybody is."""
    if os.geteuid() != 0:
        return []
    powers = "-dac_override,-dac_read_search"
    return ["setpriv", f"--inh-caps={powers}", f"--bounding-set={powers}"]


@pytest.mark.parametrize("name", ["keys.jsonl", "edgeproxy.yaml", "access.log"])
def test_an_unreadable_file(folder: Path, name: str) -> None:
    (folder / name).touch()
    (folder / name).chmod(0o000)
    done = run(*powerless(), BIN / "twistd", "-n", "edgeproxy", cwd=folder)
    assert name in refused(done, folder)
    assert "ermission denied" in done.stderr


def test_a_folder_that_cannot_be_read(folder: Path) -> None:
    (folder / "certs").chmod(0o000)
    done = run(*powerless(), BIN / "twistd", "-n", "edgeproxy", cwd=folder)
    (folder / "certs").chmod(0o700)
    assert done.returncode == 1
    assert "no usable certificate" in done.stderr and "permission denied" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("nonsense", "--to: 'nonsense' is not a URL; write it as http://10.0.0.1:9001"),
        ("ftp://127.0.0.1", "--to: 'ftp://127.0.0.1' is not a URL"),
        ("http://127.0.0.1:1/x", "--to: 'http://127.0.0.1:1/x' holds more than host and port"),
        ("", "--to: '' is not a URL"),
    ],
)
def test_to_with_a_wrong_url(tmp_path: Path, to: str, why: str) -> None:
    done = twistd("-n", "edgeproxy", "--to", to, cwd=tmp_path, XDG_STATE_HOME=str(tmp_path / "s"))
    assert why in refused(done, tmp_path)
    assert not (tmp_path / "s").exists()


def test_to_with_a_wrong_address(tmp_path: Path) -> None:
    arguments = ("edgeproxy", "--to", "http://127.0.0.1:1", "--https", "8443x")
    done = twistd("-n", *arguments, cwd=tmp_path, XDG_STATE_HOME=str(tmp_path / "s"))
    assert "--https: '8443x' is not an address" in refused(done, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--cofig", "x"), "option --cofig not recognized"),
        (("surplus",), "no argument is expected, but 'surplus' was given"),
        (("--config", "x", "--to", "http://127.0.0.1:1"), "--config and --to exclude each other"),
        (("--config",), "option --config requires argument"),
    ],
)
def test_a_wrong_command_line(tmp_path: Path, arguments: tuple[str, ...], why: str) -> None:
    done = twistd("-n", "edgeproxy", *arguments, cwd=tmp_path)
    assert why in refused(done, tmp_path)
    assert done.stdout == ""


def test_no_configuration_anywhere(tmp_path: Path) -> None:
    if Path("/etc/edgeproxy/edgeproxy.yaml").exists():
        pytest.skip("this machine has a configuration of its own")
    line = refused(twistd("-n", "edgeproxy", cwd=tmp_path), tmp_path)
    assert "there is neither ./edgeproxy.yaml nor /etc/edgeproxy/edgeproxy.yaml" in line
    assert "--to URL needs none" in line


# -- starts that work ----------------------------------------------------------------------------


def test_the_file_in_the_current_folder_is_found(
    folder: Path, development: Development, child: Callable[..., Child]
) -> None:
    started = child([BIN / "twistd", "-n", "edgeproxy"], cwd=folder)
    port = int(started.wait_until_said(r"listening on https port (\d+)")[1])
    assert RunningGateway(folder, development, started, port).ask().status == 200
    started.signal(signal.SIGTERM)
    started.wait()
    assert not (folder / "twistd.pid").exists()


def test_in_the_background_from_another_folder(
    folder: Path, development: Development, tmp_path: Path
) -> None:
    """As an init script does it; keys, certificates and logs are still those beside the file."""
    pidfile = tmp_path / "edge.pid"
    done = twistd(
        *("--pidfile", pidfile, "--logfile", tmp_path / "edge.log", "--rundir", "/"),
        *("edgeproxy", "--config", os.path.relpath(folder / "edgeproxy.yaml", tmp_path)),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    try:
        found = json.loads(
            run(BIN / "edgeproxy", "status", "--json", "-c", folder / "edgeproxy.yaml").stdout
        )
        assert found["pid"] == int(pidfile.read_text())
        running = RunningGateway(
            folder,
            development,
            Child(None, tmp_path),  # type: ignore[arg-type]  # no child of ours any more
            found["listeners"][0]["port"],
        )
        assert running.ask().status == 200
        assert running.command("reload").returncode == 0
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGTERM)
        wait_for(lambda: not pidfile.exists(), what="twistd has ended")
    assert [line["status"] for line in running.log_lines()] == [200]


def test_without_a_file(tmp_path: Path, child: Callable[..., Child]) -> None:
    """`--to` needs nothing, prints a line that works, and keeps what it made to itself."""
    port = free_port()
    behind = free_port()
    child([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", behind], cwd=BIN.parent)
    wait_for(lambda: accepts(behind))
    started = child(
        [
            *(BIN / "twistd", "-n", "--pidfile=", "edgeproxy"),
            *("--to", f"http://127.0.0.1:{behind}", "--https", f":{port}"),
        ],
        cwd=tmp_path,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
    )
    line = started.wait_until_said(r"^curl .*$")[0]
    started.wait_until_said("listening on https port")
    done = run("sh", "-c", line + "pyvenv.cfg", cwd="/")
    assert "version" in done.stdout, done
    state = tmp_path / "state" / "edgeproxy"
    assert state.stat().st_mode & 0o077 == 0
    assert [p.name for p in tmp_path.iterdir()].count("twistd.pid") == 0
