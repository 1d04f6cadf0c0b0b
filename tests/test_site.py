"""The gateway as a resource in a stock ``twisted.web.server.Site``, over real loopback sockets.

The reactor is one of our own, turned by the test, so that none is left running.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.web.resource import Resource
from twisted.web.server import Site

from edgeproxy.config import parse
from edgeproxy.exchange import Exchange, Outcome
from edgeproxy.filters import Filter, LogEntry, Refuse, Request, Response
from edgeproxy.identity.apikey import digest, make
from edgeproxy.identity.keyfile import parse_line
from edgeproxy.service import Gateway
from edgeproxy.testing import Answer, read_answers

KEY = make(bytes(48))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Tenant(Filter):
    """Has a hook at each place where one may be."""

    sets = ("X-Tenant",)

    def on_request(self, request: Request) -> None:
        if request.query == "no":
            raise Refuse(403, "No.")
        request.headers["X-Tenant"] = request.host

    async def on_response(self, request: Request, response: Response) -> None:
        response.headers["X-Tenant"] = request.host
        waiting: Deferred[None] = Deferred()
        self.later(waiting)
        await waiting

    later: Callable[[Deferred[None]], None]

    def on_log(self, request: Request, entry: LogEntry) -> None:
        entry["tenant"] = request.host


class Service(Protocol):
    """The service behind: ``data`` is what it got."""

    def __init__(self) -> None:
        self.data = b""
        self.gone = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.gone = True

    def say(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


class Mounted:
    """A site with the gateway at its root, and a service that tests play."""

    def __init__(self) -> None:
        reactor = self.reactor = SelectReactor()
        self.services: list[Service] = []
        factory: Any = Factory()
        factory.buildProtocol = self._accepted
        service = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.service_port = service.getHost().port
        self.gateway = Gateway(reactor, parse(self._configuration()), filters={"tenant": Tenant})
        self.finished: list[Exchange] = []
        self.gateway.resource.snapshot.finished = self.finished.append
        line = b'{"id":"%b","name":"ada","digest":"%b","created":"2026-01-01T00:00:00Z"}'
        hashed = digest(KEY.credential.encode())
        line %= KEY.id.encode(), hashed.hex().encode()
        self.gateway.keys.index.add(parse_line(line, 1), line)
        self.site = Site(self.root(), reactor=reactor)
        self.ports = [service, reactor.listenTCP(0, self.site, interface="127.0.0.1")]
        self.clients: list[socket.socket] = []

    def root(self) -> Resource:
        return self.gateway.resource

    def _configuration(self) -> str:
        return f"""
