"""Certificates renewed again and again while requests and new connections never stop.

Four layouts in one folder, each with a name of its own: files renamed over, files rewritten in
place, certbot's links, Kubernetes' swap. All four are renewed in one moment, fifty times; broken,
half-written, mismatched and expired files come and go in between. wrk asks all the while, on
connections that last and on new ones, for a name that all four certificates carry: whichever lasts
longest answers, and it is another each time. Not one request and not one connection may fail, and
soon after each renewal a new connection gets the certificate that `edgeproxy certs --for` names.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from certs_support import Issued, intermediate, issue, key
from cli_support import call
from real_support import Start, served
from running_support import Nginx, RunningGateway, wait_for

ROUNDS = 50
SHARED = "localhost"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)

_WRK = """\
function done(summary)
    local e = summary.errors
    io.write(string.format("\\nsummary " ..
        '{"requests":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\\n',
        summary.requests, e.connect, e.read, e.write, e.status, e.timeout))
end
"""


# -- the layouts: each puts a certificate and its key into a folder, the first time or again ----


def renamed(folder: Path, one: Issued, number: int) -> None:
    """As careful tools write, lego or a deployment: beside, then over. The key comes first."""
    for name, data in (("privkey.pem", one.key), ("fullchain.pem", one.full)):
        (folder / f".{name}").write_bytes(data)
        (folder / f".{name}").chmod(0o600)
        (folder / f".{name}").replace(folder / name)


def rewritten(folder: Path, one: Issued, number: int) -> None:
    """As acme.sh and `cat > file` write: emptied, then filled piece by piece."""
    for name, data in (("site.cer", one.full), ("site.key", one.key)):
        with (folder / name).open("wb", buffering=0) as file:
            (folder / name).chmod(0o600)
            for position in range(0, len(data), 100):
                file.write(data[position : position + 100])


def linked(folder: Path, one: Issued, number: int) -> None:
    """certbot: a new generation in `archive/`, then each link in `live/` taken away and made."""
    archive, live = folder.parent.parent / "archive", folder
    archive.mkdir(exist_ok=True)
    parts = {"cert": one.pem, "chain": intermediate().pem, "fullchain": one.full}
    for kind, data in {**parts, "privkey": one.key}.items():
        (archive / f"{kind}{number}.pem").write_bytes(data)
        (archive / f"{kind}{number}.pem").chmod(0o600)
    for kind in (*parts, "privkey"):
        (live / f"{kind}.pem").unlink(missing_ok=True)
        (live / f"{kind}.pem").symlink_to(archive / f"{kind}{number}.pem")


def swapped(folder: Path, one: Issued, number: int) -> None:
    """The kubelet's AtomicWriter: a new folder, `..data` renamed over, the old folder removed."""
    data = folder / "..data"
    old = data.resolve() if data.is_symlink() else None
    new = folder / f"..2026_{number}"
    new.mkdir()
    for name, content in (("tls.crt", one.full), ("tls.key", one.key)):
        (new / name).write_bytes(content)
        (new / name).chmod(0o640)
    (folder / "..data_tmp").symlink_to(new.name)
    (folder / "..data_tmp").replace(data)
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    if old is not None:
        shutil.rmtree(old)


Layout = Callable[[Path, Issued, int], None]
LAYOUTS: tuple[Layout, ...] = (renamed, rewritten, linked, swapped)


