"""Tunnels: who gets one, what passes through it, and how it ends."""

# What has ended meanwhile is not seen by the type checker.
# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from wire_support import OK, answer, connections, get, names, standard

from edgeproxy.testing import Ending, MemoryGateway, MemoryWire, Way, Wire
from edgeproxy.transport.stream import HIGH_WATER, READ_SIZE
from edgeproxy.tunnel import End, Tunnel

Make = Callable[..., MemoryGateway]

ROUTES = """
    /ws: { to: users, auth: none, websocket: true, timeouts: { first_byte: 5s } }
    /ws/key: { to: users, websocket: true }
    /ws/few: { to: users, auth: none, websocket: true, limit: few }
    /ws/more: { to: orders, auth: none, websocket: true }
    /ws/short: { to: users, auth: none, websocket: true, timeouts: { tunnel: 10s } }
    /ws/rules:
      to: users
      auth: none
      websocket: true
      response: { set: { X-Rule: yes }, remove: [X-Secret] }
"""
HANDSHAKE = (
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\nOrigin: https://app.example\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
)
ASK = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" + HANDSHAKE
AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)
FRAME = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
"""A text frame of a client: "Hello", masked (RFC 6455 5.7)."""
BACK = b"\x81\x05Hello"


def standard_tunnels(top: str = "", upstream: str = "") -> str:
    return standard(routes=ROUTES, top=top, upstream=upstream)


@pytest.fixture
def tunnel(make: Make) -> Callable[..., tuple[MemoryGateway, Wire, MemoryWire]]:
    """A tunnel that stands: the gateway, the client's end, the service's."""

    def open_(path: str = "/ws", **options: str) -> tuple[MemoryGateway, Wire, MemoryWire]:
        gateway = make(standard_tunnels(**options))
        client, service = opened(gateway, path)
        return gateway, client, service

    return open_


def opened(gateway: MemoryGateway, path: str = "/ws") -> tuple[Wire, MemoryWire]:
    client = gateway.client()
    client.send(get(path, ASK))
    service = gateway.service("users").accept()
    service.send(AGREED)
    assert service.take().endswith(b"\r\n\r\n")
    assert client.take().startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    return client, service


def tunnels(gateway: MemoryGateway) -> int:
    return sum(isinstance(each, Tunnel) for each in gateway.gateway.deadlines.waiting)


# -- getting one ---------------------------------------------------------------------------------


def test_a_conversation(make: Make) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws/chat?room=1", ASK))
    service = gateway.service("users").accept()
    service.send(AGREED)
    assert service.transcript().startswith(
        "<< GET /ws/chat?room=1 HTTP/1.1\n"
        "<< Host: api.example.com\n"
        "<< Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
        "<< Sec-WebSocket-Version: 13\n"
        "<< Sec-WebSocket-Protocol: chat, superchat\n"
        "<< Origin: https://app.example\n"
        "<< Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n"
        "<< Connection: Upgrade\n"
        "<< Upgrade: websocket\n"
        "<< X-Forwarded-For: 192.0.2.1\n"
    )
    assert names(service.received).count(b"connection") == 1
    assert client.received == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    service.take(), client.take()
    client.send(FRAME)
    assert service.take() == FRAME
    service.send(BACK)
    assert client.take() == BACK
    assert not gateway.finished
    assert tunnels(gateway) == 1

    service.end()
    assert client.ending is Ending.ENDED
    assert not gateway.finished
    client.end()
    assert service.ending is Ending.ENDED
    (line,) = gateway.log
    assert (line["status"], line["outcome"]) == (101, "ok")
    assert (line["received"], line["sent"]) == (len(FRAME), len(BACK))
    assert (line["method"], line["path"], line["attempts"]) == ("GET", "/ws/chat", 1)
    assert tunnels(gateway) == 0


def test_trailers_are_nothing_to_ask_for(quick: Make) -> None:
    """TE would need a Connection of its own."""
    gateway = quick(standard_tunnels())
    gateway.client().send(get("/ws", ASK + b"TE: trailers\r\n"))
    found = names(gateway.service("users").received)
    assert (found.count(b"connection"), found.count(b"te")) == (1, 0)


