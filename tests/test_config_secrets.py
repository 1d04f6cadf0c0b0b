"""`${env:…}`, `${file:…}`, `${credential:…}`: found or an error, and never shown."""

import os
import traceback
from pathlib import Path

import pytest
from config_support import assert_problems

from edgeproxy.config import Config, ConfigError, parse
from edgeproxy.config.secrets import Secrets, expand, read_regular

TEXT = """
upstreams:
  a: {{ targets: http://a, set: {{ X-Token: "{}" }} }}
routes: {{ '*': {{ /: a }} }}
"""


def token(config: Config) -> str:
    return config.upstreams["a"].set["X-Token"].get_secret_value()


def test_each_kind(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds" / "pay").write_text("from-systemd")
    environ = {"TOKEN": "from-env", "CREDENTIALS_DIRECTORY": str(tmp_path / "creds")}
    written = "Bearer ${env:TOKEN} ${file:token} ${credential:pay} $${x} $5"
    config = parse(TEXT.format(written), folder=tmp_path, environ=environ)
    assert token(config) == "Bearer from-env from-file from-systemd ${x} $5"
    shown = repr(config) + str(config) + config.model_dump_json()
    assert "from-env" not in shown and "from-file" not in shown


def test_a_secret_is_not_expanded_again() -> None:
    assert token(parse(TEXT.format("${env:A}"), environ={"A": "${env:B}", "B": "x"})) == "${env:B}"


def test_without_references_it_is_text() -> None:
    assert token(parse(TEXT.format("plain"), environ={})) == "plain"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${env:NOPE}", "the environment variable NOPE is not set; set it before the start"),
        ("${env:EMPTY}", "'${env:EMPTY}' is empty; give it a value"),
        ("${env:a b}", "'a b' is not the name of a variable"),
        ("${file:nope}", "'${file:nope}' cannot be read: no such file or directory"),
        ("${file:folder}", "cannot be read: it is not a regular file"),
        ("${file:fifo}", "cannot be read: it is not a regular file"),
        ("${file:large}", "cannot be read: it is larger than 65536 bytes"),
        ("${file:binary}", "'${file:binary}' is not text in UTF-8"),
        ("${file:lines}", "the value cannot stand in a header field"),
        ("${file:a\\0b}", "cannot be read: its name cannot be a path"),
        ("${credential:pay}", "$CREDENTIALS_DIRECTORY is not set; the systemd unit needs"),
        ("${credential:../x}", "is not the name of a credential"),
        ("${vault:x}", "'${vault:x}' is not a reference; ${env:NAME}, ${file:PATH} and"),
        ("${env}", "is not a reference"),
        ("${env:}", "is not a reference"),
        ("${}", "is not a reference"),
        ("${env:A", "is not a reference"),
        ("${env:NOPE}${env:NOPE2}", "NOPE2"),
    ],
)
def test_problems(tmp_path: Path, written: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "lines").write_text("sekrit\nsekrit\n")
    with pytest.raises(ConfigError) as caught:
        parse(TEXT.format(written), "e.yaml", folder=tmp_path, environ={"EMPTY": ""})
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (3, 43)
    assert message in problem.message
    assert "sekrit" not in "".join(traceback.format_exception(caught.value))


def test_only_in_set() -> None:
    assert_problems(
        """
keys: x
listen: »${env:PORT}
upstreams:
  a: »http://${env:HOST}
routes:
  '*':
    /: { to: a, request: { set: { X-A: »"${env:A}" } } }
""",
        "(`${…}` is put in only under an upstream's `set`)",
        "(`${…}` is put in only under an upstream's `set`)",
        "secrets are put in only under an upstream's `set`; move the field there",
    )


def test_read_regular_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        with pytest.raises((OSError, ValueError)):
            read_regular(tmp_path, 10)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert before == after


def test_expand_tells_all_that_failed() -> None:
    with pytest.raises(ValueError, match="A is not set.*; .*B is not set"):
        expand("${env:A} ${env:B}", Secrets(Path("."), {}))
