"""Three other readers of HTTP/1.1, to be compared with ours: h11, llhttp and twisted.web.

Each takes a stream of bytes and gives the messages in it, up to what it refuses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import h11
import httptools
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.web.http import HTTPChannel, Request

from edgeproxy.errors import GatewayError
from edgeproxy.http1.fields import request_fields
from edgeproxy.http1.framing import Chunked, Decoder, Length
from edgeproxy.http1.grammar import HeadLimits, parse_request

TABLE = request_fields()
LIMITS = HeadLimits()

#: Beginnings of lines that frame a message.
FRAMING = (b"content-length:", b"transfer-encoding:")

Fields = list[tuple[bytes, bytes]]


class Message(NamedTuple):
    method: bytes
    target: bytes
    fields: Fields
    body: bytes


def ours(data: bytes) -> list[Message] | None:
    """What we read, up to the message that closes; ``None`` when we refuse, or wait for more."""
    messages = []
    while data:
        try:
            found = parse_request(data, TABLE, LIMITS)
        except GatewayError:
            return None
        if found is None:
            return None
        head, taken = found
        if not head.target.startswith(b"/"):
            return None  # refused by the resource, if it is no URL of ours
        body, data = b"", data[taken:]
        if head.length or head.chunked:
            decoder: Decoder = Chunked() if head.chunked else Length(head.length or 0)
            try:
                body, rest = decoder.feed(data)
            except ValueError:
                return None
            if rest is None:
                return None
            if any(line.lower().startswith(FRAMING) for line in decoder.trailers):
                return None  # h11 refuses framing fields there; we let no such trailer pass
            data = rest
        fields = head.fields
        if not any(name.lower() == b"host" for name, _ in fields):
            fields = [*fields, (b"Host", head.host or b"")]
        messages.append(Message(head.method, head.target, fields, body))
        if head.close:
            break
    return messages


def by_h11(data: bytes) -> list[Message]:
    messages: list[Message] = []
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request: h11.Request | None = None
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return messages
        if isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            fields = [(bytes(n), bytes(v)) for n, v in request.headers.raw_items()]
            messages.append(Message(bytes(request.method), bytes(request.target), fields, body))
            rest = connection.trailing_data[0]
            if not rest:
                return messages
            # Keep-alive or not, what follows is to be read as we would.
            connection = h11.Connection(h11.SERVER)
            connection.receive_data(rest)
        else:
            return messages


class _Collect:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.whole = True

    def on_message_begin(self) -> None:
        self.target, self.body, self.fields = b"", b"", []
        self.whole = False
        self.trailers = False

    def on_url(self, data: bytes) -> None:
        self.target += data

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.trailers:
            self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.trailers = True

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.whole = True
        method = self.parser.get_method()
        self.messages.append(Message(method, self.target, self.fields, self.body))

    parser: Any
    fields: Fields


def by_llhttp(data: bytes) -> list[Message]:
    collect = _Collect()
    collect.parser = httptools.HttpRequestParser(collect)
    try:
        collect.parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        pass  # perhaps only because something follows a message that closes
    return collect.messages


def by_twisted(data: bytes) -> list[Message]:
    messages: list[Message] = []

    class Reading(Request):
        def process(self) -> None:
            assert self.content is not None
            self.content.seek(0)
            fields = [
                (name, value)
                for name, values in self.requestHeaders.getAllRawHeaders()
                for value in values
            ]
            messages.append(Message(self.method, self.uri, fields, self.content.read()))
            self.setResponseCode(204)
            self.finish()  # type: ignore[no-untyped-call]

    channel = HTTPChannel()
    channel.requestFactory = Reading
    channel.timeOut = None
    transport = StringTransport()
    channel.makeConnection(transport)
    try:
        channel.dataReceived(data)
        return messages
    finally:
        channel.connectionLost(None)


def folded(fields: Fields) -> list[tuple[bytes, bytes]]:
    """Fields as a set of names, each with its values in order: some keep no more. ``Connection``
    is not kept by ours."""
    pairs = [
        (name.lower(), value.lower() if name.lower() == b"transfer-encoding" else value)
        for name, value in fields
        if name.lower() != b"connection"
    ]
    return sorted(pairs, key=lambda pair: pair[0])


# -- requests that are nearly right --------------------------------------------------------------

_TOKEN = st.text("!#$%&'*+-.^_`|~azAZ09", min_size=1, max_size=6).map(str.encode)
_SPACE = st.sampled_from([b"", b" ", b"\t", b"  ", b" \t "])
_PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)
_VALUE = st.one_of(
    _PRINTABLE.map(str.encode),
    st.lists(_PRINTABLE.map(str.encode), max_size=3).map(b" ".join),
    st.binary(max_size=4).filter(lambda raw: not set(raw) & {*range(9), *range(10, 32), 127}),
).map(lambda value: value.strip(b" \t"))
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")

_NAMES = st.one_of(
    _TOKEN,
    st.sampled_from(
        [b"Accept", b"Cookie", b"X-A", b"content-type", b"Connection", b"TE", b"Expect",
         b"X-Forwarded-For", b"Authorization", b"Trailer", b"Keep-Alive", b"Via"]
    ),
).filter(lambda name: name.lower() not in (b"host", b"content-length", b"transfer-encoding",
                                           b"upgrade", b"expect"))  # fmt: skip


@st.composite
def _line(draw: st.DrawFn) -> bytes:
    value = draw(_SPACE) + draw(_VALUE) + draw(_SPACE)
    return draw(_NAMES) + b":" + value + b"\r\n"


@st.composite
def _chunks(draw: st.DrawFn) -> bytes:
    body = b""
    for piece in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4)):
        size = b"%x" % len(piece)
        size = draw(st.sampled_from([size, size.upper(), b"0" + size, b"00" + size]))
        body += size + draw(st.sampled_from([b"", b"", b";a=b", b";a", b";a=b;c=d"])) + b"\r\n"
        body += piece + b"\r\n"
    body += draw(st.sampled_from([b"0", b"0", b"000"])) + b"\r\n"
    return body + b"".join(draw(st.lists(_line(), max_size=2))) + b"\r\n"


_LENGTHS = [b"5", b" 5 ", b"5\t", b"005", b"0", b"5, 5", b"5,5", b"+5", b"-5", b"5 5", b"0x5", b"",
            b"5\x0b", b"1e1", b"5;", b"\xd9\xa5", b"5_0", b"99999999999999999999"]  # fmt: skip
_CODINGS = [b"chunked", b" Chunked ", b"CHUNKED", b"chunked\t", b"gzip, chunked", b"chunked, gzip",
            b"identity", b"chunked, chunked", b"\x0bchunked", b"xchunked", b"chunked;q=1", b"",
            b'"chunked"', b"chunked,", b",chunked"]  # fmt: skip


@st.composite
def requests(draw: st.DrawFn, *, strange: bool = True) -> bytes:
    """One request; mostly well-formed where ``strange``, always else."""
    method = draw(st.sampled_from(METHODS))
    target = b"/" + draw(_PRINTABLE).encode()
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    fields = draw(st.lists(_line(), max_size=4))
    host = b"Host:" + draw(_SPACE) + draw(st.sampled_from([b"a", b"a.example:80", b"[::1]"]))
    fields.insert(draw(st.integers(0, len(fields))), host + draw(_SPACE) + b"\r\n")
    body = b""
    framing = draw(st.sampled_from(["none", "length", "chunked", *(["odd"] * strange)]))
    if framing == "length":
        body = draw(st.binary(max_size=30))
        fields.append(b"Content-Length: %d\r\n" % len(body))
    elif framing == "chunked" and (version == b"1.1" or strange):
        body = draw(_chunks())
        fields.append(draw(st.sampled_from([b"Transfer-Encoding", b"transfer-encoding"])) +
                      b": chunked\r\n")  # fmt: skip
    elif framing == "odd":
        for _ in range(draw(st.integers(1, 2))):
            if draw(st.booleans()):
                fields.append(b"Content-Length:" + draw(st.sampled_from(_LENGTHS)) + b"\r\n")
            else:
                fields.append(b"Transfer-Encoding:" + draw(st.sampled_from(_CODINGS)) + b"\r\n")
        body = draw(st.sampled_from([b"", b"abcde", b"5\r\nabcde\r\n0\r\n\r\n"]))
    data = (
        method + b" " + target + b" HTTP/" + version + b"\r\n" + b"".join(fields) + b"\r\n" + body
    )
    return draw(_mutated(data)) if strange else data


_NASTY = [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"\x0b", b"\x0c", b"\x7f",
          b"\x80", b"\xa0", b"\x85", b"\xff", b"_", b"-", b"0", b"9", b"f", b"\r\n ", b"\r\n\r\n",
          b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1",
          b"\\", b'"']  # fmt: skip


@st.composite
def _mutated(draw: st.DrawFn, data: bytes) -> bytes:
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["insert", "delete", "replace", "swap"]))
        nasty = draw(st.sampled_from(_NASTY))
        if how == "insert":
            data = data[:at] + nasty + data[at:]
        elif how == "delete":
            data = data[:at] + data[at + 1 :]
        elif how == "replace":
            data = data[:at] + nasty + data[at + 1 :]
        else:
            data = data[:at] + data[at : at + 1].swapcase() + data[at + 1 :]
    return data
