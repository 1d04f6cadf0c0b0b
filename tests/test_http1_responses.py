"""Heads of answers against h11 and llhttp; splits; garbage; what a Connection field may take."""

from __future__ import annotations

import re
from typing import Any

import h11
import httptools
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from edgeproxy.http1.fields import response_fields
from edgeproxy.http1.framing import Chunked, Decoder, Length, UntilClose
from edgeproxy.http1.grammar import parse_response

TABLE = response_fields()
#: Beginnings of lines that frame a message.
FRAMING = (b"content-length:", b"transfer-encoding:")

_BITS = st.sampled_from([
    b"HTTP/1.1", b"HTTP/1.0", b" ", b"200", b"404", b"204", b"OK", b"\r\n", b"\n", b"\r",
    b"A: b\r\n",
    b"Content-Length: 3\r\n", b"content-length:3\r\n", b"Content-Length: 2\r\n", b"A : b\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b" folded\r\n", b"\0",
    b"\x80",
    b"Connection: close\r\n", b"\r\n\r\n", b"abc", b"3\r\nabc\r\n0\r\n\r\n",
])  # fmt: skip
_FIELDS = st.lists(st.sampled_from([
    b"A: b\r\n", b"a:\t b \r\n", b"Content-Type: text/html\r\n", b"Server: x\r\n", b"X: \xe4\r\n",
    b"Connection: keep-alive\r\n", b"Location: /a\r\n", b"Set-Cookie: a\r\n", b"Set-Cookie: b\r\n",
]), max_size=4)  # fmt: skip
_FRAMES = st.sampled_from([
    (b"Content-Length: 3\r\n", b"abc"),
    (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    (b"Content-Length: 0\r\n", b""), (b"transfer-encoding:Chunked\r\n", b"0\r\n\r\n"),
])  # fmt: skip


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    if draw(st.integers(0, 3)) == 0:
        return b"".join(draw(st.lists(_BITS, max_size=10)))
    fields = draw(_FIELDS)
    frame, body = draw(_FRAMES)
    fields.insert(draw(st.integers(0, len(fields))), frame)
    reason = draw(st.sampled_from([b" OK", b" ", b" Not Found", b" \xc3\xa4"]))
    data = b"HTTP/1.1 200" + reason + b"\r\n" + b"".join(fields) + b"\r\n" + body
    at = draw(st.integers(0, len(data)))
    return data if draw(st.booleans()) else data[:at] + draw(_BITS) + data[at:]


def ours(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Status, body and rest; ``None`` when refused or not whole."""
    try:
        found = parse_response(data, TABLE)
        if found is None:
            return None
        head, taken = found
        decoder: Decoder = UntilClose()
        if head.chunked:
            decoder = Chunked()
        elif head.length is not None:
            decoder = Length(head.length)
        body, rest = decoder.feed(data[taken:])
    except ValueError:
        return None
    if any(line.lower().startswith(FRAMING) for line in decoder.trailers):
        return None  # h11 refuses framing fields there; we let no such trailer pass
    return None if rest is None else (head.status, body, rest)


def by_h11(data: bytes) -> tuple[int, bytes, bytes] | None:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    status, body = 0, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return status, body, connection.trailing_data[0]
            else:
                return None
    except h11.RemoteProtocolError:
        return None


class _Collect:
    parser: Any
    body = b""
    status = 0

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.status = self.parser.get_status_code()


def by_llhttp(data: bytes) -> tuple[int, bytes] | None:
    collect = _Collect()
    collect.parser = httptools.HttpResponseParser(collect)
    try:
        collect.parser.feed_data(data)
    except httptools.HttpParserError:
        return None
    return (collect.status, collect.body) if collect.status else None


@settings(max_examples=800, deadline=None)
@given(answers())
def test_whatever_we_accept_others_read_the_same(data: bytes) -> None:
    mine = ours(data)
    event("accepted" if mine else "refused")
    if mine is None or mine[0] < 200 or mine[0] in (204, 304):
        return
    assert by_h11(data) == mine
    # It knows no white space behind a chunk's size, which some services write; we write our own.
    if not re.search(rb"\n[0-9A-Fa-f]+[ \t]+\r\n", data):
        assert by_llhttp(data[: len(data) - len(mine[2])]) == mine[:2]


def outcome(data: bytes, size: int = 65536, seen: int = 0) -> object:
    try:
        found = parse_response(data, TABLE, size, seen)
    except ValueError:
        return "refused"
    if found is None:
        return None
    head, taken = found
    return (head.status, head.reason, list(head.lines), list(head.special), head.length,
            head.chunked, head.close, taken)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(answers())
def test_every_split_gives_the_same(data: bytes) -> None:
    whole = outcome(data)
    for size in range(len(data) + 1):
        found = outcome(data[:size], seen=max(0, size - 1))
        if found is not None:
            assert found == whole or (found == "refused" and whole is None)
            return
    assert whole is None


@given(st.binary(max_size=300), st.integers(0, 300))
def test_garbage_gives_only_the_documented_error(data: bytes, size: int) -> None:
    outcome(data, size)


def test_size() -> None:
    head = b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100 + b"\r\n\r\n"
    assert outcome(head, len(head)) not in (None, "refused")
    assert outcome(head, 100) == "refused"
    assert outcome(head[:110], 100) == "refused"
    assert outcome(head[:90], 100) is None


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (b"X-A", {b"x-a"}),
        (b"x-a, X-B", {b"x-a", b"x-b"}),
        (b"close, X-A,,", {b"x-a"}),
        (b"Content-Length", set()),
        (b"keep-alive", set()),
    ],
)
def test_what_connection_names_goes(options: bytes, gone: set[bytes]) -> None:
    fields = b"X-A: 1\r\nConnection: %b\r\nContent-Length: 0\r\nX-B: 2\r\nx-a: 3\r\n" % options
    found = parse_response(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n", TABLE)
    assert found is not None
    left = {line.partition(b":")[0].lower() for line in found[0].lines}
    assert left == {b"x-a", b"x-b", b"content-length"} - gone


@pytest.mark.parametrize(
    ("minor", "fields", "close"),
    [
        (b"1", b"", False),
        (b"1", b"Connection: close\r\n", True),
        (b"1", b"Connection: CLOSE, a\r\n", True),
        (b"1", b"Connection: close\r\nConnection: keep-alive\r\n", True),
        (b"0", b"", True),
        (b"0", b"Connection: Keep-Alive\r\n", True),  # allowed, but who speaks 1.0 is not trusted
    ],
)
def test_whether_a_connection_lives_on(minor: bytes, fields: bytes, close: bool) -> None:
    data = b"HTTP/1." + minor + b" 200 OK\r\nContent-Length: 0\r\n" + fields + b"\r\n"
    found = parse_response(data, TABLE)
    assert found is not None
    assert found[0].close is close
