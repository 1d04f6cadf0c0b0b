"""Options that commands share, and the configuration that they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeproxy.cli.output import Failed
from edgeproxy.search import NOT_FOUND, SYSTEM, find_config

if TYPE_CHECKING:
    from edgeproxy.config import Config

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """``--config FILE``, for every command that looks at a configuration."""
    return click.option(
        "-c",
        "--config",
        "config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"The configuration; else ./edgeproxy.yaml, else {SYSTEM}.",
    )(function)


def json_option(function: F) -> F:
    """``--json``."""
    return click.option("--json", "json_", is_flag=True, help="Print JSON.")(function)


def the_file(given: Path | None) -> Path:
    """The configuration file to use.

    :raises Failed: none was named, and none is there.
    """
    found = find_config(given)
    if found is None:
        raise Failed(NOT_FOUND)
    return found


def the_config(given: Path | None) -> Config:
    """The configuration to use, loaded.

    :raises Failed: it is wrong; every reason has its line.
    """
    from edgeproxy.config import ConfigError, load

    try:
        return load(the_file(given))
    except ConfigError as error:
        raise Failed(str(error)) from None


def setting(file: Path, name: str, default: str, *, strict: bool = False) -> Path:
    """A path that the configuration names, also when the rest of it is wrong.

    :raises Failed: when ``strict``, and the file cannot be read at all.
    """
    from edgeproxy.config.nodes import read
    from edgeproxy.config.syntax import Unreadable

    folder = file.absolute().parent
    try:
        node = read(file.read_text("utf-8"), str(file))[0].get(name)
    except (OSError, ValueError, Unreadable) as error:
        if strict:
            raise Failed(_unreadable(file, error)) from None
        return folder / default
    if node is not None and node.pairs is not None:
        node = node.get("folder") or node.get("path")  # the long forms of `certs` and `control`
    found = None if node is None else node.scalar
    return folder / (found if isinstance(found, str) and "\0" not in found else default)


def _unreadable(file: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{file}: {error.strerror}"
    return str(getattr(error, "problem", f"{file}: not UTF-8"))
