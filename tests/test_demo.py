"""`make run`: what it promises, on a real machine with real programs."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running_support import ROOT, Child, run, wait_for

Demo = Callable[..., Child]


@pytest.fixture
def demo(tmp_path: Path, child: Callable[..., Child]) -> Demo:
    """Start the demonstration in a folder of its own; port 0 is any free one."""

    def start(port: int = 0) -> Child:
        command = [sys.executable, "-m", "edgeproxy.demo", "--port", port]
        return child(command, cwd=tmp_path)

    return start


def curl_line(started: Child) -> str:
    return started.wait_until_said(r"^curl .*$")[0]


def pasted(line: str, folder: Path) -> Any:
    """What a person sees who pastes the line into another terminal."""
    done = run("sh", "-c", line, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.debian("curl")
def test_the_curl_line_works_as_pasted_in_any_folder(
    demo: Demo, tmp_path_factory: pytest.TempPathFactory
) -> None:
    line = curl_line(demo())
    assert " -k" not in line and "--insecure" not in line
    told = pasted(line, tmp_path_factory.mktemp("elsewhere"))
    fields = dict(told["fields"])
    assert told["method"] == "GET"
    assert fields["X-Consumer-Name"] == "quickstart"
    assert "X-Api-Key" not in fields


@pytest.mark.debian("curl")
def test_the_certificate_is_kept_and_the_key_is_new(demo: Demo, tmp_path: Path) -> None:
    first = demo()
    first_line = curl_line(first)
    chain = (tmp_path / ".run/certs/localhost.pem").read_bytes()
    first.signal(signal.SIGINT)
    assert first.wait() == 0
    port = int(first_line.rpartition(":")[2].strip("/"))
    second_line = curl_line(demo(port))
    assert (tmp_path / ".run/certs/localhost.pem").read_bytes() == chain
    assert pasted(second_line, tmp_path)["method"] == "GET"
    assert "valid credential" in run("sh", "-c", first_line).stdout


def test_a_second_one_says_that_the_port_is_taken_and_leaves_the_first_alone(
    demo: Demo, tmp_path: Path
) -> None:
    line = curl_line(demo())
    port = int(line.rpartition(":")[2].strip("/"))
    before = {path: path.read_bytes() for path in tmp_path.glob(".run/**/*") if path.is_file()}
    second = demo(port)
    assert second.wait() == 1
    assert second.said() == (
        f"edgeproxy: port {port} is taken; choose another: make run PORT=9443\n"
    )
    assert {p: p.read_bytes() for p in tmp_path.glob(".run/**/*") if p.is_file()} == before
    assert pasted(line, tmp_path)["method"] == "GET"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(demo: Demo, number: int) -> None:
    started = demo()
    curl_line(started)
    started.signal(number)
    assert started.wait() == 0
    assert "Traceback" not in started.said()


@pytest.mark.debian("curl")
def test_certificates_put_into_the_folder_are_served(demo: Demo, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from edgeproxy.certs.development import make

    started = demo()
    line = curl_line(started)
    port = int(line.rpartition(":")[2].strip("/"))
    made = make(["shop.example"], datetime.now(UTC))
    (tmp_path / "certs" / "shop.pem").write_bytes(made.chain_pem + made.key_pem)
    (tmp_path / "shop-ca.pem").write_bytes(made.ca_pem)
    ask = [
        *("curl", "-s", "--cacert", tmp_path / "shop-ca.pem"),
        *("--connect-to", f"shop.example:{port}:127.0.0.1:{port}"),
        f"https://shop.example:{port}/",
    ]
    wait_for(lambda: run(*ask).returncode == 0, what="the certificate is served")


@pytest.mark.debian("curl")
def test_the_line_works_when_a_certificate_for_localhost_was_put_there(
    demo: Demo, tmp_path: Path
) -> None:
    from datetime import UTC, datetime

    from edgeproxy.certs.development import make

    made = make(["localhost"], datetime.now(UTC), days=400)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "mine.pem").write_bytes(made.chain_pem + made.key_pem)
    line = curl_line(demo())
    assert "trusted.pem" in line
    assert pasted(line, tmp_path)["method"] == "GET"


def test_a_wrong_port_is_one_line() -> None:
    done = run(sys.executable, "-m", "edgeproxy.demo", "--port", "eighty", cwd=ROOT)
    assert done.returncode == 1
    assert "'eighty' is no port" in done.stderr
    assert len(done.stderr.splitlines()) == 1
