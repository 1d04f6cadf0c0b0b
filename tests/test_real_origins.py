"""Services that crash under load, and come back."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from real_support import MiB, Start, calling, kill_nginx, restart_nginx
from running_support import Nginx, RunningGateway, wait_for

pytestmark = pytest.mark.debian("nginx")

StartNginx = Callable[..., Nginx]
SERVER = """
location / { return 200 "$server_port"; }
location /slow { limit_rate 200k; }
location /dav { dav_methods PUT; create_full_put_path on; }
"""


@pytest.fixture
def origins(nginx: StartNginx) -> Iterator[list[Nginx]]:
    started = [nginx(SERVER) for _ in range(3)]
    for each in started:
        (each.folder / "html" / "slow").write_bytes(b"s" * MiB)
    yield started


@pytest.fixture
def running(gateway: Start, origins: list[Nginx]) -> RunningGateway:
    return gateway(
        {
            "upstreams": {
                "web": {"targets": [each.url for each in origins], "eject": {"time": "300ms"}},
                "one": {"targets": [origins[0].url], "eject": {"time": "300ms"}},
            },
            "routes": {"*": {"/": "web", "/one": "one", "/slow": "one"}},
        }
    )


def seen(callers: object, since: int) -> set[str]:
    """The ports that answered, from one request on."""
    ended = callers.ended[since:]  # type: ignore[attr-defined]
    return {each.body.decode() for each in ended if each.status == 200}


def test_a_crash_costs_no_request_while_another_target_lives(
    running: RunningGateway, origins: list[Nginx]
) -> None:
    ports = {str(each.port) for each in origins}
    first, second, _ = origins
    with calling(running, "/", count=6) as callers:
        wait_for(lambda: seen(callers, 0) == ports)
        for crashed in (first, second):
            kill_nginx(crashed)
            since = len(callers.ended)
            wait_for(lambda since=since: len(callers.ended) > since + 200)  # type: ignore[misc]
        assert seen(callers, since + 50) == {str(origins[2].port)}
        for crashed in (first, second):
            restart_nginx(crashed)
        since = len(callers.ended)
        wait_for(lambda: seen(callers, since) == ports, what="all take part again")
    assert callers.statuses.keys() == {200}, callers.statuses
    assert max(each.took for each in callers.ended) < 2.0
    lines = [line for line in running.log_lines() if line["attempts"] > 1]
    assert lines, "some requests met the crash, and were moved"


def test_a_crash_is_told_and_its_end_is_found(
    running: RunningGateway, origins: list[Nginx]
) -> None:
    """The only target there is: an answer for each request, at once, and then again the service."""
    with calling(running, "/one", count=4) as callers:
        wait_for(lambda: len(callers.ended) > 50)
        kill_nginx(origins[0])
        since = len(callers.ended)
        wait_for(lambda: len(callers.ended) > since + 100)
        restart_nginx(origins[0])
        wait_for(lambda: callers.ended[-1].status == 200)
        again = len(callers.ended)
        wait_for(lambda: len(callers.ended) > again + 100)
    assert not callers.errors, "each is answered"
    assert callers.statuses.keys() == {200, 502}
    assert {each.status for each in callers.ended[again + 8 :]} == {200}
    assert max(each.took for each in callers.ended) < 1.0


def test_all_targets_crash_and_one_comes_back(
    running: RunningGateway, origins: list[Nginx]
) -> None:
    with calling(running, "/", count=4) as callers:
        wait_for(lambda: len(callers.ended) > 50)
        for each in origins:
            kill_nginx(each)
        since = len(callers.ended)
        wait_for(lambda: len(callers.ended) > since + 50)
        assert {each.status for each in callers.ended[since + 8 :]} <= {502, 503}
        restart_nginx(origins[1])
        wait_for(lambda: callers.ended[-1].status == 200)
        back = len(callers.ended)
        wait_for(lambda: len(callers.ended) > back + 100)
    assert not callers.errors
    assert {each.status for each in callers.ended[back + 8 :]} == {200}


def test_a_body_cut_short_is_never_taken_for_whole(
    running: RunningGateway, origins: list[Nginx]
) -> None:
    connection = running.connect()
    connection.request("GET", "/slow", headers={"X-API-Key": running.development.credential})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.read(1000) == b"s" * 1000
    kill_nginx(origins[0])
    with pytest.raises((http.client.IncompleteRead, OSError)):
        answer.read()
    connection.close()
    line = wait_for(lambda: [each for each in running.log_lines() if each["path"] == "/slow"])[0]
    assert line["outcome"] == "upstream_reset"


def test_a_post_is_never_sent_twice(gateway: Start) -> None:
    """A service that reads a request and goes: a POST is told, what may be repeated is, twice."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    heads: list[bytes] = []

    def serve(each: socket.socket) -> None:
        while True:
            try:
                sock, _ = each.accept()
            except OSError:
                return
            with sock:
                heads.append(sock.recv(65536).split(b" ")[0])

    threads = [threading.Thread(target=serve, args=(each,), daemon=True) for each in listening]
    for thread in threads:
        thread.start()
    try:
        targets = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in listening]
        running = gateway(
            {"upstreams": {"web": {"targets": targets}}, "routes": {"*": {"/": "web"}}}
        )
        began = time.monotonic()
        # Its body is empty, so that nothing but its method speaks against repeating it.
        assert running.ask("/", "POST").status == 502
        assert heads == [b"POST"]
        assert running.ask("/", "DELETE").status == 502
        assert heads == [b"POST", b"DELETE", b"DELETE", b"DELETE"]
        assert time.monotonic() - began < 5
    finally:
        for each in listening:
            each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
        for each in listening:
            each.close()
