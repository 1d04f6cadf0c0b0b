"""A TCP stream that writes without waiting to be told that it can.

Twisted's own transport buffers each write and waits for the next turn of the reactor: an
``epoll_ctl`` pair and another turn per write. This one hands the bytes to the kernel in the same
turn and keeps only what the kernel did not take (measured: half of all events gone).

Our own reactor goes one step further: in each turn it reads from all streams first, then lets
their protocols work, and collects what they write in its :class:`Outbox` until all are done. The
number of system calls is the same, but each of them fills the caches with the kernel's code, and
a write wakes somebody on another processor: done together they cost a fifth less (94 µs per
request before, 74 after). On any other reactor a write goes out at once.

The contract between a stream and its protocol, which the in-memory link of
:mod:`edgeproxy.testing` keeps too:

- ``received(data)``: bytes came; never empty, never after ``lost``.
- ``drained()``: everything that had been held back (``backlog``) has been written.
- ``lost(clean)``: the last call. ``clean`` is true when the peer ended the stream in order.
- ``secured()``: the TLS handshake is done (TLS streams only).
- ``ended()``: the peer sends no more, but still reads (only for a protocol that took the stream
  over by ``hand_over``; to every other such an end is ``lost(True)``).

None of them is called from inside ``write``, ``close`` or ``abort``.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReadWriteDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger()

#: Bytes held for a slow reader before its producer is paused (behaviour.md: 64 KiB).
HIGH_WATER = 65536
#: Measured: 64 KiB reads relay large bodies better than 256 KiB ones.
READ_SIZE = 65536


class StreamProtocol(Protocol):
    """What a stream calls; see the module's text for when."""

    def received(self, data: bytes) -> None: ...
    def drained(self) -> None: ...
    def lost(self, clean: bool) -> None: ...
    def secured(self) -> None: ...


class TunnelProtocol(StreamProtocol, Protocol):
    """One that tells the end of what its peer sends from the end of the stream."""

    def ended(self) -> None: ...


class _Nobody:
    """The protocol of a stream that has ended: nothing is ever called."""

    def received(self, data: bytes) -> None: ...
    def drained(self) -> None: ...
    def lost(self, clean: bool) -> None: ...
    def secured(self) -> None: ...


NOBODY = _Nobody()


class Outbox:
    """What was written in the present turn of the reactor, by stream, and the streams dropped in
    it; ``open`` while it lasts, ``looked`` when the reactor has just read all there was to read
    on the streams of services."""

    __slots__ = ("dropped", "looked", "open", "streams")

    def __init__(self) -> None:
        self.open = False
        self.looked = False
        self.streams: list[Stream] = []
        self.dropped: list[tuple[Stream, bool]] = []

    def flush(self) -> None:
        """The turn is over: hand everything to the kernel, and tell of the ends."""
        self.looked = False
        streams, self.streams = self.streams, []
        for stream in streams:
            try:
                stream.flush()
            except BaseException:
                _log.failure("A stream failed on what was written to it")
                stream.abort()
        self.open = False
        dropped, self.dropped = self.dropped, []
        for stream, clean in dropped:
            stream.gone(clean)


