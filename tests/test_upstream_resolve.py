"""Names of targets: when they are looked up, what is kept, and what an upstream has of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgeproxy.config import parse
from edgeproxy.reloading import Staged
from edgeproxy.testing import MemoryGateway
from edgeproxy.testing.gateway import Service
from edgeproxy.testing.reactor import MemoryReactor
from edgeproxy.upstream.lookup import Answer
from edgeproxy.upstream.names import Names
from edgeproxy.upstream.resolve import Name, Resolver

GONE = Answer(error="there is no such name", absent=True)
DEAD = Answer(error="no answer")


def found(*addresses: str, ttl: float = 30.0) -> Answer:
    return Answer(addresses, ttl)


class Asked:
    """What a resolver has asked for, answered when the test likes."""

    def __init__(self) -> None:
        self.open: list[tuple[str, Callable[[str, Answer], None]]] = []
        self.count = 0

    def __call__(self, host: str, answered: Callable[[str, Answer], None]) -> None:
        self.count += 1
        self.open.append((host, answered))

    def answer(self, answer: Answer) -> None:
        host, answered = self.open.pop(0)
        answered(host, answer)


class Looking:
    """A resolver of one name on a clock of its own."""

    def __init__(self, first: Answer) -> None:
        self.reactor = MemoryReactor()
        self.asked = Asked()
        self.moved: list[tuple[str, ...]] = []
        self.resolver = Resolver(
            self.reactor,
            self.reactor.seconds,
            lambda name: self.moved.append(name.addresses),
        )

        def look_up(host: str) -> Answer:
            return first

        self.resolver.use(self.resolver.first(["app"], look_up), look_up)
        self.resolver.ask = self.asked

    @property
    def name(self) -> Name:
        return self.resolver.names["app"]

    def wait(self, seconds: float) -> int:
        """Let time pass; how many look-ups are under way then."""
        self.reactor.advance(seconds)
        self.resolver.sweep(self.reactor.seconds())
        return len(self.asked.open)

    def answer(self, answer: Answer) -> None:
        self.asked.answer(answer)
        self.reactor.settle()


def test_an_answer_holds_as_long_as_it_says() -> None:
    looking = Looking(found("10.0.0.1", ttl=7))
    assert looking.wait(6.9) == 0
    assert looking.wait(0.2) == 1
    assert looking.wait(60) == 1, "one look-up at a time"
    looking.answer(found("10.0.0.2", ttl=100))
    assert looking.moved == [("10.0.0.2",)]
    assert looking.wait(99) == 0
    assert looking.wait(2) == 1
    looking.answer(found("10.0.0.2", ttl=100))
    assert looking.moved == [("10.0.0.2",)], "nothing has moved"


@pytest.mark.parametrize(("ttl", "holds"), [(0, 1), (0.5, 1), (86400, 3600)])
def test_the_time_has_bounds(ttl: float, holds: float) -> None:
    looking = Looking(found("10.0.0.1", ttl=ttl))
    assert looking.wait(holds - 0.1) == 0
    assert looking.wait(0.2) == 1


def test_a_failure_keeps_the_old_answer_and_is_tried_again_more_rarely() -> None:
    looking = Looking(found("10.0.0.1", ttl=5))
    looking.wait(5)
    for pause in (1, 2, 4, 8, 16, 30, 30):
        looking.answer(DEAD)
        assert looking.name.addresses == ("10.0.0.1",)
        assert looking.wait(pause - 0.1) == 0
        assert looking.wait(0.2) == 1
    assert (looking.name.failures, looking.resolver.failed) == (7, 7)
    looking.answer(found("10.0.0.9", ttl=5))
    assert (looking.name.failures, looking.name.error) == (0, "")
    assert looking.moved == [("10.0.0.9",)]


def test_a_name_that_is_gone_loses_its_addresses_after_a_while() -> None:
    looking = Looking(found("10.0.0.1", ttl=5))
    looking.wait(5)
    gone_for = 0.0
    while gone_for < 30:
        looking.answer(GONE)
        assert looking.name.addresses == ("10.0.0.1",), gone_for
        while not looking.wait(0.5):
            gone_for += 0.5
        gone_for += 0.5
    looking.answer(GONE)
    assert looking.moved == [()]
    looking.wait(30)
    looking.answer(found("10.0.0.1"))
    assert looking.moved == [(), ("10.0.0.1",)]


def test_a_dead_server_in_between_begins_that_while_anew() -> None:
    looking = Looking(found("10.0.0.1", ttl=5))
    looking.wait(5)
    for _ in range(20):
        for answer in (GONE, DEAD):
            looking.answer(answer)
            looking.wait(30)
    assert looking.name.addresses == ("10.0.0.1",)


def test_an_answer_for_a_name_that_nobody_uses_any_more() -> None:
    looking = Looking(found("10.0.0.1", ttl=5))
    looking.wait(5)
    looking.resolver.use({}, Names())
    looking.answer(found("10.0.0.2"))
    assert looking.moved == []


CONFIG = """
upstreams: { app: [http://app.internal:9001, http://10.0.0.7:9001], one: http://one.internal }
routes:
  api.example.com:
    /: { to: app, auth: none }
    /one: { to: one, auth: none }
"""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def addresses(gateway: MemoryGateway, upstream: str = "app") -> list[str]:
    return [target.name for target in gateway.gateway.snapshot().upstreams[upstream].targets]


def ask(gateway: MemoryGateway, path: bytes = b"/") -> Any:
    client = gateway.client()
    client.send(b"GET %b HTTP/1.1\r\nHost: api.example.com\r\n\r\n" % path)
    return client


def test_a_name_stands_for_all_its_addresses() -> None:
    gateway = MemoryGateway(CONFIG, names={"app.internal": ["10.0.0.2", "10.0.0.1", "fd00::1"]})
    assert addresses(gateway) == [
        "10.0.0.1:9001",
        "10.0.0.2:9001",
        "[fd00::1]:9001",
        "10.0.0.7:9001",
    ]
    for _ in range(4):
        ask(gateway)
    asked = {at for at, service in gateway.services.items() if service.attempts}
    assert asked == {(ip, 9001) for ip in ("10.0.0.1", "10.0.0.2", "fd00::1", "10.0.0.7")}


def test_two_configured_targets_at_one_address_are_one() -> None:
    gateway = MemoryGateway(CONFIG, names={"app.internal": ["10.0.0.7", "10.0.0.1"]})
    assert addresses(gateway) == ["10.0.0.1:9001", "10.0.0.7:9001"]


@pytest.mark.parametrize("word", ["http://10.0.0.7:9001", "10.0.0.7:9001", "app.internal:9001"])
def test_one_target_is_drained_by_each_name_that_it_was_given(word: str) -> None:
    gateway = MemoryGateway(CONFIG, names={"app.internal": ["10.0.0.7"]})
    fleet = gateway.gateway.fleet
    (target,) = gateway.gateway.snapshot().upstreams["app"].targets
    for on in (True, False):
        assert fleet.drain("app", word, on=on, force=True) == [target]
        assert target.health.draining == on


def test_a_target_that_is_written_in_another_way_keeps_its_pool_and_goes_by_that() -> None:
    written = "upstreams: { one: { targets: http://one.internal, health: / } }\n"
    written += "routes: { api.example.com: { /: { to: one, auth: none } } }"
    gateway = MemoryGateway(written, names={"one.internal": ["10.0.0.1"]})
    service = gateway.gateway
    (target,) = service.fleet.targets
    gateway.wait(0)
    assert b"Host: one.internal\r\n" in gateway.services["10.0.0.1", 80].received
    service.use(service.build(parse(written.replace("one.internal", "10.0.0.1"))), Staged())
    assert service.fleet.targets == [target]
    gateway.wait(0)
    assert b"Host: 10.0.0.1\r\n" in gateway.services["10.0.0.1", 80].received
    assert service.fleet.drain("one", "10.0.0.1:80", on=True, force=True) == [target]
    assert target.health.draining


def test_a_move_keeps_the_pool_of_what_stays_and_lets_the_rest_end_in_peace() -> None:
    gateway = MemoryGateway(CONFIG, names={"one.internal": ["10.0.0.1", "10.0.0.2"]})
    upstream = gateway.gateway.snapshot().upstreams["one"]
    stays, goes = upstream.targets
    first, second = ask(gateway, b"/one"), ask(gateway, b"/one")
    old = gateway.services["10.0.0.2", 80].accept()
    gateway.names["one.internal"] = ["10.0.0.3", "10.0.0.1"]
    gateway.wait(31)
    assert addresses(gateway, "one") == ["10.0.0.1:80", "10.0.0.3:80"]
    assert upstream.targets[0] is stays
    assert (stays.retired, goes.retired) == (False, True)
    old.send(OK)
    gateway.services["10.0.0.1", 80].accept().send(OK)
    assert first.received.startswith(b"HTTP/1.1 200") and second.received.startswith(
        b"HTTP/1.1 200"
    )
    assert not goes.clients and repr(goes.pool).startswith("<Pool open=0/")
    assert len(stays.pool.idle) == 1


def test_the_only_address_moves_while_requests_wait_for_it() -> None:
    """A request that the old address refuses finds the new one."""
    gateway = MemoryGateway(CONFIG, names={"one.internal": ["10.0.0.1"]})
    gateway.services["10.0.0.1", 80] = Service()
    gateway.services["10.0.0.1", 80].mode = "silent"
    client = ask(gateway, b"/one")
    gateway.wait(29)
    client = ask(gateway, b"/one")
    gateway.names["one.internal"] = ["10.0.0.2"]
    gateway.wait(4)
    gateway.services["10.0.0.2", 80].accept().send(OK)
    assert client.received.startswith(b"HTTP/1.1 200")
    assert gateway.gateway.snapshot().upstreams["one"].only is not None


def test_a_name_that_leads_nowhere_is_503_until_it_does() -> None:
    gateway = MemoryGateway(CONFIG)
    assert addresses(gateway, "one") == []
    assert addresses(gateway) == ["10.0.0.7:9001"]
    client = ask(gateway, b"/one")
    assert client.received.startswith(b"HTTP/1.1 503")
    assert gateway.log[-1]["reason"] == "no address of the service is known"
    gateway.names["one.internal"] = ["10.0.0.1"]
    gateway.wait(2)
    ask(gateway, b"/one")
    assert gateway.services["10.0.0.1", 80].accept()


def test_a_reload_keeps_what_a_name_leads_to() -> None:
    gateway = MemoryGateway(CONFIG, names={"one.internal": ["10.0.0.1"], "app.internal": ["::1"]})
    service = gateway.gateway
    before = service.fleet.targets
    built = service.build(gateway.config)
    gateway.names["one.internal"] = ["10.0.0.2"]
    gateway.wait(31)  # it moves between building and putting into force
    service.use(built, Staged())
    assert addresses(gateway, "one") == ["10.0.0.2:80"]
    assert [t.retired for t in before] == [t.name == "10.0.0.1:80" for t in before]
    assert {t for t in before if not t.retired} <= set(service.fleet.targets)
    gateway.names["one.internal"] = ["10.0.0.3"]
    gateway.wait(31)
    assert addresses(gateway, "one") == ["10.0.0.3:80"]