def test_identity_and_limits_come_first(make: Make) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws/key", ASK) + FRAME)
    assert [each.status for each in client.answers()] == [401]
    assert client.ending is Ending.ENDED
    key = gateway.key("alice")
    client = gateway.client()
    client.send(get("/ws/key", ASK + f"X-API-Key: {key}\r\n".encode()))
    service = gateway.service("users").accept()
    assert b"X-Consumer-Name: alice\r\n" in service.received
    assert key.encode() not in service.received
    service.send(AGREED)
    client.send(FRAME)
    assert service.received.endswith(b"\r\n\r\n" + FRAME)
    assert connections(gateway) == 1


def test_a_tunnel_counts_against_its_limit_once(make: Make) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws/few", ASK))
    service = gateway.service("users").accept()
    service.send(AGREED)
    assert b'RateLimit: "few";r=1;t=60\r\n' in client.received
    for _ in range(5):
        client.send(FRAME)
    second, third = gateway.client(), gateway.client()
    second.send(get("/ws/few", ASK))
    third.send(get("/ws/few", ASK))
    assert [each.status for each in third.answers()] == [429]
    assert third.ending is Ending.ENDED


def test_rules_of_the_route_hold_for_the_101(make: Make) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws/rules", ASK))
    fields = b"X-Secret: x\r\nServer: y\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\n\r\n"
    gateway.service("users").accept().send(AGREED[:-2] + fields)
    assert names(client.received) == [
        b"sec-websocket-accept",
        b"sec-websocket-protocol",
        b"set-cookie",
        b"x-rule",
        b"connection",
        b"upgrade",
    ]


def test_interim_answers_may_come_before(make: Make) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws", ASK))
    gateway.service("users").accept().send(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + AGREED + BACK
    )
    assert client.received.startswith(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 101 "
    )
    assert client.received.endswith(b"\r\n\r\n" + BACK)


