"""Options that commands share, and the configuration that they name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeproxy.cli.output import Failed, shown_path
from edgeproxy.search import NOT_FOUND, SYSTEM, find_config

if TYPE_CHECKING:
    from edgeproxy.config import Config
    from edgeproxy.config.nodes import Node
    from edgeproxy.identity.pepper import Pepper

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
    folder = file.absolute().parent
    node = _node(file, name, strict=strict)
    if node is not None and node.pairs is not None:
        node = node.get("folder") or node.get("path") or node.get("file")  # the long forms
    found = None if node is None else node.scalar
    return folder / (found if isinstance(found, str) and "\0" not in found else default)


def pepper(file: Path) -> Pepper | None:
    """The pepper of the key file, also when the rest of the configuration is wrong.

    :raises Failed: it cannot be found, or the configuration cannot be read at all.
    """
    from edgeproxy.config.keys import Keys, pepper
    from edgeproxy.config.secrets import Secrets

    node = _node(file, "keys", strict=True)
    node = None if node is None else node.get("pepper")
    if node is None:
        return None
    text = node.scalar if isinstance(node.scalar, str) else ""
    try:
        found = pepper(text, Secrets(file.absolute().parent, os.environ))
    except ValueError as error:
        raise Failed(f"{shown_path(file)}:{node.line}:{node.column}: {error}") from None
    return Keys(pepper=found).hashing


def key_header(file: Path) -> str:
    """The field that may carry keys beside X-API-Key, "" for none, also when the rest of the
    configuration is wrong.

    :raises Failed: the configuration cannot be read at all.
    """
    node = _node(file, "auth", strict=True)
    for name in ("api_key", "header"):
        node = None if node is None else node.get(name)
    return node.scalar if node is not None and isinstance(node.scalar, str) else ""


def key_file(config: Path | None) -> Path:
    """The key file; a mistake elsewhere in the configuration must not stop a revocation."""
    return setting(the_file(config), "keys", "keys.jsonl", strict=True)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Errors in words, with the file's name."""
    from edgeproxy.identity.keyadmin import KeyCommandError
    from edgeproxy.identity.keyfile import KeyFileError

    try:
        yield
    except KeyFileError as error:
        raise Failed(f"{shown_path(path)}:{error.line or 1}:1: {error.message}") from None
    except KeyCommandError as error:
        raise Failed(str(error)) from None
    except OSError as error:
        raise Failed(f"{shown_path(error.filename or path)}: {error.strerror}") from None


def _node(file: Path, name: str, *, strict: bool) -> Node | None:
    from edgeproxy.config.nodes import read
    from edgeproxy.config.syntax import Unreadable

    try:
        return read(file.read_text("utf-8"), str(file))[0].get(name)
    except (OSError, ValueError, Unreadable) as error:
        if strict:
            raise Failed(_unreadable(file, error)) from None
        return None


def _unreadable(file: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{file}: {error.strerror}"
    return str(getattr(error, "problem", f"{file}: not UTF-8"))
