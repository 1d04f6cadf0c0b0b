"""Whole conversations of anything: whatever comes, from clients or from services, each side gets
HTTP that h11 reads too, nothing is left over, and we never fail ourselves."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from wire_support import OK, check, get, standard

from edgeproxy.testing import Ending, MemoryGateway, Way

sys.path.insert(0, str(Path(__file__).parent.parent))
from http1_support import requests  # noqa: E402  # shared with the tests of the grammar

PIECES = st.lists(st.integers(1, 60), max_size=6)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


def replied(gateway: MemoryGateway) -> None:
    """Services answer whatever they were told anything."""
    for _ in range(20):
        wires = [w for s in gateway.services.values() for w in s.connections if w.take()]
        if not wires:
            return
        for wire in wires:
            if not wire.left:
                wire.send(OK)


@settings(max_examples=150, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=3), PIECES, st.booleans())
def test_any_client(sent: list[bytes], sizes: list[int], plain: bool) -> None:
    text = "upstreams: {u: http://10.0.0.1:9001}\nroutes: {'*': {/: {to: u, auth: none}}}"
    gateway = MemoryGateway(text, Way.WHOLE if plain else Way.TLS)
    client = gateway.client()
    for piece in cut(b"".join(sent), sizes):
        client.send(piece)
        replied(gateway)
    assert 500 not in {exchange.status for exchange in gateway.finished}
    check(gateway)


_ANSWER_BITS = st.sampled_from([
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No\r\n", b"HTTP/1.1 304 No\r\n",
    b"HTTP/1.1 103 Hint\r\nLink: a\r\n\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Connection: content-length, a\r\n",
    b"A: b\r\n", b"\r\n", b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nT: v\r\n\r\n", b"x", b"\n",
    b"Content-Length: 0\r\n", b"Location: http://10.0.0.1:9001/\r\n", b"Server: a\r\n",
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_ANSWER_BITS, max_size=8).map(b"".join),
    PIECES,
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from([b"1.1", b"1.0"]),
    st.sampled_from(["end", "reset", "stay"]),
)
def test_any_service(data: bytes, sizes: list[int], method: str, version: bytes, then: str) -> None:
    gateway = MemoryGateway(standard())
    client = gateway.client()
    client.send(get(method=method).replace(b"HTTP/1.1", b"HTTP/" + version, 1))
    service = gateway.service("users").accept()
    for piece in cut(data, sizes):
        service.send(piece)
    if then == "end":
        service.end()
    elif then == "reset":
        service.reset()
    if then != "stay":
        for wire in gateway.service("users").connections:
            wire.reset()
        assert client.received or client.ending is Ending.ABORTED
    assert 500 not in {exchange.status for exchange in gateway.finished}
    check(gateway)
