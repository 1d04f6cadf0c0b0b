"""The far end of one of the gateway's streams, held by a test."""

from __future__ import annotations

from enum import Enum

from edgeproxy.testing.reactor import MemoryReactor
from edgeproxy.testing.transcript import Answer, read_answers, shown


class Way(Enum):
    """How what a test sends arrives at the gateway."""

    WHOLE = "whole"
    BYTES = "byte by byte"
    TLS = "over TLS"


class Ending(Enum):
    """How the gateway ended a stream, as its peer sees it."""

    OPEN = "open"
    ENDED = "ended"  # in order: FIN, and close_notify before it over TLS
    ABORTED = "aborted"  # reset, or without close_notify


class Wire:
    """What clients' and services' ends have in common. ``received`` is all that has come."""

    def __init__(self, reactor: MemoryReactor, way: Way) -> None:
        self.received = b""
        self.ending = Ending.OPEN
        #: Whether this end has gone, or ended, by itself.
        self.left = False
        self._reactor = reactor
        self._way = way
        self._taken = 0
        self._events: list[tuple[str, bytes]] = []

    # -- what tests call -------------------------------------------------------------------------

    def send(self, data: bytes, *, apart: bool | None = None) -> None:
        """Send; the gateway has done all that it does about it when this returns.

        ``apart`` sends byte by byte (or not), whatever the way says.
        """
        pieces = [data]
        if self._way is Way.BYTES if apart is None else apart:
            pieces = [data[i : i + 1] for i in range(len(data))]
        for piece in pieces:
            self._note(">>", piece)
            self._deliver(piece)
            self._reactor.settle()

    def take(self) -> bytes:
        """What has come since the last call."""
        data = self.received[self._taken :]
        self._taken = len(self.received)
        return data

    def forget(self) -> bytes:
        """:meth:`take`, and keep nothing of what was said: for talks too long to be kept."""
        data = self.take()
        self.received = b""
        self._taken = 0
        self._events.clear()
        return data

    def end(self) -> None:
        """Send no more, in order; what comes is still read."""
        self.left = True
        self._note(">>", b"[end]\n", apart=True)
        self._finish_sending()
        self._reactor.settle()

    def reset(self) -> None:
        """Go without a word; what the gateway sends finds nobody."""
        self.left = True
        self._note(">>", b"[reset]\n", apart=True)
        self._vanish()
        self._reactor.settle()

    def stall(self, window: int = 0) -> None:
        """Read no more; about ``window`` further bytes still fit in between."""
        raise NotImplementedError

    def flow(self) -> None:
        """Read again."""
        raise NotImplementedError

    def answers(self, *methods: str) -> list[Answer]:
        """What has come, read as answers to requests with these methods (GET where not said).

        :raises ValueError: it is no row of whole answers.
        """
        return read_answers(self.received, methods, ended=self.ending is Ending.ENDED)

    def transcript(self) -> str:
        """The conversation: ``>>`` what the gateway received, ``<<`` what it sent."""
        return "".join(shown(mark, data) for mark, data in self._events)

    # -- what each kind implements ---------------------------------------------------------------

    def _deliver(self, data: bytes) -> None:
        raise NotImplementedError

    def _finish_sending(self) -> None:
        raise NotImplementedError

    def _vanish(self) -> None:
        raise NotImplementedError

    # -- inside ----------------------------------------------------------------------------------

    def _arrived(self, data: bytes) -> None:
        self.received += data
        self._note("<<", data)

    def _gateway_ended(self, ending: Ending) -> None:
        if self.ending is Ending.OPEN:
            self.ending = ending
            self._note(
                "<<", b"[%b]\n" % (b"end" if ending is Ending.ENDED else b"abort"), apart=True
            )

    def _note(self, mark: str, data: bytes, *, apart: bool = False) -> None:
        events = self._events
        if events and events[-1][0] == mark and not apart:
            events[-1] = (mark, events[-1][1] + data)
        else:
            events.append((mark, data))
