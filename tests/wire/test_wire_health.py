"""Balancing, probes, ejection and draining, in whole conversations on a clock that is moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.logger import capturedLogs
from wire_support import HOST, OK, answer, get, post

from edgeproxy.config import parse
from edgeproxy.reloading import Staged
from edgeproxy.testing import Ending, MemoryGateway, MemoryWire
from edgeproxy.testing.link import MemoryStream
from edgeproxy.upstream.fleet import DrainError
from edgeproxy.upstream.target import Target

Make = Callable[..., MemoryGateway]

HEALTH = "health: { path: /healthz, interval: 5s, timeout: 2s, rise: 2, fall: 3 }"
BAD = answer(status=b"503 No")


def config(more: str = HEALTH, count: int = 3, timeouts: str = "") -> str:
    targets = ", ".join(f"http://10.0.0.{n}:9001" for n in range(1, count + 1))
    return f"""
upstreams:
  web: {{ targets: [{targets}], {more} }}
routes:
  api.example.com:
    /: {{ to: web, auth: none{timeouts} }}
    /keyed: web
"""


class Origins:
    """The services of `web`: each answers probes as `probe` says, requests as `reply`."""

    def __init__(self, gateway: MemoryGateway, count: int = 3) -> None:
        self.gateway = gateway
        self.probe: list[bytes] = [OK] * count
        self.reply: list[bytes] = [OK] * count
        #: Requests that came, probes apart.
        self.requests: list[list[bytes]] = [[] for _ in range(count)]
        self.probes: list[list[MemoryWire]] = [[] for _ in range(count)]
        for number in range(count):
            gateway.service("web", number).greet = self._greeting(number)

    def _greeting(self, number: int) -> Callable[[MemoryWire], None]:
        def greet(wire: MemoryWire) -> None:
            if wire.received.startswith(b"GET /healthz"):
                self.probes[number].append(wire)
                if self.probe[number]:
                    wire.send(self.probe[number], apart=False)
            else:
                self.serve(number, wire)

        return greet

    def serve(self, number: int, wire: MemoryWire) -> None:
        request = wire.take()
        if request:
            self.requests[number].append(request)
            if self.reply[number]:
                wire.send(self.reply[number], apart=False)

    def serve_all(self) -> None:
        """Answer what has come on connections that were there before."""
        for number in range(len(self.requests)):
            for wire in self.gateway.service("web", number).connections:
                if not wire.received.startswith(b"GET /healthz"):
                    self.serve(number, wire)

    def ask(self, data: bytes = b"") -> int:
        """Send one request from a new client; the status of its answer (0: none yet)."""
        client = self.gateway.client()
        client.send(data or get("/x"))
        self.serve_all()
        found = client.answers("POST" if data.startswith(b"POST") else "GET")
        client.end()
        return found[0].status if found else 0

    def share(self, count: int = 12) -> list[int]:
        """How many of so many requests each target gets."""
        before = [len(each) for each in self.requests]
        assert [self.ask() for _ in range(count)] == [200] * count
        return [len(each) - old for each, old in zip(self.requests, before, strict=True)]


def target(gateway: MemoryGateway, number: int = 0) -> Target:
    return gateway.gateway.snapshot().upstreams["web"].targets[number]


def state(gateway: MemoryGateway, number: int = 0) -> str:
    return target(gateway, number).health.state.value


# -- probes --------------------------------------------------------------------------------------


def test_a_probe_is_what_a_service_would_expect(make: Make) -> None:
    gateway = make(config("host: web.example, health: '/healthz?deep=1'", 1))
    gateway.wait(0.1)
    (wire,) = gateway.service("web").connections
    head = wire.received
    assert head.startswith(b"GET /healthz?deep=1 HTTP/1.1\r\n")
    assert head.count(b"Host: web.example\r\n") == 1
    assert b"User-Agent: edgeproxy\r\n" in head
    assert b"Connection: close\r\n" in head
    wire.send(OK)
    wire.end()
    assert wire.ending is Ending.ENDED
    health = target(gateway).health
    assert (health.probes, health.probe, health.probed_at) == (1, "status 200", 1000.1)


def test_without_a_host_it_asks_for_the_target_by_its_own(make: Make) -> None:
    gateway = make(config(count=1))
    gateway.wait(0.1)
    assert b"Host: 10.0.0.1:9001\r\n" in gateway.service("web").connections[0].received


def test_all_are_asked_at_once_and_then_at_each_interval(quick: Make) -> None:
    gateway = quick(config())
    origins = Origins(gateway)
    gateway.wait(0.1)
    assert [len(each) for each in origins.probes] == [1, 1, 1]
    gateway.wait(4.0)
    assert [len(each) for each in origins.probes] == [1, 1, 1]
    gateway.wait(1.0)
    assert [len(each) for each in origins.probes] == [2, 2, 2]
    gateway.wait(50.0)
    assert all(11 <= len(each) <= 13 for each in origins.probes), "a tenth earlier at most"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (BAD, "status 503"),
        (answer(status=b"302 Found", fields=b"Location: /elsewhere\r\n"), "status 302"),
        (b"", "timed out"),
        (b"HTTP/1.1 200 OK\r\n", "timed out"),
        (b"220 mail\r\n\r\n", "no answer that could be understood"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 12_000, "a head without end"),
    ],
    ids=["503", "redirect", "silence", "half a head", "mail", "endless"],
)
def test_a_target_that_fails_its_probes_gets_no_requests(quick: Make, bad: bytes, why: str) -> None:
    gateway = quick(config())
    origins = Origins(gateway)
    gateway.wait(1.0)
    assert origins.share() == [4, 4, 4]
    origins.probe[1] = bad
    gateway.wait(12.5)
    assert state(gateway, 1) == "healthy", "two failed at most"
    gateway.wait(5.0)
    assert state(gateway, 1) == "unhealthy"
    assert target(gateway, 1).health.failing == why
    assert origins.share() == [6, 0, 6]
    for wire in origins.probes[1][-2:]:
        assert wire.received.count(b"GET ") == 1, "no redirect was followed"
    gateway.wait(2.5)
    assert all(wire.ending is not Ending.OPEN for wire in origins.probes[1][:-1])
    origins.probe[1] = OK
    gateway.wait(12.5)
    assert state(gateway, 1) == "healthy"
    assert origins.share() == [4, 4, 4]


def test_a_target_that_is_down_at_the_start_is_left_out_by_the_first_probe(quick: Make) -> None:
    gateway = quick(config())
    origins = Origins(gateway)
    gateway.service("web", 2).mode = "refuse"
    gateway.wait(0.1)
    assert state(gateway, 2) == "unhealthy"
    assert target(gateway, 2).health.failing == "cannot connect: Connection refused"
    assert origins.share() == [6, 6, 0]


def test_a_probe_never_outlives_its_time_out(quick: Make) -> None:
    """Connecting, waiting, and a body that never ends."""
    gateway = quick(config(count=3))
    origins = Origins(gateway)
    gateway.service("web", 0).mode = "silent"
    origins.probe = [b"", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]
    gateway.wait(0.1)
    (wire,), (body,) = origins.probes[1:]
    assert state(gateway, 2) == "healthy", "the status decides"
    gateway.wait(1.5)
    assert wire.ending is Ending.OPEN
    assert body.ending is Ending.OPEN
    gateway.wait(0.5)
    assert wire.ending is Ending.ABORTED
    assert body.ending is Ending.ABORTED
    assert [state(gateway, n) for n in range(3)] == ["unhealthy", "unhealthy", "healthy"]


def test_a_body_without_end_is_cut(quick: Make) -> None:
    gateway = quick(config(count=1))
    origins = Origins(gateway, 1)
    origins.probe = [b"HTTP/1.1 200 OK\r\n\r\n"]
    gateway.wait(0.1)
    (wire,) = origins.probes[0]
    wire.send(b"x" * 60_000, apart=False)
    assert wire.ending is Ending.OPEN
    wire.send(b"x" * 10_000, apart=False)
    assert wire.ending is Ending.ABORTED
    assert state(gateway) == "healthy"


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "result"),
    [
        (INTERIM + OK, "status 200"),
        (INTERIM * 8 + OK, "status 200"),
        (b"HTTP/1.1 100\n\n" + OK, "status 200"),
        (INTERIM * 8 + b"HTTP/1.1 100 Continue\r\n\r\n" + OK, "more than 16 interim answers"),
        (b"HTTP/1.1 0100 Continue\r\n\r\n" + OK, "no answer that could be understood"),
        (b"HTTP/1.1 100 Continue\r\n\r\nnonsense it is\r\n", "no answer that could be understood"),
    ],
)
def test_interim_answers_are_not_logged_nor_waited_for(
    make: Make, said: bytes, result: str
) -> None:
    """However many there are, twisted.web sees none: it would write a line for each."""
    gateway = make(config(count=1))
    with capturedLogs() as logs:
        gateway.wait(0.1)
        (wire,) = gateway.service("web").connections
        wire.send(said)
        wire.end()
    assert target(gateway).health.probe == result
    assert [e for e in logs if e["log_namespace"].startswith("twisted.web")] == []


def test_cookies_are_not_kept_and_zipped_bodies_not_unpacked(quick: Make) -> None:
    gateway = quick(config(count=1))
    origins = Origins(gateway, 1)
    fields = b"Set-Cookie: a=b\r\nContent-Encoding: gzip\r\n"
    origins.probe = [answer(b"no gzip at all", fields)]
    gateway.wait(12.0)
    assert len(origins.probes[0]) == 3
    assert all(b"ookie" not in wire.received for wire in origins.probes[0])
    assert target(gateway).health.probe == "status 200"


@pytest.mark.parametrize("statuses", ["404", "200-299", "[204, 400-499]"])
def test_other_statuses_may_be_good(quick: Make, statuses: str) -> None:
    gateway = quick(config(f"health: {{ path: /healthz, status: {statuses} }}", 1))
    origins = Origins(gateway, 1)
    origins.probe = [answer(status=b"404 Not Found")]
    gateway.wait(0.1)
    assert state(gateway) == ("healthy" if "4" in statuses else "unhealthy")


def test_all_are_unhealthy_all_are_used(quick: Make) -> None:
    gateway = quick(config())
    origins = Origins(gateway)
    origins.probe = [BAD, BAD, BAD]
    gateway.wait(1.0)
    assert [state(gateway, n) for n in range(3)] == ["unhealthy"] * 3
    assert origins.share() == [4, 4, 4]


def test_probes_end_with_the_process(quick: Make) -> None:
    gateway = quick(config())
    origins = Origins(gateway)
    gateway.wait(1.0)
    gateway.gateway.fleet.stop()
    gateway.wait(60.0)
    assert [len(each) for each in origins.probes] == [1, 1, 1]


# -- ejection ------------------------------------------------------------------------------------


def test_five_answers_of_500_and_more_in_a_row_eject(make: Make) -> None:
    gateway = make(config("eject: { time: 10s }"))
    origins = Origins(gateway)
    origins.reply[0] = BAD
    assert [origins.ask() for _ in range(15)].count(503) == 5
    assert state(gateway) == "ejected"
    assert origins.share() == [0, 6, 6]
    origins.reply[0] = OK
    gateway.wait(9.0)
    assert origins.share() == [0, 6, 6]
    gateway.wait(1.5)
    assert origins.share() == [4, 4, 4]


def test_a_good_answer_between_keeps_it_in(quick: Make) -> None:
    gateway = quick(config("", 2))
    origins = Origins(gateway, 2)
    for _ in range(5):
        origins.reply[0] = BAD
        for _ in range(8):
            origins.ask()
        origins.reply[0] = answer(status=b"404 Not Found")
        for _ in range(2):
            origins.ask()
    assert state(gateway) == "healthy"


def test_one_more_is_not_ejected_below_the_floor(quick: Make) -> None:
    gateway = quick(config("eject: { max_ejected: 50% }"))
    origins = Origins(gateway)
    origins.reply = [BAD, BAD, OK]
    for _ in range(30):
        origins.ask()
    assert sorted(state(gateway, n) for n in range(3)) == ["ejected", "healthy", "healthy"]


def test_one_target_alone_is_used_whatever_it_answers(quick: Make) -> None:
    gateway = quick(config("", 1))
    origins = Origins(gateway, 1)
    origins.reply = [BAD]
    assert {origins.ask() for _ in range(20)} == {503}
    assert state(gateway) == "healthy"


def test_a_target_that_hangs_is_ejected_and_its_requests_move_on(quick: Make) -> None:
    """Connects succeed, nothing is ever said: what a stopped process looks like."""
    gateway = quick(config("", 3, ", timeouts: { first_byte: 1s }"))
    origins = Origins(gateway)
    origins.reply[1] = b""
    clients = [gateway.client() for _ in range(15)]
    for client in clients:
        client.send(get("/x"))
        origins.serve_all()
    hung = list(origins.requests[1])
    assert len(hung) == 5
    gateway.wait(1.5)
    origins.serve_all()
    assert state(gateway, 1) == "ejected"
    assert "the upstream took too long" in target(gateway, 1).health.reason
    assert [client.answers()[0].status for client in clients] == [200] * 15
    assert origins.requests[1] == hung


def test_a_post_that_hangs_is_never_sent_again(quick: Make) -> None:
    gateway = quick(config("", 3, ", timeouts: { first_byte: 1s }"))
    origins = Origins(gateway)
    origins.reply = [b"", b"", b""]
    client = gateway.client()
    client.send(post(b"body", "/x"))
    gateway.wait(5)
    assert client.answers("POST")[0].status == 504
    assert sum(len(each) for each in origins.requests) == 1


def test_a_request_that_was_reset_goes_to_one_that_is_well_before_one_that_is_out(
    quick: Make,
) -> None:
    gateway = quick(config("", 2))
    origins = Origins(gateway, 2)
    gateway.service("web", 1).mode = "refuse"
    assert {origins.ask() for _ in range(4)} == {200}
    assert state(gateway, 1) == "ejected"
    origins.reply[0] = b""
    client = gateway.client()
    client.send(get("/x"))
    tries = gateway.service("web", 1).attempts
    wire = gateway.service("web", 0).connections[-1]
    origins.reply[0] = OK
    wire.reset()
    assert client.answers()[0].status == 200
    assert gateway.service("web", 1).attempts == tries


def test_a_connection_closed_while_idle_is_no_failure(quick: Make) -> None:
    gateway = quick(config("eject: { failures: 1 }", 2))
    origins = Origins(gateway, 2)
    for _ in range(6):
        assert origins.ask() == 200
        for number in range(2):
            for wire in gateway.service("web", number).connections:
                wire.end()
    assert [state(gateway, n) for n in range(2)] == ["healthy"] * 2


def test_a_request_that_could_not_even_be_written_is_no_failure(
    quick: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service closed the idle connection, and nobody had seen it yet."""
    gateway = quick(config("eject: { failures: 1 }", 2))
    origins = Origins(gateway, 2)
    assert [origins.ask(), origins.ask()] == [200, 200]
    wire = gateway.service("web", 0).connections[0]
    wire.stream.pause_reading()
    wire.reset()
    monkeypatch.setattr(MemoryStream, "quiet", lambda stream: True)
    assert origins.ask() == 200
    assert gateway.finished[-1].attempts == 2
    assert [state(gateway, n) for n in range(2)] == ["healthy"] * 2


