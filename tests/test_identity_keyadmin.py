"""What `edgeproxy keys` does to the file: alone, two at once, and killed at any moment."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.identity import keyadmin
from edgeproxy.identity.apikey import RANDOM_BYTES, digest, well_formed
from edgeproxy.identity.keyadmin import KeyCommandError
from edgeproxy.identity.keyfile import KeyFileError, problems
from edgeproxy.identity.keyindex import KeyRecord, build
from edgeproxy.identity.pepper import Pepper

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
DAY = 86400.0


def random_bytes(number: int) -> bytes:
    return bytes([number]) * RANDOM_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def add(path: Path, number: int, name: str = "shop", **more: Any) -> keyadmin.NewKey:
    return keyadmin.add(path, name, now=NOW, random_bytes=random_bytes(number), **more)


def found(path: Path, credential: str) -> KeyRecord:
    record = build(path.read_bytes()).find(credential.encode(), NOW)
    assert record is not None
    return record


def state(path: Path, credential: str, now: float) -> str:
    return found(path, credential).state(now)


def test_add_makes_a_key_that_works_and_keeps_no_secret(path: Path) -> None:
    key = add(
        path,
        1,
        "Alice's shop",
        groups=["staff"],
        scopes=["read", "pay"],
        plan="gold",
        not_before=NOW + 10,
        expires=NOW + DAY,
        note="asked for by phone",
    )
    assert well_formed(key.credential.encode())
    record = found(path, key.credential)
    assert record.id == key.id
    assert record.principal.fields.startswith(b"X-Consumer-Id: " + key.id.encode())
    assert record.principal.groups == ("staff",)
    assert record.principal.scopes == {"read", "pay"}
    assert record.principal.plan == "gold"
    assert [record.state(NOW + later) for later in (9, 10, DAY - 1, DAY)] == [
        "not_yet",
        "ok",
        "ok",
        "expired",
    ]
    text = path.read_text()
    assert key.credential.split("_")[2] not in text
    assert json.loads(text)["digest"] == digest(key.credential.encode()).hex()
    assert json.loads(text)["created"] == "2026-01-01T00:00:00Z"


def test_what_is_not_given_is_not_written(path: Path) -> None:
    add(path, 1)
    assert set(json.loads(path.read_text())) == {"id", "name", "digest", "created"}


def test_the_file_is_for_its_owner_only_and_keeps_what_was_chosen(path: Path) -> None:
    add(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(f"{path}.lock").stat().st_mode) == 0o600
    path.chmod(0o640)  # a service that reads by its group
    add(path, 2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        "keys.jsonl",
        "keys.jsonl.lock",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_does_not_take_the_file_from_the_service(path: Path) -> None:
    add(path, 1)
    os.chown(path, 65534, 65534)
    add(path, 2)
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.jsonl"
    path.symlink_to(real)
    key = add(path, 1)
    assert path.is_symlink()
    assert found(real, key.credential).id == key.id


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"plan": "two words"},
        {"scopes": ["a b"]},
        {"groups": ["é"]},
        {"expires": NOW},
        {"expires": NOW + 5, "not_before": NOW + 5},
        {"expires": 1e15},
        {"expires": float("inf")},
        {"note": "\ud800"},
    ],
)
def test_what_would_not_be_read_back_is_not_written(path: Path, wrong: dict[str, Any]) -> None:
    add(path, 1)
    before = path.read_bytes()
    with pytest.raises(KeyCommandError):
        add(path, 2, **wrong)
    assert path.read_bytes() == before


def test_a_broken_file_is_left_alone(path: Path) -> None:
    path.write_bytes(b"{}\n")
    for attempt in (
        lambda: add(path, 1),
        lambda: keyadmin.revoke(path, "x", now=NOW),
        lambda: keyadmin.rotate(path, "x", overlap=1, now=NOW, random_bytes=random_bytes(2)),
        lambda: keyadmin.listed(path, now=NOW),
    ):
        with pytest.raises(KeyFileError, match="line 1: id is missing"):
            attempt()
    assert path.read_bytes() == b"{}\n"


def test_the_same_random_bytes_twice_are_noticed(path: Path) -> None:
    add(path, 1)
    before = path.read_bytes()
    with pytest.raises(KeyCommandError, match="is already there"):
        add(path, 1)
    assert path.read_bytes() == before


def test_rotation_overlaps(path: Path) -> None:
    old = add(path, 1, "shop", groups=["staff"], scopes=["pay"], plan="gold", note="x")
    add(path, 9, "bystander")
    bystander = path.read_bytes().split(b"\n")[1]
    new = keyadmin.rotate(path, old.id, overlap=DAY, now=NOW + 5, random_bytes=random_bytes(2))
    assert new.id != old.id
    assert [state(path, old.credential, NOW + at) for at in (6, DAY + 4, DAY + 5)] == [
        "ok",
        "ok",
        "expired",
    ]
    assert [state(path, new.credential, NOW + at) for at in (5, DAY + 5, 1000 * DAY)] == ["ok"] * 3
    one, two = found(path, old.credential).principal, found(path, new.credential).principal
    assert one.id == two.id == old.id  # upstreams and limits see one consumer
    assert one.fields == two.fields
    assert (one.plan, one.scopes) == (two.plan, two.scopes)
    assert bystander in path.read_bytes().split(b"\n")
    third = keyadmin.rotate(path, new.id, overlap=0, now=NOW + 9, random_bytes=random_bytes(3))
    assert state(path, new.credential, NOW + 9) == "expired"
    assert found(path, third.credential).principal.id == old.id
    assert [(key.id, key.replaces, key.consumer) for key in keyadmin.listed(path, now=NOW)][2:] == [
        (new.id, old.id, old.id),
        (third.id, new.id, old.id),
    ]


def test_rotation_of_a_key_that_expires(path: Path) -> None:
    """The old one ends when it was to end; the new one lives as long as the old one was to."""
    old = add(path, 1, expires=NOW + 30 * DAY)
    at = NOW + 29 * DAY
    new = keyadmin.rotate(path, old.id, overlap=7 * DAY, now=at, random_bytes=random_bytes(2))
    assert found(path, old.credential).expires == NOW + 30 * DAY
    assert found(path, new.credential).expires == at + 30 * DAY
    third = keyadmin.rotate(
        path, new.id, overlap=0, now=at, random_bytes=random_bytes(3), expires=at + DAY
    )
    assert found(path, third.credential).expires == at + DAY


def test_rotation_of_a_key_that_has_not_begun(path: Path) -> None:
    old = add(path, 1, not_before=NOW + DAY)
    new = keyadmin.rotate(path, old.id, overlap=60, now=NOW, random_bytes=random_bytes(2))
    assert state(path, old.credential, NOW + 2 * DAY) == "revoked"
    assert state(path, new.credential, NOW) == "ok"


def test_what_cannot_be_rotated(path: Path) -> None:
    gone = add(path, 1)
    keyadmin.revoke(path, gone.id, now=NOW)
    short = add(path, 2, expires=NOW + 5)
    before = path.read_bytes()
    for key_id, overlap, why in (
        (gone.id, 1, "is revoked"),
        (short.id, 1, "is expired"),
        ("nobody", 1, "there is no key nobody"),
        (gone.id, -1, "must not be negative"),
    ):
        with pytest.raises(KeyCommandError, match=why):
            keyadmin.rotate(
                path, key_id, overlap=overlap, now=NOW + 60, random_bytes=random_bytes(3)
            )
    assert path.read_bytes() == before


def test_revocation_is_for_good_and_for_one(path: Path) -> None:
    one, two = add(path, 1), add(path, 2)
    keyadmin.revoke(path, one.id, now=NOW + 5)
    assert state(path, one.credential, NOW) == "revoked"
    assert state(path, two.credential, NOW) == "ok"
    once = path.read_bytes()
    assert json.loads(once.split(b"\n")[0])["revoked"] == "2026-01-01T00:00:05Z"
    keyadmin.revoke(path, one.id, now=NOW + 9)
    assert path.read_bytes() == once
    with pytest.raises(KeyCommandError, match="there is no key nobody"):
        keyadmin.revoke(path, "nobody", now=NOW)


def test_list_tells_all_but_secrets(path: Path) -> None:
    key = add(path, 1, "shop", plan="gold", groups=["b", "a"], scopes=["z", "a"], note="x")
    add(path, 2, "later", not_before=NOW + 5, expires=NOW + 10)
    one, two = keyadmin.listed(path, now=NOW)
    assert one == (
        *(key.id, "shop", "ok", "gold", ("b", "a"), ("z", "a")),
        *(NOW, None, None, key.id, "", "x", "", None),
    )
    assert (two.state, two.not_before, two.expires) == ("not_yet", NOW + 5, NOW + 10)
    with pytest.raises(FileNotFoundError):
        keyadmin.listed(path.with_name("none"), now=NOW)


WRITER = """
import os, sys
from pathlib import Path
from edgeproxy.identity import keyadmin
path, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(count):
    key = keyadmin.add(path, f"{who}-{number}", now=0.0, random_bytes=os.urandom(48))
    print(key.credential, flush=True)
    if number % 3 == 2:
        keyadmin.rotate(path, key.id, overlap=9e9, now=0.0, random_bytes=os.urandom(48))
