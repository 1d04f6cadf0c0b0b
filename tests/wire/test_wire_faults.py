"""Everything that a service can do wrong, with every kind of request: one table.

Each row of ``ROWS`` is a fault, and beside it stands what is expected of each kind of request
(``KINDS``), with the faulty service alone and with a healthy one beside it:

    502x3     status 502; services saw the request three times, whole or in part
    200!x1    status 200, then the client's connection was aborted within the answer

The row tells besides how a failure is logged, after which kinds the connection is kept for the
next request (any other is closed, and not used again), and after which the client's ends. What
is the same for all cells (one log line, the pool's counts, the next request's own answer, no
POST twice) is looked at in ``test_fault``.
"""

# What has ended meanwhile is not seen by the type checker.
# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from peer_script import ANSWER, END, PAUSE, RESET, STALL, Asked, Peer, Script, alive
from wire_support import HOST, check

from edgeproxy.exchange import Outcome
from edgeproxy.http1.client import State
from edgeproxy.testing import Ending, MemoryGateway, Way, Wire
from edgeproxy.transport.deadlines import NEVER

TARGETS = ("http://10.0.0.1:9001", "http://10.0.0.2:9002")
CONFIGURATION = """
upstreams: { users: { targets: [%s], idle: 6s, timeouts: { connect: 1s } } }
routes:
  api.example.com:
    /users: { to: users, auth: none, timeouts: { first_byte: 2s, between_bytes: 2s } }
"""


class Kind(NamedTuple):
    """A kind of request: the head's first and last part, and the body in two pieces."""

    method: str
    fields: bytes = b""
    body: tuple[bytes, bytes] = (b"", b"")
    version: bytes = b"1.1"

    def head(self, path: str) -> bytes:
        line = b"%b %b HTTP/%b\r\n" % (self.method.encode(), path.encode(), self.version)
        return line + HOST + self.fields + b"\r\n"


KINDS = {
    "GET": Kind("GET"),
    "HEAD": Kind("HEAD"),
    "POST": Kind("POST", b"Content-Length: 10\r\n", (b"01234", b"56789")),
    "PUT": Kind("PUT", b"Content-Length: 10\r\n", (b"01234", b"56789")),
    "CHUNKED": Kind(
        "POST", b"Transfer-Encoding: chunked\r\n", (b"5\r\n01234\r\n", b"5\r\n56789\r\n0\r\n\r\n")
    ),
    "OLD": Kind("GET", version=b"1.0"),  # and without keep-alive
}
FAILED, RESETS, TIMES = Outcome.UPSTREAM_FAILED, Outcome.UPSTREAM_RESET, Outcome.UPSTREAM_TIMEOUT


@dataclass
class Row:
    """``one`` and ``two`` are what is expected, a word for each kind, or one for all; ``two`` is
    as ``one`` where it is left out, and ``apart`` (sent byte by byte) as both.

    ``mode`` is what becomes of a connect. ``warm`` are seconds for which there were pooled
    connections, and ``idle`` what happens to the faulty one of them, instead of at the request;
    with ``unseen`` before the gateway's reactor has come to look at it.
    """

    script: Script
    one: str
    two: str = ""
    apart: str = ""
    outcome: Outcome | None = None
    kept: str = ""
    ended: str = ""
    body: bytes | None = None
    early: bool = False
    mode: str = "accept"
    warm: float = -1.0
    idle: bytes | str = b""
    unseen: bool = False

    def expected(self, kind: str, targets: int, apart: bool) -> tuple[int, bool, int]:
        """The status, whether the client is cut, and how often services saw the request."""
        words = ((apart and self.apart) or (targets == 2 and self.two) or self.one).split()
        word = words[0] if len(words) == 1 else words[list(KINDS).index(kind)]
        match = re.fullmatch(r"(\d{3})(!?)x(\d)", word)
        assert match is not None, word
        return int(match[1]), bool(match[2]), int(match[3])


OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"Content-Length: 9\r\n\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSED = OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
ZIPPED = gzip.compress(b"hello" * 9, mtime=0)
ALL = "GET HEAD POST PUT CHUNKED OLD"
BODIES = "GET POST PUT CHUNKED OLD"  # whose answers have a body

