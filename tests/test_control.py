"""The control socket and the signals of a running gateway, from outside."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from certs_support import DAY, issue
from real_support import served
from running_support import DEADLINE, RunningGateway, free_port, run, wait_for, write_config

from edgeproxy.control import LONGEST, connected

Start = Callable[..., RunningGateway]
PAGE = {"routes": {"*": {"/": {"page": True}}}}


@contextmanager
def talking(gateway: RunningGateway) -> Iterator[Callable[[bytes], dict[str, Any]]]:
    """Send a line, get the answer's object."""
    with connected(gateway.folder / "edgeproxy.sock", 20) as sock, sock.makefile("rb") as answers:

        def say(line: bytes) -> dict[str, Any]:
            sock.sendall(line)
            found: dict[str, Any] = json.loads(answers.readline())
            return found

        yield say


def ask(gateway: RunningGateway, command: str) -> dict[str, Any]:
    with talking(gateway) as say:
        return say(json.dumps({"command": command}).encode() + b"\n")


def test_status_tells_what_is_in_force(gateway: Start) -> None:
    running = gateway(
        {"routes": {"*": {"/": {"page": True}, "/open": {"page": True, "auth": "none"}}}}
    )
    assert running.ask().status == 200
    found = ask(running, "status")
    assert found["ok"] and found["state"] == "running"
    assert found["pid"] == running.child.process.pid
    assert found["config"] == str(running.config)
    assert found["listeners"][0]["port"] == running.port
    assert found["routes"] == 2
    assert found["open_routes"] == ["* /open"]
    assert found["keys"] == {
        "count": 1,
        "trouble": "",
        "last_used": str(running.folder / "state" / "keys.used"),
    }
    assert found["guessing"] == {"addresses": 0, "failures": 0, "refused": 0, "uncounted": 0}
    assert found["certificates"]["names"] == 3
    assert found["counters"]["requests"] == 1


def test_counters(gateway: Start) -> None:
    running = gateway(PAGE)
    running.ask()
    running.ask(key=None)
    counters = ask(running, "counters")["counters"]
    assert counters["requests"] == 2
    assert counters["statuses"] == {"200": 1, "401": 1}


def test_a_broken_certificate_is_in_the_status_and_raises_a_counter(gateway: Start) -> None:
    running = gateway(PAGE)
    assert ask(running, "counters")["counters"]["certificates"] == {"changes": 1, "problems": 0}
    for name in ("chain.pem", "key.pem"):
        (running.folder / "certs" / "half").mkdir(exist_ok=True)
        (running.folder / "certs" / "half" / name).write_text("-----BEGIN CERTIFICATE-----\nMII")
    running.child.wait_until_said("half/key.pem: a CERTIFICATE block has no end")
    found = ask(running, "status")
    assert found["counters"]["certificates"] == {"changes": 2, "problems": 2}
    assert [each.split(":")[0] for each in found["certificates"]["problems"]] == [
        "half/chain.pem",
        "half/key.pem",
    ]
    assert found["certificates"]["warnings"] == []
    key = next(path for path in (running.folder / "certs").iterdir() if "key" in path.name)
    key.chmod(0o644)
    running.child.wait_until_said(f"{key.name}: holds a private key and has mode 0644")
    assert len(ask(running, "status")["certificates"]["warnings"]) == 1
    said = running.command("status")
    assert "half/key.pem: a CERTIFICATE block has no end" in said.stderr
    assert "has mode 0644" in said.stderr
    assert "certificates  for 3 names" in said.stdout and ", 1 change\n" in said.stdout
    assert running.ask().status == 200


def test_the_socket_is_for_this_user_alone_and_goes_with_the_process(gateway: Start) -> None:
    running = gateway(PAGE)
    path = running.folder / "edgeproxy.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    running.stop()
    assert not path.exists()


