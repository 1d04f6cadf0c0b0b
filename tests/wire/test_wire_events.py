"""Answers that take their time: server-sent events, long polling."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from wire_support import HOST, get, standard

from edgeproxy.testing import Ending, MemoryGateway, MemoryWire, Wire
from edgeproxy.transport.stream import HIGH_WATER

Make = Callable[..., MemoryGateway]

ROUTES = """
    /events: { to: users, auth: none }
    /short: { to: users, auth: none, timeouts: { tunnel: 10s, between_bytes: 1s } }
    /poll: { to: users, auth: none, timeouts: { first_byte: 200s } }
"""
TYPE = b"Content-Type: text/event-stream\r\n"


def begun(
    gateway: MemoryGateway, path: str = "/events", fields: bytes = TYPE, *, chunked: bool = True
) -> tuple[Wire, MemoryWire]:
    client = gateway.client()
    client.send(get(path, b"Accept: text/event-stream\r\nLast-Event-ID: 7\r\n"))
    service = gateway.service("users").accept()
    assert b"\r\nLast-Event-ID: 7\r\n" in service.received
    if chunked:
        fields += b"Transfer-Encoding: chunked\r\n"
    service.send(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")
    assert client.take().startswith(b"HTTP/1.1 200 OK\r\n")
    return client, service


def event(number: int) -> bytes:
    return b"id: %d\ndata: something\n\n" % number


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("chunked", [True, False])
def test_each_event_goes_out_in_the_turn_it_came(make: Make, chunked: bool) -> None:
    gateway = make(standard(routes=ROUTES))
    client, service = begun(gateway, chunked=chunked)
    seen = b""
    for number in range(5):
        data = event(number)
        service.send(chunk(data) if chunked else data)
        seen = client.take()
        # Byte by byte each byte is a chunk of its own.
        assert b"".join(seen.split(b"\r\n")[1::2]) == data
    service.send(b"0\r\n\r\n") if chunked else service.end()
    (found,) = client.answers()
    assert found.body == b"".join(map(event, range(5)))


@pytest.mark.parametrize(
    "fields",
    [
        TYPE,
        b"content-type:text/event-stream; charset=utf-8\r\n",
        b"Content-Type: \tTEXT/Event-Stream ;x\r\n",
    ],
)
def test_events_may_be_silent_for_long(make: Make, fields: bytes) -> None:
    gateway = make(standard(routes=ROUTES))
    client, service = begun(gateway, fields=fields)
    for number in range(2):
        gateway.wait(299)
        assert client.ending is Ending.OPEN
        service.send(chunk(event(number)))
        assert event(number) in client.take() or gateway.way.name == "BYTES"
    gateway.wait(301)
    assert client.ending is Ending.ABORTED
    assert [line["outcome"] for line in gateway.log] == ["upstream_timeout"]


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Type: text/event-streams\r\n",
        b"Content-Type: text/plain\r\n",
        b"X-Content-Type: text/event-stream\r\n",
        b"",
    ],
)
def test_other_answers_may_not(make: Make, fields: bytes) -> None:
    gateway = make(standard(routes=ROUTES))
    client, _ = begun(gateway, fields=fields)
    gateway.wait(61)
    assert client.ending is Ending.ABORTED


def test_the_route_says_how_long(make: Make) -> None:
    gateway = make(standard(routes=ROUTES))
    client, service = begun(gateway, "/short")
    for number in range(3):
        gateway.wait(9)
        service.send(chunk(event(number)))
    assert client.ending is Ending.OPEN
    gateway.wait(11)
    assert client.ending is Ending.ABORTED


def test_the_time_is_the_same_after_a_pause(quick: Make) -> None:
    """A client that reads slowly stops the clock; then it is the stream's again."""
    gateway = quick(standard(routes=ROUTES))
    client, service = begun(gateway, "/short")
    client.stall()
    data = bytes(2 * HIGH_WATER)
    service.send(chunk(data))
    gateway.wait(30)
    client.flow()
    assert data in client.received.replace(b"\r\n", b"") or len(client.received) > len(data)
    gateway.wait(9)
    assert client.ending is Ending.OPEN
    gateway.wait(2)
    assert client.ending is Ending.ABORTED


def test_a_client_that_leaves_ends_the_stream(make: Make) -> None:
    gateway = make(standard(routes=ROUTES))
    client, service = begun(gateway)
    client.reset()
    assert service.ending is Ending.ABORTED
    assert [line["outcome"] for line in gateway.log] == ["client_gone"]


def test_http_1_0_gets_events_too(make: Make) -> None:
    gateway = make(standard(routes=ROUTES))
    client = gateway.client()
    client.send(b"GET /events HTTP/1.0\r\n" + HOST + b"\r\n")
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\n" + TYPE + b"Transfer-Encoding: chunked\r\n\r\n")
    client.take()
    service.send(chunk(event(1)))
    assert client.take() == event(1)


# -- long polling --------------------------------------------------------------------------------


def test_a_long_poll_waits_as_long_as_its_route_says(make: Make) -> None:
    gateway = make(standard(routes=ROUTES))
    client = gateway.client()
    client.send(get("/poll"))
    service = gateway.service("users").accept()
    gateway.wait(199)
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnews")
    client.send(get("/poll"))
    gateway.wait(201)
    assert [each.status for each in client.answers()][:1] == [200]
    # What may be repeated was, each time for as long; nothing came.
    gateway.wait(401)
    assert [each.status for each in client.answers()] == [200, 504]
