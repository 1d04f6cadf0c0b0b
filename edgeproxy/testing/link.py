"""A stream in memory: the contract of :mod:`edgeproxy.transport.stream`, without a socket."""

from __future__ import annotations

from typing import Any

from edgeproxy.testing.reactor import MemoryReactor
from edgeproxy.testing.wire import Ending, Way, Wire
from edgeproxy.transport.stream import NOBODY, READ_SIZE, Stream, StreamProtocol


class MemoryWire(Wire):
    """The test's end of a link in memory; ``stream`` is the gateway's, once it has one.

    ``unread`` are the bytes that the gateway has not taken yet: they grow while it pauses.
    """

    stream: MemoryStream

    def __init__(self, reactor: MemoryReactor, way: Way) -> None:
        super().__init__(reactor, way)
        self.unread = bytearray()
        self.has_ended = False
        self.has_gone = False
        #: Bytes that still fit in between while nobody reads; ``None`` while somebody does.
        self.window: int | None = None
        self._in_between = b""

    def stall(self, window: int = 0) -> None:
        self.window = window

    def flow(self) -> None:
        self.window = None
        data, self._in_between = self._in_between, b""
        if data:
            self._arrived(data)
        self._reactor.settle()

    def accept(self, data: bytes) -> int:
        """Called by the stream: how much of ``data`` goes onto the wire."""
        if self.window is None:
            self._arrived(data)
            return len(data)
        taken = data[: self.window]
        self.window -= len(taken)
        self._in_between += taken
        return len(taken)

    def gateway_ended(self, ending: Ending) -> None:
        self._gateway_ended(ending)

    def _deliver(self, data: bytes) -> None:
        if not self.has_ended and not self.has_gone:
            self.unread += data

    def _finish_sending(self) -> None:
        self.has_ended = True

    def _vanish(self) -> None:
        self.has_gone = True
        self.window = None


class MemoryStream(Stream):
    """The gateway's end. While it does not read, nothing is delivered; what its peer does not
    take stands in ``backlog``, and ``peak`` is the most that ever stood there.

    ``late`` counts the bytes that its protocol wrote after it had ended the stream: on a socket
    they might still get out, so there should be none.
    """

    __slots__ = ("_ended", "_held", "_secure", "late", "peak", "wire")

    def __init__(
        self,
        reactor: MemoryReactor,
        wire: MemoryWire,
        protocol: StreamProtocol,
        secure: tuple[str, str | None] = ("", None),
    ) -> None:
        # The parent's slots that the in-memory kind needs too; it has no socket.
        self.reactor = reactor
        self.fd = -1
        self.protocol = protocol
        self.tunnel = None
        self.backlog = 0
        self.writes = 0
        self.broken = False
        self.disconnected = False
        self.reading = False
        self._ended = False
        self._held = bytearray()
        self._secure = secure
        self.late = 0
        self.peak = 0
        self.wire = wire
        wire.stream = self
        reactor.pumps.append(self._pump)

    # -- for the protocol ------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self.disconnected or self._ended:
            self.late += len(data)
            return
        if self.wire.has_gone:
            self.broken = True
            if not self.reading:
                self._leave(clean=False)
            return
        taken = 0 if self.backlog else self.wire.accept(data)
        self.writes += taken > 0
        self._held += data[taken:]
        self.backlog = len(self._held)
        self.peak = max(self.peak, self.backlog)

    def tls(self) -> tuple[str, str | None, Any]:
        return *self._secure, None

    def quiet(self) -> bool:
        wire = self.wire
        return not (self.disconnected or wire.unread or wire.has_ended or wire.has_gone)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        if not self.disconnected:
            self.reading = True

    def close(self) -> None:
        if self.disconnected or self._ended:
            return
        self._ended = True
        if not self.backlog:
            self.wire.gateway_ended(Ending.ENDED)

    def finish(self) -> None:
        if self.backlog:
            self.close()
        elif not self.disconnected:
            # The kernel resets a connection that is closed with bytes unread: what was sent
            # just before may never be seen.
            self.wire.gateway_ended(Ending.ABORTED if self.wire.unread else Ending.ENDED)
            self._leave(clean=True)

    def abort(self) -> None:
        if not self.disconnected:
            self.wire.gateway_ended(Ending.ABORTED)
            self._leave(clean=False)

    # -- inside ----------------------------------------------------------------------------------

    def _pump(self) -> bool:
        """One turn: whether anything happened."""
        return not self.disconnected and (self._push() or self._pull())

    def _push(self) -> bool:
        if not self.backlog:
            return False
        if self.wire.has_gone:
            self.broken = True
            self._held.clear()
            self.backlog = 0
            if not self.reading:
                self._leave(clean=False)
            return True
        taken = self.wire.accept(bytes(self._held))
        self.writes += taken > 0
        del self._held[:taken]
        self.backlog = len(self._held)
        if not self.backlog:
            if self._ended:
                self.wire.gateway_ended(Ending.ENDED)
            self.protocol.drained()
        return taken > 0

    def _pull(self) -> bool:
        if not self.reading:
            return False
        wire = self.wire
        if wire.unread:
            data = bytes(wire.unread[:READ_SIZE])
            del wire.unread[:READ_SIZE]
            self.protocol.received(data)
            return True
        if not wire.has_ended and not wire.has_gone:
            return False
        if self.tunnel is not None and not wire.has_gone:
            self.reading = False
            self.tunnel.ended()
            return True
        self._quiesce()
        self._tell_lost(wire.has_ended and not wire.has_gone)
        self.wire.gateway_ended(Ending.ABORTED if wire.has_gone else Ending.ENDED)
        return True

    def _quiesce(self) -> None:
        self.reading = False
        self.disconnected = True
        self._held.clear()
        self.backlog = 0
        self.reactor.pumps.remove(self._pump)

    def _leave(self, *, clean: bool) -> None:
        """Stop everything now; tell the protocol in a turn of its own."""
        self._quiesce()
        self.reactor.callLater(0, self._tell_lost, clean)

    def _tell_lost(self, clean: bool) -> None:
        protocol, self.protocol, self.tunnel = self.protocol, NOBODY, None
        protocol.lost(clean)