def test_the_mode_is_right_from_the_first_moment(tmp_path: Path) -> None:
    """No chmod after bind: with any umask, what `bind` makes is already 0600."""
    from edgeproxy.control import _listening

    before = os.umask(0)
    try:
        seen = []
        real = socket.socket.listen

        class Watched(socket.socket):
            def listen(self, *arguments: int) -> None:
                seen.append(stat.S_IMODE((tmp_path / "s").stat().st_mode))
                real(self, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edgeproxy.control.socket.socket", Watched)
            _listening(tmp_path / "s").close()
        assert seen == [0o600]
        assert os.umask(0) == 0
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00\n",
        b"status\n",
        b"[]\n",
        b'{"command": ["status"]}\n',
        b'{"command": "stop"}\n',
        b"GET / HTTP/1.1\r\n",
        b"[" * 4000 + b"\n",
    ],
)
def test_garbage_is_answered_and_harms_nothing(gateway: Start, line: bytes) -> None:
    running = gateway(PAGE)
    with talking(running) as say:
        found = say(line)
        assert found["ok"] is False and "command" in found["error"]
        assert say(b'{"command": "status"}\n')["ok"]
    assert "Traceback" not in running.child.said()


def test_who_has_closed_its_own_side_still_gets_all_answers(gateway: Start) -> None:
    running = gateway(PAGE)
    with connected(running.folder / "edgeproxy.sock", DEADLINE) as sock:
        sock.sendall(b'{"command": "counters"}\n{"command": "reload"}\n')
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as answers:
            found = [json.loads(line)["command"] for line in answers]
    assert found == ["counters", "reload"]
    with connected(running.folder / "edgeproxy.sock", DEADLINE) as sock:
        sock.sendall(b'{"command": "drain"}\n')
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as answers:
            assert ["drained" in json.loads(line) for line in answers] == [False, True]


def test_a_line_without_end_is_refused(gateway: Start) -> None:
    running = gateway(PAGE)
    with talking(running) as say:
        assert f"at most {LONGEST}" in say(b"x" * (LONGEST + 1))["error"]
    assert ask(running, "status")["ok"]


def test_a_client_that_never_reads_does_not_fill_the_memory(gateway: Start) -> None:
    running = gateway(PAGE)
    line = b'{"command": "status"}\n' * 100
    sent = 0
    with connected(running.folder / "edgeproxy.sock", 20) as sock:
        sock.setblocking(False)
        # Once the gateway has stopped reading, nothing can be written for a second.
        while sent < 8 << 20 and select.select([], [sock], [], 1.0)[1]:
            sent += sock.send(line)
        assert ask(running, "status")["ok"]
    assert sent < 4 << 20
    with (Path("/proc") / str(running.child.process.pid) / "status").open() as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    assert peak < 400_000  # KiB


# -- who may have the path -----------------------------------------------------------------------


def test_a_stale_socket_file_is_replaced(gateway: Start) -> None:
    running = gateway(PAGE)
    running.child.process.kill()
    running.child.wait()
    assert (running.folder / "edgeproxy.sock").is_socket()
    assert ask(gateway(PAGE), "status")["ok"]


def test_a_live_one_is_refused_in_one_line(gateway: Start) -> None:
    first = gateway(PAGE)
    second = run("twistd", "-n", "--pidfile=", "edgeproxy", "--config", first.config, env=_path())
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1
    assert "another gateway answers there" in second.stderr
    assert ask(first, "status")["pid"] == first.child.process.pid


