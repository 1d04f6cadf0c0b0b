"""A configuration made ready for requests: one immutable value, replaced whole by a reload.

Everything that does not differ from request to request is worked out here. Each exchange keeps
the snapshot that it began with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from edgeproxy.config.cors import Cors
from edgeproxy.config.hsts import hsts_of
from edgeproxy.config.model import Config
from edgeproxy.config.model import Route as RouteConfig
from edgeproxy.config.model import Upstream as UpstreamConfig
from edgeproxy.config.policy import opening
from edgeproxy.config.units import Rate
from edgeproxy.cors import CrossOrigin
from edgeproxy.forward import FieldRules
from edgeproxy.hsts import StrictTransport
from edgeproxy.http1.fields import FieldTable, request_fields, response_fields
from edgeproxy.identifying import Anonymous
from edgeproxy.identity.addresses import Addresses
from edgeproxy.identity.principal import Principal
from edgeproxy.limits.table import LimitTable
from edgeproxy.policy import Policy
from edgeproxy.routing import PathKind, Router, Rule

if TYPE_CHECKING:
    from edgeproxy.certs.clients import Policies
    from edgeproxy.edgetokens import EdgeTokens
    from edgeproxy.exchange import Exchange
    from edgeproxy.filters.chain import Chain
    from edgeproxy.identifying import Credential
    from edgeproxy.identity.edgetoken import Audience
    from edgeproxy.mounted.mount import Mount
    from edgeproxy.upstream.upstream import Upstream


T = TypeVar("T")


class Shared(Protocol):
    """Gives of equal values the first, see :func:`compile_router`."""

    def __call__(self, value: T, /) -> T: ...


class Limit:
    """A named limit as a route sees it."""

    __slots__ = ("by_address", "name", "plans", "rate", "shadow", "table")

    def __init__(
        self,
        name: str,
        rate: Rate,
        plans: Mapping[str, Rate],
        table: LimitTable,
        *,
        by_address: bool,
        shadow: bool,
    ) -> None:
        self.name = name
        self.rate = rate
        self.plans = dict(plans)
        self.table = table
        self.by_address = by_address
        self.shadow = shadow

    def rate_for(self, principal: Principal | None) -> Rate:
        """The rate of the caller's plan."""
        if self.plans and principal is not None:
            return self.plans.get(principal.plan, self.rate)
        return self.rate


class Route:
    """One route, compiled: who may come in, how often, and where it leads."""

    __slots__ = (
        "address_limits",
        "addresses",
        "anonymous",
        "between",
        "body",
        "cors",
        "edge",
        "filters",
        "first_byte",
        "groups",
        "host_line",
        "jwks",
        "keep_slash",
        "label",
        "limit",
        "limits",
        "log",
        "mount",
        "mounted",
        "open",
        "opening",
        "policy",
        "request_rules",
        "response_rules",
        "scopes",
        "shadow",
        "strip",
        "tunnel",
        "upstream",
        "websocket",
    )

    def __init__(
        self,
        config: RouteConfig,
        upstream: Upstream | None,
        limits: Sequence[Limit],
        one: Shared,
        policy: Policy | None = None,
    ) -> None:
        self.label = label(config)
        #: The label as it stands in the log: ready JSON.
        self.log = json.dumps(self.label)
        self.open = "none" in config.auth
        self.anonymous = "anonymous" in config.auth
        #: How it is called among the open routes; ``None`` where it is none.
        self.opening = self.label + opening(config) if config.open else None
        #: Where callers may come from; ``None`` where that does not matter, as on most.
        self.addresses = (
            Addresses(config.allow, config.deny) if config.allow or config.deny else None
        )
        #: Whether who may come in is only logged.
        self.shadow = config.shadow
        #: What of Python of the user's stands before it.
        self.filters: Chain | None = None
        #: What callers are asked for; ``None`` where it is an API key or nothing, as on most.
        self.policy = policy
        self.scopes = one(frozenset(config.scopes))
        self.groups = one(frozenset(config.groups))
        self.limits = one(tuple(limit for limit in limits if not limit.by_address))
        #: The only limit, where there is only one and it is in force: most routes' case.
        self.limit = limits[0] if len(limits) == 1 and self.limits else None
        if self.limit is not None and self.limit.shadow:
            self.limit = None
        self.address_limits = tuple(limit for limit in limits if limit.by_address)
        self.body = one(config.body)
        #: Which other origins' pages may read its answers; ``None`` where none may.
        self.cors: CrossOrigin | None = None
        #: What tells the service who is calling, where X-Consumer-* alone do not.
        self.edge: Audience | None = None
        #: Whose keys answer here, where they do.
        self.jwks: EdgeTokens | None = None
        self.keep_slash = config.encoded_slash == "keep"
        self.upstream = upstream
        self.mounted: Mount | None = None
        #: The segments of a path that lie above the resource, where there is one.
        self.mount: tuple[bytes, ...] = ()
        self.strip = _strip(config)
        self.host_line: bytes | None = None
        self.request_rules: FieldRules | None = None
        self.response_rules = _rules(
            config.response.set, config.response.add, config.response.remove
        )
        self.first_byte = one(config.timeouts.first_byte)
        self.between = one(config.timeouts.between_bytes)
        self.tunnel = one(config.timeouts.tunnel)
        self.websocket = config.websocket

    def __repr__(self) -> str:
        return f"<Route {self.label}>"