#: What may be repeated is; a POST never.
REPEATED = {
    #       GET   HEAD  POST  PUT   CHUNKED OLD
    "one": "502x3 502x3 502x1 502x3 502x1 502x3",
    "two": "200x2 200x2 502x1 200x2 502x1 200x2",
    "outcome": RESETS,
}
LATE = {
    "one": "504x3 504x3 504x1 504x3 504x1 504x3",
    "two": "200x2 200x2 504x1 200x2 504x1 200x2",
    "outcome": TIMES,
}
#: The head was passed on: nothing is repeated. HEAD has its answer whole.
CUT = {"one": "200!x1 200x1 200!x1 200!x1 200!x1 200!x1", "outcome": RESETS}
BROKEN = {"one": "502x1", "outcome": FAILED}
GARBLED = {**CUT, "outcome": FAILED}

ROWS = {
    # -- no connection
    "refused": Row((), "502x0", "200x1", outcome=FAILED, mode="refuse", ended="POST CHUNKED"),
    "connect is not answered": Row((), "504x0", "200x1", outcome=TIMES, mode="silent",
        ended="CHUNKED"),
    # -- ends too early
    "reset before the head": Row([RESET], **REPEATED),
    "end before the head": Row([END], **REPEATED),
    "reset in the head": Row([LENGTH[:24], RESET], **REPEATED),
    "end in the head": Row([LENGTH[:24], END], **REPEATED),
    "reset between head and body": Row([LENGTH, RESET], **CUT),
    "reset in the body": Row([LENGTH, b"hello", RESET], **CUT),
    "end short of the length": Row([LENGTH + b"hello", END], **CUT),
    "end short of the length by one": Row([LENGTH + b"12345678", END], **CUT),
    "end between chunks": Row([CHUNKS, b"5\r\nhello\r\n", END], **CUT),
    "end in a chunk": Row([CHUNKS, b"5\r\nhel", END], **CUT),
    "end in the last chunk": Row([CHUNKS, b"5\r\nhello\r\n0\r\n", END], **CUT),
    "end in the trailers": Row([CHUNKS, b"5\r\nhello\r\n0\r\nA: b\r\n", END], **CUT),
    "reset of a body that ends by closing": Row([OK + b"\r\n", b"hello", RESET], **CUT),
    # -- takes too long
    "no answer": Row([STALL], **LATE),
    "stall in the head": Row([LENGTH[:24], STALL], **LATE),
    "slow head": Row([OK, PAUSE, LENGTH[17:24], PAUSE, LENGTH[24:] + b"123456789"], **LATE),
    "head just in time": Row([OK, PAUSE, b"Content-Length: 5\r\n\r\n", b"hello"], "200x1",
        kept=BODIES, body=b"hello"),
    "slow body": Row([LENGTH, PAUSE, b"123", PAUSE, b"456", PAUSE, b"789"], "200x1",
        kept=BODIES, body=b"123456789"),
    "stall after the head": Row([LENGTH, STALL], **{**CUT, "outcome": TIMES}, kept="HEAD"),
    "stall in the body": Row([LENGTH + b"hello", STALL], **{**CUT, "outcome": TIMES}),
    "chunks without end": Row([CHUNKS + b"5\r\nhello\r\n", STALL], **{**CUT, "outcome": TIMES}),
    # -- cannot be understood: not repeated, since it is no accident
    "garbage": Row([bytes(range(256))], **BROKEN),
    "another protocol": Row([b"SSH-2.0-OpenSSH_9.2\r\n"], **BROKEN),
    "HTTP/0.9": Row([b"<html>hello</html>", END], **BROKEN),
    "HTTP/2": Row([b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64", STALL], **BROKEN),
    "HTTP/2 in text": Row([b"HTTP/2 200 \r\n\r\n"], **BROKEN),
    "head larger than heads.response": Row([OK + b"A: %b\r\n" % (b"a" * 70_000)], **BROKEN),
    "501 fields": Row([OK + b"A: b\r\n" * 500 + b"Content-Length: 0\r\n\r\n"], **BROKEN),
    "fields without end": Row([OK + b"A: b\r\n" * 20_000], **BROKEN),
    "length beside chunks": Row([OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n"], **BROKEN),
    "two lengths": Row([OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"], **BROKEN),
    "a length twice": Row([OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"], **BROKEN),
    "a length with a sign": Row([OK + b"Content-Length: +5\r\n\r\nhello"], **BROKEN),
    "bare LF": Row([b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"], **BROKEN),
    "bare LF after a field": Row([OK + b"A: b\nContent-Length: 5\r\n\r\nhello"], **BROKEN),
    "folded field": Row([OK + b"A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello"], **BROKEN),
    "broken chunk": Row([CHUNKS, b"5\r\nhello\r\n", b"5\r\nhello!\r\n"], **GARBLED),
    "chunk without its end": Row([CHUNKS, b"5\r\nhelloXX0\r\n\r\n"], **GARBLED),
    "no number for a chunk's size": Row([CHUNKS, b"xyz\r\n"], **GARBLED),
    "broken chunk beside the head": Row([CHUNKS + b"xyz\r\n"],
        "502x1 200x1 502x1 502x1 502x1 502x1", apart=CUT["one"], outcome=FAILED),
    # -- interim answers
    "100, then no answer": Row([b"HTTP/1.1 100 Continue\r\n\r\n", STALL], **LATE),
    "100, then the answer": Row([b"HTTP/1.1 100 Continue\r\n\r\n", ANSWER], "200x1", kept=ALL),
    "103, then no answer": Row([b"HTTP/1.1 103 Early Hints\r\n\r\n", STALL], "504x1",
        outcome=TIMES),
    "103, then a reset": Row([b"HTTP/1.1 103 Early Hints\r\n\r\n", RESET], "502x1",
        outcome=RESETS),
    "sixteen 1xx": Row([b"HTTP/1.1 103 Early Hints\r\n\r\n" * 16, ANSWER], "200x1", kept=ALL),
    "seventeen 1xx": Row([b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17, ANSWER], **BROKEN),
    "seventeen 100": Row([b"HTTP/1.1 100 Continue\r\n\r\n" * 17, ANSWER], **BROKEN),
    "101 that nobody asked for": Row([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], **BROKEN),
    # -- more than was asked for
    "another answer after the answer": Row([ANSWER, EVIL], "200x1"),
    "an answer and another at once": Row([LENGTH + b"123456789" + EVIL], "200x1"),
    "an empty line after the answer": Row([ANSWER, b"\r\n"], "200x1"),
    "204 with a body": Row([b"HTTP/1.1 204 No Content\r\n\r\nhello"], "204x1", body=b""),
    "204 with a length and a body": Row(
        [b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"], "204x1", body=b""),
    "304 with a length": Row([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"], "304x1",
        kept=ALL, body=b""),
    "304 with a body": Row([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"],
        "304x1", body=b""),
    "HEAD with a body": Row([OK + b"Content-Length: 5\r\n\r\nhello"], "200x1", kept=BODIES),
    "HEAD with chunks": Row([CHUNKS + b"5\r\nhello\r\n0\r\n\r\n"], "200x1", kept=BODIES),
    # -- nothing is wrong with these
    "gzip": Row([OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZIPPED) +
        ZIPPED], "200x1", kept=BODIES, body=ZIPPED),
    "500 fields": Row([OK + b"A: b\r\n" * 499 + b"Content-Length: 5\r\n\r\nhello"], "200x1",
        kept=BODIES, body=b"hello"),
    "closes after each answer": Row([ANSWER, END], "200x1"),
    "Connection: close": Row([CLOSED], "200x1"),
    "a body that ends by closing": Row([OK + b"\r\nhello", END], "200x1", body=b"hello"),
    "HTTP/1.0": Row([b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"], "200x1"),
    # -- before the request has come whole: the rest of it is not wanted
    "answer before the request ends": Row([ANSWER], "200x1", early=True, kept="GET HEAD OLD PUT",
        ended="POST CHUNKED"),
    "reset before the request ends": Row([RESET], **REPEATED, early=True, ended="POST CHUNKED"),
    # -- pooled connections
    "pooled, and well": Row([ANSWER], "200x1", kept=ALL, warm=5),
    "pooled, ends while idle": Row([], "200x1", warm=0, idle="end"),
    "pooled, resets while idle": Row([], "200x1", warm=0, idle="reset"),
    "pooled, speaks while idle": Row([], "200x1", warm=0, idle=EVIL),
    # as above, but the gateway has not come to read it when it needs the connection
    "pooled, has ended": Row([], "200x1", warm=0, idle="end", unseen=True),
    "pooled, has reset": Row([], "200x1", warm=0, idle="reset", unseen=True),
    "pooled, has spoken": Row([], "200x1", warm=0, idle=EVIL, unseen=True),
    "pooled, resets when used": Row([RESET], "200x2 200x2 502x1 200x2 502x1 200x2",
        outcome=RESETS, warm=0),
    "pooled, ends when used": Row([END], "200x2 200x2 502x1 200x2 502x1 200x2",
        outcome=RESETS, warm=0),
    # what may not be repeated is not risked on a connection that has been idle for long
    "pooled for 5 s, resets when used": Row([RESET], "200x2 200x2 200x1 200x2 200x1 200x2",
        warm=5),
}  # fmt: skip


class Scene:
    """A gateway, its scripted services, and the client that asks."""

    def __init__(self, row: Row, kind: str, targets: int, apart: bool) -> None:
        self.row = row
        self.kind = KINDS[kind]
        self.gateway = MemoryGateway(CONFIGURATION % ", ".join(TARGETS[:targets]), Way.WHOLE)
        self.services = [self.gateway.service("users", number) for number in range(targets)]
        self.services[0].mode = row.mode
        scripts: tuple[Script, ...] = (row.script, [ANSWER])
        self.peers = [
            Peer(self.gateway, service, script, row.early, apart)
            for service, script in zip(self.services, scripts, strict=False)
        ]
        if row.warm >= 0:
            self._warm()
        self.client = self.gateway.client()

    def _warm(self) -> None:
        """A pooled connection to each target, of which the first one's has the fault."""
        client = self.gateway.client()
        for _ in self.services:
            self.ask(client, KINDS["GET"], "warm")
        client.end()
        (wire,) = self.services[0].connections
        self.peers[0].only = [wire]
        self.gateway.wait(self.row.warm)
        idle = self.row.idle
        if self.row.unseen:
            wire.stream.pause_reading()
        if isinstance(idle, str):
            getattr(wire, idle)()
        elif idle:
            wire.send(idle)

    def ask(self, client: Wire, kind: Kind, name: str) -> None:
        """Send a request, and let its services do all that they will about it."""
        before = len(self.gateway.finished)
        client.send(kind.head(f"/users/{name}") + kind.body[0])
        self._play()
        if kind.body[1] and client.ending is Ending.OPEN:
            client.send(kind.body[1])
        self.finish(before + 1)

    def finish(self, count: int) -> None:
        """Play until so many exchanges have ended, and all scripts."""
        for _ in range(60):  # 15 s
            self._play()
            if len(self.gateway.finished) >= count and not any(p.busy for p in self.peers):
                return
            self.gateway.wait(0.25)
        raise AssertionError("the request does not end")

    def _play(self) -> None:
        while sum(peer.play() for peer in self.peers):
            pass

    def asked(self, name: str) -> list[Asked]:
        return [each for peer in self.peers for each in peer.asked if each.path.endswith(name)]

    def check_answer(self, status: int, cut: bool, times: int) -> None:
        """The client has the answer to its own question, or can tell that it is not whole."""
        client, row, method = self.client, self.row, self.kind.method
        if cut:
            head, _, rest = client.received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert not rest.endswith(b"0\r\n\r\n")
            assert client.ending is Ending.ABORTED
            return
        *interim, answer = client.answers(method)
        assert answer.status == status
        assert {each.status for each in interim} <= {103}
        if method == "HEAD":
            assert answer.body == b""
        elif status >= 500:
            assert answer.json["status"] == status
        elif times == 1 and self.peers[0].faults and ANSWER not in row.script:
            assert row.body is None or answer.body == row.body
        else:
            assert answer.body == f"{method} /users/fault".encode()
        assert b"evil" not in client.received

    def check_pools(self) -> None:
        """What is open is counted, idle, and waits for nothing; nothing else is left."""
        gateway = self.gateway.gateway
        waiting = set(gateway.deadlines.waiting) - {
            gateway.fleet,
            *gateway.listeners[0].connections,
        }
        known = set()
        for target, service in zip(gateway.fleet.targets, self.services, strict=True):
            wires = {wire for wire in service.connections if alive(wire)}
            assert {each.stream.wire for each in target.clients} == wires  # type: ignore[attr-defined]
            assert set(target.pool.idle) == target.clients
            assert target.pool.open == len(wires)
            assert not target.pool.waiting
            known |= target.clients
            for client in target.clients:
                assert (client.state, client.deadline) == (State.IDLE, NEVER)
                assert client.stream.reading and not client.buffer
        assert waiting == known


def ways(row: Row) -> list[bool]:
    """Whether bytes come one by one too: where there are any, and not too many."""
    size = sum(len(step) for step in row.script if isinstance(step, bytes))
    return [False, True] if 0 < size < 10_000 or ANSWER in row.script else [False]


CELLS = [
    pytest.param(name, kind, targets, apart, id=f"{name}-{kind}-{targets}{'-apart' * apart}")
    for name, row in ROWS.items()
    for kind in KINDS
    for targets in (1, 2)
    for apart in ways(row)
]


@pytest.mark.parametrize(("name", "kind", "targets", "apart"), CELLS)
def test_fault(name: str, kind: str, targets: int, apart: bool) -> None:
    row = ROWS[name]
    scene = Scene(row, kind, targets, apart)
    client = scene.client
    before = len(scene.gateway.finished)
    scene.ask(client, scene.kind, "fault")
    status, cut, times = row.expected(kind, targets, apart)

    # What the client has, and whether its connection goes on.
    scene.check_answer(status, cut, times)
    ends = kind == "OLD" or (kind in row.ended.split() and (targets == 1 or row.early))
    if not cut:
        assert client.ending is (Ending.ENDED if ends else Ending.OPEN)

    # What the services saw.
    fault = scene.asked("/fault")
    assert len(fault) == times
    assert times < 2 or scene.kind.method != "POST"
    if not row.early:
        assert {bytes(each.body) for each in fault} <= {b"0123456789" if scene.kind.fields else b""}

    # One line tells how it ended.
    assert len(scene.gateway.log) == len(scene.gateway.finished) == before + 1
    line = scene.gateway.log[-1]
    outcome = row.outcome if cut or status >= 500 else Outcome.OK
    assert outcome is not None
    assert (line["status"], line["outcome"]) == (status, outcome.value)
    assert ("reason" in line) == (outcome is not Outcome.OK)

    # The connection is kept only where its state is known, and nothing is left over.
    scene.check_pools()
    used = {each.wire for each in scene.peers[0].faults}
    kept = kind in row.kept.split()
    assert {wire for wire in used if alive(wire)} == (used if kept else set())

    # The next request has its own answer, on the client's connection if that goes on.
    scene.services[0].mode = "accept"
    if client.ending is not Ending.OPEN:
        client = scene.gateway.client()
    had = len(client.received)
    scene.ask(client, KINDS["GET"], "next")
    assert client.received[had:].endswith(b"\r\n\r\nGET /users/next")
    (following,) = scene.asked("/next")
    assert kept or following.wire not in used
    scene.check_pools()
    check(scene.gateway, rest=8.0)


@pytest.mark.parametrize(("kind", "status"), [
    ("GET", 200), ("HEAD", 200), ("POST", 200), ("PUT", 200), ("CHUNKED", 502), ("OLD", 200),
])  # fmt: skip
@pytest.mark.parametrize("apart", [False, True])
def test_an_answer_before_its_request_has_left(kind: str, status: int, apart: bool) -> None:
    """Nothing of the request can have been sent, so a POST may be too, on another connection; but
    a body that was streamed is gone."""
    scene = Scene(Row([], "", warm=0, idle="stall"), kind, 1, False)
    client, asking = scene.client, scene.kind
    client.send(asking.head("/users/fault") + b"".join(asking.body))
    (old,) = scene.services[0].connections
    old.send(EVIL, apart=apart)
    assert old.ending is Ending.ABORTED
    scene.finish(2)
    old.flow()
    assert b"/users/fault" not in old.received
    (answer,) = client.answers(asking.method)
    assert answer.status == status
    assert b"evil" not in client.received
    assert len(scene.asked("/fault")) == (status == 200)
    if status == 502:
        assert scene.gateway.log[-1]["reason"] == "an answer came before its request was sent"
    scene.check_pools()
    check(scene.gateway, rest=8.0)
