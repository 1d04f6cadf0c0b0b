"""Services on Unix sockets and at addresses of IPv6."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dns_support import start_dns
from peers_support import Peer, peer, polite
from real_support import Callers, Start
from running_support import Development, Nginx, free_port, wait_for


def config(target: str, **more: Any) -> dict[str, Any]:
    upstream = {"targets": target, "eject": {"time": "50ms"}}
    return {"upstreams": {"web": upstream}, "routes": {"*": {"/": "web"}}, **more}


def last(running: Any, count: int = 1) -> dict[str, Any]:
    """The last line of the access log, once it has so many."""
    lines: list[dict[str, Any]] = wait_for(
        lambda: found if len(found := running.log_lines()) >= count else None
    )
    return lines[-1]


# -- Unix sockets --------------------------------------------------------------------------------


@pytest.mark.debian("nginx")
def test_a_service_on_a_socket(gateway: Start, nginx: Callable[..., Nginx], tmp_path: Path) -> None:
    """The path is relative to the configuration's folder; the Host is the client's."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    path = folder / "app.sock"
    nginx(
        f"listen unix:{path};"
        'location / { return 200 "$host $remote_addr"; }'
        "location /moved { return 302 /new; }"
    )
    running = gateway(config("unix:app.sock"))
    for _ in range(3):
        assert running.ask().body == b"localhost unix:"
    assert last(running)["upstream"] == f"unix:{path}"
    told = " ".join(running.command("status").stdout.split())
    assert f"web unix:{path} healthy 1 0 1, 1 idle" in told
    assert running.ask("/moved").fields["Location"] == f"{running.url}/new"


def test_no_service_on_a_socket(gateway: Start, tmp_path: Path) -> None:
    running = gateway(config("unix:app.sock"))
    path = tmp_path / "gateway" / "app.sock"
    assert running.ask().status == 502
    assert last(running)["reason"] == f"unix:{path}: No such file or directory"
    path.write_bytes(b"")
    assert running.ask().status == 502
    assert last(running, 2)["reason"] == f"unix:{path}: Connection refused", "not a socket"
    path.unlink()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert running.ask().status == 502
    assert last(running, 3)["reason"] == f"unix:{path}: Connection refused", "nobody listens"
    path.unlink()
    with peer(polite, address=str(path)):
        assert running.ask().body == b"ok"
    assert running.child.said().count("Traceback") == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to every socket")
def test_a_socket_of_somebody_else(gateway: Start, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    path = tmp_path / "gateway" / "app.sock"
    with peer(polite, address=str(path)):
        path.chmod(0)
        running = gateway(config("unix:app.sock"))
        assert running.ask().status == 502
        assert last(running)["reason"] == f"unix:{path}: Permission denied"


def test_a_socket_whose_queue_is_full(gateway: Start, tmp_path: Path) -> None:
    """A Unix socket refuses to queue more than its backlog: callers wait until it takes them."""
    (tmp_path / "gateway").mkdir()
    path = str(tmp_path / "gateway" / "app.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    running = gateway(config("unix:app.sock"))
    callers = Callers(running, "/", count=12)

    def asking() -> bool:
        return "12 connections" in running.command("status").stdout

    served = None
    try:
        wait_for(asking, what="all of them ask, most of them in vain")
        with socket.socket(socket.AF_UNIX) as one_more:
            one_more.setblocking(False)
            assert one_more.connect_ex(path) == errno.EAGAIN
        assert not callers.ended
        served = Peer(lambda sock: polite(served, sock), None, listener)
        wait_for(lambda: len(callers.ended) > 100)
    finally:
        callers.stop()
        listener.close()
    assert callers.statuses.keys() == {200}, callers.ended[:3]


# -- IPv6 ----------------------------------------------------------------------------------------


def test_an_address_of_ipv6(gateway: Start) -> None:
    with peer(polite, address=("::1", 0)) as service:
        running = gateway(config(f"http://[::1]:{service.port}"))
        assert running.ask().body == b"ok"
        assert last(running)["upstream"] == f"[::1]:{service.port}"


def test_nobody_at_an_address_of_ipv6(gateway: Start) -> None:
    with socket.socket(socket.AF_INET6) as sock:  # bound, so that nobody else takes it
        sock.bind(("::1", 0))
        port = sock.getsockname()[1]
        running = gateway(config(f"http://[::1]:{port}"))
        assert running.ask().status == 502
        assert last(running)["reason"] == f"[::1]:{port}: Connection refused"


def test_a_name_with_addresses_of_ipv6_alone(gateway: Start, tmp_path: Path) -> None:
    dns = start_dns(tmp_path / "dns")
    try:
        dns.say(six__test={"AAAA": ["::1"]})
        with peer(polite, address=("::1", 0)) as service:
            running = gateway(config(f"http://six.test:{service.port}", resolver=dns.address))
            assert running.ask().body == b"ok"
            assert last(running)["upstream"] == f"[::1]:{service.port}"
    finally:
        dns.child.end()


def test_a_target_that_is_the_gateway_itself(gateway: Start, development: Development) -> None:
    """One request comes round a few times, not until all connections are taken."""
    port = free_port()
    tls = {"ca": str(development.chain)}
    upstream = {"targets": f"https://localhost:{port}", "tls": tls}
    routes = {"*": {"/": {"to": "self", "auth": "none"}}}
    listen = {"https": f"127.0.0.1:{port}"}
    running = gateway({"listen": listen, "upstreams": {"self": upstream}, "routes": routes})
    for count in (1, 2):
        assert running.ask("/round", key=None).status == 508
        line = last(running, 6 * count)
        assert line["status"] == 508
    lines = running.log_lines()
    assert [each["status"] for each in lines] == [508] * 12
    reasons = [each["reason"] for each in lines if "reason" in each]
    assert reasons == ["a loop: it has come through gateways like this one 5 times"] * 2
    assert running.control("status")["listeners"][0]["accepted"] <= 2 * 6