def label(config: RouteConfig) -> str:
    """A route's name for people: host, methods and path as they are written."""
    methods = "|".join(config.methods) + " " if config.methods else ""
    kind = "" if config.kind == "prefix" else f"{config.kind}:"
    when = "".join(f" [{name}: {value}]" for name, value in config.when.items())
    return f"{config.host} {methods}{kind}{config.path}{when}"


def _strip(config: RouteConfig) -> bytes:
    if not config.strip:
        return b""
    prefix = config.strip if isinstance(config.strip, str) else config.path
    return unquote_to_bytes(prefix.rstrip("/"))


def _mount(config: RouteConfig, strip: bytes) -> tuple[bytes, ...]:
    """What of a request's path is the route's own; the resource walks what follows."""
    if config.kind == "regex":
        return ()  # it has no fixed front
    path = unquote_to_bytes(config.path)[len(strip) :]
    if config.kind == "prefix":
        path = path.rstrip(b"/")
    return tuple(path[1:].split(b"/")) if path else ()


def _rules(
    set_: Mapping[str, str], add: Mapping[str, str], remove: Iterable[str]
) -> FieldRules | None:
    remove = tuple(remove)
    return FieldRules(set_.items(), add.items(), remove) if set_ or add or remove else None


class Snapshot:
    """See the module's text. ``finished`` takes each exchange at its end; ``policies`` tell which
    hosts ask for client certificates, ``reserved`` which fields no client may send besides the
    gateway's own."""

    def __init__(
        self,
        config: Config,
        router: Router[Route],
        limits: Mapping[str, Limit],
        upstreams: Mapping[str, Upstream],
        finished: Callable[[Exchange], None],
        policies: Policies,
        reserved: Iterable[str] = (),
    ) -> None:
        self.policies = policies
        self.config = config
        self.router = router
        self.limits = limits
        self.upstreams = upstreams
        self.finished = finished
        self.request_fields: FieldTable = request_fields(
            (*config.reserved, *reserved), config.auth.api_key.header
        )
        #: For the answers of resources; targets have their own.
        self.response_fields = response_fields(hide_software=config.server_header == "hide")
        #: Whether there may be preflights.
        self.cors = any(route.cors is not None for route in config.routes)
        self.trusted: tuple[IPv4Network | IPv6Network, ...] = config.trusted_proxies
        self.forwarded = config.forwarded
        query = config.auth.api_key.query
        self.key_parameter: bytes | None = None if query is None else query.encode("ascii")

    def strict_transport(self, host: str) -> StrictTransport | None:
        """What answers of ``host`` say about TLS; asked once per connection and host."""
        found = hsts_of(host, self.config.hsts)
        return None if found is None else StrictTransport(found)

    def with_policies(self, policies: Policies) -> Snapshot:
        """The same, but for what clients are asked for."""
        changed = copy(self)
        changed.policies = policies
        return changed


def compile_limits(config: Config, before: Mapping[str, Limit]) -> dict[str, Limit]:
    """The limits of a configuration; windows that exist already go on (by name). Their tables
    keep their size until the configuration is in force."""
    made = {}
    for name, limit in config.limits.items():
        old = before.get(name)
        table = LimitTable(name, limit.table) if old is None else old.table
        made[name] = Limit(
            name,
            limit.rate,
            limit.plans,
            table,
            by_address=limit.by == "address",
            shadow=limit.shadow,
        )
    return made