# -- draining ------------------------------------------------------------------------------------


def drain(gateway: MemoryGateway, word: str, *, on: bool = True, **more: Any) -> list[Target]:
    found = gateway.gateway.fleet.drain("web", word, on=on, **more)
    gateway.reactor.settle()
    return found


def test_a_draining_target_ends_what_it_has_and_gets_nothing_new(make: Make) -> None:
    gateway = make(config(""))
    origins = Origins(gateway)
    assert origins.share(3) == [1, 1, 1]
    origins.reply[0] = b""
    client = gateway.client()
    client.send(get("/slow"))
    origins.serve_all()
    (slow,) = gateway.service("web").connections
    idle = gateway.service("web", 1).connections[0]
    (drained,) = drain(gateway, "http://10.0.0.1:9001")
    drain(gateway, "10.0.0.2:9001")
    assert idle.ending is not Ending.OPEN, "connections that are free are closed"
    assert drained.busy == 1
    assert origins.share(6) == [0, 0, 6]
    slow.send(OK)
    assert client.answers()[0].status == 200
    assert slow.ending is not Ending.OPEN
    assert drained.busy == 0
    drain(gateway, "10.0.0.1:9001", on=False)
    origins.reply[0] = OK
    assert origins.share(6) == [3, 0, 3]


