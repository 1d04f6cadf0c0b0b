"""100,000 keys and 5,000 routes: how long a start takes, and that no reload holds requests up.

What is measured is the longest stall of the reactor, see `real_probe`. A reload is tried again
where it was over the bound, since a busy machine can only add to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from real_support import Memory, calling
from running_support import Child, Development, RunningGateway, wait_for

from edgeproxy.certs.development import make

KEYS = 100_000
ROUTES = 5_000
CERTIFICATES = 100
BOUND = 20.0
"""Milliseconds."""
TRIES = 3


class Probed:
    """A gateway with a heartbeat beside it."""

    def __init__(self, folder: Path, development: Development) -> None:
        self.folder = folder
        shutil.copytree(development.certs, folder / "certs")
        numbered = (
            json.dumps(
                {"id": f"k{n}", "name": f"n{n}", "digest": hashlib.sha256(b"%d" % n).hexdigest()}
            )
            for n in range(KEYS)
        )
        self.keys = development.key_line + "\n".join(numbered).encode() + b"\n"
        self.put("keys.jsonl", self.keys)
        self.configure()
        self._err = folder / "probe.err"
        began = time.monotonic()
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("real_probe.py"), "edgeproxy.yaml"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        child = self.child = Child(self.process, self._err)
        port = int(child.wait_until_said(r"listening on https port (\d+)", 60)[1])
        self.started = time.monotonic() - began
        self.gateway = RunningGateway(folder, development, child, port)

    def put(self, name: str, data: bytes) -> None:
        """In one step, as careful tools write."""
        (self.folder / ".new").write_bytes(data)
        (self.folder / ".new").replace(self.folder / name)

    def configure(self, value: str = "0", keys: str = "keys.jsonl", certs: str = "certs") -> None:
        route = {"to": "web", "limit": "much", "response": {"set": {"X-Value": value}}}
        config: dict[str, Any] = {
            "listen": {"https": "127.0.0.1:0"},
            "keys": keys,
            "certs": certs,
            "limits": {"much": "1000/s"},
            "upstreams": {"web": "http://127.0.0.1:1"},
            "routes": {
                "*": {"/": {"page": True}, **{f"/service{n}/x": route for n in range(ROUTES)}}
            },
        }
        self.put("edgeproxy.yaml", json.dumps(config, indent=1).encode())

    def reload(self, **options: str) -> None:
        before = self.said(r"reloaded: ")
        self.configure(**options)
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.said("reloaded: ") > before, what="the reload")
        assert "not reloaded" not in self.child.said()

    def said(self, pattern: str) -> int:
        return len(re.findall(pattern, self.child.said()))

    def stall(self) -> float:
        """The longest stall since the last question, in milliseconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def least(self, change: Callable[[int], None]) -> float:
        """The longest stall that a change, made while requests go on, causes each time."""
        found: list[float] = []
        with calling(self.gateway, "/", count=1) as callers:
            wait_for(lambda: len(callers.ended) > 20)
            while len(found) < TRIES and (not found or found[-1] > BOUND):
                self.stall()
                change(len(found))
                ended = len(callers.ended)
                wait_for(lambda ended=ended: len(callers.ended) > ended + 100)  # type: ignore[misc]
                found.append(self.stall())
        assert callers.statuses.keys() == {200}
        return min(found)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, development: Development) -> Iterator[Probed]:
    made = Probed(tmp_path_factory.mktemp("probed"), development)
    yield made
    made.child.end()


def certificates(folder: Path, prefix: str) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(CERTIFICATES):
        each = make([f"{prefix}{number}.example"], datetime.now(UTC))
        (folder / f"{prefix}{number}.pem").write_bytes(each.chain_pem + each.key_pem)


def test_the_start(probed: Probed) -> None:
    rss = Memory(probed.process.pid).now
    print(f"start: {probed.started:.1f} s, {rss // 1024} MiB")
    assert probed.started < 20, "2 to 4 s on a machine with two processors"
    assert probed.gateway.ask("/").status == 200
    assert probed.gateway.ask("/service4999/x").status == 502


def test_a_stall_is_seen(probed: Probed) -> None:
    """The probe itself: nothing is seen where nothing happens."""
    assert probed.least(lambda _: None) < BOUND


def test_another_key_file_version(probed: Probed) -> None:
    def change(number: int) -> None:
        before = probed.said(r"keys\.jsonl: \d+ API keys")
        more = {"id": f"m{number}", "name": "m", "digest": hashlib.sha256(b"m").hexdigest()}
        probed.put("keys.jsonl", probed.keys + json.dumps(more).encode() + b"\n")
        wait_for(lambda: probed.said(r"keys\.jsonl: \d+ API keys") > before)

    stall = probed.least(change)
    print(f"key file changed: {stall:.1f} ms")
    assert stall < BOUND


def test_other_routes(probed: Probed) -> None:
    stall = probed.least(lambda number: probed.reload(value=str(number + 1)))
    print(f"routes changed: {stall:.1f} ms")
    assert stall < BOUND


def test_another_key_file(probed: Probed) -> None:
    for number in range(TRIES):
        shutil.copy(probed.folder / "keys.jsonl", probed.folder / f"keys{number}.jsonl")
    stall = probed.least(lambda number: probed.reload(keys=f"keys{number}.jsonl"))
    print(f"another key file: {stall:.1f} ms")
    assert stall < BOUND


def test_another_folder_of_certificates(probed: Probed) -> None:
    for number in range(TRIES):
        shutil.copytree(probed.folder / "certs", probed.folder / f"certs{number}")
        certificates(probed.folder / f"certs{number}", "other")
    stall = probed.least(lambda number: probed.reload(certs=f"certs{number}"))
    print(f"another folder: {stall:.1f} ms")
    assert stall < BOUND


def test_many_certificates_come_into_the_folder(probed: Probed) -> None:
    probed.reload()
    for number in range(TRIES):
        certificates(probed.folder / "aside", f"late{number}-")

    def change(number: int) -> None:
        for each in (probed.folder / "aside").glob(f"late{number}-*"):
            each.replace(probed.folder / "certs" / each.name)
        count = (number + 1) * CERTIFICATES + 3
        wait_for(lambda: probed.said(f"certificates: {count} names"))

    stall = probed.least(change)
    print(f"{CERTIFICATES} certificates more: {stall:.1f} ms")
    assert stall < BOUND
