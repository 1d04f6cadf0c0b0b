"""Every time-out and rate, on a clock that only tests move; and draining."""

# What has ended meanwhile is not seen by the type checker.
# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest
from wire_support import OK, answer, connections, get, post, standard

from edgeproxy.exchange import Outcome
from edgeproxy.testing import Ending, MemoryGateway, Wire

Make = Callable[..., MemoryGateway]


def statuses(client: Wire, *methods: str) -> list[int]:
    return [each.status for each in client.answers(*methods)]


# -- heads and idleness --------------------------------------------------------------------------


def test_a_head_that_does_not_come(make: Make) -> None:
    """The first has ten seconds from the connection's beginning; silence is no request."""
    gateway = make()
    client = gateway.client()
    gateway.wait(9)
    assert client.ending is Ending.OPEN
    gateway.wait(1.5)
    assert client.ending is Ending.ENDED
    assert client.received == b""
    assert not gateway.finished


def test_a_head_that_comes_slowly(make: Make) -> None:
    """One byte every two seconds does not live for ever: the limit is absolute."""
    gateway = make()
    client = gateway.client()
    for byte in get()[:8]:
        client.send(bytes([byte]))
        if client.ending is not Ending.OPEN:
            break
        gateway.wait(2)
    assert statuses(client) == [408]
    assert client.ending is Ending.ENDED
    assert connections(gateway) == 0


def test_a_later_head_that_comes_slowly(make: Make) -> None:
    """Its ten seconds begin with its first byte, and do not begin anew with each."""
    gateway = make()
    client = gateway.client()
    client.send(get("/nothing"))
    gateway.wait(60)
    client.send(b"GET /op")
    gateway.wait(5)
    client.send(b"en ")
    gateway.wait(4.5)
    assert client.ending is Ending.OPEN
    client.send(b"HTTP")
    gateway.wait(1)
    assert statuses(client) == [404, 408]
    assert client.ending is Ending.ENDED


def test_a_later_head_that_comes_together_with_the_end_of_another(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get() + b"GET /op")
    gateway.wait(20)
    gateway.service("users").accept().send(OK)
    gateway.wait(9)
    assert client.ending is Ending.OPEN
    gateway.wait(2)
    assert statuses(client) == [200, 408]


