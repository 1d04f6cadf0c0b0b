"""`keys`: short and long, and what a pepper has to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.changes import describe
from edgeproxy.config import ConfigError, parse
from edgeproxy.identity.pepper import Pepper

GOOD = "0123456789abcdef" * 4


def test_short_and_long(tmp_path: Path) -> None:
    short = parse("keys: k.jsonl\nroutes: {}", folder=tmp_path)
    long = parse("keys: { file: k.jsonl }\nroutes: {}", folder=tmp_path)
    assert short.keys == long.keys
    assert short.keys.file == tmp_path / "k.jsonl"
    assert short.keys.hashing is None


@pytest.mark.parametrize("reference", ["${file:pepper}", "${env:PEPPER}", "${credential:pepper}"])
def test_a_pepper(tmp_path: Path, reference: str) -> None:
    (tmp_path / "pepper").write_text(GOOD + "\n")
    environ = {"PEPPER": GOOD, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    text = f'keys: {{ pepper: "{reference}" }}\nroutes: {{}}'
    config = parse(text, folder=tmp_path, environ=environ)
    assert config.keys.hashing is not None
    assert config.keys.hashing.fingerprint == Pepper(GOOD.encode()).fingerprint
    assert GOOD not in repr(config)
    again = parse(text, folder=tmp_path, environ=environ)
    assert again == config
    other = parse(text.replace(reference, "${env:O}"), folder=tmp_path, environ={"O": GOOD[::-1]})
    assert describe(config, other) == ["keys changed"]


@pytest.mark.parametrize(
    ("written", "value", "message"),
    [
        (f'"{GOOD}"', "", "a pepper stands outside; write ${file:PATH}, "),
        ("5", "", "a pepper stands outside; write ${file:PATH}, "),
        ('"x${env:PEPPER}"', GOOD, "a pepper stands outside; write ${file:PATH}, "),
        ('"${env:PEPPER}"', "hunter2", "this pepper could be guessed; 128 random bits or more"),
        ('"${env:PEPPER}"', "a" * 100, "this pepper could be guessed; 128 random bits or more"),
        ('"${env:PEPPER}"', "", "${env:PEPPER}' is empty; give it a value"),
        ('"${env:OTHER}"', GOOD, "the environment variable OTHER is not set"),
        ('"${file:none}"', GOOD, "cannot be read: no such file"),
    ],
)
def test_what_is_no_pepper(written: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"keys: {{ pepper: {written} }}\nroutes: {{}}", environ={"PEPPER": value})
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (1, 17)
    assert message in problem.message
    assert value not in problem.message or not value


def test_a_setting_that_is_none() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pepper'"):
        parse("keys: { peper: x }\nroutes: {}")
