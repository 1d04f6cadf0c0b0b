"""`edgeproxy keys`: made, listed, rotated, revoked; the credential is shown once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from shlex import quote

import pytest
from cli_support import call, called, write
from running_support import BIN, run

from edgeproxy.identity.apikey import digest, well_formed
from edgeproxy.identity.pepper import Pepper


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key file of a folder with a configuration, the current one."""
    limits = {"default": {"rate": "100/min", "plans": {"gold": "1000/min"}}}
    write(tmp_path, routes={"*": {"/": {"page": True}}}, limits=limits, keys="k.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "k.jsonl"


def listed() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(called("keys", "list", "--json"))
    return found


def test_add_prints_the_credential_alone_and_stores_its_hash(keys: Path) -> None:
    result = call("keys", "add", "partner")
    credential = result.stdout.strip().encode()
    assert well_formed(credential)
    stored = json.loads(keys.read_text())
    assert stored["digest"] == digest(credential).hex()
    assert credential.decode() not in keys.read_text()
    assert f"key {stored['id']}: shown this once, k.jsonl holds its hash" in result.stderr


def test_add_takes_everything_that_a_key_has(keys: Path) -> None:
    called(
        *("keys", "add", "Partner Inc.", "--plan", "gold", "--scope", "pay", "--scope", "read"),
        *("--group", "eu", "--expires", "2099-01-31", "--note", "asked by Ann"),
    )
    (found,) = listed()
    assert found["name"] == "Partner Inc."
    assert found["plan"] == "gold"
    assert found["scopes"] == ["pay", "read"]
    assert found["groups"] == ["eu"]
    assert found["expires"] == "2099-01-31T00:00:00Z"
    assert found["note"] == "asked by Ann"
    assert found["state"] == "ok"


def test_a_plan_that_no_limit_knows_is_told(keys: Path) -> None:
    assert call("keys", "add", "a", "--plan", "gold").stderr.count("\n") == 1
    assert (
        "no limit has a plan 'glod'; there is: gold"
        in call("keys", "add", "b", "--plan", "glod").stderr
    )


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("2020-01-01", "later than now"),
        ("2099-01-31T12:00:00", "add the offset"),
        ("soon", "soon"),
        ("9999999d", "9999999d"),
    ],
)
def test_a_wrong_time_is_refused(keys: Path, text: str, right: str) -> None:
    result = call("keys", "add", "a", "--expires", text)
    assert result.exit_code in (1, 2)
    assert right in result.stderr
    assert not keys.exists() or keys.read_bytes() == b""


def test_the_table_holds_no_credential_and_marks_what_is_over(keys: Path) -> None:
    credential = called("keys", "add", "first").strip()
    called("keys", "revoke", str(listed()[0]["id"]))
    called("keys", "add", "second")
    text = called("keys", "list")
    lines = text.splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATE", "CREATED"]
    assert " revoked " in lines[1] and " ok " in lines[2]
    assert credential not in text and "\x1b" not in text


def test_rotate_makes_a_successor_and_lets_the_old_one_go_on(keys: Path) -> None:
    called("keys", "add", "partner", "--plan", "gold")
    first = str(listed()[0]["id"])
    credential = called("keys", "rotate", first, "--overlap", "7d").strip()
    assert well_formed(credential.encode())
    old, new = listed()
    assert old["state"] == "ok" and old["expires"] is not None
    assert (new["replaces"], new["consumer"], new["plan"]) == (first, first, "gold")
    called("keys", "rotate", str(new["id"]), "--overlap", "0")
    assert [key["state"] for key in listed()] == ["ok", "expired", "ok"]


def test_what_cannot_be_done_is_one_line(keys: Path) -> None:
    called("keys", "add", "partner")
    for command in (("rotate", "nix"), ("revoke", "nix")):
        result = call("keys", *command)
        assert result.exit_code == 1
        assert result.stderr == "edgeproxy: there is no key nix\n"


def test_a_broken_file_is_left_alone(keys: Path) -> None:
    keys.write_bytes(b'{"id": "x"\n')
    for command in (("add", "a"), ("list",), ("revoke", "x"), ("rotate", "x")):
        result = call("keys", *command)
        assert result.exit_code == 1
        assert re.match(r"edgeproxy: k\.jsonl:1:1: not a JSON object", result.stderr)
    assert keys.read_bytes() == b'{"id": "x"\n'


def test_no_file_yet(keys: Path) -> None:
    result = call("keys", "list")
    assert result.exit_code == 1
    assert result.stderr == "edgeproxy: k.jsonl: No such file or directory\n"


