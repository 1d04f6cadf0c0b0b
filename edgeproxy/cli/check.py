"""``edgeproxy check``: everything that is wrong, at once, each with its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from edgeproxy.cli.certs import NOTHING, take_stock
from edgeproxy.cli.options import config_option, json_option, setting, the_file
from edgeproxy.cli.output import (
    as_json,
    counted,
    example,
    printable,
    progress,
    shown_path,
    warn,
)

if TYPE_CHECKING:
    from edgeproxy.certs.names import NameMap
    from edgeproxy.config import Config, Problem
    from edgeproxy.identity.keyrecord import KeyRecord
    from edgeproxy.identity.pepper import Pepper


class Findings(NamedTuple):
    """What `edgeproxy check` found. ``config`` is there when it loads."""

    config: Config | None
    names: NameMap
    keys: int
    problems: list[Problem]
    warnings: list[str]


@click.command(
    epilog=example("edgeproxy check /etc/edgeproxy/edgeproxy.yaml && edgeproxy reload"),
    short_help="Tell everything that is wrong, at once.",
)
@click.argument("file", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
@config_option
@json_option
def check(file: Path | None, config: Path | None, json_: bool) -> None:
    """Tell everything that is wrong with the configuration, its certificates and its keys.

    Each problem is one line, FILE:LINE:COLUMN: what is wrong, and what would be right. The exit
    status is 1 when there is one. Routes that are open to everyone are listed.
    """
    if file is not None and config is not None and file != config:
        raise click.UsageError("CONFIG and --config name two files; name one")
    found = examine(the_file(file or config))
    if json_:
        as_json(
            {
                "ok": not found.problems,
                "problems": [problem._asdict() for problem in found.problems],
                "warnings": found.warnings,
                "routes": _routes(found.config),
            }
        )
    else:
        _tell(found)
    if found.problems:
        raise SystemExit(1)


def _tell(found: Findings) -> None:
    for problem in found.problems:
        click.echo(printable(str(problem)))
    for warning in found.warnings:
        warn(warning)
    if found.problems:
        click.echo(counted(len(found.problems), "problem"), err=True)
    elif found.config is not None:
        click.echo(
            f"all right: {counted(len(found.config.routes), 'route')}, "
            f"{counted(len(found.config.upstreams), 'upstream')}, "
            f"{counted(len(found.names.chains), 'certificate')} "
            f"for {counted(len(found.names.by_name), 'name')}, {counted(found.keys, 'key')}"
        )


def examine(file: Path) -> Findings:
    """Look at everything that a configuration names; its own errors hide no others."""
    from edgeproxy.config import ConfigError, load
    from edgeproxy.upstream.trust import unverified

    problems: list[Problem] = []
    config = None
    try:
        config = load(file)
    except ConfigError as error:
        problems += error.problems
        certs, keys = setting(file, "certs", "certs/"), setting(file, "keys", "keys.jsonl")
    else:
        certs, keys = config.certs.folder, config.keys.file
        problems += _resources(config)
        problems += _filters(config)
    default = None if config is None else config.certs.default
    names, wrong, warnings = _certificates(certs, default)
    problems += wrong
    count, wrong, strange = _keys(keys, config)
    problems += wrong
    warnings += strange
    if config is not None:
        wrong, strange = _trust(config)
        problems += wrong
        warnings += strange
        warnings += _open(config)
        warnings += _unserved(config, names)
        warnings += unverified(config)
        warnings += _unused_keys(config)
        problems += _tls(file, config)
    return Findings(config, names, count, problems, warnings)


def _certificates(folder: Path, default: str | None) -> tuple[NameMap, list[Problem], list[str]]:
    """What is in the folder, what is wrong with it, and what is not wrong yet."""
    from edgeproxy.certs.names import NameMap
    from edgeproxy.config import Problem

    if not folder.is_dir():
        message = "there is no such folder; `edgeproxy init` makes one"
        nothing = NameMap((), None, datetime.now(UTC))
        return nothing, [Problem(shown_path(folder), 1, 1, message)], []
    names, _, wrong, advice = take_stock(folder, default)
    problems = [Problem(_within(folder, each.file), 1, 1, each.message) for each in wrong]
    if not names.entries:
        problems.append(Problem(shown_path(folder), 1, 1, NOTHING))
    if default is not None and names.default is None:
        message = f"no certificate here is for {default}, which `certs: default:` names"
        problems.append(Problem(shown_path(folder), 1, 1, message))
    return names, problems, [f"{_within(folder, each.file)}: {each.message}" for each in advice]


def _within(folder: Path, file: str) -> str:
    return shown_path(folder / file)  # one that is absolute already stays so


def _keys(path: Path, config: Config | None) -> tuple[int, list[Problem], list[str]]:
    """How many keys there are, what is wrong with the file, and what is strange about it."""
    from edgeproxy.config import Problem
    from edgeproxy.identity.keyfile import KeyFileError, records

    name = shown_path(path)
    needed = config is not None and _wants_keys(config)
    pepper = None if config is None else config.keys.hashing
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        message = "there is no such file; `edgeproxy keys add NAME` makes it"
        return 0, [Problem(name, 1, 1, message)] if needed else [], []
    except OSError as error:
        return 0, [Problem(name, 1, 1, f"cannot be read: {error.strerror}")], []
    problems = []
    stock = _Stock(pepper)
    with progress("keys", text.count(b"\n")) as step:
        for record in records(text):
            step()
            if isinstance(record, KeyFileError):
                problems.append(Problem(name, record.line or 1, 1, record.message))
            else:
                stock.take(record)
    if config is not None:
        problems += [Problem(name, 1, 1, message) for message in stock.problems()]
    warnings = [f"{name} {message}" for message in stock.warnings(needed=needed)]
    if path.stat().st_mode & 0o022:
        warnings.append(f"{name} can be written by others; `chmod 600` it")
    return stock.count, problems, [] if problems else warnings


class _Stock:
    """The keys of a file, counted by what they are good for."""

    def __init__(self, pepper: Pepper | None) -> None:
        self.count = 0
        self._pepper = pepper
        self._now = datetime.now(UTC).timestamp()
        self._states: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()

    def take(self, record: KeyRecord) -> None:
        from edgeproxy.identity.keyfile import wrong_pepper

        self.count += 1
        self._states[record.state(self._now)] += 1
        self._wrong[wrong_pepper(record, self._pepper)] += 1

    def problems(self) -> list[str]:
        """One for each pepper that is not the right one, however many keys have it."""
        return [f"{counted(many, 'key')}: {why}" for why, many in self._wrong.items() if why]

    def warnings(self, *, needed: bool) -> Iterator[str]:
        if needed and not self._states["ok"]:
            yield f"holds {'no key' if not self.count else 'no valid key'}: no caller gets in"
        if self._states["expired"]:
            yield (
                f"holds {counted(self._states['expired'], 'key')} that expired; "
                "`edgeproxy keys list` shows which"
            )


def _resources(config: Config) -> list[Problem]:
    """Imports and makes each route's resource, as the gateway does when it starts."""
    if not any(route.resource for route in config.routes):
        return []
    from edgeproxy.mounted.loading import problems

    return problems(config)


