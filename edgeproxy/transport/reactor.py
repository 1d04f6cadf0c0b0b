"""An epoll reactor that spends less per event.

Twisted's wraps each event in ``log.callWithLogger`` and ``callWithContext``, 2 to 3 µs that only
serve to name a system in legacy log lines. This one calls a readable descriptor directly; every
other event, and every failure, goes Twisted's own way. Stock reactors keep working: nothing in
the gateway depends on this one.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import main
from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

from edgeproxy.transport.stream import Outbox, Stream

_log = Logger()
#: Events of one turn: the first of them waits for its answer until all have been looked at.
_MOST = 64
_READABLE = EPollReactor._POLL_IN


class DirectEPollReactor(EPollReactor):
    """See the module's text. ``outbox`` collects what streams write in the course of a turn."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        super().__init__()  # type: ignore[no-untyped-call]

    def doPoll(self, timeout: float | None) -> None:
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, _MOST)
        except InterruptedError:
            return
        outbox = self.outbox
        outbox.open = True
        try:
            self._go_round(events)
        finally:
            outbox.flush()

    def _go_round(self, events: list[tuple[int, int]]) -> None:
        """Look at all events: read first; then answers of services before new requests of
        clients, which so find the connections that have become free."""
        selectables: dict[int, Any] = self._selectables
        first: list[Stream] = []
        last: list[Stream] = []
        for fd, event in events:
            selectable = selectables.get(fd)
            if selectable is None:
                continue
            if event != _READABLE or not isinstance(selectable, Stream):
                self._doReadOrWrite(selectable, fd, event)  # type: ignore[no-untyped-call]
                continue
            data = selectable.read()
            if isinstance(data, bytes):
                selectable.arrived = data
                (last if selectable.last else first).append(selectable)
            elif data is not None:
                self._disconnect(selectable, data)
        self._deliver(first)
        if last:
            self._look_again(selectables)
            self._deliver(last)

    def _look_again(self, selectables: dict[int, Any]) -> None:
        """Before pooled connections are used for new requests: what has come in on them since
        belongs to nobody's request, and makes them unfit for use. One system call for a turn;
        asking at each use would be one for each request."""
        events = self._poller.poll(0, _MOST)
        for fd, event in events:
            stream = selectables.get(fd)
            if not isinstance(stream, Stream) or stream.last:
                continue  # the next turn finds it again
            if event != _READABLE:
                self._doReadOrWrite(stream, fd, event)  # type: ignore[no-untyped-call]
                continue
            data = stream.read()
            if isinstance(data, bytes):
                stream.arrived = data
                self._deliver([stream])
            elif data is not None:
                self._disconnect(stream, data)
        # There may be more than were asked for: then each use looks for itself.
        self.outbox.looked = len(events) < _MOST

    def _deliver(self, received: list[Stream]) -> None:
        for stream in received:
            data, stream.arrived = stream.arrived, b""
            if stream.disconnected:
                continue
            try:
                stream.protocol.received(data)
            except BaseException as error:
                _log.failure("A protocol failed on what it was given")
                self._disconnect(stream, error)

    def _disconnect(self, stream: Stream, why: BaseException) -> None:
        """A stream has ended; what its protocol makes of that must not cost the others theirs."""
        try:
            self._disconnectSelectable(stream, why, True)  # type: ignore[no-untyped-call]
        except Exception:
            _log.failure("A protocol failed on the end of its stream")

    doIteration = doPoll


def install() -> None:
    """Make this the process's reactor; called by the reactor plugin and by the tap."""
    main.installReactor(DirectEPollReactor())
