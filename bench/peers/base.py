"""What the bench asks of a proxy: is it here, which version, how is it started."""

import itertools
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.certificate import Certificate
from bench.job import Job
from bench.process import BenchError, Process, free_port

STATE = Path(__file__).resolve().parents[2] / ".run" / "bench"
"""Where peers from the package index and the files of a run lie; git ignores it."""

_numbers = itertools.count()


class Setting(NamedTuple):
    """What all peers of a run share; paths are absolute."""

    folder: Path
    certificate: Certificate
    job: Job
    origin: int  # port on 127.0.0.1
    cpu: int


class Peer(ABC):
    """One proxy. `prepare` writes its files into `folder`, `command` starts it in foreground."""

    name: str
    program: str
    remedy = "make bench-peers"
    """What helps when it is not found."""
    policy: str
    """What of the job's policy it does, in a few words for the table's notes."""
    closed = True
    """Whether a request without a key is refused."""
    tells: tuple[str, ...] = ("id", "name", "group")
    """What of the caller the origin learns."""
    http2 = False
    """Whether it offers HTTP/2."""
    limits = True
    """Whether answers carry the state of the window."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.port = free_port()
        self.folder = setting.folder / f"peer{next(_numbers)}"
        self.process: Process | None = None

    @classmethod
    def found(cls) -> str | None:
        """The path of its program, from PATH or the bench's own environment; None if missing."""
        own = STATE / "venv" / "bin"
        return shutil.which(cls.program) or shutil.which(cls.program, path=str(own))

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Its version with that of its TLS library, as the table shows it."""

    @abstractmethod
    def prepare(self) -> None:
        """Write the configuration into `self.folder`, which exists."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command that runs it in the foreground."""

    def environment(self) -> Mapping[str, str]:
        """Variables beside the bench's own."""
        return {}

    def start(self) -> Process:
        """Start it, pinned, and wait until it accepts connections. Raises BenchError."""
        self.folder.mkdir()
        self.prepare()
        self.process = Process(
            self.command(),
            self.folder / "output.log",
            self.setting.cpu,
            self.folder,
            self.environment(),
        )
        try:
            self.process.wait_for(self.port)
        except BaseException:
            self.process.end()
            raise
        return self.process

    @property
    def pid(self) -> int:
        if self.process is None or not self.process.alive():
            output = "never started" if self.process is None else self.process.output()
            raise BenchError(f"{self.name} is not running:\n{output}")
        return self.process.pid


def output_of(*command: str) -> str:
    """What a command prints (both streams), at most 20 s; empty if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
