"""Addresses that show wrong credentials: over whole requests, and what is kept of them."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from config_support import BASE, ROUTE, assert_problems

from edgeproxy import guessing as module
from edgeproxy.config import parse
from edgeproxy.config.guessing import Guessing as Settings
from edgeproxy.config.units import rate
from edgeproxy.guessing import Guessing
from edgeproxy.testing import MemoryGateway

CONFIGURATION = """
guessing: 3/min
upstreams: { users: http://10.0.0.1:9001 }
auth: { guest: { anonymous: {} } }
trusted_proxies: 203.0.113.0/24
routes:
  api.example.com:
    /: users
    /news: { to: users, auth: [api_key, guest] }
    /open: { to: users, auth: none }
    /shadow: { to: users, shadow: true }
"""
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
WRONG = "X-API-Key: edge_wrong"


def ask(gateway: MemoryGateway, *fields: str, path: str = "/", address: str = "192.0.2.1") -> Any:
    client = gateway.client(address)
    lines = "".join(f"{field}\r\n" for field in fields)
    client.send(f"GET {path} HTTP/1.1\r\nHost: api.example.com\r\n{lines}\r\n".encode())
    gateway.reactor.settle()
    for wire in gateway.service("users").connections:
        if wire.received and not wire.has_ended:
            wire.send(OK)
            wire.end()
    gateway.reactor.settle()
    return client.answers()[0]


def guess(gateway: MemoryGateway, count: int = 3, **more: str) -> list[int]:
    return [ask(gateway, WRONG, **more).status for _ in range(count)]


def test_an_address_that_guesses_is_refused_for_a_while() -> None:
    gateway = MemoryGateway(CONFIGURATION)
    key = f"X-API-Key: {gateway.key('shop')}"
    assert guess(gateway, 5) == [401, 401, 401, 429, 429]
    gateway.wait(20.5)
    found = ask(gateway, key)
    assert (found.status, found.field("retry-after")) == (429, "40")
    assert found.field("www-authenticate") is None
    assert gateway.finished[-1].reason == "too many wrong credentials from its address"
    assert gateway.finished[-1].principal is None
    assert ask(gateway, key, address="192.0.2.2").status == 200
    gateway.wait(40)
    assert ask(gateway, key).status == 200
    status = gateway.gateway.resource.guessing.status()
    assert (status["failures"], status["refused"]) == (3, 3)


def test_good_credentials_and_missing_ones_never_count() -> None:
    gateway = MemoryGateway(CONFIGURATION)
    key = f"X-API-Key: {gateway.key('shop')}"
    scoped = MemoryGateway(CONFIGURATION.replace("/: users", "/: { to: users, scopes: [x] }"))
    lacking = f"X-API-Key: {scoped.key('shop')}"
    assert [ask(gateway, key).status for _ in range(9)] == [200] * 9
    assert [ask(gateway).status for _ in range(9)] == [401] * 9
    assert [ask(scoped, lacking).status for _ in range(9)] == [403] * 9
    assert not gateway.gateway.resource.guessing.suspects
    assert not scoped.gateway.resource.guessing.suspects
    # Good ones in between do not make up for wrong ones either.
    assert [ask(gateway, each).status for each in [WRONG, key] * 4][-2:] == [429, 429]


def test_ipv6_addresses_are_counted_by_their_network() -> None:
    gateway = MemoryGateway(CONFIGURATION)
    for number in range(3):
        assert guess(gateway, 1, address=f"2001:db8::{number + 1}") == [401]
    assert guess(gateway, 1, address="2001:db8::9") == [429]
    assert guess(gateway, 1, address="2001:db8:0:1::9") == [401]


def test_the_client_behind_a_trusted_proxy_is_counted() -> None:
    gateway = MemoryGateway(CONFIGURATION)
    key = f"X-API-Key: {gateway.key('shop')}"
    for _ in range(3):
        ask(gateway, WRONG, "X-Forwarded-For: 198.51.100.7", address="203.0.113.5")
    told = {
        client: ask(gateway, key, f"X-Forwarded-For: {client}", address="203.0.113.5").status
        for client in ("198.51.100.7", "198.51.100.8")
    }
    assert told == {"198.51.100.7": 429, "198.51.100.8": 200}


def test_where_nobody_is_asked_nothing_is_looked_at() -> None:
    gateway = MemoryGateway(CONFIGURATION)
    assert guess(gateway, 9, path="/shadow") == [200] * 9
    assert not gateway.gateway.resource.guessing.suspects
    guess(gateway)
    assert [ask(gateway, path=path).status for path in ("/open", "/shadow")] == [200, 200]
    assert ask(gateway, path="/news").status == 429
    assert guess(gateway, 1, path="/news") == [429]


def test_it_can_be_switched_off() -> None:
    gateway = MemoryGateway(CONFIGURATION.replace("3/min", "off"))
    assert guess(gateway, 9) == [401] * 9
    assert not gateway.gateway.resource.guessing.suspects
    assert gateway.gateway.resource.guessing.status()["failures"] == 9


def test_it_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(module._log, "warn", lambda text, **fields: told.append(fields))
    gateway = MemoryGateway(CONFIGURATION)
    for address in ("192.0.2.1", "192.0.2.2"):
        guess(gateway, 5, address=address)
    assert [each["caller"] for each in told] == ["192.0.2.1"]
    gateway.wait(61)
    guess(gateway, 5, address="192.0.2.2")
    assert [each["caller"] for each in told] == ["192.0.2.1", "192.0.2.2"]
    gateway.wait(61)
    guess(gateway, 5, address="2001:db8:0:a::9")
    assert told[-1]["caller"] == "2001:db8:0:a::/64"


# -- the table -----------------------------------------------------------------------------------


def test_the_table_is_bounded_and_locks_nobody_out() -> None:
    guessing = Guessing(Settings(rate=rate("2/min"), table=10))
    for number in range(1000):
        for _ in range(5):
            guessing.failed(f"192.0.2.{number}", 1.0)
    assert len(guessing.suspects) == 10
    assert guessing.status()["uncounted"] == 990 * 5
    refused = [number for number in range(1100) if guessing.wait(f"192.0.2.{number}", 2.0)]
    assert refused == list(range(10))
    # When theirs have left others are counted again, from nothing.
    guessing.failed("192.0.2.500", 62.0)
    assert guessing.wait("192.0.2.500", 62.0) == 0
    guessing.failed("192.0.2.500", 63.0)
    assert guessing.wait("192.0.2.500", 64.0) == 58


def test_it_empties_itself() -> None:
    guessing = Guessing(Settings())
    for number in range(100):
        guessing.failed(f"192.0.2.{number}", 1.0)
    for _ in range(50):
        assert guessing.suspects
        guessing.wait("198.51.100.1", 62.0)
    assert not guessing.suspects


def test_what_it_may_cost() -> None:
    """An address at its bound of a thousand holds 8.5 kB, measured: ten thousand of them 85 MB."""
    guessing = Guessing(Settings())
    tracemalloc.start()
    try:
        for number in range(100):
            for _ in range(1000):
                guessing.failed(f"192.0.2.{number}", 1.0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / 100 < 10_300


def test_a_reload_keeps_what_was_counted() -> None:
    guessing = Guessing(Settings(rate=rate("1/min")))
    guessing.failed("192.0.2.1", 1.0)
    guessing.use(Settings(rate=rate("1/min"), table=5))
    assert guessing.wait("192.0.2.1", 2.0) == 59
    guessing.use(Settings(rate=rate("2/min"), table=5))
    assert guessing.wait("192.0.2.1", 2.0) == 0
    assert not guessing.suspects
    assert guessing.failures == 1


# -- as it is written ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("", (1000, 60, 10_000)),
        ("guessing: 100/h\n", (100, 3600, 10_000)),
        ("guessing: { rate: 5/10s, table: 7 }\n", (5, 10, 7)),
        ("guessing: { table: 7 }\n", (1000, 60, 7)),
    ],
)
def test_written(entry: str, found: tuple[int, ...]) -> None:
    settings = parse(entry + BASE + ROUTE).guessing
    assert settings.rate is not None
    assert (settings.rate.count, settings.rate.window, settings.table) == found


@pytest.mark.parametrize("entry", ["guessing: off", "guessing: { rate: off }"])
def test_off(entry: str) -> None:
    assert parse(f"{entry}\n{BASE}{ROUTE}").guessing.rate is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("guessing: »often", "'often' is not a rate; write it as 100/min"),
        ("guessing: »false", "is not a rate"),
        ("guessing: { »rates: 5/min }", "did you mean 'rate'?"),
        ("guessing: { table: »0 }", "'0' is too small; at least 1"),
        ("guessing: { rate: »0/min }", "0/min"),
    ],
)
def test_wrong(entry: str, message: str) -> None:
    assert_problems(f"{entry}\n{BASE}{ROUTE}", message)
