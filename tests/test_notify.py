"""What systemd is told, in whose words, and when: on a real socket, by a clock that is moved."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running_support import DEADLINE, RunningGateway, wait_for, write_config
from twisted.internet.task import Clock

from edgeproxy.notify import Notify

Start = Callable[..., RunningGateway]
PAGE = {"routes": {"*": {"/": {"page": True}}}}


class Manager:
    """The end that systemd holds."""

    def __init__(self, address: str | bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(DEADLINE)

    def told(self) -> dict[str, str]:
        """The next datagram, by name."""
        data = self._socket.recv(4096).decode()
        return dict(line.split("=", 1) for line in data.splitlines())

    def silent(self) -> bool:
        """Whether nothing waits to be read."""
        self._socket.setblocking(False)
        try:
            return not self._socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(DEADLINE)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    """The manager, and what stands in NOTIFY_SOCKET."""
    if request.param == "path":
        name = address = str(tmp_path / "notify")
    else:
        name, address = f"@edgeproxy-test-{os.getpid()}", f"\0edgeproxy-test-{os.getpid()}"
    made = Manager(address)
    yield made, name
    made.close()


def test_what_is_told(manager: tuple[Manager, str]) -> None:
    end, name = manager
    environ = {"NOTIFY_SOCKET": name, "PATH": "/bin"}
    notify = Notify(Clock(), environ)
    assert environ == {"PATH": "/bin"}, "children must not speak in our name"
    notify.ready("serving\nREADY=0")
    assert end.told() == {"READY": "1", "STATUS": "serving READY=0"}
    before = time.monotonic_ns() // 1000
    notify.reloading()
    told = end.told()
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    notify.stopping("x" * 5000, 300.0)
    told = end.told()
    assert (told["STOPPING"], told["EXTEND_TIMEOUT_USEC"]) == ("1", "310000000")
    assert len(told["STATUS"]) == 1000 and told["STATUS"].endswith("x...")


def test_signs_of_life_at_half_the_time(manager: tuple[Manager, str]) -> None:
    end, name = manager
    clock = Clock()
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    notify = Notify(clock, environ)
    clock.advance(10)
    assert end.silent(), "nothing before it is ready: the start has a time of its own"
    notify.ready("")
    assert end.told()["READY"] == "1"
    assert end.told() == {"WATCHDOG": "1"}
    clock.advance(1.4)
    assert end.silent()
    clock.advance(0.1)
    assert end.told() == {"WATCHDOG": "1"}
    notify.ready("again")
    assert end.told()["STATUS"] == "again"
    assert end.silent(), "one watchdog"
    notify.end()
    clock.advance(10)
    assert end.silent()
    assert environ == {}


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "²"},
        {"WATCHDOG_USEC": "9" * 400},
        {"WATCHDOG_USEC": "9" * 5000},
        {"WATCHDOG_USEC": "0"},
        {},
    ],
)
def test_no_watchdog_that_is_not_ours(
    manager: tuple[Manager, str], environ: dict[str, str]
) -> None:
    end, name = manager
    clock = Clock()
    Notify(clock, {"NOTIFY_SOCKET": name, **environ}).ready("")
    assert end.told()["READY"] == "1"
    clock.advance(100)
    assert end.silent()


@pytest.mark.parametrize("name", ["", "vsock:2:1234", "relative", "/nonexistent/notify", "@nobody"])
def test_nobody_to_tell(name: str) -> None:
    clock = Clock()
    notify = Notify(clock, {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"})
    notify.ready("")
    notify.reloading()
    notify.stopping("", 1)
    clock.advance(5)
    notify.end()


def test_a_whole_life(gateway: Start, tmp_path: Path) -> None:
    """As the unit runs it: start, good and refused reload, drain."""
    end = Manager(str(tmp_path / "notify"))
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
    running = gateway(PAGE, environment=environment)
    told = end.told()
    assert told["READY"] == "1"
    assert told["STATUS"] == f"https on {running.port}; 1 route"
    assert end.told() == {"WATCHDOG": "1"}

    write_config(running.folder, {"routes": {"*": {"/": {"page": True}, "/b": {"page": True}}}})
    assert running.command("reload").returncode == 0
    assert end.told()["RELOADING"] == "1"
    told = end.told()
    assert told["READY"] == "1"
    assert told["STATUS"] == f"https on {running.port}; 2 routes; reloaded: route added: * /b"

    write_config(running.folder, {"routes": {"*": {"/": "nowhere"}}, "keyz": "x"})
    assert running.command("reload").returncode == 1
    assert end.told()["RELOADING"] == "1"
    told = end.told()
    assert told["READY"] == "1"
    assert "; the last reload was refused: " in told["STATUS"]
    assert told["STATUS"].endswith(" and 1 more")

    running.child.signal(signal.SIGTERM)
    told = end.told()
    assert told["STOPPING"] == "1" and told["EXTEND_TIMEOUT_USEC"] == "15000000"
    assert told["STATUS"].startswith("draining 0 connections")
    running.child.wait()
    assert end.silent()
    end.close()


def test_a_reactor_that_is_stuck_gives_no_sign(gateway: Start, tmp_path: Path) -> None:
    end = Manager(str(tmp_path / "notify"))
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    running = gateway(PAGE, environment=environment)
    assert "READY" in end.told()
    for _ in range(3):
        assert end.told() == {"WATCHDOG": "1"}
    running.child.signal(signal.SIGSTOP)
    stat = Path(f"/proc/{running.child.process.pid}/stat")
    wait_for(lambda: ") T " in stat.read_text())
    while not end.silent():
        pass
    end._socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        end.told()
    running.child.signal(signal.SIGCONT)
    assert end.told() == {"WATCHDOG": "1"}
    end.close()
