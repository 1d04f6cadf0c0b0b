"""``edgeproxy keys``: API keys. A credential is shown once; the file holds its hash."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from edgeproxy.cli.keyimport import import_
from edgeproxy.cli.options import (
    config_option,
    json_option,
    key_file,
    pepper,
    setting,
    the_file,
    told,
)
from edgeproxy.cli.output import Failed, as_json, example, shown_path, table, warn, will_be_shown

if TYPE_CHECKING:
    from edgeproxy.identity.apikey import NewKey
    from edgeproxy.identity.keyadmin import Listed

_TIME = "A duration from now (90d, 12h), a date, or a time with its offset."


def _ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Key ids for the shell's completion; silent when there is nothing to offer."""
    from edgeproxy.identity import keyadmin

    try:
        found = keyadmin.listed(key_file(ctx.params.get("config")), now=time.time())
    except Exception:
        return []
    return [CompletionItem(k.id, help=k.name) for k in found if k.id.startswith(incomplete)]


@click.group(epilog=example("edgeproxy keys add partner --plan gold --expires 90d"))
def keys() -> None:
    """Add, list, rotate and revoke API keys. A running gateway notices within two seconds."""


keys.add_command(import_)


@keys.command(epilog=example("edgeproxy keys add partner --plan gold --scope pay --expires 90d"))
@click.argument("name")
@click.option("--plan", default="", help="The plan whose rates apply, as `limits:` names it.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="May be given again.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="May be given again.")
@click.option("--expires", metavar="WHEN", help=_TIME)
@click.option("--not-before", metavar="WHEN", help=_TIME)
@click.option("--note", default="", help="For people; never sent anywhere.")
@config_option
@json_option
def add(
    name: str,
    plan: str,
    scopes: tuple[str, ...],
    groups: tuple[str, ...],
    expires: str | None,
    not_before: str | None,
    note: str,
    config: Path | None,
    json_: bool,
) -> None:
    """Make a key for NAME, and print its credential, this once."""
    from edgeproxy.identity import keyadmin

    will_be_shown("the credential")
    path = key_file(config)
    now = time.time()
    with told(path):
        made = keyadmin.add(
            path,
            name,
            now=now,
            random_bytes=_random(),
            groups=groups,
            scopes=scopes,
            plan=plan,
            not_before=_when(not_before, now),
            expires=_when(expires, now),
            note=note,
            pepper=pepper(the_file(config)),
        )
    _show(made, path, json_)
    if plan:
        _check_plan(plan, config)


@keys.command("list", epilog=example("edgeproxy keys list --json"))
@config_option
@json_option
def list_(config: Path | None, json_: bool) -> None:
    """List all keys, without their credentials, which nobody knows.

    When a key was last used is known to the minute, from the running gateway's state folder.
    """
    from edgeproxy.identity import keyadmin

    path = key_file(config)
    with told(path):
        found = keyadmin.listed(path, now=time.time(), last=_last_used(config))
    if json_:
        as_json([_as_dict(key) for key in found])
        return
    rows = [
        [
            key.id,
            key.name,
            str(key.state),
            key.plan or "-",
            ", ".join(key.scopes) or "-",
            ", ".join(key.groups) or "-",
            _date(key.created),
            _date(key.not_before),
            _date(key.expires),
            _date(key.last_used),
        ]
        for key in found
    ]
    columns = ["ID", "NAME", "STATE", "PLAN", "SCOPES", "GROUPS", "CREATED", "NOT BEFORE"]
    columns += ["EXPIRES", "LAST USED"]
    table(columns, rows, [number for number, key in enumerate(found) if key.state != "ok"])


@keys.command(epilog=example("edgeproxy keys rotate 4fTq0ZVx81Lb --overlap 7d"))
@click.argument("id", metavar="ID", shell_complete=_ids)
@click.option(
    "--overlap",
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="How long the old key goes on working; 0 ends it now.",
)
@click.option("--expires", metavar="WHEN", help=_TIME + " Else as long as the old one was meant.")
@config_option
@json_option
def rotate(id: str, overlap: str, expires: str | None, config: Path | None, json_: bool) -> None:
    """Make a successor of the key ID, and let the old one go on for a while.

    The successor has the same name, plan, scopes and groups, and shares the old key's limits.
    """
    from edgeproxy.identity import keyadmin

    will_be_shown("the credential")
    path = key_file(config)
    now = time.time()
    with told(path):
        made = keyadmin.rotate(
            path,
            id,
            overlap=_duration(overlap),
            now=now,
            random_bytes=_random(),
            expires=_when(expires, now),
            pepper=pepper(the_file(config)),
        )
    _show(made, path, json_)


@keys.command(epilog=example("edgeproxy keys revoke 4fTq0ZVx81Lb"))
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=_ids)
@config_option
def revoke(ids: tuple[str, ...], config: Path | None) -> None:
    """End keys for good. Keys that were rotated from them are not touched."""
    from edgeproxy.identity import keyadmin

    path = key_file(config)
    for id in ids:
        with told(path):
            keyadmin.revoke(path, id, now=time.time())
        click.echo(f"key {id} is revoked")


def _last_used(config: Path | None) -> dict[str, int]:
    """By id; that it cannot be read is no reason to list nothing."""
    from edgeproxy.identity.lastused import NAME, read
    from edgeproxy.state import state_folder

    file = the_file(config)
    folder = file.absolute().parent
    written = setting(file, "state", "")
    path = state_folder(None if written == folder else written, folder, os.environ) / NAME
    try:
        return read(path, time.time())
    except OSError as error:
        warn(f"{shown_path(path)}: {error.strerror}: when keys were last used is not known")
        return {}


def _show(made: NewKey, path: Path, json_: bool) -> None:
    """Print the credential; a key whose credential nobody has seen is ended."""
    from edgeproxy.identity import keyadmin

    try:
        if json_:
            as_json({"id": made.id, "credential": made.credential})
            return
        click.echo(made.credential)
    except OSError as error:
        with told(path):
            keyadmin.revoke(path, made.id, now=time.time())
        raise Failed(
            f"the credential could not be shown: {error.strerror}; key {made.id} is revoked"
        ) from None
    click.echo(f"key {made.id}: shown this once, {shown_path(path)} holds its hash", err=True)


def _check_plan(plan: str, config: Path | None) -> None:
    """A plan that no limit knows has no effect: say so."""
    from edgeproxy.config import ConfigError, load

    try:
        limits = load(the_file(config)).limits.values()
    except ConfigError:
        return  # `edgeproxy check` tells
    known = sorted({name for limit in limits for name in limit.plans})
    if plan not in known:
        warn(f"no limit has a plan {plan!r}; there is: {', '.join(known) or 'none'}")


def _random() -> bytes:
    from edgeproxy.identity.apikey import RANDOM_BYTES

    return os.urandom(RANDOM_BYTES)


def _duration(text: str) -> float:
    from edgeproxy.config.units import duration

    if text.strip() == "0":
        return 0.0
    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _when(text: str | None, now: float) -> float | None:
    """Seconds since 1970, from a duration, a date (its first moment in UTC) or a time."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return now + _duration(text)
    if found.tzinfo is None and len(text) > 10:
        raise click.BadParameter(f"{text}: add the offset, as in 2027-01-31T12:00:00Z")
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _date(when: float | None) -> str:
    return "-" if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%MZ")


def _as_dict(key: Listed) -> dict[str, Any]:
    from edgeproxy.identity.keyfile import stamp

    found = {**key._asdict(), "state": str(key.state)}
    for name in ("created", "not_before", "expires", "last_used"):
        found[name] = None if found[name] is None else stamp(found[name])
    return found
