"""A tunnel: two streams that have become one, after a service has agreed to speak WebSocket.

What comes on one end goes out at the other, whatever it is. Whoever is slow pauses the other end.
Each direction ends by itself: an end in order (``close_notify`` over TLS, else FIN) is passed on
once everything before it was, and the other direction goes on. A stream that breaks off takes the
other with it, so that what was cut never looks whole.

A tunnel in which nothing has moved for its route's time, in either direction, is closed.
"""

from __future__ import annotations

from edgeproxy.exchange import Exchange, Held, Outcome
from edgeproxy.transport.deadlines import NEVER, Deadlines
from edgeproxy.transport.stream import HIGH_WATER, Stream


class End:
    """One end. A :class:`edgeproxy.transport.stream.TunnelProtocol`.

    ``moved`` are the bytes that have come from its peer, who has ``finished`` once it sends no
    more. ``told`` says that the peer has got all that will ever come for it, and the end of it.
    ``broken`` is how the exchange ends when the peer breaks off before that.
    """

    __slots__ = ("broken", "finished", "holder", "moved", "other", "stream", "told", "tunnel")

    tunnel: Tunnel
    other: End

    def __init__(self, holder: Held, broken: Outcome) -> None:
        self.holder = holder
        self.stream: Stream = holder.stream
        self.broken = broken
        self.moved = 0
        self.finished = self.told = False

    def received(self, data: bytes) -> None:
        self.moved += len(data)
        self.tunnel.moved()
        other = self.other.stream
        other.write(data)
        if other.backlog > HIGH_WATER:
            self.stream.pause_reading()

    def drained(self) -> None:
        self.tunnel.moved()
        if self.other.finished:
            self.tunnel.look()
        else:
            self.other.stream.resume_reading()

    def ended(self) -> None:
        self.finished = True
        self.tunnel.moved()
        self.other.stream.close()  # once what is held for it has been written
        self.tunnel.look()

    def lost(self, clean: bool) -> None:
        self.tunnel.finish(Outcome.OK if self.told else self.broken)
        self.holder.lost(clean)
        # They hold each other: let reference counting free them now.
        del self.tunnel, self.other

    def secured(self) -> None:
        """Handshakes are over."""


class Tunnel:
    """See the module's text. ``idle`` is in seconds.

    It is at work on its exchange (:class:`edgeproxy.exchange.Answering`), and the exchange's end
    is its own: what has moved is counted then, and the access log has its line.
    """

    __slots__ = (
        "_exchange",
        "_idle",
        "_now",
        "_seen",
        "_waiting",
        "client",
        "deadline",
        "service",
    )

    def __init__(
        self, exchange: Exchange, client: Held, service: Held, idle: float, deadlines: Deadlines
    ) -> None:
        self._exchange = exchange
        self._idle = idle
        self._now = deadlines.clock.now
        self._waiting = deadlines.waiting
        self._seen = (0, 0)
        self.deadline = NEVER
        self.client = End(client, Outcome.CLIENT_GONE)
        self.service = End(service, Outcome.UPSTREAM_RESET)
        self.client.other, self.service.other = self.service, self.client
        self.client.tunnel = self.service.tunnel = self

    def open(self, early: bytes, first: bytes) -> None:
        """Take both streams over. ``early`` is what the client sent before it had its answer,
        ``first`` what came from the service right behind its own."""
        exchange, client, service = self._exchange, self.client, self.service
        exchange.worker = self
        self._waiting.add(self)
        client.stream.hand_over(client)
        service.stream.hand_over(service)
        self.moved()
        if first:
            service.received(first)
        if early:
            client.received(early)
        if service.stream.backlog <= HIGH_WATER:
            client.stream.resume_reading()  # paused if it sent too much too early

    def moved(self) -> None:
        """Something has come or gone."""
        self.deadline = self._now() + self._idle

    def look(self) -> None:
        """One direction has come to its end; when both have, that was all."""
        client, service = self.client, self.service
        for end, other in ((client, service), (service, client)):
            if other.finished and not end.stream.backlog:
                end.told = True
        if client.told and service.told:
            self._close(Outcome.OK)

    def expired(self, now: float) -> None:
        """Nothing has come for a while; a slow reader who still takes something is not idle."""
        seen = self.client.stream.backlog, self.service.stream.backlog
        if seen == self._seen or seen == (0, 0):
            self._close(Outcome.IDLE)
        else:
            self._seen = seen
            self.deadline = now + self._idle

    def _close(self, outcome: Outcome) -> None:
        """End both streams in order, as far as they let us."""
        self.client.stream.finish()
        self.service.stream.finish()
        self.finish(outcome)

    def finish(self, outcome: Outcome) -> None:
        self._exchange.finish(outcome)

    def cancelled(self, exchange: Exchange) -> None:
        """The exchange has ended, by whomever: so do both streams, and this."""
        self._waiting.discard(self)
        self.deadline = NEVER
        exchange.received = self.client.moved
        exchange.sent = self.service.moved
        self.client.stream.abort()
        self.service.stream.abort()
