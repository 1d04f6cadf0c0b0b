"""``edgeproxy keys import``: keys of another gateway, all of them or none."""

from __future__ import annotations

import glob
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeproxy.cli.options import (
    config_option,
    json_option,
    key_file,
    key_header,
    pepper,
    the_file,
    told,
)
from edgeproxy.cli.output import Failed, as_json, counted, example, shown_path, warn

if TYPE_CHECKING:
    from edgeproxy.identity.keyimport import Findings, Plan, Told

FORMATS = ("csv", "kong", "nginx")
_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "csv",
    ".yaml": "kong",
    ".yml": "kong",
    ".json": "kong",
    ".conf": "nginx",
}
LARGEST = 256 << 20  # bytes: more than a million keys


@click.command("import", epilog=example("edgeproxy keys import kong.yaml --dry-run"))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="What FILE is; else its name tells: .csv, .yaml or .json of Kong, .conf of nginx.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would be added.")
@config_option
@json_option
def import_(
    file: Path, format_: str | None, dry_run: bool, config: Path | None, json_: bool
) -> None:
    """Add the keys that FILE (- for standard input) holds, with their own text.

    It is a CSV file whose first line names the columns, a declarative file of Kong, or a
    configuration of nginx with `map $http_x_api_key $client {...}`. All keys are added, or, where
    one is wrong, none; those that are there already are left as they are. Callers send them as
    X-API-Key, or in the field that `auth: { api_key: { header: NAME } }` names.
    """
    from edgeproxy.identity import keyadmin

    format_ = format_ or _BY_SUFFIX.get(file.suffix.lower())
    if format_ is None:
        raise click.UsageError(f"what is {file}? Say --format {', '.join(FORMATS)}")
    now = time.time()
    found = _read(file, format_, now, key_header(the_file(config)))
    path = key_file(config)
    secret = pepper(the_file(config))
    with told(path):
        plan = keyadmin.bring(
            path, found, now=now, random=os.urandom, pepper=secret, dry_run=dry_run
        )
    if json_:
        as_json(_as_dict(plan, dry_run))
    else:
        _show(plan, dry_run)
    if plan.problems:
        raise SystemExit(1)
    if any(key.digest for key in found.keys):
        warn("of keys that come as SHA-256 nobody can see whether they could be guessed")
    if plan.added and not dry_run and str(file) != "-":
        click.echo(f"{shown_path(file)} still holds the texts of keys: remove it", err=True)


def _show(plan: Plan, dry_run: bool) -> None:
    for each in (*plan.notes, *plan.present):
        click.echo(str(each), err=True)
    if plan.problems:
        for each in plan.problems:
            click.echo(str(each), err=True)
        raise Failed(f"nothing was added: {counted(len(plan.problems), 'problem')}")
    verb = "would add" if dry_run else "added"
    for place, line in plan.added:
        id = "" if dry_run else f"{line['id']} "
        more = [f"{name} {_said(line[name])}" for name in _TOLD if name in line]
        click.echo(f"{place}: {verb} {id}{_said(line['name'])}{''.join(f', {m}' for m in more)}")
    already = f", {len(plan.present)} there already" if plan.present else ""
    click.echo(f"{verb} {counted(len(plan.added), 'key')}{already}")


_TOLD = ("groups", "scopes", "plan", "consumer", "not_before", "expires")


def _said(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _as_dict(plan: Plan, dry_run: bool) -> dict[str, Any]:
    def lines(messages: list[Told]) -> list[dict[str, Any]]:
        return [{**each.place._asdict(), "message": each.message} for each in messages]

    hidden = ("digest", "pepper", "id" if dry_run else "")
    return {
        "ok": not plan.problems,
        "dry_run": dry_run,
        "added": []
        if plan.problems
        else [
            {**place._asdict(), **{n: v for n, v in line.items() if n not in hidden}}
            for place, line in plan.added
        ],
        "present": lines(plan.present),
        "problems": lines(plan.problems),
        "notes": lines(plan.notes),
    }


# -- reading ---------------------------------------------------------------------------------------


def _read(file: Path, format_: str, now: float, header: str) -> Findings:
    from edgeproxy.identity import keycsv, kong, nginxmap

    name = "standard input" if str(file) == "-" else shown_path(file)
    text = _text(file, name)
    if format_ == "csv":
        return keycsv.read(text, name)
    if format_ == "kong":
        return kong.read(text, name, now, header)
    return nginxmap.read(text, name, _include, header)


def _text(file: Path, name: str) -> str:
    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with file.open("rb") as opened:
                data = opened.read(LARGEST + 1)
    except OSError as error:
        raise Failed(f"{name}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise Failed(f"{name}: larger than {LARGEST} bytes; split it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Failed(f"{name}:{line}: not UTF-8; save the file in UTF-8") from None


def _include(pattern: str, by: str) -> list[tuple[str, str]]:
    """The files that an nginx configuration includes, from its own folder on."""
    whole = os.path.join(os.path.dirname(by), pattern)
    paths = sorted(glob.glob(whole)) if glob.has_magic(pattern) else [whole]
    try:
        return [(shown_path(path), _text(Path(path), shown_path(path))) for path in paths]
    except Failed as error:
        raise ValueError(f"what is included cannot be read: {error.message}") from None