def test_a_mistake_elsewhere_does_not_stop_a_revocation(keys: Path, tmp_path: Path) -> None:
    called("keys", "add", "leaked")
    key = str(listed()[0]["id"])
    write(tmp_path, keys="k.jsonl", rotues={})
    assert called("keys", "revoke", key) == f"key {key} is revoked\n"
    assert listed()[0]["state"] == "revoked"


@pytest.mark.parametrize("text", ["keys: [", None])
def test_no_key_file_is_made_where_the_configuration_cannot_be_read(
    keys: Path, tmp_path: Path, text: str | None
) -> None:
    if text is None:
        (tmp_path / "edgeproxy.yaml").unlink()
    else:
        (tmp_path / "edgeproxy.yaml").write_text(text)
    result = call("keys", "add", "a", "--config", tmp_path / "edgeproxy.yaml")
    assert result.exit_code == 1
    assert "edgeproxy.yaml" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("k*.jsonl"))


def test_ids_are_completed(keys: Path) -> None:
    from click.shell_completion import ShellComplete

    from edgeproxy.cli.main import cli

    called("keys", "add", "partner")
    key = str(listed()[0]["id"])
    complete = ShellComplete(cli, {}, "edgeproxy", "_EDGEPROXY_COMPLETE")
    found = complete.get_completions(["keys", "revoke"], key[:3])
    assert [(item.value, item.help) for item in found] == [(key, "partner")]
    keys.write_bytes(b"broken")
    assert complete.get_completions(["keys", "revoke"], "") == []


# -- a pepper ------------------------------------------------------------------------------------


def test_the_pepper_is_the_configurations(keys: Path, tmp_path: Path) -> None:
    secret = "0123456789abcdef" * 4
    (tmp_path / "pepper").write_text(secret)
    write(tmp_path, keys={"file": "k.jsonl", "pepper": "${file:pepper}"}, rotues={})
    credential = called("keys", "add", "partner").strip()
    called("keys", "rotate", str(listed()[0]["id"]))
    for line in keys.read_text().splitlines():
        assert json.loads(line)["pepper"] == Pepper(secret.encode()).fingerprint
    digests = [json.loads(line)["digest"] for line in keys.read_text().splitlines()]
    assert digests[0] == Pepper(secret.encode()).digest(credential.encode()).hex()
    (tmp_path / "pepper").unlink()
    result = call("keys", "add", "other")
    assert result.exit_code == 1
    assert re.fullmatch(
        r"edgeproxy: edgeproxy\.yaml:4:13: '\$\{file:pepper\}' cannot be read: .*\n", result.stderr
    )
    called("keys", "revoke", str(listed()[0]["id"]))  # needs no pepper
    assert [key["state"] for key in listed()] == ["revoked", "ok"]


def test_the_last_use_is_listed(keys: Path, tmp_path: Path) -> None:
    called("keys", "add", "one")
    called("keys", "add", "two", "--not-before", "2099-01-01")
    assert "LAST USED" not in called("keys", "list")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "keys.used").write_text(f"{listed()[0]['id']} 1767225600\n")
    assert [key["last_used"] for key in listed()] == ["2026-01-01T00:00:00Z", None]
    table = called("keys", "list")
    assert "NOT BEFORE" in table and "2099-01-01 00:00Z" in table
    assert table.splitlines()[1].endswith("2026-01-01 00:00Z")
    write(tmp_path, keys="k.jsonl", state="elsewhere")
    assert "LAST USED" not in called("keys", "list")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "keys.used").mkdir()
    result = call("keys", "list")
    assert result.exit_code == 0
    assert "when keys were last used is not known" in result.stderr


@pytest.mark.parametrize("option", ["", "--json"])
def test_a_credential_that_nobody_would_see(keys: Path, option: str) -> None:
    """With standard output closed no key is made; where printing fails it is revoked."""
    edgeproxy = quote(str(BIN / "edgeproxy"))
    first = called("keys", "add", "first").strip().split("_")[1]
    for what in ("add second", f"rotate {first}"):
        closed = run("sh", "-c", f"{edgeproxy} keys {what} {option} >&-", cwd=keys.parent)
        assert closed.returncode == 1
        assert "standard output is closed: the credential would be shown to nobody" in closed.stderr
        assert len(closed.stderr.splitlines()) == 1
    assert [each["id"] for each in listed()] == [first]
    for what in ("add second", f"rotate {first}"):
        full = run("sh", "-c", f"{edgeproxy} keys {what} {option} >/dev/full", cwd=keys.parent)
        assert full.returncode == 1
        assert len(full.stderr.splitlines()) == 1
        made = listed()[-1]
        assert made["state"] == "revoked"
        assert full.stderr == (
            "edgeproxy: the credential could not be shown: No space left on device; "
            f"key {made['id']} is revoked\n"
        )
