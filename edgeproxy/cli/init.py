"""``edgeproxy init``: everything for a first start, into an empty or existing folder."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click

from edgeproxy import quickstart
from edgeproxy.certs.folder import read_folder
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import scan
from edgeproxy.cli.output import Failed, as_json, example

CONFIGURATION = """\
# The configuration of edgeproxy. `edgeproxy check` tells everything that is wrong with it at
# once; a running gateway takes it over on `edgeproxy reload`. Relative paths start here.

listen:
{listen}
certs: certs/                 # PEM files under any names, in subfolders too; `edgeproxy certs`
keys: keys.jsonl              # API keys, hashed; `edgeproxy keys add NAME`
access_log: {log}# one JSON object a line; `-` is standard output, `off` is none
{control}
limits:                       # each key by itself; routes that name a limit share its window
  default: {{ rate: 100/min }}  # never more than 100 in any span of a minute

defaults:                     # every route, unless the route itself says otherwise
  auth: api_key
  limit: default

# upstreams:                  # the services behind: a name, and one address or several
#   app: http://127.0.0.1:9001

routes:
  "*":                        # every host; or a name: api.example.com, "*.example.com"
    /: {{ page: true }}         # a built-in page; once `app` stands above, write `/: app`
    # /public: {{ to: app, auth: none }}    # only `auth: none` lets in callers without a key
"""

#: What differs: a folder of somebody's own, and the service that `make install` sets up.
OWN = {
    "listen": """\
  https: ":{port}"
  # http: ":8080"             # plain HTTP, which only redirects to https
""",
    "log": "access.log        ",
    "control": "",
}
SYSTEM = {
    "listen": """\
  https: systemd:https        # the ports stand in edgeproxy.socket and edgeproxy-http.socket:
  http: systemd:http          # `systemctl edit edgeproxy.socket`
""",
    "log": "/var/log/edgeproxy/access.log    ",
    "control": "control: {{ path: /run/edgeproxy/control.sock, group: true }}\n"
    "state: /var/lib/edgeproxy     # what the gateway itself remembers\n",
}


class Made(NamedTuple):
    """What `edgeproxy init` has written."""

    files: list[Path]
    key: quickstart.FirstKey
    curl: str


@click.command(
    epilog=example("edgeproxy init shop && cd shop && twistd -n edgeproxy"),
    short_help="Write what a first start needs.",
)
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(1, 65535), help="8443 where not said.")
@click.option("--system", is_flag=True, help="For the systemd service that `make install` makes.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object.")
def init(folder: Path, port: int | None, system: bool, json_: bool) -> None:
    """Write what a first start needs into DIR (the current folder by default).

    That is a commented edgeproxy.yaml, certs/ with a self-signed certificate for localhost, the
    key file and its first API key, which is shown once. What is there already is never
    overwritten: where there is a configuration or a key file, nothing is written at all.
    """
    made = write(folder, port or (443 if system else 8443), system=system)
    if json_:
        as_json(
            {
                "files": [str(path) for path in made.files],
                "key": made.key.credential,
                "curl": made.curl,
            }
        )
        return
    for path in made.files:
        click.echo(f"wrote {path}")
    click.echo("\nThe first API key, shown this once; the key file holds its hash:\n")
    click.echo(f"    {made.key.credential}\n")
    start = "systemctl enable --now edgeproxy" if system else "twistd -n edgeproxy"
    where = "" if system else " here" if folder == Path(".") else f" in {folder}"
    click.echo(f"Start the gateway{where}: {start}\nThen this answers:\n")
    click.echo(made.curl)


def write(folder: Path, port: int, *, system: bool = False) -> Made:
    """Write everything; the configuration last, since it makes the folder complete.

    :raises Failed: something is there already, or cannot be written.
    """
    configuration, keys = folder / "edgeproxy.yaml", folder / "keys.jsonl"
    for path in (configuration, keys):
        if path.exists() or path.is_symlink():
            raise Failed(f"{path} is there already; nothing was written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files, cacert = _certificate(folder / "certs")
        key = quickstart.key(keys, "first")
        with configuration.open("x", encoding="utf-8") as file:
            file.write(_text(port, SYSTEM if system else OWN))
    except OSError as error:
        raise Failed(f"{error.filename or folder}: {error.strerror}") from None
    made = [configuration, *files, keys]
    return Made(made, key, quickstart.curl(port, cacert, key.credential))


def _text(port: int, parts: Mapping[str, str]) -> str:
    return CONFIGURATION.format(**{name: part.format(port=port) for name, part in parts.items()})


def _certificate(folder: Path) -> tuple[list[Path], Path]:
    """What was written, and the file by which a client verifies ``localhost``."""
    now = datetime.now(UTC)
    found = scan(read_folder(folder), now) if folder.is_dir() else None
    names = NameMap(found.chains if found else (), None, now)
    entry = names.choose("localhost")
    if entry is not None and entry.chains[0].valid(now):
        return [], folder / entry.chains[0].files[0]
    chain, key = folder / "localhost.pem", folder / "localhost-key.pem"
    for path in (chain, key):
        if path.exists() or path.is_symlink():
            raise Failed(
                f"{path} is there already, and there is no valid certificate for localhost; "
                "nothing was written"
            )
    quickstart.certificate(folder)
    return [chain, key], chain
