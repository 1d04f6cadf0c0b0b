"""What all commands share about talking: tables, JSON, failures, progress.

Results go to standard output, everything else to standard error. Colours and borders are for
terminals only; a pipe gets plain columns that are never cut.
"""

from __future__ import annotations

import json
from typing import Any

import click


class Failed(click.ClickException):
    """The command did not do what was asked; the text says why. Exit status 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"edgeproxy: {line}", err=True)


def example(command: str) -> str:
    """The last lines of a command's help."""
    return f"\b\nExample:\n  {command}"


def as_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
