"""`edgeproxy upstreams`: what it shows, and taking a target of a running gateway out and in."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_support import call, write
from running_support import BIN, Child, Nginx, RunningGateway, edgeproxy, wait_for, write_config

Start = Callable[..., RunningGateway]

pytestmark = pytest.mark.debian("nginx")

SERVER = "location / { return 200 $server_port; } location /large { }"


@pytest.fixture
def origins(nginx: Callable[..., Nginx]) -> list[Nginx]:
    return [nginx(SERVER) for _ in range(2)]


@pytest.fixture
def running(gateway: Start, origins: list[Nginx]) -> RunningGateway:
    return gateway(config(origins))


def config(origins: list[Nginx], **more: Any) -> dict[str, Any]:
    first, second = origins
    targets = [{"url": first.url, "weight": 3}, second.url]
    return {
        "upstreams": {"web": {"targets": targets, "health": "/", **more}},
        "routes": {"*": {"/": "web"}},
    }


def address(origin: Nginx) -> str:
    return f"127.0.0.1:{origin.port}"


def answering(running: RunningGateway) -> set[str]:
    """The ports that answer eight requests."""
    return {running.ask().body.decode() for _ in range(8)}


def test_without_a_running_process_it_says_so(tmp_path: Path) -> None:
    config = write(tmp_path, routes={"*": {"/": {"page": True}}})
    for command in (
        ["upstreams"],
        ["upstreams", "drain", "a", "b"],
        ["upstreams", "resume", "a", "b"],
    ):
        result = call(*command, "--config", config)
        assert result.exit_code == 1
        assert result.stderr.startswith("edgeproxy: no gateway is running")


def test_the_table(running: RunningGateway, origins: list[Nginx]) -> None:
    wait_for(lambda: all(e["probe"] for e in running.control("upstreams")["upstreams"]["web"]))
    lines = running.command("upstreams").stdout.splitlines()
    columns = ["UPSTREAM", "TARGET", "STATE", "WEIGHT", "UNDER WAY", "CONNECTIONS", "LAST PROBE"]
    assert [each.strip() for each in lines[0].split("  ") if each.strip()] == columns
    for line, origin, weight in zip(lines[1:], origins, "31", strict=True):
        cells = [each.strip() for each in line.split("  ") if each.strip()]
        assert cells[:6] == ["web", origin.url, "healthy", weight, "0", "0, 0 idle"]
        assert cells[6].startswith("status 200, ")
    assert "\n".join(line.rpartition("  ")[0] for line in lines) in "\n".join(
        line.rpartition("  ")[0] for line in running.command("status").stdout.splitlines()
    )


def test_json(running: RunningGateway, origins: list[Nginx]) -> None:
    wait_for(lambda: all(e["probe"] for e in running.control("upstreams")["upstreams"]["web"]))
    running.ask()
    first, second = json.loads(running.command("upstreams", "--json").stdout)["web"]
    assert (first["target"], first["address"]) == (origins[0].url, address(origins[0]))
    assert (first["state"], first["why"], first["weight"]) == ("healthy", "", 3)
    assert (first["connections"], first["idle"], first["under_way"]) == (1, 1, 0)
    assert first["probe"] == "status 200"
    assert 0 <= first["probe_ago"] < 30
    assert first["counters"]["probes"] >= 1
    assert first["counters"]["ejections"] == 0
    assert json.loads(running.command("status", "--json").stdout)["upstreams"]["web"][1] | {
        "probe_ago": 0,
        "counters": 0,
        "passed": 0,
    } == second | {"probe_ago": 0, "counters": 0, "passed": 0}


def test_a_target_is_drained_and_resumed(running: RunningGateway, origins: list[Nginx]) -> None:
    first, second = origins
    assert answering(running) == {str(first.port), str(second.port)}
    done = running.command("upstreams", "drain", "web", address(first))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{first.url} is draining\n", "")
    assert answering(running) == {str(second.port)}
    assert f"{first.url}  draining" in running.command("upstreams").stdout
    write_config(running.folder, config(origins, connections=9))
    assert running.command("reload").returncode == 0
    assert answering(running) == {str(second.port)}, "a reload that keeps it lets it drain"
    done = running.command("upstreams", "resume", "web", first.url)
    assert (done.returncode, done.stdout) == (0, f"{first.url} is healthy\n")
    assert answering(running) == {str(first.port), str(second.port)}
    said = running.child.said()
    assert f"web: {address(first)}: draining: no new requests" in said
    assert f"web: {address(first)}: no longer draining" in said


def test_drain_waits_for_what_is_under_way(
    running: RunningGateway, origins: list[Nginx], child: Callable[..., Child]
) -> None:
    size = 64 << 20  # more than all buffers on the way hold
    for each in origins:
        (each.folder / "html" / "large").write_bytes(bytes(size))
    connection = running.connect()
    fields = {"X-API-Key": running.development.credential}
    connection.request("GET", "/large", headers=fields)
    answer = connection.getresponse()
    assert answer.status == 200
    busy = next(e for e in running.control("upstreams")["upstreams"]["web"] if e["under_way"])
    drain = ["upstreams", "drain", "web", busy["address"]]
    told = running.command(*drain, "--no-wait")
    assert told.stdout == f"{busy['target']} is draining: 1 request under way\n"
    late = running.command(*drain, "--wait", "0.05")
    assert late.returncode == 1
    assert late.stderr == "edgeproxy: 1 request still under way after 0.05 s\n"
    write_config(running.folder, config(origins, connections=9))
    assert running.command("reload").returncode == 0
    after = running.command(*drain, "--wait", "0.05")
    assert after.returncode == 1, "a reload that makes it anew does not forget what is under way"
    waiting = child([BIN / "edgeproxy", *drain, "--config", running.config])
    assert len(answer.read()) == size
    assert waiting.wait() == 0
    assert waiting.said() == f"{busy['target']} is draining\n"


def test_a_target_that_a_reload_takes_away_is_not_called_idle(
    running: RunningGateway, origins: list[Nginx], child: Callable[..., Child]
) -> None:
    for each in origins:
        (each.folder / "html" / "large").write_bytes(bytes(64 << 20))
    connection = running.connect()
    connection.request("GET", "/large", headers={"X-API-Key": running.development.credential})
    answer = connection.getresponse()
    busy = next(e for e in running.control("upstreams")["upstreams"]["web"] if e["under_way"])
    drain = [BIN / "edgeproxy", "upstreams", "drain", "web", busy["address"]]
    waiting = child([*drain, "--config", running.config])
    running.child.wait_until_said("draining: no new requests")
    left = next(each for each in origins if each.url != busy["target"])
    write_config(running.folder, {"upstreams": {"web": left.url}, "routes": {"*": {"/": "web"}}})
    assert running.command("reload").returncode == 0
    assert waiting.wait() == 1
    assert f"{busy['address']}: no longer a target of 'web'" in waiting.said()
    assert len(answer.read()) == 64 << 20


def test_a_reload_that_leaves_only_draining_targets_says_so(
    running: RunningGateway, origins: list[Nginx]
) -> None:
    first = origins[0]
    assert running.command("upstreams", "drain", "web", first.url).returncode == 0
    alone = {"upstreams": {"web": [first.url]}, "routes": {"*": {"/": "web"}}}
    write_config(running.folder, alone)
    told = running.command("reload")
    assert told.returncode == 0, told.stderr
    line = (
        "upstream web has only targets that are draining: all its requests are answered 503 until "
        f"`edgeproxy upstreams resume web {first.url}`"
    )
    assert line in told.stdout
    assert running.child.said().count(line) == 1
    assert running.ask("/").status == 503
    assert running.command("upstreams", "resume", "web", first.url).returncode == 0
    assert line not in running.command("reload").stdout
    assert running.ask("/").status == 200


def test_the_last_one_is_drained_by_force_only(
    running: RunningGateway, origins: list[Nginx]
) -> None:
    first, second = origins
    drain = ["upstreams", "drain", "web"]
    assert running.command(*drain, first.url, "--json").returncode == 0
    refused = running.command(*drain, second.url)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"edgeproxy: {second.url} is the last target of 'web': without it all its requests are "
        "answered 503; --force drains it all the same\n"
    )
    assert running.ask().status == 200
    assert running.command(*drain, second.url, "--force").returncode == 0
    assert running.ask().status == 503


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("wep", "x"), "there is no upstream 'wep'; did you mean 'web'?"),
        (("web", "127.0.0.1:1"), "'web' has no target '127.0.0.1:1'; did you mean '127.0.0.1:"),
    ],
)
def test_unknown_names(running: RunningGateway, words: tuple[str, str], said: str) -> None:
    for command in ("drain", "resume"):
        result = running.command("upstreams", command, *words)
        assert result.returncode == 1
        assert result.stderr.startswith(f"edgeproxy: {said}")


def test_options_may_stand_before_the_command(
    running: RunningGateway, origins: list[Nginx]
) -> None:
    done = edgeproxy("upstreams", "--config", running.config, "drain", "web", origins[0].url)
    assert done.returncode == 0
    done = edgeproxy(
        "upstreams", "--json", "--config", running.config, "resume", "web", origins[0].url
    )
    assert json.loads(done.stdout)["ok"] is True


def test_a_closed_standard_output_is_no_failure(running: RunningGateway) -> None:
    command = '"$@" >&-'
    line = ["sh", "-c", command, "sh", BIN / "edgeproxy", "upstreams", "--config", running.config]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_shell_completes_names_and_targets(
    running: RunningGateway, origins: list[Nginx]
) -> None:
    def completed(*words: str) -> str:
        environment = {
            **os.environ,
            "_EDGEPROXY_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["edgeproxy", "upstreams", "drain", *words]),
            "COMP_CWORD": str(len(words) + 2),
        }
        return edgeproxy(env=environment, cwd=running.folder).stdout.lstrip("\n")

    assert completed("w") == "plain,web\n"
    assert f"plain,{address(origins[0])}\n" in completed("web", "127")
    assert completed("nothing", "127") == ""


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"upstream": "web"},
        {"upstream": "web", "target": 7},
        {"upstream": "web", "target": "x", "force": "yes"},
        {"upstream": "web", "target": "x", "more": True},
        {"upstream": ["web"], "target": {}},
    ],
)
def test_the_socket_takes_no_other_arguments(
    running: RunningGateway, arguments: dict[str, Any]
) -> None:
    found = running.control("drain_target", **arguments)
    assert found["ok"] is False
    assert found["error"] == (
        'the command takes "upstream": "…", "target": "…", "force": true or false'
    )
    assert running.control("status", more=1)["error"] == "the command takes nothing"
    assert "Traceback" not in running.child.said()


def test_a_time_to_wait_is_a_number() -> None:
    told = edgeproxy("upstreams", "drain", "web", "127.0.0.1:1", "--wait", "nan")
    assert told.returncode == 2
    assert "'nan' is not a number of seconds" in told.stderr
