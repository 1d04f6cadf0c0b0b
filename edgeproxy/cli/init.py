"""``edgeproxy init``: everything for a first start, into an empty or existing folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click

from edgeproxy import quickstart
from edgeproxy.certs.folder import read_folder
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import scan
from edgeproxy.cli.output import Failed, as_json, example, will_be_shown

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
    will_be_shown("the API key")
    with written(folder, port or (443 if system else 8443), system=system) as made:
        if json_:
            as_json(
                {
                    "files": [str(path) for path in made.files],
                    "key": made.key.credential,
                    "curl": made.curl,
                }
            )
        else:
            click.echo(_told(made, folder, system=system))


def _told(made: Made, folder: Path, *, system: bool) -> str:
    """In one piece, so that it is shown whole or not at all."""
    start = "systemctl enable --now edgeproxy" if system else "twistd -n edgeproxy"
    where = "" if system else " here" if folder == Path(".") else f" in {folder}"
    return "\n".join(
        [
            *(f"wrote {path}" for path in made.files),
            "\nThe first API key, shown this once; the key file holds its hash:\n",
            f"    {made.key.credential}\n",
            f"Start the gateway{where}: {start}\nThen this answers:\n",
            made.curl,
        ]
    )


@contextmanager
def written(folder: Path, port: int, *, system: bool = False) -> Iterator[Made]:
    """Write everything; the configuration last, since it makes the folder complete. If that
    fails, or what is done with it, nothing is left behind.

    :raises Failed: something is there already, or cannot be written or shown.
    """
    certs = folder / "certs"
    try:
        with _alone(folder), _undone(_files(folder), [] if certs.exists() else [certs]):
            configuration, keys = folder / "edgeproxy.yaml", folder / "keys.jsonl"
            for path in (configuration, keys):
                if path.exists() or path.is_symlink():
                    raise Failed(f"{path} is there already; nothing was written")
            files, cacert = _certificate(certs)
            key = quickstart.key(keys, "first")
            with configuration.open("x", encoding="utf-8") as file:
                file.write(_text(port, SYSTEM if system else OWN))
            yield Made(
                [configuration, *files, keys], key, quickstart.curl(port, cacert, key.credential)
            )
    except OSError as error:
        name = error.filename or folder
        raise Failed(f"{name}: {error.strerror}; nothing was left behind") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, made where it is not there, for one `init` at a time."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another `edgeproxy init` is at work in {folder}") from None
        with _undone([], made):
            yield
    finally:
        os.close(lock)


def _files(folder: Path) -> list[Path]:
    names = ("certs/localhost-key.pem", "certs/localhost.pem", "edgeproxy.yaml", "keys.jsonl")
    return [folder / name for name in (*names, "keys.jsonl.lock", ".keys.jsonl.new")]


@contextmanager
def _undone(files: Sequence[Path], folders: Sequence[Path]) -> Iterator[None]:
    """If what follows fails, those of ``files`` go that were not there before, and ``folders``,
    which were made for it."""
    fresh = [path for path in files if not os.path.lexists(path)]
    try:
        yield
    except BaseException:
        for path in fresh:
            path.unlink(missing_ok=True)
        for path in folders:
            with suppress(OSError):  # something is in it
                path.rmdir()
        raise


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
