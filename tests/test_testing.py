"""The in-memory stream keeps the contract that the real ones keep; transcripts read well."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from edgeproxy.testing import (
    Ending,
    MemoryGateway,
    MemoryReactor,
    MemoryStream,
    MemoryWire,
    Way,
    read_answers,
    shown,
)
from edgeproxy.transport.stream import Stream


class Recorder:
    """A protocol that notes what it is told, and whether it was told from inside a call."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.inside = False
        self.stream: Stream

    def received(self, data: bytes) -> None:
        assert not self.inside
        assert data
        self.calls.append(bytes(data))

    def drained(self) -> None:
        assert not self.inside
        assert self.stream.backlog == 0
        self.calls.append("drained")

    def lost(self, clean: bool) -> None:
        assert not self.inside
        self.calls.append(("lost", clean))

    def secured(self) -> None:
        self.calls.append("secured")

    def do(self, call: Callable[[], None]) -> None:
        self.inside = True
        call()
        self.inside = False


class Far:
    """The other end, in memory or over a socket: the same words for both."""

    def __init__(self, kind: str) -> None:
        self.reactor = MemoryReactor()
        self.protocol = Recorder()
        self.wire: MemoryWire | None = None
        self.socket: socket.socket | None = None
        if kind == "memory":
            self.wire = MemoryWire(self.reactor, Way.WHOLE)
            self.stream: Stream = MemoryStream(self.reactor, self.wire, self.protocol)
        else:
            near, self.socket = socket.socketpair()
            near.setblocking(False)
            self.socket.setblocking(False)
            self.stream = Stream(self.reactor, near, self.protocol)
        self.protocol.stream = self.stream

    def send(self, data: bytes) -> None:
        if self.wire is not None:
            self.wire.send(data)
        elif self.socket is not None:
            self.socket.send(data)
            self.reactor.settle()

    def stall(self) -> None:
        if self.wire is not None:
            self.wire.stall(window=100_000)

    def read(self) -> bytes:
        """What has come; from now on everything is read."""
        if self.wire is not None:
            self.wire.flow()
            return self.wire.take()
        assert self.socket is not None
        found = b""
        while True:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                before = len(found)
                self.reactor.settle()
                if before == len(found) and not self.stream.backlog:
                    return found
                continue
            if not data:
                return found
            found += data
            self.reactor.settle()

    def end(self) -> None:
        if self.wire is not None:
            self.wire.end()
        elif self.socket is not None:
            self.socket.shutdown(socket.SHUT_WR)
            self.reactor.settle()

    def settle(self) -> None:
        self.reactor.settle()


@pytest.fixture(params=["memory", "socket"])
def far(request: pytest.FixtureRequest) -> Far:
    return Far(str(request.param))


def test_nothing_is_delivered_while_paused(far: Far) -> None:
    far.send(b"one")
    assert far.protocol.calls == []
    assert not far.stream.quiet()
    far.stream.resume_reading()
    far.settle()
    assert far.protocol.calls == [b"one"]
    assert far.stream.quiet()
    far.stream.pause_reading()
    assert not far.stream.reading
    far.send(b"two")
    far.settle()
    assert far.protocol.calls == [b"one"]
    far.stream.resume_reading()
    far.settle()
    assert far.protocol.calls == [b"one", b"two"]


def test_what_is_not_taken_is_held_and_told_when_gone(far: Far) -> None:
    far.stream.resume_reading()
    far.stall()
    far.protocol.do(lambda: far.stream.write(b"x" * 3_000_000))
    held = far.stream.backlog
    assert 0 < held < 3_000_000
    far.protocol.do(lambda: far.stream.write(b"y"))
    assert far.stream.backlog == held + 1
    far.settle()
    assert far.protocol.calls == []
    assert far.read() == b"x" * 3_000_000 + b"y"
    assert far.stream.backlog == 0
    assert far.protocol.calls == ["drained"]


