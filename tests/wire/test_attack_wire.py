"""What a hostile client tries on a connection, beyond what is malformed by the letter."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from time import process_time

import pytest
from wire_support import HOST, OK, connections, get, standard

from edgeproxy.testing import Ending, MemoryGateway
from edgeproxy.transport.stream import HIGH_WATER

Make = Callable[..., MemoryGateway]


@pytest.mark.parametrize(
    "target",
    [
        b"/open",
        b"/open?a=b",
        b"/open/%61",
        b"https://api.example.com/open",
        b"api.example.com:443",
        b"*",
    ],
)
def test_no_service_sees_a_connect(make: Make, target: bytes) -> None:
    """It would take the connection for a tunnel, and the next caller's request for its bytes."""
    gateway = make()
    client = gateway.client()
    client.send(b"CONNECT " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n" + get())
    (answer,) = client.answers()
    assert answer.status == 400
    assert client.ending is Ending.ENDED
    assert connections(gateway) == 0


def test_a_client_that_asks_on_but_takes_no_answer_is_not_read_on(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    client.stall()
    for _ in range(10):
        client.send(get("/nothing") * 100)
    for _ in range(100):
        client.send(b"A: b\r\n" * 5000)
    (server,) = gateway.gateway.listeners[0].connections
    assert not server.stream.reading
    assert len(server.buffer) < 3 * HIGH_WATER


def test_it_is_read_again_when_it_takes_its_answers(quick: Make) -> None:
    gateway = quick()
    client = gateway.client()
    client.stall()
    client.send(get("/nothing") * 300)
    padding = get("/nothing", b"A: " + b"b" * 9000 + b"\r\n")
    client.send(padding * 20)
    (server,) = gateway.gateway.listeners[0].connections
    assert not server.stream.reading
    client.flow()
    assert len(client.answers()) == 320
    client.send(get("/nothing"))
    assert len(client.answers()) == 321


@pytest.mark.parametrize("cut", range(1, 60))
def test_two_empty_lines_between_requests_however_they_arrive(quick: Make, cut: int) -> None:
    gateway = quick()
    client = gateway.client()
    client.send(get("/nothing"))
    data = b"\r\n\r\n" + get("/nothing")
    client.send(data[:cut])
    client.send(data[cut:])
    assert [answer.status for answer in client.answers()] == [404, 404]


def test_a_connection_field_of_thousands_of_names_costs_little(quick: Make) -> None:
    gateway = quick()
    letters = b"abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"
    options = [bytes(pair) for pair in product(letters, repeat=2)]
    rest = b"".join(b"x%d: y\r\n" % number for number in range(90))
    service = gateway.service("users")

    def cost(names: list[bytes]) -> float:
        client = gateway.client()
        before = process_time()
        client.send(get("/open", b"Connection: " + b",".join(names) + b"\r\n" + rest))
        used = process_time() - before
        service.connections[-1].send(OK)
        assert client.answers()[0].status == 200
        return used

    least = min(cost(options[:1]) for _ in range(5))
    most = min(cost(options) for _ in range(5))
    assert most < 12 * least  # one look at each line for each name: a hundred times as much


def test_what_connection_names_is_taken_out_in_any_case(make: Make) -> None:
    gateway = make()
    client = gateway.client()
    fields = b"Connection: One, tWo\r\nONE: 1\r\ntwo: 2\r\nThree: 3\r\nOne-more: 4\r\n"
    client.send(get("/open", fields))
    wire = gateway.service("users").accept()
    wire.send(OK)
    assert b"ONE:" not in wire.received and b"two:" not in wire.received
    assert b"Three: 3" in wire.received and b"One-more: 4" in wire.received


PARAMETERS = standard(
    routes="""
    /admin: { to: users, scopes: [admin] }
    exact:/report;full: { to: users, auth: none }
    /: { to: users, auth: none }
"""
)


@pytest.mark.parametrize(
    "path", ["/admin;x", "/admin;x=y/z", "/admin%3bx", "/%61dmin;x", "/admin;", "/admin;;/a"]
)
def test_parameters_of_a_path_lead_round_no_route(make: Make, path: str) -> None:
    """A servlet answers `/admin;x` by what stands at `/admin`."""
    gateway = make(PARAMETERS)
    client = gateway.client()
    client.send(get(path))
    assert [answer.status for answer in client.answers()] == [400]
    assert connections(gateway) == 0


@pytest.mark.parametrize("path", ["/other;x", "/open/x;y/z;", "/a;b/admin;c", "/report;full"])
def test_parameters_pass_where_they_lead_nowhere_else(make: Make, path: str) -> None:
    gateway = make(PARAMETERS)
    client = gateway.client()
    client.send(get(path))
    wire = gateway.service("users").accept()
    assert wire.received.startswith(f"GET {path} HTTP/1.1\r\n".encode())
    wire.send(OK)
    assert [answer.status for answer in client.answers()] == [200]


@pytest.mark.parametrize(
    ("space", "status"), [(" ", 200), ("   ", 200), ("\t", 401), (" \t ", 401), (" \t", 401)]
)
def test_a_key_is_found_behind_any_space(make: Make, space: str, status: int) -> None:
    """Where a credential is voluntary, one that is spelled oddly is none that may be left out,
    and none that the service may see."""
    gateway = make(standard(users="", routes="    /any: { to: users, auth: [api_key, anonymous] }"))
    key = gateway.key("good")
    client = gateway.client()
    client.send(get("/any", f"Authorization: bEaReR{space}{key}\r\n".encode()))
    if status == 200:
        wire = gateway.service("users").accept()
        wire.send(OK)
        assert key.encode() not in wire.received
        assert b"X-Consumer-Id" in wire.received
    assert [answer.status for answer in client.answers()] == [status]


@pytest.mark.parametrize("value", ["Beareredge_x", "Bearer other", "Basic edge_x", "Bearer"])
def test_what_is_no_key_of_ours_is_the_services(make: Make, value: str) -> None:
    gateway = make()
    client = gateway.client()
    client.send(get("/open", f"Authorization: {value}\r\n".encode()))
    wire = gateway.service("users").accept()
    assert f"Authorization: {value}\r\n".encode() in wire.received
    wire.send(OK)


MARKS = [b"X.Consumer.Id", b"x~consumer!name", b"X|Edge-Token", b"Client.Cert", b"X'Real'IP"]


@pytest.mark.parametrize("name", MARKS)
def test_no_mark_stands_for_the_hyphen_of_a_reserved_field(make: Make, name: bytes) -> None:
    """Some servers make an underscore of every mark (lighttpd, older CGI)."""
    rules = ", request: { set: { Client-Certificate: none, X-Token: ours } }"
    gateway = make(standard(users=rules))
    client = gateway.client()
    fields = name + b": evil\r\nX.Token: evil\r\nX.Other: fine\r\n"
    trailers = name + b": evil\r\nX.Token: evil\r\n"
    body = b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + trailers + b"\r\n"
    client.send(get("/open", fields, "POST")[:-2] + body)
    wire = gateway.service("users").accept()
    wire.send(OK)
    assert b"evil" not in wire.received
    assert b"X.Other: fine" in wire.received and b"X-Token: ours" in wire.received