def compile_router(
    config: Config,
    upstreams: Mapping[str, Upstream],
    limits: Mapping[str, Limit],
    mounts: Mapping[int, Mount] = MappingProxyType({}),
    credentials: Mapping[str, Credential] = MappingProxyType({}),
    chains: Mapping[int, Chain] = MappingProxyType({}),
) -> Router[Route]:
    """All routes in their total order; ``mounts`` are the resources of those that name one, by
    the place of the route in the configuration, ``chains`` the filters likewise, ``credentials``
    all that routes may ask for."""
    kept: dict[tuple[type, object], Any] = {}

    def one(value: T, /) -> T:
        """Of equal values the first. Thousands of routes that say the same then point to the same
        few objects, which stay in the processor's caches (measured: 3 µs per request of 50)."""
        found: T = kept.setdefault((type(value), value), value)
        return found

    policies: dict[tuple[tuple[str, ...], bool, bool], Policy | None] = {}

    def policy(route: RouteConfig) -> Policy | None:
        asked = route.auth, route.every, route.shadow
        if asked not in policies:
            policies[asked] = _policy(route, credentials)
        return policies[asked]

    # One window answers for one limit, however often and wherever it is named.
    rules = [
        _rule(order, route, config, upstreams, limits, mounts.get(order), one, policy(route))
        for order, route in enumerate(config.routes)
    ]
    origins: dict[Cors | None, CrossOrigin] = {
        cors: CrossOrigin(cors) for cors in {route.cors for route in config.routes} if cors
    }
    for rule in rules if origins else ():
        rule.action.cors = origins.get(config.routes[rule.order].cors)
    for rule in rules if chains else ():
        rule.action.filters = chains.get(rule.order)
    return Router(rules)


def _policy(route: RouteConfig, credentials: Mapping[str, Credential]) -> Policy | None:
    auth = route.auth
    asked = [credentials[name] for name in auth if name in credentials]
    simple = auth in (("api_key",), ("api_key", "anonymous"), ("anonymous", "api_key"))
    if not asked or (simple and not route.shadow):
        return None
    guest = next((each.guest for each in asked if isinstance(each, Anonymous)), None)
    asked = [each for each in asked if not isinstance(each, Anonymous)]
    return Policy(
        asked, anonymous="anonymous" in auth, guest=guest, every=route.every, shadow=route.shadow
    )


def _rule(
    order: int,
    config: RouteConfig,
    whole: Config,
    upstreams: Mapping[str, Upstream],
    limits: Mapping[str, Limit],
    mounted: Mount | None,
    one: Shared,
    policy: Policy | None,
) -> Rule[Route]:
    named = [limits[name] for name in config.limit if name != "none"]
    upstream = None if config.to is None else upstreams[config.to]
    route = Route(config, upstream, named, one, policy)
    if mounted is not None:
        _use_resource(route, config, mounted)
    if config.to is not None:
        _use_upstream(route, config, whole.upstreams[config.to])
    kind = PathKind[config.kind.upper()]
    path = config.path.encode("utf-8")
    if kind is not PathKind.REGEX:
        path = unquote_to_bytes(path)
    methods = {method.encode("ascii") for method in config.methods}
    if b"GET" in methods:
        methods.add(b"HEAD")
    return Rule(
        host=config.host,
        methods=frozenset(methods),
        kind=kind,
        path=path,
        when=tuple(
            (name.lower().encode("ascii"), value.encode("latin-1"))
            for name, value in config.when.items()
        ),
        order=order,
        action=route,
        pattern=re.compile(path) if kind is PathKind.REGEX else None,
    )


def _use_upstream(route: Route, config: RouteConfig, upstream: UpstreamConfig) -> None:
    """What the upstream's own options add to a route that leads there."""
    host = config.host_header or upstream.host
    if host is not None:
        route.host_line = b"Host: " + host.encode("ascii")
    secret = {name: value.get_secret_value() for name, value in upstream.set.items()}
    route.request_rules = _rules(
        {**secret, **config.request.set}, config.request.add, config.request.remove
    )


def _use_resource(route: Route, config: RouteConfig, mounted: Mount) -> None:
    """What there is on a route that leads to a resource."""
    route.mounted = mounted
    route.mount = _mount(config, route.strip)
    rules = config.request
    route.request_rules = _rules(rules.set, rules.add, rules.remove)
