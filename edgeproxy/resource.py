"""The phases of a request, in order. Read this file first.

    host -> path -> route -> preflight -> address -> limits (address) -> identity -> limits -> relay

A preflight (CORS) is answered by the route that it asks about.

A phase goes on, answers, or raises :class:`~edgeproxy.errors.GatewayError`; there is one
``except``, and every way ends in ``exchange.finish``. The same code is reached from our own
channels, which call :meth:`ReverseProxyResource.handle`, and from a stock
``twisted.web.server.Site``, which calls :meth:`ReverseProxyResource.render`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from edgeproxy.certs.clients import Standing, WrongConnection, standing
from edgeproxy.cors import preflight
from edgeproxy.errors import GatewayError, Source, malformed
from edgeproxy.exchange import Exchange
from edgeproxy.forward import (
    forwarded_lines,
    is_trusted,
    own_hops,
    request_head,
    trusted_chain,
    vouched_lines,
)
from edgeproxy.guessing import Guessing
from edgeproxy.http1.fields import Kind
from edgeproxy.http1.grammar import RequestHead, split_host
from edgeproxy.http1.upgrade import asks_for_websocket
from edgeproxy.identifying import Sent, holder, key_of, withhold_keys
from edgeproxy.identity.keyindex import KeyIndex
from edgeproxy.identity.refusal import WrongCredential, guessed, invalid, missing
from edgeproxy.limits.fields import field_lines, joined_field_lines, retry_after
from edgeproxy.limits.window import Window
from edgeproxy.page import welcome
from edgeproxy.paths import Path, normalise, strip_prefix
from edgeproxy.policy import Policy, check_address, overlook, permit
from edgeproxy.routing import HostTable, NoRoute, find
from edgeproxy.waiting import Waiting

if TYPE_CHECKING:
    from edgeproxy.certs.names import NameMap
    from edgeproxy.exchange import Peer
    from edgeproxy.filters.run import Run
    from edgeproxy.hsts import StrictTransport
    from edgeproxy.identity.principal import Principal
    from edgeproxy.relay import Relay
    from edgeproxy.snapshot import Limit, Route, Snapshot
    from edgeproxy.transport.deadlines import Clock

_log = Logger()

_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]+)([/?].*)?\Z")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:\-]{8,128}\Z")
_ALL_METHODS = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_MOST_ASKED = 1024
_DEFAULT_PORTS = {b"https": 443, b"http": 80}


class _Asked(NamedTuple):
    """What a Host field means on all connections that were made for one name, on one port."""

    raw: bytes
    name: str
    tables: tuple[HostTable[Route], ...]
    host_line: bytes
    shown: bytes
    origin: bytes
    refused: bool
    hsts: StrictTransport | None


def _asked(raw: bytes, peer: Peer, snapshot: Snapshot, names: NameMap | None) -> _Asked:
    host, port = split_host(raw)
    scheme = peer.scheme.encode("ascii")
    shown = host if port in (None, _DEFAULT_PORTS[scheme]) else b"%b:%d" % (host, port)
    name = host.decode("ascii")
    return _Asked(
        raw,
        name,
        snapshot.router.tables(name),
        b"Host: " + shown,
        shown,
        scheme + b"://" + shown,
        # RFC 9110 7.4: a host that would choose another certificate than this connection's.
        names is not None and names.choose(name) is not names.choose(peer.sni),
        snapshot.strict_transport(name) if peer.tls else None,
    )


class HostView:
    """What a Host field means on one connection; kept there, since its requests repeat it."""

    __slots__ = (
        "ends",
        "forwarded",
        "host_line",
        "hsts",
        "name",
        "names",
        "origin",
        "own",
        "raw",
        "refused",
        "snapshot",
        "standing",
        "tables",
    )

    def __init__(
        self, peer: Peer, snapshot: Snapshot, names: NameMap | None, asked: _Asked, now: float
    ) -> None:
        self.snapshot = snapshot
        self.names = names
        self.raw, self.name, self.tables, self.host_line, shown, self.origin, _, _ = asked
        self.refused = asked.refused
        #: What tells the client to come over TLS alone, where it has come so.
        self.hsts = asked.hsts
        self.own = forwarded_lines(peer, shown, snapshot.forwarded)
        #: Whether nothing more than an answer is to be had on this connection.
        self.ends = False
        #: What the connection's client certificate is worth here; ``None`` where none is asked for.
        self.standing: Standing | None = None
        if snapshot.policies:
            try:
                self.standing = standing(snapshot.policies, names, self.name, peer, now)
            except WrongConnection:
                self.refused = self.ends = True
            if self.standing is not None and self.standing.refusal:
                self.refused = self.ends = True
        #: Lines for the service: where the request comes from, and by whose certificate.
        self.forwarded = self.own if self.standing is None else self.own + self.standing.lines


@implementer(IResource)
class ReverseProxyResource(Resource):
    """The gateway as a resource: authenticates, limits and relays whatever it is given.

    ``snapshot`` is the configuration in force, until :meth:`use`. ``keys`` gives
    the key index in force and ``names`` the certificates' name map, or ``None`` without TLS.
    """

    isLeaf = True

    def __init__(
        self,
        snapshot: Snapshot,
        relay: Relay,
        clock: Clock,
        keys: Callable[[], KeyIndex],
        names: Callable[[], NameMap | None] = lambda: None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.snapshot = snapshot
        self.guessing = Guessing(snapshot.config.guessing)
        self._relay = relay
        self._clock = clock
        self._keys = keys
        self._names = names
        self._asked: dict[tuple[bytes, str | None, str, int], _Asked] = {}
        self._asked_under: tuple[Snapshot, NameMap | None] = snapshot, None

    def use(self, snapshot: Snapshot) -> None:
        """Another configuration is in force; nothing here keeps the one before alive."""
        self.snapshot = snapshot
        self.guessing.use(snapshot.config.guessing)
        self._asked = {}
        self._asked_under = snapshot, None

    def render(self, request: Any) -> int:
        """Answer a request of a stock ``twisted.web`` site."""
        from edgeproxy.site import SiteExchange

        exchange = SiteExchange(request, self._clock.now(), self.snapshot.request_fields)
        if exchange.unreadable is None:
            self.handle(exchange)
        else:
            exchange.snapshot = self.snapshot
            exchange.refuse(exchange.unreadable)
        return NOT_DONE_YET

    # -- the phases ------------------------------------------------------------------------------

    def handle(self, exchange: Exchange) -> None:
        """Take an exchange through its phases. Never raises."""
        snapshot = exchange.snapshot = self.snapshot
        try:
            if snapshot.trusted:
                _believe(exchange, snapshot)
            view = self._host(exchange, snapshot)
            if snapshot.cors and exchange.method == b"OPTIONS" and self._preflight(exchange, view):
                return
            route = self._route(exchange, view)
            if route.addresses is not None:
                check_address(route, route.addresses, exchange)
            windows = self._address_limits(exchange, route) if route.address_limits else None
            if self.guessing.suspects and not (route.open or route.shadow):
                wait = self.guessing.wait(_network(exchange.client), self._clock.now())
                if wait:
                    raise guessed(wait)
            policy = route.policy
            if policy is not None:
                if not (policy.recalling and self._recall(exchange, route, policy, windows)) and (
                    self._ask(exchange, route, policy, view, windows)
                ):
                    return
            elif not route.open:
                self._identify(exchange, route, snapshot, windows)
            elif exchange.head.keys or snapshot.key_parameter is not None:
                withhold_keys(exchange, snapshot.key_parameter)
            self._admit(exchange, route, view, windows)
        except Exception as error:
            self._fail(exchange, error)

    def _fail(self, exchange: Exchange, error: Exception) -> None:
        """The one answer to what a phase raised."""
        if not isinstance(error, GatewayError):
            _log.failure("A request failed in the gateway itself", Failure(error))
            error = GatewayError(
                500, "The gateway failed to handle this request.", source=Source.OURSELVES
            )
        elif type(error) is WrongCredential:
            self.guessing.failed(_network(exchange.client), self._clock.now())
        exchange.refuse(error)

    def _admit(
        self, exchange: Exchange, route: Route, view: HostView, windows: list[Window] | None
    ) -> None:
        """The phases after identity."""
        if route.limits or windows:
            self._limits(exchange, route, windows)
        length = exchange.head.length
        if length is not None and length > route.body:
            raise GatewayError(413, "The request body is larger than allowed.", close=True)
        chain = route.filters
        if chain is None:
            self._answer(exchange, route, view, exchange.snapshot)
            return
        run = chain.begin(exchange, exchange.now + self._clock.epoch)
        # The filters decide, which may take time.
        if not chain.requests or run.admit(partial(self._filtered, exchange, route, view, run)):
            self._answer(exchange, route, view, exchange.snapshot, run)

    def _filtered(self, exchange: Exchange, route: Route, view: HostView, run: Run) -> None:
        exchange.now = self._clock.now()
        run.sealed()
        self._answer(exchange, route, view, exchange.snapshot, run)

    def _host(self, exchange: Exchange, snapshot: Snapshot) -> HostView:
        """The host asked for, as this connection may ask for it."""
        head = exchange.head
        raw = head.host
        absolute = False
        if head.path is None:
            raw, absolute = _unclear(exchange, head)
        else:
            exchange.path = head.path
            exchange.query = head.query
        peer = exchange.peer
        names = self._names() if peer.tls else None
        view = peer.host_view
        if (
            type(view) is not HostView
            or view.raw != raw
            or view.snapshot is not snapshot
            or view.names is not names
            or (
                view.standing is not None
                and exchange.started + self._clock.epoch >= view.standing.until
            )
        ):
            now = exchange.started + self._clock.epoch
            asked = self._asked_for(raw or b"", peer, snapshot, names)
            view = peer.host_view = HostView(peer, snapshot, names, asked, now)
        exchange.host = view.name
        exchange.origin = view.origin
        if view.refused:
            raise _refused(view)
        if absolute and not view.tables:
            raise GatewayError(421, "This gateway does not serve that host.")
        if view.hsts is not None:
            exchange.hsts = view.hsts
        return view

    def _asked_for(
        self, raw: bytes, peer: Peer, snapshot: Snapshot, names: NameMap | None
    ) -> _Asked:
        """What connections before this one have found out about a host."""
        under = self._asked_under
        if under[0] is not snapshot or under[1] is not names or len(self._asked) >= _MOST_ASKED:
            self._asked_under = snapshot, names
            self._asked = {}
        key = raw, peer.sni, peer.tls, peer.port
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = _asked(raw, peer, snapshot, names)
        return asked

    def _route(self, exchange: Exchange, view: HostView) -> Route:
        """The route, by the path's one form; what it forbids by itself is refused here."""
        head = exchange.head
        wire = decoded = exchange.path
        slash = doubtful = False
        if head.path is None:
            decoded, wire, slash = normalise(wire)
            exchange.path = wire
            doubtful = slash or b";" in decoded
        try:
            route = find(view.tables, decoded, exchange.method, head)
        except NoRoute as error:
            raise _no_route(error.allowed) from None
        exchange.route = route
        if route.cors is not None:
            exchange.cors = route.cors.answering(head.lines, exchange.method)
        if doubtful:
            _check_doubtful(Path(decoded, wire, slash), route, view, exchange.method, head)
        if route.strip:
            exchange.asked = exchange.path
            exchange.path = strip_prefix(Path(decoded, wire, slash), route.strip)
        if exchange.method == b"TRACE":
            raise GatewayError(405, "TRACE is never allowed.", fields=(_ALL_METHODS,))
        expect = head.expect
        if expect is not None and expect != b"100-continue":
            raise GatewayError(417, "The only expectation understood is 100-continue.", close=True)
        if route.websocket and exchange.tunnels and asks_for_websocket(head):
            _upgrade(exchange)
        return route

    def _preflight(self, exchange: Exchange, view: HostView) -> bool:
        """Answer a browser that asks whether it may (Fetch standard, 3.2.2), by the route that
        the announced request would have; ``False`` where that has no say: then it is a request
        like any other. Browsers ask without credentials, so this stands before identity."""
        head = exchange.head
        asked = preflight(head.lines)
        if asked is None:
            return False
        path = Path(exchange.path, exchange.path, False)
        if head.path is None:
            path = normalise(exchange.path)
        try:
            route = find(view.tables, path.decoded, asked.method, head)
        except NoRoute:
            return False
        if route.cors is None:
            return False
        exchange.route = route
        exchange.path = path.wire
        exchange.cors = route.cors.answering(head.lines, asked.method)
        if path.slash or b";" in path.decoded:
            _check_doubtful(path, route, view, asked.method, head)
        if route.address_limits:
            _charge(exchange, self._address_limits(exchange, route), exchange.now)
        lines, exchange.reason = route.cors.allowing(asked)
        exchange.cors = None
        exchange.reply(204, [*lines, b"X-Request-Id: " + exchange.id], b"")
        return True

    def _address_limits(self, exchange: Exchange, route: Route) -> list[Window]:
        """Limits by address stand before identity, so that guessing is limited too."""
        caller = _network(exchange.client)
        now = exchange.now
        windows = [limit.table.window(caller, limit.rate, now) for limit in route.address_limits]
        self._check(exchange, windows, route.address_limits)
        return windows

    def _identify(
        self,
        exchange: Exchange,
        route: Route,
        snapshot: Snapshot,
        windows: list[Window] | None,
    ) -> None:
        """Who is calling, by API key, and may it come here?"""
        try:
            keys = exchange.head.keys
            if len(keys) == 1 and keys[0][0] is _API_KEY and snapshot.key_parameter is None:
                _, credential, exchange.credential = keys[0]
            else:
                found = key_of(exchange, snapshot.key_parameter)
                if found is None:
                    if route.anonymous:
                        return
                    raise missing("no credential")
                credential = found
            principal = holder(self._keys(), credential, exchange.started + self._clock.epoch)
            exchange.principal = principal
            if route.scopes or route.groups:
                permit(route, principal)
        except GatewayError:
            if windows:
                _charge(exchange, windows, exchange.now)
            raise

    def _recall(
        self, exchange: Exchange, route: Route, policy: Policy, windows: list[Window] | None
    ) -> bool:
        """Is it a caller whose token is known? And may it come here?"""
        if exchange.query and exchange.snapshot.key_parameter is not None:
            return False
        principal = policy.recall(exchange, exchange.started + self._clock.epoch)
        if principal is None:
            return False
        exchange.principal = principal
        if route.scopes or route.groups:
            try:
                permit(route, principal)
            except GatewayError:
                if windows:
                    _charge(exchange, windows, exchange.now)
                raise
        return True

    def _ask(
        self,
        exchange: Exchange,
        route: Route,
        policy: Policy,
        view: HostView,
        windows: list[Window] | None,
    ) -> bool:
        """Who is calling, by the route's policy? True if that takes time: the exchange waits."""

        def known(principal: Principal | None) -> None:
            exchange.principal = principal
            if principal is not None:
                permit(route, principal)

        def admit(principal: Principal | None) -> None:
            exchange.now = self._clock.now()
            try:
                known(principal)
            except GatewayError as error:
                refuse(error)
            else:
                go_on()

        def go_on() -> None:
            try:
                self._admit(exchange, route, view, windows)
            except Exception as error:
                self._fail(exchange, error)

        def refuse(error: Exception) -> None:
            exchange.now = self._clock.now()
            if route.shadow:
                try:
                    overlook(policy, sent, error)
                except Exception as own:
                    self._fail(exchange, own)
                else:
                    go_on()
                return
            if windows and isinstance(error, GatewayError):
                _charge(exchange, windows, exchange.now)
            self._fail(exchange, error)

        now = exchange.started + self._clock.epoch
        sent = Sent(exchange, view.standing, exchange.snapshot.key_parameter, now)
        try:
            found = policy.identify(sent)
            if isinstance(found, Deferred):
                Waiting(exchange, found, admit, refuse)
                return True
            known(found)
        except Exception as error:
            if route.shadow:
                overlook(policy, sent, error)
                return False
            if windows and isinstance(error, GatewayError):
                _charge(exchange, windows, exchange.now)
            raise
        return False

    def _limits(self, exchange: Exchange, route: Route, before: list[Window] | None) -> None:
        """All limits are looked at before any is charged."""
        now = exchange.now
        principal = exchange.principal
        caller = (principal is not None and principal.caller) or _network(exchange.client)
        limit = route.limit
        if before is None and limit is not None:
            rate = limit.rate_for(principal) if limit.plans else limit.rate
            window = limit.table.window(caller, rate, now)
            if window.full(now):
                self._refuse_limit(exchange, [window], [window])
            window.record(now)
            exchange.limit = limit.name
            exchange.remaining = window.remaining
            exchange.limit_lines = field_lines(window, now)
            return
        windows = [
            each.table.window(caller, each.rate_for(principal), now) for each in route.limits
        ]
        self._check(exchange, windows, route.limits)
        _charge(exchange, [*(before or ()), *windows], now)

    def _check(self, exchange: Exchange, windows: list[Window], limits: tuple[Limit, ...]) -> None:
        now = exchange.now
        full = [window.full(now) for window in windows]
        refusing = [
            window
            for window, is_full, limit in zip(windows, full, limits, strict=True)
            if is_full and not limit.shadow
        ]
        if refusing:
            self._refuse_limit(exchange, windows, refusing)
        for window, is_full in zip(windows, full, strict=True):
            if is_full:
                exchange.shadowed(429, f"429 limit {window.terms.name}")

    def _refuse_limit(
        self, exchange: Exchange, windows: list[Window], refusing: list[Window]
    ) -> None:
        now = exchange.now
        exchange.limit = refusing[0].terms.name
        exchange.remaining = 0
        exchange.limit_lines = joined_field_lines(windows, now)
        raise GatewayError(
            429,
            "You have sent more requests than your limit allows.",
            reason=f"limit {exchange.limit}",
            fields=(b"Retry-After: %d" % retry_after(refusing, now),),
        )

    def _answer(
        self,
        exchange: Exchange,
        route: Route,
        view: HostView,
        snapshot: Snapshot,
        run: Run | None = None,
    ) -> None:
        """Relay, or let the route's resource answer, or publish our keys, or show the built-in
        page where none of it is named yet."""
        upstream = route.upstream
        if upstream is None and route.mounted is None:
            if route.jwks is None:
                welcome(exchange)
            else:
                route.jwks.publish(exchange)
            return
        forwarded = view.forwarded
        hops = own_hops(exchange.head) if exchange.head.special else b""
        if snapshot.trusted and is_trusted(exchange.peer.address, snapshot.trusted):
            forwarded = vouched_lines(
                exchange.head, exchange.peer, snapshot.trusted, snapshot.forwarded, view.own
            ) + b"".join(
                [line + b"\r\n" for kind, line in exchange.head.special if kind is Kind.VIA]
            )
            if view.standing is not None:
                forwarded += view.standing.lines
        elif hops:
            forwarded += hops
        if run is not None and run.chain.upstream:
            self._see_off(exchange, route, view, forwarded, run)
        elif upstream is not None:
            self._relay.start(
                exchange, route, upstream, route.host_line or view.host_line, forwarded
            )
        elif route.mounted is not None:
            route.mounted.start(exchange, route, view.host_line, forwarded)

    def _see_off(
        self, exchange: Exchange, route: Route, view: HostView, forwarded: bytes, run: Run
    ) -> None:
        """Let the filters see the head for the service, which may take time; then go there."""
        host_line = view.host_line
        upstream, mounted = route.upstream, route.mounted
        if upstream is not None:
            host_line = route.host_line or host_line
        principal = exchange.principal
        identity = b"" if principal is None else principal.fields
        if principal is not None and route.edge is not None:
            identity = route.edge.lines(principal, exchange.now + self._clock.epoch)
        head = request_head(exchange, host_line, forwarded, route.request_rules, identity)

        def go_on(head: bytes) -> None:
            exchange.now = self._clock.now()
            if upstream is not None:
                self._relay.start(exchange, route, upstream, host_line, forwarded, head)
            elif mounted is not None:
                mounted.start(exchange, route, host_line, forwarded, head)

        seen = run.see_off(head, go_on)
        if seen is not None:
            go_on(seen)


