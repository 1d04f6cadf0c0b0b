"""Request heads and chunked bodies against h11, llhttp and twisted.web; splits; garbage."""

from __future__ import annotations

import re

import pytest
from http1_support import (
    LIMITS,
    METHODS,
    TABLE,
    Message,
    by_h11,
    by_llhttp,
    by_twisted,
    folded,
    ours,
    requests,
)
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from edgeproxy.errors import GatewayError
from edgeproxy.http1.framing import Chunked, chunk, last_chunk
from edgeproxy.http1.grammar import HeadLimits, parse_request, split_host

#: Extensions of chunks are dropped, so what stands in them is not looked at; twisted.web does.
ODD_EXTENSION = re.compile(rb";[^\r\n]*[^A-Za-z0-9;= \t\r\n]")
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


def agree(mine: list[Message], theirs: list[Message], who: str) -> None:
    assert len(theirs) >= len(mine), f"{who} sees {len(theirs)} messages, we {len(mine)}"
    for one, other in zip(mine, theirs, strict=False):
        assert (one.method, one.target, one.body) == (other.method, other.target, other.body), who
        assert folded(one.fields) == folded(other.fields), who


@settings(max_examples=800, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=2).map(b"".join))
def test_whatever_we_accept_others_read_the_same(data: bytes) -> None:
    """A request that two parties read differently is what smuggling is made of."""
    mine = ours(data + NEXT)
    event("accepted" if mine else "refused")
    if mine is None:
        return
    agree(mine, by_h11(data + NEXT), "h11")
    # It knows no other methods, no white space in chunk extensions, no tab behind a coding:
    # all of that is not passed on as it came.
    if (
        all(message.method in METHODS for message in mine)
        and b";" not in data
        and not re.search(rb"(?i)transfer-encoding:[^\r]*\t", data)
    ):
        agree(mine, by_llhttp(data + NEXT), "llhttp")
    if not ODD_EXTENSION.search(data):
        agree(mine, by_twisted(data + NEXT), "twisted.web")


@settings(max_examples=300, deadline=None)
@given(requests(strange=False))
def test_lines_keep_their_order_and_spelling(data: bytes) -> None:
    found = parse_request(data, TABLE, LIMITS)
    assert found is not None
    sent = iter(data.partition(b"\r\n\r\n")[0].split(b"\r\n"))
    assert all(line in sent for line in found[0].lines)  # a subsequence: `in` moves on


@settings(max_examples=300, deadline=None)
@given(st.lists(requests(strange=False), min_size=1, max_size=3).map(b"".join))
def test_we_accept_what_is_right(data: bytes) -> None:
    assert ours(data + NEXT) is not None


def outcome(data: bytes, limits: HeadLimits = LIMITS, seen: int = 0) -> object:
    try:
        found = parse_request(data, TABLE, limits, seen)
    except GatewayError as error:
        assert error.close
        return error.status
    if found is None:
        return None
    head, taken = found
    return (
        head.method, head.target, head.minor, head.fields, head.host, head.length, head.chunked,
        head.close, head.connection, head.expect, list(head.lines), list(head.keys),
        list(head.special), taken,
    )  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(requests())
