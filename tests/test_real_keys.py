"""API keys of a gateway in a process: a pepper, and what is known after it has ended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from running_support import BIN, RunningGateway, edgeproxy, run, wait_for, write_config

Start = Callable[..., RunningGateway]
PAGE = {"routes": {"*": {"/": {"page": True}}}}
PEPPER = {"file": "keys.jsonl", "pepper": "${file:pepper}"}


def listed(running: RunningGateway) -> dict[str, dict[str, Any]]:
    done = edgeproxy("keys", "list", "--json", cwd=running.folder)
    assert done.returncode == 0, done.stderr
    return {key["name"]: key for key in json.loads(done.stdout)}


def test_a_pepper_comes_in_and_a_wrong_one_does_not(gateway: Start) -> None:
    running = gateway(PAGE)
    assert running.ask().status == 200
    (running.folder / "pepper").write_text("0123456789abcdef" * 4)
    write_config(running.folder, {**PAGE, "keys": PEPPER})
    assert "keys changed" in running.command("reload").stdout
    assert running.ask().status == 200, "a key from before goes on"

    made = edgeproxy("keys", "add", "partner", cwd=running.folder)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    wait_for(lambda: running.ask(key=key).status == 200, what="the new key")
    assert listed(running)["partner"]["pepper"] != ""

    (running.folder / "pepper").write_text("fedcba9876543210" * 4)
    refused = running.command("reload")
    assert refused.returncode == 1
    assert "keys.jsonl:2: the digest is made with another pepper" in refused.stderr
    assert len(refused.stderr.splitlines()) == 2, "that, and why"
    assert running.ask(key=key).status == running.ask().status == 200
    for command in (
        ["check"],
        ["keys", "add", "x"],
        ["keys", "rotate", listed(running)["partner"]["id"]],
    ):
        done = edgeproxy(*command, cwd=running.folder)
        assert done.returncode == 1
        assert "made with another pepper" in done.stdout + done.stderr
    write_config(running.folder, PAGE)
    assert "and none is configured; name it" in running.command("reload").stderr
    running.stop()

    twistd = [BIN / "twistd", "-n", "--pidfile=", "edgeproxy"]
    done = run(*twistd, cwd=running.folder)
    assert done.returncode == 1
    assert "keys.jsonl:2: the digest is made with a pepper" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_the_last_use_is_known_after_the_end(gateway: Start) -> None:
    running = gateway({**PAGE, "state": "kept"})
    (before,) = listed(running).values()
    assert before["last_used"] is None
    began = int(time.time())
    assert running.ask().status == 200
    assert running.ask(key="edge_unknown").status == 401
    running.stop()
    assert (running.folder / "kept" / "keys.used").exists()
    (key,) = listed(running).values()
    told = time.strptime(key["last_used"], "%Y-%m-%dT%H:%M:%SZ")
    assert began <= time.mktime(told) - time.timezone <= time.time()
    table = edgeproxy("keys", "list", cwd=running.folder).stdout
    assert "LAST USED" in table
    assert os.listdir(running.folder / "kept") == ["keys.used"]