def _check_doubtful(
    path: Path, route: Route, view: HostView, method: bytes, head: RequestHead
) -> None:
    """What may be meant by more than one route.

    An encoded slash does not divide segments for everybody. Servlets look a path up without the
    parameters of its segments (``/admin;a=b``): where that leads elsewhere, the route that was
    found does not guard what would answer; but for a route whose own path names parameters.

    :raises GatewayError: 400.
    """
    if path.slash and not route.keep_slash:
        raise malformed(
            "The path holds an encoded slash; a route takes it with 'encoded_slash: keep'."
        )
    if b";" not in path.decoded or ";" in route.label:
        return
    bare = _PARAMETERS.sub(b"", path.decoded)
    try:
        if find(view.tables, bare, method, head) is route:
            return
    except NoRoute:
        pass
    raise malformed("The path's parameters leave open which route is meant.")


_PARAMETERS = re.compile(rb";[^/]*+")
_API_KEY = Kind.API_KEY


def _refused(view: HostView) -> GatewayError:
    """Why a connection may not ask for a host at all; another connection may."""
    found = view.standing
    if found is not None and found.refusal:
        error = invalid(f"client certificate: {found.refusal}")
        error.close = view.ends
        return error
    return GatewayError(421, "This connection is not for that host.", close=view.ends)


