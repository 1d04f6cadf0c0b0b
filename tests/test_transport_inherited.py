"""Sockets that systemd hands over: adopted, or refused in one line, in a real process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running_support import BIN, Child, Development, run

from edgeproxy.transport.inherited import Inherited
from edgeproxy.transport.port import PortError

#: As systemd does it: descriptors from 3 on, and the number of the process that is meant.
PASS = """
import fcntl, os, sys
numbers, names, *command = sys.argv[1:]
moved = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 50) for each in numbers.split(",")]
for at, each in enumerate(moved):
    os.dup2(each, 3 + at, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(moved)), LISTEN_FDNAMES=names)
os.execv(command[0], command)
"""


def listening(host: str = "127.0.0.1", kind: int = socket.SOCK_STREAM) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.bind((host, 0))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


@pytest.fixture
def passing(tmp_path: Path, development: Development) -> Iterator[Callable[..., list[Any]]]:
    """`passing({name: socket}, **configuration)`: the command that starts a gateway with them."""
    (tmp_path / "keys.jsonl").write_bytes(development.key_line)
    (tmp_path / "certs").symlink_to(development.certs)
    kept: list[Any] = []

    def command(sockets: list[tuple[str, Any]], **configuration: Any) -> list[Any]:
        kept.extend(sock for _, sock in sockets)
        config = {"routes": {"*": {"/": {"page": True}}}, **configuration}
        (tmp_path / "edgeproxy.yaml").write_text(json.dumps(config))
        numbers = ",".join(str(sock.fileno()) for _, sock in sockets)
        names = ":".join(name for name, _ in sockets)
        twistd = [BIN / "twistd", "-n", "--pidfile=", "edgeproxy"]
        return [sys.executable, "-c", PASS, numbers, names, *twistd]

    yield command
    for each in kept:
        each.close()


def options(sockets: list[tuple[str, Any]], folder: Path) -> dict[str, Any]:
    return {"cwd": folder, "pass_fds": [sock.fileno() for _, sock in sockets]}


def ask(port: int, trust: Development, host: str = "127.0.0.1", path: str = "/") -> str:
    where = f"[{host}]" if ":" in host else host
    done = run(
        *("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", trust.chain),
        *("-H", f"X-API-Key: {trust.credential}", "--connect-to", f"localhost:{port}:{where}:"),
        f"https://localhost:{port}{path}",
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.debian("curl")
def test_all_sockets_of_a_name_are_served(
    passing: Callable[..., list[Any]],
    child: Callable[..., Child],
    tmp_path: Path,
    development: Development,
) -> None:
    sockets = [
        ("https", listening()),
        ("http", listening()),
        ("https", listening("::1")),
        ("other", listening()),
    ]
    four, plain, six, _ = (sock.getsockname()[1] for _, sock in sockets)
    command = passing(sockets, listen={"https": "systemd:https", "http": "systemd:http"})
    started = child(command, **options(sockets, tmp_path))
    started.wait_until_said(f"listening on http port {plain}")
    assert ask(four, development) == "200"
    assert ask(six, development, "::1") == "200"
    done = run("curl", "-sI", f"http://127.0.0.1:{plain}/x")
    assert f"Location: https://127.0.0.1:{four}/x" in done.stdout
    started.wait_until_said(r"does not use, nobody answers there: other; `listen: \{ https: ")

    # The sockets live on in whoever passed them: a connection waits there for the next process.
    started.signal(signal.SIGTERM)
    started.wait()
    with socket.create_connection(("127.0.0.1", four)):
        pass


SocketMaker = Callable[[Path], Any]


def _datagram(folder: Path) -> Any:
    return listening(kind=socket.SOCK_DGRAM)


def _unconnected(folder: Path) -> Any:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def _unix(folder: Path) -> Any:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(folder / "s"))
    sock.listen()
    return sock


def _file(folder: Path) -> Any:
    return (folder / "file").open("w")


REFUSED: list[tuple[SocketMaker, str, str]] = [
    (_datagram, "systemd:https", "systemd:https: that is a datagram socket; use ListenStream="),
    (_unconnected, "systemd:https", "systemd:https: that socket does not listen"),
    (_unix, "systemd:https", "systemd:https: that is no TCP socket"),
    (_file, "systemd:https", "systemd:https: that is no socket"),
    (
        lambda _: listening(),
        "systemd:web",
        "systemd:web: systemd passed no socket of that name, it passed https; start the",
    ),
]


@pytest.mark.parametrize(("make", "name", "why"), REFUSED)
def test_what_cannot_be_used_is_one_line(
    passing: Callable[..., list[Any]], tmp_path: Path, make: SocketMaker, name: str, why: str
) -> None:
    sockets = [("https", make(tmp_path))]
    done = run(*passing(sockets, listen={"https": name}), **options(sockets, tmp_path))
    assert done.returncode == 1
    assert re.fullmatch(f"edgeproxy: {re.escape(why)}.*\n", done.stderr), done.stderr
    assert "Traceback" not in done.stdout


def test_without_systemd(tmp_path: Path, development: Development) -> None:
    (tmp_path / "certs").symlink_to(development.certs)
    config = {"listen": "systemd:https", "routes": {"*": {"/": {"page": True}}}}
    (tmp_path / "edgeproxy.yaml").write_text(json.dumps(config))
    done = run(BIN / "twistd", "-n", "edgeproxy", cwd=tmp_path)
    assert done.returncode == 1
    assert "systemd:https: systemd passed no socket of that name, it passed none" in done.stderr


@pytest.mark.parametrize("pid", ["1", "", None])
def test_what_is_for_another_process_is_left_alone(pid: str | None) -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "https", "PATH": "/bin"}
    if pid is not None:
        environ["LISTEN_PID"] = pid
    passed = Inherited(environ)
    assert passed.unused == []
    assert environ == {"PATH": "/bin"}
    with pytest.raises(PortError, match="it passed none"):
        passed.take("https")


@pytest.mark.parametrize("count", ["x", "-1", "2", ""])
def test_what_does_not_fit_together_is_nothing(count: str) -> None:
    """Two descriptors for one name: which would be which?"""
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": "https"}
    assert Inherited(environ).unused == []
    assert environ == {}


def test_children_do_not_inherit_them() -> None:
    with listening() as sock:
        os.set_inheritable(sock.fileno(), True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edgeproxy.transport.inherited.ListenFDs._START", sock.fileno())
            pid = str(os.getpid())
            passed = Inherited({"LISTEN_PID": pid, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"})
        assert not os.get_inheritable(sock.fileno())
        (taken,) = passed.take("a")
        assert taken.fileno() == sock.fileno()
        assert passed.unused == []
        taken.detach()


def test_an_environment_that_cannot_be_true() -> None:
    """Neither a descriptor that is not open nor a count without end harms anybody."""
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "https"}
    passed = Inherited(environ | {"LISTEN_FDS": str(10**15)})
    with pytest.raises(PortError, match="it passed none"):
        passed.take("https")
    # More than this process may have open at once.
    names = ":".join(["https"] * 2000)
    environ |= {"LISTEN_FDS": "2000", "LISTEN_FDNAMES": names}
    with pytest.raises(PortError):
        Inherited(environ).take("https")
