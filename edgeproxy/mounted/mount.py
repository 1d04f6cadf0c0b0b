"""The resource of one route, and a request's way to it: its body first, then the head anew."""

from __future__ import annotations

import tempfile
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.config import Config, ConfigError
from edgeproxy.config import Route as RouteConfig
from edgeproxy.errors import GatewayError, Source, malformed
from edgeproxy.forward import request_head
from edgeproxy.mounted.channel import Channel
from edgeproxy.mounted.files import one_range
from edgeproxy.mounted.loading import LoadError, find, make, problem
from edgeproxy.mounted.request import GatewayRequest, MountSite
from edgeproxy.snapshot import label

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.snapshot import Route
    from edgeproxy.transport.deadlines import Deadlines

_log = Logger()

#: Bytes of a body that are kept in memory; what is longer goes into a file that has no name.
IN_MEMORY = 65536
_FRAMING = (b"transfer-encoding", b"content-length")


class Mount:
    """The resource of one route; ``site`` is there once the resource has been made."""

    site: MountSite

    def __init__(self, reactor: Any, deadlines: Deadlines) -> None:
        self.reactor = reactor
        self.deadlines = deadlines
        self.now = deadlines.clock.now

    def start(
        self,
        exchange: Exchange,
        route: Route,
        host_line: bytes,
        forwarded: bytes,
        head_out: bytes = b"",
    ) -> None:
        """Let the resource answer, once the body has ended; ``head_out`` is its request's head
        where that has been made already.

        :raises GatewayError: what the head shows to be wrong.
        """
        depth = len(route.mount)
        segments = exchange.path[1:].split(b"/")[:depth]
        if tuple(map(unquote_to_bytes, segments)) != route.mount:
            raise malformed("The path's prefix is spelled with an encoded slash.")
        head = exchange.head
        principal = exchange.principal
        lines = head_out or request_head(
            exchange,
            host_line,
            forwarded,
            route.request_rules,
            b"" if principal is None else principal.fields,
        )
        has_body = bool(head.length or head.chunked)
        exchange.attempts = 1
        payload = exchange.take_body() if has_body else b""
        if payload is None:
            exchange.worker = body = _Body(self, exchange, route, lines)
            exchange.stream_body(body)
        else:
            self.run(exchange, route, lines, BytesIO(payload), len(payload))

    def run(
        self, exchange: Exchange, route: Route, head: bytes, content: IO[bytes], size: int
    ) -> None:
        """Hand a complete request to the resource. Never raises."""
        channel = Channel(self, exchange, route)
        request = GatewayRequest(channel, exchange.principal, exchange.id.decode("ascii"))
        channel.request = request
        first, *lines = head[:-4].split(b"\r\n")
        for line in lines:
            name, _, value = line.partition(b":")
            if name.lower() not in _FRAMING:
                request.requestHeaders.addRawHeader(name, value.strip(b" \t"))
        one_range(request.requestHeaders)
        if exchange.head.chunked or exchange.head.length is not None:
            request.requestHeaders.addRawHeader(b"Content-Length", b"%d" % size)
        request.parseCookies()  # type: ignore[no-untyped-call]
        request.content = content
        content.seek(0, 2)
        method, target, _ = first.split(b" ")
        try:
            request.requestReceived(method, target, b"HTTP/1." + exchange.head.minor)  # type: ignore[no-untyped-call]
        except Exception:
            request.processingFailed(Failure())

    def close(self) -> None:
        """No route leads here any more."""
        self.site.close()


class _Body:
    """Keeps a request's body until it is complete."""

    def __init__(self, mount: Mount, exchange: Exchange, route: Route, head: bytes) -> None:
        self._mount = mount
        self._exchange = exchange
        self._route = route
        self._head = head
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        self._size = 0
        self._over = False

    def body(self, data: bytes) -> None:
        if self._over:
            return
        try:
            self._file.write(data)
            self._size += len(data)
        except OSError as error:
            _log.error(
                "{route}: a request's body cannot be kept: {why}",
                route=self._route.label,
                why=error.strerror,
            )
            self._drop()
            detail = "There is no room for the request's body."
            self._exchange.refuse(GatewayError(503, detail, source=Source.OURSELVES, close=True))

    def body_end(self, trailers: list[bytes]) -> None:
        if not self._over:
            self._over = True
            self._mount.run(self._exchange, self._route, self._head, self._file, self._size)

    def cancelled(self, exchange: Exchange) -> None:
        if not self._over:
            self._drop()

    def _drop(self) -> None:
        self._over = True
        self._exchange.worker = None
        self._file.close()


class Mounts:
    """The mounts of all routes. A resource is made once, and kept over a reload for as long as
    its route has the same host, methods, path and conditions and names the same resource with
    the same options."""

    def __init__(self, reactor: Any, deadlines: Deadlines) -> None:
        self._reactor = reactor
        self._deadlines = deadlines
        self._made: dict[tuple[str, ...], Mount] = {}

    def build(self, config: Config) -> Building:
        """Import what the routes name. May run in a thread; nothing is made yet.

        :raises ConfigError: with each that cannot be imported.
        """
        building = Building()
        wrong = []
        for order, route in enumerate(config.routes):
            if route.resource is None:
                continue
            key = (label(route), route.resource, repr(route.options))
            mount = self._made.get(key)
            if mount is None:
                mount = Mount(self._reactor, self._deadlines)
                try:
                    found = find(route.resource, config.folder)
                except LoadError as error:
                    wrong.append(problem(route, error))
                else:
                    building.to_make.append((mount, route, found))
            building.mounts[key] = building.by_order[order] = mount
        if wrong:
            raise ConfigError(wrong)
        return building

    def make(self, building: Building) -> None:
        """Make the resources that are new, in the reactor's own thread.

        :raises ConfigError: with each that cannot be made; nothing has changed then.
        """
        wrong = []
        for mount, route, found in building.to_make:
            assert route.resource is not None
            try:
                made = make(found, route.resource, route.options)
            except LoadError as error:
                wrong.append(problem(route, error))
            else:
                mount.site = MountSite(made, self._reactor, label(route))
        if wrong:
            raise ConfigError(wrong)

    def use(self, building: Building) -> None:
        """These are in force; what no route leads to any more is closed. Cannot fail."""
        before, self._made = self._made, building.mounts
        for key, mount in before.items():
            if key not in building.mounts:
                mount.close()


class Building:
    """Mounts of a configuration that is not in force yet; ``by_order`` has them by the place of
    their route in it."""

    def __init__(self) -> None:
        self.mounts: dict[tuple[str, ...], Mount] = {}
        self.by_order: dict[int, Mount] = {}
        self.to_make: list[tuple[Mount, RouteConfig, Any]] = []
