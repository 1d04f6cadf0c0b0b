"""`/healthz` and `/readyz`: where they answer, what they say, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from wire_support import get, standard

from edgeproxy.certs.names import NameMap
from edgeproxy.config import ConfigError, parse
from edgeproxy.reloading import Staged
from edgeproxy.testing import Ending, MemoryGateway, Wire
from edgeproxy.testing.reactor import EPOCH

Make = Callable[..., MemoryGateway]
HEALTH = 'health: "127.0.0.1:9000"'


def ask(client: Wire, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Status and body of one more answer on this connection."""
    before = len(client.received)
    client.send(get(path, method=method))
    head, _, body = client.received[before:].partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.fixture(params=["plain", "own"])
def at(request: pytest.FixtureRequest, make: Make) -> tuple[MemoryGateway, Callable[[], Wire]]:
    """A gateway, and who connects to where its probes answer."""
    own = request.param == "own"
    gateway = make(standard(top=HEALTH) if own else None)
    return gateway, lambda: gateway.client(plain=not own, probe=own)


def test_alive_and_ready(at: tuple[MemoryGateway, Callable[[], Wire]]) -> None:
    gateway, connect = at
    client = connect()
    assert ask(client, "/healthz") == (200, b"ok\n")
    assert ask(client, "/readyz") == (200, b"ok\n")
    assert ask(client, "/readyz?from=lb") == (200, b"ok\n")
    assert ask(client, "/readyz", "HEAD") == (200, b"")
    assert client.ending is Ending.OPEN, "a prober keeps its connection"
    assert gateway.log == [], "probes are not logged"
    assert gateway.gateway.readiness.probes == {"healthz": 1, "readyz": 3}
    assert gateway.gateway.counters.as_dict()["requests"] == 0


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_balancers_name_no_host(
    at: tuple[MemoryGateway, Callable[[], Wire]], version: bytes
) -> None:
    """HAProxy's `option httpchk GET /readyz` sends two words and a version, nothing else."""
    gateway, connect = at
    for path in (b"/readyz", b"/healthz", b"/readyz?from=lb"):
        client = connect()
        client.send(b"GET %b HTTP/%b\r\n\r\n" % (path, version))
        assert client.received.startswith(b"HTTP/1.1 200 OK\r\n"), path
        assert client.received.endswith(b"\r\n\r\nok\n")
        assert (client.ending is Ending.OPEN) == (version == b"1.1")
    assert gateway.log == []
    for path in (b"/", b"/healthz/", b"/healthzz", b"http://a/healthz"):
        client = connect()
        client.send(b"GET %b HTTP/%b\r\n\r\n" % (path, version))
        assert client.received.startswith(b"HTTP/1.1 400 "), path
    gateway.gateway.use(gateway.gateway.build(gateway.config), Staged())
    client = connect()
    client.send(b"GET /readyz HTTP/%b\r\n\r\n" % version)
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n"), "after a reload too"


def test_nothing_is_without_a_host_elsewhere(make: Make) -> None:
    """Neither over TLS, nor on the plain listener where probes have one of their own."""
    gateway = make(standard(routes="    /healthz: { to: users, auth: none }", top=HEALTH))
    for client in (gateway.client(), gateway.client(plain=True)):
        client.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert client.received.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods(at: tuple[MemoryGateway, Callable[[], Wire]], method: str) -> None:
    client = at[1]()
    assert ask(client, "/healthz", method)[0] == 405
    assert b"Allow: GET, HEAD\r\n" in client.received


def test_ready_no_longer_once_it_drains(at: tuple[MemoryGateway, Callable[[], Wire]]) -> None:
    gateway, connect = at
    busy = gateway.client()
    busy.send(get("/open"))
    client = connect()
    assert ask(client, "/readyz")[0] == 200
    gateway.gateway.drain()
    if gateway.gateway.probing:
        assert ask(client, "/readyz") == (503, b"draining\n")
        assert ask(client, "/healthz") == (200, b"ok\n")
        assert ask(connect(), "/readyz") == (503, b"draining\n"), "new connections are taken too"
        gateway.wait(29)
        assert ask(client, "/readyz") == (503, b"draining\n")
        assert gateway.gateway.draining is not None and not gateway.gateway.draining.called
        gateway.gateway._end_probing()
        gateway.wait(3)
    assert client.ending is not Ending.OPEN


def test_a_prober_does_not_hold_up_the_drain(quick: Make) -> None:
    gateway = quick(standard(top=HEALTH))
    client = gateway.client(probe=True)
    assert ask(client, "/readyz")[0] == 200
    done = gateway.gateway.drain()
    assert done.called


def test_not_ready_before_the_start_nor_without_a_certificate(quick: Make) -> None:
    gateway = quick()
    gateway.gateway.running = False
    client = gateway.client(plain=True)
    assert ask(client, "/readyz") == (503, b"starting\n")
    gateway.gateway.running = True
    assert ask(client, "/readyz")[0] == 200
    gateway.gateway.tls.swap(NameMap((), None, datetime.fromtimestamp(EPOCH, UTC)))
    assert ask(client, "/readyz") == (503, b"no certificate\n")
    assert ask(client, "/healthz") == (200, b"ok\n")


def test_a_listener_of_its_own_has_nothing_else(make: Make) -> None:
    gateway = make(standard(top=HEALTH))
    client = gateway.client(probe=True)
    for path in ("/", "/healthz/", "/healthz/x", "/readyzz", "/open", "/HEALTHZ", "//healthz"):
        assert ask(client, path)[0] == 404
    assert {line["status"] for line in gateway.log} == {404}
    plain = gateway.client(plain=True)
    assert ask(plain, "/healthz")[0] == 308, "there they are no longer"


def test_the_plain_listener_redirects_all_else(quick: Make) -> None:
    client = quick().client(plain=True)
    for path in ("/", "/healthz/", "/healthz2", "/x/healthz"):
        assert ask(client, path)[0] == 308


def test_never_among_the_routes(make: Make) -> None:
    """Over TLS the paths are the services': here a route of its own takes one."""
    gateway = make(standard(routes="    /healthz: { to: users, auth: none }"))
    client = gateway.client()
    assert ask(client, "/readyz")[0] == 404
    client.send(get("/healthz"))
    assert b"GET /healthz" in gateway.service("users").accept().received


def test_the_number_of_probers_is_bounded(quick: Make) -> None:
    gateway = quick(standard(top=HEALTH))
    (probing,) = gateway.gateway.probing
    assert probing.port._limit == 64


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('health: ":8443"', "1:9: ':8443' is an address of `listen` already"),
        ("health: 9000", '1:9: 9000 is a number; write ":9000"'),
        ("health: here", "1:9: 'here' is not an address to listen on"),
        ('healthz: ":9000"', "1:1: 'healthz' is not a setting here; did you mean 'health'?"),
    ],
)
def test_messages(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f'{text}\nroutes: {{ "*": {{ /: {{ page: true }} }} }}\n')
    assert why in str(caught.value)
