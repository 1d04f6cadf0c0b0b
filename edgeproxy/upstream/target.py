"""One address of a service: its pool of connections, made, lent, taken back and closed here."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from edgeproxy.http1.client import Failure, Http1Client, Relaying
from edgeproxy.transport.connect import TCP, Network
from edgeproxy.transport.connect import Attempt as UnderWay
from edgeproxy.transport.deadlines import NEVER, Deadlines
from edgeproxy.transport.stream import Stream, StreamProtocol
from edgeproxy.upstream.address import Address
from edgeproxy.upstream.health import EJECTION, Ejection, Health, Out
from edgeproxy.upstream.pool import Pool

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.http1.fields import FieldTable

_log = Logger()


class Connects(Relaying, Protocol):
    """What a target tells about an exchange that it was given, beside what its connections do."""

    def connected(self, exchange: Exchange, client: Http1Client) -> None: ...
    def unreachable(
        self, exchange: Exchange, target: Target, failure: Failure, why: str
    ) -> None: ...
    def crowded(self, exchange: Exchange, target: Target) -> None: ...


#: A request that may not be repeated takes a pooled connection only if it was idle this short,
#: in seconds: the shorter, the less likely that the upstream is closing it at this very moment.
_FRESH = 1.0


class Attempt:
    """A connection being made on behalf of one exchange, or that exchange waiting for one.

    When its exchange has gone the connection is still made, and put into the pool.
    """

    __slots__ = ("connecting", "deadline", "exchange", "since", "target")

    def __init__(self, target: Target, exchange: Exchange | None, since: float) -> None:
        self.target = target
        self.exchange = exchange
        self.since = since
        self.connecting: UnderWay | None = None
        self.deadline = NEVER

    def expired(self, now: float) -> None:
        self.target.gave_up(self)

    def cancelled(self, exchange: Exchange) -> None:
        """The exchange has ended while it waited."""
        self.target.abandon(self)


class TargetOptions:
    """Numbers of one target; seconds and counts."""

    __slots__ = (
        "cap",
        "connect",
        "ejection",
        "fields",
        "head_size",
        "idle",
        "queue",
        "wait",
        "weight",
    )

    def __init__(
        self,
        fields: FieldTable,
        head_size: int = 65536,
        cap: int = 256,
        queue: int = 1024,
        wait: float = 1.0,
        idle: float = 30.0,
        connect: float = 3.0,
        ejection: Ejection = EJECTION,
        weight: int = 1,
    ) -> None:
        self.fields = fields
        self.head_size = head_size
        self.cap = cap
        self.queue = queue
        self.wait = wait
        self.idle = idle
        self.connect = connect
        self.ejection = ejection
        self.weight = weight


class Target:
    """See the module's text. ``url`` is what is configured, ``name`` the address as it is shown,
    ``upstream`` the service's name. ``health`` outlives the target where another takes its place
    at the same address."""

    def __init__(
        self,
        reactor: Any,
        deadlines: Deadlines,
        relay: Connects,
        url: str,
        address: Address,
        options: TargetOptions,
        network: Network = TCP,
        upstream: str = "",
        health: Health | None = None,
    ) -> None:
        self.reactor = reactor
        self.deadlines = deadlines
        self.relay = relay
        self.url = url
        self.address = address
        self.name = str(address)
        self.upstream = upstream
        self.health = health or Health()
        self.weight = options.weight
        #: The scheme and the port that the service may name in an answer; no port for a socket.
        self.scheme = "https" if url.startswith("https:") else "http"
        self.port = 0 if address.family == socket.AF_UNIX else int(address.at[1])
        self.options = options
        self.alone = (self,)
        self.pool: Pool[Http1Client, Attempt] = Pool(options.cap, options.queue, options.idle)
        self.clients: set[Http1Client] = set()
        #: Whether connections are closed once they are free.
        self.retired = False
        self._now = deadlines.clock.now
        self._network = network

    def __repr__(self) -> str:
        return f"<Target {self.name} {self.pool!r}>"

    @property
    def shown(self) -> str:
        """For people: as it is configured, with the address if that is another."""
        return self.name if self.name in self.url else f"{self.url} ({self.name})"

    @property
    def busy(self) -> int:
        """Requests under way here, and those that wait for a connection."""
        pool = self.pool
        return pool.open - len(pool.idle) + len(pool.waiting)

    # -- for the relay ---------------------------------------------------------------------------

    def lend(self, now: float, repeatable: bool) -> Http1Client | None:
        """A pooled connection that is alive; ``None`` when :meth:`connect` has to be called.

        Each is asked right before use whether it has been closed or said anything unasked: such
        bytes would be taken for the answer to the next caller's request.
        """
        pool = self.pool
        if not pool.idle:
            return None
        while True:
            client = pool.take(now, pool.idle_for if repeatable else _FRESH)
            if client is None or client.stream.quiet():
                return client
            client.retire()

    def connect(self, exchange: Exchange) -> None:
        """Make a connection for the exchange, or let it wait for one; the relay hears of it."""
        now = self._now()
        allowed, old = self.pool.reserve()
        if old is not None:
            self.pool.open += 1  # the new one; the old one counts itself out when it is gone
            old.retire()
        attempt = Attempt(self, exchange, now)
        if allowed:
            exchange.worker = attempt
            self._start(attempt, now)
        elif self.pool.wait(attempt):
            exchange.worker = attempt
            attempt.deadline = now + self.options.wait
            self.deadlines.waiting.add(attempt)
        else:
            self.relay.crowded(exchange, self)

    def _start(self, attempt: Attempt, now: float) -> None:
        attempt.deadline = now + self.options.connect
        self.deadlines.waiting.add(attempt)
        attempt.connecting = self.dial(
            lambda sock: self._connected(attempt, sock), lambda why: self._failed(attempt, why)
        )

    def dial(self, connected: Callable[[Any], None], failed: Callable[[str], None]) -> UnderWay:
        """Begin to make a connection."""
        return self._network.connect(self.reactor, *self.address, connected, failed)

    def stream(self, sock: Any, protocol: StreamProtocol) -> Stream:
        """What speaks to a protocol over a connection that :meth:`dial` has made."""
        return self._network.stream(self.reactor, sock, protocol)

    def _connected(self, attempt: Attempt, sock: socket.socket) -> None:
        self.deadlines.waiting.discard(attempt)
        attempt.connecting = None
        options = self.options
        client = Http1Client(self, self.relay, options.fields, options.head_size, self._now)
        client.stream = self.stream(sock, client)
        client.stream.resume_reading()
        self.clients.add(client)
        self.deadlines.waiting.add(client)
        exchange, attempt.exchange = attempt.exchange, None
        if self.health.out:
            self.tell(self.health.connected(self._now()))
        if exchange is None:
            self.released(client, self._now())
        else:
            exchange.worker = None
            exchange.connect_time = self._now() - attempt.since
            self.relay.connected(exchange, client)

    def _failed(self, attempt: Attempt, why: str, failure: Failure = Failure.REFUSED) -> None:
        self.deadlines.waiting.discard(attempt)
        attempt.connecting = None
        ejection = self.options.ejection
        self.tell(self.health.refused(self._now(), f"cannot connect: {why}", ejection))
        self._hand_on(self.pool.gone(None))
        exchange, attempt.exchange = attempt.exchange, None
        if exchange is not None:
            exchange.worker = None
            self.relay.unreachable(exchange, self, failure, why)

    def gave_up(self, attempt: Attempt) -> None:
        """The connection was not made in time, or there was none to wait for."""
        if attempt.connecting is not None:
            attempt.connecting.cancel()
            self._failed(attempt, "timed out", Failure.TIMEOUT)
            return
        self.deadlines.waiting.discard(attempt)
        self.pool.leave(attempt)
        exchange, attempt.exchange = attempt.exchange, None
        if exchange is not None:
            exchange.worker = None
            self.relay.crowded(exchange, self)

    def abandon(self, attempt: Attempt) -> None:
        """The exchange wants nothing any more."""
        attempt.exchange = None
        if attempt.connecting is None:
            self.deadlines.waiting.discard(attempt)
            self.pool.leave(attempt)

    # -- from the connections --------------------------------------------------------------------

    def released(self, client: Http1Client, now: float) -> None:
        if self.retired:
            client.retire()
            return
        attempt = self.pool.give(client, now)
        if attempt is not None:
            self._hand_client(attempt, client)

    def lost(self, client: Http1Client) -> None:
        self.clients.discard(client)
        self.deadlines.waiting.discard(client)
        self._hand_on(self.pool.gone(client))

    def _hand_client(self, attempt: Attempt, client: Http1Client) -> None:
        """A connection is free: the exchange that has waited longest gets it."""
        self.deadlines.waiting.discard(attempt)
        exchange, attempt.exchange = attempt.exchange, None
        if exchange is None:
            self.released(client, self._now())
            return
        exchange.worker = None
        self.relay.connected(exchange, client)

    def _hand_on(self, attempt: Attempt | None) -> None:
        """A place under the cap is free: whoever waits may make a connection."""
        if attempt is None:
            return
        self.pool.open += 1
        self._start(attempt, self._now())

    # -- health ----------------------------------------------------------------------------------

    def tell(self, line: str) -> None:
        """Log what has changed about its health, if anything has."""
        if not line:
            return
        tell = _log.warn if self.health.out == Out.LAST else _log.info
        tell("{upstream}: {target}: {line}", upstream=self.upstream, target=self.shown, line=line)

    def drain(self, on: bool) -> None:
        """Take no new requests, and keep no connection that is free; or take them again."""
        self.tell(self.health.drain(on))
        if on:
            self.retire()
        else:
            self.retired = False

    # -- care ------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Close connections that nobody has used for a while; let ejections end."""
        if self.health.ejected_until:
            self.tell(self.health.tick(now))
        for client in self.pool.expire(now):
            client.retire()

    def retire(self) -> None:
        """Nothing leads here any more: close what is idle, and the rest after its answer."""
        self.retired = True
        for client in self.pool.empty():
            client.retire()