def nonsense(folder: Path, number: int, bystander: Issued) -> None:
    """What must change nothing: another kind each round; the one before goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    expired = _issued(SHARED, 9000, end=NOW - DAY)
    kinds: tuple[dict[str, bytes], ...] = (
        {"broken.pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        {"half.pem": (bystander.full + bystander.key)[: -len(bystander.key) // 2]},
        {"a.crt": bystander.full, "a.key": expired.key},
        {"old.pem": expired.full + expired.key},
        {"bytes": bytes(range(256)), "empty.pem": b""},
    )
    for name, data in kinds[number % len(kinds)].items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)


def halfway(renewed: Path, rewritten: Path, number: int) -> None:
    """Two renewals that go wrong: a key without its chain, and another kind each time."""
    one = _issued("nobody.test", 10_000 + number)
    late = _issued(rewritten.name, 11_000 + number, end=NOW - DAY)
    good = _issued(rewritten.name, 12_000 + number)
    kinds = (
        one.full[: len(one.pem) // 2],
        late.full + late.key,
        good.key + good.full[:-100],
    )
    (renewed / ".new").write_bytes(one.key)
    (renewed / ".new").chmod(0o600)
    (renewed / ".new").replace(renewed / "privkey.pem")
    (rewritten / "site.cer").write_bytes(kinds[number % len(kinds)])


def _issued(name: str, number: int, end: datetime | None = None) -> Issued:
    """Each lasts longer than all with a lower number."""
    return issue(
        [name, SHARED],
        intermediate(),
        private=key("ECDSA", number),
        start=NOW - 2 * DAY,
        end=end or NOW + 30 * DAY + number * timedelta(hours=1),
    )


# -- clients ----------------------------------------------------------------------------------


@contextmanager
def wrk(gateway: RunningGateway, script: Path, *options: str) -> Iterator[dict[str, int]]:
    """wrk for as long as the block lasts; then the mapping holds what it counted."""
    header = f"X-API-Key: {gateway.development.credential}"
    command = ["wrk", "-t1", "-d120", "--timeout", "10s", "-s", str(script), "-H", header, *options]
    child = subprocess.Popen(
        [*command, f"https://{SHARED}:{gateway.port}/small"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    counted: dict[str, int] = {}
    try:
        yield counted
        assert child.poll() is None, "it ended by itself"
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=20)
        found = re.search(r"^summary (.*)$", output, re.MULTILINE)
        assert found is not None, output
        counted.update(json.loads(found[1]))
    finally:
        child.kill()
        child.wait()


def named(config: Path, name: str) -> str:
    """The SHA-256 of the certificate that `edgeproxy certs --for` names."""
    result = call("certs", "--for", name, "--json", "--config", config)
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["accepted"], found
    fingerprint: str = found["answers"][0]["fingerprint"]
    return fingerprint


@pytest.mark.debian("nginx", "wrk")
@pytest.mark.timeout(150)
def test_renewals_under_load_lose_nothing(
    gateway: Start, nginx: Callable[..., Nginx], tmp_path: Path
) -> None:
    script = tmp_path / "done.lua"
    script.write_text(_WRK)
    origin = nginx()
    (origin.folder / "html" / "small").write_text("x" * 1024)
    folders = {layout: tmp_path / "le" / f"{layout.__name__}.test" for layout in LAYOUTS}
    certs = tmp_path / "gateway" / "certs"
    certs.mkdir(parents=True)
    number = 1
    for layout, folder in folders.items():
        folder.mkdir(parents=True)
        (certs / layout.__name__).symlink_to(folder)
        layout(folder, _issued(folder.name, number), number)
        number += 1
    running = gateway({"upstreams": {"o": origin.url}, "routes": {"*": {"/": "o"}}})
    took: list[float] = []
    told = 0
    began = time.monotonic()
    with (
        wrk(running, script, "-c16") as lasting,
        wrk(running, script, "-c2", "-H", "Connection: close") as fresh,
    ):
        for turn in range(ROUNDS):
            # Another certificate is the one that lasts longest each time.
            first = turn % len(LAYOUTS)
            order = LAYOUTS[first:] + LAYOUTS[:first]
            new = {
                layout: _issued(folders[layout].name, number + n) for n, layout in enumerate(order)
            }
            written = time.monotonic()
            for layout, one in new.items():
                layout(folders[layout], one, number)
                number += 1
            wanted = hashlib.sha256(_der(new[order[-1]])).hexdigest()
            wait_for(lambda: served(running.port, SHARED) == wanted, 10)  # noqa: B023
            took.append(time.monotonic() - written)
            for name in (SHARED, *(folder.name for folder in folders.values())):
                assert served(running.port, name) == named(running.config, name), (turn, name)
            nonsense(certs / "nonsense", turn, new[order[0]])
            if turn % 5 == 0:
                kept = [folders[renamed], folders[rewritten]]
                before = [served(running.port, folder.name) for folder in kept]
                halfway(*kept, turn)
                wait_for(lambda: running.child.said().count("stays in use") > told + 1)  # noqa: B023
                told = running.child.said().count("stays in use")
                assert [served(running.port, folder.name) for folder in kept] == before
    took.sort()
    print(
        f"{ROUNDS} renewals of {len(LAYOUTS)} certificates in {time.monotonic() - began:.0f} s; "
        f"in force after {statistics.median(took):.2f} s (median), {took[-1]:.2f} s (longest); "
        f"wrk: {lasting['requests']} requests on lasting connections, {fresh['requests']} on new"
    )
    for counted in (lasting, fresh):
        errors = {what: counted[what] for what in counted if what != "requests"}
        assert counted["requests"] > ROUNDS
        assert not any(errors.values()), errors
    assert statistics.median(took) < 1.0
    status = json.loads(running.command("status", "--json").stdout)
    counters = status["counters"]
    assert counters["certificates"]["problems"] > ROUNDS / 5
    # One change for each renewal, and for each time that nonsense came: not one for each file.
    assert counters["certificates"]["changes"] < 3 * ROUNDS
    # wrk cuts what is under way when it ends, and nothing else ended badly.
    assert set(counters["outcomes"]) <= {"ok", "client_gone"}
    assert counters["outcomes"].get("client_gone", 0) <= 18
    said = running.child.said()
    assert "Traceback" not in said and "refused" not in said


def _der(one: Issued) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return one.certificate.public_bytes(Encoding.DER)
