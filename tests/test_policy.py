"""All of several credentials, and callers who show nothing as somebody: over whole requests, with
real keys and real tokens."""

from __future__ import annotations

from typing import Any

import pytest
from tokens_support import SECRET, by_hand, token
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from edgeproxy.exchange import Outcome
from edgeproxy.identifying import Credential, Sent
from edgeproxy.identity.principal import Principal
from edgeproxy.identity.refusal import invalid
from edgeproxy.policy import Policy
from edgeproxy.testing import MemoryGateway

CONFIGURATION = """
upstreams: { users: http://10.0.0.1:9001 }
auth:
  staff: { jwt: https://id.example.com, audience: shop, secret: "${env:SECRET}", scopes: scope }
  guest: { anonymous: { name: Any body, plan: free, groups: [guests], scopes: [read] } }
limits: { few: { rate: 2/min, plans: { free: 1/min } } }
routes:
  api.example.com:
    /both: { to: users, auth: { all: [api_key, staff] }, scopes: [write] }
    /staff: { to: users, auth: { all: [staff, api_key] }, scopes: [write] }
    /news: { to: users, auth: [api_key, guest], limit: few }
    /guests: { to: users, auth: [api_key, staff, guest], groups: [guests] }
    /all: { to: users, auth: guest }
"""
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
MISSING = "Bearer"
WRONG = 'Bearer error="invalid_token"'
LACKING = 'Bearer error="insufficient_scope"'


def the_gateway() -> MemoryGateway:
    return MemoryGateway(CONFIGURATION, environ={"SECRET": SECRET})


def ask(gateway: MemoryGateway, path: str, *fields: str, address: str = "192.0.2.1") -> Any:
    client = gateway.client(address)
    lines = "".join(f"{field}\r\n" for field in fields)
    client.send(f"GET {path} HTTP/1.1\r\nHost: api.example.com\r\n{lines}\r\n".encode())
    serve(gateway)
    return client.answers()[0]


def serve(gateway: MemoryGateway) -> None:
    """Let the service answer what has come to it: one request on each connection."""
    gateway.reactor.settle()
    for wire in gateway.service("users").connections:
        if wire.received and not wire.has_ended:
            wire.send(OK)
            wire.end()
    gateway.reactor.settle()


def passed(gateway: MemoryGateway) -> bytes:
    return gateway.service("users").accept().received


def bearer(**said: Any) -> str:
    return "Authorization: Bearer " + token("HS256", kid=None, **said)


# -- all of several ------------------------------------------------------------------------------


def test_all_are_asked_for() -> None:
    gateway = the_gateway()
    key = gateway.key("shop", scopes=["write"])
    found = ask(gateway, "/both", f"X-API-Key: {key}", bearer(scope="read"))
    assert found.status == 200
    got = passed(gateway)
    assert b"X-Consumer-Name: shop\r\n" in got
    assert got.count(b"X-Consumer-Id:") == 1
    # What was shown is not the service's.
    assert key.encode() not in got and b"uthorization" not in got
    assert gateway.log[0]["kind"] == "api_key"


def test_the_first_is_who_is_calling() -> None:
    gateway = the_gateway()
    key = gateway.key("shop")
    found = ask(gateway, "/staff", f"X-API-Key: {key}", bearer(scope="write"))
    assert found.status == 200
    assert b"X-Consumer-Id: staff:alice\r\n" in passed(gateway)
    assert gateway.log[0]["kind"] == "jwt"


def test_scopes_of_the_others_do_not_count() -> None:
    gateway = the_gateway()
    key = gateway.key("shop", scopes=["write"])
    found = ask(gateway, "/staff", f"X-API-Key: {key}", bearer(scope="read"))
    assert (found.status, found.field("www-authenticate")) == (403, LACKING)
    assert gateway.service("users").attempts == 0