def test_the_peers_end(far: Far) -> None:
    far.stream.resume_reading()
    far.send(b"last")
    far.end()
    assert far.protocol.calls == [b"last", ("lost", True)]
    assert far.stream.disconnected
    assert not far.stream.quiet()


def test_close_waits_for_what_is_held(far: Far) -> None:
    far.stream.resume_reading()
    far.stall()
    far.protocol.do(lambda: far.stream.write(b"x" * 3_000_000))
    far.protocol.do(far.stream.close)
    far.settle()
    assert far.read() == b"x" * 3_000_000
    far.send(b"still read")
    far.end()
    assert far.protocol.calls[0] == "drained"
    assert far.protocol.calls[-1] == ("lost", True)


@pytest.mark.parametrize(("way", "clean"), [("finish", True), ("abort", False)])
def test_ends_of_our_own_are_told_later_and_once(far: Far, way: str, clean: bool) -> None:
    far.stream.resume_reading()
    far.protocol.do(getattr(far.stream, way))
    assert far.stream.disconnected
    assert far.protocol.calls == []
    far.protocol.do(far.stream.abort)
    far.protocol.do(far.stream.close)
    far.settle()
    assert far.protocol.calls == [("lost", clean)]


def test_abort_forgets_what_is_held(far: Far) -> None:
    far.stream.resume_reading()
    far.stall()
    far.stream.write(b"x" * 3_000_000)
    far.stream.abort()
    assert far.stream.backlog == 0
    far.settle()
    assert far.protocol.calls == [("lost", False)]


def test_a_peer_that_has_gone() -> None:
    """A write finds it out; what it had said is read first."""
    far = Far("memory")
    assert far.wire is not None
    far.stream.resume_reading()
    far.wire.unread += b"said"
    far.wire.has_gone = True
    far.stream.write(b"hello?")
    assert far.stream.broken
    assert not far.stream.disconnected
    far.settle()
    assert far.protocol.calls == [b"said", ("lost", False)]


def test_writing_after_the_end_is_counted() -> None:
    far = Far("memory")
    assert isinstance(far.stream, MemoryStream)
    far.stream.finish()
    far.stream.write(b"late")
    assert far.stream.late == 4
    assert far.wire is not None and far.wire.received == b""


# -- transcripts and answers -----------------------------------------------------------------------


def test_transcripts() -> None:
    data = b"HTTP/1.1 200 OK\r\nX-Request-Id: " + b"a" * 32 + b"\r\n\r\n" + b"x" * 500
    assert shown("<<", data) == (
        "<< HTTP/1.1 200 OK\n<< X-Request-Id: {id}\n<<\n<< " + "x" * 40 + "... 500 bytes\n"
    )


def test_answers() -> None:
    data = b"HTTP/1.1 103 A\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    data += b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: v\r\n\r\n"
    first, second, third = read_answers(data, ["HEAD", "GET"], ended=False)
    assert (first.status, second.body, third.body, third.trailers) == (103, b"", b"a", ("T: v",))
    for cut in (data[:10], data[:-1], data + b"H"):
        with pytest.raises(ValueError, match="whole"):
            read_answers(cut, ["HEAD", "GET"], ended=True)


def test_the_documentations_example() -> None:
    gateway = MemoryGateway(
        "upstreams: { users: http://10.0.0.1:80 }\n"
        "routes: { api.example.com: { /users: { to: users, auth: none } } }"
    )
    client = gateway.client()
    client.send(b"GET /users HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    assert client.transcript() == (
        ">> GET /users HTTP/1.1\n"
        ">> Host: api.example.com\n"
        ">>\n"
        "<< HTTP/1.1 200 OK\n"
        "<< Content-Length: 2\n"
        "<<\n"
        "<< hi\n"
    )
    client.end()
    assert client.ending is Ending.ENDED


def test_a_gateway_that_never_rests_is_told() -> None:
    reactor = MemoryReactor()
    reactor.pumps.append(lambda: True)
    with pytest.raises(RuntimeError, match="rest"):
        reactor.settle()
