"""A reload: everything new is built beside what is in force, then takes its place at once.

Reading and compiling run in a thread, since five thousand routes take a second of work. What
fails on the way is told, and nothing has changed: not the targets and their pools, not the
certificates, not the keys, not the limits.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from edgeproxy.certs.folder import CertificateFolder
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import Problem
from edgeproxy.changes import describe
from edgeproxy.config import Config, ConfigError, load
from edgeproxy.identity.keyfile import KeyFileError
from edgeproxy.identity.keystore import KeyStore
from edgeproxy.starting import StartError, check_folder, no_certificate

if TYPE_CHECKING:
    from edgeproxy.service import Built, Gateway

_log = Logger()


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
        source = gateway.config.source
        if source is None:
            return Reloaded(False, ["it was started without a configuration file"])
        try:
            built, changes = yield deferToThreadPool(
                gateway.reactor, gateway.reactor.getThreadPool(), _build, gateway, source
            )
            if gateway.draining is not None:
                raise StartError("the gateway is being stopped")
            self._use(built)
        except (ConfigError, StartError) as error:
            result = Reloaded(False, str(error).splitlines())
        except KeyFileError as error:
            result = Reloaded(False, [f"{built.config.keys}:{error.line}: {error.message}"])
        except OSError as error:
            result = Reloaded(False, [f"{error.filename}: {error.strerror}"])
        except Exception as error:
            _log.failure("A reload failed in the gateway itself")
            result = Reloaded(False, [f"the gateway itself failed: {error!r}"])
        else:
            result = Reloaded(True, changes)
        self.last = result
        _tell(result)
        return result

    def _use(self, built: Built) -> None:
        """Change over. What can fail comes first and touches nothing that is in force."""
        gateway = self._gateway
        old, new = gateway.config, built.config
        folder = keys = None
        try:
            if new.certs != old.certs:
                folder = StagedFolder(gateway, new)
            if new.keys != old.keys:
                keys = KeyStore(gateway.reactor, new.keys, _nothing)
                keys.start()
        except BaseException:
            if folder is not None:
                folder.folder.stop()
            if keys is not None:
                keys.stop()
            raise
        gateway.use(built, keys, folder)
        self.count += 1


class StagedFolder:
    """A certificate folder that is looked at, and changes nothing until it is adopted.

    :raises StartError: nothing in it can be served.
    """

    def __init__(self, gateway: Gateway, config: Config) -> None:
        self._publish = self._keep
        certs = config.certs
        self.folder = CertificateFolder(gateway.reactor, certs.folder, self._changed, certs.default)
        self.folder.start()
        if not self.folder.names.entries:
            self.folder.stop()
            raise no_certificate(certs.folder, self.folder.problems)

    def adopt(self, publish: Any) -> None:
        """From now on what is found is in force."""
        self._publish = publish
        publish(self.folder.names, self.folder.problems)

    def _changed(self, names: NameMap, problems: tuple[Problem, ...]) -> None:
        self._publish(names, problems)

    def _keep(self, names: NameMap, problems: tuple[Problem, ...]) -> None:
        """The folder itself remembers them."""


def _build(gateway: Gateway, source: Path) -> tuple[Built, list[str]]:
    """In a thread: the new configuration, compiled, and what is new about it."""
    # A collection looks at every object in one go, and meanwhile no request moves: with what
    # five thousand routes are read from, that is 0.3 s.
    collecting = gc.isenabled()
    gc.disable()
    try:
        config = load(source)
        check_folder(config.certs.folder)
        return gateway.build(config), describe(gateway.config, config)
    finally:
        if collecting:
            gc.enable()


def _tell(result: Reloaded) -> None:
    if result.done:
        _log.info("reloaded: {changes}", changes="; ".join(result.lines) or "nothing changed")
    else:
        _log.error("not reloaded, the old configuration stays: {why}", why="; ".join(result.lines))


def _nothing(_: object) -> None:
    """The index is asked for when it is needed."""