def test_the_last_target_is_drained_by_force_only(make: Make) -> None:
    gateway = make(config("", 2))
    origins = Origins(gateway, 2)
    drain(gateway, "10.0.0.1:9001")
    with pytest.raises(DrainError, match="is the last target of 'web'.*--force"):
        drain(gateway, "10.0.0.2:9001")
    assert origins.share(4) == [0, 4]
    drain(gateway, "10.0.0.2:9001", force=True)
    assert origins.ask() == 503
    drain(gateway, "10.0.0.2:9001", on=False)
    assert origins.share(4) == [0, 4]


def test_an_only_target_too(quick: Make) -> None:
    gateway = quick(config("", 1))
    origins = Origins(gateway, 1)
    with pytest.raises(DrainError):
        drain(gateway, "10.0.0.1:9001")
    drain(gateway, "10.0.0.1:9001", force=True)
    assert origins.ask() == 503
    assert gateway.log[-1]["outcome"] == "refused"
    drain(gateway, "10.0.0.1:9001", on=False)
    assert origins.ask() == 200


@pytest.mark.parametrize(
    ("upstream", "word", "said"),
    [
        ("wbe", "10.0.0.1:9001", "there is no upstream 'wbe'; did you mean 'web'?"),
        ("web", "10.0.0.1:9002", "has no target '10.0.0.1:9002'; did you mean '10.0.0.1:9001'?"),
        ("web", "x", "'web' has no target 'x'; there is: 10.0.0.1:9001, 10.0.0.2:9001, "),
    ],
)
def test_who_does_not_exist_cannot_be_drained(
    quick: Make, upstream: str, word: str, said: str
) -> None:
    with pytest.raises(DrainError) as error:
        quick(config("")).gateway.fleet.drain(upstream, word, on=True)
    assert said in str(error.value)


