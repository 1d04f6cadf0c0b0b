"""The command line as a whole: help with examples, exit statuses, completion."""

from __future__ import annotations

import os
from shlex import quote

import click
import pytest
from cli_support import call, called
from running_support import edgeproxy, run

from edgeproxy.cli.main import cli


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        below = (*path, name)
        found += _commands(command, below) if isinstance(command, click.Group) else [below]
    return found


ALL = _commands(cli)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_each_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    text = called(*path, "--help")
    example = text.partition("  Example:\n    ")[2]
    assert " ".join(("edgeproxy", *path)) in example
    assert max(map(len, text.splitlines())) <= 80
    assert called(*path, "-h") == text


@pytest.mark.parametrize("path", [p for p in ALL if p and p[0] not in ("init", "completion")])
def test_each_command_takes_a_configuration(path: tuple[str, ...]) -> None:
    if path != ("keys",):
        assert "--config FILE" in called(*path, "--help")


def test_the_installed_program() -> None:
    done = edgeproxy("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("edgeproxy ")


def test_a_misspelt_command_gets_a_suggestion() -> None:
    result = call("chekc")
    assert result.exit_code == 2
    assert "did you mean 'check'?" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_EDGEPROXY_COMPLETE" in called("completion", shell)


def test_bash_completes_commands() -> None:
    environment = {
        **os.environ,
        "_EDGEPROXY_COMPLETE": "bash_complete",
        "COMP_WORDS": "edgeproxy re",
        "COMP_CWORD": "1",
    }
    assert edgeproxy(env=environment).stdout == "plain,reload\n"


def test_bash_takes_the_script() -> None:
    script = edgeproxy("completion", "bash").stdout
    assert run("bash", "-n", "-c", script).returncode == 0


def test_a_reader_that_stops_reading_is_no_error(tmp_path: object) -> None:
    from running_support import BIN

    done = run("sh", "-c", f"{quote(str(BIN / 'edgeproxy'))} --help | head -n 1")
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["--help", "keys --help", "completion bash"])
def test_output_that_is_not_taken_is_one_line(command: str) -> None:
    from running_support import BIN

    done = run("sh", "-c", f"{quote(str(BIN / 'edgeproxy'))} {command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "edgeproxy: No space left on device\n"
