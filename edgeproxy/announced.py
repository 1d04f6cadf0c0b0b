"""A connection from a named proxy, until the PROXY head has told whose it is."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from edgeproxy.http1.server import Listener, State
from edgeproxy.proxyprotocol import BadHead, HeadReader, Told


@implementer(IReadDescriptor)
class Announced:
    """See the module's text. ``taken(self, told)`` is called once the head is whole: the socket
    is then the caller's. ``ended(self, reason)`` when it never will be, with an empty reason where
    the proxy went without a word, as its health checks do.

    Among a listener's connections it stands for the one to come.
    """

    state = State.SHAKING

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        listener: Listener,
        taken: Callable[[Announced, Told | None], None],
        ended: Callable[[Announced, str], None],
    ) -> None:
        self.socket = sock
        self.deadline = listener.clock.now() + listener.timeouts.handshake
        self._listener = listener
        self._reactor = reactor
        self._head = HeadReader()
        self._silent = True
        self._taken = taken
        self._ended = ended
        self._open = True
        reactor.addReader(self)

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "Announced"

    def doRead(self) -> None:
        try:
            while not self._head.done:
                if not self._read(self._head):
                    return
        except BadHead as error:
            self._end(str(error))
            return
        except OSError:
            self._end("" if self._silent else "it broke off within the PROXY head")
            return
        self._leave()
        self._taken(self, self._head.told)

    def _read(self, head: HeadReader) -> bool:
        """Take what there is of the head; ``False`` when more has to be waited for."""
        flags = socket.MSG_PEEK if head.peek else 0
        peeked = head.peek
        try:
            data = self.socket.recv(head.wanted, flags)
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionResetError
        self._silent = False
        size = head.take(data)
        if peeked:
            self.socket.recv(size)  # they are there: it was all just looked at
        return True

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor when the socket has failed."""
        self._end("")

    # -- for the listener ------------------------------------------------------------------------

    def expired(self, now: float) -> None:
        self._end("no whole PROXY head came in time")

    def shut(self) -> None:
        """Drain: it has as long as any other connection that has not asked yet."""
        listener = self._listener
        self.deadline = min(self.deadline, listener.clock.now() + listener.timeouts.close)

    def cut(self) -> None:
        self._end("")

    def _leave(self) -> None:
        self._open = False
        self._reactor.removeReader(self)

    def _end(self, reason: str) -> None:
        if self._open:
            self._leave()
            self.socket.close()
            self._ended(self, reason)
