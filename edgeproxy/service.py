"""The gateway as a Twisted service: built from a configuration, reloaded, drained.

:func:`Gateway.prepare` does everything that can fail before the process goes into the background:
it reads certificates and keys, opens the log and binds the ports.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from edgeproxy.certs.contexts import ServerTLS
from edgeproxy.certs.folder import CertificateFolder
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import Problem
from edgeproxy.config import Config, ConfigError, load
from edgeproxy.exchange import Exchange
from edgeproxy.http1.grammar import HeadLimits
from edgeproxy.http1.server import Listener, Timeouts
from edgeproxy.identity.keyfile import KeyFileError
from edgeproxy.identity.keystore import KeyStore
from edgeproxy.listening import Listening
from edgeproxy.observe.accesslog import AccessLog
from edgeproxy.observe.counters import Counters
from edgeproxy.redirect import RedirectToHttps
from edgeproxy.relay import Relay
from edgeproxy.resource import ReverseProxyResource
from edgeproxy.snapshot import Snapshot, compile_limits, compile_router
from edgeproxy.transport.connect import TCP, Network
from edgeproxy.transport.deadlines import Clock, Deadlines
from edgeproxy.transport.port import PortError, bind
from edgeproxy.upstream.fleet import Fleet

_log = Logger()


class StartError(Exception):
    """The gateway cannot start; ``str()`` says why, a line for each reason.

    ``busy``: because a port is in use.
    """

    def __init__(self, message: str, *, busy: bool = False) -> None:
        super().__init__(message)
        self.busy = busy


def bind_all(config: Config) -> list[socket.socket]:
    """Take the ports: the one for https, then the plain one if there is one.

    :raises StartError: one of them cannot be had; none is kept.
    """
    sockets: list[socket.socket] = []
    for address in (config.listen.https, config.listen.http):
        if address is None:
            continue
        try:
            sockets.append(bind(*split_address(address), config.listen.backlog))
        except PortError as error:
            for each in sockets:
                each.close()
            cause = error.__cause__
            busy = isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
            raise StartError(str(error), busy=busy) from error
    return sockets


class Gateway(Service):
    """See the module's text. ``config`` is the configuration in force."""

    name = "edgeproxy"

    def __init__(
        self,
        reactor: Any,
        config: Config,
        clock: Clock | None = None,
        network: Network = TCP,
    ) -> None:
        self.reactor = reactor
        self.config = config
        self.clock = clock or Clock()
        self.deadlines = Deadlines(reactor, self.clock)
        self.relay = Relay(self.clock)
        self.fleet = Fleet(reactor, self.deadlines, self.relay, network)
        self.counters = Counters()
        self.log = AccessLog(reactor, self.clock, config.access_log)
        self.tls = ServerTLS(NameMap((), None, _now()))
        self.listeners: list[Listening] = []
        self.problems: tuple[Problem, ...] = ()
        self.draining: Deferred[None] | None = None
        self.started = 0.0
        self.reloads = 0
        self.keys = KeyStore(reactor, config.keys, _nothing)
        self.folder = self._folder(config)
        self.resource = ReverseProxyResource(
            self._snapshot(config), self.relay, self.clock, self._keys, self._names
        )

    # -- building --------------------------------------------------------------------------------

    def prepare(self, sockets: list[socket.socket] | None = None) -> None:
        """Read what has to be read, and bind the ports, unless they were bound already.

        :raises StartError: with a line for each reason.
        """
        config = self.config
        if sockets is None:
            sockets = bind_all(config)
        self._check_folder(config)
        try:
            self.keys.start()
        except KeyFileError as error:
            raise StartError(f"{config.keys}:{error.line}: {error.message}") from error
        except OSError as error:
            raise StartError(f"{config.keys}: {error.strerror}") from error
        self.folder.start()
        if not self.tls.names.entries:
            raise StartError(
                f"{config.certs.folder}: no usable certificate with its key; put both there, "
                "or make a development certificate with `edgeproxy init`"
                + "".join(f"\n{problem.file}: {problem.message}" for problem in self.problems)
            )
        try:
            self.log.start()
        except OSError as error:
            raise StartError(f"access log {config.access_log}: {error.strerror}") from error
        self._listen(sockets)

    def _check_folder(self, config: Config) -> None:
        if not config.certs.folder.is_dir():
            raise StartError(
                f"{config.certs.folder}: there is no such folder; `certs:` names the folder with "
                "certificates and keys, `edgeproxy init` makes one"
            )

    def _listen(self, sockets: list[socket.socket]) -> None:
        config = self.config
        limits = HeadLimits(config.heads.request, config.heads.target, config.heads.fields)
        timeouts = _timeouts(config)
        https = Listening(
            self.reactor, self.deadlines, sockets[0], config.listen.connections, self._context
        )
        handlers: list[tuple[Listening, Callable[[Exchange], None]]] = [
            (https, self.resource.handle)
        ]
        if len(sockets) > 1:
            plain = Listening(
                self.reactor, self.deadlines, sockets[1], config.listen.connections, None
            )
            redirect = RedirectToHttps(self.snapshot, https.number)
            handlers.append((plain, redirect.handle))
        for listening, handle in handlers:
            listening.listener = Listener(
                handle, self.snapshot, listening.closed, self.clock, timeouts, limits
            )
            self.listeners.append(listening)

    def _folder(self, config: Config) -> CertificateFolder:
        return CertificateFolder(
            self.reactor, config.certs.folder, self._certificates_changed, config.certs.default
        )

    def _certificates_changed(self, names: NameMap, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        self.tls.swap(names)

    def _snapshot(self, config: Config) -> Snapshot:
        """Compile a configuration and put its targets into force."""
        upstreams, targets = self.fleet.build(config)
        limits = compile_limits(config, self._limits())
        snapshot = Snapshot(
            config, compile_router(config, upstreams, limits), limits, upstreams, self._finished
        )
        self.fleet.use(upstreams, targets)
        return snapshot

    def _limits(self) -> Any:
        resource = getattr(self, "resource", None)
        return {} if resource is None else resource.snapshot.limits

    def snapshot(self) -> Snapshot:
        return self.resource.snapshot

    def _context(self) -> Any:
        return self.tls.context

    def _keys(self) -> Any:
        return self.keys.index

    def _names(self) -> NameMap:
        return self.tls.names

    def _finished(self, exchange: Exchange) -> None:
        self.counters.count(exchange)
        self.log.record(exchange)

    # -- the life of the process -----------------------------------------------------------------

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.started = self.clock.now()
        self.deadlines.waiting.add(self.fleet)
        self.deadlines.start()
        self.fleet.resolver.start()
        for listening in self.listeners:
            listening.start()
        self._tell_open_routes()
        for listening in self.listeners:
            scheme = "https" if listening is self.listeners[0] else "http"
            _log.info("listening on {scheme} port {port}", scheme=scheme, port=listening.number)

    def _tell_open_routes(self) -> None:
        for rule in self.snapshot().router.ordered:
            if rule.action.open or rule.action.anonymous:
                _log.warn("open to everyone: {route}", route=rule.action.label)

    def stopService(self) -> Deferred[None]:
        """Drain, then stop; the deferred fires when that is done."""
        super().stopService()  # type: ignore[no-untyped-call]
        done = self.drain()
        done.addCallback(lambda _: self._stopped())
        return done

    def drain(self) -> Deferred[None]:
        """Accept no more, let what is under way come to its end, cut what is left in time."""
        done: Deferred[None] = Deferred()
        for listening in self.listeners:
            listening.drain()
        limit = self.config.timeouts.drain
        timer = self.reactor.callLater(limit, lambda: self._drained(done, None))
        for listening in self.listeners:
            listening.idle = lambda: self._drained(done, timer)
        self._drained(done, timer, begin=True)
        return done

    def _drained(self, done: Deferred[None], timer: Any, *, begin: bool = False) -> None:
        if done.called or (timer is not None and any(each.connections for each in self.listeners)):
            return
        if timer is not None:
            timer.cancel()
        else:
            cut = sum(listening.abort() for listening in self.listeners)
            if cut:
                _log.warn("drain: {count} connections were cut", count=cut)
        done.callback(None)

    def _stopped(self) -> None:
        self.deadlines.stop()
        self.fleet.resolver.stop()
        self.fleet.stop()
        self.folder.stop()
        self.keys.stop()
        self.log.stop()

    # -- reloading -------------------------------------------------------------------------------

    def reload(self) -> list[str]:
        """Read the configuration again and put it into force.

        :return: what changed, a line each.
        :raises ConfigError: it is wrong; everything stays as it was.
        :raises StartError: what it names cannot be used; everything stays as it was.
        """
        source = self.config.source
        if source is None:
            return ["there is no configuration file: nothing to reload"]
        config = load(source)
        self._check_folder(config)
        snapshot = self._snapshot(config)
        changes = describe(self.config, config)
        old, self.config = self.config, config
        if config.certs != old.certs:
            self.folder.stop()
            self.folder = self._folder(config)
            self.folder.start()
        if config.keys != old.keys:
            self.keys.stop()
            self.keys = KeyStore(self.reactor, config.keys, _nothing)
            self.keys.start()
        for listening in self.listeners:
            listening.listener.timeouts = _timeouts(config)
        self.resource.snapshot = snapshot
        self.reloads += 1
        self._tell_open_routes()
        return changes

    def try_reload(self) -> tuple[bool, list[str]]:
        """Reload, for a signal or the control socket: whether it worked, and what there is to
        say. One log line either way."""
        try:
            changes = self.reload()
        except ConfigError as error:
            lines = str(error).splitlines()
        except (StartError, KeyFileError, OSError) as error:
            lines = [str(error)]
        else:
            _log.info("reloaded: {changes}", changes="; ".join(changes) or "nothing changed")
            return True, changes
        _log.error("not reloaded, the old configuration stays: {why}", why="; ".join(lines))
        return False, lines


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _nothing(_: object) -> None:
    """The index is asked for when it is needed."""


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


def split_address(address: str) -> tuple[str, int]:
    """``host:port``, ``:port`` or ``[v6]:port``, as the configuration has checked it."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def describe(old: Config, new: Config) -> list[str]:
    """What a reload changed, for people; what needs a restart says so."""
    changes = []
    for name in ("routes", "upstreams", "limits", "auth", "certs", "keys", "timeouts", "heads"):
        if getattr(old, name) != getattr(new, name):
            changes.append(f"{name} changed")
    if old.listen != new.listen:
        changes.append("listen changed: that needs a restart")
    if old.access_log != new.access_log:
        changes.append("access_log changed: that needs a restart")
    return changes
