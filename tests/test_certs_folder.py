from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from certs_support import (
    DAY,
    NOW,
    TLS13,
    Issued,
    client_context,
    handshake,
    intermediate,
    issue,
    key,
    root,
)
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from edgeproxy.certs import contexts, reading, watching
from edgeproxy.certs import folder as folder_module
from edgeproxy.certs.contexts import ServerTLS
from edgeproxy.certs.folder import QUIET, CertificateFolder
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import Problem

A1 = issue(["a.example"], intermediate(), private=key("ECDSA", 1))
A2 = issue(["a.example"], intermediate(), private=key("ECDSA", 2), end=NOW + 90 * DAY)
B = issue(["b.example"], private=key("ECDSA", 3))
EXPIRED = issue(["a.example"], intermediate(), private=key("ECDSA", 4), end=NOW - DAY / 2)
EARLY = issue(["a.example"], intermediate(), private=key("ECDSA", 5), start=NOW + 10 * DAY)
TELLING = issue(
    ["a.example"], intermediate(), private=key("ECDSA", 6), end=NOW + 90 * DAY, aia=True
)
OLD_CA = issue(
    cn="Old Intermediate", issuer=root(), private=key("ECDSA", 7), ca=True, end=NOW - DAY / 2
)
UNDER_OLD = issue(["a.example"], OLD_CA, private=key("ECDSA", 8), end=NOW + 90 * DAY)


class Watched:
    """A folder under a CertificateFolder whose clock the test turns, and what it said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.changes: list[tuple[NameMap, tuple[Problem, ...]]] = []
        self.folder = CertificateFolder(
            self.clock, path, lambda *change: self.changes.append(change), now=self.now
        )

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds())

    def look(self) -> None:
        """Let ten seconds pass, and whatever work comes of it; a second look decides what goes."""
        self.clock.advance(10 - QUIET)
        for pause in (QUIET, QUIET):
            self.clock.advance(pause)
            for _ in range(100):
                self.clock.advance(0)

    def serves(self, name: str) -> bytes | None:
        """The leaf and its chain, as PEM, or None."""
        entry = self.changes[-1][0].choose(name)
        return None if entry is None else entry.chains[0].chain_pem

    @property
    def problems(self) -> dict[str, list[str]]:
        told: dict[str, list[str]] = {}
        for problem in self.changes[-1][1]:
            told.setdefault(problem.file, []).append(problem.message)
        return told


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    (tmp_path / "certs").mkdir()
    made = Watched(tmp_path / "certs")
    yield made
    made.folder.stop()
    assert made.clock.getDelayedCalls() == []


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: dict) -> None:
        if event["log_namespace"].startswith("edgeproxy"):
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def events() -> Iterator[list[dict]]:
    seen: list[dict] = []

    def observe(event: dict) -> None:
        if event["log_namespace"].startswith("edgeproxy"):
            seen.append(event)

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


def write(path: Path, data: bytes) -> None:
    """Write a file as careful tools do: beside, then renamed over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(data)
    beside.chmod(0o600)
    beside.replace(path)


def test_start_calls_back_once_even_with_nothing_there(watched: Watched) -> None:
    watched.folder.start()
    assert len(watched.changes) == 1
    assert watched.changes[0][0].entries == ()
    watched.look()
    assert len(watched.changes) == 1


@pytest.mark.parametrize("layout", ["one file", "apart", "key elsewhere"])
def test_layouts(watched: Watched, layout: str) -> None:
    if layout == "one file":
        write(watched.path / "a.pem", A1.full + A1.key)
    elif layout == "apart":
        write(watched.path / "x" / "fullchain.pem", A1.full)
        write(watched.path / "x" / "privkey.pem", A1.key)
    else:
        write(watched.path / "crt" / "1", A1.pem)
        write(watched.path / "ca" / "2", intermediate().pem)
        write(watched.path / "private" / "3", A1.key)
    watched.folder.start()
    assert watched.serves("a.example") == A1.full
    assert watched.problems == {}


def test_a_renewed_file_goes_live_and_nothing_happens_without_change(watched: Watched) -> None:
    write(watched.path / "a.pem", A1.full + A1.key)
    write(watched.path / "b.pem", B.full + B.key)
    watched.folder.start()
    write(watched.path / "a.pem", A2.full + A2.key)
    watched.look()
    assert watched.serves("a.example") == A2.full
    assert watched.serves("b.example") == B.full
    assert len(watched.changes) == 2
    watched.look()
    assert len(watched.changes) == 2


