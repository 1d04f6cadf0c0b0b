"""Listening: accepting connections, never more than the cap, never in a busy loop."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from edgeproxy.bursts import Burst

_log = Logger()

#: Connections taken per readable event; the next event follows in the same turn's poll.
_BATCH = 16
#: Seconds to wait when the process has no descriptor or memory left for another connection.
_PAUSE = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class PortError(Exception):
    """The address cannot be listened on; ``str()`` says why and what to do."""


def bind(host: str, port: int, backlog: int = 1024) -> socket.socket:
    """Listen on ``host`` (empty: every address, IPv6 and IPv4) and ``port`` (0: any free one).

    :raises PortError: with one line for the person who chose the address.
    """
    family, address = _address(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by every accepted connection on Linux: one call instead of one for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if not host else 1)
        sock.bind(address)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise PortError(_why(error, host, port)) from error
    return sock


def _address(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    if not host:
        if socket.has_dualstack_ipv6():
            return socket.AF_INET6, ("::", port)
        return socket.AF_INET, ("0.0.0.0", port)
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise PortError(f"cannot listen on {host}:{port}: the name is not known here") from error
    return family, address


def _why(error: OSError, host: str, port: int) -> str:
    where = f"{host or '*'}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is already in use ({where}); stop what listens there or choose another"
    if error.errno == errno.EACCES:
        return (
            f"no permission to listen on {where}; ports below 1024 need root, "
            "CAP_NET_BIND_SERVICE or socket activation"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {where}: that address is not one of this machine"
    return f"cannot listen on {where}: {os.strerror(error.errno or 0)}"


@implementer(IReadDescriptor)
class Port:
    """One listening socket.

    ``accept(socket, address)`` is called for each connection; it is expected to count it in and
    to call :meth:`left` when it ends, so that the cap holds. ``room()`` is called when somebody
    waits and the cap is reached; it may end connections, and says how many.
    """

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        accept: Callable[[socket.socket, Any], None],
        limit: int,
        room: Callable[[], int] | None = None,
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._accept = accept
        self._limit = limit
        self._room = room
        self._crowds = Burst()
        self.open = 0
        self._waiting: Any = None
        self._listening = False
        self._full = False
        self.address: Any = sock.getsockname()
        self._kind = (0, 0, 0)

    def start(self) -> None:
        if not self._listening:
            sock = self._socket
            self._kind = int(sock.family), int(sock.type), sock.proto
            self._listening = True
            self._reactor.addReader(self)

    def stop(self) -> None:
        """Stop accepting and close the socket; open connections go on."""
        self._quiet()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self._socket.close()

    def left(self) -> None:
        """One connection has ended."""
        self.open -= 1
        if self._full and self._socket.fileno() != -1:
            self._full = False
            self.start()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "Port"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops; sockets are closed by :meth:`stop`."""

    def doRead(self) -> None:
        for number in range(_BATCH):
            if self.open >= self._limit:
                if not number:  # else nobody may be waiting; if somebody is, the next event tells
                    self._crowded()
                return
            try:
                # What socket.accept() does, but for turning numbers into Enum members.
                descriptor, address = self._socket._accept()  # type: ignore[attr-defined]
                sock: Any = socket.SocketType(*self._kind, descriptor)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._rest(error)
                    return
                continue  # the peer was gone before we took it (ECONNABORTED and the like)
            sock.setblocking(False)
            self.open += 1
            try:
                self._accept(sock, address)
            except Exception:
                # The reactor would stop listening for good.
                _log.failure("A connection could not be taken")
                sock.close()
                self.open -= 1

    def _quiet(self) -> None:
        if self._listening:
            self._listening = False
            self._reactor.removeReader(self)

    def _rest(self, error: OSError) -> None:
        """No descriptors: a level-triggered reactor would call us again at once, for ever."""
        _log.warn(
            "cannot accept connections for {pause} s: {why}", pause=_PAUSE, why=error.strerror
        )
        self._pause()

    def _crowded(self) -> None:
        """The cap is reached: go on when one has left, or look again whether one may be ended."""
        self._full = True
        self._pause()
        ended = 0 if self._room is None else self._room()
        if self._crowds.another(self._reactor.seconds()):
            some = f"the {ended} that have waited longest without a request are ended for newcomers"
            _log.warn(
                "{limit} connections are open, which is the most: {what}",
                limit=self._limit,
                what=some if ended else "no more are accepted until one ends",
            )

    def _pause(self) -> None:
        self._quiet()
        if self._waiting is None:
            self._waiting = self._reactor.callLater(_PAUSE, self._rested)

    def _rested(self) -> None:
        self._waiting = None
        self.start()
