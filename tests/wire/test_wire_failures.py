"""Services and clients that go away, at each moment, and what may be repeated then."""

# What has ended meanwhile is not seen by the type checker.
# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

from collections.abc import Callable

import pytest
from wire_support import OK, answer, connections, get, post, standard

from edgeproxy.exchange import Outcome
from edgeproxy.testing import Ending, MemoryGateway, MemoryWire, Way, Wire

Make = Callable[..., MemoryGateway]


def statuses(client: Wire, *methods: str) -> list[int]:
    return [each.status for each in client.answers(*methods)]


def warm(gateway: MemoryGateway, count: int = 1) -> list[MemoryWire]:
    """Pooled connections to `users`, idle from now on."""
    service = gateway.service("users")
    before = len(service.connections)
    clients = [gateway.client() for _ in range(count)]
    for client in clients:
        client.send(get())
    wires = service.connections[before:]
    for wire in wires:
        wire.send(OK)
        wire.take()
    for client in clients:
        client.end()
    return wires


# -- services that go away -----------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("part", [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_before_its_head_a_post_fails(make: Make, part: bytes, reset: bool) -> None:
    gateway = make()
    client = gateway.client()
    client.send(post(b"body"))
    service = gateway.service("users").accept()
    if part:
        service.send(part)
    service.reset() if reset else service.end()
    assert statuses(client, "POST") == [502]
    assert connections(gateway) == 1
    assert client.ending is Ending.OPEN
    assert gateway.finished[0].outcome is Outcome.UPSTREAM_RESET
    client.send(get())
    gateway.service("users").accept().send(OK)
    assert statuses(client, "POST", "GET") == [502, 200]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_after_its_head_the_client_is_cut(make: Make, reset: bool, chunked: bool) -> None:
    """Never a clean end: nobody may take half an answer for a whole one."""
    gateway = make()
    client = gateway.client()
    client.send(get() + get("/open/smuggled"))
    service = gateway.service("users").accept()
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 9"
    service.send(
        b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + (b"3\r\nabc\r\n" if chunked else b"abc")
    )
    service.reset() if reset else service.end()
    assert client.ending is Ending.ABORTED
    assert b"c\r\n" in client.received if chunked else client.received.endswith(b"abc")
    assert not client.received.endswith(b"0\r\n\r\n")
    assert connections(gateway) == 1
    assert [e.outcome for e in gateway.finished] == [Outcome.UPSTREAM_RESET]


