"""What the tests against real programs share: memory, curl, and streams of requests."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from running_support import Child, Nginx, RunningGateway, accepts, run, wait_for

Start = Callable[..., RunningGateway]

MiB = 1024 * 1024


class Memory:
    """The resident memory of a process, in KiB, as /proc tells it."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def _value(self, name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB", (self._folder / "status").read_text(), re.M)
        assert found is not None
        return int(found[1])

    @property
    def now(self) -> int:
        return self._value("VmRSS")

    @property
    def peak(self) -> int:
        return self._value("VmHWM")

    def forget_peak(self) -> None:
        """From now on `peak` is the highest since this call (proc(5), clear_refs)."""
        (self._folder / "clear_refs").write_text("5")


class CPU:
    """The processor time of a process, in seconds."""

    def __init__(self, pid: int) -> None:
        # As clock_getcpuclockid(3) makes it. In nanoseconds, while /proc counts ticks of 10 ms.
        self._clock = (~pid << 3) | 2

    def used(self) -> float:
        return time.clock_gettime(self._clock)


def served(port: int, name: str) -> str:
    """The SHA-256 of the certificate that a new connection gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return hashlib.sha256(connection.getpeercert(True) or b"").hexdigest()


class Curled(NamedTuple):
    """What `curl --write-out` told, and what it said on standard error."""

    code: int
    status: int
    size: int
    took: float
    said: str


_TOLD = "%{http_code} %{size_download} %{time_total}"


def curl(gateway: RunningGateway, path: str, *arguments: Any, key: bool = True) -> Curled:
    """Run curl to its end against a gateway, trusting its certificate and with its key."""
    found = run(*curl_command(gateway, path, *arguments, key=key), timeout=90)
    status, size, took = found.stdout.split()[-3:]
    return Curled(found.returncode, int(status), int(size), float(took), found.stderr)


def curl_command(
    gateway: RunningGateway, path: str, *arguments: Any, key: bool = True
) -> list[str]:
    trust = ["--cacert", str(gateway.development.chain), "--resolve"]
    return [
        *("curl", "-sS", "--http1.1", *trust, f"localhost:{gateway.port}:127.0.0.1"),
        *(("-H", f"X-API-Key: {gateway.development.credential}") if key else ()),
        *("--write-out", "\n" + _TOLD),
        *map(str, arguments),
        gateway.url + path,
    ]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def random_file(path: Path, size: int) -> str:
    """A file that nobody can have made up; its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        f"head -c {size} /dev/urandom > '{path}'", shell=True, check=True, stdin=subprocess.DEVNULL
    )
    return sha256(path)


class Ended(NamedTuple):
    """How one request of a stream ended: its status, or the exception; and when it began."""

    status: int
    error: str
    began: float
    took: float
    body: bytes


class Callers:
    """Clients that ask without pause, each in a thread of its own, until they are told to stop."""

    def __init__(
        self,
        gateway: RunningGateway,
        path: str,
        *,
        count: int = 4,
        fields: Mapping[str, str] | None = None,
        keep: bool = True,
    ) -> None:
        self.ended: list[Ended] = []
        self._gateway = gateway
        self._path = path
        self._fields = {"X-API-Key": gateway.development.credential, **(fields or {})}
        self._keep = keep
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    @property
    def errors(self) -> list[Ended]:
        return [each for each in self.ended if each.error]

    @property
    def statuses(self) -> Counter[int]:
        return Counter(each.status for each in self.ended)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a caller hangs"

    def _ask(self) -> None:
        connection = self._gateway.connect()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                connection.request("GET", self._path, headers=self._fields)
                answer = connection.getresponse()
                body = answer.read()
                status, error = answer.status, ""
            except (OSError, http.client.HTTPException) as failure:
                status, error, body = 0, repr(failure), b""
                connection.close()
                connection = self._gateway.connect()
            ended = Ended(status, error, began, time.monotonic() - began, body)
            self.ended.append(ended)
            if not self._keep:
                connection.close()
                connection = self._gateway.connect()
        connection.close()


@contextmanager
def calling(gateway: RunningGateway, path: str, **options: Any) -> Iterator[Callers]:
    """Callers for as long as the block lasts."""
    callers = Callers(gateway, path, **options)
    try:
        yield callers
    finally:
        callers.stop()


def kill_nginx(nginx: Nginx) -> None:
    """Kill nginx as a crash would: its worker too, which would go on serving without its master."""
    pid = nginx.child.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *map(int, children)):
        os.kill(each, signal.SIGKILL)
    nginx.child.process.wait()
    wait_for(lambda: not accepts(nginx.port), what="nginx is gone")


def restart_nginx(nginx: Nginx) -> None:
    """The same nginx again, on the same port."""
    (nginx.folder / "nginx.pid").unlink(missing_ok=True)
    nginx.child = Child.start(nginx.child.process.args, nginx.folder / "nginx.out")  # type: ignore[arg-type]
    wait_for(lambda: accepts(nginx.port), what="nginx is back")
