"""What a reload changed, in lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgeproxy.config.model import Config, Route
from edgeproxy.snapshot import label

_MOST = 5  # names told in one line; the rest is counted

_IN_FORCE = (
    "auth",
    "credentials",
    "client_certificates",
    "hsts",
    "edge_token",
    "state",
    "certs",
    "keys",
    "timeouts",
    "heads",
    "guessing",
    "trusted_proxies",
    "forwarded",
    "resolver",
    "server_header",
)
_AT_START = ("listen", "health", "access_log", "control")


def describe(old: Config, new: Config) -> list[str]:
    """A line for each thing that differs; what takes effect at the next start only says so."""
    lines = [
        *_differences("route", _routes(old.routes), _routes(new.routes)),
        *_differences("upstream", old.upstreams, new.upstreams),
        *_differences("limit", old.limits, new.limits),
    ]
    if not lines and [label(r) for r in old.routes] != [label(r) for r in new.routes]:
        lines.append("routes: another order")
    for name in _IN_FORCE:
        if getattr(old, name) != getattr(new, name):
            lines.append(f"{name} changed")
    tls = new.listen.tls
    if old.listen.tls != tls:
        lines.append(f"listen: tls is {tls} now")
        old = old.model_copy(update={"listen": old.listen.model_copy(update={"tls": tls})})
    for name in _AT_START:
        if getattr(old, name) != getattr(new, name):
            lines.append(f"{name} changed: takes effect at the next start")
    return lines


def _routes(routes: Iterable[Route]) -> dict[str, Route]:
    """By label; where a route stands in its file makes no difference."""
    return {
        label(r): r.model_copy(update={"file": "", "line": 0, "resource_at": (0, 0)})
        for r in routes
    }


def _differences(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
    return [_told(what, verb, names) for verb, names in found.items() if names]


def _told(what: str, verb: str, names: list[str]) -> str:
    shown = ", ".join(names[:_MOST])
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    plural = "s" if len(names) > 1 else ""
    return f"{what}{plural} {verb}: {shown}{more}"
