"""``edgeproxy routes`` and ``certs``: what is loaded, in the order in which it is tried."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeproxy.cli.options import config_option, json_option, the_config
from edgeproxy.cli.output import Failed, as_json, counted, example, shown_path, table, warn

if TYPE_CHECKING:
    from edgeproxy.certs.names import Choice, NameMap
    from edgeproxy.certs.scan import Chain
    from edgeproxy.config import Config, Route


@click.command(
    short_help="List the routes in the order in which they are tried.",
    epilog=example("edgeproxy routes --config /etc/edgeproxy/edgeproxy.yaml"),
)
@config_option
@json_option
def routes(config: Path | None, json_: bool) -> None:
    """List the routes in the order in which they are tried; open ones are marked.

    The first that matches wins: exact host before wildcard before any; exact path before longest
    prefix before regular expression; then one that names a method, then more conditions.
    """
    loaded = the_config(config)
    ordered = in_order(loaded)
    if json_:
        as_json([_route(number, route) for number, route in enumerate(ordered, 1)])
        return
    rows = [
        [
            str(number),
            route.host,
            "|".join(route.methods) or "any",
            ("" if route.kind == "prefix" else f"{route.kind}:") + route.path,
            ", ".join(f"{name}: {value}" for name, value in route.when.items()) or "-",
            _leads_to(route),
            "OPEN" if route.open else ", ".join(route.auth),
            ", ".join(route.limit) or "-",
            f"{shown_path(route.file)}:{route.line}",
        ]
        for number, route in enumerate(ordered, 1)
    ]
    columns = ["#", "HOST", "METHODS", "PATH", "WHEN", "TO", "AUTH", "LIMIT", "AT"]
    opened = [number for number, route in enumerate(ordered) if route.open]
    table(columns, rows, opened)
    if opened:
        warn(f"open to callers without a key: {counted(len(opened), 'route')}, marked OPEN")


def in_order(config: Config) -> list[Route]:
    """All routes in their total order, as the gateway itself compiles them."""
    from edgeproxy.snapshot import compile_limits, compile_router
    from edgeproxy.upstream.upstream import Upstream

    upstreams = {name: Upstream(name, ()) for name in config.upstreams}
    router = compile_router(config, upstreams, compile_limits(config, {}))
    return [config.routes[rule.order] for rule in router.ordered]


def _leads_to(route: Route) -> str:
    end = route.to or route.resource or "(built-in page)"
    return f"{end} (websocket)" if route.websocket else end


def _route(number: int, route: Route) -> dict[str, Any]:
    return {
        "order": number,
        "host": route.host,
        "methods": list(route.methods),
        "kind": route.kind,
        "path": route.path,
        "when": route.when,
        "to": route.to,
        "resource": route.resource,
        "websocket": route.websocket,
        "auth": list(route.auth),
        "open": route.open,
        "scopes": list(route.scopes),
        "groups": list(route.groups),
        "limit": list(route.limit),
        "file": route.file,
        "line": route.line,
    }


@click.command(
    short_help="List the certificates: names, expiry, which file wins.",
    epilog=example("edgeproxy certs --for api.example.com"),
)
@click.option("--for", "name", metavar="NAME", help="Which certificate answers for NAME, and why.")
@config_option
@json_option
def certs(name: str | None, config: Path | None, json_: bool) -> None:
    """List the certificates in certs/: names, issuer, expiry, and which file wins.

    Per name and key type the valid one that lasts longest wins.
    """
    from edgeproxy.certs.folder import read_folder
    from edgeproxy.certs.names import NameMap
    from edgeproxy.certs.scan import scan

    settings = the_config(config).certs
    if not settings.folder.is_dir():
        raise Failed(f"{shown_path(settings.folder)}: there is no such folder")
    now = datetime.now(UTC)
    found = scan(read_folder(settings.folder), now)
    names = NameMap(found.chains, settings.default, now)
    if name is not None:
        _explain(names.why(name), settings.folder, json_)
        return
    if json_:
        as_json(
            {
                "certificates": [_chain(chain, names, now) for chain in found.chains],
                "problems": [problem._asdict() for problem in found.problems],
            }
        )
        return
    rows = [
        [
            ", ".join(chain.names),
            chain.key_type,
            chain.issuer,
            _expiry(chain, now),
            ", ".join(chain.files),
            _wins(chain, names),
        ]
        for chain in found.chains
    ]
    losing = [n for n, c in enumerate(found.chains) if not answered(c, names) or not c.valid(now)]
    table(["NAMES", "KEY", "ISSUER", "EXPIRES", "FILES", "ANSWERS FOR"], rows, losing)
    for problem in found.problems:
        warn(f"{shown_path(settings.folder / problem.file)}: {problem.message}")


def answered(chain: Chain, names: NameMap) -> list[str]:
    """The names for which this certificate is the one that answers."""
    return [name for name in chain.names if chain in names.by_name[name].chains]


def _wins(chain: Chain, names: NameMap) -> str:
    found = answered(chain, names)
    if not found:
        return "nothing: another lasts longer"
    return "all its names" if len(found) == len(chain.names) else ", ".join(found)


def _expiry(chain: Chain, now: datetime) -> str:
    date = f"{chain.not_after:%Y-%m-%d}"
    if now < chain.not_before:
        return f"{date} (not yet valid)"
    if now > chain.not_after:
        return f"{date} (expired)"
    return f"{date} (in {counted((chain.not_after - now).days, 'day')})"


def _chain(chain: Chain, names: NameMap, now: datetime) -> dict[str, Any]:
    return {
        "names": list(chain.names),
        "answers_for": answered(chain, names),
        "key": chain.key_type,
        "issuer": chain.issuer,
        "not_before": chain.not_before.isoformat(),
        "not_after": chain.not_after.isoformat(),
        "valid": chain.valid(now),
        "files": list(chain.files),
        "fingerprint": chain.fingerprint,
    }


_RULES = {
    "exact": "a certificate carries exactly this name",
    "wildcard": "no certificate carries this name, one carries a wildcard over it",
    "default": "no certificate covers this name: the default answers (`certs: default:`)",
    "refused": "no certificate covers this name, and there is no default: refused",
}


def _explain(choice: Choice, folder: Path, json_: bool) -> None:
    answers = [] if choice.entry is None else list(choice.entry.chains)
    if json_:
        as_json(
            {
                "name": choice.name,
                "rule": choice.rule,
                "files": [list(chain.files) for chain in answers],
                "candidates": [
                    {
                        "files": list(candidate.chain.files),
                        "pattern": candidate.pattern,
                        "verdict": candidate.verdict,
                        "not_after": candidate.chain.not_after.isoformat(),
                    }
                    for candidate in choice.candidates
                ],
            }
        )
        return
    click.echo(f"{choice.name or 'that is no host name'}: {_RULES[choice.rule]}")
    for chain in answers:
        files = ", ".join(shown_path(folder / file) for file in chain.files)
        click.echo(f"answers: {files} ({chain.key_type}, until {chain.not_after:%Y-%m-%d})")
    for candidate in choice.candidates:
        if candidate.verdict != "answers":
            files = ", ".join(shown_path(folder / file) for file in candidate.chain.files)
            until = f"{candidate.chain.not_after:%Y-%m-%d}"
            click.echo(f"does not:  {files} (until {until}): {candidate.verdict}")