@pytest.mark.parametrize(
    "value", [b"WebSocket", b"websocket", b"WEBSOCKET "], ids=["Mixed", "lower", "upper"]
)
def test_the_name_may_be_spelled_either_way(quick: Make, value: bytes) -> None:
    gateway = quick(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws", b"connection: UPGRADE\r\nUPGRADE: %b\r\n" % value))
    service = gateway.service("users").accept()
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in service.received
    service.send(AGREED.replace(b": websocket", b": " + value).replace(b": Upgrade", b": upgrade"))
    assert client.received.startswith(b"HTTP/1.1 101 ")


def test_requests_before_it_on_the_same_connection(make: Make) -> None:
    """Pipelined too: what follows the request for the tunnel belongs to that alone."""
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/open/1") + get("/nothing") + get("/ws", ASK) + FRAME)
    service = gateway.service("users")
    first = service.accept()
    first.send(OK)
    wire = service.connections[-1]
    assert b"GET /ws HTTP/1.1" in wire.received
    assert FRAME not in wire.received
    wire.send(AGREED + BACK)
    assert wire.received.endswith(b"\r\n\r\n" + FRAME)
    head, _, rest = client.received.partition(b"HTTP/1.1 101 ")
    assert (head.count(b"HTTP/1.1 200 "), head.count(b"HTTP/1.1 404 ")) == (1, 1)
    assert rest.endswith(b"\r\n\r\n" + BACK)


# -- not getting one -----------------------------------------------------------------------------

NOT_ASKED = {
    "another route": get("/open", ASK),
    "h2c": get(
        "/ws", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
    ),
    "a list": get("/ws", b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
    "a list in two lines": get(
        "/ws", b"Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"
    ),
    "twice": get("/ws", b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n"),
    "a version": get("/ws", b"Connection: Upgrade\r\nUpgrade: websocket/13\r\n"),
    "nothing": get("/ws", b"Connection: Upgrade\r\nUpgrade:\r\n"),
    "without Connection": get("/ws", b"Upgrade: websocket\r\n"),
    "Connection alone": get("/ws", b"Connection: Upgrade\r\n"),
    "a similar option": get("/ws", b"Connection: upgrade-x\r\nUpgrade: websocket\r\n"),
    "POST": get("/ws", ASK + b"Content-Length: 0\r\n", "POST"),
    "HEAD": get("/ws", ASK, "HEAD"),
    "HTTP/1.0": get("/ws", ASK).replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("sent", NOT_ASKED.values(), ids=NOT_ASKED.keys())
def test_an_ordinary_request(make: Make, sent: bytes) -> None:
    """RFC 9110 7.8: a server may ignore Upgrade. What follows is the next request, as ever."""
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(sent)
    service = gateway.service("users").accept()
    assert not {b"upgrade", b"connection", b"http2-settings"} & set(names(service.received))
    head = sent.startswith(b"HEAD")
    service.send(OK.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head else OK)
    client.send(get("/nothing"))
    found = client.answers("HEAD" if head else "GET")
    assert [each.status for each in found] == [200, 404]


@pytest.mark.parametrize("sent", NOT_ASKED.values(), ids=NOT_ASKED.keys())
def test_a_change_that_nobody_asked_for(make: Make, sent: bytes) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(sent)
    service = gateway.service("users").accept()
    service.send(AGREED + BACK)
    found = client.answers("HEAD" if sent.startswith(b"HEAD") else "GET")
    assert [each.status for each in found] == [502]
    assert BACK not in client.received
    assert service.ending is Ending.ABORTED
    assert tunnels(gateway) == 0


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 11\r\n\r\n" + FRAME, b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
def test_a_body_is_refused(make: Make, body: bytes) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws", ASK)[:-2] + body + get("/open"))
    assert [each.status for each in client.answers()] == [400]
    assert client.ending is Ending.ENDED
    assert connections(gateway) == 0


NOT_AGREED = {
    "another protocol": AGREED.replace(b"websocket", b"h2c"),
    "two protocols": AGREED.replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
    "twice": AGREED.replace(b"\r\nSec", b"\r\nUpgrade: websocket\r\nSec", 1),
    "no protocol": AGREED.replace(b"Upgrade: websocket\r\n", b""),
    "no Connection": AGREED.replace(b"Connection: Upgrade\r\n", b""),
    "another Connection": AGREED.replace(b"Connection: Upgrade", b"Connection: keep-alive"),
    "a length": AGREED[:-2] + b"Content-Length: 5\r\n\r\nhello",
    "chunked": AGREED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0": AGREED.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "garbage in the head": AGREED[:-2] + b"no field\r\n\r\n",
    "garbage for a head": b"\x81\x05Hello\r\n\r\n",
    "no head": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
}


@pytest.mark.parametrize("sent", NOT_AGREED.values(), ids=NOT_AGREED.keys())
def test_an_agreement_that_is_none(make: Make, sent: bytes) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws", ASK))
    service = gateway.service("users").accept()
    service.send(sent + BACK)
    client.send(FRAME + get("/open"))
    assert [each.status for each in client.answers()] == [502]
    assert client.ending is Ending.ENDED
    assert service.ending is Ending.ABORTED
    assert FRAME not in service.received
    assert connections(gateway) == 1


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request", b"426 Upgrade Required"])
@pytest.mark.parametrize("when", ["with the head", "behind it", "after the answer"])
def test_any_other_answer_is_an_answer(make: Make, status: bytes, when: str) -> None:
    """A request hidden behind a false one is neither tunnelled nor taken for a request."""
    gateway = make(standard_tunnels())
    client = gateway.client()
    hidden = get("/ws/key", b"X-Hidden: yes\r\n") + FRAME
    client.send(get("/ws", ASK) + (hidden if when == "with the head" else b""))
    service = gateway.service("users").accept()
    if when == "behind it":
        client.send(hidden)
    service.send(answer(b"sorry", b"Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n", status))
    if when == "after the answer":
        client.send(hidden)
    (found,) = client.answers()
    assert (found.status, found.body) == (int(status[:3]), b"sorry")
    assert found.field("connection") == "close"
    assert found.field("sec-websocket-version") == "13"
    assert found.field("upgrade") is None
    assert client.ending is Ending.ENDED
    assert b"Hidden" not in service.received
    assert connections(gateway) == 1
    assert [each["status"] for each in gateway.log] == [int(status[:3])]


def test_the_service_connection_is_used_again_after_another_answer(make: Make) -> None:
    gateway = make(standard_tunnels())
    for _ in range(3):
        client = gateway.client()
        client.send(get("/ws", ASK))
        gateway.service("users").connections[0].send(answer(status=b"403 Forbidden"))
        assert [each.status for each in client.answers()] == [403]
    assert connections(gateway) == 1


def test_too_late(make: Make) -> None:
    """The route's time for the first byte holds for the 101 too."""
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws", ASK))
    service = gateway.service("users").accept()
    gateway.wait(6)
    assert [each.status for each in client.answers()] == [504]
    assert service.ending is Ending.ABORTED


# -- what is sent before the answer --------------------------------------------------------------


def test_early_bytes_wait_for_the_agreement(make: Make) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws", ASK) + FRAME)
    service = gateway.service("users").accept()
    client.send(FRAME)
    gateway.wait(1)
    assert FRAME not in service.received
    assert service.received.endswith(b"\r\n\r\n")
    service.take()
    service.send(AGREED[:40])
    client.send(FRAME)
    assert service.take() == b""
    service.send(AGREED[40:])
    assert service.take() == FRAME * 3
    client.end(), service.end()
    assert gateway.log[0]["received"] == 3 * len(FRAME)


def test_early_bytes_have_a_bound(quick: Make) -> None:
    gateway = quick(standard_tunnels())
    client = gateway.client()
    client.send(get("/ws", ASK))
    service = gateway.service("users").accept()
    data = Random(1).randbytes(4 * HIGH_WATER)
    client.send(data)
    assert isinstance(client, MemoryWire)
    assert len(client.unread) >= len(data) - HIGH_WATER - READ_SIZE
    service.send(AGREED)
    assert service.received.endswith(data)


# -- what is never done twice --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws", "/ws/more"])
@pytest.mark.parametrize("how", ["end", "reset"])
def test_never_repeated(make: Make, path: str, how: str) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get(path, ASK))
    name = "users" if path == "/ws" else "orders"
    getattr(gateway.service(name).accept(), how)()
    assert [each.status for each in client.answers()] == [502]
    assert connections(gateway) == 1


def test_a_target_that_refuses_is_passed_over(make: Make) -> None:
    gateway = make(standard_tunnels())
    for number in (0, 1):
        gateway.service("orders", number).mode = "refuse"
    client = gateway.client()
    client.send(get("/ws/more", ASK))
    gateway.service("orders", 2).accept().send(AGREED)
    assert client.received.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(("idle", "made"), [(0.5, 1), (2.0, 2)])
def test_only_a_fresh_pooled_connection_is_used(make: Make, idle: float, made: int) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/open"))
    gateway.service("users").accept().send(OK)
    gateway.wait(idle)
    client.send(get("/ws", ASK))
    assert connections(gateway) == made
    gateway.service("users").connections[-1].send(AGREED)
    client.send(FRAME)
    assert gateway.service("users").connections[-1].received.endswith(FRAME)


def test_a_pooled_connection_that_spoke_is_not_used(make: Make) -> None:
    gateway = make(standard_tunnels())
    client = gateway.client()
    client.send(get("/open"))
    service = gateway.service("users").accept()
    service.send(OK)
    service.unread += AGREED  # it arrives with the client's request, not before it
    client.send(get("/ws", ASK), apart=False)
    assert connections(gateway) == 2
    assert b"HTTP/1.1 101" not in client.received


def test_the_connection_never_returns_to_the_pool(tunnel: Any) -> None:
    gateway, client, service = tunnel()
    (target,) = gateway.gateway.snapshot().upstreams["users"].targets
    assert repr(target.pool) == "<Pool open=1/256 idle=0 waiting=0>"
    service.end(), client.end()
    assert repr(target.pool) == "<Pool open=0/256 idle=0 waiting=0>"
    other = gateway.client()
    other.send(get("/open"))
    assert connections(gateway) == 2


def test_tunnels_count_against_the_cap(make: Make) -> None:
    gateway = make(standard_tunnels(upstream=", connections: 2, wait: 1s"))
    ends = [opened(gateway) for _ in range(2)]
    client = gateway.client()
    client.send(get("/open"))
    gateway.wait(2)
    assert [each.status for each in client.answers()] == [503]
    ends[0][0].reset()
    client.send(get("/open"))
    gateway.service("users").accept().send(OK)
    assert [each.status for each in client.answers()] == [503, 200]


# -- flow ----------------------------------------------------------------------------------------


def test_both_directions_at_once(tunnel: Any) -> None:
    _, client, service = tunnel()
    random = Random(2)
    there, back = random.randbytes(3000), random.randbytes(3000)
    for start in range(0, 3000, 500):
        client.send(there[start : start + 500])
        service.send(back[start : start + 500])
    assert service.take() == there
    assert client.take() == back


@pytest.mark.parametrize("slow", ["client", "service"])
def test_a_slow_reader_pauses_the_other_side(quick: Make, slow: str) -> None:
    gateway = quick(standard_tunnels())
    client, service = opened(gateway)
    assert isinstance(client, MemoryWire)
    reader, writer = (client, service) if slow == "client" else (service, client)
    data = Random(3).randbytes(16 * HIGH_WATER)
    reader.stall()
    writer.send(data)
    assert len(writer.unread) >= len(data) - 2 * HIGH_WATER - READ_SIZE
    assert reader.stream.peak <= HIGH_WATER + READ_SIZE
    # The other direction is not held up by it.
    reader.send(BACK)
    assert writer.take() == BACK
    reader.flow()
    assert reader.take() == data
    assert reader.stream.peak <= HIGH_WATER + READ_SIZE


# -- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["client", "service"])
def test_each_direction_ends_by_itself(tunnel: Any, first: str) -> None:
    gateway, client, service = tunnel()
    one, other = (client, service) if first == "client" else (service, client)
    one.send(b"last words")
    one.end()
    assert other.take() == b"last words"
    assert other.ending is Ending.ENDED
    other.send(b"not mine")
    other.send(b", these are")
    assert one.take() == b"not mine, these are"
    assert one.ending is Ending.OPEN
    assert not gateway.finished
    other.end()
    assert one.ending is Ending.ENDED
    assert [line["outcome"] for line in gateway.log] == ["ok"]


@pytest.mark.parametrize("slow", ["client", "service"])
def test_an_end_waits_for_what_comes_before_it(quick: Make, slow: str) -> None:
    gateway = quick(standard_tunnels())
    client, service = opened(gateway)
    reader, writer = (client, service) if slow == "client" else (service, client)
    data = Random(4).randbytes(HIGH_WATER // 2)
    reader.stall()
    writer.send(data)
    writer.end()
    reader.end()
    assert writer.ending is Ending.ENDED
    assert reader.ending is Ending.OPEN
    assert not gateway.finished
    reader.flow()
    assert reader.take() == data
    assert reader.ending is Ending.ENDED
    assert [line["outcome"] for line in gateway.log] == ["ok"]


@pytest.mark.parametrize("records", range(1, 25))
def test_the_goodbye_waits_for_room_too(gateways: Any, records: int) -> None:
    """close_notify has to get through, however full the kernel is, or the end looks like a cut."""
    gateway = MemoryGateway(standard_tunnels(), Way.TLS)
    gateways.append(gateway)
    client, service = opened(gateway)
    client.stall()
    data = bytes(16384 * records)
    service.send(data)
    service.end()
    client.flow()
    assert client.take() == data
    assert client.ending is Ending.ENDED
    client.end()
    assert [line["outcome"] for line in gateway.log] == ["ok"]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("how", ["end", "reset", "idle"])
def test_nothing_is_left_to_the_collector(make: Make, how: str) -> None:
    before = alive()
    gateway = make(standard_tunnels(top="access_log: off"))
    client, service = opened(gateway)
    assert len(alive() - before) == 3
    if how == "end":
        client.end(), service.end()
    elif how == "reset":
        client.reset()
    else:
        gateway.wait(301)
    assert alive() == before


def alive() -> set[int]:
    return {id(each) for each in gc.get_objects() if isinstance(each, Tunnel | End)}


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("first", ["client", "service"])
@pytest.mark.parametrize("half", [False, True], ids=["both open", "one direction over"])
def test_a_reset_takes_the_other_side_with_it(tunnel: Any, first: str, half: bool) -> None:
    gateway, client, service = tunnel()
    one, other = (client, service) if first == "client" else (service, client)
    if half:
        one.end()
    one.reset()
    if half:
        # Whoever does not read it finds out with the next word.
        other.send(b"x")
        other.send(b"y")
    assert other.ending is (Ending.ENDED if half else Ending.ABORTED)
    assert other.left or other.ending is not Ending.OPEN
    gateway.wait(301)
    expected = "client_gone" if first == "client" else "upstream_reset"
    assert [line["outcome"] for line in gateway.log] == [expected]
    assert tunnels(gateway) == 0


def test_a_client_that_leaves_without_goodbye_after_the_end_lost_nothing(tunnel: Any) -> None:
    gateway, client, service = tunnel()
    client.send(FRAME)
    service.send(BACK)
    service.end()
    client.reset()
    service.send(b"x")  # nobody is there, and nobody waits for it
    gateway.wait(301)
    assert [line["outcome"] for line in gateway.log] == ["ok"]


def test_idle(tunnel: Any) -> None:
    gateway, client, service = tunnel()
    for each, data in ((client, FRAME), (service, BACK), (client, FRAME)):
        gateway.wait(299)
        each.send(data)
    gateway.wait(299)
    assert not gateway.finished
    gateway.wait(2)
    assert client.ending is service.ending is Ending.ENDED
    (line,) = gateway.log
    assert (line["status"], line["outcome"]) == (101, "idle")
    assert (line["received"], line["sent"]) == (2 * len(FRAME), len(BACK))


def test_idle_after_half_an_end(tunnel: Any) -> None:
    gateway, client, service = tunnel("/ws/short")
    client.end()
    gateway.wait(9)
    service.send(BACK)
    gateway.wait(9)
    assert not gateway.finished
    gateway.wait(2)
    assert [line["outcome"] for line in gateway.log] == ["idle"]
    assert service.ending is Ending.ENDED


def test_a_reader_who_takes_a_little_is_not_idle(quick: Make) -> None:
    gateway = quick(standard_tunnels())
    client, service = opened(gateway, "/ws/short")
    assert isinstance(client, MemoryWire)
    client.stall()
    service.send(bytes(HIGH_WATER + 1))
    for _ in range(6):
        gateway.wait(9)
        client.stall(1000)
        gateway.reactor.settle()
    assert not gateway.finished
    gateway.wait(25)
    assert [line["outcome"] for line in gateway.log] == ["idle"]
    assert client.ending is Ending.ABORTED


def test_a_drain_cuts_tunnels_at_its_end(tunnel: Any) -> None:
    gateway, client, service = tunnel()
    done = gateway.gateway.drain()
    client.send(FRAME)
    gateway.wait(29)
    service.send(BACK)
    assert (service.take(), client.take()) == (FRAME, BACK)
    assert not done.called
    gateway.wait(1.5)
    assert done.called
    assert gateway.gateway._cut == 1
    assert client.ending is service.ending is Ending.ABORTED
    (line,) = gateway.log
    assert (line["outcome"], line["received"], line["sent"]) == ("drained", len(FRAME), len(BACK))


def test_a_drain_does_not_wait_for_a_tunnel_that_ends(tunnel: Any) -> None:
    gateway, client, service = tunnel()
    done = gateway.gateway.drain()
    service.end(), client.end()
    assert done.called
    assert gateway.gateway._cut == 0


def test_a_tunnel_outlives_its_target(tunnel: Any) -> None:
    """A reload that names another one leaves what stands alone."""
    gateway, client, service = tunnel()
    for target in gateway.gateway.fleet.targets:
        target.retire()
    client.send(FRAME)
    assert service.take() == FRAME
    assert service.ending is Ending.OPEN


def test_the_end_of_the_process_ends_it_too(tunnel: Any) -> None:
    gateway, client, service = tunnel()
    gateway.gateway.fleet.stop()
    gateway.reactor.settle()
    assert client.ending is service.ending is Ending.ABORTED
    assert len(gateway.log) == 1
