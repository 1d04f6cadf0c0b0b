"""The state of a running gateway as one value, for people and for programs."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from edgeproxy.transport.deadlines import NEVER
from edgeproxy.tunnel import Tunnel

if TYPE_CHECKING:
    from edgeproxy.listening import Listening
    from edgeproxy.service import Gateway


def status(gateway: Gateway) -> dict[str, Any]:
    """What `edgeproxy status --json` prints. Times in seconds, certificates' in RFC 3339."""
    config = gateway.config
    snapshot = gateway.snapshot()
    last = gateway.reloader.last
    issuing = gateway.issuing.tokens
    gateway.log.flush()  # counts what has ended
    return {
        "version": version("edgeproxy"),
        "pid": os.getpid(),
        "state": "running" if gateway.draining is None else "draining",
        "uptime": round(gateway.clock.now() - gateway.started, 1),
        "config": None if config.source is None else str(config.source),
        "reloads": gateway.reloader.count,
        "last_reload": None if last is None else {"ok": last.done, "lines": last.lines},
        "not_ready": gateway.obstacle(),
        "probes": gateway.readiness.probes,
        "listeners": [_listener(each) for each in (*gateway.listeners, *gateway.probing)],
        "routes": len(config.routes),
        "open_routes": gateway.open_routes(),
        "certificates": _certificates(gateway),
        "client_certificates": {
            "names": {host: each.credential for host, each in snapshot.policies.by_host.items()},
            "trouble": gateway.trust.trouble,
        },
        "keys": {
            "count": len(gateway.keys.index),
            "trouble": gateway.keys.trouble,
            "last_used": str(gateway.last_used.path),
        },
        "credentials": gateway.credentials.status(),
        "edge_token": None if issuing is None else issuing.status(),
        "upstreams": upstreams(gateway),
        "names": {
            name.host: _name(gateway, name) for name in gateway.fleet.resolver.names.values()
        },
        "tunnels": sum(isinstance(each, Tunnel) for each in gateway.deadlines.waiting),
        "access_log": {"path": str(config.access_log), "lost_lines": gateway.log.lost},
        "filters": gateway.filters.status(),
        "guessing": gateway.resource.guessing.status(),
        "counters": counters(gateway),
    }


def counters(gateway: Gateway) -> dict[str, Any]:
    """What the control socket's `counters` answers: all since the start of the process."""
    certificates = gateway.certificate_counts.as_dict()
    connections = {
        "accepted": sum(each.accepted for each in gateway.listeners),
        "unfinished_handshakes": sum(each.unfinished for each in gateway.listeners),
        "ended_for_room": sum(each.made_room for each in gateway.listeners),
    }
    return {
        **gateway.counters.as_dict(),
        "connections": connections,
        "certificates": certificates,
        "filters": gateway.filters.status(),
        "guessing": gateway.resource.guessing.status(),
    }


def summary(gateway: Gateway) -> str:
    """One line for `systemctl status`: what is served where, and how the last reload ended."""
    where = ", ".join(f"{each.kind} on {each.number}" for each in gateway.listeners)
    count = len(gateway.config.routes)
    line = f"{where}; {count} route{'' if count == 1 else 's'}"
    last = gateway.reloader.last
    if last is None:
        return line
    if last.done:
        return f"{line}; reloaded: {'; '.join(last.lines) or 'nothing had changed'}"
    more = f" and {len(last.lines) - 1} more" if len(last.lines) > 1 else ""
    return f"{line}; the last reload was refused: {last.lines[0]}{more}"


def upstreams(gateway: Gateway) -> dict[str, list[dict[str, Any]]]:
    """The targets of each upstream."""
    return {
        name: [target_status(gateway, target) for target in upstream.targets]
        for name, upstream in gateway.snapshot().upstreams.items()
    }


def _listener(listening: Listening) -> dict[str, Any]:
    return {
        "scheme": listening.kind,
        "port": listening.number,
        "connections": len(listening.connections),
        "accepted": listening.accepted,
        "unfinished_handshakes": listening.unfinished,
        "ended_for_room": listening.made_room,
    }


def _certificates(gateway: Gateway) -> dict[str, Any]:
    names = gateway.tls.names
    rejected = gateway.tls.rejected
    ends = [chain.not_after for entry in names.entries for chain in entry.chains]
    return {
        "names": len(names.by_name),
        "next_expiry": min(ends).isoformat() if ends else None,
        "problems": [f"{each.file}: {each.message}" for each in gateway.folder.problems]
        + [f"{chain.files[0]}: OpenSSL does not load it: {why}" for chain, why in rejected],
        "warnings": [f"{each.file}: {each.message}" for each in gateway.folder.warnings],
    }


def target_status(gateway: Gateway, target: Any) -> dict[str, Any]:
    """One target, as `edgeproxy upstreams --json` prints it."""
    pool, health, now = target.pool, target.health, gateway.clock.now()
    return {
        "target": target.url,
        "address": target.name,
        "state": health.state.value,
        "why": health.failing or health.reason,
        "ejected_for": round(max(0.0, health.ejected_until - now), 1),
        "weight": target.weight,
        "under_way": gateway.fleet.under_way(target),
        "connections": pool.open,
        "idle": len(pool.idle),
        "waiting": len(pool.waiting),
        "probe": health.probe or None,
        "probe_ago": round(now - health.probed_at, 1) if health.probe else None,
        "passed": health.passed,
        "counters": {
            "probes": health.probes,
            "unhealthy": health.unhealthy,
            "ejections": health.ejections,
        },
    }


def _name(gateway: Gateway, name: Any) -> dict[str, Any]:
    return {
        "addresses": list(name.addresses),
        "next": round(max(0.0, name.due - gateway.clock.now()), 1) if name.due < NEVER else None,
        "failures": name.failures,
        "error": name.error,
    }
