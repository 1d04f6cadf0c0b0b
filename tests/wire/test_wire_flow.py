"""Backpressure both ways: pausing really stops the other side, and memory stays bounded."""

# What has ended meanwhile is not seen by the type checker.
# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

from collections.abc import Callable

import pytest
from wire_support import OK, answer, connections, get, standard

from edgeproxy.testing import Ending, MemoryGateway, MemoryStream, MemoryWire, Way

Make = Callable[..., MemoryGateway]

#: One read more than the mark may be held: what was read when it was passed.
MOST = 2 * 65536 + 16
BIG = standard(users=", body: 100MiB")


def stream(gateway: MemoryGateway, wire: object) -> MemoryStream:
    (found,) = [each for each in gateway.streams if each.wire is wire]
    return found


def test_a_slow_client_slows_the_service(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    client.stall()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n")
    service.send(b"x" * 5_000_000)
    assert stream(gateway, client).peak <= MOST
    assert len(service.unread) > 4_800_000
    assert not stream(gateway, service).reading
    for _ in range(20):
        client.stall(window=50_000)
        gateway.reactor.settle()
        assert stream(gateway, client).peak <= MOST
    client.flow()
    (found,) = client.answers()
    assert found.body == b"x" * 5_000_000
    client.send(get())
    service.send(OK)
    assert len(client.answers()) == 2


def test_a_slow_client_of_chunks(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    client.stall()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        service.send(b"%x\r\n%b\r\n" % (10_000, b"y" * 10_000))
    service.send(b"0\r\n\r\n")
    assert stream(gateway, client).peak <= MOST
    client.flow()
    (found,) = client.answers()
    assert found.body == b"y" * 1_000_000
    assert connections(gateway) == 1


def test_a_slow_service_slows_the_client(quick: Make) -> None:
    gateway = quick(BIG)
    client = gateway.client()
    assert isinstance(client, MemoryWire)
    client.send(get("/open", b"Content-Length: 5000000\r\n", "POST"))
    service = gateway.service("users").accept()
    service.stall()
    client.send(b"x" * 5_000_000)
    assert stream(gateway, service).peak <= MOST
    assert len(client.unread) > 4_800_000
    assert not stream(gateway, client).reading
    for _ in range(20):
        service.stall(window=50_000)
        gateway.reactor.settle()
    assert stream(gateway, service).peak <= MOST
    service.flow()
    assert service.received.partition(b"\r\n\r\n")[2] == b"x" * 5_000_000
    service.send(OK)
    assert [each.status for each in client.answers("POST")] == [200]


def test_a_slow_service_slows_a_client_of_chunks(quick: Make) -> None:
    gateway = quick(BIG)
    client = gateway.client()
    client.send(get("/open", b"Transfer-Encoding: chunked\r\n", "PUT"))
    service = gateway.service("users").accept()
    service.stall()
    client.send(b"3\r\nabc\r\n" * 200_000 + b"0\r\n\r\n")
    assert stream(gateway, service).peak <= MOST
    service.flow()
    service.send(OK)
    assert [each.status for each in client.answers("PUT")] == [200]
    assert gateway.finished[0].received == 600_000


def test_both_are_slow(quick: Make) -> None:
    """An echo: the answer begins while the body still comes."""
    gateway = quick(BIG)
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 1000000\r\n", "POST"))
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    client.stall()
    service.stall()
    client.send(b"x" * 1_000_000)
    service.send(b"y" * 1_000_000)
    for _ in range(100):
        service.stall(window=20_000)
        client.stall(window=20_000)
        gateway.reactor.settle()
    service.flow()
    client.flow()
    assert service.received.partition(b"\r\n\r\n")[2] == b"x" * 1_000_000
    (found,) = client.answers("POST")
    assert found.body == b"y" * 1_000_000
    assert stream(gateway, client).peak <= MOST
    assert stream(gateway, service).peak <= MOST


def test_what_a_client_sends_ahead_is_bounded(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    assert isinstance(client, MemoryWire)
    client.send(get() + get("/nothing") * 100_000)
    service = gateway.service("users").accept()
    (connection,) = gateway.gateway.listeners[0].connections
    assert len(connection.buffer) <= MOST
    assert len(client.unread) > 1_000_000
    service.send(OK)
    gateway.reactor.settle()
    # A thousand requests on one connection are the limit.
    assert client.ending is Ending.ENDED
    assert [each.status for each in client.answers()] == [200] + [404] * 999


def test_a_body_that_comes_before_it_is_wanted_is_bounded(quick: Make) -> None:
    """While a connection to the service is being made."""
    gateway = quick(BIG)
    gateway.service("users").mode = "silent"
    client = gateway.client()
    assert isinstance(client, MemoryWire)
    client.send(get("/open", b"Content-Length: 5000000\r\n", "POST") + b"x" * 5_000_000)
    (connection,) = gateway.gateway.listeners[0].connections
    assert len(connection.buffer) <= MOST
    assert len(client.unread) > 4_800_000
    gateway.wait(4)
    assert [each.status for each in client.answers("POST")] == [504]


def test_a_body_that_had_to_wait_is_sent_on(quick: Make) -> None:
    gateway = quick(standard(users=", body: 100MiB", upstream=", connections: 1"))
    first, second = gateway.client(), gateway.client()
    first.send(get())
    second.send(get("/open", b"Content-Length: 5000000\r\n", "POST") + b"x" * 5_000_000)
    service = gateway.service("users").accept()
    service.send(OK)
    assert service.received.endswith(b"x" * 5_000_000)
    service.send(OK)
    assert [each.status for each in second.answers("POST")] == [200]


def test_refused_bodies_are_dropped_not_kept(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    client.send(get("/users", b"Content-Length: 5000000\r\n", "POST") + b"x" * 5_000_000)
    for connection in gateway.gateway.listeners[0].connections:
        assert connection.buffer == b""
    assert [each.status for each in client.answers("POST")] == [401]


def test_an_answer_of_many_small_pieces(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    service.send(b"1\r\nz\r\n" * 50_000 + b"0\r\n\r\n")
    (found,) = client.answers()
    assert found.body == b"z" * 50_000


@pytest.mark.parametrize("size", [1, 16384, 16385, 65536, 65537, 200_000])
def test_sizes_over_tls(gateways: list[MemoryGateway], size: int) -> None:
    """Records end at 16 KiB, reads at 64 KiB: nothing may get stuck in between."""
    gateway = MemoryGateway(BIG, Way.TLS)
    gateways.append(gateway)
    client = gateway.client()
    client.send(get("/open", b"Content-Length: %d\r\n" % size, "POST") + b"x" * size)
    service = gateway.service("users").accept()
    assert service.received.endswith(b"\r\n\r\n" + b"x" * size)
    service.send(answer(b"y" * size))
    (found,) = client.answers("POST")
    assert found.body == b"y" * size


def test_backpressure_over_tls(gateways: list[MemoryGateway]) -> None:
    gateway = MemoryGateway(BIG, Way.TLS)
    gateways.append(gateway)
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 3000000\r\n", "POST"))
    service = gateway.service("users").accept()
    service.stall()
    client.send(b"x" * 3_000_000)
    assert stream(gateway, service).peak <= MOST
    service.flow()
    assert service.received.endswith(b"\r\n\r\n" + b"x" * 3_000_000)
    client.stall()
    service.send(answer(b"y" * 3_000_000), apart=False)
    (connection,) = gateway.gateway.listeners[0].connections
    assert connection.stream.backlog <= MOST
    assert len(service.unread) > 2_000_000
    client.flow()
    (found,) = client.answers("POST")
    assert found.body == b"y" * 3_000_000
