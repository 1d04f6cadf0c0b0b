"""5,000 certificates: the start, one of them renewed, and what a handshake costs beside five.

What is measured of the running gateway is the longest stall of its reactor, see `real_probe`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certs_support import DAY, Issued, intermediate, issue, key
from real_support import CPU, Memory, served
from running_support import Child, Development, wait_for

COUNT = 5000
NOW = datetime.now(UTC)
BOUND = 20.0
"""Milliseconds."""
TRIES = 3
ROUNDS, HANDSHAKES = 9, 300


def _issued(number: int) -> Issued:
    return issue(
        [f"n{number}.example"],
        intermediate(),
        private=key("ECDSA", number),
        start=NOW,
        end=NOW + 60 * DAY,
        aia=True,
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key and a chain for each of 5,000 names, as certbot would lay them."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(COUNT):
        put(folder, number, _issued(number))
    return folder


def put(folder: Path, number: int, one: Issued) -> None:
    path = folder / f"n{number}.pem"
    path.with_suffix(".new").write_bytes(one.full + one.key)
    path.with_suffix(".new").chmod(0o600)
    path.with_suffix(".new").replace(path)


class Probed:
    """A gateway with 5,000 certificates and a heartbeat beside it."""

    def __init__(self, folder: Path, certs: Path, development: Development) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "keys.jsonl").write_bytes(development.key_line)
        config = {
            "listen": {"https": "127.0.0.1:0"},
            "certs": str(certs),
            "routes": {"*": {"/": {"page": True}}},
        }
        (folder / "edgeproxy.yaml").write_text(json.dumps(config))
        self.certs = certs
        errors = folder / "probe.err"
        began = time.monotonic()
        with errors.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("real_probe.py"), "edgeproxy.yaml"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self.child = Child(self.process, errors)
        self.port = int(self.child.wait_until_said(r"listening on https port (\d+)", 90)[1])
        self.started = time.monotonic() - began

    def stall(self) -> float:
        """The longest stall since the last question, in milliseconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


@pytest.fixture(scope="module")
def probed(
    tmp_path_factory: pytest.TempPathFactory, many: Path, development: Development
) -> Iterator[Probed]:
    made = Probed(tmp_path_factory.mktemp("probed"), many, development)
    yield made
    made.child.end()


def _fingerprint(one: Issued) -> str:
    from cryptography.hazmat.primitives import hashes

    return one.certificate.fingerprint(hashes.SHA256()).hex()


@pytest.mark.timeout(180)
def test_the_start(probed: Probed) -> None:
    rss = Memory(probed.process.pid).now
    print(f"{COUNT:,} certificates: start {probed.started:.1f} s, {rss // 1024} MiB")
    assert probed.started < 60, "4 to 8 s on a machine with two processors"
    for number in (0, COUNT - 1):
        assert served(probed.port, f"n{number}.example")


@pytest.mark.timeout(180)
def test_one_of_them_is_renewed(probed: Probed) -> None:
    stalls: list[float] = []
    while len(stalls) < TRIES and (not stalls or stalls[-1] > BOUND):
        one = _issued(COUNT + len(stalls))
        one = issue(["n7.example"], intermediate(), private=one.private, end=NOW + 9999 * DAY)
        probed.stall()
        began = time.monotonic()
        put(probed.certs, 7, one)
        wait_for(lambda: served(probed.port, "n7.example") == _fingerprint(one), 30)  # noqa: B023
        took = time.monotonic() - began
        # What comes after the change: letting go of the old.
        for _ in range(50):
            served(probed.port, "n8.example")
        stalls.append(probed.stall())
        print(f"one of {COUNT:,} renewed: in force after {took:.1f} s, stall {stalls[-1]:.1f} ms")
    assert min(stalls) < BOUND


@pytest.mark.timeout(180)
def test_what_a_handshake_costs(probed: Probed, tmp_path: Path, development: Development) -> None:
    """No assertion: the machine is busy with something else, too. Printed for who looks at it."""
    few = tmp_path / "five"
    few.mkdir()
    for number in range(5):
        put(few, number, _issued(number))
    beside = Probed(tmp_path / "beside", few, development)
    # (how many there are, how many of them are asked for)
    kinds = {(5, 5): beside, (COUNT, 5): probed, (COUNT, COUNT): probed}
    costs: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
    try:
        for turn in range(ROUNDS):
            # Whoever comes first after another finds the caches cold: each in its turn.
            for kind in [*kinds][turn % 3 :] + [*kinds][: turn % 3]:
                gateway = kinds[kind]
                used = CPU(gateway.process.pid)
                before = used.used()
                for number in range(HANDSHAKES):
                    name = (turn * HANDSHAKES + number * 7919) % kind[1]
                    served(gateway.port, f"n{name}.example")
                costs[kind].append((used.used() - before) / HANDSHAKES * 1e6)
    finally:
        beside.child.end()
    # Paired: what else the machine does slows all three of a round alike.
    five = costs[5, 5]
    for (count, asked), each in costs.items():
        more = statistics.median(a / b for a, b in zip(each, five, strict=True)) - 1
        cost = statistics.median(each)
        print(f"a handshake, {asked:,} of {count:,} names asked for: {cost:.0f} µs ({more:+.1%})")