def test_who_waits_for_a_connection_still_gets_one(quick: Make) -> None:
    gateway = quick(config("connections: 1", 2))
    origins = Origins(gateway, 2)
    origins.reply = [b"", b""]
    clients = [gateway.client() for _ in range(4)]
    for client in clients:
        client.send(get("/x"))
    drain(gateway, "10.0.0.1:9001")
    origins.reply = [OK, OK]
    for number in range(2):
        gateway.service("web", number).connections[0].send(OK)
    origins.serve_all()
    assert [client.answers()[0].status for client in clients] == [200] * 4


def test_a_name_that_is_drained_stays_so_wherever_it_moves(quick: Make) -> None:
    names = {"a.internal": ["10.0.0.1"], "b.internal": ["10.0.0.9"]}
    text = config("").replace("http://10.0.0.1:9001", "http://a.internal:9001")
    text = text.replace("http://10.0.0.2:9001", "http://b.internal:9001")
    gateway = quick(text, names=names)
    drain(gateway, "a.internal:9001")
    gateway.names["a.internal"] = ["10.0.0.1", "10.0.0.7"]
    gateway.names["b.internal"] = ["10.0.0.8"]
    gateway.wait(31)
    gateway.names["a.internal"] = ["10.0.0.1", "10.0.0.6"]
    gateway.wait(31)
    found = {each.name: each.health.state.value for each in gateway.gateway.fleet.targets}
    assert found == {
        "10.0.0.1:9001": "draining",
        "10.0.0.6:9001": "draining",
        "10.0.0.8:9001": "healthy",
        "10.0.0.3:9001": "healthy",
    }
    assert len(drain(gateway, "http://a.internal:9001", on=False)) == 2


