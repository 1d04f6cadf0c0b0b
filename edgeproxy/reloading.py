"""A reload: everything new is built beside what is in force, then takes its place at once.

Reading and compiling run in a thread, since five thousand routes take a second of work; another
folder of certificates, or another key file, is read in slices between other events; the same folder
goes on, with what is remembered of it. What fails on the way is told, and nothing has changed: not
the targets and their pools, not the certificates, not the keys, not the limits.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from edgeproxy.certs.contexts import Prepared
from edgeproxy.certs.folder import CertificateFolder
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import Problem
from edgeproxy.changes import describe
from edgeproxy.config import Config, ConfigError, load
from edgeproxy.filters.inforce import Building
from edgeproxy.identity.keyfile import KeyFileError
from edgeproxy.identity.keystore import KeyStore
from edgeproxy.slices import in_slices
from edgeproxy.starting import StartError, check_folder, no_certificate, open_keys

if TYPE_CHECKING:
    from edgeproxy.service import Built, Gateway

_log = Logger()

# Seconds. A reload takes a quarter longer with it, and a turn of the reactor a tenth as long.
_INTERVAL = 0.0002


class Reloaded(NamedTuple):
    """How a reload ended: ``lines`` say what changed, or why nothing did."""

    done: bool
    lines: list[str]


class Reloader:
    """See the module's text. One reload at a time; those asked for meanwhile follow."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._turn: Any = DeferredLock()
        self.count = 0
        self.last: Reloaded | None = None

    def reload(self) -> Deferred[Reloaded]:
        """Read the configuration again and put it into force. Never fails; one log line."""
        done: Deferred[Reloaded] = self._turn.run(self._reload)
        return done

    @inlineCallbacks
    def _reload(self) -> Generator[Deferred[Any], Any, Reloaded]:
        gateway = self._gateway
        gateway.notify.reloading()
        result = yield from self._tried(gateway)
        self.last = result
        gateway.tell_ready()
        _tell(result)
        return result

    def _tried(self, gateway: Gateway) -> Generator[Deferred[Any], Any, Reloaded]:
        source = gateway.config.source
        if source is None:
            return Reloaded(False, ["it was started without a configuration file"])
        try:
            built, changes = yield deferToThreadPool(
                gateway.reactor, gateway.reactor.getThreadPool(), _build, gateway, source
            )
            if gateway.draining is not None:
                raise StartError("the gateway is being stopped")
            staged = yield self._stage(built)
            if gateway.draining is not None:
                staged.drop()
                raise StartError("the gateway is being stopped")
            gateway.use(built, staged)
            self.count += 1
        except (ConfigError, StartError) as error:
            result = Reloaded(False, str(error).splitlines())
        except KeyFileError as error:
            result = Reloaded(False, [f"{built.config.keys.file}:{error.line}: {error.message}"])
        except OSError as error:
            why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            result = Reloaded(False, [why])
        except Exception as error:
            _log.failure("A reload failed in the gateway itself")
            result = Reloaded(False, [f"the gateway itself failed: {error!r}"])
        else:
            result = Reloaded(True, [*changes, *gateway.fleet.deserted(), *gateway.trust.lines])
        return result

    @inlineCallbacks
    def _stage(self, built: Built) -> Generator[Deferred[Any], Any, Staged]:
        """Read what the configuration names anew; nothing that is in force is touched."""
        gateway = self._gateway
        reactor = gateway.reactor
        old, new = gateway.config, built.config
        staged = Staged()
        try:
            if new.certs.folder != old.certs.folder:
                staged.folder = folder = StagedFolder(gateway, new)
                yield in_slices(reactor, folder.folder.opening())
                tls = yield in_slices(reactor, gateway.tls.building(folder.folder.names))
                staged.tls = folder.ready(tls)
            if new.keys != old.keys:
                file, pepper = new.keys.file, new.keys.hashing
                staged.keys = KeyStore(reactor, file, _nothing, pepper, gateway.keys.index.last)
                yield in_slices(reactor, staged.keys.opening())
            gateway.mounts.make(built.mounts)
            gateway.filters.make(built.filters)
            staged.filters = built.filters
        except BaseException:
            staged.drop()
            raise
        return staged


class Staged:
    """What a reload has read beside the configuration itself: only what that names anew."""

    def __init__(self) -> None:
        self.folder: StagedFolder | None = None
        self.tls: Prepared | None = None
        self.keys: KeyStore | None = None
        self.filters: Building | None = None

    def drop(self) -> None:
        """It is not wanted."""
        if self.folder is not None:
            self.folder.folder.stop()
        if self.keys is not None:
            self.keys.stop()
        if self.filters is not None:
            self.filters.drop()


class StagedFolder:
    """A certificate folder that is looked at, and changes nothing until it is adopted."""

    def __init__(self, gateway: Gateway, config: Config) -> None:
        self._publish = self._keep
        self._ready: NameMap | None = None
        certs = config.certs
        self.folder = CertificateFolder(
            gateway.reactor,
            certs.folder,
            self._changed,
            certs.default,
            counts=gateway.certificate_counts,
        )
        self._path = certs.folder

    def ready(self, tls: Prepared) -> Prepared:
        """Its certificates are made ready to be served.

        :raises StartError: nothing in it can be served.
        """
        if not tls.names.entries:
            raise no_certificate(self._path, self.folder.problems)
        self._ready = self.folder.names
        return tls

    def adopt(self, publish: Any) -> None:
        """From now on what is found is in force."""
        self._publish = publish
        if self.folder.names is not self._ready:
            self.folder.again()

    def _changed(self, names: NameMap, problems: tuple[Problem, ...]) -> Any:
        return self._publish(names, problems)

    def _keep(self, names: NameMap, problems: tuple[Problem, ...]) -> None:
        """The folder itself remembers them."""


def _build(gateway: Gateway, source: Path) -> tuple[Built, list[str]]:
    """In a thread: the new configuration, compiled, and what is new about it."""
    with _beside_requests():
        config = load(source)
        check_folder(config.certs.folder)
        built = gateway.build(config)
        open_keys(built.edge)
        return built, describe(gateway.config, config)


@contextmanager
def _beside_requests() -> Iterator[None]:
    """Work in a thread without holding up the reactor's.

    A collection looks at every object in one go, and meanwhile no request moves: with what five
    thousand routes are read from, that is 0.3 s. So there is none, and what was made, which holds
    no cycles, is left to no later one either. And each call of the reactor into the system gives
    this thread the interpreter, which it keeps for an interval that is 5 ms by default.
    """
    collecting, interval = gc.isenabled(), sys.getswitchinterval()
    gc.collect(1)
    gc.disable()
    sys.setswitchinterval(_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if collecting:
            gc.freeze()
            gc.enable()


def _tell(result: Reloaded) -> None:
    if result.done:
        _log.info("reloaded: {changes}", changes="; ".join(result.lines) or "nothing changed")
    else:
        _log.error("not reloaded, the old configuration stays: {why}", why="; ".join(result.lines))


def _nothing(_: object) -> None:
    """The index is asked for when it is needed."""
