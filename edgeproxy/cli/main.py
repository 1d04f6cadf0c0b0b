"""The command line's root: all commands by name, each loaded when it is asked for."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from edgeproxy.cli.output import example, failed_at

#: The module in which each command lives, in the order in which help lists them.
COMMANDS = {
    "init": "init",
    "check": "check",
    "keys": "keys",
    "routes": "listing",
    "certs": "certs",
    "status": "process",
    "upstreams": "upstreams",
    "reload": "process",
    "drain": "process",
    "completion": "completion",
}


class _Commands(click.Group):
    """Imports a command's module only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        found: click.Command = getattr(import_module(f"edgeproxy.cli.{module}"), cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = get_close_matches(args[0], COMMANDS, 1)
        if args[0] not in COMMANDS and near:
            ctx.fail(f"there is no command {args[0]!r}; did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly when nobody reads on
        except OSError as error:
            raise failed_at(error) from None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example("edgeproxy init shop && cd shop && twistd -n edgeproxy"),
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
    status: str | int | None = 0
    try:
        cli.main(prog_name="edgeproxy")
    except SystemExit as end:
        status = end.code
    except OSError as error:  # printing help, where no command is there yet to tell of it
        failed_at(error).show()
        status = 1
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Python would try again as it ends, and tell of it by a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not status and not isinstance(error, BrokenPipeError):
            failed_at(error).show()
        status = status or 1
    sys.exit(status)
