"""Exchanges whose answers pass filters: whoever answers, at whatever pace, notices nothing of it.

An exchange of a route with filters becomes one of a class of its own, so that no other exchange
has to look whether it is one.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from edgeproxy.errors import title
from edgeproxy.exchange import Exchange, Outcome, Throttle

if TYPE_CHECKING:
    from edgeproxy.filters.run import Run


class Held:
    """An answer that has begun, and what has come of it while filters look at its head."""

    __slots__ = (
        "_base",
        "_ended",
        "_pieces",
        "_reason",
        "complete",
        "length",
        "lines",
        "payload",
        "source",
        "status",
    )

    def __init__(
        self,
        base: type[Exchange],
        status: int,
        reason: bytes,
        lines: list[bytes],
        length: int | None,
        payload: bytes,
        complete: bool,
        source: Throttle | None,
    ) -> None:
        self._base = base
        self._reason = reason
        self._pieces: list[bytes] = []
        self._ended: list[bytes] | None = None
        self.status = status
        self.lines = lines
        self.length = length
        self.payload = payload
        self.complete = complete
        self.source = source

    def pause(self) -> None:
        """No more of it for now."""
        if self.source is not None and not self.complete:
            self.source.pause_reading()

    def send(self, data: bytes) -> None:
        """More of the body."""
        self._pieces.append(data)

    def end(self, trailers: list[bytes]) -> None:
        """That was all of it."""
        self._ended = trailers

    def begin(self, exchange: Exchange) -> None:
        """Let it go at once."""
        self._base.begin(
            exchange,
            self.status,
            self._reason,
            self.lines,
            self.length,
            self.payload,
            self.complete,
            self.source,
        )

    def release(self, exchange: Exchange, status: int, *, paused: bool) -> None:
        """Let it go, with ``status``, and whoever gives it go on."""
        if status != self.status:
            self.status = status
            self._reason = title(status).encode("ascii")
        if not paused:
            self.begin(exchange)
            return
        self.payload += b"".join(self._pieces)
        source = self.source
        if self._ended is not None:
            # Its source is at work for somebody else by now.
            self.source = _Ended()
            self.begin(exchange)
            if not exchange.ended:
                self._base.end(exchange, self._ended)
            return
        if source is not None and not self.complete:
            source.resume_reading()
        self.begin(exchange)


class _Ended:
    """The source of an answer that is here whole."""

    def pause_reading(self) -> None:
        """There is nothing to pause."""

    def resume_reading(self) -> None:
        """There is nothing more."""


@cache
def ending(base: Any) -> type[Exchange]:
    """The class of those exchanges of class ``base`` whose end is told; nothing but methods
    differs, so an exchange can become one."""

    class Ending(base):  # type: ignore[misc]
        __slots__ = ()

        def finish(self, outcome: Outcome) -> None:
            run: Run | None = self.filtering
            if run is not None:
                # They hold each other: let reference counting free them now.
                exchange: Any = self
                exchange.filtering = None
                run.ended(outcome)
            base.finish(self, outcome)

    return Ending


@cache
def filtered(base: Any) -> type[Exchange]:
    """The same for those whose answers pass filters too."""

    class Filtered(ending(base)):  # type: ignore[misc]
        __slots__ = ()

        def begin(self, status: int, reason: bytes, lines: list[bytes], *rest: Any) -> None:
            run: Run | None = self.filtering
            if run is not None:
                run.respond(Held(base, status, reason, lines, *rest))

        def send(self, data: bytes) -> None:
            run: Run | None = self.filtering
            if run is None or run.replaced:
                return
            if run.held is None:
                base.send(self, data)
            else:
                run.held.send(data)

        def end(self, trailers: list[bytes]) -> None:
            run: Run | None = self.filtering
            if run is None or run.replaced:
                return
            if run.touched:
                trailers = run.trailers(trailers)
            if run.held is None:
                base.end(self, trailers)
            else:
                run.held.end(trailers)

    return Filtered
