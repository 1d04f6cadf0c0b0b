"""The phases of a request, in order. Read this file first.

    host -> path -> route -> preflight -> address -> limits (address) -> identity -> limits -> relay

A preflight (CORS) is answered by the route that it asks about.

A phase goes on, answers, or raises :class:`~edgeproxy.errors.GatewayError`; there is one
``except``, and every way ends in ``exchange.finish``. The same code is reached from our own
channels, which call :meth:`ReverseProxyResource.handle`, and from a stock
``twisted.web.server.Site``, which calls :meth:`ReverseProxyResource.render`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from edgeproxy import limiting
from edgeproxy.arriving import believe, check_doubtful, take_apart
from edgeproxy.cors import preflight
from edgeproxy.errors import GatewayError, Source, malformed
from edgeproxy.exchange import Exchange
from edgeproxy.forward import is_trusted, own_hops, request_head, vouched_lines
from edgeproxy.guessing import Guessing
from edgeproxy.hostview import Hosts, HostView
from edgeproxy.http1.fields import Kind
from edgeproxy.http1.upgrade import asks_for_websocket
from edgeproxy.identifying import Sent, holder, key_of, withhold_keys
from edgeproxy.identity.keyindex import KeyIndex
from edgeproxy.identity.refusal import WrongCredential, guessed, missing
from edgeproxy.page import welcome
from edgeproxy.paths import Path, normalise, strip_prefix
from edgeproxy.policy import Policy, check_address, overlook, permit
from edgeproxy.routing import NoRoute, find
from edgeproxy.waiting import Waiting

if TYPE_CHECKING:
    from edgeproxy.certs.names import NameMap
    from edgeproxy.filters.run import Run
    from edgeproxy.identity.principal import Principal
    from edgeproxy.limits.window import Window
    from edgeproxy.relay import Relay
    from edgeproxy.snapshot import Route, Snapshot
    from edgeproxy.transport.deadlines import Clock

_log = Logger()

_ALL_METHODS = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


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
        self._hosts = Hosts(clock, names)

    def use(self, snapshot: Snapshot) -> None:
        """Another configuration is in force."""
        self.snapshot = snapshot
        self.guessing.use(snapshot.config.guessing)
        self._hosts.forget()

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
                believe(exchange, snapshot)
            view = self._host(exchange, snapshot)
            if snapshot.cors and exchange.method == b"OPTIONS" and self._preflight(exchange, view):
                return
            route = self._route(exchange, view)
            if route.addresses is not None:
                check_address(route, route.addresses, exchange)
            windows = limiting.by_address(exchange, route) if route.address_limits else None
            if self.guessing.suspects and not (route.open or route.shadow):
                wait = self.guessing.wait(limiting.network_of(exchange.client), self._clock.now())
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
            self.guessing.failed(limiting.network_of(exchange.client), self._clock.now())
        exchange.refuse(error)

    def _admit(
        self, exchange: Exchange, route: Route, view: HostView, windows: list[Window] | None
    ) -> None:
        """The phases after identity."""
        if route.limits or windows:
            limiting.hold(exchange, route, windows)
        length = exchange.head.length
        if length is not None and length > route.body:
            raise GatewayError(413, "The request body is larger than allowed.", close=True)
        chain = route.filters
        if chain is None:
            self._answer(exchange, route, view, exchange.snapshot)
            return
        run = chain.begin(exchange)
        if not chain.requests or run.admit():
            self._answer(exchange, route, view, exchange.snapshot, run)
        else:  # if they have not answered, they will decide later
            run.then = partial(self._filtered, exchange, route, view)

    def _filtered(self, exchange: Exchange, route: Route, view: HostView, run: Run) -> None:
        exchange.now = self._clock.now()
        run.sealed()
        self._answer(exchange, route, view, exchange.snapshot, run)

    def _host(self, exchange: Exchange, snapshot: Snapshot) -> HostView:
        """The host asked for, as this connection may ask for it."""
        head = exchange.head
        if head.path is not None:
            exchange.path = head.path
            exchange.query = head.query
            return self._hosts.view(exchange, snapshot, head.host)
        raw, absolute = take_apart(exchange, head)
        view = self._hosts.view(exchange, snapshot, raw)
        if absolute and not view.tables:
            raise GatewayError(421, "This gateway does not serve that host.")
        return view

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
            check_doubtful(Path(decoded, wire, slash), route, view.tables, exchange.method, head)
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
            check_doubtful(path, route, view.tables, asked.method, head)
        if route.addresses is not None:
            check_address(route, route.addresses, exchange)
        if route.address_limits:
            limiting.charge(exchange, limiting.by_address(exchange, route), exchange.now)
        lines, exchange.reason = route.cors.allowing(asked)
        exchange.cors = None
        exchange.reply(204, [*lines, b"X-Request-Id: " + exchange.id], b"")
        return True

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
                limiting.charge(exchange, windows, exchange.now)
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
                    limiting.charge(exchange, windows, exchange.now)
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
        now = exchange.started + self._clock.epoch
        sent = Sent(exchange, view.standing, exchange.snapshot.key_parameter, now)
        try:
            found = policy.identify(sent)
            if isinstance(found, Deferred):
                self._wait(found, sent, route, policy, view, windows)
                return True
            exchange.principal = found
            if found is not None:
                permit(route, found)
        except Exception as error:
            if route.shadow:
                overlook(policy, sent, error)
                return False
            if windows and isinstance(error, GatewayError):
                limiting.charge(exchange, windows, exchange.now)
            raise
        return False

    def _wait(
        self,
        found: Deferred[Principal],
        sent: Sent,
        route: Route,
        policy: Policy,
        view: HostView,
        windows: list[Window] | None,
    ) -> None:
        """Go on with an exchange when it is known who is calling."""
        exchange = sent.exchange

        def admit(principal: Principal) -> None:
            exchange.now = self._clock.now()
            exchange.principal = principal
            try:
                permit(route, principal)
            except GatewayError as error:
                refuse(error)
            else:
                go_on()

        def go_on() -> None:
            try:
                # Others of its address may have been let in while it waited.
                again = limiting.by_address(exchange, route) if windows else None
                self._admit(exchange, route, view, again)
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
                limiting.charge(exchange, limiting.of_address(exchange, route), exchange.now)
            self._fail(exchange, error)

        Waiting(exchange, found, admit, refuse)

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


_API_KEY = Kind.API_KEY


def _no_route(allowed: frozenset[bytes]) -> GatewayError:
    if not allowed:
        return GatewayError(404, "There is nothing here.", reason="no route")
    fields = (b"Allow: " + b", ".join(sorted(allowed)),)
    return GatewayError(405, "This method is not allowed here.", fields=fields)


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