def _filters(config: Config) -> list[Problem]:
    """Imports and makes each route's filters, without starting them."""
    if not any(route.filters for route in config.routes):
        return []
    from edgeproxy.filters.inforce import problems

    return problems(config)


def _trust(config: Config) -> tuple[list[Problem], list[str]]:
    """What is wrong with the CAs and revocation lists of client certificates, and what soon
    will be."""
    from edgeproxy.certs.trust import ages, read_policies
    from edgeproxy.config import Problem

    now = datetime.now(UTC)
    policies, wrong = read_policies(config, now)
    aged = ages(policies, now)
    wrong += [each for each in aged if each.error]
    problems = [Problem(shown_path(Path(each.file)), 1, 1, each.message) for each in wrong]
    soon = [each for each in aged if not each.error]
    return problems, [f"{shown_path(Path(each.file))}: {each.message}" for each in soon]


def _wants_keys(config: Config) -> bool:
    return any(not route.open and "api_key" in route.auth for route in config.routes)


def _tls(file: Path, config: Config) -> list[Problem]:
    """What OpenSSL does not take of files that are sound in themselves."""
    from edgeproxy.config import Problem
    from edgeproxy.upstream.trust import Unusable, client_context

    problems = []
    for name, upstream in config.upstreams.items():
        if upstream.tls is not None and (upstream.tls.ca or upstream.tls.certificate):
            try:
                client_context(upstream.tls)
            except Unusable as error:
                message = f"upstream {name}: tls: {error}"
                problems.append(Problem(shown_path(file), 1, 1, message))
    return problems


def _unused_keys(config: Config) -> list[str]:
    """Keys of issuers that stand in the configuration or its files, and verify nothing."""
    from edgeproxy.config.jwt import Jwt, key_set

    found = []
    for name, each in config.credentials.items():
        keys = key_set(each) if isinstance(each, Jwt) else None
        if keys is not None:
            found += [f"auth: {name}: jwks: {why}; it is not used" for why in keys.unused]
    return found


def _routes(config: Config | None) -> list[dict[str, str | bool]]:
    """Who may come in, in words."""
    from edgeproxy.config.policy import who
    from edgeproxy.snapshot import label

    routes = () if config is None else config.routes
    return [{"route": label(each), "open": each.open, "who": who(each)} for each in routes]


def _open(config: Config) -> list[str]:
    from edgeproxy.config.policy import opening
    from edgeproxy.snapshot import label

    return [
        f"open to everyone{opening(route)}: {label(route)} ({shown_path(route.file)}:{route.line})"
        for route in config.routes
        if route.open
    ]


def _unserved(config: Config, names: NameMap) -> list[str]:
    """Hosts whose callers no certificate lets in."""
    hosts = {route.host for route in config.routes if route.host != "*"}
    return [
        f"no certificate is for {host}: its handshakes are refused"
        for host in sorted(hosts)
        if names.entries and names.choose(host.replace("*.", "any.", 1)) is None
    ]