"""


def writer(path: Path, who: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(path), who, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    writers = [writer(path, who, 30) for who in "abc"]
    shown = [line for made in writers for line in made.communicate()[0].split()]
    assert [made.returncode for made in writers] == [0, 0, 0]
    assert len(shown) == 90
    index = build(path.read_bytes())
    assert all(index.find(credential, 0.0) for credential in shown)
    assert len(index) == 90 + 30


def test_a_reader_sees_a_whole_file_at_any_moment(path: Path) -> None:
    add(path, 1)
    made = writer(path, "a", 60)
    seen = []
    while made.poll() is None:
        seen.append(len(build(path.read_bytes())))
    assert made.communicate()[0].count(b"\n") == 60
    assert seen == sorted(seen)
    assert len(set(seen)) > 5


def test_killed_at_any_moment_the_file_is_whole_and_what_was_shown_is_there(path: Path) -> None:
    """Each writer is killed a little later than the one before, somewhere in its writing."""
    shown: list[bytes] = []
    for round_ in range(12):
        made = writer(path, f"w{round_}", 10_000)
        assert made.stdout is not None
        shown.append(made.stdout.readline().strip())  # it is at work
        timer = threading.Timer(0.001 * round_, os.kill, (made.pid, signal.SIGKILL))
        timer.start()
        rest = made.communicate()[0]
        assert made.returncode == -signal.SIGKILL
        shown += [line for line in rest.split(b"\n")[:-1] if line]
        text = path.read_bytes()
        assert problems(text) == []
        index = build(text)
        assert all(index.find(credential, 0.0) for credential in shown)
    # What the killed ones may have left beside it does not hinder the next.
    key = add(path, 1)
    assert found(path, key.credential).id == key.id
    assert {entry.name for entry in path.parent.iterdir()} == {"keys.jsonl", "keys.jsonl.lock"}


# -- with a pepper, and waiting for a turn ---------------------------------------------------------

PEPPER = Pepper(b"0123456789abcdef")


def test_with_a_pepper_keys_are_made_with_it(path: Path) -> None:
    old = add(path, 1)
    new = add(path, 2, pepper=PEPPER)
    third = keyadmin.rotate(
        path, old.id, overlap=DAY, now=NOW, random_bytes=random_bytes(3), pepper=PEPPER
    )
    index = build(path.read_bytes(), PEPPER)
    for key in (old, new, third):
        record = index.find(key.credential.encode(), NOW)
        assert record is not None and record.id == key.id
    peppers = [key.pepper for key in keyadmin.listed(path, now=NOW)]
    assert peppers == ["", PEPPER.fingerprint, PEPPER.fingerprint]
    keyadmin.revoke(path, new.id, now=NOW)  # needs none
    assert [key.state for key in keyadmin.listed(path, now=NOW)] == ["ok", "revoked", "ok"]


def test_another_pepper_changes_nothing(path: Path) -> None:
    key = add(path, 1, pepper=PEPPER)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match=f"key {key.id}: the digest is made with another pepper"):
        add(path, 2, pepper=Pepper(b"other"))
    with pytest.raises(KeyFileError, match="with a pepper .* and none is configured"):
        add(path, 2)
    assert path.read_bytes() == before


def test_the_last_use_is_listed(path: Path) -> None:
    one, two = add(path, 1), add(path, 2)
    found = keyadmin.listed(path, now=NOW, last={one.id: 5, "gone": 7})
    assert [(key.id, key.last_used) for key in found] == [(one.id, 5), (two.id, None)]


def test_a_lock_that_is_held_is_waited_for_and_not_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(path, 1)
    before = path.read_bytes()
    with open(f"{path}.lock", "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(keyadmin, "PATIENCE", 0.1)
        with pytest.raises(KeyCommandError, match=r"has held keys\.jsonl\.lock for 0\.1 s"):
            add(path, 2)
        assert path.read_bytes() == before
        monkeypatch.setattr(keyadmin, "PATIENCE", 30.0)
        release = threading.Timer(0.1, fcntl.flock, (other, fcntl.LOCK_UN))
        release.start()
        add(path, 2)
        release.join()
