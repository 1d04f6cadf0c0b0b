"""A reactor and a clock that stand still until a test moves them."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Iterator, MutableSet
from typing import Any

from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.task import Clock as TaskClock
from twisted.python.failure import Failure

from edgeproxy.transport.deadlines import INTERVAL, Clock
from edgeproxy.transport.stream import Outbox

#: Turns after which what never settles is taken for a loop without end.
_MOST_TURNS = 200_000

#: 2026-11-24 12:00 UTC.
EPOCH = 1_795_521_600.0


class MemoryReactor(TaskClock):
    """Timers from ``twisted.internet.task.Clock``, descriptors through ``poll``, and pumps.

    A pump is called in each turn and returns whether it did anything: in-memory streams are
    such. :meth:`settle` turns until nothing happens any more; time does not move meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = 1000.0
        #: As our own reactor has it: streams on sockets hand over what they write with the turn.
        self.outbox = Outbox()
        self.pumps: list[Callable[[], bool]] = []
        self._readers: set[Any] = set()
        self._writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self._readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self._readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self._writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self._writers.discard(writer)

    def callFromThread(self, call: Callable[..., Any], *arguments: Any) -> None:
        """In memory there is but one thread."""
        self.callLater(0, call, *arguments)

    def settle(self) -> None:
        """Run until nothing happens any more, without moving the time.

        :raises RuntimeError: it never ends.
        """
        for _ in range(_MOST_TURNS):
            busy = self._run_timers()
            for pump in tuple(self.pumps):
                busy |= pump()
            busy |= self._poll()
            if not busy:
                return
        raise RuntimeError("the gateway does not come to rest")

    def wait(self, seconds: float) -> None:
        """Let the time pass in steps as short as the gateway's own look at its deadlines."""
        self.settle()
        while seconds > 0:
            step = min(seconds, INTERVAL)
            self.advance(step)
            self.settle()
            seconds -= step

    def _run_timers(self) -> bool:
        if not self.calls or self.calls[0].getTime() > self.seconds():
            return False
        self.advance(0)
        return True

    def _poll(self) -> bool:
        interest: dict[int, tuple[Any, int]] = {}
        for group, mask in ((self._readers, select.POLLIN), (self._writers, select.POLLOUT)):
            for each in group:
                fd = each.fileno()
                if fd >= 0:
                    interest[fd] = (each, interest.get(fd, (each, 0))[1] | mask)
        if not interest:
            return False
        poll = select.poll()
        for fd, (_, mask) in interest.items():
            poll.register(fd, mask)
        events = poll.poll(0)
        self.outbox.open = True
        try:
            for fd, event in events:
                self._tell(interest[fd][0], event)
        finally:
            self.outbox.flush()
        return bool(events)

    def _tell(self, selectable: Any, event: int) -> None:
        """One event, as Twisted's reactors hand it on."""
        why: Any = None
        if event & (select.POLLHUP | select.POLLERR) and not event & select.POLLIN:
            why = CONNECTION_LOST
        if why is None and event & select.POLLIN and selectable in self._readers:
            why = selectable.doRead()
        if why is None and event & select.POLLOUT and selectable in self._writers:
            why = selectable.doWrite()
        if why is not None:
            self.removeReader(selectable)
            if why is CONNECTION_DONE and IHalfCloseableDescriptor.providedBy(selectable):
                selectable.readConnectionLost(Failure(why))
                return
            self.removeWriter(selectable)
            selectable.connectionLost(Failure(why))


class InOrder(MutableSet[Any]):
    """A set that is gone through in the order in which its members came: things whose deadlines
    pass together are told in the same order each time."""

    def __init__(self, members: Iterable[Any] = ()) -> None:
        self._members = dict.fromkeys(members)

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def add(self, value: Any) -> None:
        self._members[value] = None

    def discard(self, value: Any) -> None:
        self._members.pop(value, None)


class MemoryClock(Clock):
    """The gateway's two clocks, both driven by a :class:`MemoryReactor`."""

    def __init__(self, reactor: MemoryReactor) -> None:
        self.now = reactor.seconds
        self.epoch = EPOCH - reactor.seconds()

    def refresh(self) -> None:
        """The epoch stands, unless a test moves it."""
