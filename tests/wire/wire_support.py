"""The standard configuration, small words for requests and answers, and what always holds."""

from __future__ import annotations

import re
from itertools import takewhile

import h11

from edgeproxy.testing import Ending, MemoryGateway, Wire

HOST = b"Host: api.example.com\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def standard(*, top: str = "", upstream: str = "", routes: str = "", users: str = "") -> str:
    """A configuration; the arguments are added at their places (``upstream`` and ``users`` to
    flow mappings, ``routes`` as lines)."""
    return f"""
{top}
limits:
  few: {{ rate: 2/min }}
  fewer: {{ rate: 1/min }}
  address: {{ rate: 3/min, by: address }}
upstreams:
  users: {{ targets: [http://10.0.0.1:9001]{upstream} }}
  orders: [http://10.0.0.2:9002, http://10.0.0.3:9002, http://10.0.0.4:9002]
routes:
  api.example.com:
    /open: {{ to: users, auth: none{users} }}
    /users: users
    /orders: {{ to: orders, auth: none }}
    GET|PUT /methods: {{ to: users, auth: none }}
    /scoped: {{ to: users, scopes: [read, write] }}
    /grouped: {{ to: users, groups: [staff, ops] }}
    /limited: {{ to: users, auth: none, limit: few }}
    /limited2: {{ to: users, limit: [few, fewer] }}
    /guarded: {{ to: users, limit: address }}
    /small: {{ to: users, auth: none, body: 10B }}
{routes}
"""


def get(path: str = "/open", fields: bytes = b"", method: str = "GET") -> bytes:
    return b"%b %b HTTP/1.1\r\n" % (method.encode(), path.encode()) + HOST + fields + b"\r\n"


def post(body: bytes, path: str = "/open", fields: bytes = b"", *, chunked: bool = False) -> bytes:
    if chunked:
        fields += b"Transfer-Encoding: chunked\r\n"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        fields += b"Content-Length: %d\r\n" % len(body)
    return get(path, fields, "POST") + body


def answer(body: bytes = b"ok", fields: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, fields, len(body), body)


def lines(head: bytes) -> list[bytes]:
    """The field lines of a message."""
    return head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


def names(head: bytes) -> list[bytes]:
    return [line.partition(b":")[0].lower() for line in lines(head)]


def connections(gateway: MemoryGateway) -> int:
    """How many connections the gateway has made or tried, to any service."""
    return sum(service.attempts for service in gateway.services.values())


# -- what always holds -------------------------------------------------------------------------


def check(gateway: MemoryGateway, rest: float = 200.0) -> None:
    """Look at everything again, then end it all: after ``rest`` seconds, longer than any time-out
    that is at work, nothing may be left over."""
    for client in gateway.clients:
        # What follows a 101 is no HTTP: h11 reads what came before it.
        http = list(takewhile(lambda e: e.status != 101, gateway.exchanges(client)))
        read_as_client(client, [e.method for e in http])
    for service in gateway.services.values():
        for wire in service.connections:
            read_as_server(wire.received)
    assert [s.late for s in gateway.streams if s.late] == []
    assert len({id(each) for each in gateway.finished}) == len(gateway.finished)
    if gateway.config.access_log != "off":
        outcomes = [each.outcome.value if each.outcome else "" for each in gateway.finished]
        assert [line["outcome"] for line in gateway.log] == outcomes
        assert "edge_" not in repr(gateway.log)
    for client in gateway.clients:
        client.flow()
        client.reset()
    gateway.wait(rest)
    for listening in gateway.gateway.listeners:
        assert not listening.connections
        assert listening.port.open == 0
    for target in gateway.gateway.fleet.targets:
        assert not target.clients
        assert repr(target.pool).startswith("<Pool open=0/"), target
        assert not target.pool.waiting
    waiting = gateway.gateway.deadlines.waiting - {gateway.gateway.fleet}
    assert not waiting


def read_as_client(client: Wire, methods: list[bytes]) -> None:
    """Everything that a client got is a row of answers; only an aborted row may be cut."""
    connection = h11.Connection(h11.CLIENT)
    if client.received:
        connection.receive_data(client.received)
    whole = client.ending is Ending.ENDED and not client.left
    if whole:
        connection.receive_data(b"")
    for method in methods:
        known = method.decode() if re.fullmatch(rb"[A-Z]+", method) else "GET"
        connection.send(h11.Request(method=known, target="/", headers=[("Host", "x")]))
        connection.send(h11.EndOfMessage())
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                assert not whole, "an answer that is not whole"
                return
            if isinstance(event, h11.EndOfMessage):
                break
        if connection.their_state is h11.MUST_CLOSE or connection.our_state is h11.MUST_CLOSE:
            rest = connection.trailing_data[0]
            assert not rest, f"after the last answer: {rest!r}"
            return
        if connection.their_state is h11.CLOSED:
            return
        connection.start_next_cycle()


def read_as_server(data: bytes) -> None:
    """Everything that a service got is a row of requests; the last may be cut."""
    connection = h11.Connection(h11.SERVER)
    if data:
        connection.receive_data(data)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED:
            return
        if isinstance(event, h11.Request) and (b"upgrade", b"websocket") in list(event.headers):
            return  # perhaps a tunnel follows
        if isinstance(event, h11.EndOfMessage):
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is h11.MUST_CLOSE:
                assert not connection.trailing_data[0], "more, after what was said to be the last"
                return
            connection.start_next_cycle()
