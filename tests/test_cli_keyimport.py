"""`edgeproxy keys import`: from files to keys that work, or to every problem at once."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from cli_support import call, called, write
from running_support import BIN

KEY = "Zx0123456789abcdefGHIJKLMNOPqrst"
CSV = f"key,name,groups\n{KEY},Ann,staff ops\n{KEY[::-1]},Bob,\n"
KONG = f"consumers: [{{ username: ann, keyauth_credentials: [{{ key: {KEY} }}] }}]\n"
NGINX = 'map $http_x_api_key $client {\n  default "";\n  include keys.inc;\n}\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, the current one."""
    write(tmp_path, routes={"*": {"/": {"page": True}}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(called("keys", "list", "--json"))
    return found


def test_csv(folder: Path) -> None:
    (folder / "k.csv").write_text(CSV)
    dry = call("keys", "import", "k.csv", "--dry-run")
    assert dry.stdout.splitlines() == [
        "k.csv:2: would add Ann, groups staff,ops",
        "k.csv:3: would add Bob",
        "would add 2 keys",
    ]
    assert not (folder / "keys.jsonl").exists()
    done = call("keys", "import", "k.csv")
    assert re.fullmatch(
        r"k\.csv:2: added \w{12} Ann, groups staff,ops\nk\.csv:3: added \w{12} Bob\n"
        r"added 2 keys\n",
        done.stdout,
    )
    assert done.stderr == "k.csv still holds the texts of keys: remove it\n"
    assert [key["name"] for key in listed()] == ["Ann", "Bob"]
    before = (folder / "keys.jsonl").read_bytes()
    again = call("keys", "import", "k.csv")
    assert again.stdout == "added 0 keys, 2 there already\n"
    assert again.stderr.count("this key is there already, as ") == 2
    assert (folder / "keys.jsonl").read_bytes() == before
    for each in (dry, done, again):
        assert KEY not in each.output and KEY[::-1] not in each.output
    assert KEY not in before.decode()


def test_every_problem_at_once_and_nothing_is_added(folder: Path) -> None:
    (folder / "k.csv").write_text(CSV + f"short,Carl,\n{KEY},Dora,\n")
    result = call("keys", "import", "k.csv")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "k.csv:4: the key has 5 characters; 8 to 512 are right",
        "k.csv:5: this is the key of line 2 again; leave one of the two",
        "edgeproxy: nothing was added: 2 problems",
    ]
    assert not (folder / "keys.jsonl").exists()
    found = json.loads(call("keys", "import", "k.csv", "--json").stdout)
    assert not found["ok"] and found["added"] == []
    assert [each["line"] for each in found["problems"]] == [4, 5]


def test_the_field_that_callers_show_keys_in(folder: Path) -> None:
    write(
        folder,
        auth={"api_key": {"header": "ApiKey"}},
        routes={"*": {"/": {"page": True}}},
    )
    (folder / "kong.yaml").write_text(KONG)
    (folder / "nginx.conf").write_text(f"map $http_apikey $client {{ {KEY[::-1]} web; }}")
    assert "apikey" not in call("keys", "import", "kong.yaml").stderr
    called("keys", "import", "nginx.conf")
    assert [key["name"] for key in listed()] == ["ann", "web"]


def test_kong_and_nginx_and_standard_input(folder: Path) -> None:
    (folder / "kong.yaml").write_text(KONG)
    (folder / "nginx.conf").write_text(NGINX)
    (folder / "keys.inc").write_text(f"{KEY[::-1]} web;\n")
    assert (
        "Kong's callers send their keys as `apikey`" in call("keys", "import", "kong.yaml").stderr
    )
    called("keys", "import", "nginx.conf")
    assert [(key["name"], key["consumer"]) for key in listed()] == [("ann", "ann"), ("web", "web")]
    command = [str(BIN / "edgeproxy"), "keys", "import", "-", "--format", "csv", "--json"]
    done = subprocess.run(command, input=CSV, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["ok"] and not found["added"] and len(found["present"]) == 2
    assert found["present"][0]["file"] == "standard input"
    assert done.stderr == ""


def test_json_holds_no_digest(folder: Path) -> None:
    (folder / "k.csv").write_text(CSV)
    found = json.loads(called("keys", "import", "k.csv", "--json"))
    (ann, _) = found["added"]
    assert set(ann) == {"file", "line", "id", "name", "created", "groups"}


def test_short_keys_need_a_pepper(folder: Path) -> None:
    (folder / "k.csv").write_text("key,name\nhunter2hunter2,Ann\n")
    result = call("keys", "import", "k.csv")
    assert result.exit_code == 1
    assert "k.csv:2: the key has 72 bits at most" in result.stderr
    (folder / "pepper").write_text("0123456789abcdef" * 4)
    keys = {"file": "keys.jsonl", "pepper": "${file:pepper}"}
    write(folder, keys=keys, routes={"*": {"/": {"page": True}}})
    called("keys", "import", "k.csv")
    assert listed()[0]["pepper"]


def test_digests_are_taken_and_told(folder: Path) -> None:
    (folder / "k.csv").write_text(f"sha256,name\n{'ab' * 32},Ann\n")
    result = call("keys", "import", "k.csv")
    assert result.exit_code == 0
    assert "warning: of keys that come as SHA-256 nobody can see" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "arguments", "status", "message"),
    [
        ("k.txt", b"", (), 2, "what is k.txt? Say --format csv, kong, nginx"),
        ("k.csv", None, (), 1, "edgeproxy: k.csv: No such file or directory"),
        ("k.csv", b"key,name\n\xff,a", (), 1, "edgeproxy: k.csv:2: not UTF-8; save the file"),
        ("k.csv", b"key,name\n", ("--format", "kong"), 1, "k.csv:1: there are no `consumers`"),
        ("n.conf", NGINX.encode(), (), 1, "n.conf:3: what is included cannot be read: keys.inc"),
    ],
)
def test_what_cannot_be_read(
    folder: Path,
    name: str,
    content: bytes | None,
    arguments: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    result = call("keys", "import", name, *arguments)
    assert result.exit_code == status
    assert message in result.stderr
    assert not (folder / "keys.jsonl").exists()
