"""Real programs for tests: a gateway started by twistd, nginx behind it, and waiting for things.

Nothing here sleeps for a fixed time: `wait_for` asks until a condition holds or a deadline passes.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from edgeproxy.control import connected

T = TypeVar("T")

DEADLINE = 20.0
"""Seconds until a test gives up waiting: far more than anything takes on a busy machine."""
ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def wait_for(condition: Callable[[], T | None], deadline: float = DEADLINE, what: str = "") -> T:
    """Ask until the answer is true, and return it; fail the test after `deadline` seconds."""
    end = time.monotonic() + deadline
    pause = 0.005
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"did not happen within {deadline} s: {what or condition}")
        time.sleep(pause)  # between two looks, never in place of one
        pause = min(pause * 1.5, 0.1)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Child:
    """A process that a test has started: its output in a file, ended by its number."""

    process: subprocess.Popen[bytes]
    output: Path

    @classmethod
    def start(cls, command: list[Any], output: Path, **options: Any) -> Child:
        with output.open("wb") as file:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                **options,
            )
        return cls(process, output)

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait_until_said(self, pattern: str, deadline: float = DEADLINE) -> re.Match[str]:
        """The match of a pattern in what the process has written, once it is there."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.said(), re.MULTILINE)
            if match is None and not self.running:
                match = re.search(pattern, self.said(), re.MULTILINE)
                assert match, f"ended with {self.process.returncode}:\n{self.said()}"
            return match

        try:
            return wait_for(found, deadline, f"output {pattern!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, deadline: float = DEADLINE) -> int:
        """The exit status, once the process has ended."""
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {deadline} s\n{self.said()}") from None

    def end(self) -> None:
        """End it, whatever state it is in."""
        if self.running:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Answer(NamedTuple):
    """An HTTP answer, read to its end."""

    status: int
    fields: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Development:
    """A certificate for localhost and one key, made once for all tests."""

    certs: Path
    chain: Path
    key_line: bytes
    credential: str
    key_id: str

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.chain))


@dataclass
class RunningGateway:
    """A gateway in a process of its own, started by twistd as its users start it."""

    folder: Path
    development: Development
    child: Child
    port: int
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "edgeproxy.yaml"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "localhost", self.port, timeout=DEADLINE, context=self.development.trust
        )

    def ask(
        self,
        path: str = "/",
        method: str = "GET",
        fields: Mapping[str, str] | None = None,
        *,
        key: str | None = "",
        body: bytes | None = None,
        connection: http.client.HTTPSConnection | None = None,
    ) -> Answer:
        """Send one request and read the answer. `key`: the session's by default, None for none."""
        sent = dict(fields or {})
        if key is not None:
            sent["X-API-Key"] = key or self.development.credential
        mine = connection or self.connect()
        try:
            mine.request(method, path, body=body, headers=sent)
            answer = mine.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            if connection is None:
                mine.close()

    def command(self, *arguments: Any) -> subprocess.CompletedProcess[str]:
        """Run `edgeproxy …` for this gateway's configuration."""
        first, *rest = arguments
        return edgeproxy(first, *rest, "--config", self.config)

    def control(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a command over the control socket."""
        asked = json.dumps({"command": command, **arguments}).encode() + b"\n"
        with connected(self.folder / "edgeproxy.sock", DEADLINE) as sock:
            sock.sendall(asked)
            with sock.makefile("rb") as lines:
                found: dict[str, Any] = json.loads(lines.readline())
                return found

    def log_lines(self) -> list[dict[str, Any]]:
        """The access log."""
        path = self.folder / "access.log"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def stop(self) -> int:
        self.child.signal(signal.SIGTERM)
        return self.child.wait()


def edgeproxy(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command `edgeproxy` to its end."""
    return run(BIN / "edgeproxy", *arguments, **options)


def run(*command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without standard input; standard output and error as text."""
    options = {"timeout": 60, "cwd": None, **options}
    return subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def start_gateway(
    folder: Path,
    development: Development,
    config: Mapping[str, Any] | str,
    *,
    options: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> RunningGateway:
    """Write a configuration, start twistd on it, and wait until it listens.

    A mapping is completed: a free port of this machine, the certificate and the key of the
    session, a log beside it. A text is taken as it is, after a key file and `certs` are laid there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "keys.jsonl").write_bytes(development.key_line)
    (folder / "keys.jsonl").chmod(0o600)
    if not (folder / "certs").exists():
        shutil.copytree(development.certs, folder / "certs")
    write_config(folder, config)
    command = [BIN / "twistd", "-n", "--pidfile=", *options]
    child = Child.start(
        [*command, "edgeproxy", "--config", folder / "edgeproxy.yaml"],
        folder / "twistd.out",
        env={**os.environ, **(environment or {})},
        cwd=folder,
    )
    try:
        port = int(child.wait_until_said(r"listening on https port (\d+)")[1])
    except BaseException:
        child.end()
        raise
    return RunningGateway(folder, development, child, port)


def write_config(folder: Path, config: Mapping[str, Any] | str) -> None:
    """Put a configuration into its place in one step, so that no reader sees half of it."""
    if not isinstance(config, str):
        basis = {"listen": {"https": "127.0.0.1:0"}, "timeouts": {"drain": "5s"}}
        config = json.dumps({**basis, **config}, indent=1)
    beside = folder / ".edgeproxy.yaml.new"
    beside.write_text(config)
    beside.replace(folder / "edgeproxy.yaml")


@dataclass
class Nginx:
    """nginx on a free port of this machine, with everything it writes in one folder."""

    folder: Path
    port: int
    child: Child

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> list[str]:
        return (self.folder / "access.log").read_text().splitlines()

    def stop(self) -> None:
        self.child.end()


_NGINX = """\
{user}
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 512; }}
http {{
  access_log access.log;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_max_body_size 0;
  {http}
  server {{
    listen 127.0.0.1:{port};
    root html;
    {server}
  }}
}}
"""


def start_nginx(folder: Path, server: str = "", http: str = "") -> Nginx:
    """Start nginx with these lines in its server (`location …`), files below `html`."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert program is not None, "nginx is not here: mark the test `debian('nginx')`"
    (folder / "html").mkdir(parents=True, exist_ok=True)
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    text = _NGINX.format(user=user, http=http, port=port, server=server)
    (folder / "nginx.conf").write_text(text)
    child = Child.start(
        [program, "-p", folder, "-e", "error.log", "-c", "nginx.conf", "-g", "daemon off;"],
        folder / "nginx.out",
    )
    nginx = Nginx(folder, port, child)
    try:
        wait_for(lambda: accepts(port) or not child.running, what="nginx")
        assert child.running, child.said()
    except BaseException:
        child.end()
        raise
    return nginx