def _no_route(allowed: frozenset[bytes]) -> GatewayError:
    if not allowed:
        return GatewayError(404, "There is nothing here.", reason="no route")
    fields = (b"Allow: " + b", ".join(sorted(allowed)),)
    return GatewayError(405, "This method is not allowed here.", fields=fields)


def _believe(exchange: Exchange, snapshot: Snapshot) -> None:
    """Behind a trusted proxy the caller is who the proxy says, and the request's id its own."""
    if not is_trusted(exchange.peer.address, snapshot.trusted):
        return
    exchange.client = trusted_chain(
        exchange.head, exchange.peer, snapshot.trusted, snapshot.forwarded
    )[0]
    sent = [line for kind, line in exchange.head.special if kind is Kind.REQUEST_ID]
    if len(sent) == 1:
        value = sent[0].partition(b":")[2].strip(b" \t")
        if _REQUEST_ID.match(value):
            exchange.id = value


def _upgrade(exchange: Exchange) -> None:
    """A WebSocket is asked for where there may be one.

    RFC 6455 4.1: the client sends nothing more until it has its answer. What it sends all the
    same is meant for the tunnel, and waits for the service to agree; no other answer makes a
    request of it, so after any other answer the connection ends.

    :raises GatewayError: 400 for a body, which would stand between the head and the tunnel.
    """
    if exchange.head.length or exchange.head.chunked:
        raise malformed("A request for a WebSocket has no body.")
    exchange.upgrade = True
    exchange.close_after()


