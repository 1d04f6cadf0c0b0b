"""Connecting to an upstream: one non-blocking attempt with an answer in every case."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from twisted.internet.interfaces import IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from edgeproxy.transport.stream import Stream, StreamProtocol

if TYPE_CHECKING:
    from edgeproxy.upstream.lookup import LookUp

_UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK)
#: Seconds until a service on a Unix socket, whose queue was full, is asked again.
_AGAIN = 0.02


class Attempt(Protocol):
    """What ``Network.connect`` returns: a connection being made."""

    def cancel(self) -> None:
        """Give up; nothing is called any more."""


@implementer(IWriteDescriptor)
class Connecting:
    """An attempt under way. ``connected(socket)`` or ``failed(why)`` is called exactly once,
    never from inside the constructor, unless :meth:`cancel` came first.

    ``address`` is what ``socket.connect`` takes for ``family``. The time-out is the caller's.
    """

    def __init__(
        self,
        reactor: Any,
        family: socket.AddressFamily,
        address: Any,
        connected: Callable[[socket.socket], None],
        failed: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._connected = connected
        self._failed = failed
        self._done = False
        self._later: Any = None
        self._socket: socket.socket | None = None
        self._address = address
        try:
            sock = self._socket = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(address)
        except OSError as error:
            code = error.errno or errno.EIO
        if code == errno.EAGAIN and family == socket.AF_UNIX:
            self._later = reactor.callLater(_AGAIN, self._ask_again)
        elif code in _UNDER_WAY:
            reactor.addWriter(self)
        else:
            self._later = reactor.callLater(0, self._finish, code)

    def _ask_again(self) -> None:
        """The service has more callers than it lets wait: unlike TCP, a Unix socket then leaves it
        to the caller to try again (connect(2), EAGAIN)."""
        assert self._socket is not None
        code = self._socket.connect_ex(self._address)
        if code == errno.EAGAIN:
            self._later = self._reactor.callLater(_AGAIN, self._ask_again)
        else:
            self._finish(code)

    def cancel(self) -> None:
        """Give up; neither callback is called any more."""
        if not self._done:
            self._stop()
            if self._socket is not None:
                self._socket.close()

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "Connecting"

    def doWrite(self) -> None:
        assert self._socket is not None
        self._finish(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw the descriptor hang up: that is the attempt's answer too."""
        if not self._done and self._socket is not None:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._finish(code or errno.ECONNREFUSED)

    def _finish(self, code: int) -> None:
        if self._done:
            return
        self._stop()
        if code == 0 and self._socket is not None:
            self._connected(self._socket)
            return
        if self._socket is not None:
            self._socket.close()
        self._failed(os.strerror(code))

    def _stop(self) -> None:
        self._done = True
        if self._later is not None and self._later.active():
            self._later.cancel()
        if self._socket is not None and self._later is None:
            self._reactor.removeWriter(self)


class Network(NamedTuple):
    """How targets are reached: over TCP, unless :mod:`edgeproxy.testing` puts memory in its place.

    ``connect`` takes what :class:`Connecting` takes; ``stream`` makes a stream for a protocol out
    of what ``connect`` has reached; ``look_up`` says what names lead to (``None``: the system).
    """

    connect: Callable[..., Attempt] = Connecting
    stream: Callable[[Any, Any, StreamProtocol], Stream] = Stream
    look_up: LookUp | None = None


TCP = Network()