def test_an_idle_connection(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/nothing"))
    gateway.wait(74)
    assert client.ending is Ending.OPEN
    gateway.wait(2)
    assert client.ending is Ending.ENDED
    assert statuses(client) == [404]


def test_a_connection_is_not_idle_while_it_waits_for_an_answer(make: Make) -> None:
    gateway = make(standard(upstream=", timeouts: {first_byte: 300s, between_bytes: 300s}"))
    client = gateway.client()
    client.send(get())
    gateway.wait(200)
    gateway.service("users").accept().send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    gateway.wait(200)
    gateway.service("users").connections[0].send(b"k")
    assert statuses(client) == [200]
    assert client.ending is Ending.OPEN


def test_an_end_that_is_not_answered(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(b"nonsense\r\n\r\n")
    assert client.ending is Ending.ENDED
    gateway.wait(1)
    assert gateway.gateway.listeners[0].connections
    client.send(b"still sending")
    gateway.wait(1.5)
    assert not gateway.gateway.listeners[0].connections


def test_requests_per_connection(make: Make) -> None:
    gateway = make(standard(top="timeouts: { requests_per_connection: 3 }"))
    client = gateway.client()
    for _ in range(3):
        client.send(get("/nothing"))
    found = client.answers()
    assert [each.field("connection") for each in found] == [None, None, "close"]
    assert client.ending is Ending.ENDED


def test_requests_per_connection_when_they_come_together(make: Make) -> None:
    gateway = make(standard(top="timeouts: { requests_per_connection: 3 }"))
    client = gateway.client()
    client.send(get("/nothing") * 5)
    assert statuses(client) == [404, 404, 404]
    assert client.ending is Ending.ENDED
    assert len(gateway.finished) == 3


# -- bodies --------------------------------------------------------------------------------------


def test_a_body_that_comes_too_slowly(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 100000\r\n", "POST"))
    service = gateway.service("users").accept()
    for _ in range(19):
        client.send(b"x" * 400, apart=False)
        gateway.wait(1)
    assert client.ending is Ending.OPEN
    gateway.wait(2)
    assert statuses(client, "POST") == [408]
    assert client.ending is Ending.ENDED
    assert service.ending is Ending.ABORTED


def test_a_body_that_stops(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 100000\r\n", "POST"))
    client.send(b"x" * 50000, apart=False)
    gateway.wait(45)
    assert statuses(client, "POST") == [408]


def test_a_body_that_comes_just_fast_enough(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 60000\r\n", "POST"))
    for _ in range(100):
        client.send(b"x" * 600, apart=False)
        gateway.wait(1)
    gateway.service("users").accept().send(OK)
    assert statuses(client, "POST") == [200]


def test_a_body_is_not_slow_while_we_do_not_read_it(quick: Make) -> None:
    """The service takes nothing for a while; the client cannot help that."""
    gateway = quick(standard(upstream=", timeouts: {between_bytes: 200s}"))
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 1000000\r\n", "POST"))
    service = gateway.service("users").accept()
    service.stall()
    client.send(b"x" * 1000000)
    gateway.wait(100)
    assert client.ending is Ending.OPEN
    service.flow()
    service.send(OK)
    assert statuses(client, "POST") == [200]


def test_an_expected_body_that_never_comes(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 10\r\nExpect: 100-continue\r\n", "POST"))
    gateway.wait(21)
    assert statuses(client, "POST") == [100, 408]


# -- services ------------------------------------------------------------------------------------


def test_a_first_byte_that_does_not_come(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(post(b"body"))
    service = gateway.service("users").accept()
    gateway.wait(59)
    assert client.received == b""
    gateway.wait(2)
    assert statuses(client, "POST") == [504]
    assert service.ending is Ending.ABORTED
    assert client.ending is Ending.OPEN
    assert gateway.finished[0].outcome is Outcome.UPSTREAM_TIMEOUT
    assert connections(gateway) == 1


def test_what_may_be_repeated_is_repeated_before_504(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    gateway.wait(61)
    assert connections(gateway) == 2
    gateway.wait(125)
    assert statuses(client) == [504]
    assert connections(gateway) == 3


def test_a_head_that_begins_and_stops(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(post(b"body"))
    service = gateway.service("users").accept()
    for _ in range(14):
        service.send(b"HTTP/1.1 200 OK\r\n"[_ : _ + 1])
        gateway.wait(5)
    assert statuses(client, "POST") == [504]


def test_the_time_for_the_first_byte_begins_with_the_end_of_the_request(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 60000\r\n", "POST"))
    for _ in range(100):
        client.send(b"x" * 600, apart=False)
        gateway.wait(1)
    gateway.wait(55)
    gateway.service("users").accept().send(OK)
    assert statuses(client, "POST") == [200]


def test_an_answer_that_stops(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    gateway.wait(50)
    service.send(b"def")
    gateway.wait(59)
    assert client.ending is Ending.OPEN
    gateway.wait(2)
    assert client.ending is Ending.ABORTED
    assert service.ending is Ending.ABORTED
    assert gateway.finished[0].outcome is Outcome.UPSTREAM_TIMEOUT


def test_a_service_that_takes_nothing(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 1000000\r\n", "POST"))
    service = gateway.service("users").accept()
    service.stall()
    client.send(b"x" * 1000000)
    gateway.wait(61)
    assert statuses(client, "POST") == [504]
    assert service.ending is Ending.ABORTED
    assert client.ending is Ending.ENDED


def test_times_of_a_route(make: Make) -> None:
    gateway = make(standard(users=", timeouts: {first_byte: 2s, between_bytes: 1s}"))
    client = gateway.client()
    client.send(post(b"body"))
    gateway.wait(2.5)
    assert statuses(client, "POST") == [504]


# -- slow clients --------------------------------------------------------------------------------


def large(gateway: MemoryGateway, client: Wire, size: int = 1 << 20) -> None:
    """An answer of which the client takes nothing."""
    client.send(get())
    client.stall()
    gateway.service("users").accept().send(answer(b"x" * size), apart=False)


def test_a_client_that_takes_nothing(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    large(gateway, client)
    gateway.wait(59)
    assert client.ending is Ending.OPEN
    gateway.wait(2)
    assert client.ending is Ending.ABORTED
    assert gateway.finished[0].outcome is Outcome.CLIENT_STALLED
    assert gateway.service("users").connections[0].ending is Ending.ABORTED


def test_a_client_that_takes_a_little(quick: Make) -> None:
    """As long as it takes something within each minute it is served."""
    gateway = quick()
    client = gateway.client()
    large(gateway, client)
    for _ in range(5):
        gateway.wait(50)
        client.stall(window=1000)
        gateway.reactor.settle()
    assert client.ending is Ending.OPEN
    client.flow()
    (found,) = client.answers()
    assert len(found.body) == 1 << 20


def test_a_client_that_takes_nothing_of_a_whole_answer(quick: Make) -> None:
    """The service has long been let go, the answer stands in our memory."""
    gateway = quick()
    client = gateway.client()
    client.stall()
    client.send(get() + get("/nothing"))
    gateway.service("users").accept().send(answer(b"x" * 200_000), apart=False)
    gateway.wait(140)
    assert client.ending is Ending.ABORTED
    assert not gateway.gateway.listeners[0].connections


def test_a_client_that_takes_nothing_of_a_last_answer(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    client.stall()
    client.send(get(fields=b"Connection: close\r\n"))
    gateway.service("users").accept().send(answer(b"x" * 50_000), apart=False)
    gateway.wait(50)
    assert client.ending is Ending.OPEN
    gateway.wait(12)
    assert client.ending is Ending.ABORTED
    assert not gateway.gateway.listeners[0].connections


def test_a_client_that_takes_nothing_of_small_answers(quick: Make) -> None:
    """Pipelining without reading: memory stays bounded, and so does time."""
    gateway = quick()
    client = gateway.client()
    client.stall()
    for _ in range(2000):
        client.send(get("/nothing"))
    (stream,) = [s for s in gateway.streams if s.wire is client]
    assert stream.backlog < 2 * 65536
    gateway.wait(140)
    assert not gateway.gateway.listeners[0].connections


# -- draining ------------------------------------------------------------------------------------


def test_draining(make: Make) -> None:
    gateway = make()
    idle, busy, posting, fresh, silent = (gateway.client() for _ in range(5))
    idle.send(get("/nothing"))
    busy.send(get())
    posting.send(get("/open", b"Content-Length: 4\r\n", "POST") + b"bo")
    service = gateway.service("users")
    done: list[None] = []
    gateway.gateway.drain().addCallback(done.append)
    gateway.reactor.settle()
    assert idle.ending is Ending.ENDED
    assert fresh.ending is silent.ending is Ending.OPEN, "they have only just come"
    fresh.send(get("/nothing"))
    assert statuses(fresh) == [404] and fresh.ending is Ending.ENDED
    assert busy.ending is posting.ending is Ending.OPEN
    assert not done
    posting.send(b"dy")
    for wire in service.connections:
        wire.send(OK)
    for client in (busy, posting):
        (found,) = client.answers()
        assert (found.status, found.field("connection")) == (200, "close")
        assert client.ending is Ending.ENDED
    for client in (idle, busy, posting, fresh):
        client.end()
    gateway.wait(3)
    assert silent.ending is Ending.ENDED
    silent.end()
    gateway.wait(3)
    assert len(done) == 1


def test_draining_has_an_end(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    done: list[None] = []
    gateway.gateway.drain().addCallback(done.append)
    gateway.wait(29)
    assert client.ending is Ending.OPEN and not done
    gateway.wait(2)
    assert client.ending is Ending.ABORTED and len(done) == 1
    assert gateway.finished[0].outcome is Outcome.DRAINED
    assert gateway.service("users").connections[0].ending is Ending.ABORTED


def test_a_head_that_is_under_way_while_draining(make: Make) -> None:
    """Who has begun to ask is answered."""
    gateway = make()
    client = gateway.client()
    client.send(get("/nothing")[:9])
    gateway.gateway.drain()
    gateway.reactor.settle()
    client.send(get("/nothing")[9:])
    assert statuses(client) == [404]
    assert client.ending is Ending.ENDED


@pytest.mark.parametrize("pipelined", [False, True])
def test_draining_between_answers(make: Make, pipelined: bool) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get() + (get("/open/2") if pipelined else b""))
    gateway.gateway.drain()
    gateway.service("users").accept().send(OK)
    assert client.ending is Ending.ENDED
    assert statuses(client) == [200]
    assert b"/open/2" not in gateway.service("users").received


# -- connections that never come to a request ---------------------------------------------------


def raw(gateway: MemoryGateway) -> socket.socket:
    """A connection to the TLS listener on which no handshake is made."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    gateway.gateway.listeners[0].port.open += 1
    gateway.gateway.listeners[0]._accept(near, ("192.0.2.1", 50000))
    return far


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x01\x00\x01\x00"])
def test_a_handshake_that_does_not_come(quick: Make, said: bytes) -> None:
    gateway = quick()
    client = raw(gateway)
    client.send(said)
    gateway.wait(9)
    assert gateway.gateway.listeners[0].connections
    gateway.wait(1.5)
    assert not gateway.gateway.listeners[0].connections
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(100) == b""


def test_plain_http_where_tls_is_spoken(quick: Make) -> None:
    gateway = quick()
    client = raw(gateway)
    client.send(get() + get("/open/2"))
    gateway.reactor.settle()
    assert not gateway.gateway.listeners[0].connections
    assert connections(gateway) == 0
    assert not gateway.finished


def test_a_client_that_ends_is_answered_with_an_end(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/nothing"))
    client.end()
    assert client.ending is Ending.ENDED