def _charge(exchange: Exchange, windows: list[Window], now: float) -> None:
    """Record one admission in each window; one in shadow mode that is full counts no further."""
    for window in windows:
        if window.remaining > 0:
            window.record(now)
    if windows:
        least = min(windows, key=lambda window: window.remaining)
        exchange.limit = least.terms.name
        exchange.remaining = least.remaining
        exchange.limit_lines = joined_field_lines(windows, now)


def _network(address: str) -> str:
    """What an address is counted by: IPv4 whole, IPv6 by its /64 (one household or host)."""
    if ":" not in address:
        return address
    try:
        packed = ip_address(address.partition("%")[0]).packed
    except ValueError:
        return address
    return packed[:8].hex() + "/64"


def _unclear(exchange: Exchange, head: RequestHead) -> tuple[bytes, bool]:
    """Take apart a target that is not simply a clean path.

    :return: the authority, and whether it came from an absolute target (RFC 9112 3.2.2).
    """
    raw, target = head.host or b"", head.target
    absolute = target[:1] != b"/"
    if absolute:
        match = _ABSOLUTE.match(target)
        if match is None:
            raise malformed("The request target must be a path or an http URL.")
        authority, rest = match.groups()
        if split_host(authority)[0] != split_host(raw)[0]:
            raise malformed("The Host field and the request target name two hosts.")
        raw, target = authority, rest or b"/"
        if target[:1] != b"/":
            target = b"/" + target
    path, mark, query = target.partition(b"?")
    exchange.path = path
    exchange.query = mark + query
    return raw, absolute
