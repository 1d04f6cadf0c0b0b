"""docs/keys.md, run from the top: each file as it stands there, each command as it is pasted."""

from __future__ import annotations

import json
import shlex
from hashlib import sha256
from pathlib import Path

import pytest
from cli_support import called
from docs_support import of, page
from running_support import run, write_config

from edgeproxy.identity.apikey import well_formed
from edgeproxy.identity.keyfile import parse_line
from edgeproxy.identity.keystore import load
from edgeproxy.testing import MemoryGateway

NAME = "docs/keys.md"
LINES, PEPPER = of(NAME, "yaml")
ADD, CSV, KONG, NGINX, MAKE_PEPPER = of(NAME, "sh")
FILES = {"keys.csv": "csv", "kong.yaml": "yaml kong", "nginx.conf": "nginx"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_config(tmp_path, LINES)
    monkeypatch.chdir(tmp_path)
    for name, language in FILES.items():
        (text,) = of(NAME, language)
        (tmp_path / name).write_text(text)
    return tmp_path


def paste(commands: str) -> str:
    said = ""
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "edgeproxy"
        said += called(*arguments)
    return said


def test_ten_lines(folder: Path) -> None:
    credential = paste(ADD).strip()
    assert well_formed(credential.encode())
    gateway = MemoryGateway(LINES)
    added = gateway.gateway.keys.index.add
    for line in (folder / "keys.jsonl").read_bytes().splitlines():
        assert added(parse_line(line, 1), line)
    client = gateway.client()
    head = (
        f"POST /users HTTP/1.1\r\nHost: a\r\nX-API-Key: {credential}\r\nContent-Length: 0\r\n\r\n"
    )
    client.send(head.encode())
    gateway.reactor.settle()
    assert b"X-Consumer-Name: partner\r\n" in gateway.service("users").accept().received


def test_imports(folder: Path) -> None:
    pepper, make_private = MAKE_PEPPER.strip().split(" && ")
    assert make_private == "chmod 600 pepper"
    done = run("sh", "-c", pepper, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "would add 2 keys" in paste(CSV)
    assert "added 2 keys" in paste(NGINX), "24 letters and digits are enough"
    write_config(folder, PEPPER + "routes: {}")
    assert "added 2 keys" in paste(KONG)
    found = {key["name"]: key for key in json.loads(called("keys", "list", "--json"))}
    assert set(found) == {"Ann's shop", "Reports", "web", "mobile", "ann"}
    assert found["Ann's shop"]["groups"] == ["partners", "eu"]
    assert found["Ann's shop"]["expires"] == "2030-01-31T00:00:00Z"
    assert found["ann"]["groups"] == ["partners"] and found["ann"]["consumer"] == "ann"
    assert found["ann"]["pepper"] and not found["web"]["pepper"]
    for commands in (CSV, KONG, NGINX):
        assert "added 0 keys, 2 there already" in paste(commands)


def test_the_line_of_a_key_is_one(tmp_path: Path) -> None:
    (line,) = of(NAME, "json")
    (tmp_path / "keys.jsonl").write_text(line)
    assert len(load(tmp_path / "keys.jsonl")) == 1
    assert '`printf %s "$KEY" | sha256sum`' in page(NAME)
    done = run(
        "sh", "-c", 'printf %s "$KEY" | sha256sum', env={"KEY": "abc", "PATH": "/bin:/usr/bin"}
    )
    assert done.stdout.split()[0] == sha256(b"abc").hexdigest()
