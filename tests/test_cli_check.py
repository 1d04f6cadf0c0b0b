"""`edgeproxy check`: every problem at once, each with its place; and the exit status."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_support import call, called, write
from clients_support import DAY, REAL, Shop, revoke
from tokens_support import key, key_set

from edgeproxy.certs.development import make


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `init` makes it, the current one."""
    called("init", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_right(folder: Path) -> None:
    assert called("check") == (
        "all right: 1 route, 0 upstreams, 1 certificate for 3 names, 1 key\n"
    )


def test_problems_of_all_three_kinds_at_once(folder: Path) -> None:
    (folder / "edgeproxy.yaml").write_text(
        "rotues: {}\nroutes:\n  '*':\n    /a: nowhere\n    /b: { page: true, limit: nix }\n"
    )
    (folder / "certs" / "half.pem").write_text("-----BEGIN CERTIFICATE-----\nMII")
    with (folder / "keys.jsonl").open("ab") as file:
        file.write(b'{"id": "x", "na')
    result = call("check")
    assert result.exit_code == 1
    places = [line.split(": ")[0] for line in result.stdout.splitlines()]
    assert places == [
        "edgeproxy.yaml:1:1",
        "edgeproxy.yaml:4:9",
        "edgeproxy.yaml:5:30",
        "certs/half.pem:1:1",
        "keys.jsonl:2:1",
    ]
    assert result.stderr == "5 problems\n"


def test_as_json(folder: Path) -> None:
    (folder / "keys.jsonl").write_text("{}\n")
    result = call("check", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["ok"] is False
    assert found["problems"] == [
        {"file": "keys.jsonl", "line": 1, "column": 1, "message": "id is missing"}
    ]


def test_a_broken_configuration_still_says_where_keys_and_certificates_are(folder: Path) -> None:
    (folder / "keys.jsonl").rename(folder / "other.jsonl")
    (folder / "other.jsonl").write_text("{}\n")
    write(folder, certs={"folder": "nix"}, keys="other.jsonl", unknown=1)
    lines = call("check").stdout.splitlines()
    assert any(line.startswith("nix:1:1: there is no such folder") for line in lines)
    assert any(line.startswith("other.jsonl:1:1: id is missing") for line in lines)


def test_no_certificate_at_all(folder: Path) -> None:
    (folder / "certs" / "localhost-key.pem").unlink()
    result = call("check")
    assert result.exit_code == 1
    assert "certs/localhost.pem:1:1: certificate for localhost: its private key" in result.stdout
    assert "certs:1:1: no usable certificate" in result.stdout


def test_an_expired_certificate(folder: Path) -> None:
    made = make(["old.example"], datetime.now(UTC) - timedelta(days=100), days=10)
    (folder / "certs" / "old.pem").write_bytes(made.chain_pem + made.key_pem)
    result = call("check")
    assert result.exit_code == 1
    assert "certs/old.pem:1:1: certificate for old.example expired on" in result.stdout


def test_a_default_that_nothing_is_for(folder: Path) -> None:
    routes = {"*": {"/": {"page": True}}}
    write(folder, certs={"folder": "certs", "default": "shop.example"}, routes=routes)
    assert "no certificate here is for shop.example" in call("check").stdout


def test_a_missing_key_file_counts_when_a_key_is_asked_for(folder: Path) -> None:
    (folder / "keys.jsonl").unlink()
    result = call("check")
    assert result.exit_code == 1
    assert result.stdout == (
        "keys.jsonl:1:1: there is no such file; `edgeproxy keys add NAME` makes it\n"
    )
    write(folder, routes={"*": {"/": {"page": True, "auth": "none"}}})
    assert call("check").exit_code == 0


def test_open_routes_and_hosts_without_certificate_are_told(folder: Path) -> None:
    page = {"page": True}
    routes = {"api.example.com": {"/": page}, "localhost": {"/x": {**page, "auth": "none"}}}
    write(folder, routes=routes)
    result = call("check")
    assert result.exit_code == 0
    assert "open to everyone: localhost /x (edgeproxy.yaml:" in result.stderr
    assert "no certificate is for api.example.com" in result.stderr
    assert "for localhost" not in result.stderr


def test_a_key_file_that_others_can_write_is_told(folder: Path) -> None:
    (folder / "keys.jsonl").chmod(0o666)
    assert "keys.jsonl can be written by others" in call("check").stderr


def test_an_empty_key_file_is_told(folder: Path) -> None:
    (folder / "keys.jsonl").write_bytes(b"")
    result = call("check")
    assert result.exit_code == 0
    assert "holds no key" in result.stderr


def test_a_missing_configuration(folder: Path, tmp_path: Path) -> None:
    result = call("check", "nix.yaml")
    assert result.exit_code == 1
    assert result.stdout.startswith("nix.yaml:1:1: cannot be read")


def test_nothing_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgeproxy.search.SYSTEM", tmp_path / "nowhere")
    result = call("check")
    assert result.exit_code == 1
    assert "no configuration: there is neither" in result.stderr


def test_both_ways_of_naming_a_file(folder: Path) -> None:
    assert call("check", "--config", "edgeproxy.yaml").exit_code == 0
    assert call("check", "edgeproxy.yaml", "--config", "other.yaml").exit_code == 2


def test_resources_are_imported_and_made(folder: Path) -> None:
    (folder / "checkshop.py").write_text(
        "from twisted.web.resource import Resource\n"
        "class Status(Resource): pass\n"
        "class Broken(Resource):\n"
        "    def __init__(self): raise OSError(13, 'no entry')\n"
    )
    text = "routes:\n  '*':\n    /a: { auth: none, resource: checkshop.%s }\n"
    text += "    /b: { resource: %s }\n"
    (folder / "edgeproxy.yaml").write_text(text % ("Status", "twisted.web.resource.Resource"))
    assert "all right: 2 routes" in called("check")
    (folder / "edgeproxy.yaml").write_text(text % ("Statsu", "checkshop.Broken"))
    result = call("check")
    assert result.exit_code == 1
    file = folder / "checkshop.py"
    assert result.stdout.splitlines()[:2] == [
        f"edgeproxy.yaml:3:33: checkshop ({file}) has no 'Statsu'; did you mean 'Status'?",
        "edgeproxy.yaml:4:21: making 'checkshop.Broken' failed: "
        f"PermissionError: [Errno 13] no entry ({file}:4)",
    ]


def test_filters_are_imported_and_made_and_listed(folder: Path) -> None:
    (folder / "checkpolicy.py").write_text(
        "from pydantic import BaseModel\n"
        "class Hours:\n"
        "    class Options(BaseModel):\n"
        "        opens: int\n"
        "    def __init__(self, options): pass\n"
        "    def start(self): raise OSError('it is only looked at')\n"
        "    def on_request(self, request): pass\n"
    )
    text = "routes:\n  '*':\n    /a: { page: true, auth: none, filters: [%s] }\n"
    right = "{ use: checkpolicy.Hours, options: { opens: 9 }, shadow: true }"
    (folder / "edgeproxy.yaml").write_text(text % right)
    assert "all right: 1 route" in called("check")
    assert "checkpolicy.Hours (shadow)" in " ".join(called("routes").split())
    (listed,) = json.loads(called("routes", "--json"))
    assert listed["filters"] == [{"use": "checkpolicy.Hours", "timeout": 5.0, "shadow": True}]
    (folder / "edgeproxy.yaml").write_text(text % "checkpolicy.Hours, checkpolicy.Huors")
    result = call("check")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "edgeproxy.yaml:3:45: 'opens' is missing here; add it",
        f"edgeproxy.yaml:3:64: checkpolicy ({folder / 'checkpolicy.py'}) has no 'Huors'; "
        "did you mean 'Hours'?",
    ]


# -- keys ----------------------------------------------------------------------------------------


def _with_pepper(folder: Path) -> None:
    (folder / "pepper").write_text("0123456789abcdef" * 4)
    text = (folder / "edgeproxy.yaml").read_text()
    pepper = 'keys: { file: keys.jsonl, pepper: "${file:pepper}" }'
    changed = re.sub(r"^keys: keys\.jsonl.*$", lambda _: pepper, text, flags=re.MULTILINE)
    (folder / "edgeproxy.yaml").write_text(changed)


def test_a_pepper_that_is_missing_or_wrong(folder: Path) -> None:
    before = (folder / "edgeproxy.yaml").read_text()
    _with_pepper(folder)
    for name in ("one", "two"):
        called("keys", "add", name)
    assert call("check").exit_code == 0
    (folder / "pepper").write_text("fedcba9876543210" * 4)
    result = call("check")
    assert result.exit_code == 1
    (line,) = result.stdout.splitlines()
    assert line.startswith("keys.jsonl:1:1: 2 keys: the digest is made with another pepper (")
    (folder / "edgeproxy.yaml").write_text(before)
    (line,) = call("check").stdout.splitlines()
    assert "2 keys: the digest is made with a pepper (" in line
    assert "none is configured" in line
    (folder / "pepper").unlink()
    _with_pepper(folder)
    (folder / "pepper").write_text("short")
    result = call("check")
    assert result.exit_code == 1
    (line,) = result.stdout.splitlines()
    assert "this pepper could be guessed" in line and "edgeproxy.yaml:" in line


def test_keys_that_expired_are_counted(folder: Path) -> None:
    (key,) = json.loads(called("keys", "list", "--json"))
    called("keys", "add", "other")
    called("keys", "rotate", key["id"], "--overlap", "0")
    result = call("check")
    assert result.exit_code == 0
    assert "keys.jsonl holds 1 key that expired; `edgeproxy keys list` shows" in result.stderr
    for each in json.loads(called("keys", "list", "--json")):
        called("keys", "revoke", each["id"])
    assert "keys.jsonl holds no valid key: no caller gets in" in call("check").stderr


def test_keys_of_issuers_are_looked_at(folder: Path) -> None:
    good = key_set(key())["keys"][0]
    route = {"localhost": {"/": {"page": True, "auth": "partner"}}}
    entry = {"jwt": "https://id.example.com", "audience": "shop", "jwks": "keys.json"}
    write(folder, auth={"partner": entry}, routes=route)
    result = call("check")
    assert result.exit_code == 1
    assert "'keys.json' cannot be read: no such file" in result.stdout
    (folder / "keys.json").write_text(json.dumps({"keys": [good | {"use": "enc"}]}))
    assert "no key in it is usable: key 1: it is not for signatures" in call("check").stdout
    (folder / "keys.json").write_text(json.dumps({"keys": [good, good | {"use": "enc"}]}))
    result = call("check")
    assert result.exit_code == 0, result.stdout
    assert "auth: partner: jwks: key 2: it is not for signatures (use); it is not used" in (
        result.stderr
    )


@pytest.mark.parametrize("list_", ["soon too old", "too old"])
def test_a_revocation_list_near_its_end(folder: Path, list_: str) -> None:
    shop = Shop(folder)
    start = REAL - 10 * DAY
    end = REAL + DAY / 4 if list_ == "soon too old" else REAL - DAY
    (folder / "staff.crl").write_bytes(revoke(shop.staff, start=start, end=end))
    write(
        folder,
        auth={"staff": {"client_certificate": "staff-ca.pem", "crl": "staff.crl"}},
        client_certificates={"localhost": "staff"},
        routes={"localhost": {"/": {"page": True, "auth": "staff"}}},
    )
    result = call("check")
    if list_ == "too old":
        assert result.exit_code == 1
        assert result.stdout.startswith(
            "staff.crl:1:1: the revocation list of CN=Staff CA is too old: the next one was due on"
        )
        assert "warning: staff.crl" not in result.stderr
    else:
        assert result.exit_code == 0, result.output
        assert "warning: staff.crl: the revocation list of CN=Staff CA is good until" in (
            result.stderr
        )
