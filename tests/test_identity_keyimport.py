"""What of another gateway's keys comes into a key file: all of them or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.identity import keyadmin
from edgeproxy.identity.keyimport import Findings, Foreign, Place, Plan, Told
from edgeproxy.identity.keyindex import build
from edgeproxy.identity.pepper import Pepper

NOW = 1_767_225_600.0
PEPPER = Pepper(b"0123456789abcdef")
LONG = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
THIRD = sha256(b"3").hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def key(line: int, credential: str = LONG, name: str = "Ann", **more: Any) -> Foreign:
    return Foreign(Place("k.csv", line), name, credential, **more)


def bring(path: Path, *keys: Foreign, **options: Any) -> Plan:
    found = Findings()
    found.keys += keys
    return keyadmin.bring(path, found, now=NOW, random=os.urandom, **options)


def problems(plan: Plan) -> list[str]:
    return [str(each) for each in plan.problems]


@pytest.mark.parametrize("pepper", [None, PEPPER])
def test_keys_come_in_with_their_own_text(path: Path, pepper: Pepper | None) -> None:
    fields = {"groups": ["staff"], "scopes": ["pay"], "plan": "gold", "expires": NOW + 60}
    plan = bring(path, key(2, fields=fields), key(3, OTHER, "Bob"), pepper=pepper)
    assert not plan.problems and len(plan.added) == 2
    index = build(path.read_bytes(), pepper)
    record = index.find(LONG.encode(), NOW)
    assert record is not None and record.name == "Ann"
    assert (record.groups, record.scopes, record.plan) == (("staff",), {"pay"}, "gold")
    assert record.expires == NOW + 60
    assert index.find(OTHER.encode(), NOW) is not None
    assert LONG not in path.read_text() and LONG not in repr(plan)
    assert LONG not in repr(key(1))


@pytest.mark.parametrize("pepper", [None, PEPPER])
def test_the_same_file_twice_adds_nothing(path: Path, pepper: Pepper | None) -> None:
    keys = key(2), key(3, OTHER, "Bob")
    bring(path, *keys, pepper=pepper)
    before = path.read_bytes()
    plan = bring(path, *keys, pepper=pepper)
    assert not plan.added and not plan.problems
    assert [each.message.partition(", as ")[0] for each in plan.present] == [
        "this key is there already"
    ] * 2
    assert path.read_bytes() == before


def test_a_key_from_before_the_pepper_is_known_with_it(path: Path) -> None:
    bring(path, key(2))
    plan = bring(path, key(2), key(3, OTHER), pepper=PEPPER)
    assert len(plan.present) == len(plan.added) == 1
    assert len(build(path.read_bytes(), PEPPER)) == 2


def test_a_key_that_was_revoked_stays_so(path: Path) -> None:
    bring(path, key(2))
    (line,) = path.read_bytes().splitlines()
    keyadmin.revoke(path, json.loads(line)["id"], now=NOW)
    plan = bring(path, key(2))
    assert "revoked" in plan.present[0].message and not plan.added


def test_a_dry_run_writes_nothing(path: Path) -> None:
    plan = bring(path, key(2), dry_run=True)
    assert len(plan.added) == 1
    assert not path.exists()


@pytest.mark.parametrize("text", ["${" + LONG, LONG + "}", "x${a}" + LONG, "{" + LONG + "}"])
def test_signs_of_placeholders_may_stand_in_a_key(path: Path, text: str) -> None:
    assert not bring(path, key(2, text)).problems


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (key(3, "short"), "k.csv:3: the key has 5 characters; 8 to 512 are right"),
        (key(3, "x" * 513), "k.csv:3: the key has 513 characters; 8 to 512 are right"),
        (key(3, "é" * 40), "k.csv:3: the key holds what a header field cannot carry"),
        (key(3, "a\nb" * 40), "k.csv:3: the key holds what a header field cannot carry"),
        (key(3, " " + OTHER), "k.csv:3: the key holds what a header field cannot carry"),
        (key(3, OTHER + " "), "k.csv:3: the key holds what a header field cannot carry"),
        (key(3, "hunter2hunter2"), "k.csv:3: the key has 72 bits at most, and one of fewer"),
        (key(3, "${PARTNER_ACME_PRODUCTION_KEY_2026}"), "k.csv:3: the key is a placeholder, not"),
        (key(3, "{{ vault_partner_acme_production_key }}"), "k.csv:3: the key is a placeholder"),
        (key(3), "k.csv:3: this is the key of line 2 again; leave one of the two"),
        (
            key(3, "", digest=sha256(LONG.encode()).digest()),
            "k.csv:3: this is the key of line 2 again; leave one of the two",
        ),
        (key(3, OTHER, ""), "k.csv:3: name must be 1 to 200 characters"),
        (key(3, OTHER, fields={"plan": "two words"}), "k.csv:3: plan must be a word"),
        (key(3, OTHER, fields={"groups": ["é"]}), "k.csv:3: groups must be words"),
        (key(3, OTHER, fields={"id": "old"}), "k.csv:3: there is a key with the id old already"),
        (
            key(3, OTHER, fields={"consumer": "old"}),
            "k.csv:3: the consumer old is 'Old' already; one consumer has one name",
        ),
    ],
)
def test_one_that_is_wrong_stops_all(path: Path, wrong: Foreign, message: str) -> None:
    bring(path, key(1, THIRD, "Old", fields={"id": "old"}))
    before = path.read_bytes()
    plan = bring(path, key(2), wrong)
    assert len(plan.problems) == 1
    assert problems(plan)[0].startswith(message)
    assert path.read_bytes() == before


def test_every_problem_is_told_in_order(path: Path) -> None:
    plan = bring(path, key(9, "a"), key(4, "b"), key(5))
    assert [each.place.line for each in plan.problems] == [4, 9]
    assert not path.exists()


def test_what_is_told_is_one_line_that_a_terminal_takes() -> None:
    told = Told(Place("a\x1b[2Jb", 3), "x\r\ny\u202e")
    assert str(told) == "a\\x1b[2Jb:3: x\\r\\ny\\u202e"


def test_with_a_pepper_a_short_key_may_come(path: Path) -> None:
    plan = bring(path, key(2, "hunter22"), pepper=PEPPER)
    assert not plan.problems
    assert build(path.read_bytes(), PEPPER).find(b"hunter22", NOW) is not None


def test_a_digest_is_found_by_its_key_with_a_pepper_too(path: Path) -> None:
    plan = bring(path, key(2, "", digest=sha256(LONG.encode()).digest()), pepper=PEPPER)
    assert "pepper" not in plan.added[0].line
    assert build(path.read_bytes(), PEPPER).find(LONG.encode(), NOW) is not None


def test_keys_of_one_holder_are_one_consumer(path: Path) -> None:
    bring(path, key(2, holder="a b"), key(3, OTHER, holder="a b"), key(4, THIRD))
    index = build(path.read_bytes())
    found = [index.find(text.encode(), NOW) for text in (LONG, OTHER, THIRD)]
    consumers = [record.consumer for record in found if record is not None]
    assert consumers[0] == consumers[1] != consumers[2]
    # One that comes later joins them.
    plan = bring(path, key(2, holder="a b"), key(5, THIRD[::-1], holder="a b"))
    assert [each.line["consumer"] for each in plan.added] == consumers[:1]
    assert [
        each.line["consumer"] for each in bring(path, key(6, THIRD.upper(), holder="c")).added
    ] == ["c"]


def test_one_that_has_expired_comes_in_and_is_told(path: Path) -> None:
    plan = bring(path, key(2, fields={"expires": NOW - 5}))
    assert len(plan.added) == 1
    assert [str(each) for each in plan.notes] == ["k.csv:2: this key has expired; it is added so"]


def test_a_file_without_a_last_line_end_is_not_joined(path: Path) -> None:
    bring(path, key(2))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    bring(path, key(3, OTHER))
    assert len(build(path.read_bytes())) == 2


IMPORTER = """
import os, sys
from pathlib import Path
from edgeproxy.identity import keyadmin, keycsv
found = keycsv.read(Path(sys.argv[2]).read_text(), "k.csv")
print("at work", flush=True)
keyadmin.bring(Path(sys.argv[1]), found, now=0.0, random=os.urandom)
print("done", flush=True)
"""


def test_killed_at_any_moment_all_keys_are_there_or_none(path: Path, tmp_path: Path) -> None:
    """Each import is killed a little later than the one before, until one comes to its end."""
    count, seen = 2000, set()
    rows = [f"{sha256(b'%d' % number).hexdigest()},n{number}" for number in range(count)]
    (tmp_path / "k.csv").write_text("\n".join(["key,name", *rows]))
    bring(path, key(2))
    command = [sys.executable, "-c", IMPORTER, str(path), str(tmp_path / "k.csv")]
    for round_ in range(200):
        made = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert made.stdout is not None and made.stdout.readline() == b"at work\n"
        timer = threading.Timer(0.005 * round_, made.kill)
        timer.start()
        said = made.communicate()[0]
        timer.cancel()
        found = len(build(path.read_bytes()))
        assert found in (1, 1 + count)
        assert found == 1 + count or said == b""
        seen.add(found)
        if said:
            break
    assert seen == {1, 1 + count}
    assert {each.name for each in tmp_path.iterdir()} - {".keys.jsonl.new"} == {
        "keys.jsonl",
        "keys.jsonl.lock",
        "k.csv",
    }
