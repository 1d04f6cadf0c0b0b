"""Names of targets: looked up off the reactor, the old answer kept when a look-up fails."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

_log = Logger()
_INTERVAL = 30.0

Address = tuple[socket.AddressFamily, str]


class Resolver:
    """The addresses of all names that targets use. Addresses written as such need no look-up."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._found: dict[str, Address | None] = {}
        self._loop = LoopingCall(self.refresh)
        self._loop.clock = reactor

    def start(self) -> None:
        self._loop.start(_INTERVAL, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def know(self, host: str) -> None:
        """Look a host up, in this call: at the start, and before a reload is in force."""
        if host not in self._found:
            try:
                address = ip_address(host)
            except ValueError:
                self._found[host] = look_up(host)
            else:
                family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
                self._found[host] = (family, host)

    def find(self, host: str, port: int) -> tuple[socket.AddressFamily, Any] | None:
        found = self._found.get(host)
        return None if found is None else (found[0], (found[1], port))

    def refresh(self) -> Deferred[None] | None:
        """Look all names up again, in a thread."""
        names = [host for host in list(self._found) if not _is_address(host)]
        if not names:
            return None
        found = deferToThreadPool(
            self._reactor,
            self._reactor.getThreadPool(),
            lambda: {name: look_up(name) for name in names},
        )
        return found.addCallback(self._refreshed)

    def _refreshed(self, found: dict[str, Address | None]) -> None:
        for name, address in found.items():
            if address is not None:
                self._found[name] = address
            elif self._found.get(name) is None:
                _log.warn("{name}: no address found", name=name)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def look_up(host: str) -> Address | None:
    """The first address of a name; ``None`` when there is none. Blocks."""
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return None
    # IPv4 first: a service on this machine rarely listens on ::1 alone.
    infos.sort(key=lambda info: info[0] != socket.AF_INET)
    return (infos[0][0], str(infos[0][4][0])) if infos else None