# -- reload --------------------------------------------------------------------------------------


def reload(gateway: MemoryGateway, text: str) -> None:
    built = gateway.gateway.build(parse(text))
    built.snapshot.finished = gateway.gateway.log.record
    gateway.gateway.use(built, Staged())
    gateway.reactor.settle()


def test_a_reload_keeps_what_is_known_of_targets_that_stay(quick: Make) -> None:
    gateway = quick(config())
    origins = Origins(gateway)
    origins.probe[0] = BAD
    gateway.wait(0.1)
    drain(gateway, "10.0.0.2:9001")
    before = [target(gateway, n) for n in range(3)]
    reload(gateway, config(HEALTH))
    assert [target(gateway, n) for n in range(3)] == before, "nothing had changed"
    reload(gateway, config(f"{HEALTH}, connections: 7"))
    assert [target(gateway, n) for n in range(3)] != before
    assert [state(gateway, n) for n in range(3)] == ["unhealthy", "draining", "healthy"]
    assert origins.share(4) == [0, 0, 4]
    reload(gateway, config(f"{HEALTH}, connections: 7", 1))
    reload(gateway, config(f"{HEALTH}, connections: 7", 3))
    assert state(gateway, 1) == "healthy", "one that was gone meanwhile is a new one"


def test_probes_follow_the_configuration(quick: Make) -> None:
    gateway = quick(config(""))
    origins = Origins(gateway)
    gateway.wait(10)
    assert [len(each) for each in origins.probes] == [0, 0, 0]
    reload(gateway, config(HEALTH))
    assert [len(each) for each in origins.probes] == [1, 1, 1]
    reload(gateway, config(HEALTH))
    assert [len(each) for each in origins.probes] == [1, 1, 1], "the same go on"
    origins.probe[0] = BAD
    reload(gateway, config(HEALTH.replace("5s", "1s"), 2))
    assert [len(each) for each in origins.probes] == [2, 2, 1]
    gateway.wait(12)
    assert state(gateway) == "unhealthy"
    assert len(origins.probes[2]) == 1, "one that has gone is not asked"
    assert 13 <= len(origins.probes[1]) <= 15, "nor any by the old check beside the new"
    reload(gateway, config("", 2))
    assert state(gateway) == "healthy", "nobody would ever find it well again"


