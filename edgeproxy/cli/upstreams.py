"""``edgeproxy upstreams``: the targets of the running gateway; taking one out and in again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from edgeproxy.cli.options import config_option, json_option
from edgeproxy.cli.output import Failed, as_json, counted, example, table
from edgeproxy.cli.process import Talk, socket_option, talking

#: Seconds between two looks at what is still under way.
_LOOK = 0.2

F = TypeVar("F", bound=Callable[..., Any])
Found = dict[str, list[dict[str, Any]]]


def _asked(ctx: click.Context, param: click.Parameter, incomplete: str) -> Found:
    """The upstreams of the running gateway, for completion."""
    with talking(ctx.params.get("config"), ctx.params.get("socket")) as talk:
        found: Found = talk.ask("upstreams")["upstreams"]
        return found


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of upstreams; silent when there is nothing to offer."""
    try:
        found = _asked(ctx, param, incomplete)
    except Exception:
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def _targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Targets of the upstream that was named, and their addresses."""
    try:
        found = _asked(ctx, param, incomplete)[ctx.params["name"]]
    except Exception:
        return []
    words = dict.fromkeys(word for each in found for word in (each["target"], each["address"]))
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _target_arguments(function: F) -> F:
    """NAME and TARGET, and where the gateway is."""
    for add in (
        json_option,
        socket_option,
        config_option,
        click.argument("target", metavar="TARGET", shell_complete=_targets),
        click.argument("name", metavar="NAME", shell_complete=_names),
    ):
        function = add(function)
    return function


def _given(
    config: Path | None, socket: Path | None, json_: bool
) -> tuple[Path | None, Path | None, bool]:
    """The options where they stand behind the command, else before it."""
    above = click.get_current_context().parent
    given = {} if above is None else above.params
    return (
        config or given.get("config"),
        socket or given.get("socket"),
        json_ or bool(given.get("json_")),
    )


@click.group(
    invoke_without_command=True,
    short_help="Show targets; take one out and in again.",
    epilog=example("edgeproxy upstreams"),
)
@config_option
@socket_option
@json_option
@click.pass_context
def upstreams(ctx: click.Context, config: Path | None, socket: Path | None, json_: bool) -> None:
    """Show the targets of the running gateway, or take one out and in again."""
    if ctx.invoked_subcommand is not None:
        return
    with talking(config, socket) as talk:
        found = talk.ask("upstreams")["upstreams"]
    if json_:
        as_json(found)
    else:
        show(found)


def show(found: Found) -> None:
    """The table of targets."""
    rows = list(_rows(found))
    ailing = [number for number, row in enumerate(rows) if not row[2].startswith("healthy")]
    columns = ["UPSTREAM", "TARGET", "STATE", "WEIGHT", "UNDER WAY", "CONNECTIONS", "LAST PROBE"]
    table(columns, rows, ailing)


def _rows(found: Found) -> Iterator[list[str]]:
    for name, targets in found.items():
        for each in targets:
            probe = f"{each['probe']}, {each['probe_ago']:g} s ago" if each["probe"] else "-"
            yield [
                name,
                _shown(each),
                state(each),
                str(each["weight"]),
                str(each["under_way"]),
                f"{each['connections']}, {each['idle']} idle",
                probe,
            ]
        if not targets:
            yield [name, "no address is known", "-", "-", "-", "-", "-"]


def _shown(each: dict[str, Any]) -> str:
    at = each["address"]
    return str(each["target"]) if at in each["target"] else f"{each['target']} ({at})"


def state(each: dict[str, Any]) -> str:
    """A target's state, and why."""
    text = str(each["state"])
    if text == "ejected":
        return f"ejected for {each['ejected_for']:g} s: {each['why']}"
    return f"{text}: {each['why']}" if text == "unhealthy" else text


class _Seconds(click.FloatRange):
    """A time to wait. "nan", which Python reads as a number, is below and above no bound."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        found: float = super().convert(value, param, ctx)
        if found != found:
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return found


@upstreams.command(epilog=example("edgeproxy upstreams drain orders 10.0.0.2:9002"))
@click.option("--force", is_flag=True, help="Also the last target: then 503 is answered.")
@click.option("--no-wait", is_flag=True, help="Do not wait for what is under way.")
@click.option(
    "--wait",
    "seconds",
    type=_Seconds(0, 86400),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for what is under way.",
)
@_target_arguments
def drain(
    name: str,
    target: str,
    force: bool,
    no_wait: bool,
    seconds: float,
    config: Path | None,
    socket: Path | None,
    json_: bool,
) -> None:
    """Take a target of the running gateway out.

    It gets no new requests, and what is under way comes to its end: the command waits for that.
    TARGET is a target as it is configured (its scheme may be left out) or one address of it. It
    stays out over a reload, until `edgeproxy upstreams resume`.
    """
    config, socket, json_ = _given(config, socket, json_)
    with talking(config, socket) as talk:
        found = _done(talk.ask("drain_target", upstream=name, target=target, force=force))
        busy = _under_way(found)
        if not no_wait and busy:
            busy = _await_idle(talk, name, found, seconds)
    if json_:
        as_json({**found, "under_way": busy})
    else:
        still = f": {counted(busy, 'request')} under way" if busy else ""
        for each in found["targets"]:
            click.echo(f"{_shown(each)} is draining{still}")
    if busy and not no_wait:
        raise Failed(f"{counted(busy, 'request')} still under way after {seconds:g} s")


@upstreams.command(epilog=example("edgeproxy upstreams resume orders 10.0.0.2:9002"))
@_target_arguments
def resume(name: str, target: str, config: Path | None, socket: Path | None, json_: bool) -> None:
    """Let a target that was drained take requests again."""
    config, socket, json_ = _given(config, socket, json_)
    with talking(config, socket) as talk:
        found = _done(talk.ask("resume_target", upstream=name, target=target))
    if json_:
        as_json(found)
        return
    for each in found["targets"]:
        click.echo(f"{_shown(each)} is {state(each)}")


def _done(found: dict[str, Any]) -> dict[str, Any]:
    if not found["ok"]:
        raise Failed(found["error"])
    return found


def _under_way(found: dict[str, Any]) -> int:
    return sum(int(each["under_way"]) for each in found["targets"])


def _await_idle(talk: Talk, name: str, found: dict[str, Any], seconds: float) -> int:
    """Wait until nothing is under way at these targets; how many requests still are."""
    addresses = {each["address"] for each in found["targets"]}
    end = time.monotonic() + seconds
    while True:
        now: list[dict[str, Any]] = talk.ask("upstreams")["upstreams"].get(name, [])
        gone = sorted(addresses - {each["address"] for each in now})
        if gone:
            raise Failed(
                f"{', '.join(gone)}: no longer a target of '{name}': the configuration, or what "
                "its name leads to, has changed; requests may still be under way there"
            )
        busy = sum(int(each["under_way"]) for each in now if each["address"] in addresses)
        left = end - time.monotonic()
        if not busy or left <= 0:
            return busy
        time.sleep(min(_LOOK, left))
