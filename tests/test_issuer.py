"""The keys of an issuer, from a real server, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from origin_support import Origin, Reactor, ok, running
from tokens_support import NOW, dumped, key, key_set

from edgeproxy.config import parse
from edgeproxy.config.jwt import Jwt
from edgeproxy.fetching import Fetcher
from edgeproxy.issuer import FRESH, LATE, PAUSE, Issuer

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with running() as reactor:
        yield reactor


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        origin.by_path["/keys"] = ok(dumped(key_set(key())))
        origin.by_path[DISCOVERY] = discovery(origin)
        yield origin


def discovery(origin: Origin, **changed: Any) -> bytes:
    return ok(dumped({"issuer": origin.url, "jwks_uri": origin.url + "/keys", **changed}))


def issuer(reactor: Reactor, origin: Origin, more: str = "") -> Issuer:
    entry = f"{{ jwt: '{origin.url}', audience: shop{more} }}"
    top = "upstreams: { u: http://127.0.0.1:1 }\nroutes: { '*': { /: u } }\n"
    settings = parse(f"{top}auth: {{ partner: {entry} }}").credentials["partner"]
    assert isinstance(settings, Jwt)
    return Issuer("partner", settings, Fetcher(reactor).get, reactor)


def refreshed(reactor: Reactor, found: Issuer, now: float = NOW) -> None:
    waiting = found.refresh(now)
    assert waiting is not None
    reactor.until(waiting)


def test_discovered(reactor: Reactor, origin: Origin) -> None:
    found = issuer(reactor, origin)
    refreshed(reactor, found)
    assert found.error == ""
    assert found.keys is not None
    assert [each.kid for each in found.keys.keys] == ["k1"]
    assert (found.due, found.late, found.until) == (NOW + FRESH, NOW + LATE, NOW + 86400)
    refreshed(reactor, found, NOW + FRESH)
    assert origin.paths() == [DISCOVERY, "/keys", "/keys"]  # the address is believed for an hour
    refreshed(reactor, found, NOW + 3600)
    assert origin.paths()[3:] == [DISCOVERY, "/keys"]


def test_a_fixed_address(reactor: Reactor, origin: Origin) -> None:
    found = issuer(reactor, origin, f", jwks: '{origin.url}/keys', stale: 1h")
    refreshed(reactor, found)
    assert origin.paths() == ["/keys"]
    assert found.until == NOW + 3600


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"issuer": "https://evil.example.com"}, "the issuer there is 'https://evil.example.com'"),
        ({"issuer": None}, "the issuer there is None"),
        ({"jwks_uri": "http://id.example.com/keys"}, "jwks_uri is no https:// URL"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri is no https:// URL"),
        ({"jwks_uri": None}, "jwks_uri is no https:// URL"),
        ({"jwks_uri": ["https://id.example.com"]}, "jwks_uri is no https:// URL"),
    ],
)
def test_discovery_that_is_not_believed(
    reactor: Reactor, origin: Origin, changed: dict[str, Any], why: str
) -> None:
    origin.by_path[DISCOVERY] = discovery(origin, **changed)
    found = issuer(reactor, origin)
    refreshed(reactor, found)
    assert why in found.error
    assert found.keys is None
    assert origin.paths() == [DISCOVERY]


def test_one_refresh_at_a_time_and_one_in_ten_seconds(reactor: Reactor, origin: Origin) -> None:
    found = issuer(reactor, origin)
    waiting = [found.refresh(NOW) for _ in range(100)]
    for each in waiting:
        assert each is not None
        reactor.until(each)
    assert origin.paths() == [DISCOVERY, "/keys"]
    assert found.refresh(NOW + PAUSE - 0.1) is None
    refreshed(reactor, found, NOW + PAUSE)
    assert len(origin.paths()) == 3


def test_a_refresh_survives_those_who_asked_for_it(reactor: Reactor, origin: Origin) -> None:
    found = issuer(reactor, origin)
    waiting = found.refresh(NOW)
    assert waiting is not None
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    reactor.turn_until(lambda: found.keys)


RUBBISH = [
    b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /keys2\r\nContent-Length: 0\r\n\r\n",
    b"SSH-2.0\r\n",
    ok(b"<html>"),
    ok(b'{"keys":[]}'),
    ok(b'{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}'),
    ok(b"{" * 600_000),
]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_old_keys_outlive_rubbish(
    reactor: Reactor, origin: Origin, rubbish: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("edgeproxy.issuer._log.warn", lambda *a, **k: said.append(k["error"]))
    monkeypatch.setattr("edgeproxy.issuer._log.info", lambda *a, **k: said.append("again"))
    found = issuer(reactor, origin)
    refreshed(reactor, found)
    keys, good = found.keys, origin.by_path["/keys"]
    origin.by_path["/keys"] = rubbish
    for number in range(3):
        refreshed(reactor, found, NOW + FRESH + number * PAUSE)
    assert found.keys is keys
    assert found.until == NOW + 86400
    assert len(said) == 1  # the first time
    origin.by_path["/keys"] = good
    refreshed(reactor, found, NOW + 3600)
    assert found.error == ""
    assert found.keys is not None
    assert keys is not None
    assert found.keys.keys[0] is keys.keys[0]  # the same key: what it has verified stays
    assert said[1:] == ["again"]
