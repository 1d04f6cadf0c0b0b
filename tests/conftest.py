"""Fixtures for all tests: what they share is made once, what they start is ended.

`@pytest.mark.debian("nginx")` says that a test needs a program from a Debian package. Where it is
missing the test is skipped aloud; with CI=true in the environment it fails.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest
from running_support import (
    Child,
    Development,
    Nginx,
    RunningGateway,
    free_port,
    start_gateway,
    start_nginx,
    wait_for,
)

from edgeproxy import quickstart
from edgeproxy.identity import keyadmin
from edgeproxy.identity.apikey import RANDOM_BYTES

# Commands are tried as users have them, whose output Python holds back until it is flushed.
os.environ.pop("PYTHONUNBUFFERED", None)

#: The program of a package, where it has another name.
_PROGRAMS = {
    "redis-server": "redis-server",
    "nghttp2-client": "h2load",
    "systemd-container": "systemd-nspawn",
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("debian"):
        for package in marker.args:
            program = _PROGRAMS.get(package, package)
            path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
            if shutil.which(program, path=path) is None:
                why = f"needs {program}: apt-get install {package} (make test-packages)"
                if os.environ.get("CI", "").lower() in ("true", "1"):
                    pytest.fail(why, pytrace=False)
                pytest.skip(why)


@pytest.fixture(name="free_port")
def _free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    return free_port()


@pytest.fixture(name="wait_for")
def _wait_for() -> Callable[..., Any]:
    """`wait_for(condition, deadline)`: ask until the answer is true."""
    return wait_for


@pytest.fixture(scope="session")
def development(tmp_path_factory: pytest.TempPathFactory) -> Development:
    """A certificate for localhost and one key, made once. To be read only: copy before changing."""
    folder = tmp_path_factory.mktemp("development")
    chain = quickstart.certificate(folder / "certs")
    keys = folder / "keys.jsonl"
    made = keyadmin.add(keys, "tester", now=time(), random_bytes=os.urandom(RANDOM_BYTES))
    return Development(folder / "certs", chain, keys.read_bytes(), made.credential, made.id)


@pytest.fixture
def gateway(tmp_path: Path, development: Development) -> Iterator[Callable[..., RunningGateway]]:
    """`gateway(config, …)` starts twistd with a configuration; see `start_gateway`."""
    started: list[RunningGateway] = []

    def start(config: Any, name: str = "gateway", **options: Any) -> RunningGateway:
        running = start_gateway(tmp_path / name, development, config, **options)
        started.append(running)
        return running

    yield start
    for running in started:
        running.child.end()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """`child(command, …)` starts a process whose output goes to a file, and that is ended."""
    started: list[Child] = []

    def start(command: list[Any], **options: Any) -> Child:
        found = Child.start(command, tmp_path / f"child{len(started)}.out", **options)
        started.append(found)
        return found

    yield start
    for each in started:
        each.end()


@pytest.fixture
def browse(child: Callable[..., Child], tmp_path: Path) -> Callable[[str], Child]:
    """Open a page of localhost, or of a name below it, in a real browser. No driver: a page tells
    by itself what came of it."""

    def start(url: str) -> Child:
        return child(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--disable-sync",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--ignore-certificate-errors",
                "--host-resolver-rules=MAP localhost 127.0.0.1, MAP *.localhost 127.0.0.1",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--remote-debugging-port=0",  # else it ends once the page is loaded
                url,
            ]
        )

    return start


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    """`nginx(server_lines)` starts nginx; the test is marked `debian("nginx")`."""
    started: list[Nginx] = []

    def start(server: str = "", http: str = "") -> Nginx:
        running = start_nginx(tmp_path / f"nginx{len(started)}", server, http)
        started.append(running)
        return running

    yield start
    for running in started:
        running.stop()