@pytest.mark.parametrize(
    ("fields", "challenge", "reason"),
    [
        ([], MISSING, "no credential (api_key and staff)"),
        (["X-API-Key: KEY"], MISSING, "no credential (staff)"),
        (["X-API-Key: edge_wrong"], MISSING, "no credential (staff)"),
        (["TOKEN"], MISSING, "no credential (api_key)"),
        (["X-API-Key: edge_wrong", "TOKEN"], WRONG, "unknown key"),
        (["X-API-Key: KEY", "LATE"], WRONG, "staff: "),
        (["X-API-Key: KEY", "FORGED"], WRONG, "a bearer token that none"),
        (["X-API-Key: KEY", "X-API-Key: KEY", "TOKEN"], WRONG, "two credentials"),
        (["X-API-Key: KEY", "TOKEN", "TOKEN"], WRONG, "two Authorization fields"),
        (["Authorization: Bearer KEY", "TOKEN"], WRONG, "two Authorization fields"),
    ],
)
def test_one_of_all_is_wrong(fields: list[str], challenge: str, reason: str) -> None:
    gateway = the_gateway()
    key = gateway.key("shop", scopes=["write"])
    written = {
        "TOKEN": bearer(),
        "LATE": bearer(exp=1),
        "FORGED": "Authorization: Bearer " + by_hand({"alg": "none"}, {}),
    }
    found = ask(gateway, "/both", *(written.get(each, each).replace("KEY", key) for each in fields))
    assert (found.status, found.field("www-authenticate")) == (401, challenge)
    assert gateway.finished[0].reason.startswith(reason)
    assert gateway.service("users").attempts == 0