def test_every_split_gives_the_same(data: bytes) -> None:
    """Read byte by byte: nothing, until the whole answer, which is the same; and what was
    looked at before need not be looked at again."""
    whole = outcome(data)
    for size in range(len(data) + 1):
        found = outcome(data[:size], seen=max(0, size - 1))
        if found is None:
            continue
        if isinstance(found, tuple):
            assert found == whole
        else:
            assert found == whole or whole is None, data[:size]
        return
    assert whole is None


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=300), requests()), st.integers(1, 400))
def test_garbage_gives_only_the_documented_error(data: bytes, size: int) -> None:
    outcome(data, HeadLimits(size=size, target=max(1, size // 2), fields=3))


@given(st.binary(max_size=200))
def test_a_refusal_is_final(data: bytes) -> None:
    """What was refused is never accepted because more came."""
    assume(not data.startswith(b"\r"))  # an empty line first is the connection's to judge
    for size in range(len(data)):
        if isinstance(outcome(data[:size]), int):
            assert isinstance(outcome(data), int)
            return


def test_limits() -> None:
    def status(data: bytes, **bounds: int) -> object:
        found = outcome(data, HeadLimits(**{"size": 1000, "target": 100, "fields": 3, **bounds}))
        return 200 if isinstance(found, tuple) else found

    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert status(head, size=len(head)) == 200
    assert status(head, size=len(head) - 1) == 431
    assert status(head.replace(b"/ ", b"/" + b"a" * 99 + b" ")) == 200
    assert status(head.replace(b"/ ", b"/" + b"a" * 100 + b" ")) == 414
    assert status(head.replace(b"/ ", b"/%" + b"a" * 99 + b" ")) == 414
    assert status(b"GET /" + b"a" * 100) == 414
    assert status(b"GET /" + b"a" * 99) is None
    assert status(head[:-2] + b"A: b\r\n" * 2 + b"\r\n") == 200
    assert status(head[:-2] + b"A: b\r\n" * 3 + b"\r\n") == 431
    assert status(b"G" * 1001) == 431


@pytest.mark.parametrize(
    ("value", "name", "port"),
    [
        (b"a", b"a", None),
        (b"A.Example.", b"a.example", None),
        (b"a.example:8443", b"a.example", 8443),
        (b"a-b_c.example", b"a-b_c.example", None),
        (b"127.0.0.1:1", b"127.0.0.1", 1),
        (b"[::1]", b"[::1]", None),
        (b"[2001:DB8::1]:65535", b"[2001:db8::1]", 65535),
    ],
)
def test_hosts(value: bytes, name: bytes, port: int | None) -> None:
    assert split_host(value) == (name, port)


@pytest.mark.parametrize(
    "value",
    [b"", b".", b"..", b".a", b"a..b", b"a:", b"a:0", b"a:65536", b"a:x", b"a:1:2", b"-a", b"a b",
     b"a/b", b"a@b", b"[::1", b"::1", b"[a]", b"[]", b"[::1]a", b"a,b", b"a%41", b"\xc3\xa4",
     b"a\\b",
     b"a" * 64 + b".b"],
)  # fmt: skip
def test_what_is_no_host(value: bytes) -> None:
    with pytest.raises(GatewayError):
        split_host(value)


@given(st.binary(max_size=80))
def test_any_host_is_read_or_refused(value: bytes) -> None:
    try:
        name, port = split_host(value)
    except GatewayError:
        return
    assert name == name.lower()
    assert port is None or 0 < port < 65536
    again = name if port is None else b"%b:%d" % (name, port)
    assert split_host(again) == (name, port)


# -- chunks ------------------------------------------------------------------------------------


def fed(data: bytes, sizes: list[int]) -> tuple[bytes, bytes | None, list[bytes]] | None:
    """What a decoder makes of ``data`` in pieces of these sizes, the last as large as is left."""
    decoder = Chunked()
    payload = b""
    position = 0
    for size in [*sizes, len(data)]:
        piece = data[position : position + size]
        position += len(piece)
        if not piece:
            continue
        try:
            more, rest = decoder.feed(piece)
        except ValueError:
            return None
        payload += more
        if rest is not None:
            return payload, rest + data[position:], list(decoder.trailers)
    return payload, None, []


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=60), max_size=5),
    st.lists(st.sampled_from([b"A: b", b"X-Sum:1", b"C:"]), max_size=2),
    st.binary(max_size=10),
    st.lists(st.integers(1, 40)),
)
def test_what_we_write_we_read(
    pieces: list[bytes], trailers: list[bytes], rest: bytes, sizes: list[int]
) -> None:
    data = b"".join(map(chunk, pieces)) + last_chunk(trailers) + rest
    assert fed(data, sizes) == (b"".join(pieces), rest, trailers)


_CHUNK_BITS = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b"0", b"1", b"3", b"a", b"F", b"abc", b";", b"=", b" ", b"\t", b"x",
     b"0\r\n\r\n", b"3\r\nabc\r\n", b"A: b\r\n", b"\0", b"\x80", b"-", b"+", b"0x",
     b"3\r\nabcde", b"1\r\na\n\r"]
)  # fmt: skip


@settings(max_examples=800, deadline=None)
@given(st.lists(_CHUNK_BITS, max_size=12).map(b"".join), st.lists(st.integers(1, 5), max_size=60))
def test_chunks_in_any_pieces_give_the_same(data: bytes, sizes: list[int]) -> None:
    whole = fed(data, [])
    cut = fed(data, sizes)
    assert (
        cut == whole
        or (whole is not None and whole[1] is None and cut is None)
        or (whole is None and cut is not None and cut[1] is None)
    ), (whole, cut)
    single = fed(data, [1] * len(data))
    if whole is None or whole[1] is not None:
        assert single == whole


@settings(max_examples=800, deadline=None)
@given(st.lists(_CHUNK_BITS, max_size=12).map(b"".join))
def test_chunks_that_we_take_others_read_the_same(body: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    mine = ours(head + body)
    event("accepted" if mine else "refused")
    if mine is None:
        return
    agree(mine, by_h11(head + body), "h11")
    if not ODD_EXTENSION.search(body):
        agree(mine, by_twisted(head + body), "twisted.web")
    if b";" not in body:
        agree(mine, by_llhttp(head + body), "llhttp")


def test_a_decoder_holds_little() -> None:
    """Whatever comes, the decoder keeps a line or the trailers, and no more."""
    decoder = Chunked()
    decoder.feed(b"10000\r\n")
    for _ in range(0x10000 - 1):
        decoder.feed(b"x")
    assert decoder.feed(b"x\r\n0\r\n\r\nrest") == (b"x", b"rest")
    for start in (b"3;" + b"a" * 300, b"0\r\n" + b"A: b\r\n" * 2000):
        with pytest.raises(ValueError, match="chunk|trailers"):
            Chunked().feed(start)
