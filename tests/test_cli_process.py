"""`edgeproxy status`, `reload`, `drain` against a gateway that runs, and against none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_support import call, write
from running_support import RunningGateway, write_config

Start = Callable[..., RunningGateway]
PAGE = {"routes": {"*": {"/": {"page": True}}}}


@pytest.mark.parametrize("command", ["status", "reload", "drain"])
def test_without_a_running_process_they_say_so(tmp_path: Path, command: str) -> None:
    config = write(tmp_path, **PAGE)
    result = call(command, "--config", config)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("edgeproxy: no gateway is running: nothing answers at ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["status", "reload", "drain"])
def test_a_socket_that_nobody_holds_is_no_gateway(tmp_path: Path, command: str) -> None:
    config = write(tmp_path, **PAGE)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "edgeproxy.sock"))
    left.close()
    assert "no gateway is running" in call(command, "--config", config).stderr


def test_what_answers_may_be_something_else(tmp_path: Path) -> None:
    config = write(tmp_path, **PAGE)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "edgeproxy.sock"))
        other.listen()

        def answer() -> None:
            peer, _ = other.accept()
            with peer:
                peer.recv(100)
                peer.sendall(b"220 mail\n")

        thread = threading.Thread(target=answer)
        thread.start()
        result = call("status", "--config", config)
        thread.join()
    assert result.exit_code == 1
    assert "what answers there is no gateway" in result.stderr


def test_status_for_people_and_programs(gateway: Start) -> None:
    running = gateway({"routes": {"*": {"/": {"page": True, "auth": "none"}}}})
    running.ask(key=None)
    people = running.command("status")
    assert people.returncode == 0
    assert f"process {running.child.process.pid}" in people.stdout
    assert "1 (200: 1)" in people.stdout
    assert "warning: open to everyone: * /" in people.stderr
    assert "\x1b" not in people.stdout
    found = json.loads(running.command("status", "--json").stdout)
    assert found["pid"] == running.child.process.pid


def test_status_tells_of_shadows_and_guesses(gateway: Start) -> None:
    running = gateway(
        {"routes": {"*": {"/": {"page": True}, "/try": {"page": True, "shadow": True}}}}
    )
    assert running.ask("/try", key=None).status == 200
    assert running.ask("/", key="edge_wrong").status == 401
    people = running.command("status")
    assert "1 wrong credential, 0 requests refused for it" in people.stdout
    (line,) = (line for line in people.stdout.splitlines() if line.startswith("in shadow"))
    assert line.split() == ["in", "shadow", "401:", "1"]
    assert "warning: open to everyone: * /try, in shadow mode" in people.stderr
    found = json.loads(running.command("status", "--json").stdout)
    assert found["counters"]["shadow"] == {"401": 1}
    assert found["guessing"] == {"addresses": 1, "failures": 1, "refused": 0, "uncounted": 0}


def test_reload_says_what_changed_or_why_not(gateway: Start) -> None:
    running = gateway(PAGE)
    same = running.command("reload")
    assert (same.returncode, same.stdout) == (0, "reloaded: nothing had changed\n")
    write_config(running.folder, {"routes": {"*": {"/a": {"page": True}}}})
    changed = running.command("reload")
    assert changed.stdout == "route added: * /a\nroute removed: * /\n"
    write_config(running.folder, "routes: [")
    refused = running.command("reload")
    assert refused.returncode == 1
    lines = refused.stderr.splitlines()
    assert lines[0] == "edgeproxy: not reloaded, everything stays as it was"
    assert lines[1].startswith(f"edgeproxy: {running.config}:2:1: ")
    assert json.loads(running.command("reload", "--json").stdout)["ok"] is False
    assert "the last reload was refused" in running.command("status").stderr


def test_drain_waits_until_the_process_has_ended(gateway: Start) -> None:
    running = gateway(PAGE)
    done = running.command("drain")
    assert (done.returncode, done.stdout) == (0, "drained\n")
    assert running.child.wait(2) == 0
    assert not (running.folder / "edgeproxy.sock").exists()


def test_drain_need_not_wait(gateway: Start, nginx: Any) -> None:
    origin = nginx("location / { limit_rate 4k; }")
    (origin.folder / "html" / "slow").write_bytes(b"x" * (64 << 20))
    running = gateway(
        {
            "upstreams": {"o": origin.url},
            "routes": {"*": {"/": "o"}},
            "timeouts": {"drain": "5s"},
        }
    )
    connection = running.connect()
    connection.request("GET", "/slow", headers={"X-API-Key": running.development.credential})
    assert connection.getresponse().status == 200
    told = running.command("drain", "--no-wait")
    assert told.stderr == "draining 1 connection, 5 s at most\n"
    assert running.child.running
    done = running.command("drain")
    assert done.stdout == "drained; 1 connection cut\n"
    assert running.child.wait() == 0


def test_the_socket_may_be_named(gateway: Start) -> None:
    running = gateway({**PAGE, "control": "other.sock"})
    assert running.command("status").returncode == 0
    result = call("status", "--socket", running.folder / "other.sock", "--json")
    assert json.loads(result.stdout)["ok"]
