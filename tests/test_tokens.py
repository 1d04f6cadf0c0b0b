"""Tokens over whole requests: who is let in, what the service gets, what is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from origin_support import Origin, Reactor, ok, running
from tokens_support import ISSUER, KINDS, NOW, SECRET, dumped, key, key_set, token
from twisted.internet.defer import Deferred

from edgeproxy.errors import GatewayError
from edgeproxy.fetching import Fetcher
from edgeproxy.identity.token import Token
from edgeproxy.testing import MemoryGateway
from edgeproxy.tokens import Asked, Tokens

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ROUTES = """
upstreams: { users: http://10.0.0.1:9001 }
routes: { api.example.com: { /: { to: users, auth: AUTH }, /page: { page: true, auth: AUTH } } }
"""


def gateway(auth: str = "partner", **credentials: dict[str, Any]) -> MemoryGateway:
    made = credentials or {"partner": settings(jwks=key_set(key()))}
    text = ROUTES.replace("AUTH", auth) + f"auth: {json.dumps(made)}"
    return MemoryGateway(text, environ={"SECRET": SECRET})


def settings(**more: Any) -> dict[str, Any]:
    return {"jwt": ISSUER, "audience": "shop", **more}


def ask(gateway: MemoryGateway, *fields: str, path: str = "/") -> Any:
    client = gateway.client()
    lines = "".join(f"{field}\r\n" for field in fields)
    client.send(f"GET {path} HTTP/1.1\r\nHost: api.example.com\r\n{lines}\r\n".encode())
    return client


def passed(gateway: MemoryGateway) -> bytes:
    """What the service got, which then answers."""
    gateway.reactor.settle()
    service = gateway.services["10.0.0.1", 9001]
    assert service.attempts, gateway.finished[-1].reason
    wire = service.accept()
    wire.send(OK)
    return wire.received


def credential(gateway: MemoryGateway, name: str = "partner") -> Tokens:
    found = gateway.gateway.credentials.by_name(gateway.gateway.credentials._made)[name]
    assert isinstance(found, Tokens)
    return found


@pytest.mark.parametrize("algorithm", [*KINDS, "HS256", "HS384", "HS512"])
def test_every_algorithm(algorithm: str) -> None:
    symmetric = algorithm.startswith("HS")
    keys = {"secret": "${env:SECRET}"} if symmetric else {"jwks": key_set(key(algorithm))}
    made = gateway(partner=settings(**keys))
    client = ask(made, f"Authorization: Bearer {token(algorithm)}")
    got = passed(made)
    assert b"X-Consumer-Id: partner:alice\r\nX-Consumer-Name: alice\r\n" in got
    assert b"Authorization" not in got
    assert client.answers()[0].status == 200
    assert made.log[-1]["principal"] == "partner:alice"
    assert made.log[-1]["kind"] == "jwt"


def test_claims_make_the_principal() -> None:
    made = gateway(
        partner=settings(
            jwks=key_set(key()), name="preferred_username", groups="realm_access.roles"
        )
    )
    sent = token(preferred_username="Alice", realm_access={"roles": ["ops", "dev"]})
    ask(made, f"Authorization: Bearer {sent}")
    got = passed(made)
    assert b"X-Consumer-Name: Alice\r\nX-Consumer-Groups: ops,dev\r\n" in got


def test_remembered_until_it_expires() -> None:
    made = gateway()
    sent = f"Authorization: Bearer {token()}"
    ask(made, sent)
    wire = made.services["10.0.0.1", 9001]
    passed(made)
    assert len(credential(made).remembered) == 1
    ask(made, sent)
    made.reactor.settle()
    assert wire.received.count(b"X-Consumer-Id: partner:alice\r\n") == 2
    wire.connections[0].send(OK)
    first, second = made.finished
    assert first.principal is second.principal is not None
    made.wait(331)
    late = ask(made, sent)
    assert late.answers()[0].status == 401
    assert made.finished[-1].reason == "partner: expired"
    assert len(credential(made).remembered) == 0


# -- keys that are fetched -----------------------------------------------------------------------


class Fetched:
    """A gateway whose issuer is a real server; its clock is the gateway's."""

    def __init__(self, reactor: Reactor, origin: Origin, more: str = "") -> None:
        self.origin, self.turning = origin, reactor
        origin.by_path["/keys"] = ok(dumped(key_set(key())))
        entry = {"jwt": ISSUER, "audience": "shop", "jwks": origin.url + "/keys"}
        self.gateway = gateway(partner=entry)
        self.credential = credential(self.gateway)
        assert self.credential.issuer is not None
        self.issuer = self.credential.issuer
        self.issuer._get = Fetcher(reactor, origin.authority or None).get

    def settle(self) -> None:
        """Until no fetch is under way."""
        self.turning.turn_until(lambda: not len(self.issuer._flights))
        self.gateway.reactor.settle()

    def status(self, sent: str) -> int:
        """What a request with that token is answered."""
        client = ask(self.gateway, f"Authorization: Bearer {sent}", path="/page")
        self.settle()
        (answer,) = client.answers()
        client.end()
        self.gateway.reactor.settle()
        return int(answer.status)

    def fresh(self, **said: Any) -> str:
        """A token that is good by the gateway's clock."""
        now = self.gateway.clock.now() + self.gateway.clock.epoch
        return token(**{"iat": now, "exp": now + 60, **said})

    def pass_time(self, seconds: float) -> None:
        """In one step: nothing waits meanwhile."""
        self.gateway.reactor.advance(seconds)


@pytest.fixture
def fetched() -> Iterator[Fetched]:
    with running() as reactor, Origin(tls="127.0.0.1") as origin:
        yield Fetched(reactor, origin)


def test_the_first_caller_waits_for_the_keys(fetched: Fetched) -> None:
    assert fetched.status(fetched.fresh()) == 200
    assert fetched.origin.paths() == ["/keys"]


def test_callers_beside_each_other_wait_for_one_fetch(fetched: Fetched) -> None:
    clients = [ask(fetched.gateway, f"Authorization: Bearer {token(jti=n)}") for n in range(20)]
    fetched.settle()
    assert len(fetched.origin.asked) == 1
    assert len(fetched.gateway.services["10.0.0.1", 9001].connections) == 20
    assert all(client.answers() == [] for client in clients)


def test_without_any_key_nobody_can_say(fetched: Fetched) -> None:
    fetched.origin.by_path["/keys"] = b""
    assert fetched.status(fetched.fresh()) == 503
    assert fetched.gateway.finished[-1].reason == (
        "partner: no keys from its issuer: no answer that could be understood"
    )
    for _ in range(50):  # at once, and without another fetch
        assert fetched.status(fetched.fresh()) == 503
    assert len(fetched.origin.asked) == 1
    fetched.origin.by_path["/keys"] = ok(dumped(key_set(key())))
    fetched.pass_time(10)
    assert fetched.status(fetched.fresh()) == 200
    # What is wrong with a token in any case is said without keys.
    fetched.issuer.keys = None
    assert fetched.status(token(exp=1)) == 401


def test_a_new_key(fetched: Fetched) -> None:
    assert fetched.status(fetched.fresh()) == 200
    second = key("ES256", "k2")
    fetched.origin.by_path["/keys"] = ok(dumped(key_set(key(), second)))
    assert fetched.status(fetched.fresh(private=second, kid="k2")) == 401  # within ten seconds
    fetched.pass_time(10)
    assert fetched.status(fetched.fresh(private=second, kid="k2")) == 200
    assert len(fetched.origin.asked) == 2


def test_unknown_keys_fetch_once_in_ten_seconds(fetched: Fetched) -> None:
    assert fetched.status(fetched.fresh()) == 200
    before, refused = len(fetched.origin.asked), 0
    flood = [
        Asked(Token(token(kid=f"x{number}", exp=NOW + 3600).encode()), b"") for number in range(100)
    ]
    for number in range(10_000):
        if number % 500 == 0:
            fetched.pass_time(1.5)
        now: Any = SimpleNamespace(now=fetched.gateway.clock.now() + fetched.gateway.clock.epoch)
        try:
            waiting = fetched.credential.verify(flood[number % 100], now)
        except GatewayError as error:
            assert error.status == 401
            refused += 1
        else:
            assert isinstance(waiting, Deferred)
            with pytest.raises(GatewayError, match="no key"):
                fetched.turning.until(waiting)
            refused += 1
    assert refused == 10_000
    assert 2 <= len(fetched.origin.asked) - before <= 3  # in 30 s


def down(origin: Origin) -> None:
    origin.by_path["/keys"] = b""


def redirecting(origin: Origin) -> None:
    origin.by_path["/keys"] = b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"


def rubbish(origin: Origin) -> None:
    origin.by_path["/keys"] = ok(b'{"keys":[{"kty":"EC"}]}')


@pytest.mark.parametrize("wrong", [down, redirecting, rubbish])
def test_good_tokens_go_on_for_a_day(fetched: Fetched, wrong: Callable[[Origin], None]) -> None:
    assert fetched.status(fetched.fresh()) == 200
    wrong(fetched.origin)
    for _ in range(23):
        fetched.pass_time(3600)
        assert fetched.status(fetched.fresh()) == 200
        assert fetched.issuer.error
    fetched.pass_time(3590)
    assert fetched.status(fetched.fresh(exp=NOW + 2 * 86400)) == 200
    fetched.pass_time(10)
    assert fetched.status(fetched.fresh()) == 503
    assert fetched.status(fetched.fresh(exp=NOW + 2 * 86400)) == 503  # remembered or not
    fetched.origin.by_path["/keys"] = ok(dumped(key_set(key())))
    fetched.pass_time(10)
    assert fetched.status(fetched.fresh()) == 200


def test_a_slow_issuer_keeps_nobody_waiting(fetched: Fetched) -> None:
    assert fetched.status(fetched.fresh()) == 200
    fetched.origin.by_path["/keys"], fetched.origin.hangs = b"", True
    fetched.pass_time(301)
    client = ask(fetched.gateway, f"Authorization: Bearer {fetched.fresh()}")
    fetched.gateway.reactor.settle()
    assert len(fetched.issuer._flights) == 1
    assert client.answers() == []
    assert fetched.gateway.services["10.0.0.1", 9001].received.count(b"GET ") == 1
    fetched.turning.turn_until(lambda: fetched.origin.sent == 2)
    fetched.turning.pass_time(6)
    fetched.settle()
    assert fetched.issuer.error == "no answer within 5 s"


def test_a_key_that_is_withdrawn_takes_its_tokens_along(fetched: Fetched) -> None:
    sent = fetched.fresh(exp=NOW + 3600)
    assert fetched.status(sent) == 200
    fetched.origin.by_path["/keys"] = ok(dumped(key_set(key("ES256", "k2"))))
    fetched.pass_time(299)
    assert fetched.status(sent) == 200
    fetched.pass_time(1)
    assert fetched.status(sent) == 200  # and looks for newer keys meanwhile
    assert fetched.status(sent) == 401
    assert fetched.gateway.finished[-1].reason == "partner: no key 'k1' for 'ES256'"
    assert len(fetched.credential.remembered) == 0


def test_after_a_pause_keys_are_looked_for_first(fetched: Fetched) -> None:
    sent = fetched.fresh(exp=NOW + 7200)
    assert fetched.status(sent) == 200
    fetched.origin.by_path["/keys"] = ok(dumped(key_set(key("ES256", "k2"))))
    fetched.pass_time(3600)
    assert fetched.status(sent) == 401
    assert fetched.gateway.finished[-1].reason == "partner: its key has left the set"


def test_what_status_tells(fetched: Fetched) -> None:
    fetched.status(fetched.fresh())
    fetched.pass_time(20)
    told = fetched.gateway.gateway.credentials.status()
    assert told == {
        "partner": {"issuer": ISSUER, "keys": 1, "age": 20.0, "error": "", "remembered": 1}
    }