def test_certbot(watched: Watched, tmp_path: Path) -> None:
    """`live/` links into `archive/`; a renewal writes there, then moves the links one by one."""
    archive, live = tmp_path / "le/archive/a.example", tmp_path / "le/live/a.example"
    live.mkdir(parents=True)

    def lineage(one: Issued, number: int, kinds: tuple[str, ...]) -> None:
        parts = {
            "cert": one.pem,
            "chain": intermediate().pem,
            "fullchain": one.full,
            "privkey": one.key,
        }
        for kind in kinds:
            write(archive / f"{kind}{number}.pem", parts[kind])
            link = live / f"{kind}.pem.new"
            link.symlink_to(f"../../archive/a.example/{kind}{number}.pem")
            link.replace(live / f"{kind}.pem")

    everything = ("cert", "privkey", "chain", "fullchain")
    lineage(A1, 1, everything)
    (watched.path / "a.example").symlink_to(live)
    watched.folder.start()
    assert watched.serves("a.example") == A1.full
    for done in range(1, 4):
        lineage(A2, 2, everything[:done])
        watched.look()
        assert watched.serves("a.example") in (A1.full, A2.full)
    lineage(A2, 2, everything)
    watched.look()
    assert watched.serves("a.example") == A2.full
    assert watched.problems == {}


def test_a_whole_certbot_folder_with_old_generations(watched: Watched) -> None:
    """The whole of /etc/letsencrypt copied in, expired generations and all."""
    old = issue(["a.example"], intermediate(), private=key("ECDSA", 9), end=NOW - DAY / 2)
    for number, one in ((1, old), (2, A1), (3, A2)):
        write(watched.path / f"archive/a/cert{number}.pem", one.pem)
        write(watched.path / f"archive/a/fullchain{number}.pem", one.full)
        write(watched.path / f"archive/a/privkey{number}.pem", one.key)
    for kind in ("cert", "fullchain", "privkey"):
        link = watched.path / f"live/a/{kind}.pem"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../archive/a/{kind}3.pem")
    write(watched.path / "renewal/a.conf", b"version = 2\n")
    write(watched.path / "csr/0000_csr.pem", b"-----BEGIN CERTIFICATE REQUEST-----\nMA==\n"
                                             b"-----END CERTIFICATE REQUEST-----\n")  # fmt: skip
    watched.folder.start()
    assert watched.serves("a.example") == A2.full
    assert watched.problems == {}


