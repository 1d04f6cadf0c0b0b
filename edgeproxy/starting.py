"""What has to be there before a gateway can start: its ports, its folder of certificates."""

from __future__ import annotations

import errno
import resource
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.selectreactor import SelectReactor
from twisted.logger import Logger

from edgeproxy.certs.scan import Problem
from edgeproxy.config import Config
from edgeproxy.transport.inherited import Inherited, name_of
from edgeproxy.transport.port import PortError, bind

if TYPE_CHECKING:
    from edgeproxy.edgetokens import EdgeTokens

_log = Logger()

#: Descriptors for what is neither a client's nor a service's connection: files, the log, threads.
_OTHERS = 64


#: Seconds that the end of the process waits for each of the reactor's threads.
_LAST_WORD = 0.5


class StartError(Exception):
    """The gateway cannot start, or cannot use a new configuration; ``str()`` says why, a line
    for each reason.

    ``busy``: because a port is in use.
    """

    def __init__(self, message: str, *, busy: bool = False) -> None:
        super().__init__(message)
        self.busy = busy


class Bound(NamedTuple):
    """A listening socket, and what is spoken there: ``https``, ``http`` or ``health``."""

    kind: str
    socket: socket.socket


def bind_all(config: Config, inherited: Inherited | None = None) -> list[Bound]:
    """Take the ports: the one for https first, the plain one and the one for probes if any.
    What ``systemd:NAME`` means is taken from those ``inherited``.

    :raises StartError: one of them cannot be had; none is kept.
    """
    bound: list[Bound] = []
    listen = config.listen
    passed = inherited or Inherited({})
    for kind, address in (
        ("https", listen.https),
        ("http", listen.http),
        ("health", config.health),
    ):
        if address is None:
            continue
        try:
            name = name_of(address)
            if name is None:
                sockets = [bind(*split_address(address), listen.backlog)]
            else:
                sockets = passed.take(name)
            bound += [Bound(kind, sock) for sock in sockets]
        except PortError as error:
            for each in bound:
                each.socket.close()
            cause = error.__cause__
            busy = isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
            raise StartError(str(error), busy=busy) from error
    if passed.unused:
        _log.warn(
            "systemd passed sockets that the configuration does not use, nobody answers there: "
            "{names}; `listen: {{ https: systemd:NAME }}` uses one",
            names=", ".join(passed.unused),
        )
    return bound


def split_address(address: str) -> tuple[str, int]:
    """``host:port``, ``:port`` or ``[v6]:port``, as the configuration has checked it."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def check_folder(folder: Path) -> None:
    """Is there a folder of certificates at all?

    :raises StartError: there is none.
    """
    if not folder.is_dir():
        raise StartError(
            f"{folder}: there is no such folder; `certs:` names the folder with "
            "certificates and keys, `edgeproxy init` makes one"
        )


def open_keys(tokens: EdgeTokens | None) -> None:
    """Read, or make, the keys of X-Edge-Token.

    :raises StartError: they can be neither read nor written.
    """
    if tokens is not None:
        try:
            tokens.keys.open()
        except OSError as error:
            # The file is opened by its descriptor, which a folder's error then names.
            named = None if isinstance(error.filename, int) else error.filename
            raise StartError(
                f"{named or tokens.keys.path}: {error.strerror}; the keys of `edge_token` "
                "are kept there: `state:` names another folder"
            ) from error


def no_certificate(folder: Path, problems: Iterable[Problem]) -> StartError:
    """Nothing in the folder can answer a handshake; the reasons are told with it."""
    return StartError(
        f"{folder}: no usable certificate with its key; put both there, "
        "or make a development certificate with `edgeproxy init`"
        + "".join(f"\n{folder / each.file}: {each.message}" for each in problems)
    )


def allow_descriptors(reactor: Any, config: Config) -> None:
    """Let the process open as many files as the system lets it.

    Shells and systemd begin with 1,024, for the sake of `select`; a thousand clients that say
    nothing would leave no descriptor for connections to services. Servers written in Go, and
    HAProxy, do the same.
    """
    targets = sum(len(each.targets) * each.connections for each in config.upstreams.values())
    listeners = 1 if config.listen.http is None else 2
    needed = config.listen.connections * listeners + targets + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if isinstance(reactor, SelectReactor):
        hard = soft  # it cannot watch a descriptor beyond
    elif soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            pass  # macOS has a lower bound of its own
    if soft < needed:
        _log.warn(
            "{soft} files may be open, all connections that the configuration allows need "
            "{needed}; raise `ulimit -n` (systemd: LimitNOFILE=)",
            soft=soft,
            needed=needed,
        )


class _Worker(threading.Thread):
    """A thread for which the end of the process waits a moment only: what runs there (a WSGI
    application that hangs) has had the time of the drain, and cannot be broken off."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, daemon=True)

    def join(self, timeout: float | None = None) -> None:
        super().join(_LAST_WORD if timeout is None else timeout)
        if timeout is None and self.is_alive():
            _log.warn("{name} is still at work, and is left behind", name=self.name)


def let_go_of_threads(reactor: Any) -> None:
    """Let no thread of the reactor's hold up the end of the process."""
    reactor.getThreadPool().threadFactory = _Worker
