"""The gateway as a Twisted service: built from a configuration, reloaded, drained.

:func:`Gateway.prepare` does everything that can fail before the process goes into the background:
it reads certificates and keys, opens the log and binds the ports.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Container, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.certs.clients import Policies
from edgeproxy.certs.contexts import ServerTLS
from edgeproxy.certs.folder import CertificateFolder
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import Problem
from edgeproxy.certs.telling import Counts
from edgeproxy.certs.trust import TrustWatch, read_policies
from edgeproxy.config import Config
from edgeproxy.config.frozen import Frozen
from edgeproxy.control import ControlSocket
from edgeproxy.credentials import Credentials
from edgeproxy.edgetokens import EdgeTokens, Issuing
from edgeproxy.filters.inforce import Building as FiltersBuilding
from edgeproxy.filters.inforce import Filters
from edgeproxy.http1.grammar import HeadLimits
from edgeproxy.http1.server import Listener, Timeouts
from edgeproxy.identifying import Credential
from edgeproxy.identity import lastused
from edgeproxy.identity.keyfile import KeyFileError
from edgeproxy.identity.keystore import KeyStore
from edgeproxy.identity.lastused import LastUsed
from edgeproxy.limits.table import LimitTable
from edgeproxy.listening import Listening
from edgeproxy.mounted.mount import Building, Mounts
from edgeproxy.notify import Notify
from edgeproxy.observe.accesslog import AccessLog
from edgeproxy.observe.counters import Counters
from edgeproxy.observe.status import summary
from edgeproxy.readiness import PATHS, PROBES, Readiness
from edgeproxy.redirect import RedirectToHttps
from edgeproxy.relay import Relay
from edgeproxy.reloading import Reloader, Staged
from edgeproxy.resource import ReverseProxyResource
from edgeproxy.signals import Signals
from edgeproxy.slices import in_slices
from edgeproxy.snapshot import Snapshot, compile_limits, compile_router
from edgeproxy.starting import (
    Bound,
    StartError,
    allow_descriptors,
    bind_all,
    check_folder,
    no_certificate,
    open_keys,
)
from edgeproxy.state import state_folder
from edgeproxy.transport.connect import TCP, Network
from edgeproxy.transport.deadlines import Clock, Deadlines
from edgeproxy.upkeep import Upkeep
from edgeproxy.upstream.fleet import Fleet, Plan
from edgeproxy.upstream.trust import Unusable, unverified

_log = Logger()


class Built(NamedTuple):
    """A configuration compiled, with the targets that it needs; nothing of it is in force."""

    config: Config
    snapshot: Snapshot
    plan: Plan
    mounts: Building
    credentials: dict[str, tuple[Frozen, Credential]]
    filters: FiltersBuilding
    edge: EdgeTokens | None


class Gateway(Service):
    """See the module's text. ``config`` is the configuration in force; ``filters`` are drop-ins
    besides those under ``twisted/plugins``."""

    name = "edgeproxy"

    def __init__(
        self,
        reactor: Any,
        config: Config,
        clock: Clock | None = None,
        network: Network = TCP,
        notify: Notify | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> None:
        self.reactor = reactor
        self.config = config
        self.clock = clock or Clock()
        self.notify = notify or Notify(reactor, {})
        self.deadlines = Deadlines(reactor, self.clock)
        self.relay = Relay(self.deadlines)
        self.fleet = Fleet(reactor, self.deadlines, self.relay, network)
        self.counters = Counters()
        self.log = AccessLog(reactor, self.clock, self.counters, config.access_log)
        self.tls = ServerTLS(NameMap((), None, _now()))
        self.tls.require(config.listen.tls)
        self._tls_work: Deferred[None] = succeed(None)
        self._upkeep = Upkeep(self.tls, self._tables, self.clock.now())
        self.listeners: list[Listening] = []
        #: For probes alone; they go on while the others drain.
        self.probing: list[Listening] = []
        self.readiness = Readiness(self.snapshot, self.obstacle, lambda: self.issuing.tokens)
        self.certificate_counts = Counts()
        self.draining: Deferred[None] | None = None
        self._drain_timer: Any = None
        self._cut = 0
        self.started = 0.0
        self.reloader = Reloader(self)
        self.control = ControlSocket(reactor, config.control.path, self, group=config.control.group)
        self.signals = Signals(reactor, self)
        self.keys = KeyStore(reactor, config.keys.file, _nothing, config.keys.hashing)
        self.last_used = LastUsed(reactor, _uses(config), self._key_store)
        self.folder = self._folder(config)
        self.mounts = Mounts(reactor, self.deadlines)
        self.credentials = Credentials(reactor, self.clock, self._keys)
        self.issuing = Issuing(reactor, self.clock)
        self.filters = Filters(reactor, self.deadlines, filters)
        built = self.build(config)
        self.mounts.make(built.mounts)
        self.filters.make(built.filters)
        self.resource = ReverseProxyResource(
            built.snapshot, self.relay, self.clock, self._keys, self._names
        )
        self.tls.ask(built.snapshot.policies)
        self.trust = TrustWatch(reactor, _now, self._policies_changed)
        self.trust.watch(config, built.snapshot.policies)
        self.fleet.use(built.plan)
        self.mounts.use(built.mounts)
        self.credentials.use(built.credentials)
        self.filters.use(built.filters)
        self.issuing.use(built.edge)

    # -- building --------------------------------------------------------------------------------

    def prepare(self, bound: list[Bound] | None = None) -> None:
        """Read what has to be read, and bind the ports, unless they were bound already.

        :raises StartError: with a line for each reason.
        """
        config = self.config
        allow_descriptors(self.reactor, config)
        if bound is None:
            bound = bind_all(config)
        check_folder(config.certs.folder)
        self.keys.last = self.last_used.read(_now().timestamp())
        try:
            self.keys.start()
        except KeyFileError as error:
            raise StartError(f"{config.keys.file}:{error.line}: {error.message}") from error
        except OSError as error:
            raise StartError(f"{config.keys.file}: {error.strerror}") from error
        open_keys(self.issuing.tokens)
        self.folder.start()
        if not self.tls.names.entries:
            raise no_certificate(config.certs.folder, self.folder.problems)
        try:
            self.log.start()
        except OSError as error:
            raise StartError(f"access log {config.access_log}: {error.strerror}") from error
        self.control.bind()
        self._listen(bound)

    def _listen(self, bound: list[Bound]) -> None:
        config = self.config
        timeouts = _timeouts(config)
        for kind, sock in bound:
            context = self._context if kind == "https" else None
            most = PROBES if kind == "health" else config.listen.connections
            proxies = () if kind == "health" else config.listen.proxy_protocol
            made = Listening(self.reactor, self.deadlines, kind, sock, most, context, proxies)
            (self.probing if kind == "health" else self.listeners).append(made)
        probes = None if self.probing else self.readiness
        redirect = RedirectToHttps(self.snapshot, self.listeners[0].number, probes)
        handlers = {
            "https": self.resource.handle,
            "http": redirect.handle,
            "health": self.readiness.handle,
        }
        asked_at = "health" if self.probing else "http"
        for made in (*self.listeners, *self.probing):
            limits = _head_limits(config, PATHS if made.kind == asked_at else ())
            made.listener = Listener(
                handlers[made.kind], self.snapshot, made.closed, self.clock, timeouts, limits
            )

    def _folder(self, config: Config) -> CertificateFolder:
        return CertificateFolder(
            self.reactor,
            config.certs.folder,
            self._certificates_changed,
            config.certs.default,
            counts=self.certificate_counts,
        )

    def _certificates_changed(
        self, names: NameMap, _: tuple[Problem, ...]
    ) -> Generator[None, None, None]:
        return self.tls.steps(names)

    def build(self, config: Config) -> Built:
        """Compile a configuration. Nothing changes until :meth:`use`; may run in a thread.

        :raises ConfigError: a route's resource or filter cannot be imported.
        :raises StartError: OpenSSL does not take what an upstream's `tls` names.
        """
        try:
            plan = self.fleet.build(config)
        except Unusable as error:
            raise StartError(str(error)) from error
        limits = compile_limits(config, self._limits())
        mounts = self.mounts.build(config)
        credentials = self.credentials.build(config)
        filters = self.filters.build(config)
        router = compile_router(
            config,
            plan.upstreams,
            limits,
            mounts.by_order,
            self.credentials.by_name(credentials),
            filters.chains,
        )
        edge = self.issuing.build(config, _state(config))
        if edge is not None:
            edge.furnish(router.ordered, config.routes)
        policies = self._policies(config)
        snapshot = Snapshot(
            config, router, limits, plan.upstreams, self.log.record, policies, filters.sets
        )
        return Built(config, snapshot, plan, mounts, credentials, filters, edge)

    def _policies(self, config: Config) -> Policies:
        resource = getattr(self, "resource", None)
        before = None if resource is None else resource.snapshot.policies
        policies, problems = read_policies(config, _now(), before)
        if problems:
            raise StartError("\n".join(f"{each.file}: {each.message}" for each in problems))
        return policies

    def _policies_changed(self, policies: Policies) -> None:
        self.tls.ask(policies)
        self.resource.use(self.resource.snapshot.with_policies(policies))

    def use(self, built: Built, staged: Staged) -> None:
        """Put a configuration into force, with what was read for it. Cannot fail."""
        before = set(self.open_routes())
        old = self.resource.snapshot
        self._upkeep.let_go(old, [*old.config.routes, *old.router.ordered])
        self.config = built.config
        self.resource.use(built.snapshot)
        self.tls.ask(built.snapshot.policies)
        self.tls.require(built.config.listen.tls)
        self.trust.watch(built.config, built.snapshot.policies)
        self.fleet.use(built.plan)
        self.mounts.use(built.mounts)
        self.credentials.use(built.credentials)
        self.issuing.use(built.edge)
        self.filters.use(built.filters)
        for name, limit in built.config.limits.items():
            built.snapshot.limits[name].table.size = limit.table
        if staged.keys is not None:
            self.keys.stop()
            staged.keys.follow(self.keys)
            self.keys = staged.keys
        self.last_used.move(_uses(built.config))
        if staged.folder is not None and staged.tls is not None:
            self.folder.stop()
            self.folder = staged.folder.folder
            work = self.tls.use(staged.tls)
            next(work, None)  # the first step changes over
            self._tls_work.cancel()
            self._tls_work = in_slices(self.reactor, work).addErrback(_let_go)
            staged.folder.adopt(self._certificates_changed)
        elif built.config.certs != old.config.certs:
            self.tls.fall_back(built.config.certs.default)
            self.folder.fall_back(built.config.certs.default)
        for listening in (*self.listeners, *self.probing):
            listening.listener.timeouts = _timeouts(built.config)
            hostless = listening.listener.limits.hostless
            listening.listener.limits = _head_limits(built.config, hostless)
        self._tell_open_routes(before)
        self._tell_unverified()

    def _limits(self) -> Any:
        resource = getattr(self, "resource", None)
        return {} if resource is None else resource.snapshot.limits

    def _tables(self) -> Iterator[LimitTable]:
        return (limit.table for limit in self.snapshot().limits.values())

    def snapshot(self) -> Snapshot:
        return self.resource.snapshot

    def _context(self) -> Any:
        return self.tls.context

    def _keys(self) -> Any:
        return self.keys.index

    def _key_store(self) -> KeyStore:
        return self.keys

    def _names(self) -> NameMap:
        return self.tls.names

    # -- the life of the process -----------------------------------------------------------------

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.started = self.clock.now()
        self.fleet.start()
        self.deadlines.waiting.add(self._upkeep)
        self.deadlines.start()
        for listening in (*self.listeners, *self.probing):
            listening.start()
        self.trust.start()
        self.credentials.start()
        self.issuing.start()
        self.last_used.start()
        self.control.start()
        # After the reactor's own handlers, which ours stand in front of.
        self.reactor.callWhenRunning(self.signals.install)
        self.reactor.callWhenRunning(_settle)
        self.reactor.callWhenRunning(self.tell_ready)
        self._tell_open_routes()
        self._tell_unverified()
        for listening in (*self.listeners, *self.probing):
            _log.info("listening on {kind} port {port}", kind=listening.kind, port=listening.number)

    def tell_ready(self) -> None:
        """Tell systemd that it serves, unless it is on its way out."""
        if self.draining is None:
            self.notify.ready(summary(self))

    def obstacle(self) -> str:
        """Why no traffic should come, in a word or two; ``""`` when it may."""
        if self.draining is not None:
            return "draining"
        if not self.running:
            return "starting"
        return "" if self.tls.names.entries else "no certificate"

    def open_routes(self) -> list[str]:
        """The routes that let in callers without any credential."""
        routes = (rule.action.opening for rule in self.snapshot().router.ordered)
        return [opening for opening in routes if opening is not None]

    def _tell_open_routes(self, known: Container[str] = ()) -> None:
        for label in self.open_routes():
            if label in known:
                continue
            _log.warn("open to everyone: {route}", route=label)

    def _tell_unverified(self) -> None:
        for warning in unverified(self.config):
            _log.warn("{warning}", warning=warning)

    def stopService(self) -> Deferred[None]:
        """Drain, then stop; the deferred fires when that is done."""
        super().stopService()  # type: ignore[no-untyped-call]
        done = self.drain()
        done.addCallback(lambda _: self._stopped())
        return done

    def end(self) -> None:
        """Let the process end, by way of :meth:`stopService`."""
        self.reactor.callLater(0, self.reactor.stop)

    @property
    def connections(self) -> int:
        """Client connections that are open."""
        return sum(len(listening.connections) for listening in self.listeners)

    def drain(self) -> Deferred[None]:
        """Accept no more, let what is under way come to its end, cut what is left in time."""
        done: Deferred[None] = Deferred()
        self.draining = done
        left, seconds = self.connections, self.config.timeouts.drain
        self.notify.stopping(f"draining {left} connections, {seconds:g} s at most", seconds)
        for listening in self.listeners:
            listening.drain()
        self._drain_timer = self.reactor.callLater(self.config.timeouts.drain, self.cut)
        for listening in self.listeners:
            listening.idle = self._perhaps_drained
        self._perhaps_drained()
        return done

    def cut(self) -> None:
        """End what is left of a drain at once."""
        if self.draining is None or self.draining.called:
            return
        for listening in self.listeners:
            listening.idle = None
        self._cut = sum(listening.abort() for listening in self.listeners)
        if self._cut:
            _log.warn("drain: {count} connections were cut", count=self._cut)
        self._drained()

    def _perhaps_drained(self) -> None:
        if not self.connections:
            self._drained()

    def _drained(self) -> None:
        if self._drain_timer.active():
            self._drain_timer.cancel()
        if self.draining is not None and not self.draining.called:
            self.draining.callback(None)

    def _end_probing(self) -> None:
        for listening in self.probing:
            listening.drain()
            listening.abort()

    def _stopped(self) -> Deferred[None]:
        self._tls_work.cancel()
        self.deadlines.stop()
        self.fleet.stop()
        self.folder.stop()
        self.trust.stop()
        self.credentials.stop()
        self.issuing.stop()
        self.filters.stop()
        self.keys.stop()
        self.last_used.stop()
        self.log.stop()
        self._end_probing()
        self.notify.end()
        self.signals.restore()
        return self.control.stop(self._cut)


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _settle() -> None:
    """What was made at the start stays: the collector need not go through it ever again."""
    gc.collect()
    gc.freeze()


def _let_go(failure: Failure) -> None:
    failure.trap(CancelledError)


def _nothing(_: object) -> None:
    """The index is asked for when it is needed."""


def _state(config: Config) -> Path:
    return state_folder(config.state, config.folder, os.environ)


def _uses(config: Config) -> Path:
    return _state(config) / lastused.NAME


def _head_limits(config: Config, hostless: tuple[bytes, ...]) -> HeadLimits:
    heads = config.heads
    return HeadLimits(heads.request, heads.target, heads.fields, hostless)


def _timeouts(config: Config) -> Timeouts:
    given = config.timeouts
    return Timeouts(
        handshake=given.handshake,
        head=given.head,
        keep_alive=given.keep_alive,
        client_write=given.client_write,
        close=given.close,
        body_rate=given.body_rate,
        body_grace=given.body_grace,
        requests=given.requests_per_connection,
    )
