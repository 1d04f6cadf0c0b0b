"""The gateway itself, assembled from a configuration, with its surroundings in memory."""

from __future__ import annotations

import json
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from hashlib import sha512
from typing import Any

from edgeproxy.certs.development import make as make_certificate
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import scan
from edgeproxy.config import parse
from edgeproxy.exchange import Exchange, Peer
from edgeproxy.http1.server import Http1Server
from edgeproxy.identity.apikey import digest, make
from edgeproxy.identity.keyfile import parse_line, stamp
from edgeproxy.service import Gateway
from edgeproxy.starting import Bound
from edgeproxy.testing.link import MemoryStream, MemoryWire
from edgeproxy.testing.reactor import EPOCH, InOrder, MemoryClock, MemoryReactor
from edgeproxy.testing.tls import TLSWire
from edgeproxy.testing.wire import Way, Wire
from edgeproxy.transport.connect import Network
from edgeproxy.transport.stream import StreamProtocol
from edgeproxy.upstream.lookup import Answer, in_order


class Service:
    """A target of an upstream, as the test plays it.

    ``mode`` is what happens to a connect: ``"accept"``, ``"refuse"``, or ``"silent"`` (no answer
    ever). ``greet`` is called with each new connection.
    """

    def __init__(self) -> None:
        self.mode = "accept"
        self.connections: list[MemoryWire] = []
        self.attempts = 0
        self.greet: Callable[[MemoryWire], None] | None = None
        self._accepted = 0

    def accept(self) -> MemoryWire:
        """The next connection that the gateway has made.

        :raises AssertionError: it has made none.
        """
        if self._accepted == len(self.connections):
            raise AssertionError("the gateway has not connected to this service")
        self._accepted += 1
        return self.connections[self._accepted - 1]

    @property
    def received(self) -> bytes:
        """All that has come on any connection."""
        return b"".join(each.received for each in self.connections)


