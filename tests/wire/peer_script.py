r"""Services that answer by a script: what goes wrong, as a row of steps.

A script is a row of bytes and :class:`Step`\ s. It is played for each request to a path that ends
in ``/fault``; any other is answered as it should be, with a body that names the request, so that
a test sees whether an answer is the one to its own question. Requests are read by h11.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import h11

from edgeproxy.testing import Ending, MemoryGateway, MemoryWire, Service


class Step(Enum):
    """What a service does beside sending bytes."""

    ANSWER = "answers as it should"
    END = "sends no more, in order"
    RESET = "goes without a word"
    PAUSE = "says nothing for 1.5 s"
    STALL = "says nothing any more"


ANSWER, END, RESET, PAUSE, STALL = Step
Script = Sequence[bytes | Step]


def alive(wire: MemoryWire) -> bool:
    """Whether neither side has ended a connection."""
    return wire.ending is Ending.OPEN and not wire.left


def proper(method: str, path: str) -> bytes:
    """The answer that names its request."""
    body = f"{method} {path}".encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head if method == "HEAD" else head + body


@dataclass(eq=False)
class Asked:
    """A request that has come to a service, at least its head."""

    method: str
    path: str
    wire: MemoryWire
    body: bytearray = field(default_factory=bytearray)


class Peer:
    """One service, and its script.

    ``early`` begins the script when a request's head is here, not when the whole request is.
    ``apart`` sends byte by byte. ``only``, where it is not ``None``, are the connections that
    have the fault; the others are healthy. ``asked`` is all that was asked, in order, and
    ``faults`` what of it was answered by the script.
    """

    def __init__(
        self, gateway: MemoryGateway, service: Service, script: Script, early: bool, apart: bool
    ) -> None:
        self.asked: list[Asked] = []
        self.faults: list[Asked] = []
        self.only: list[MemoryWire] | None = None
        self._gateway = gateway
        self._service = service
        self._script = script
        self._early = early
        self._apart = apart
        self._reading: dict[MemoryWire, h11.Connection] = {}
        self._todo: dict[MemoryWire, tuple[float, deque[bytes | Step]]] = {}

    @property
    def busy(self) -> bool:
        """Whether something of a script is still to come."""
        return any(steps and alive(wire) for wire, (_, steps) in self._todo.items())

    def play(self) -> bool:
        """Read what has come, and do the next steps that are due; whether there were any."""
        for wire in self._service.connections:
            self._read(wire)
        now = self._gateway.clock.now()
        due = [wire for wire, (when, steps) in self._todo.items() if steps and when <= now]
        for wire in due:
            self._do(wire, self._todo[wire][1].popleft())
        return bool(due)

    def _read(self, wire: MemoryWire) -> None:
        reading = self._reading.setdefault(wire, h11.Connection(h11.SERVER))
        data = wire.take()
        if data:
            reading.receive_data(data)
        while (event := reading.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                self.asked.append(Asked(event.method.decode(), event.target.decode(), wire))
                if self._early:
                    self._begin(self.asked[-1])
            elif isinstance(event, h11.Data):
                self._last(wire).body.extend(event.data)
            elif isinstance(event, h11.EndOfMessage):
                if not self._early:
                    self._begin(self._last(wire))
                reading.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                reading.send(h11.EndOfMessage())
                reading.start_next_cycle()

    def _last(self, wire: MemoryWire) -> Asked:
        return next(each for each in reversed(self.asked) if each.wire is wire)

    def _begin(self, asked: Asked) -> None:
        wire = asked.wire
        fault = asked.path.endswith("/fault") and (self.only is None or wire in self.only)
        if fault:
            self.faults.append(asked)
        steps = deque(self._script if fault else [ANSWER])
        if STALL in steps:
            assert steps.pop() is STALL, "nothing comes after STALL"
        self._todo[wire] = self._gateway.clock.now(), steps

    def _do(self, wire: MemoryWire, step: bytes | Step) -> None:
        if not alive(wire):
            return
        if step is END:
            wire.end()
        elif step is RESET:
            wire.reset()
        elif step is PAUSE:
            self._todo[wire] = self._gateway.clock.now() + 1.5, self._todo[wire][1]
        elif step is ANSWER:
            asked = self._last(wire)
            wire.send(proper(asked.method, asked.path), apart=self._apart)
        elif isinstance(step, bytes):
            wire.send(step, apart=self._apart)
