"""What all commands share about talking: tables, JSON, failures, progress.

Results go to standard output, everything else to standard error. Colours and borders are for
terminals only; a pipe gets plain columns that are never cut.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

#: Seconds until work counts as long and its progress is shown.
_LONG = 0.5


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
    """Print one JSON document. What is no UTF-8 in the name of a file is an escape (`\\udcff`)."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def warn(message: str) -> None:
    """Something that the person should know and that stops nothing."""
    click.echo(click.style("warning: ", fg="yellow") + printable(message), err=True)


def will_be_shown(what: str) -> None:
    """Call it before a secret is made that is shown once.

    :raises Failed: standard output is closed, so that nobody would see it.
    """
    if sys.stdout is None:
        raise Failed(f"standard output is closed: {what} would be shown to nobody; nothing is done")


def failed_at(error: OSError) -> Failed:
    """A file that cannot be used, in one line."""
    name = f"{shown_path(error.filename)}: " if error.filename else ""
    return Failed(f"{name}{error.strerror or error}")


def shown_path(path: str | Path) -> str:
    """A path as people would write it: relative where it lies below the current folder. On one
    line, whatever the name: it is to be read, not to be opened."""
    try:
        whole, here = os.path.abspath(path), os.getcwd()
    except FileNotFoundError:  # somebody has removed the current folder
        return printable(str(path))
    inside = whole.startswith(here.rstrip("/") + "/")
    return printable(os.path.relpath(whole, here) if inside else whole)


def counted(count: int, what: str) -> str:
    """``1 route``, ``2 routes``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[int] = ()
) -> None:
    """Print rows under headings; ``marked`` are the numbers of rows that must catch the eye.

    Columns in which nothing stands are left out. Control characters, which names from outside
    might hold, never reach the terminal.
    """
    used = [n for n in range(len(columns)) if not rows or any(row[n] != "-" for row in rows)]
    columns = [columns[n] for n in used]
    clean = [[printable(row[n]) for n in used] for row in rows]
    if sys.stdout is not None and sys.stdout.isatty():  # None: it was closed from the start
        _on_terminal(columns, clean, marked)
        return
    widths = [max(map(len, column)) for column in zip(columns, *clean, strict=True)]
    for row in (columns, *clean):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def _on_terminal(
    columns: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[int]
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for number, row in enumerate(rows):
        # Text, not str: what stands in square brackets is no markup of ours.
        made.add_row(*map(Text, row), style="bold red" if number in marked else None)
    Console().print(made)


def printable(text: str) -> str:
    """One line that every terminal takes, whatever names stand in it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show how far work has come, on a terminal and once it has taken a while.

    The function given is called after each step.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=total)
    begun = time.monotonic()
    running = False

    def step() -> None:
        nonlocal running
        bar.advance(task)
        if not running and time.monotonic() - begun > _LONG:
            running = True
            bar.start()

    try:
        yield step
    finally:
        if running:
            bar.stop()