class Later(Credential):
    """Takes a field of its own; whose it is comes when the test says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Deferred[Principal]] = []
        self.cancelled: list[Deferred[Principal]] = []

    def claim(self, sent: Sent) -> str | None:
        return "shown"

    def verify(self, claim: str, sent: Sent) -> Deferred[Principal]:
        self.asked.append(Deferred(self.cancelled.append))
        return self.asked[-1]


ANN, BOB = Principal("ann", "Ann", scopes=frozenset(["write"])), Principal("bob", "Bob")


def two_that_wait() -> tuple[MemoryGateway, Later, Later, Any]:
    gateway = the_gateway()
    first, second = Later("first"), Later("second")
    for rule in gateway.gateway.resource.snapshot.router.ordered:
        rule.action.policy = Policy([first, second], every=True)
    client = gateway.client()
    client.send(b"GET /both HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
    return gateway, first, second, client


def test_they_wait_one_after_the_other() -> None:
    gateway, first, second, client = two_that_wait()
    assert len(first.asked) == 1 and not second.asked
    first.asked[0].callback(ANN)
    gateway.reactor.settle()
    assert len(second.asked) == 1 and gateway.service("users").attempts == 0
    second.asked[0].callback(BOB)
    serve(gateway)
    assert client.answers()[0].status == 200
    assert b"X-Consumer-Id: ann\r\n" in passed(gateway)


@pytest.mark.parametrize("which", [0, 1])
def test_one_that_fails_later(which: int) -> None:
    gateway, first, second, client = two_that_wait()
    if which:
        first.asked[0].callback(ANN)
    (first, second)[which].asked[0].errback(Failure(invalid("unknown")))
    gateway.reactor.settle()
    assert client.answers()[0].status == 401
    assert len(second.asked) == which
    assert gateway.service("users").attempts == 0


def test_a_client_that_goes_before_the_second_is_known() -> None:
    gateway, first, second, client = two_that_wait()
    first.asked[0].callback(ANN)
    client.reset()
    assert gateway.finished[0].outcome is Outcome.CLIENT_GONE
    assert second.cancelled == second.asked


def test_closed_and_open_at_once_is_not_made() -> None:
    with pytest.raises(AssertionError):
        Policy([Later("first")], every=True, anonymous=True)


# -- who shows nothing ---------------------------------------------------------------------------


def test_a_guest_is_somebody() -> None:
    gateway = the_gateway()
    assert ask(gateway, "/news").status == 200
    got = passed(gateway)
    assert b"X-Consumer-Id: guest\r\n" in got
    assert b"X-Consumer-Name: Any body\r\n" in got
    assert b"X-Consumer-Groups: guests\r\n" in got
    assert (gateway.log[0]["principal"], gateway.log[0]["kind"]) == ("guest", "anonymous")


def test_a_guest_has_scopes_and_groups() -> None:
    assert ask(the_gateway(), "/guests").status == 200


def test_who_shows_something_wrong_is_no_guest() -> None:
    for field in ("X-API-Key: edge_wrong", "Authorization: Bearer edge_wrong"):
        gateway = the_gateway()
        found = ask(gateway, "/news", field)
        assert (found.status, found.field("www-authenticate")) == (401, WRONG)
    for field in (bearer(exp=1), "Authorization: Bearer rubbish"):
        gateway = the_gateway()
        assert ask(gateway, "/guests", field).status == 401
        assert gateway.service("users").attempts == 0


def test_guests_are_counted_by_address_under_their_plan() -> None:
    gateway = the_gateway()
    key = gateway.key("shop")
    assert [ask(gateway, "/news", address="192.0.2.1").status for _ in "12"] == [200, 429]
    assert [ask(gateway, "/news", address="192.0.2.2").status for _ in "12"] == [200, 429]
    known = [ask(gateway, "/news", f"X-API-Key: {key}").status for _ in "123"]
    assert known == [200, 200, 429]


def test_everybody_is_a_guest_where_nothing_else_is_asked_for() -> None:
    gateway = the_gateway()
    key = gateway.key("shop")
    assert ask(gateway, "/all", f"X-API-Key: {key}").status == 200
    got = passed(gateway)
    assert b"X-Consumer-Id: guest\r\n" in got and key.encode() not in got


def test_open_routes_are_told() -> None:
    opened = the_gateway().gateway.open_routes()
    assert [label.partition(" ")[2] for label in opened] == [
        "/guests, as guest",
        "/news, as guest",
        "/all, as guest",
    ]


# -- addresses -----------------------------------------------------------------------------------

RANGES = """
upstreams: { users: http://10.0.0.1:9001 }
trusted_proxies: 203.0.113.0/24
limits: { few: { rate: 1/min, by: address } }
routes:
  api.example.com:
    /inside: { to: users, allow: [10.0.0.0/8, "fd00::/8"], deny: 10.0.0.66 }
    /open: { to: users, auth: none, deny: [10.0.0.66, "2001:db8::/32"], limit: few }
"""


@pytest.mark.parametrize(
    ("path", "address", "status"),
    [
        ("/inside", "10.1.2.3", 200),
        ("/inside", "fd00::1", 200),
        ("/inside", "10.0.0.66", 403),
        ("/inside", "192.0.2.1", 403),
        ("/inside", "2001:db8::1", 403),
        ("/open", "192.0.2.1", 200),
        ("/open", "10.0.0.66", 403),
        ("/open", "2001:db8::1", 403),
    ],
)
def test_where_callers_may_come_from(path: str, address: str, status: int) -> None:
    gateway = MemoryGateway(RANGES)
    gateway.service("users")
    key = gateway.key("shop")
    found = ask(gateway, path, f"X-API-Key: {key}", address=address)
    assert found.status == status
    assert (gateway.service("users").attempts == 1) == (status == 200)
    if status == 403:
        assert found.field("www-authenticate") is None
        assert gateway.finished[0].reason.startswith("its address is ")


def test_the_address_counts_before_identity_and_limits() -> None:
    gateway = MemoryGateway(RANGES)
    for fields in ([], ["X-API-Key: edge_wrong"]):
        assert ask(gateway, "/inside", *fields).status == 403
    for _ in range(3):  # refused requests do not count
        found = ask(gateway, "/open", address="10.0.0.66")
        assert (found.status, found.field("ratelimit")) == (403, None)


@pytest.mark.parametrize(
    ("address", "client", "status"),
    [
        ("203.0.113.5", "10.1.2.3", 200),
        ("203.0.113.5", "10.0.0.66", 403),
        ("203.0.113.5", "::ffff:10.0.0.66", 403),
        ("203.0.113.5", "192.0.2.1", 403),
        ("192.0.2.1", "10.1.2.3", 403),  # nobody vouches for that
        ("10.1.2.3", "10.0.0.66", 200),
    ],
)
def test_trusted_proxies_say_who_the_client_is(address: str, client: str, status: int) -> None:
    gateway = MemoryGateway(RANGES)
    key = gateway.key("shop")
    fields = [f"X-API-Key: {key}", f"X-Forwarded-For: {client}"]
    assert ask(gateway, "/inside", *fields, address=address).status == status


@pytest.mark.parametrize("form", ["{}", "::ffff:{}", "[::ffff:{}]:4711"])
def test_ipv4_clients_behind_a_proxy_are_counted_apart(form: str) -> None:
    """A proxy that listens on [::] may write them in their IPv6 form."""
    gateway = MemoryGateway(RANGES)
    for client in ("192.0.2.1", "192.0.2.2"):
        fields = [f"X-Forwarded-For: {form.format(client)}, ::ffff:203.0.113.6"]
        for status in (200, 429):
            assert ask(gateway, "/open", *fields, address="203.0.113.5").status == status
        assert gateway.finished[-1].client == client


# -- shadow mode ---------------------------------------------------------------------------------

SHADOW = """
upstreams: { users: http://10.0.0.1:9001 }
auth:
  api_key: { query: key }
  staff: { jwt: https://id.example.com, audience: shop, secret: "${env:SECRET}", scopes: scope }
limits: { few: { rate: 1/min }, soon: { rate: 1/min, shadow: true } }
routes:
  api.example.com:
    /: { to: users, shadow: true, scopes: [write], groups: [ops], deny: 192.0.2.66 }
    /both: { to: users, shadow: true, auth: { all: [staff, api_key] } }
    /staff: { to: users, shadow: true, auth: staff, scopes: [write] }
    /few: { to: users, shadow: true, limit: few }
    /soon: { to: users, shadow: true, limit: soon }
    /open: { to: users, shadow: true, auth: none, deny: 192.0.2.66 }
"""


def shadow() -> tuple[MemoryGateway, str]:
    gateway = MemoryGateway(SHADOW, environ={"SECRET": SECRET})
    return gateway, gateway.key("shop", scopes=["write"], groups=["guests"])


@pytest.mark.parametrize(
    ("path", "fields", "told", "principal"),
    [
        ("/", [], "401 no credential (api_key)", ""),
        ("/", ["X-API-Key: edge_wrong"], "401 unknown key", ""),
        ("/", ["X-API-Key: wrong"], "401 unknown key", ""),
        ("/", ["X-API-Key: KEY"], "403 not in a group that is let in", "shop"),
        ("/", ["X-API-Key: KEY", "X-API-Key: KEY"], "401 two credentials", ""),
        ("/", ["X-API-Key: KEY", "X-API-Key: other"], "401 two credentials", ""),
        ("/", ["X-API-Key: KEY", "Authorization: Bearer KEY"], "401 two credentials", ""),
        ("/?key=KEY", ["X-API-Key: KEY"], "401 two credentials", ""),
        ("/?key=KEY&key=KEY", [], "401 two credentials", ""),
        ("/both", ["X-API-Key: KEY"], "401 no credential (staff)", ""),
        ("/both", ["TOKEN"], "401 no credential (api_key)", ""),
        ("/both", ["TOKEN", "TOKEN", "X-API-Key: KEY"], "401 two Authorization fields", ""),
        ("/both", ["LATE", "X-API-Key: KEY"], "401 staff: ", ""),
        ("/both", ["Authorization: Bearer STRANGE"], "401 a bearer token that none", ""),
        ("/few", ["X-API-Key: KEY"], "", "shop"),
    ],
)
def test_in_shadow_mode_it_goes_on(path: str, fields: list[str], told: str, principal: str) -> None:
    gateway, key = shadow()
    written = {"TOKEN": bearer(), "LATE": bearer(exp=1)}
    shown = [written.get(each, each).replace("KEY", key) for each in fields]
    forged = "X-Consumer-Id: admin"
    assert ask(gateway, path.replace("KEY", key), *shown, forged).status == 200
    (line,) = gateway.log
    assert line.get("shadow", "").startswith(told)
    assert (line["status"], line["outcome"]) == (200, "ok")
    assert "reason" not in line
    got = passed(gateway)
    assert (b"X-Consumer-Name: shop\r\n" in got) == bool(principal)
    # The service gets neither what was shown nor what may not be said.
    for field in shown:
        assert field.encode() not in got
    assert key.encode() not in got and b"STRANGE" not in got and b"admin" not in got


ELSEWHERE = """
upstreams: { users: http://10.0.0.1:9001 }
auth:
  session: { cookie: sid, at: "http://127.0.0.1:9/session" }
  opaque: { introspect: "http://127.0.0.1:9/introspect" }
  asked: { authorize: "http://127.0.0.1:9/check" }
routes:
  api.example.com:
    /session: { to: users, shadow: true, auth: session }
    /opaque: { to: users, shadow: true, auth: opaque }
    /asked: { to: users, shadow: true, auth: asked }
"""


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/session", ["Cookie: sid=secret; keep=1"], 503),
        ("/session", ["Cookie: sid=secret; sid=secret; keep=1"], 401),
        ("/opaque", ["Authorization: Bearer secret"], 503),
        ("/opaque", ["Authorization: Bearer secret word"], 401),
        ("/opaque", ["Authorization: Bearer secret", "Authorization: Bearer secret"], 401),
        ("/opaque", ["Authorization: Basic c2VjcmV0", "Authorization: Bearer secret"], 401),
        ("/asked", ["Authorization: Bearer secret", "Cookie: secret=1"], 503),
        ("/asked", ["Cookie: secret=1", "Cookie: secret=2"], 401),
    ],
)
def test_what_is_asked_elsewhere_goes_on_without_it(
    path: str, fields: list[str], status: int
) -> None:
    """Nobody answers there: the caller goes on, what it has shown does not."""
    gateway = MemoryGateway(ELSEWHERE)
    client = gateway.client()
    lines = "".join(f"{field}\r\n" for field in fields)
    client.send(f"GET {path} HTTP/1.1\r\nHost: api.example.com\r\n{lines}\r\n".encode())
    for _ in range(5):
        gateway.wait(1)
    serve(gateway)
    assert client.answers()[0].status == 200
    assert [verdict for verdict, _ in gateway.finished[0].shadow] == [status]
    got = passed(gateway)
    assert b"secret" not in got and b"c2VjcmV0" not in got
    assert (b"Cookie: keep=1\r\n" in got) == ("keep=1" in fields[0])


def test_every_verdict_is_told_and_counted() -> None:
    gateway, key = shadow()
    assert ask(gateway, "/", address="192.0.2.66").status == 200
    assert ask(gateway, "/open", address="192.0.2.66").status == 200
    assert [ask(gateway, "/soon", f"X-API-Key: {key}").status for _ in "12"] == [200, 200]
    assert [line.get("shadow") for line in gateway.log] == [
        "403 its address is denied; 401 no credential (api_key)",
        "403 its address is denied",
        None,
        "429 limit soon",
    ]
    counted = gateway.gateway.counters.as_dict()["shadow"]
    assert counted == {"401": 1, "403": 2, "429": 1}


def test_a_token_that_is_known_is_judged_as_well() -> None:
    gateway, _ = shadow()
    shown = bearer(scope="read")
    assert [ask(gateway, "/staff", shown).status for _ in "123"] == [200] * 3
    told = [(line["shadow"], line["principal"]) for line in gateway.log]
    assert told == [("403 scope missing", "staff:alice")] * 3


def test_limits_hold_in_shadow_mode() -> None:
    gateway, _ = shadow()
    assert [ask(gateway, "/few").status for _ in "12"] == [200, 429]


def test_what_fails_later_goes_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("edgeproxy.policy._log.failure", lambda *said: told.append(said))
    for error in (invalid("unknown"), ZeroDivisionError()):
        gateway, _ = shadow()
        later = Later("later")
        for rule in gateway.gateway.resource.snapshot.router.ordered:
            rule.action.policy = Policy([later])
        client = gateway.client()
        client.send(b"GET /few HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
        later.asked[0].errback(Failure(error))
        serve(gateway)
        assert client.answers()[0].status == 200
        verdict = "401 unknown" if not told else "500 ZeroDivisionError"
        assert gateway.log[0]["shadow"] == verdict
    assert len(told) == 1


def test_what_lacks_a_scope_later_goes_on_as_who_it_is() -> None:
    gateway, _ = shadow()
    later = Later("later")
    for rule in gateway.gateway.resource.snapshot.router.ordered:
        rule.action.policy = Policy([later])
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
    later.asked[0].callback(BOB)
    serve(gateway)
    assert client.answers()[0].status == 200
    assert gateway.log[0]["shadow"] == "403 scope missing"
    assert b"X-Consumer-Id: bob\r\n" in passed(gateway)


def test_routes_in_shadow_mode_are_open() -> None:
    opened = shadow()[0].gateway.open_routes()
    assert "api.example.com /few, in shadow mode" in opened
    assert len(opened) == 6
