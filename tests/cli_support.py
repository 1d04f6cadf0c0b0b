"""Running `edgeproxy` in tests: in this process where it only reads files, on a terminal or not."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from running_support import BIN, DEADLINE

from edgeproxy.cli.main import cli


def call(*arguments: Any) -> Result:
    """Run a command in this process; `.stdout`, `.stderr` and `.exit_code` tell what happened."""
    result = CliRunner().invoke(cli, [str(each) for each in arguments], prog_name="edgeproxy")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def called(*arguments: Any) -> str:
    """The standard output of a command that succeeds."""
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def on_terminal(*arguments: Any, cwd: Path) -> str:
    """What a person sees: standard output and error are one terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [str(part) for part in (BIN / "edgeproxy", *arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=cwd,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(slave)
    seen = b""
    try:
        while select.select([master], [], [], DEADLINE)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:  # Linux says EIO when the other side has gone
                break
            if not data:
                break
            seen += data
    finally:
        os.close(master)
        process.wait(DEADLINE)
    return seen.decode()


def write(folder: Path, **config: Any) -> Path:
    """A configuration in a folder."""
    path = folder / "edgeproxy.yaml"
    path.write_text(json.dumps(config, indent=1))
    return path
