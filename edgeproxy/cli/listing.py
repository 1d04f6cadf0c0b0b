"""``edgeproxy routes``: what is loaded, in the order in which it is tried."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeproxy.cli.options import config_option, json_option, the_config
from edgeproxy.cli.output import as_json, counted, example, shown_path, table, warn
from edgeproxy.config.clientcerts import policy_of
from edgeproxy.config.policy import opening, who

if TYPE_CHECKING:
    from edgeproxy.config import Config, Route

_FEW = 2  # ranges of addresses that a table shows; --json has all


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
        as_json([_route(number, route, loaded) for number, route in enumerate(ordered, 1)])
        return
    filtered = any(route.filters for route in ordered)
    rows = [
        [
            str(number),
            route.host,
            "|".join(route.methods) or "any",
            ("" if route.kind == "prefix" else f"{route.kind}:") + route.path,
            ", ".join(f"{name}: {value}" for name, value in route.when.items()) or "-",
            _leads_to(route),
            _credentials(route, loaded),
            ", ".join(route.limit) or "-",
            *([_filters(route) or "-"] if filtered else []),
            f"{shown_path(route.file)}:{route.line}",
        ]
        for number, route in enumerate(ordered, 1)
    ]
    columns = ["#", "HOST", "METHODS", "PATH", "WHEN", "TO", "AUTH", "LIMIT"]
    columns += [*(["FILTERS"] if filtered else []), "AT"]
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
    end = route.to or route.resource or ("(keys)" if route.jwks else "(built-in page)")
    return f"{end} (websocket)" if route.websocket else end


def _filters(route: Route) -> str:
    """In the order in which they are asked."""
    return ", ".join(f"{each.use}{' (shadow)' if each.shadow else ''}" for each in route.filters)


def _credentials(route: Route, config: Config) -> str:
    """What a caller has to show; a certificate that its host demands counts on every route."""
    shown = (" and " if route.every else ", ").join(route.auth)
    if route.open:
        shown = "OPEN" + opening(route).replace(",", "")
    for word, ranges in (("from", route.allow), ("not from", route.deny)):
        if ranges:
            few = " or ".join(map(str, ranges[:_FEW]))
            more = f" and {len(ranges) - _FEW} more" if len(ranges) > _FEW else ""
            shown += f" {word} {few}{more}"
    asked = policy_of(route.host, config.client_certificates)
    demanded = asked is not None and asked.required and route.auth != (asked.by,)
    return f"{shown} + {asked.by} certificate" if asked is not None and demanded else shown


def _route(number: int, route: Route, config: Config) -> dict[str, Any]:
    asked = policy_of(route.host, config.client_certificates)
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
        "jwks": route.jwks,
        "identity": route.identity,
        "cors": None if route.cors is None else list(route.cors.origins),
        "auth": list(route.auth),
        "every": route.every,
        "open": route.open,
        "allow": [str(each) for each in route.allow],
        "deny": [str(each) for each in route.deny],
        "shadow": route.shadow,
        "who": who(route),
        "client_certificate": None if asked is None else asked.model_dump(),
        "scopes": list(route.scopes),
        "groups": list(route.groups),
        "limit": list(route.limit),
        "filters": [
            {"use": each.use, "timeout": each.timeout, "shadow": each.shadow}
            for each in route.filters
        ],
        "file": route.file,
        "line": route.line,
    }
