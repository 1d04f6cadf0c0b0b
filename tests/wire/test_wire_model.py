"""Relay, targets, pools and connections in every order that hypothesis can think of.

Each request has a number, in its path, and a service's answer to it says that number in every
byte of its body that it can. So whatever was mixed up, lost, cut or repeated on the way shows at
the client, and a model that knows nothing of the gateway's inside says what may be there.
"""

# What has ended meanwhile is not seen by the type checker.
# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

import re
from dataclasses import dataclass, field

import h11
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from wire_support import HOST, check

from edgeproxy.config import parse
from edgeproxy.http1.client import State
from edgeproxy.reloading import Staged
from edgeproxy.testing import Ending, MemoryGateway, MemoryWire, Wire
from edgeproxy.testing.gateway import Service
from edgeproxy.upstream.target import Attempt, Target

QUEUE = 2
CONFIGURATION = """
upstreams:
  users:
    targets: [%s]
    connections: %d
    waiting: 2
    wait: 1s
    idle: 4s
    eject: { time: 1s, failures: 0 }
    timeouts: { connect: 1s, first_byte: 2s, between_bytes: 2s }
routes: { api.example.com: { /: { to: users, auth: none } } }
"""
TARGETS = [f"http://10.0.0.{number}:9000" for number in (1, 2, 3)]
#: What a reload may bring: the same again, another target, fewer.
CHOICES = [TARGETS[:1], TARGETS[:2], TARGETS[1:], TARGETS[2:]]
BODIES = {
    "GET": b"",
    "PUT": b"Content-Length: 4\r\n",
    "POST": b"Content-Length: 4\r\n",
    "HEAD": b"",
}


def text(number: int) -> bytes:
    """The body of the answer to a request."""
    return b"<%d>" % number * 5


@dataclass(eq=False)
class Asking:
    """A client, and its requests in their order, as ``(number, method)``."""

    wire: Wire
    asked: list[tuple[int, str]] = field(default_factory=list)
    owes: bytes = b""  # the rest of its last request's body


@dataclass(eq=False)
class Serving:
    """A connection of a service: the requests on it, and the rest of an answer that has begun."""

    wire: MemoryWire
    reading: h11.Connection = field(default_factory=lambda: h11.Connection(h11.SERVER))
    whole: list[tuple[int, str]] = field(default_factory=list)
    rest: bytes = b""
    closing: bool = False  # after that rest