def test_certbots_deploy_hook_from_the_documentation(watched: Watched, tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs/certificates.md").read_text()
    hook = text.split("```sh\n")[1].split("```")[0]
    assert "/etc/edgeproxy/certs" in hook and "-g edgeproxy" in hook
    hook = hook.replace("/etc/edgeproxy/certs", str(watched.path))
    hook = hook.replace("-g edgeproxy", f"-g {os.getgid()}")

    def renew(one: Issued) -> None:
        write(tmp_path / "live" / "a.example" / "fullchain.pem", one.full)
        write(tmp_path / "live" / "a.example" / "privkey.pem", one.key)
        lineage = {"RENEWED_LINEAGE": str(tmp_path / "live" / "a.example")}
        subprocess.run(["sh", "-c", hook], check=True, env={**os.environ, **lineage})

    renew(A1)
    watched.folder.start()
    renew(A2)
    watched.look()
    assert watched.serves("a.example") == A2.full
    assert watched.problems == {}


def test_acme_sh_and_mkcert(watched: Watched) -> None:
    """acme.sh writes in place and may keep its own folder here; mkcert puts `+2` into names."""
    home = watched.path / "a.example_ecc"
    for name, data in {
        "a.example.cer": A1.pem,
        "a.example.key": A1.key,
        "ca.cer": intermediate().pem,
        "fullchain.cer": A1.full,
        "a.example.conf": b"Le_Domain='a.example'\n",
    }.items():
        write(home / name, data)
    local = issue(["localhost", "127.0.0.1", "::1"], root(), private=key("RSA"))
    write(watched.path / "localhost+2.pem", local.full)
    write(watched.path / "localhost+2-key.pem", local.key)
    watched.folder.start()
    assert watched.serves("a.example") == A1.full
    assert watched.serves("localhost") == local.pem
    assert watched.problems == {}
    (home / "fullchain.cer").write_bytes(A2.full)
    (home / "a.example.key").write_bytes(A2.key)
    (home / "a.example.cer").write_bytes(A2.pem)
    watched.look()
    assert watched.serves("a.example") == A2.full


def test_kubernetes_swaps_all_at_once(watched: Watched) -> None:
    def generation(name: str, one: Issued) -> None:
        write(watched.path / name / "tls.crt", one.full)
        write(watched.path / name / "tls.key", one.key)
        (watched.path / "..data_tmp").symlink_to(name)
        (watched.path / "..data_tmp").replace(watched.path / "..data")

    generation("..2026_11_24", A1)
    for name in ("tls.crt", "tls.key"):
        (watched.path / name).symlink_to(f"..data/{name}")
    watched.folder.start()
    assert watched.serves("a.example") == A1.full
    generation("..2026_11_25", A2)
    shutil.rmtree(watched.path / "..2026_11_24")
    watched.look()
    assert watched.serves("a.example") == A2.full
    assert watched.problems == {}


BREAKS: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "half-written": lambda path: path.write_bytes(A2.full[:400]),
    "without its key": lambda path: path.write_bytes(A2.full),
    "another's key": lambda path: path.write_bytes(A2.full + B.key),
    "no PEM": lambda path: path.write_bytes(b"<html>502 Bad Gateway</html>"),
    "grown too large": lambda path: path.write_bytes(b"x" * ((1 << 20) + 1)),
    "a link that leads nowhere": lambda path: (path.unlink(), path.symlink_to("nothing")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "expired": lambda path: path.write_bytes(EXPIRED.full + EXPIRED.key),
    "not yet valid": lambda path: path.write_bytes(EARLY.full + EARLY.key),
    "cut in its intermediate": lambda path: path.write_bytes(A2.key + A2.full[:-100]),
    "a damaged intermediate": lambda path: path.write_bytes(
        A2.key + A2.pem + A2.full[len(A2.pem) :].replace(b"MII", b"AAA")
    ),
    "without its intermediate": lambda path: path.write_bytes(A2.key + A2.pem),
    "without the intermediate it tells of": lambda path: path.write_bytes(
        TELLING.key + TELLING.pem
    ),
    "the same without its intermediate": lambda path: path.write_bytes(A1.key + A1.pem),
    "under an expired intermediate": lambda path: path.write_bytes(UNDER_OLD.key + UNDER_OLD.full),
}


@pytest.mark.parametrize("way", list(BREAKS))
def test_a_broken_file_never_takes_its_good_certificate_down(
    watched: Watched, way: str, log: list[str]
) -> None:
    file = watched.path / "a.pem"
    write(file, A1.full + A1.key)
    write(watched.path / "b.pem", B.full + B.key)
    watched.folder.start()
    del log[:]
    BREAKS[way](file)
    for _ in range(3):
        watched.look()
        assert watched.serves("a.example") == A1.full
        assert watched.serves("b.example") == B.full
    assert any("stays in use" in message for message in watched.problems["a.pem"])
    assert len(watched.problems["a.pem"]) > 1, "and why"
    assert not any(problem.error for problem in watched.folder.problems), "nobody is turned away"
    warnings = [line for line in log if "a.pem" in line]
    assert len(warnings) == len(set(warnings)) == len(watched.problems["a.pem"])
    assert watched.folder._telling.counts.problems > 0
    if file.is_dir():
        file.rmdir()
    file.unlink(missing_ok=True)
    write(file, A2.full + A2.key)
    watched.look()
    assert watched.serves("a.example") == A2.full
    assert watched.problems == {}


def test_the_better_one_counts_once_its_time_has_come(watched: Watched) -> None:
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    soon = issue(["a.example"], intermediate(), start=NOW + timedelta(seconds=60))
    write(watched.path / "a.pem", soon.full + soon.key)
    watched.look()
    assert watched.serves("a.example") == A1.full
    watched.clock.advance(60)
    watched.look()
    assert watched.serves("a.example") == soon.full
    assert watched.problems == {}


def test_an_intermediate_that_expires_gives_way_to_what_is_beside_it(watched: Watched) -> None:
    ca = issue(
        cn="Short", issuer=root(), private=key("ECDSA", 9), ca=True, end=NOW + timedelta(seconds=60)
    )
    short = issue(["a.example"], ca, end=NOW + 99 * DAY)
    write(watched.path / "short.pem", short.full + short.key)
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    assert watched.serves("a.example") == short.full
    assert watched.problems == {}
    watched.clock.advance(61)
    watched.look()
    assert watched.serves("a.example") == A1.full
    assert "“Short” expired" in watched.problems["short.pem"][0]
    (candidate,) = [
        each
        for each in watched.folder.names.why("a.example").candidates
        if each.chain.chain_pem == short.full
    ]
    assert "“Short” expired" in candidate.verdict


def test_without_a_better_one_a_chain_with_a_fault_is_served(watched: Watched) -> None:
    write(watched.path / "a.pem", TELLING.pem + TELLING.key)
    watched.folder.start()
    assert watched.serves("a.example") == TELLING.pem
    write(watched.path / "a.pem", UNDER_OLD.full + UNDER_OLD.key)
    watched.look()
    assert watched.serves("a.example") == UNDER_OLD.full
    assert len(watched.problems["a.pem"]) == 1


def test_what_was_kept_goes_when_it_expires(watched: Watched) -> None:
    short = issue(["a.example"], end=NOW + timedelta(minutes=1))
    write(watched.path / "a.pem", short.full + short.key)
    watched.folder.start()
    (watched.path / "a.pem").write_bytes(b"")
    watched.look()
    assert watched.serves("a.example") == short.full
    watched.clock.advance(60)
    watched.look()
    assert watched.serves("a.example") is None


def test_key_and_chain_renewed_one_after_the_other(watched: Watched) -> None:
    for order in (("key", "crt"), ("crt", "key")):
        old, new = (A1, A2) if order[0] == "key" else (A2, A1)
        write(watched.path / "crt", old.full)
        write(watched.path / "key", old.key)
        watched.folder.start()
        assert watched.serves("a.example") == old.full
        write(watched.path / order[0], new.key if order[0] == "key" else new.full)
        watched.look()
        assert watched.serves("a.example") == old.full
        assert set(watched.problems) == {"crt", "key"}
        write(watched.path / order[1], new.key if order[1] == "key" else new.full)
        watched.look()
        assert watched.serves("a.example") == new.full
        assert watched.problems == {}
        watched.folder.stop()


def test_a_removed_file_takes_its_certificate_with_it(watched: Watched) -> None:
    write(watched.path / "a.pem", A1.full + A1.key)
    write(watched.path / "b" / "b.pem", B.full + B.key)
    watched.folder.start()
    (watched.path / "a.pem").unlink()
    shutil.rmtree(watched.path / "b")
    watched.look()
    assert watched.serves("a.example") is None
    assert watched.serves("b.example") is None
    assert watched.problems == {}


def test_a_file_that_now_carries_another_good_certificate_gives_up_the_old(
    watched: Watched,
) -> None:
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    write(watched.path / "a.pem", B.full + B.key)
    watched.look()
    assert watched.serves("a.example") is None
    assert watched.serves("b.example") == B.full


def test_a_folder_that_goes_away_takes_nothing_down_and_may_come_back(watched: Watched) -> None:
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    watched.path.rename(watched.path.with_name("away"))
    watched.look()
    assert watched.serves("a.example") == A1.full
    assert "does not exist" in watched.problems[str(watched.path)][0]
    watched.path.with_name("away").rename(watched.path)
    write(watched.path / "b.pem", B.full + B.key)
    watched.look()
    assert watched.serves("b.example") == B.full
    assert watched.problems == {}


@pytest.mark.parametrize("part", ["", "shop"])
def test_an_empty_folder_in_its_place_takes_nothing_down(watched: Watched, part: str) -> None:
    """A file system that is not mounted any more shows the empty folder below it."""
    write(watched.path / "shop" / "a.pem", A1.full + A1.key)
    watched.folder.start()
    place = watched.path / part
    place.rename(watched.path.with_name("away"))
    place.mkdir()
    for _ in range(3):
        watched.look()
        assert watched.serves("a.example") == A1.full
    (told,) = watched.problems[part or str(watched.path)]
    assert "not mounted" in told
    write(watched.path / "b.pem", B.full + B.key)
    watched.look()
    assert watched.serves("b.example") == B.full
    place.joinpath("b.pem").unlink(missing_ok=True)
    shutil.rmtree(place)
    watched.path.with_name("away").rename(place)
    write(watched.path / "shop" / "a.pem", A2.full + A2.key)
    watched.look()
    assert watched.serves("a.example") == A2.full
    assert watched.problems == {}


def test_a_folder_that_was_emptied_takes_its_certificates_with_it(watched: Watched) -> None:
    write(watched.path / "shop" / "a.pem", A1.full + A1.key)
    watched.folder.start()
    (watched.path / "shop" / "a.pem").unlink()
    watched.look()
    assert watched.serves("a.example") is None
    assert watched.problems == {}


def test_more_files_than_are_looked_at_take_nothing_down(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_FILES", 3)
    write(watched.path / "z" / "a.pem", A1.full + A1.key)
    watched.folder.start()
    for number in range(3):
        write(watched.path / f"{number}.txt", b"junk")
    watched.look()
    assert watched.serves("a.example") == A1.full
    assert "more than 3 files" in watched.problems[str(watched.path)][0]


def test_a_folder_that_is_not_there_at_the_start_is_waited_for(watched: Watched) -> None:
    watched.path.rmdir()
    watched.folder.start()
    assert watched.serves("a.example") is None
    assert list(watched.problems) == [str(watched.path)]
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.look()
    assert watched.serves("a.example") == A1.full


def test_an_expired_file_beside_a_good_one(watched: Watched, log: list[str]) -> None:
    old = issue(["a.example", "c.example"], end=NOW - DAY / 2)
    write(watched.path / "0-old.pem", old.full + old.key)
    write(watched.path / "good.pem", A1.full + A1.key)
    watched.folder.start()
    assert watched.serves("a.example") == A1.full
    assert "expired" in watched.problems["0-old.pem"][0]
    del log[:]
    (watched.path / "0-old.pem").unlink()
    watched.look()
    assert not [line for line in log if "was kept" in line]


def test_the_moment_a_validity_begins_or_ends_changes_the_map(watched: Watched) -> None:
    soon = issue(["a.example"], start=NOW + timedelta(seconds=15), end=NOW + 99 * DAY)
    rsa = issue(["a.example"], private=key("RSA"), end=NOW + timedelta(seconds=35))
    write(watched.path / "soon.pem", soon.full + soon.key)
    write(watched.path / "now.pem", A1.full + A1.key)
    write(watched.path / "rsa.pem", rsa.full + rsa.key)
    watched.folder.start()
    assert watched.serves("a.example") == A1.full
    watched.look()
    assert len(watched.changes) == 1
    watched.look()
    assert watched.serves("a.example") == soon.full
    for _ in range(2):
        watched.look()
    entry = watched.changes[-1][0].choose("a.example")
    assert entry is not None and entry.rsa is None


def test_a_change_that_keeps_size_and_time_is_seen(watched: Watched) -> None:
    """`cp -p`, `rsync -t`, or a second write within one tick of the file system's clock."""
    file = watched.path / "a.pem"
    one, other = A1.full + A1.key, B.full + B.key
    size = max(len(one), len(other))
    file.write_bytes(one.ljust(size, b"\n"))
    os.utime(file, (NOW.timestamp(), NOW.timestamp()))
    watched.folder.start()
    file.write_bytes(other.ljust(size, b"\n"))
    os.utime(file, (NOW.timestamp(), NOW.timestamp()))
    watched.look()
    assert watched.serves("b.example") == B.full


@pytest.mark.parametrize(("age", "seen"), [(0, True), (1, True), (3, False)])
def test_a_coarse_clock_hides_nothing_that_was_written_lately(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, age: int, seen: bool
) -> None:
    """A file system whose times do not tell two writes apart; after two seconds they do."""
    stamp = int((NOW.timestamp() - age) * 1e9)
    monkeypatch.setattr(reading, "_signature", lambda status: (1, 1, 1, stamp, stamp))
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    write(watched.path / "a.pem", A2.full + A2.key)
    watched.look()
    assert watched.serves("a.example") == (A2 if seen else A1).full


def test_a_problem_is_told_once_and_again_when_it_comes_back(
    watched: Watched, log: list[str]
) -> None:
    def told() -> int:
        return sum("x.pem" in line for line in log)

    write(watched.path / "x.pem", B.key)
    watched.folder.start()
    assert told() == 1
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.look()
    assert len(watched.changes) == 2
    assert told() == 1
    (watched.path / "x.pem").unlink()
    watched.look()
    write(watched.path / "x.pem", B.key)
    watched.look()
    assert told() == 2


def test_a_file_that_is_gone_is_missed_at_the_second_look(watched: Watched) -> None:
    """`rm` and then `cp`, certbot's links: nobody is turned away in between."""
    write(watched.path / "a.pem", A1.full + A1.key)
    write(watched.path / "b.pem", B.full + B.key)
    watched.folder.start()
    (watched.path / "a.pem").unlink()
    watched.clock.pump([10] + [0] * 20)
    assert watched.serves("a.example") == A1.full
    write(watched.path / "a.pem", A2.full + A2.key)
    watched.look()
    assert watched.serves("a.example") == A2.full
    (watched.path / "a.pem").unlink()
    watched.clock.pump([10] + [0] * 20)
    assert watched.serves("a.example") == A2.full
    watched.clock.pump([QUIET] + [0] * 20)
    assert watched.serves("a.example") is None
    # It is no error, and nothing is left of it.
    assert watched.problems == {}
    assert watched.serves("b.example") == B.full


def test_what_openssl_alone_refuses_takes_no_good_certificate_down(
    watched: Watched, log: list[str]
) -> None:
    weak_ca = issue(cn="Weak", private=key("RSA1024"), ca=True, issuer=intermediate())
    weak = issue(["a.example"], weak_ca, private=key("ECDSA", 2), end=NOW + 90 * DAY)
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    write(watched.path / "a.pem", weak.full + weak.key)
    for _ in range(3):
        watched.look()
        assert watched.serves("a.example") == A1.full
    assert "OpenSSL does not load it: ca key too small" in " ".join(watched.problems["a.pem"])
    assert len([line for line in log if "OpenSSL does not load it" in line]) == 1


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """So many files can be opened, and no more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)  # all below are taken
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("free", [0, 1])
def test_a_moment_without_descriptors_only_delays_a_renewal(
    watched: Watched, log: list[str], free: int
) -> None:
    """OpenSSL needs two to load a certificate, reading a file needs one."""
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    write(watched.path / "a.pem", A2.full + A2.key)
    del log[:]
    with free_descriptors(free):
        for _ in range(3):
            watched.look()
            assert watched.serves("a.example") == A1.full
    told = [line for line in log if "the system" in line or "Too many open files" in line]
    assert len(told) == 1
    watched.look()
    assert watched.serves("a.example") == A2.full
    assert watched.problems == {}


def test_a_file_for_which_there_is_no_descriptor_is_not_at_fault(
    watched: Watched, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An intermediate, say: without it the chain that goes live would be incomplete."""

    def fail(path: str) -> object:
        raise OSError(errno.EMFILE, "Too many open files", path)

    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    write(watched.path / "a.pem", A2.full + A2.key)
    del log[:]
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "read_file", fail)
        watched.look()
        watched.look()
    (line,) = log
    assert "Too many open files" in line and "it is tried again every 10 seconds" in line
    assert watched.folder.problems == ()
    watched.look()
    assert watched.serves("a.example") == A2.full


def test_many_files_in_a_moment_are_one_check_and_one_change(watched: Watched) -> None:
    for number in range(5):
        write(watched.path / f"{number}.pem", B.full + B.key)
    watched.folder.start()
    counts = watched.folder._telling.counts
    assert (counts.changes, counts.problems) == (1, 0)
    looks: list[object] = []
    check = watched.folder._check
    watched.folder._check = lambda *a: looks.append(a) or check(*a)  # type: ignore[method-assign]
    for number in range(5):
        one = issue([f"{number}.example"], private=key("ECDSA", 10 + number))
        write(watched.path / f"{number}.pem", one.full + one.key)
        watched.folder._changed()  # as inotify calls it, at least once for each file
        watched.clock.advance(0.1)
    assert counts.changes == 1
    watched.clock.pump([0.1] * 10 + [0] * 50)
    assert (counts.changes, counts.problems, len(looks)) == (2, 0, 1)
    assert watched.serves("4.example") is not None


def test_changes_that_never_end_are_looked_at_within_a_second(watched: Watched) -> None:
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    write(watched.path / "a.pem", A2.full + A2.key)
    for _ in range(10):
        watched.folder._changed()
        watched.clock.advance(0.09)
    watched.clock.pump([0] * 20)
    assert watched.serves("a.example") == A2.full


def test_broken_files_are_counted_once_each(watched: Watched) -> None:
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    counts = watched.folder._telling.counts
    (watched.path / "a.pem").write_bytes(A2.full[:400])
    for _ in range(3):
        watched.look()
    assert (counts.changes, counts.problems) == (2, 1)
    (watched.path / "x.pem").write_bytes(b"-----BEGIN CERTIFICATE-----")
    watched.look()
    assert counts.problems == 2
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.look()
    (watched.path / "a.pem").write_bytes(b"")
    watched.look()
    assert counts.problems == 3, "an empty file is nothing by itself, but it was something"
    assert "is empty" in watched.problems["a.pem"]
    assert any("stays in use" in text for text in watched.problems["a.pem"])


def test_age_is_told_at_a_fifth_and_a_tenth_once_and_the_end_is_an_error(
    watched: Watched, events: list[dict]
) -> None:
    def told() -> list[tuple[str, str]]:
        """Level and line of what was said since the last question."""
        found = [(e["log_level"].name, e["log_format"].format(**e)) for e in events]
        del events[:]
        return [(level, line) for level, line in found if "a.pem" in line]

    short = issue(["a.example"], start=NOW, end=NOW + timedelta(seconds=1000))
    write(watched.path / "a.pem", short.full + short.key)
    watched.folder.start()
    watched.clock.advance(780)
    watched.look()
    assert told() == [] and watched.folder.warnings == ()
    watched.clock.advance(10)
    watched.look()
    ((level, line),) = told()
    assert level == "warn" and "less than a fifth of its life is left" in line
    assert [w.file for w in watched.folder.warnings] == ["a.pem"]
    # Neither another change nor a detour tells it again.
    write(watched.path / "b.pem", B.full + B.key)
    watched.look()
    (watched.path / "a.pem").rename(watched.path / "c")
    watched.look()
    (watched.path / "c").rename(watched.path / "a.pem")
    watched.look()
    assert told() == []
    watched.clock.advance(50)
    watched.look()
    ((level, line),) = told()
    assert level == "warn" and "less than a tenth" in line
    assert len(watched.folder.warnings) == 1
    watched.clock.advance(130)
    watched.look()
    ((level, line),) = told()
    assert level == "error" and "certificate for a.example expired on" in line
    assert watched.folder.warnings == ()
    renewed = issue(["a.example"], end=NOW + 9 * DAY)
    write(watched.path / "a.pem", renewed.full + renewed.key)
    watched.look()
    assert watched.folder.warnings == watched.folder.problems == ()


def test_the_end_of_what_was_kept_is_an_error(watched: Watched, events: list[dict]) -> None:
    short = issue(["a.example"], end=NOW + timedelta(minutes=1))
    write(watched.path / "a.pem", short.full + short.key)
    watched.folder.start()
    (watched.path / "a.pem").write_bytes(short.full)
    watched.look()
    watched.clock.advance(60)
    watched.look()
    errors = [e["log_format"].format(**e) for e in events if e["log_level"].name == "error"]
    kept = "certificates: a.pem: the certificate for a.example that was kept has expired"
    assert errors == [kept]


def test_a_key_that_is_opened_to_all_is_told_without_a_change(
    watched: Watched, log: list[str]
) -> None:
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.start()
    (watched.path / "a.pem").chmod(0o644)
    for _ in range(2):
        watched.look()
    assert len([line for line in log if "has mode 0644" in line]) == 1
    assert len(watched.changes) == 1
    (watched.path / "a.pem").chmod(0o640)
    watched.look()
    assert watched.folder.warnings == ()


def test_what_changes_before_the_watch_stands_is_looked_at_soon(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def watch(_self: object, folders: object) -> bool:
        """As if a file had been written between the survey and the call."""
        if not calls:
            write(watched.path / "a.pem", A1.full + A1.key)
        calls.append(folders)
        return len(calls) == 1

    monkeypatch.setattr(watching.FolderWatch, "watch", watch)
    watched.folder.start()
    assert watched.serves("a.example") is None
    watched.clock.advance(0.3)
    assert watched.serves("a.example") == A1.full


def test_another_default_holds_also_where_a_look_was_under_way(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(watched.path / "a.pem", A1.full + A1.key)
    write(watched.path / "b.pem", B.full + B.key)
    watched.folder.start()
    watched.folder.fall_back("b.example")
    watched.look()
    assert len(watched.changes) == 1, "who sets it has it already"
    write(watched.path / "a.pem", A2.full + A2.key)
    monkeypatch.setattr(folder_module, "SLICE", 0.0)

    def slowly(*change: Any) -> Iterator[None]:
        watched.changes.append(change)
        yield from (None, None)

    monkeypatch.setattr(watched.folder, "_on_change", slowly)
    while len(watched.changes) == 1:
        watched.folder._turn()
    assert watched.changes[-1][0].default_name == "b.example"
    watched.folder.fall_back("a.example")
    watched.look()
    assert len(watched.changes) == 3
    assert watched.serves("a.example") == watched.serves("c.example") == A2.full
    assert watched.folder.names.default_name == "a.example"


def test_look_reads_everything_now(watched: Watched) -> None:
    watched.folder.start()
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.folder.look()
    assert watched.serves("a.example") == A1.full


def test_after_stop_nothing_is_called(watched: Watched) -> None:
    watched.folder.start()
    watched.folder.stop()
    write(watched.path / "a.pem", A1.full + A1.key)
    watched.look()
    assert len(watched.changes) == 1


def test_a_failing_callback_does_not_end_the_watch(tmp_path: Path, log: list[str]) -> None:
    calls: list[NameMap] = []

    def on_change(names: NameMap, _problems: tuple[Problem, ...]) -> None:
        calls.append(names)
        if len(calls) == 2:
            raise RuntimeError("no")

    clock = Clock()
    watcher = CertificateFolder(clock, tmp_path, on_change, now=lambda: NOW)
    watcher.start()
    for number, one in enumerate((A1, B)):
        write(tmp_path / f"{number}.pem", one.full + one.key)
        clock.pump([10] + [0] * 20)
    assert len(calls) == 3
    assert any("looking at the certificates failed" in line for line in log)
    watcher.stop()


def test_a_look_takes_many_short_turns(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        write(watched.path / f"{number}.pem", A1.full + A1.key + b"\n" * number)
    watched.folder.start()
    write(watched.path / "b.pem", B.full + B.key)
    monkeypatch.setattr(folder_module, "SLICE", 0.0)
    delays: list[float] = []
    call_later = watched.clock.callLater

    def counting(delay: float, *rest: object) -> object:
        delays.append(delay)
        return call_later(delay, *rest)

    monkeypatch.setattr(watched.clock, "callLater", counting)
    watched.look()
    assert watched.serves("b.example") == B.full
    assert delays.count(0.0) > 50


# --- with a real reactor and the real inotify ------------------------------------------------


class Running:
    """A reactor of its own, turned by hand until something is true."""

    def __init__(self, path: Path) -> None:
        self.reactor = SelectReactor()
        self.maps: list[NameMap] = []
        self.folder = CertificateFolder(
            self.reactor, path, lambda names, _: self.maps.append(names), now=lambda: NOW
        )
        self.folder.start()

    def until(self, true: Callable[[], bool]) -> None:
        end = self.reactor.seconds() + 8  # less than INTERVAL: it must have been inotify
        while not true():
            assert self.reactor.seconds() < end
            self.reactor.iterate(0.05)

    def settle(self) -> None:
        """Go on until nothing is left to do but the look that comes every ten seconds."""
        for _ in range(3):  # take up what inotify has ready
            self.reactor.iterate(0)
        self.until(
            lambda: (
                self.folder._work is None
                and self.folder._timer.getTime() - self.reactor.seconds() > 5
            )
        )

    def serves(self, name: str, one: Issued) -> Callable[[], bool]:
        def check() -> bool:
            entry = self.maps[-1].choose(name)
            return entry is not None and entry.chains[0].chain_pem == one.full

        return check

    def close(self) -> None:
        self.folder.stop()
        self.reactor.iterate(0)
        self.reactor.iterate(0)
        assert not [r for r in self.reactor.getReaders() if type(r).__name__ == "Notifier"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[Path], Running]]:
    made: list[Running] = []

    def start(path: Path) -> Running:
        made.append(Running(path))
        return made[-1]

    yield start
    for one in made:
        one.close()


needs_inotify = pytest.mark.skipif(watching.inotify is None, reason="no inotify here")


@needs_inotify
def test_inotify_notices_files_subfolders_and_links_targets(tmp_path: Path, running) -> None:
    certs, elsewhere = tmp_path / "certs", tmp_path / "elsewhere"
    certs.mkdir()
    write(elsewhere / "a.pem", A1.full + A1.key)
    (certs / "a.pem").symlink_to(elsewhere / "a.pem")
    watcher = running(certs)
    assert watcher.serves("a.example", A1)()
    write(elsewhere / "a.pem", A2.full + A2.key)
    watcher.until(watcher.serves("a.example", A2))
    write(certs / "new" / "deep" / "b.pem", B.full + B.key)
    watcher.until(watcher.serves("b.example", B))
    watcher.settle()
    other = issue(["b.example"], end=NOW + 80 * DAY)
    write(certs / "new" / "deep" / "b.pem", other.full + other.key)
    watcher.until(watcher.serves("b.example", other))


@needs_inotify
def test_inotify_goes_on_after_a_watched_folder_was_deleted_and_made_again(
    tmp_path: Path, running
) -> None:
    write(tmp_path / "sub" / "a.pem", A1.full + A1.key)
    watcher = running(tmp_path)
    shutil.rmtree(tmp_path / "sub")
    watcher.until(lambda: watcher.maps[-1].choose("a.example") is None)
    write(tmp_path / "b.pem", B.full + B.key)
    watcher.until(watcher.serves("b.example", B))
    write(tmp_path / "sub" / "a.pem", A2.full + A2.key)
    watcher.until(watcher.serves("a.example", A2))
    watcher.settle()
    shutil.rmtree(tmp_path / "sub")
    (tmp_path / "sub").mkdir()
    watcher.settle()
    write(tmp_path / "sub" / "a.pem", A1.full + A1.key)
    watcher.until(watcher.serves("a.example", A1))


@needs_inotify
def test_inotify_follows_a_kubernetes_swap_and_a_moved_folder(tmp_path: Path, running) -> None:
    for name, one in (("..1", A1), ("..2", A2)):
        write(tmp_path / "vol" / name / "tls", one.full + one.key)
    (tmp_path / "vol" / "..data").symlink_to("..1")
    (tmp_path / "vol" / "tls").symlink_to("..data/tls")
    watcher = running(tmp_path)
    (tmp_path / "vol" / "..tmp").symlink_to("..2")
    (tmp_path / "vol" / "..tmp").replace(tmp_path / "vol" / "..data")
    watcher.until(watcher.serves("a.example", A2))
    (tmp_path / "vol").rename(tmp_path / "moved")
    write(tmp_path / "vol" / "b", B.full + B.key)
    watcher.until(watcher.serves("b.example", B))
    watcher.settle()
    third = issue(["b.example"], end=NOW + 80 * DAY)
    write(tmp_path / "vol" / "b", third.full + third.key)
    watcher.until(watcher.serves("b.example", third))


@needs_inotify
def test_without_inotify_instances_left_the_timer_remains(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, log: list[str], tmp_path: Path
) -> None:
    def fail(_reactor: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(watching, "_notifier", fail)
    watcher = Running(tmp_path)
    watcher.folder.look()
    assert len([line for line in log if "cannot all be watched" in line]) == 1
    watcher.close()


# --- together --------------------------------------------------------------------------------


def test_a_renewal_reaches_the_next_handshake(tmp_path: Path) -> None:
    write(tmp_path / "a.pem", A1.full + A1.key)
    clock = Clock()
    server = ServerTLS(NameMap((), None, NOW))
    folder = CertificateFolder(
        clock, tmp_path, lambda names, _: server.swap(names), now=lambda: NOW
    )
    folder.start()
    assert handshake(server.context, client_context(TLS13), b"a.example").served == A1.pem
    write(tmp_path / "a.pem", A2.full + A2.key)
    clock.pump([10] + [0] * 20)
    assert handshake(server.context, client_context(TLS13), b"a.example").served == A2.pem
    folder.stop()


def test_what_cannot_be_put_into_contexts_for_a_moment_is_put_there_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    write(tmp_path / "a.pem", A1.full + A1.key)
    clock = Clock()
    server = ServerTLS(NameMap((), None, NOW))
    folder = CertificateFolder(
        clock, tmp_path, lambda names, _: server.steps(names), now=lambda: NOW
    )
    folder.start()
    write(tmp_path / "a.pem", A2.full + A2.key)
    del log[:]

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(contexts, "load", fail)
        for _ in range(3):
            clock.pump([10] + [0] * 20)
            met = handshake(server.context, client_context(TLS13), b"a.example")
            assert met.served == A1.pem
    assert len(log) == 1 and "Too many open files" in log[0]
    clock.pump([10] + [0] * 20)
    assert handshake(server.context, client_context(TLS13), b"a.example").served == A2.pem
    clock.pump([10] + [0] * 20)
    assert len(log) == 2, "told as usual, and nothing is left to do"
    folder.stop()