class MemoryGateway:
    """See :mod:`edgeproxy.testing`.

    ``configuration`` is what stands in ``edgeproxy.yaml``. ``certificates`` are the names of each
    certificate, the first one's is the default; left out, one covers all hosts of the routes.
    ``names`` says what the names of targets lead to; answers hold for 30 s. ``filters`` are
    classes that routes may name like drop-ins.
    ``finished`` are the exchanges that have ended, in order, and ``gateway`` is the service.
    """

    def __init__(
        self,
        configuration: str,
        way: Way = Way.WHOLE,
        certificates: Sequence[Sequence[str]] = (),
        environ: Mapping[str, str] | None = None,
        names: Mapping[str, Sequence[str]] | None = None,
        filters: Mapping[str, type] | None = None,
    ) -> None:
        self.reactor = MemoryReactor()
        self.clock = MemoryClock(self.reactor)
        self.way = way
        self.clients: list[Wire] = []
        self.services: dict[tuple[str, int], Service] = {}
        self.finished: list[Exchange] = []
        self.streams: list[MemoryStream] = []
        self.peers: dict[int, Wire] = {}
        config = parse(configuration, environ=environ or {})
        self.config = config
        self.names = dict(names or {})
        network = Network(self._connect, self._stream, self._look_up)
        gateway = self.gateway = Gateway(self.reactor, config, self.clock, network, filters=filters)
        gateway.fleet.resolver.ask = lambda host, answered: answered(host, self._look_up(host))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as this does
        gateway.log._fd = self._log.fileno()
        self._write = gateway.log.record
        gateway.log.record = gateway.resource.snapshot.finished = self._record
        for upstream in config.upstreams.values():
            for target in upstream.targets:
                self.services[target.host, target.port] = Service()
        hosts = tuple(sorted({route.host for route in config.routes} - {"*"}))
        sets = tuple(map(tuple, certificates)) or ((hosts or ("localhost",)),)
        gateway.tls.swap(_names(sets))
        ports = {"https": 8443, "http": 8080}
        if config.health is not None:
            ports["health"] = 9000
        gateway._listen([Bound(kind, _NoSocket(port)) for kind, port in ports.items()])  # type: ignore[arg-type]
        # What starting the service does, but for what belongs to a process.
        gateway.running = True
        gateway.deadlines.waiting = InOrder(gateway.deadlines.waiting)
        gateway.fleet.start()
        gateway.deadlines.start()

    # -- what tests call -------------------------------------------------------------------------

    def client(
        self,
        address: str = "192.0.2.1",
        name: str | None = None,
        *,
        plain: bool = False,
        probe: bool = False,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Wire:
        """A new client from ``address``; ``name`` is the one it asks for in TLS (the first host
        of the routes where not said). ``plain`` comes to the listener without TLS, ``probe`` to the
        one of ``health:``. ``context``, for real TLS, may hold a certificate to show; ``session``
        is one to resume."""
        plain = plain or probe
        if name is None and not plain:
            entry = self.gateway.tls.names.default
            name = None if entry is None else entry.name.replace("*", "any")
        if self.way is Way.TLS and not plain:
            wire = self._tls_client(address, name or "", context, session)
        else:
            wire = self._memory_client(address, name, plain, probe)
        self.clients.append(wire)
        self.reactor.settle()
        return wire

    def service(self, upstream: str, target: int = 0) -> Service:
        """The service behind an upstream's target."""
        found = self.config.upstreams[upstream].targets[target]
        return self.services[found.host, found.port]

    def key(
        self,
        name: str,
        *,
        scopes: Sequence[str] = (),
        groups: Sequence[str] = (),
        plan: str = "",
        expires: float | None = None,
        not_before: float | None = None,
        revoked: bool = False,
    ) -> str:
        """Add an API key (the same credential for the same name) and return the credential.

        ``expires`` and ``not_before`` are seconds from now.

        :raises KeyFileError: a key file could not hold that.
        """
        key = make(sha512(name.encode()).digest()[:48])
        now = self.clock.now() + self.clock.epoch
        line: dict[str, Any] = {
            "id": key.id,
            "name": name,
            "digest": digest(key.credential.encode()).hex(),
            "created": stamp(now - 86400),
            "scopes": list(scopes),
            "groups": list(groups),
            "plan": plan,
            "not_before": None if not_before is None else stamp(now + not_before),
            "expires": None if expires is None else stamp(now + expires),
            "revoked": stamp(now - 1) if revoked else None,
        }
        text = json.dumps({name: value for name, value in line.items() if value})
        record = parse_line(text.encode("ascii"), 1)
        added = self.gateway.keys.index.add(record, text.encode("ascii"))
        if not added:
            raise ValueError(f"there is a key {name!r} already")
        return key.credential

    def exchanges(self, client: Wire) -> list[Exchange]:
        """Those of a client that have ended, in order."""
        return [each for each in self.finished if self.peers.get(id(each.peer)) is client]

    @property
    def log(self) -> list[dict[str, Any]]:
        """The access log, unless it is off."""
        self.gateway.log.flush()
        self._log.seek(0)
        return [json.loads(line) for line in self._log]

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.reactor.wait(seconds)

    # -- the gateway's surroundings --------------------------------------------------------------

    def _record(self, exchange: Exchange) -> None:
        self.finished.append(exchange)
        self._write(exchange)

    def _memory_client(self, address: str, name: str | None, plain: bool, probe: bool) -> Wire:
        wire = MemoryWire(self.reactor, self.way)
        listening = self.gateway.listeners[1 if plain else 0]
        if probe:
            (listening,) = self.gateway.probing
        protocol = Http1Server(listening.listener, Peer(address, 50000, listening.number))
        secure = ("", None) if plain else ("TLSv1.3", name)
        self.peers[id(protocol.peer)] = wire
        protocol.stream = MemoryStream(self.reactor, wire, protocol, secure)
        self.streams.append(protocol.stream)
        listening.port.open += 1
        listening.connections.add(protocol)
        self.gateway.deadlines.waiting.add(protocol)
        protocol.stream.resume_reading()
        protocol.secured()
        return wire

    def _tls_client(
        self,
        address: str,
        name: str,
        context: ssl.SSLContext | None,
        session: ssl.SSLSession | None,
    ) -> Wire:
        near, far = socket.socketpair()
        near.setblocking(False)
        wire = TLSWire(self.reactor, self.way, far, name, context, session)
        listening = self.gateway.listeners[0]
        listening.port.open += 1
        before = set(listening.connections)
        listening._accept(near, (address, 50000))
        (protocol,) = listening.connections - before
        assert isinstance(protocol, Http1Server)
        self.peers[id(protocol.peer)] = wire
        return wire

    def _connect(
        self,
        reactor: Any,
        family: socket.AddressFamily,
        address: tuple[str, int],
        connected: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> Any:
        service = self.services.setdefault(address, Service())
        service.attempts += 1
        return _Connecting(self.reactor, self.way, service, connected, failed)

    def _look_up(self, host: str) -> Answer:
        found = self.names.get(host)
        return Answer(in_order(found)) if found else Answer(error="not found", absent=True)

    def _stream(self, reactor: Any, wire: Any, protocol: StreamProtocol) -> MemoryStream:
        stream = MemoryStream(self.reactor, wire, protocol)
        self.streams.append(stream)
        return stream


class _Connecting:
    """What `edgeproxy.transport.connect.Connecting` is, to a service in memory."""

    def __init__(
        self,
        reactor: MemoryReactor,
        way: Way,
        service: Service,
        connected: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._way = way
        self._service = service
        self._connected = connected
        self._failed = failed
        self._later: Any = None
        if service.mode != "silent":
            self._later = reactor.callLater(0, self._finish)

    def cancel(self) -> None:
        if self._later is not None and self._later.active():
            self._later.cancel()

    def _finish(self) -> None:
        service = self._service
        if service.mode != "accept":
            self._failed(os.strerror(111))
            return
        wire = MemoryWire(self._reactor, self._way)
        service.connections.append(wire)
        self._connected(wire)
        if service.greet is not None:
            service.greet(wire)


class _NoSocket:
    """Stands for a listening socket: nobody connects to it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.254", self._port

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


@cache
def _names(sets: tuple[tuple[str, ...], ...]) -> NameMap:
    """A name map over one certificate for each set of names; the first answers for all others."""
    now = datetime.fromtimestamp(EPOCH, UTC)
    files = {}
    for number, names in enumerate(sets):
        made = make_certificate(names, now)
        files[f"{number}.pem"] = made.chain_pem + made.key_pem
    return NameMap(scan(files, now).chains, sets[0][0], now)