def test_another_file_is_never_removed(gateway: Start, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    precious = tmp_path / "gateway" / "precious"
    precious.write_text("data")
    with pytest.raises(AssertionError, match="something else is there"):
        gateway({**PAGE, "control": "precious"})
    assert precious.read_text() == "data"


def test_a_path_longer_than_an_address_may_be_works(gateway: Start, tmp_path: Path) -> None:
    name = "a-folder-with-a-rather-long-name-" * 4
    running = gateway(PAGE, name=name)
    assert len(str(running.folder)) > 108
    assert ask(running, "status")["ok"]


def _path() -> dict[str, str]:
    from running_support import BIN

    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


# -- reload --------------------------------------------------------------------------------------


def test_reload_swaps_the_routes_and_says_what_changed(gateway: Start) -> None:
    running = gateway(PAGE)
    assert running.ask("/new").json()["message"]
    write_config(running.folder, {"routes": {"*": {"exact:/new": {"page": True, "auth": "none"}}}})
    found = ask(running, "reload")
    assert found == {
        "ok": True,
        "command": "reload",
        "changes": ["route added: * exact:/new", "route removed: * /"],
    }
    assert running.ask("/new", key=None).status == 200
    assert running.ask("/").status == 404
    assert ask(running, "status")["reloads"] == 1
    assert "open to everyone: * exact:/new" in running.child.said()


BROKEN: list[tuple[str, Any, str]] = [
    ("not YAML", "routes: [", "edgeproxy.yaml:"),
    ("unknown key", {**PAGE, "rotues": {}}, "rotues"),
    ("no folder", {**PAGE, "certs": "nowhere"}, "there is no such folder"),
    ("empty folder", {**PAGE, "certs": "empty"}, "no usable certificate"),
    ("broken keys", {**PAGE, "keys": "half.jsonl"}, "half.jsonl:1: not a JSON object"),
    (
        "keys broken after certs were right",
        {**PAGE, "certs": "other", "keys": "half.jsonl"},
        "half.jsonl:1",
    ),
]


@pytest.mark.parametrize(("config", "why"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_failed_reload_leaves_everything_as_it_was(
    gateway: Start, config: Any, why: str, nginx: Any, development: Any
) -> None:
    import shutil

    from edgeproxy import quickstart

    origin = nginx("location / { return 200 one; }")
    good = {
        "limits": {"few": {"rate": "1000/min", "table": 5000}},
        "upstreams": {"one": origin.url},
        "routes": {"*": {"/": {"to": "one", "limit": "few"}}},
    }
    running = gateway(good)
    (running.folder / "empty").mkdir()
    quickstart.certificate(running.folder / "other")
    (running.folder / "half.jsonl").write_bytes(development.key_line[:40])
    assert running.ask().body == b"one"
    before = ask(running, "status")
    if isinstance(config, dict):
        config = {
            **config,
            "limits": {"few": {"rate": "1/min", "table": 1}},
            "upstreams": {"other": f"http://127.0.0.1:{free_port()}"},
        }
    write_config(running.folder, config)
    found = ask(running, "reload")
    assert found["ok"] is False and why in found["error"]
    assert "Traceback" not in running.child.said()
    after = ask(running, "status")
    for same in ("routes", "upstreams", "certificates", "keys", "reloads", "listeners"):
        if same != "listeners":
            assert after[same] == before[same], same
    assert after["last_reload"] == {"ok": False, "lines": found["error"].splitlines()}
    for _ in range(3):
        assert running.ask().body == b"one"
    # And the certificates and keys that it goes on watching are the old ones alone.
    seen = running.child.said().count("certificates: ")
    shutil.rmtree(running.folder / "other")
    (running.folder / "keys.jsonl").write_bytes(b"")
    wait_for(lambda: running.ask().status == 401, what="the old key file is still watched")
    assert running.child.said().count("certificates: ") == seen


def test_a_reload_after_a_failed_one_works(gateway: Start) -> None:
    running = gateway(PAGE)
    write_config(running.folder, "routes: [")
    assert not ask(running, "reload")["ok"]
    write_config(running.folder, {"routes": {"*": {"/a": {"page": True}}}})
    assert ask(running, "reload")["ok"]
    assert running.ask("/").status == 404


def test_reloads_that_come_together_are_all_answered(gateway: Start) -> None:
    running = gateway(PAGE)
    write_config(running.folder, {"routes": {"*": {"/a": {"page": True}}}})
    with connected(running.folder / "edgeproxy.sock", 20) as sock, sock.makefile("rb") as answers:
        sock.sendall(b'{"command": "reload"}\n' * 4)
        found = [json.loads(answers.readline()) for _ in range(4)]
    assert [each["ok"] for each in found] == [True] * 4
    assert [bool(each["changes"]) for each in found] == [True, False, False, False]
    assert ask(running, "status")["reloads"] == 4


def test_requests_go_on_while_a_large_configuration_is_read(gateway: Start) -> None:
    """Reading 3,000 routes takes a good second; no request waits for anything like that."""
    from time import monotonic

    routes = {f"h{n}.example.com": {f"/{m}": {"page": True} for m in range(50)} for n in range(60)}
    running = gateway(PAGE)
    write_config(running.folder, {"routes": {**PAGE["routes"], **routes}})
    connection = running.connect()
    longest = 0.0
    with connected(running.folder / "edgeproxy.sock", 60) as sock:
        begun = monotonic()
        sock.sendall(b'{"command": "reload"}\n')
        sock.setblocking(False)
        answered = 0
        while not _readable(sock):
            before = monotonic()
            assert running.ask(connection=connection).status == 200
            longest = max(longest, monotonic() - before)
            answered += 1
        whole = monotonic() - begun
    assert answered > 10
    assert longest < whole / 2


def _readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def test_reload_takes_another_folder_and_another_key_file(gateway: Start, development: Any) -> None:
    from time import time

    from edgeproxy.identity import keyadmin
    from edgeproxy.identity.apikey import RANDOM_BYTES

    running = gateway(PAGE)
    made = keyadmin.add(
        running.folder / "new.jsonl", "b", now=time(), random_bytes=os.urandom(RANDOM_BYTES)
    )
    (running.folder / "certs").rename(running.folder / "moved")
    write_config(running.folder, {**PAGE, "keys": "new.jsonl", "certs": "moved"})
    found = ask(running, "reload")
    assert found["changes"] == ["certs changed", "keys changed"]
    assert running.ask().status == 401
    assert running.ask(key=made.credential).status == 200


def test_another_default_for_the_same_folder_forgets_nothing_of_it(gateway: Start) -> None:
    """What is kept for a broken file stays in use, and what was told is not told again."""
    now = datetime.now(UTC)
    aged = issue(["b.example"], start=now - 95 * DAY, end=now + 5 * DAY)
    running = gateway(PAGE)
    file = running.folder / "certs" / "b.pem"
    file.touch(0o600)
    file.write_bytes(aged.full + aged.key)
    running.child.wait_until_said("less than a tenth of its life is left")
    file.write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    running.child.wait_until_said("b.pem: the certificate for b.example .* stays in use")
    said = running.child.said()
    b, localhost = (served(running.port, name) for name in ("b.example", "localhost"))
    for default in ("localhost", "b.example"):
        write_config(running.folder, {**PAGE, "certs": {"folder": "certs", "default": default}})
        assert ask(running, "reload")["changes"] == ["certs changed"]
        assert served(running.port, "b.example") == b != localhost
        assert served(running.port, "c.example") == (b if default == "b.example" else localhost)
    assert "certificates: " not in running.child.said().removeprefix(said)
    assert ask(running, "counters")["counters"]["certificates"] == {"changes": 3, "problems": 1}


def test_a_request_under_way_keeps_what_it_began_with(gateway: Start, nginx: Any) -> None:
    """A reload that takes its target away does not touch an answer that is being sent."""
    origin = nginx("location / { limit_rate 256k; }")
    (origin.folder / "html" / "slow").write_bytes(b"x" * (512 << 10))
    running = gateway({"upstreams": {"o": origin.url}, "routes": {"*": {"/": "o"}}})
    connection = running.connect()
    connection.request("GET", "/slow", headers={"X-API-Key": running.development.credential})
    answer = connection.getresponse()
    first = answer.read(1000)
    write_config(running.folder, PAGE)
    assert ask(running, "reload")["ok"]
    assert running.ask("/slow").json()["message"]
    assert len(first + answer.read()) == 512 << 10


def test_what_needs_a_start_says_so(gateway: Start) -> None:
    running = gateway(PAGE)
    write_config(running.folder, {**PAGE, "access_log": "off", "timeouts": {"drain": "5s"}})
    found = ask(running, "reload")
    assert found["changes"] == ["access_log changed: takes effect at the next start"]


# -- drain ---------------------------------------------------------------------------------------


def test_drain_lets_a_request_end_and_then_the_process(gateway: Start, nginx: Any) -> None:
    origin = nginx("location / { limit_rate 256k; }")
    (origin.folder / "html" / "slow").write_bytes(b"x" * (512 << 10))
    running = gateway({"upstreams": {"o": origin.url}, "routes": {"*": {"/": "o"}}})
    connection = running.connect()
    connection.request("GET", "/slow", headers={"X-API-Key": running.development.credential})
    answer = connection.getresponse()
    with connected(running.folder / "edgeproxy.sock", 20) as sock, sock.makefile("rb") as answers:
        sock.sendall(b'{"command": "drain"}\n')
        found = json.loads(answers.readline())
        assert found["ok"] and found["draining"] and found["connections"] == 1
        wait_for(lambda: _refused(running.port), what="no more connections")
        assert len(answer.read()) == 512 << 10
        assert json.loads(answers.readline()) == {"ok": True, "drained": True, "cut": 0}
        assert answers.readline() == b""
    assert running.child.wait() == 0


def _refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def _stuck(gateway: Start, nginx: Any, **timeouts: str) -> RunningGateway:
    """A gateway with one request that would take for ever."""
    origin = nginx("location / { limit_rate 4k; }")
    (origin.folder / "html" / "slow").write_bytes(b"x" * (64 << 20))
    config = {"upstreams": {"o": origin.url}, "routes": {"*": {"/": "o"}}, "timeouts": timeouts}
    running = gateway(config)
    connection = running.connect()
    connection.request("GET", "/slow", headers={"X-API-Key": running.development.credential})
    answer = connection.getresponse()
    assert answer.status == 200
    running.kept = (connection, answer)  # type: ignore[attr-defined]
    return running


def test_what_is_left_after_the_time_is_cut_and_counted(gateway: Start, nginx: Any) -> None:
    running = _stuck(gateway, nginx, drain="500ms")
    running.child.signal(signal.SIGTERM)
    assert running.child.wait() == -signal.SIGTERM
    assert "1 connections were cut" in running.child.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(gateway: Start, nginx: Any, number: int) -> None:
    running = _stuck(gateway, nginx, drain="1h")
    running.child.signal(number)
    wait_for(lambda: _refused(running.port), what="draining")
    assert running.child.running
    running.child.signal(number)
    assert running.child.wait(5) == -number
    assert "1 connections were cut" in running.child.said()
    assert "Traceback" not in running.child.said()


# -- other signals -------------------------------------------------------------------------------


def test_hup_reloads(gateway: Start) -> None:
    running = gateway(PAGE)
    write_config(running.folder, {"routes": {"*": {"/a": {"page": True}}}})
    running.child.signal(signal.SIGHUP)
    running.child.wait_until_said("reloaded: route added")
    assert running.ask("/").status == 404
    write_config(running.folder, "routes: [")
    running.child.signal(signal.SIGHUP)
    running.child.wait_until_said("not reloaded, the old configuration stays: ")
    assert running.ask("/a").status == 200


def test_usr1_begins_a_new_access_log_and_leaves_twistds_log_alone(gateway: Start) -> None:
    running = gateway(PAGE)
    running.ask("/one")
    log = running.folder / "access.log"
    wait_for(lambda: log.exists() and "/one" in log.read_text(), what="the line is written")
    log.rename(running.folder / "access.log.1")
    running.child.signal(signal.SIGUSR1)
    wait_for(log.exists, what="a new file")
    running.ask("/two")
    wait_for(lambda: "/two" in log.read_text())
    assert "/two" not in (running.folder / "access.log.1").read_text()


def test_usr1_still_rotates_twistds_own_log(gateway: Start, child: Any, tmp_path: Path) -> None:
    from running_support import BIN

    running = gateway(PAGE)
    running.stop()
    log = tmp_path / "twistd.log"
    other = child(
        [
            *(BIN / "twistd", "-n", "--pidfile=", "--logfile", log),
            *("edgeproxy", "--config", running.config),
        ]
    )
    wait_for(lambda: log.exists() and "listening on https" in log.read_text())
    wait_for((running.folder / "access.log").exists)
    (running.folder / "access.log").rename(running.folder / "access.log.1")
    wait_for((running.folder / "edgeproxy.sock").exists)
    other.signal(signal.SIGUSR1)
    wait_for((running.folder / "access.log").exists, what="our log begun anew")
    wait_for(lambda: len(list(tmp_path.glob("twistd.log*"))) == 2, what="twistd's log rotated")


def test_members_of_the_group_may_use_it_where_the_configuration_says_so(gateway: Start) -> None:
    running = gateway({**PAGE, "control": {"path": "s.sock", "group": True}})
    path = running.folder / "s.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert running.command("status").returncode == 0, "the command finds it in the long form"
    running.stop()
    assert not path.exists()