access_log: "off"
limits: {{ few: 2/min }}
hsts: {{ "*": 1h }}
upstreams: {{ users: http://127.0.0.1:{self.service_port} }}
routes:
  "*":
    /open: {{ to: users, auth: none, body: 1MiB }}
    /users: users
    /chat: {{ to: users, auth: none, websocket: true }}
    /limited: {{ to: users, auth: none, limit: few }}
    /filtered: {{ to: users, auth: none, filters: tenant }}
    /cors: {{ to: users, cors: https://app.example.com }}
"""

    def _accepted(self, address: object) -> Service:
        self.services.append(Service())
        return self.services[-1]

    def until(self, condition: Callable[[], object]) -> None:
        """Turn the reactor until something is so; fail after five seconds."""
        end = monotonic() + 5
        while not condition():
            assert monotonic() < end, "it never came to that"
            self.reactor.iterate(0.01)

    def service(self, number: int = 0) -> Service:
        self.until(lambda: len(self.services) > number)
        return self.services[number]

    def client(self, data: bytes) -> Client:
        sock = socket.create_connection(("127.0.0.1", self.ports[1].getHost().port))
        sock.setblocking(False)
        self.clients.append(sock)
        client = Client(self, sock)
        client.send(data)
        return client

    def stop(self) -> None:
        for sock in self.clients:
            sock.close()
        for port in self.ports:
            port.stopListening()
        self.gateway.fleet.stop()
        self.until(lambda: all(service.gone for service in self.services))
        for _ in range(5):
            self.reactor.iterate(0)
        self.reactor.disconnectAll()
        self.reactor.removeAll()


class Client:
    def __init__(self, mounted: Mounted, sock: socket.socket) -> None:
        self._mounted = mounted
        self._socket = sock
        self.data = b""
        self.gone = False

    def send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                self._mounted.reactor.iterate(0)

    def read(self) -> bytes:
        try:
            data = self._socket.recv(1 << 20)
            self.gone |= not data
            self.data += data
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.gone = True
        return self.data

    def close(self) -> None:
        self._socket.close()

    def answer(self, method: str = "GET") -> Answer:
        """Wait for a whole answer."""

        def whole() -> bool:
            try:
                return bool(read_answers(self.read(), [method], ended=self.gone))
            except ValueError:
                return False

        self._mounted.until(whole)
        return read_answers(self.data, [method], ended=self.gone)[0]


@pytest.fixture
def mounted() -> Iterator[Mounted]:
    made = Mounted()
    yield made
    made.stop()


def get(path: bytes, fields: bytes = b"", method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nHost: Site.example:80\r\n" + fields + b"\r\n"


def test_filters_in_a_site(mounted: Mounted) -> None:
    waiting: list[Deferred[None]] = []
    Tenant.later = staticmethod(waiting.append)  # type: ignore[assignment]
    client = mounted.client(get(b"/filtered", b"X-Tenant: evil\r\nx_tenant: evil\r\n"))
    service = mounted.service()
    mounted.until(lambda: service.data.endswith(b"\r\n\r\n"))
    assert b"X-Tenant: site.example\r\n" in service.data
    assert b"evil" not in service.data
    service.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
    mounted.until(lambda: waiting)
    service.say(b"ok")
    assert client.read() == b""
    waiting.pop().callback(None)
    answer = client.answer()
    assert (answer.status, answer.body, answer.field("X-Tenant")) == (200, b"okok", "site.example")
    refused = mounted.client(get(b"/filtered?no"))
    assert refused.answer().status == 403
    open_ = mounted.client(get(b"/open", b"X-Tenant: evil\r\n"))
    mounted.until(lambda: b"GET /open" in b"".join(each.data for each in mounted.services))
    assert b"evil" not in b"".join(each.data for each in mounted.services)
    open_.close()
    assert [each.notes for each in mounted.finished[:2]] == ['"tenant":"site.example",'] * 2


def test_a_request(mounted: Mounted) -> None:
    fields = b"X-Api-Key: " + KEY.credential.encode() + b"\r\nX-Consumer-Id: root\r\nX-A: 1\r\n"
    client = mounted.client(get(b"/users/a%20b?c=d", fields))
    service = mounted.service()
    mounted.until(lambda: service.data.endswith(b"\r\n\r\n"))
    lines = service.data.split(b"\r\n")
    assert lines[0] == b"GET /users/a%20b?c=d HTTP/1.1"
    assert b"Host: site.example" in lines
    assert b"X-Consumer-Id: " + KEY.id.encode() in lines
    assert b"X-Consumer-Name: ada" in lines
    assert b"X-Forwarded-For: 127.0.0.1" in lines
    assert b"root" not in service.data
    assert KEY.credential.encode() not in service.data
    back = b"HTTP/1.1 201 Made\r\nContent-Length: 2\r\nX-B: 1\r\nX-B: 2\r\nServer: a/1\r\n\r\nok"
    service.say(back)
    answer = client.answer()
    assert (answer.status, answer.body, answer.all("x-b")) == (201, b"ok", ["1", "2"])
    assert "a/1" not in answer.all("server")
    assert [each.outcome for each in mounted.finished] == [Outcome.OK]


class Front(Resource):
    """Tells twisted.web, as its `VHostMonster` does, that TLS ends at a proxy in front."""

    isLeaf = True

    def __init__(self, behind: Resource) -> None:
        super().__init__()
        self._behind = behind

    def render(self, request: Any) -> Any:
        request.setHost(b"site.example", 443, ssl=True)
        return self._behind.render(request)


@pytest.mark.parametrize(("secure", "value"), [(False, None), (True, "max-age=3600")])
def test_strict_transport_over_tls_alone(mounted: Mounted, secure: bool, value: str) -> None:
    if secure:
        mounted.site.resource = Front(mounted.root())
    refused = mounted.client(get(b"/users")).answer()
    assert (refused.status, refused.field("strict-transport-security")) == (401, value)
    client = mounted.client(get(b"/open"))
    mounted.service().say(OK)
    answer = client.answer()
    assert (answer.status, answer.field("strict-transport-security")) == (200, value)


def test_other_origins(mounted: Mounted) -> None:
    origin = b"Origin: https://app.example.com\r\n"
    asked = origin + b"Access-Control-Request-Method: PUT\r\n"
    answer = mounted.client(get(b"/cors", asked, b"OPTIONS")).answer("OPTIONS")
    assert (answer.status, answer.field("access-control-allow-methods")) == (204, "PUT")
    answer = mounted.client(get(b"/cors", origin)).answer()
    assert (answer.status, answer.field("vary")) == (401, "Origin")
    fields = origin + b"X-API-Key: %b\r\n" % KEY.credential.encode()
    client = mounted.client(get(b"/cors", fields))
    theirs = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok"
    mounted.service().say(theirs)
    answer = client.answer()
    assert answer.all("access-control-allow-origin") == ["https://app.example.com"]


def test_there_are_no_tunnels(mounted: Mounted) -> None:
    """What twisted.web has read of the connection cannot be given away any more."""
    client = mounted.client(get(b"/chat", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    service = mounted.service()
    mounted.until(lambda: service.data.endswith(b"\r\n\r\n"))
    assert b"pgrade" not in service.data
    service.say(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert client.answer().status == 502


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 300_000])
def test_bodies(mounted: Mounted, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    client = mounted.client(get(b"/open", b"Content-Length: %d\r\n" % size, b"POST") + body[:size])
    service = mounted.service()
    mounted.until(lambda: len(service.data.partition(b"\r\n\r\n")[2]) == size)
    assert service.data.partition(b"\r\n\r\n")[2] == body[:size]
    service.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body[:size])
    assert client.answer("POST").body == body[:size]


def test_a_chunked_body(mounted: Mounted) -> None:
    client = mounted.client(
        get(b"/open", b"Transfer-Encoding: chunked\r\n", b"PUT")
        + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    service = mounted.service()
    mounted.until(lambda: service.data.endswith(b"abcde"))
    assert b"Content-Length: 5" in service.data.split(b"\r\n")
    service.say(OK)
    assert client.answer("PUT").status == 200


def test_an_answer_is_streamed(mounted: Mounted) -> None:
    """What the service has said arrives before it has said all."""
    client = mounted.client(get(b"/open"))
    service = mounted.service()
    service.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    mounted.until(lambda: b"\r\n\r\n" in client.read())
    service.say(b"3\r\nabc\r\n")
    mounted.until(lambda: b"abc" in client.read())
    service.say(b"2\r\nde\r\n0\r\n\r\n")
    assert client.answer().body == b"abcde"


def test_a_slow_client_slows_the_service(mounted: Mounted) -> None:
    client = mounted.client(get(b"/open"))
    service = mounted.service()
    size = 20_000_000
    service.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    service.say(bytes(size))
    for _ in range(300):
        mounted.reactor.iterate(0)
    (exchange,) = [c.exchange for t in mounted.gateway.fleet.targets for c in t.clients]
    assert exchange is not None
    assert exchange.sent < size / 2
    mounted.until(lambda: len(client.read()) > size)
    assert len(client.answer().body) == size


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_an_answer_that_ends_early_is_cut(mounted: Mounted, framing: bytes) -> None:
    client = mounted.client(get(b"/open"))
    service = mounted.service()
    body = b"3\r\nabc\r\n" if b"chunked" in framing else b"abc"
    service.say(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + body)
    mounted.until(lambda: b"abc" in client.read())
    service.abort()
    mounted.until(lambda: client.read() and client.gone)
    assert not client.data.endswith(b"0\r\n\r\n")
    with pytest.raises(ValueError, match="not whole"):
        read_answers(client.data, [], ended=True)
    assert [each.outcome for each in mounted.finished] == [Outcome.UPSTREAM_RESET]


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_goes(mounted: Mounted, begun: bool) -> None:
    client = mounted.client(get(b"/open"))
    service = mounted.service()
    mounted.until(lambda: service.data)
    if begun:
        service.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        mounted.until(lambda: b"abc" in client.read())
    client.close()
    mounted.until(lambda: service.gone)
    assert [each.outcome for each in mounted.finished] == [Outcome.CLIENT_GONE]


def test_the_service_refuses(mounted: Mounted) -> None:
    mounted.ports[0].stopListening()
    mounted.reactor.iterate(0)
    answer = mounted.client(get(b"/open")).answer()
    assert answer.status == 502
    assert answer.field("content-type") == "application/problem+json"
    assert answer.json["request_id"] == answer.field("x-request-id")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get(b"/users"), 401),
        (get(b"/users", b"X-API-Key: wrong\r\n"), 401),
        (get(b"/nothing"), 404),
        (get(b"/open", method=b"TRACE"), 405),
        (get(b"/open/../users"), 400),
        (get(b"/open%2fa"), 400),
        (get(b"/open", b"Connection: content-length\r\n"), 400),
        (get(b"/open", b"Content-Length: 2000000\r\n", b"POST") + bytes(2_000_000), 413),
        (b"GET /open HTTP/1.1\r\n\r\n", 400),
        (b"GET /open HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /open HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ],
    ids=["no key", "wrong key", "no route", "trace", "dots", "slash", "frame", "size", "no host",
         "two hosts", "bad host"],
)  # fmt: skip
def test_refusals(mounted: Mounted, data: bytes, status: int) -> None:
    answer = mounted.client(data).answer()
    assert answer.status == status
    assert not mounted.services
    assert answer.json["status"] == status
    assert b"Traceback" not in answer.body
    if status == 401:
        assert (answer.field("www-authenticate") or "").startswith("Bearer")


def test_limits(mounted: Mounted) -> None:
    statuses = []
    for number in range(3):
        client = mounted.client(get(b"/limited"))
        if number < 2:
            mounted.until(lambda: any(s.data for s in mounted.services))
            for service in mounted.services:
                if service.data:
                    service.data = b""
                    service.say(OK)
        answer = client.answer()
        statuses.append((answer.status, answer.field("ratelimit-policy")))
    assert statuses == [(200, '"few";q=2;w=60')] * 2 + [(429, '"few";q=2;w=60')]


def test_head(mounted: Mounted) -> None:
    client = mounted.client(get(b"/open", method=b"HEAD"))
    mounted.service().say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    answer = client.answer("HEAD")
    assert (answer.status, answer.field("content-length"), answer.body) == (200, "5", b"")


def test_keep_alive(mounted: Mounted) -> None:
    client = mounted.client(get(b"/open"))
    service = mounted.service()
    service.say(OK)
    client.answer()
    client.data = b""
    service.data = b""
    client.send(get(b"/open/2"))
    mounted.until(lambda: b"/open/2" in service.data)
    service.say(OK)
    assert client.answer().body == b"ok"
    assert len(mounted.services) == 1
