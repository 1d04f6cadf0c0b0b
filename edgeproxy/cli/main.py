"""The command line's root: all commands by name, each loaded when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from edgeproxy.cli.output import example

#: Where each command lives; its help's first line stands here so that listing loads nothing.
COMMANDS = {
    "init": "init",
}


class _Lazy(click.Group):
    """Imports a command's module only when it runs: `keys add` does not load OpenSSL."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        found: Any = getattr(import_module(f"edgeproxy.cli.{module}"), cmd_name)
        return found  # type: ignore[no-any-return]


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example("edgeproxy init shop"),
)
@click.version_option(package_name="edgeproxy", message="edgeproxy %(version)s")
def cli() -> None:
    """A TLS-terminating edge proxy and API gateway: closed by default.

    The gateway itself is started by `twistd -n edgeproxy`.
    """


def main() -> None:
    """The entry point ``edgeproxy``."""
    if sys.platform == "win32":
        sys.exit("edgeproxy runs on Linux and macOS; Windows is not supported")
    cli.main(prog_name="edgeproxy")
