"""``edgeproxy completion``: the script by which a shell completes commands and options."""

from __future__ import annotations

import click

from edgeproxy.cli.output import Failed, example


@click.command(
    epilog=example("source <(edgeproxy completion bash)"),
    short_help="Print the completion script for a shell.",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash  edgeproxy completion bash > /etc/bash_completion.d/edgeproxy
    zsh   edgeproxy completion zsh > "${fpath[1]}/_edgeproxy"
    fish  edgeproxy completion fish > ~/.config/fish/completions/edgeproxy.fish
    """
    from click.shell_completion import get_completion_class

    from edgeproxy.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise Failed(f"click knows no completion for {shell}")
    click.echo(kind(cli, {}, "edgeproxy", "_EDGEPROXY_COMPLETE").source())