def test_an_answer_without_a_length_that_is_reset(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
    service.reset()
    assert client.ending is Ending.ABORTED
    assert not client.received.endswith(b"0\r\n\r\n")


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "folded": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "NUL": b"HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 2\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "length list": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk at once": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "head too large": b"HTTP/1.1 200 OK\r\n" + b"A: " + b"a" * 70000 + b"\r\n\r\n",
    "head without end": b"HTTP/1.1 200 OK\r\n" + b"A: aaaaaaaaaaaaaaaa\r\n" * 4000,
    "switching": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "interim without end": b"HTTP/1.1 102 Processing\r\n\r\n" * 100,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_understood(make: Make, name: str) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(BROKEN[name], apart=False if len(BROKEN[name]) > 1000 else None)
    assert service.ending is Ending.ABORTED
    found = client.received
    if name == "bad chunk at once" and gateway.way is Way.BYTES:
        assert client.ending is Ending.ABORTED
    else:
        assert [each for each in statuses(client) if each != 102] == [502]
        assert b"10.0.0.1" not in found
    assert connections(gateway) == 1  # nothing of this is repeated
    assert gateway.finished[0].outcome is Outcome.UPSTREAM_FAILED


@pytest.mark.parametrize("bad", [b"3\r\nabcd\r\n", b"x\r\n", b"3\nabc\r\n", b"0\r\nA : b\r\n\r\n"])
def test_chunks_that_break_within_an_answer(make: Make, bad: bytes) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    service.send(bad)
    assert client.ending is Ending.ABORTED
    assert not client.received.endswith(b"0\r\n\r\n")
    assert service.ending is Ending.ABORTED
    assert [e.outcome for e in gateway.finished] == [Outcome.UPSTREAM_FAILED]


# -- repeating -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_an_idempotent_request_is_repeated_twice(make: Make, method: str) -> None:
    gateway = make()
    client = gateway.client()
    body = b"Content-Length: 4\r\n" if method == "PUT" else b""
    client.send(get("/open", body, method) + (b"body" if body else b""), apart=False)
    users = gateway.service("users")
    sent = []
    for _ in range(3):
        wire = users.accept()
        sent.append(wire.received)
        wire.reset()
    assert statuses(client, method) == [502]
    assert sent[0] == sent[1] == sent[2]
    assert connections(gateway) == 3
    assert gateway.finished[0].attempts == 3


@pytest.mark.parametrize("method", ["POST", "PATCH", "MKCOL"])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("how", ["reset", "end"])
def test_no_other_request_is_ever_sent_twice(
    make: Make, method: str, pooled: bool, how: str
) -> None:
    gateway = make()
    if pooled:
        warm(gateway)
    client = gateway.client()
    client.send(get("/open/once", b"Content-Length: 4\r\n", method) + b"body")
    wire = gateway.service("users").connections[0]
    assert b"/open/once" in wire.received
    getattr(wire, how)()
    gateway.wait(1)
    assert statuses(client, method) == [502]
    assert gateway.service("users").received.count(b"/open/once") == 1


@pytest.mark.parametrize(
    ("fields", "begin"),
    [
        (b"Content-Length: 16385\r\n", b"abc"),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"),
    ],
)
def test_a_body_that_was_streamed_is_not_sent_again(
    make: Make, fields: bytes, begin: bytes
) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", fields, "PUT") + begin)
    service = gateway.service("users").accept()
    service.reset()
    assert statuses(client, "PUT") == [502]
    assert client.ending is Ending.ENDED  # the rest of its body is not wanted
    assert connections(gateway) == 1


@pytest.mark.parametrize("size", [6, 16384])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_small_body_is_waited_for(make: Make, method: str, size: int) -> None:
    """It is at hand then, should its request have to be repeated."""
    gateway = make()
    (old,) = warm(gateway)
    client = gateway.client()
    client.send(get("/open", b"Content-Length: %d\r\n" % size, method) + b"a")
    assert old.take() == b""
    client.send(b"b" * (size - 1), apart=False)
    sent = old.take()
    assert sent.endswith(b"\r\n\r\na" + b"b" * (size - 1))
    old.reset()
    new = gateway.service("users").connections[1]
    assert new.received == sent
    new.send(OK)
    assert statuses(client, method) == [200]
    assert client.ending is Ending.OPEN
    assert gateway.finished[-1].received == size


def test_a_small_body_that_is_waited_for_is_asked_for(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 4\r\nExpect: 100-continue\r\n", "PUT"))
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert connections(gateway) == 0
    client.send(b"body")
    gateway.service("users").accept().send(OK)
    assert statuses(client, "PUT") == [100, 200]


def test_a_small_body_that_does_not_come(make: Make) -> None:
    """Nobody but the client is troubled; a connection's time runs from when it is used."""
    gateway = make(standard(users=", timeouts: {first_byte: 2s}"))
    warm(gateway)
    slow, gone, late = (gateway.client() for _ in range(3))
    for client in (slow, gone, late):
        client.send(get("/open", b"Content-Length: 4\r\n", "PUT") + b"bo")
    gone.reset()
    gateway.wait(15)
    late.send(b"dy")
    service = gateway.service("users").accept()
    gateway.wait(1)
    assert service.ending is Ending.OPEN
    service.send(OK)
    assert statuses(late, "PUT") == [200]
    gateway.wait(6)
    assert statuses(slow, "PUT") == [408]
    assert connections(gateway) == 1
    outcomes = [Outcome.OK, Outcome.CLIENT_GONE, Outcome.OK, Outcome.REFUSED]
    assert [each.outcome for each in gateway.finished] == outcomes


def test_repeating_stops_at_the_first_byte_of_an_answer(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    gateway.service("users").accept().send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    gateway.service("users").connections[0].reset()
    assert client.ending is Ending.ABORTED
    assert connections(gateway) == 1


def test_an_interim_answer_that_was_passed_on_stops_repeating(make: Make) -> None:
    """No byte of the answer may have been passed: the client would get hints twice."""
    gateway = make()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
    service.reset()
    assert statuses(client) == [103, 502]
    assert connections(gateway) == 1


def test_repeating_has_a_budget(quick: Make) -> None:
    """32 at least, then a fifth of the requests of the last ten seconds."""
    gateway = quick(standard(top="access_log: off"))
    users = gateway.service("users")
    users.greet = lambda wire: wire.reset()
    client = gateway.client()
    for _ in range(100):
        client.send(get())
    assert set(statuses(client)) == {502}
    assert connections(gateway) == 100 + 32


def test_a_stale_pooled_connection_is_not_used(make: Make) -> None:
    gateway = make()
    (old,) = warm(gateway)
    old.end()
    client = gateway.client()
    client.send(post(b"body"))
    assert old.take() == b""
    gateway.service("users").connections[1].send(OK)
    assert statuses(client, "POST") == [200]
    assert gateway.finished[-1].attempts == 1


def test_a_pooled_connection_that_closes_unseen_costs_one_retry(make: Make) -> None:
    """Its end comes together with our request."""
    gateway = make()
    (old,) = warm(gateway)
    client = gateway.client()
    client.send(get())
    assert b"GET" in old.take()
    old.end()
    gateway.service("users").connections[1].send(OK)
    assert statuses(client) == [200]
    assert gateway.finished[-1].attempts == 2


def test_bytes_that_nobody_asked_for_spoil_a_connection(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(OK + answer(b"evil"), apart=False)
    client.send(get())
    assert statuses(client) == [200]
    second = gateway.service("users").accept()
    second.send(OK)
    assert [each.body for each in client.answers()] == [b"ok", b"ok"]
    assert service.ending is Ending.ABORTED


def test_bytes_that_come_later_spoil_it_too(make: Make) -> None:
    gateway = make()
    (old,) = warm(gateway)
    old.send(answer(b"evil"))
    client = gateway.client()
    client.send(get())
    gateway.service("users").connections[1].send(OK)
    assert [each.body for each in client.answers()] == [b"ok"]
    assert old.ending is Ending.ABORTED


def test_bytes_that_are_still_under_way_are_seen_before_use(quick: Make) -> None:
    """They were not read yet when the next request wanted the connection."""
    gateway = quick()
    (old,) = warm(gateway)
    client = gateway.client()
    old.unread += answer(b"evil")
    stream = old.stream
    stream.pause_reading()  # as if the reactor had not come to it yet
    client.send(get())
    assert old.take() == b""
    gateway.service("users").connections[1].send(OK)
    assert [each.body for each in client.answers()] == [b"ok"]


@pytest.mark.parametrize("fields", [b"Connection: close\r\n", b"connection: x, Close\r\n"])
def test_a_service_that_closes_is_not_asked_again(make: Make, fields: bytes) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(answer(fields=fields))
    client.send(get())
    gateway.service("users").accept().send(OK)
    assert statuses(client) == [200, 200]
    assert client.ending is Ending.OPEN


def test_an_old_service_is_not_asked_again(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    gateway.service("users").accept().send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    client.send(get())
    gateway.service("users").accept().send(OK)
    assert statuses(client) == [200, 200]


def test_an_answer_before_the_request_was_whole_spoils_the_connection(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", b"Content-Length: 6\r\n", "POST") + b"abc")
    service = gateway.service("users").accept()
    service.send(OK)
    assert service.ending is Ending.ABORTED


def test_what_may_not_be_repeated_takes_only_fresh_connections(make: Make) -> None:
    gateway = make()
    (old,) = warm(gateway)
    gateway.wait(1.5)
    client = gateway.client()
    client.send(post(b"body"))
    assert b"POST" not in old.received
    gateway.service("users").connections[1].send(OK)
    other = gateway.client()
    other.send(get())
    other.send(get())
    assert b"GET" in gateway.service("users").connections[1].received
    assert statuses(client, "POST") == [200]


def test_idle_connections_are_closed(make: Make) -> None:
    gateway = make()
    (old,) = warm(gateway)
    gateway.wait(29)
    assert old.ending is Ending.OPEN
    gateway.wait(2)
    assert old.ending is not Ending.OPEN


# -- choosing and connecting ---------------------------------------------------------------------


def orders(gateway: MemoryGateway) -> list[int]:
    return [gateway.service("orders", number).attempts for number in range(3)]


def test_targets_take_turns(make: Make) -> None:
    gateway = make()
    for _ in range(9):
        gateway.client().send(get("/orders"))
    assert orders(gateway) == [3, 3, 3]


def test_a_target_that_refuses_is_passed_over(make: Make) -> None:
    gateway = make()
    gateway.service("orders", 1).mode = "refuse"
    for _ in range(10):
        gateway.client().send(post(b"body", "/orders"))
    assert orders(gateway)[1] == 1
    assert orders(gateway)[0] + orders(gateway)[2] == 10
    assert not gateway.finished  # a refused connect was no retry and no failure
    gateway.wait(11)
    for _ in range(3):
        gateway.client().send(get("/orders"))
    assert orders(gateway)[1] == 2


def test_all_targets_refuse(make: Make) -> None:
    gateway = make()
    for number in range(3):
        gateway.service("orders", number).mode = "refuse"
    client = gateway.client()
    client.send(get("/orders"))
    assert statuses(client) == [502]
    assert orders(gateway) == [1, 1, 1]
    assert gateway.finished[0].outcome is Outcome.UPSTREAM_FAILED
    # They are tried again all the same while there is no other.
    gateway.service("orders", 1).mode = "accept"
    client.send(get("/orders"))
    gateway.service("orders", 1).accept().send(OK)
    assert statuses(client) == [502, 200]


def test_the_only_target_refuses(make: Make) -> None:
    gateway = make()
    gateway.service("users").mode = "refuse"
    client = gateway.client()
    client.send(post(b"body"), apart=False)
    client.send(get())
    assert statuses(client, "POST", "GET") == [502, 502]
    assert connections(gateway) == 2


def test_a_target_that_does_not_answer_a_connect(make: Make) -> None:
    gateway = make()
    gateway.service("orders", 0).mode = "silent"
    client = gateway.client()
    client.send(post(b"body", "/orders"))
    gateway.wait(2.5)
    assert orders(gateway) == [1, 0, 0]
    gateway.wait(1)
    assert orders(gateway) == [1, 1, 0]
    gateway.service("orders", 1).accept().send(OK)
    assert statuses(client, "POST") == [200]


def test_no_target_answers_a_connect(make: Make) -> None:
    gateway = make()
    gateway.service("users").mode = "silent"
    client = gateway.client()
    client.send(get())
    gateway.wait(4)
    assert statuses(client) == [504]
    assert gateway.finished[0].outcome is Outcome.UPSTREAM_TIMEOUT


def test_a_request_moves_on_when_a_target_resets(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/orders"))
    gateway.service("orders", 0).accept().reset()
    assert orders(gateway) == [1, 1, 0]
    gateway.service("orders", 1).accept().send(OK)
    assert statuses(client) == [200]


# -- the cap and the queue -----------------------------------------------------------------------

FEW = standard(upstream=", connections: 2, waiting: 2, wait: 1s")


def test_who_waits_gets_the_next_connection(make: Make) -> None:
    gateway = make(FEW)
    clients = [gateway.client() for _ in range(4)]
    for number, client in enumerate(clients):
        client.send(post(b"body", f"/open/{number}"))
    assert connections(gateway) == 2
    first = gateway.service("users").accept()
    first.send(OK)
    assert b"/open/2" in first.received
    first.send(OK)
    assert b"/open/3" in first.received
    first.send(OK)
    assert [statuses(c, "POST") for c in (clients[0], clients[2], clients[3])] == [[200]] * 3
    assert connections(gateway) == 2


def test_too_many_wait(make: Make) -> None:
    gateway = make(FEW)
    clients = [gateway.client() for _ in range(5)]
    for client in clients:
        client.send(get())
    (found,) = clients[4].answers()
    assert found.status == 503
    assert found.field("retry-after") == "1"
    assert connections(gateway) == 2


def test_too_long_a_wait(make: Make) -> None:
    gateway = make(FEW)
    clients = [gateway.client() for _ in range(4)]
    for client in clients:
        client.send(get())
    gateway.wait(1.5)
    assert statuses(clients[2]) == statuses(clients[3]) == [503]
    for wire in gateway.service("users").connections:
        wire.send(OK)
    assert statuses(clients[0]) == statuses(clients[1]) == [200]
    assert repr(gateway.gateway.fleet.targets[0].pool) == "<Pool open=2/2 idle=2 waiting=0>"


def test_who_waited_may_go_away(make: Make) -> None:
    gateway = make(FEW)
    clients = [gateway.client() for _ in range(4)]
    for number, client in enumerate(clients):
        client.send(get(f"/open/{number}"))
    clients[2].reset()
    first = gateway.service("users").accept()
    first.send(OK)
    assert b"/open/3" in first.received
    assert b"/open/2" not in gateway.service("users").received


def test_a_lost_connection_makes_room_for_who_waits(make: Make) -> None:
    gateway = make(FEW)
    clients = [gateway.client() for _ in range(3)]
    for client in clients[:2]:
        client.send(post(b"body"))
    clients[2].send(post(b"body", "/open/waiting"))
    gateway.service("users").accept().reset()
    assert statuses(clients[0], "POST") == [502]
    gateway.service("users").accept()
    third = gateway.service("users").accept()
    assert b"/open/waiting" in third.received


def test_a_connection_that_is_too_old_makes_room(make: Make) -> None:
    gateway = make(FEW)
    old = warm(gateway, 2)
    gateway.wait(5)
    client = gateway.client()
    client.send(post(b"body"))
    assert sum(wire.ending is Ending.OPEN for wire in old) == 1
    gateway.service("users").connections[2].send(OK)
    assert statuses(client, "POST") == [200]


# -- clients that go away ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "end"])
def test_a_client_goes_in_its_head(make: Make, how: str) -> None:
    gateway = make()
    client = gateway.client()
    client.send(b"GET /open HTTP/1.1\r\nHo")
    getattr(client, how)()
    assert not gateway.finished
    assert not gateway.gateway.listeners[0].connections


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_goes_in_its_body(make: Make, how: str, chunked: bool) -> None:
    """The service must not take what it has for the whole."""
    gateway = make()
    client = gateway.client()
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: 9\r\n"
    client.send(get("/open", framing, "POST") + (b"3\r\nabc\r\n" if chunked else b"abc"))
    service = gateway.service("users").accept()
    getattr(client, how)()
    assert service.ending is Ending.ABORTED
    assert not service.received.endswith(b"0\r\n\r\n")
    assert [e.outcome for e in gateway.finished] == [Outcome.CLIENT_GONE]


@pytest.mark.parametrize("how", ["reset", "end"])
def test_a_client_goes_before_the_answer(make: Make, how: str) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    getattr(client, how)()
    assert service.ending is Ending.ABORTED
    assert [e.outcome for e in gateway.finished] == [Outcome.CLIENT_GONE]


@pytest.mark.parametrize("how", ["reset", "end"])
def test_a_client_goes_within_the_answer(make: Make, how: str) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    getattr(client, how)()
    assert service.ending is Ending.ABORTED
    assert [e.outcome for e in gateway.finished] == [Outcome.CLIENT_GONE]


def test_a_client_goes_while_a_connect_is_under_way(make: Make) -> None:
    """The connection is made all the same, and kept for the next request."""
    gateway = make()
    gateway.service("users").mode = "silent"
    client = gateway.client()
    client.send(get())
    client.reset()
    assert [e.outcome for e in gateway.finished] == [Outcome.CLIENT_GONE]
    gateway.wait(4)
    gateway.service("users").mode = "accept"
    other = gateway.client()
    other.send(get())
    gateway.service("users").accept().send(OK)
    assert statuses(other) == [200]


def test_a_client_goes_with_requests_ahead(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open/1") + get("/open/2") + post(b"body", "/open/3"))
    client.reset()
    received = gateway.service("users").received
    assert b"/open/1" in received
    assert b"/open/2" not in received
    assert len(gateway.finished) == 1


def test_both_go(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get())
    service = gateway.service("users").accept()
    service.has_gone = True
    client.reset()
    assert len(gateway.finished) == 1


def test_an_error_of_our_own(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = make()
    monkeypatch.setattr(gateway.gateway.keys, "index", None)
    client = gateway.client()
    client.send(get("/users", b"X-API-Key: a\r\n"))
    (found,) = client.answers()
    assert found.status == 500
    assert "failed" in found.json["detail"]
    assert b"NoneType" not in client.received
    client.send(get("/nothing"))
    assert statuses(client) == [500, 404]


def test_the_cap_holds_while_an_old_connection_makes_room(make: Make) -> None:
    gateway = make(FEW)
    warm(gateway, 2)
    gateway.wait(5)
    posting = [gateway.client() for _ in range(4)]
    for client in posting:
        client.send(post(b"body"))
    live = [w for w in gateway.service("users").connections if w.ending is Ending.OPEN]
    assert len(live) == 2