# -- balancing -----------------------------------------------------------------------------------


def test_weights(quick: Make) -> None:
    text = config("").replace("http://10.0.0.1:9001", "{ url: http://10.0.0.1:9001, weight: 4 }")
    origins = Origins(quick(text))
    assert origins.share(12) == [8, 2, 2]


@pytest.mark.parametrize("balance", ["round_robin", "least_requests"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_waits_while_a_target_has_room(make: Make, balance: str, method: str) -> None:
    gateway = make(config(f"connections: 1, balance: {balance}"))
    origins = Origins(gateway)
    data = get("/x") if method == "GET" else post(b"a", "/x")
    origins.reply[0] = b""
    for _ in range(40):  # by chance, with the second kind
        gateway.client().send(data)
        origins.serve_all()
        if target(gateway).busy:
            break
    assert target(gateway).busy == 1
    assert [origins.ask(data) for _ in range(12)] == [200] * 12
    origins.reply = [b""] * 3
    clients = [gateway.client() for _ in range(3)]
    for client in clients:
        client.send(data)
        origins.serve_all()
    assert sorted(target(gateway, n).busy for n in range(3)) == [1, 1, 2]
    gateway.wait(1.1)
    assert [len(client.answers(method)) for client in clients] == [0, 0, 1]
    assert clients[2].answers(method)[0].status == 503


def test_who_belongs_to_a_target_waits_for_it(quick: Make) -> None:
    gateway = quick(config("connections: 1, balance: { hash: address }"))
    origins = Origins(gateway)
    origins.reply = [b""] * 3
    clients = [gateway.client() for _ in range(2)]
    for client in clients:
        client.send(get("/x"))
    assert sorted(target(gateway, n).busy for n in range(3)) == [0, 0, 2]
    gateway.wait(1.1)
    assert clients[1].answers()[0].status == 503


def test_least_requests_leaves_a_slow_target_alone(quick: Make) -> None:
    gateway = quick(config("balance: least_requests"))
    origins = Origins(gateway)
    origins.reply[0] = b""
    for _ in range(20):
        gateway.client().send(get("/slow"))
        origins.serve_all()
    assert len(origins.requests[0]) == 1


def test_a_caller_stays_with_its_target_by_key_or_address(quick: Make) -> None:
    for by in ("key", "address"):
        gateway = quick(config(f"balance: {{ hash: {by} }}"))
        origins = Origins(gateway)
        keys = [gateway.key(name) for name in ("anna", "berta", "carl", "dora", "emil", "fred")]
        places = []
        for number, key in enumerate(keys):
            before = [len(each) for each in origins.requests]
            for turn in range(3):
                address = "192.0.2.1" if by == "address" else f"192.0.2.{10 * number + turn}"
                client = gateway.client(address)
                field = b"X-API-Key: " + key.encode() + b"\r\n"
                client.send(b"GET /keyed HTTP/1.1\r\n" + HOST + field + b"\r\n")
                origins.serve_all()
            gained = [len(e) - b for e, b in zip(origins.requests, before, strict=True)]
            assert sorted(gained) == [0, 0, 3]
            places.append(gained.index(3))
        assert (len(set(places)) == 1) == (by == "address"), places
