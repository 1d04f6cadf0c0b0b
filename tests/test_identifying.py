"""Policies over whole requests: who claims what, what waits, what a service does not get."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from edgeproxy.exchange import Outcome
from edgeproxy.identifying import Credential, Sent
from edgeproxy.identity.principal import Principal
from edgeproxy.identity.refusal import invalid
from edgeproxy.policy import Policy
from edgeproxy.testing import Ending, MemoryGateway

CONFIGURATION = """
upstreams: { users: http://10.0.0.1:9001 }
limits: { few: { rate: 2/min, by: address }, soft: { rate: 1/min, by: address, shadow: true },
  one: { rate: 1/min }, two: { rate: 2/min } }
routes: { api.example.com: { /: { to: users, scopes: [read], limit: few } } }
"""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Tokens(Credential):
    """Takes any bearer token; whose it is comes later, or at once from `known`."""

    name = "tokens"
    rank = 5
    takes_bearer = True

    def __init__(self, known: dict[bytes, Principal] | None = None) -> None:
        self.known = known or {}
        self.asked: list[tuple[bytes, Deferred[Principal]]] = []

    def claim(self, sent: Sent) -> bytes | None:
        token, sent.bearer = sent.bearer, None
        if token is not None:
            sent.withhold_bearer()
        return token

    def verify(self, claim: bytes, sent: Sent) -> Principal | Deferred[Principal]:
        if claim in self.known:
            return self.known[claim]
        deferred: Deferred[Principal] = Deferred()
        self.asked.append((claim, deferred))
        return deferred


class Picky(Tokens):
    """Takes only tokens of its own form."""

    name = "picky"
    rank = 1

    def claim(self, sent: Sent) -> bytes | None:
        if sent.bearer is None or not sent.bearer.startswith(b"picky."):
            return None
        return super().claim(sent)


ANN = Principal("ann", "Ann", scopes=frozenset(["read"]))
BOB = Principal("bob", "Bob")


def gateway_with(
    *credentials: Credential, anonymous: bool = False, limit: str = "few"
) -> MemoryGateway:
    gateway = MemoryGateway(CONFIGURATION.replace("limit: few", f"limit: {limit}"))
    keys = gateway.gateway.credentials.by_name({})["api_key"]
    asked = [keys if each is API_KEY else each for each in credentials]
    for rule in gateway.gateway.resource.snapshot.router.ordered:
        rule.action.policy = Policy(asked, anonymous=anonymous)
    return gateway


API_KEY = Credential()


def ask(gateway: MemoryGateway, *fields: str, path: str = "/") -> Any:
    client = gateway.client()
    lines = "".join(f"{field}\r\n" for field in fields)
    client.send(f"GET {path} HTTP/1.1\r\nHost: api.example.com\r\n{lines}\r\n".encode())
    return client


def passed(gateway: MemoryGateway) -> bytes:
    """What the service got, which then answers."""
    gateway.reactor.settle()
    wire = gateway.services["10.0.0.1", 9001].accept()
    wire.send(OK)
    return wire.received


def test_at_once() -> None:
    gateway = gateway_with(Tokens({b"a": ANN}))
    client = ask(gateway, "Authorization: Bearer a")
    got = passed(gateway)
    assert b"X-Consumer-Id: ann\r\n" in got
    assert b"Authorization" not in got
    assert client.answers()[0].status == 200


def test_later() -> None:
    tokens = Tokens()
    gateway = gateway_with(tokens)
    client = ask(gateway, "Authorization: Bearer a")
    assert gateway.services["10.0.0.1", 9001].attempts == 0
    ((token, deferred),) = tokens.asked
    assert token == b"a"
    deferred.callback(ANN)
    assert b"X-Consumer-Id: ann\r\n" in passed(gateway)
    assert client.answers()[0].status == 200


@pytest.mark.parametrize("later", [False, True])
def test_a_caller_who_lacks_a_scope(later: bool) -> None:
    tokens = Tokens({} if later else {b"b": BOB})
    gateway = gateway_with(tokens)
    client = ask(gateway, "Authorization: Bearer b")
    for _, deferred in tokens.asked:
        deferred.callback(BOB)
    gateway.reactor.settle()
    (found,) = client.answers()
    assert found.status == 403
    assert gateway.finished[0].principal is BOB
    assert gateway.services["10.0.0.1", 9001].attempts == 0


def test_what_fails_later_is_refused_and_charged() -> None:
    tokens = Tokens()
    gateway = gateway_with(tokens)
    for number in range(2):
        client = ask(gateway, "Authorization: Bearer a")
        tokens.asked[number][1].errback(Failure(invalid("unknown token")))
        gateway.reactor.settle()
        assert client.answers()[0].status == 401
    assert ask(gateway, "Authorization: Bearer a").answers()[0].status == 429
    assert gateway.finished[0].reason == "unknown token"


def test_what_has_waited_is_counted_when_it_goes_on() -> None:
    """A window counts in the order of time: what came first and waited comes after the others."""
    tokens = Tokens({b"now": ANN})
    gateway = gateway_with(tokens, limit="two")
    ask(gateway, "Authorization: Bearer later")
    gateway.wait(30)
    ask(gateway, "Authorization: Bearer now")
    gateway.wait(1)
    tokens.asked[0][1].callback(ANN)
    assert passed(gateway) and passed(gateway)
    gateway.wait(30)  # the first came 61 s ago
    assert ask(gateway, "Authorization: Bearer now").answers()[0].status == 429


def test_over_a_limit_after_waiting() -> None:
    """Refused requests do not count, by address either."""
    tokens = Tokens()
    gateway = gateway_with(tokens, limit="[one, few]")
    for number, status in enumerate([200, 429, 429, 429]):
        client = ask(gateway, "Authorization: Bearer a")
        tokens.asked[number][1].callback(ANN)
        if status == 200:
            assert passed(gateway)
        gateway.reactor.settle()
        assert client.answers()[0].status == status
        assert len(tokens.asked) == number + 1  # it came as far as identity


def test_those_that_wait_together_do_not_pass_a_limit_by_address_together() -> None:
    tokens = Tokens()
    gateway = gateway_with(tokens)
    clients = [ask(gateway, f"Authorization: Bearer {number}") for number in range(4)]
    for _, deferred in tokens.asked:
        deferred.callback(ANN)
    gateway.reactor.settle()
    for wire in gateway.services["10.0.0.1", 9001].connections:
        wire.send(OK)
    gateway.reactor.settle()
    assert [client.answers()[0].status for client in clients] == [200, 200, 429, 429]


def test_a_limit_in_shadow_is_noted_once_by_what_waited() -> None:
    tokens = Tokens()
    gateway = gateway_with(tokens, limit="soft")
    for number in range(2):
        client = ask(gateway, "Authorization: Bearer a")
        tokens.asked[number][1].callback(ANN)
        gateway.reactor.settle()
        gateway.services["10.0.0.1", 9001].connections[0].send(OK)
        assert client.answers()[0].status == 200
    assert [each.shadow for each in gateway.finished] == [(), ((429, "429 limit soft"),)]


def test_what_waits_is_charged_where_its_address_is_counted_then() -> None:
    """The window that was looked at first was empty, and has left the table since."""
    tokens = Tokens()
    gateway = gateway_with(tokens)
    for number in range(2):
        ask(gateway, f"Authorization: Bearer {number}")
        for other in range(4):  # each newcomer takes dead windows out
            client = gateway.client(f"198.51.100.{4 * number + other}")
            client.send(b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
    for _, deferred in tokens.asked:
        deferred.errback(Failure(invalid("unknown token")))
    assert ask(gateway, "Authorization: Bearer a").answers()[0].status == 429


def test_what_breaks_later_is_our_own_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("edgeproxy.resource._log.failure", lambda *said: told.append(said))
    tokens = Tokens()
    gateway = gateway_with(tokens)
    client = ask(gateway, "Authorization: Bearer a")
    tokens.asked[0][1].errback(Failure(ZeroDivisionError()))
    gateway.reactor.settle()
    assert client.answers()[0].status == 500
    assert len(told) == 1


def test_a_client_that_goes_while_it_waits() -> None:
    tokens = Tokens()
    gateway = gateway_with(tokens)
    client = ask(gateway, "Authorization: Bearer a")
    cancelled: list[object] = []
    tokens.asked[0][1].addErrback(cancelled.append)
    client.reset()
    assert gateway.finished[0].outcome is Outcome.CLIENT_GONE
    assert gateway.services["10.0.0.1", 9001].attempts == 0


def test_pipelined_requests_keep_their_order() -> None:
    tokens = Tokens({b"now": ANN})
    gateway = gateway_with(tokens)
    client = gateway.client()
    head = b"GET /%b HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer %b\r\n\r\n"
    client.send(head % (b"1", b"later") + head % (b"2", b"now"))
    assert gateway.services["10.0.0.1", 9001].attempts == 0
    tokens.asked[0][1].callback(ANN)
    assert passed(gateway).startswith(b"GET /1 ")
    assert client.ending is Ending.OPEN


def test_a_body_waits_with_its_request() -> None:
    tokens = Tokens()
    gateway = gateway_with(tokens)
    client = gateway.client()
    client.send(
        b"POST / HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer a\r\n"
        b"Content-Length: 4\r\n\r\nbody"
    )
    tokens.asked[0][1].callback(ANN)
    assert passed(gateway).endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize(
    ("fields", "status", "challenge"),
    [
        ((), 401, "Bearer"),
        (("Authorization: Basic YTpi",), 401, "Bearer"),
        (("Authorization: Bearer a", "Authorization: Bearer a"), 401, "invalid"),
        (("Authorization: Bearer a", "X-API-Key: KEY"), 401, "invalid"),
        (("Authorization: Bearer KEY", "X-API-Key: KEY"), 401, "invalid"),
        (("Authorization: Bearer KEY",), 200, ""),
        (("X-API-Key: KEY",), 200, ""),
        (("Authorization: bearer   a",), 200, ""),
    ],
)
def test_one_of_two_kinds(fields: tuple[str, ...], status: int, challenge: str) -> None:
    gateway = gateway_with(Tokens({b"a": ANN}), API_KEY)
    key = gateway.key("good", scopes=["read"])
    client = ask(gateway, *(field.replace("KEY", key) for field in fields))
    if status == 200:
        got = passed(gateway)
        assert b"Authorization" not in got
        assert key.encode() not in got
    (found,) = client.answers()
    assert found.status == status
    if challenge == "invalid":
        assert found.field("www-authenticate") == 'Bearer error="invalid_token"'
    elif challenge:
        assert found.field("www-authenticate") == challenge


def test_a_token_that_nobody_takes() -> None:
    gateway = gateway_with(Picky({b"picky.a": ANN}))
    assert ask(gateway, "Authorization: Bearer other").answers()[0].status == 401
    assert gateway.finished[0].reason == (
        "a bearer token that none of the route's credentials takes"
    )


def test_the_picky_come_first() -> None:
    tokens, picky = Tokens(), Picky({b"picky.a": ANN})
    gateway = gateway_with(tokens, picky)
    ask(gateway, "Authorization: Bearer picky.a")
    assert passed(gateway)
    assert not tokens.asked


def test_anonymous() -> None:
    gateway = gateway_with(Tokens({b"a": ANN}), anonymous=True)
    ask(gateway)
    assert b"X-Consumer" not in passed(gateway)
    twice = ask(gateway, "Authorization: Bearer a", "Authorization: Bearer a")
    assert twice.answers()[0].status == 401


def test_a_key_where_none_is_asked_for() -> None:
    gateway = gateway_with(Tokens({b"a": ANN}))
    key = gateway.key("good")
    ask(gateway, "Authorization: Bearer a", f"X-API-Key: {key}")
    assert key.encode() not in passed(gateway)
