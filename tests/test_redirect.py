"""The plain listener sends everybody to https, and does nothing else."""

from __future__ import annotations

import http.client
from collections.abc import Callable

import pytest
from running_support import DEADLINE, RunningGateway

PAGE = {"routes": {"*": {"/": {"page": True}}}}


@pytest.fixture
def plain(gateway: Callable[..., RunningGateway]) -> tuple[RunningGateway, int]:
    listen = {"https": "127.0.0.1:0", "http": "127.0.0.1:0"}
    running = gateway({**PAGE, "listen": listen})
    return running, int(running.child.wait_until_said(r"listening on http port (\d+)")[1])


def test_method_path_and_query_are_kept(plain: tuple[RunningGateway, int]) -> None:
    running, port = plain
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    for method in ("GET", "POST"):
        connection.request(method, "/a/b?c=d", headers={"Host": f"api.example.com:{port}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 308
        assert answer.headers["Location"] == f"https://api.example.com:{running.port}/a/b?c=d"
    connection.close()


@pytest.mark.parametrize("host", ["a b", "evil.example/..", "x\t"])
def test_a_host_that_is_none_is_no_place_to_send_anybody(
    plain: tuple[RunningGateway, int], host: str
) -> None:
    _, port = plain
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    connection.request("GET", "/", headers={"Host": host})
    answer = connection.getresponse()
    assert answer.status == (308 if host.strip() == "x" else 400)
    assert "evil" not in (answer.headers["Location"] or "")
    connection.close()


def test_no_route_is_reached_without_tls(plain: tuple[RunningGateway, int]) -> None:
    running, port = plain
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    connection.request("GET", "/", headers={"X-API-Key": running.development.credential})
    assert connection.getresponse().status == 308
    connection.close()
