"""Child processes that are pinned, bounded and always ended by the pid that we started."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import cpu

START = 20.0  # seconds until a server must accept connections
_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A measurement that must not be believed, or a peer that does not do the job."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(done: Callable[[], bool], limit: float, what: str, step: float = 0.02) -> None:
    """Poll `done` every `step` seconds. Raises BenchError(what) after `limit` seconds."""
    end = time.monotonic() + limit
    while not done():
        if time.monotonic() > end:
            raise BenchError(f"{what} (waited {limit:g} s)")
        time.sleep(step)


def pinned(on: int | None) -> Callable[[], None]:
    """What runs in the child before exec: its CPU, and an end that comes with ours (even SIGKILL).

    No thread of ours may hold a lock at that time: children are started from the main thread.
    """

    def prepare() -> None:
        if on is not None:
            os.sched_setaffinity(0, {on})
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare


class Process:
    """A server in a process group of its own; output goes to `log`. Use as a context manager."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        on: int | None,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self.command = command
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=pinned(on),
            )
        self.pid = self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def alive(self) -> bool:
        return self._child.poll() is None

    def output(self) -> str:
        """The last lines that the process wrote, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])

    def wait_for(self, port: int) -> None:
        """Return once `port` accepts. Raises BenchError with the output if the process ended."""

        def accepts() -> bool:
            if not self.alive():
                raise BenchError(f"{self.command[0]} ended at once:\n{self.output()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return False
            return True

        wait_until(accepts, START, f"{self.command[0]} does not listen\n{self.output()}")

    def end(self) -> None:
        """SIGTERM to the group, SIGKILL after 3 s; reaped in any case."""
        group = cpu.tree(self.pid)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                break
            try:
                self._child.wait(3)
            except subprocess.TimeoutExpired:
                continue
            if not any(Path(f"/proc/{pid}").exists() for pid in group):
                break
        self._child.wait(3)