class GatewayMachine(RuleBasedStateMachine):
    """Plays clients, services, time, and whoever reloads."""

    @initialize(cap=st.sampled_from([1, 1, 2]))
    def begin(self, cap: int) -> None:
        self.cap = cap
        self.gateway = MemoryGateway(self.configuration(TARGETS[:1]))
        for number in (1, 2, 3):
            self.gateway.services.setdefault((f"10.0.0.{number}", 9000), Service())
        self.clients = [Asking(self.gateway.client()) for _ in range(3)]
        self.serving: dict[MemoryWire, Serving] = {}
        self.targets: list[Target] = []
        self.number = 0
        self.seen: dict[int, int] = {}
        self.posts: set[int] = set()

    def configuration(self, targets: list[str]) -> str:
        return CONFIGURATION % (", ".join(targets), self.cap)

    # -- clients ---------------------------------------------------------------------------------

    @precondition(lambda self: len(self.open_clients()) < 6)
    @rule()
    def connect(self) -> None:
        self.clients.append(Asking(self.gateway.client()))

    @precondition(lambda self: self.open_clients())
    @rule(
        data=st.data(),
        method=st.sampled_from(["GET", "GET", "HEAD", "POST", "PUT"]),
        whole=st.booleans(),
    )
    def ask(self, data: st.DataObject, method: str, whole: bool) -> None:
        """A request, also ahead of the answers to others, perhaps with half its body."""
        client = data.draw(st.sampled_from(self.open_clients()))
        self.number += 1
        client.asked.append((self.number, method))
        if method == "POST":
            self.posts.add(self.number)
        head = b"%b /%d HTTP/1.1\r\n" % (method.encode(), self.number)
        body = b"body" if BODIES[method] else b""
        sent = body if whole else body[:2]
        owes, client.owes = client.owes, body[len(sent) :]
        client.wire.send(owes + head + HOST + BODIES[method] + b"\r\n" + sent)

    @precondition(lambda self: any(each.owes for each in self.open_clients()))
    @rule(data=st.data())
    def ask_the_rest(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from([each for each in self.open_clients() if each.owes]))
        owes, client.owes = client.owes, b""
        client.wire.send(owes)

    @precondition(lambda self: self.open_clients())
    @rule(data=st.data(), how=st.sampled_from(["reset", "end"]))
    def leave(self, data: st.DataObject, how: str) -> None:
        getattr(data.draw(st.sampled_from(self.open_clients())).wire, how)()

    def open_clients(self) -> list[Asking]:
        return [c for c in self.clients if c.wire.ending is Ending.OPEN and not c.wire.left]

    # -- services --------------------------------------------------------------------------------

    @precondition(lambda self: self.asked())
    @rule(data=st.data(), framing=st.sampled_from(["length", "chunks", "close"]),
        part=st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0, 1.0, 1.0]), before=st.sampled_from([
        b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"]),
        after=st.sampled_from([b"", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]),
    )  # fmt: skip
    def answer(
        self, data: st.DataObject, framing: str, part: float, before: bytes, after: bytes
    ) -> None:
        """Answer, wholly or in part; perhaps more than was asked for."""
        serving = data.draw(st.sampled_from(self.asked()))
        number, method = serving.whole.pop(0)
        body = text(number)
        if framing == "length":
            head = b"Content-Length: %d" % len(body)
        elif framing == "chunks":
            head = b"Transfer-Encoding: chunked"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            head = b"Connection: close"
        said = before + b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n"
        if method != "HEAD":
            said += body
        if framing != "close":
            said += after
        cut = int(len(said) * part)
        if cut == len(said) - len(after) and after:
            cut -= 1  # what comes later than the whole answer could be anybody's
        serving.closing = framing == "close"
        serving.rest = said
        self.say(serving, cut)

    def say(self, serving: Serving, size: int) -> None:
        said, serving.rest = serving.rest[:size], serving.rest[size:]
        if said:
            serving.wire.send(said)
        if serving.closing and not serving.rest:
            serving.wire.end()

    @precondition(lambda self: self.answering())
    @rule(data=st.data())
    def answer_the_rest(self, data: st.DataObject) -> None:
        serving = data.draw(st.sampled_from(self.answering()))
        self.say(serving, len(serving.rest))

    @precondition(lambda self: self.asked())
    @rule(
        data=st.data(),
        said=st.sampled_from([b"evil\r\n", b"HTTP/1.1 101 Evil\r\n\r\n", b"HTTP/1.1 200 OK\n\n"]),
    )
    def answer_badly(self, data: st.DataObject, said: bytes) -> None:
        serving = data.draw(st.sampled_from(self.asked()))
        serving.whole.pop(0)
        serving.wire.send(said)

    @precondition(lambda self: self.open_services())
    @rule(data=st.data(), how=st.sampled_from(["reset", "end"]))
    def break_off(self, data: st.DataObject, how: str) -> None:
        serving = data.draw(st.sampled_from(self.open_services()))
        # An end in order is the end of a body that has no other: nobody could tell that it is cut.
        getattr(serving.wire, "reset" if serving.closing and serving.rest else how)()

    @precondition(lambda self: self.idle_services())
    @rule(data=st.data())
    def speak_unasked(self, data: st.DataObject) -> None:
        serving = data.draw(st.sampled_from(self.idle_services()))
        serving.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    @rule(
        number=st.sampled_from([1, 2, 3]),
        mode=st.sampled_from(["accept", "accept", "refuse", "silent"]),
    )
    def change(self, number: int, mode: str) -> None:
        self.gateway.services[f"10.0.0.{number}", 9000].mode = mode

    def open_services(self) -> list[Serving]:
        """Those that are connected, with what has come read."""
        for service in self.gateway.services.values():
            for wire in service.connections:
                self.read(self.serving.setdefault(wire, Serving(wire)))
        return [
            each
            for wire, each in self.serving.items()
            if wire.ending is Ending.OPEN and not wire.left
        ]

    def asked(self) -> list[Serving]:
        return [each for each in self.open_services() if each.whole and not each.rest]

    def answering(self) -> list[Serving]:
        return [each for each in self.open_services() if each.rest]

    def idle_services(self) -> list[Serving]:
        """Those that owe nothing, and of which nothing is asked."""
        return [
            each
            for each in self.open_services()
            if not each.whole and not each.rest and each.reading.their_state is h11.IDLE
        ]

    def read(self, serving: Serving) -> None:
        reading = serving.reading
        data = serving.wire.take()
        if data:
            reading.receive_data(data)
        while True:
            event = reading.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.Request):
                number = int(event.target[1:])
                self.seen[number] = self.seen.get(number, 0) + 1
                self.last = number, event.method.decode()
                serving.whole.append(self.last)
                if len(serving.whole) > 1 or serving.rest:
                    raise AssertionError("asked again before it has answered")
            elif isinstance(event, h11.EndOfMessage):
                reading.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                reading.send(h11.EndOfMessage())
                reading.start_next_cycle()

    # -- the world -------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.3, 0.3, 1.1, 2.2, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.gateway.wait(seconds)

    @rule(chosen=st.sampled_from(CHOICES))
    def reload(self, chosen: list[str]) -> None:
        gateway = self.gateway.gateway
        config = parse(self.configuration(chosen), environ={})
        gateway.use(gateway.build(config), Staged())
        self.gateway.reactor.settle()

    # -- what always holds -----------------------------------------------------------------------

    @invariant()
    def pools_count_what_there_is(self) -> None:
        gateway = self.gateway.gateway
        self.open_services()
        self.targets += [t for t in gateway.fleet.targets if t not in self.targets]
        attempts = [a for a in gateway.deadlines.waiting if isinstance(a, Attempt)]
        clients = 0
        for target in self.targets:
            mine = [a for a in attempts if a.target is target]
            connecting = sum(a.connecting is not None for a in mine)
            pool = target.pool
            assert pool.open == len(target.clients) + connecting <= self.cap
            assert set(pool.waiting) == {a for a in mine if a.connecting is None}
            assert len(pool.waiting) <= QUEUE
            assert not (pool.waiting and pool.idle)
            assert not (target.retired and pool.idle)
            for client in target.clients:
                assert (client in pool.idle) == (client.state is State.IDLE)
                assert (client.exchange is None) == (client.state is State.IDLE)
            clients += len(target.clients)
        assert clients == len(self.open_services())

    @invariant()
    def nothing_is_sent_twice_that_may_not_be(self) -> None:
        assert all(self.seen.get(number, 0) <= 1 for number in self.posts)
        assert all(count <= 3 for count in self.seen.values())

    @invariant()
    def each_has_its_own_answer(self) -> None:
        for client in self.clients:
            self.read_answers(client)

    def read_answers(self, client: Asking) -> int:
        """Compare what a client has with what it asked for; how many answers are whole."""
        received = client.wire.received
        assert b"evil" not in received.lower()
        cut = client.wire.ending is Ending.ABORTED
        for count, (number, method) in enumerate(client.asked):
            while received.startswith(b"HTTP/1.1 1"):
                interim, _, received = received.partition(b"\r\n\r\n")
                assert interim.split()[1] in (b"100", b"103")
            head, end, received = received.partition(b"\r\n\r\n")
            if not head:
                return count
            assert end, "a head is sent whole"
            status = int(head[9:12])
            length = re.search(rb"\r\nContent-Length: (\d+)(?:\r|\Z)", head)
            if status == 200 and method == "HEAD":
                continue
            if status != 200:
                assert status in (408, 502, 503, 504)
                if method != "HEAD":
                    assert length is not None
                    received = received[int(length[1]) :]
                continue
            if length is not None:
                body, received = received[: int(length[1])], received[int(length[1]) :]
                whole = len(body) == int(length[1])
            else:
                pieces, whole = [], False
                while (match := re.match(rb"([0-9a-f]+)\r\n", received)) is not None:
                    size = int(match[1], 16)
                    received = received[match.end() :]
                    pieces.append(received[:size])
                    received = received[size + 2 :]
                    if size == 0:
                        whole = True
                        break
                body = b"".join(pieces)
            assert body == text(number) if whole else text(number).startswith(body)
            if not whole:
                assert not received
                assert cut or client.wire.ending is Ending.OPEN or client.wire.left
                return count
        assert not received, "an answer that nobody asked for"
        return len(client.asked)

    @invariant()
    def each_exchange_ends_once(self) -> None:
        finished = self.gateway.finished
        assert len({id(each) for each in finished}) == len(finished)
        for client in self.clients:
            ended = self.gateway.exchanges(client.wire)
            numbers = [int(each.path[1:]) for each in ended]
            assert numbers == [number for number, _ in client.asked][: len(numbers)]

    def teardown(self) -> None:
        """Whoever waits is answered in time, and then all is as it was at first."""
        if not hasattr(self, "gateway"):
            return
        for client in self.open_clients():
            if client.owes:
                client.wire.send(client.owes)
        # Three attempts of 2.25 s at most for each request, one after the other.
        most = max((len(client.asked) for client in self.clients), default=0)
        for _ in range(most + 1):
            if any(self.read_answers(c) < len(c.asked) for c in self.open_clients()):
                self.gateway.wait(8.0)
        for client in self.open_clients():
            assert self.read_answers(client) == len(client.asked), "lost"
        check(self.gateway, rest=10.0)
        for target in self.targets:
            assert not target.clients
            assert target.pool.open == 0
            assert not target.pool.waiting


GatewayMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestGateway = GatewayMachine.TestCase
