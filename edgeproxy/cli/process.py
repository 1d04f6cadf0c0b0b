"""``edgeproxy status``, ``reload`` and ``drain``: what the running gateway says and does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from edgeproxy.cli.options import config_option, json_option, setting, the_file
from edgeproxy.cli.output import Failed, as_json, counted, example, shown_path, warn

#: Seconds to wait for an answer; a reload of five thousand routes takes a few.
PATIENCE = 120.0

F = TypeVar("F", bound=Callable[..., Any])


def socket_option(function: F) -> F:
    """``--socket PATH``, for every command that talks to a running gateway."""
    return click.option(
        "--socket",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="The control socket, where no configuration names it.",
    )(function)


class Talk:
    """A conversation over the control socket."""

    def __init__(self, sock: Any, path: Path) -> None:
        self._sock = sock
        self._path = path
        self._lines: IO[bytes] = sock.makefile("rb")

    def ask(self, command: str, **arguments: str | bool) -> dict[str, Any]:
        """Send a command; its answer.

        :raises Failed: there is none.
        """
        self._sock.sendall(json.dumps({"command": command, **arguments}).encode("ascii") + b"\n")
        answer = self.next()
        if answer is None:
            raise Failed(f"{self._path}: the gateway has ended without an answer")
        return answer

    def wait_for_ever(self) -> None:
        """From now on, an answer may take as long as it likes."""
        self._sock.settimeout(None)

    def next(self) -> dict[str, Any] | None:
        """The next object, or ``None`` when the gateway has closed the connection."""
        try:
            line = self._lines.readline()
            found: dict[str, Any] | None = json.loads(line) if line else None
        except ConnectionError:
            return None
        except TimeoutError:
            raise Failed(f"{self._path}: no answer within {PATIENCE:g} s") from None
        except ValueError:
            raise Failed(f"{self._path}: what answers there is no gateway") from None
        return found


@contextmanager
def talking(config: Path | None, socket: Path | None) -> Iterator[Talk]:
    """Talk to the gateway of a configuration; a mistake in that does not matter here.

    :raises Failed: no gateway is running.
    """
    from edgeproxy.control import connected

    path = socket or setting(the_file(config), "control", "edgeproxy.sock")
    try:
        with connected(path, PATIENCE) as sock:
            yield Talk(sock, path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise Failed(
            f"no gateway is running: nothing answers at {shown_path(path)}; "
            "`twistd -n edgeproxy` starts one"
        ) from None
    except OSError as error:
        raise Failed(f"{shown_path(path)}: {error.strerror or error}") from None


@click.command(short_help="Show the running gateway.", epilog=example("edgeproxy status --json"))
@config_option
@socket_option
@json_option
def status(config: Path | None, socket: Path | None, json_: bool) -> None:
    """Show what the running gateway has in force and what it is doing."""
    with talking(config, socket) as talk:
        found = talk.ask("status")
    if json_:
        as_json(found)
        return
    for name, value in _summary(found):
        click.echo(f"{click.style(f'{name:<13}', bold=True)} {value}")
    if found["upstreams"]:
        from edgeproxy.cli.upstreams import show

        click.echo()
        show(found["upstreams"])
    for route in found["open_routes"]:
        warn(f"open to everyone: {route}")
    for problem in found["certificates"]["problems"] + found["certificates"]["warnings"]:
        warn(f"certificates: {problem}")
    if found["client_certificates"]["trouble"]:
        warn(found["client_certificates"]["trouble"])
    for name, each in found["credentials"].items():
        if each.get("error"):
            what = "its endpoint fails" if "endpoint" in each else "no newer keys from its issuer"
            warn(f"auth: {name}: {what}: {each['error']}")
    if found["keys"]["trouble"]:
        warn(found["keys"]["trouble"])
    last = found["last_reload"]
    if last is not None and not last["ok"]:
        warn("the last reload was refused: " + "; ".join(last["lines"]))


def _summary(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    counters = found["counters"]
    state = found["state"]
    if state == "running" and found["not_ready"]:
        state += f" but not ready ({found['not_ready']})"
    yield "edgeproxy", f"{found['version']}, {state}, process {found['pid']}"
    yield "up for", _duration(found["uptime"])
    yield "configuration", f"{found['config'] or 'none'}, {counted(found['reloads'], 'reload')}"
    for each in found["listeners"]:
        now = f"{counted(each['connections'], 'connection')} open, {each['accepted']} accepted"
        yield each["scheme"], f"port {each['port']}, {now}"
    yield "routes", str(found["routes"])
    certificates = found["certificates"]
    expiry = certificates["next_expiry"]
    until = f", the next expires on {expiry[:10]}" if expiry else ""
    changes = counted(counters["certificates"]["changes"] - 1, "change")
    yield "certificates", f"for {counted(certificates['names'], 'name')}{until}, {changes}"
    asking = found["client_certificates"]["names"]
    if asking:
        yield "client certificates", ", ".join(f"{host}: {by}" for host, by in asking.items())
    yield "keys", str(found["keys"]["count"])
    for name, each in found["credentials"].items():
        yield name, _credential(each)
    for name, each in found["names"].items():
        if each["error"]:
            yield "name", f"{name}: {each['error']}, {counted(each['failures'], 'look-up')} failed"
    if found["tunnels"]:
        yield "tunnels", str(found["tunnels"])
    for name, each in found["filters"].items():
        yield "filter", f"{name}: {_filter(each)}"
    answers = ", ".join(f"{status}: {count}" for status, count in counters["statuses"].items())
    yield "requests", f"{counters['requests']}" + (f" ({answers})" if answers else "")
    guessing = counters["guessing"]
    if guessing["failures"]:
        told = counted(guessing["failures"], "wrong credential")
        yield "guessing", f"{told}, {counted(guessing['refused'], 'request')} refused for it"
    if counters["shadow"]:
        yield "in shadow", ", ".join(f"{each}: {n}" for each, n in counters["shadow"].items())


def _credential(each: dict[str, Any]) -> str:
    if "endpoint" in each:
        return f"{each['endpoint']}, {counted(each['remembered'], 'caller')} remembered"
    age = "" if each["age"] is None else f", {_duration(each['age'])} old"
    return f"{each['issuer']}, {counted(each['keys'], 'key')}{age}"


def _filter(counts: dict[str, Any]) -> str:
    """What a filter has done, and what one call of it has cost."""
    calls = counts["calls"]
    parts = [counted(calls, "call")]
    if calls:
        parts.append(f"{counts['seconds'] / calls * 1e6:.0f} µs each")
    names = ("refused", "errors", "timeouts", "shadowed")
    return ", ".join([*parts, *(f"{name} {counts[name]}" for name in names if counts[name])])


def _duration(seconds: float) -> str:
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


@click.command(
    short_help="Let the running gateway take over the configuration.",
    epilog=example("edgeproxy check && edgeproxy reload"),
)
@config_option
@socket_option
@json_option
def reload(config: Path | None, socket: Path | None, json_: bool) -> None:
    """Let the running gateway take over the changed configuration.

    Says what changed, or why it was refused: then everything stays as it was, and the exit
    status is 1.
    """
    with talking(config, socket) as talk:
        found = talk.ask("reload")
    if json_:
        as_json(found)
        raise SystemExit(0 if found["ok"] else 1)
    if not found["ok"]:
        raise Failed("not reloaded, everything stays as it was\n" + found["error"])
    for line in found["changes"] or ["reloaded: nothing had changed"]:
        click.echo(line)


@click.command(
    short_help="Let the running gateway finish its requests and end.",
    epilog=example("edgeproxy drain"),
)
@click.option("--no-wait", is_flag=True, help="Do not wait until the process has ended.")
@config_option
@socket_option
def drain(no_wait: bool, config: Path | None, socket: Path | None) -> None:
    """Let the running gateway end: no new connections, open requests come to their end.

    What is left after `timeouts: drain:` is cut.
    """
    with talking(config, socket) as talk:
        found = talk.ask("drain")
        if not found["ok"]:
            raise Failed(found["error"])
        count = found["connections"]
        if count or no_wait:
            click.echo(
                f"draining {counted(count, 'connection')}, {found['seconds']:g} s at most", err=True
            )
        if no_wait:
            return
        _await_end(talk)


def _await_end(talk: Talk) -> None:
    from rich.console import Console
    from rich.status import Status

    cut = 0
    talk.wait_for_ever()
    seen = sys.stderr is not None and sys.stderr.isatty()
    with Status("draining", console=Console(stderr=True)) if seen else nullcontext():
        while (told := talk.next()) is not None:
            cut = told.get("cut", cut)
    click.echo("drained" + (f"; {counted(cut, 'connection')} cut" if cut else ""))