@implementer(IReadWriteDescriptor, IHalfCloseableDescriptor)
class Stream:
    """One connected non-blocking socket, registered with a reactor.

    ``backlog`` is the number of bytes that the kernel was offered and has not taken.
    ``writes`` counts what it has taken something of. ``broken`` tells that a write failed: the
    peer has gone, but what it said before may still be read. ``last`` asks our reactor to look
    at this stream after all others of a turn; ``arrived`` is what it has read from it and not
    told the protocol yet.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_collected",
        "_outbox",
        "_pending",
        "_poll",
        "_writing",
        "arrived",
        "backlog",
        "broken",
        "disconnected",
        "fd",
        "last",
        "protocol",
        "reactor",
        "reading",
        "socket",
        "tunnel",
        "writes",
    )

    def __init__(self, reactor: Any, sock: socket.socket, protocol: StreamProtocol) -> None:
        self.reactor = reactor
        self.socket = sock
        self.fd = sock.fileno()
        self.protocol = protocol
        self.tunnel: TunnelProtocol | None = None
        self.backlog = 0
        self.writes = 0
        self.broken = False
        self.last = False
        self.arrived = b""
        self.disconnected = False
        self._pending: deque[bytes | memoryview] = deque()
        self.reading = False
        self._writing = False
        self._closing = False
        self._outbox: Outbox | None = getattr(reactor, "outbox", None)
        self._collected = b""
        self._poll: select.poll | None = None

    # -- for the protocol ------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send ``data``, in this turn as far as the kernel takes it, the rest when it can."""
        outbox = self._outbox
        if outbox is None or not outbox.open:
            self._write(data)
        elif self._collected:
            self._collected += data
        else:
            self._collected = data
            outbox.streams.append(self)

    def flush(self) -> None:
        """Offer the kernel what was collected."""
        data = self._collected
        if data:
            self._collected = b""
            if not self.disconnected:
                self._write(data)

    def _write(self, data: bytes) -> None:
        if self.backlog:
            self._pending.append(data)
            self.backlog += len(data)
            return
        sent = self._send(data)
        if self.broken:
            return
        self.writes += sent > 0
        if sent != len(data):
            self._hold(data, sent)

    def pause_reading(self) -> None:
        if self.reading:
            self.reading = False
            self.reactor.removeReader(self)

    def hand_over(self, protocol: TunnelProtocol) -> None:
        """From now on ``protocol`` has the stream, and each of its directions ends by itself."""
        self.protocol = self.tunnel = protocol

    def tls(self) -> tuple[str, str | None, Any]:
        """The TLS version, the server name asked for, and what the client has shown of a
        certificate (:class:`edgeproxy.certs.clients.Certified`); empty without TLS."""
        return "", None, None

    def quiet(self) -> bool:
        """Whether nothing waits to be read: neither bytes nor the stream's end."""
        if self.disconnected:
            return False
        outbox = self._outbox
        if outbox is not None and outbox.looked:
            return True
        return not self.arrived and not self._readable()

    def _readable(self) -> bool:
        """Whether the kernel has bytes, or the stream's end."""
        poll = self._poll
        if poll is None:
            poll = self._poll = select.poll()
            poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def resume_reading(self) -> None:
        if not self.reading and not self.disconnected:
            self.reading = True
            self.reactor.addReader(self)

    def close(self) -> None:
        """Write what is held, then end the stream; what still comes in is read and dropped
        by the protocol until the peer ends too or the protocol aborts."""
        if self.disconnected or self._closing:
            return
        self.flush()
        self._closing = True
        if not self.backlog:
            self._end()

    def finish(self) -> None:
        """End in order and at once: nothing is held and nothing more is expected to come.
        ``lost(True)`` follows in a later turn. What the kernel does not take of this turn's
        writes is held after all; then this is :meth:`close`."""
        if not self.disconnected:
            self.flush()
            if self.backlog:
                self.close()
                return
            self._say_goodbye()
            self._drop(True)

    def abort(self) -> None:
        """End at once; what is held is lost. ``lost(False)`` follows in a later turn."""
        if not self.disconnected:
            self._drop(False)

    # -- for the reactor -------------------------------------------------------------------

    def fileno(self) -> int:
        return self.fd

    def logPrefix(self) -> str:
        return type(self.protocol).__name__

    def doRead(self) -> Exception | None:
        data = self.read()
        if isinstance(data, bytes):
            self.protocol.received(data)
            return None
        return data

    def read(self) -> bytes | Exception | None:
        """What has come; ``None`` when nothing has, or the reason why nothing will any more."""
        try:
            return self.socket.recv(READ_SIZE) or CONNECTION_DONE
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST

    def doWrite(self) -> Exception | None:
        pending = self._pending
        while pending:
            data = pending[0]
            sent = self._send(data)
            if self.disconnected:
                return None
            self.writes += sent > 0 and not self.broken
            self.backlog -= sent
            if sent != len(data):
                pending[0] = memoryview(data)[sent:]
                return None
            pending.popleft()
        self._stop_writing()
        if self._closing:
            self._end()
        self.protocol.drained()
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        """Called by the reactor when the peer has said, in order, that it sends no more."""
        tunnel = self.tunnel
        if tunnel is None:
            self._stop_writing()
            self.connectionLost(reason)
        else:
            self.reading = False
            tunnel.ended()

    def writeConnectionLost(self, reason: Failure) -> None:
        """Never called: what cannot be written shows in :meth:`write`."""

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor when reading or writing said so."""
        self.gone(reason.check(ConnectionDone) is not None)

    # -- inside ----------------------------------------------------------------------------

    def _send(self, data: bytes | memoryview) -> int:
        """Hand bytes to the kernel; how many it took."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return self._write_failed(len(data))

    def _write_failed(self, size: int) -> int:
        """The peer takes nothing any more. An answer that it gave before it went may wait to be
        read, so the reading side finds the end; nobody else will if it is paused."""
        self.broken = True
        if not self.reading:
            self._drop(False)
        return size

    def _say_goodbye(self) -> bool:
        """What a layer above TCP says before its end; whether the kernel took it."""
        return True

    def _end(self) -> None:
        """Everything was written: tell the peer that no more will come."""
        if not self._say_goodbye():
            self._wait_to_write()  # and then come here again
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(False)

    def _hold(self, data: bytes, sent: int) -> None:
        self._pending.append(memoryview(data)[sent:])
        self.backlog += len(data) - sent
        self._wait_to_write()

    def _wait_to_write(self) -> None:
        if not self._writing:
            self._writing = True
            self.reactor.addWriter(self)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self.reactor.removeWriter(self)

    def _drop(self, clean: bool) -> None:
        """Stop everything now; tell the protocol later, never inside its call."""
        if self.disconnected:
            return
        self._silence()
        outbox = self._outbox
        if outbox is None or not outbox.open:
            self.reactor.callLater(0, self.gone, clean)
        else:
            outbox.dropped.append((self, clean))

    def gone(self, clean: bool) -> None:
        """The end of a stream that was dropped, or that the reactor found ended."""
        if self.socket.fileno() != -1:
            self._release()
            # The last call. Holding each other, the two would be left to the collector, and with
            # them whatever the protocol holds.
            protocol, self.protocol = self.protocol, NOBODY
            self.tunnel = None
            protocol.lost(clean)

    def _silence(self) -> None:
        self.pause_reading()
        self._stop_writing()
        self.disconnected = True
        self._pending.clear()
        self.backlog = 0

    def _release(self) -> None:
        if not self.disconnected:
            self._silence()
        self.socket.close()
