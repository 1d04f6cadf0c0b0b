"""Three nginx behind a gateway under load: crashes, stops and drains cost nobody an answer."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from real_support import Start, kill_nginx, restart_nginx
from running_support import Development, Nginx, RunningGateway, free_port, wait_for

pytestmark = [pytest.mark.debian("nginx"), pytest.mark.timeout(180)]

StartNginx = Callable[..., Nginx]

ROUNDS = 20
INTERVAL = 0.1
RISE = 2
GETTERS, POSTERS = 4, 2
SERVER = """
location = /healthz { return 200 well; }
location / { return 200 $server_port; }
"""
#: Each line: what was asked, the request's own number, the status.
LOG = 'log_format numbered "$request_method $uri $http_x_number $status";'


@pytest.fixture
def origins(nginx: StartNginx) -> Iterator[list[Nginx]]:
    started = [nginx(f"access_log numbered.log numbered; {SERVER}", LOG) for _ in range(3)]
    yield started
    for each in started:
        if each.child.running:
            send(each, signal.SIGCONT)


@pytest.fixture
def running(gateway: Start, origins: list[Nginx]) -> RunningGateway:
    return gateway(
        {
            "upstreams": {
                "web": {
                    "targets": [each.url for each in origins],
                    "health": {
                        "path": "/healthz",
                        "interval": INTERVAL,
                        "timeout": "500ms",
                        "rise": RISE,
                        "fall": 2,
                    },
                    "timeouts": {"connect": "500ms", "first_byte": "300ms"},
                }
            },
            "routes": {"*": {"/": "web"}},
        }
    )


class Ended(NamedTuple):
    """A request as its client saw it: 0 for none, where the connection broke."""

    number: str
    method: str
    status: int
    body: bytes


class Clients:
    """Clients that ask without pause; each request has a number of its own."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.ended: list[Ended] = []
        self.newest = 0  # or the one before it
        self._gateway = gateway
        self._numbers = itertools.count()
        self._stop = threading.Event()
        methods = ["GET"] * GETTERS + ["POST"] * POSTERS
        self._threads = [
            threading.Thread(target=self._ask, args=(method,), daemon=True) for method in methods
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a client hangs"

    def more(self, count: int) -> None:
        """Wait until so many more requests have ended well."""
        since = len(self.ended)
        wait_for(lambda: sum(e.status == 200 for e in self.ended[since:]) >= count)

    def _ask(self, method: str) -> None:
        connection = self._gateway.connect()
        key = self._gateway.development.credential
        while not self._stop.is_set():
            self.newest = next(self._numbers)
            number = str(self.newest)
            try:
                # Without a body all of a POST is at hand, and could be sent again.
                body = b"body" if method == "POST" and self.newest % 2 else None
                fields = {"X-API-Key": key, "X-Number": number}
                connection.request(method, "/x", body, fields)
                answer = connection.getresponse()
                ended = Ended(number, method, answer.status, answer.read())
            except (OSError, http.client.HTTPException) as error:
                ended = Ended(number, method, 0, repr(error).encode())
                connection.close()
                connection = self._gateway.connect()
            self.ended.append(ended)
        connection.close()


@pytest.fixture
def clients(running: RunningGateway) -> Iterator[Clients]:
    made = Clients(running)
    yield made
    made.stop()


def send(nginx: Nginx, number: int) -> None:
    """A signal for nginx: for its worker too, which is who answers."""
    for each in pids(nginx):
        os.kill(each, number)


def pids(nginx: Nginx) -> list[int]:
    pid = nginx.child.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def stopped(nginx: Nginx) -> bool:
    return all(
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        for pid in pids(nginx)
    )


class Log:
    """What an nginx has logged; :meth:`fresh` is what is new since the last call."""

    def __init__(self, nginx: Nginx) -> None:
        self._path = nginx.folder / "numbered.log"
        self._read = 0

    def lines(self) -> list[list[str]]:
        return self._lines(self._path.read_bytes())

    def fresh(self) -> list[list[str]]:
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read().rpartition(b"\n")[0]
        self._read += len(data) + 1 if data else 0
        return self._lines(data)

    def _lines(self, data: bytes) -> list[list[str]]:
        return [line.split(" ") for line in data.decode().splitlines()]


class Place:
    """One origin, as the test breaks and mends it, and as the gateway sees it."""

    def __init__(self, nginx: Nginx, gateway: RunningGateway, clients: Clients) -> None:
        self.nginx = nginx
        self.gateway = gateway
        self.clients = clients
        self.log = Log(nginx)
        self.address = f"127.0.0.1:{nginx.port}"

    def seen(self) -> dict[str, Any]:
        """How the gateway sees it."""
        found = self.gateway.control("upstreams")["upstreams"]["web"]
        return next(each for each in found if each["address"] == self.address)

    def tell(self, command: str) -> None:
        assert self.gateway.control(command, upstream="web", target=self.address)["ok"]

    def await_out(self) -> None:
        wait_for(lambda: self.seen()["state"] != "healthy", what=f"{self.address} is left out")

    def await_well(self) -> None:
        """It is well again, two intervals after it was mended at the latest: with the probe that
        was under way then, those are three."""
        mended = self.seen()["counters"]["probes"]

        def well() -> dict[str, Any] | None:
            seen = self.seen()
            if seen["state"] == "healthy":
                return seen
            assert seen["passed"] < RISE, "enough probes have passed"
            return None

        seen = wait_for(well, what=f"{self.address} is well again")
        later = seen["passed"] - RISE  # those that have passed since it was
        assert seen["counters"]["probes"] - later - mended <= 3

    def await_asked(self) -> None:
        """It takes part again: a request comes that was not begun before this call."""
        newest = self.clients.newest
        wait_for(
            lambda: any(line[1] == "/x" and int(line[2]) > newest for line in self.log.fresh()),
            what=f"{self.address} takes part again",
        )


def test_crashes_stops_and_drains_under_load(
    running: RunningGateway, origins: list[Nginx], clients: Clients
) -> None:
    places = [Place(each, running, clients) for each in origins]
    for place in places:
        wait_for(lambda place=place: place.log.lines())  # type: ignore[misc]
    for turn in range(ROUNDS):
        place = places[turn % 3]
        kill_nginx(place.nginx)
        place.await_out()
        clients.more(50)
        restart_nginx(place.nginx)
        place.await_well()
        place.await_asked()

        send(place.nginx, signal.SIGSTOP)
        wait_for(lambda place=place: stopped(place.nginx))  # type: ignore[misc]
        place.await_out()
        clients.more(50)
        send(place.nginx, signal.SIGCONT)
        place.await_well()
        place.await_asked()

        place.tell("drain_target")
        wait_for(lambda place=place: not place.seen()["under_way"])  # type: ignore[misc]
        place.log.fresh()
        clients.more(50)
        assert {line[1] for line in place.log.fresh()} <= {"/healthz"}, "nothing new came"
        assert not place.seen()["connections"]
        assert place.seen()["state"] == "draining"
        place.tell("resume_target")
        place.await_asked()
    clients.stop()

    bad = [each for each in clients.ended if each.status != 200]
    assert not [each for each in bad if each.method == "GET"], bad
    lines = {line["id"]: line for line in running.log_lines()}
    served = Counter(
        number for place in places for _, uri, number, _ in place.log.lines() if uri == "/x"
    )
    posts = {each.number for each in clients.ended if each.method == "POST"}
    assert all(served[number] <= 1 for number in posts), "no POST was ever sent twice"
    # At most those that were under way when it broke, or were sent before that was found out.
    assert len(bad) <= ROUNDS * 2 * POSTERS * 2, len(bad)
    assert all(each.status in (502, 504) for each in bad), bad
    assert len(clients.ended) > 100 * ROUNDS
    failed = [line for line in lines.values() if line["status"] >= 500]
    assert {line["method"] for line in failed} <= {"POST"}
    assert all(line["attempts"] == 1 for line in failed)
    assert "Traceback" not in running.child.said()


def test_probes_go_over_sockets_and_tls_as_requests_do(
    gateway: Start, nginx: StartNginx, development: Development, tmp_path: Path
) -> None:
    """A certificate that is not trusted makes a target unhealthy; a socket is asked at its path."""
    chain = development.chain
    key = chain.with_name("localhost-key.pem")
    tls_port, socket = free_port(), tmp_path / "app.sock"
    tls = (
        f"listen 127.0.0.1:{tls_port} ssl; ssl_certificate {chain}; ssl_certificate_key {key}; "
        f"listen unix:{socket}; location = /healthz {{ return 200 well; }}"
    )
    origin = nginx(f"access_log numbered.log numbered; {tls}", LOG)
    target = f"https://localhost:{tls_port}"
    running = gateway(
        {
            "upstreams": {
                "socket": {"targets": f"unix:{socket}", "health": "/healthz"},
                "good": {"targets": target, "health": "/healthz", "tls": {"ca": str(chain)}},
                "bad": {"targets": target, "health": "/healthz"},
            },
            "routes": {"*": {"/": "socket"}},
        }
    )

    def probed() -> dict[str, dict[str, Any]] | None:
        found = running.control("upstreams")["upstreams"]
        if not all(each["probe"] for targets in found.values() for each in targets):
            return None
        return {name: targets[0] for name, targets in found.items()}

    seen = wait_for(probed)
    assert (seen["socket"]["state"], seen["socket"]["probe"]) == ("healthy", "status 200")
    assert (seen["good"]["state"], seen["good"]["probe"]) == ("healthy", "status 200")
    assert seen["bad"]["state"] == "unhealthy"
    assert "certificate is not trusted" in seen["bad"]["why"]
    wait_for(lambda: len(Log(origin).lines()) == 2)
    assert all(line[1] == "/healthz" for line in Log(origin).lines())
