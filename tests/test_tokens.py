"""Tokens over whole requests: who is let in, what the service gets, what is remembered."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from docs_support import of
from hypothesis import assume, example, given
from hypothesis import settings as settings_
from hypothesis import strategies as st
from joserfc.jwk import ECKey
from origin_support import Origin, Reactor, ok, running
from tokens_support import (
    ISSUER,
    KINDS,
    NOW,
    SECRET,
    base64url,
    by_hand,
    claims,
    dumped,
    key,
    key_set,
    token,
)
from twisted.internet.defer import Deferred

from edgeproxy.config import parse
from edgeproxy.errors import GatewayError
from edgeproxy.fetching import Fetcher
from edgeproxy.identity.remembered import Remembered
from edgeproxy.identity.token import Refused, Token
from edgeproxy.policy import Policy
from edgeproxy.testing import MemoryGateway
from edgeproxy.tokens import Asked, Tokens, make

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


def test_a_set_whose_keys_have_no_names(fetched: Fetched) -> None:
    """Tokens may name one all the same; a new key is found as where it has a name."""
    first, second = key("ES256", None), ECKey.generate_key("P-256")
    fetched.origin.by_path["/keys"] = ok(dumped(key_set(first)))
    assert fetched.status(fetched.fresh(private=first, kid="2026")) == 200
    assert fetched.status(fetched.fresh(private=first, kid=None)) == 200
    fetched.origin.by_path["/keys"] = ok(dumped(key_set(first, second)))
    fetched.pass_time(10)
    assert fetched.status(fetched.fresh(private=second, kid="2027")) == 200
    assert len(fetched.origin.asked) == 2
    assert fetched.status(fetched.fresh(private=key(), kid="2026")) == 401
    assert fetched.gateway.finished[-1].reason == (
        "partner: no key '2026' for 'ES256', and signed by none without a name"
    )


@pytest.mark.parametrize("name", ["k1", None])
def test_unknown_keys_fetch_once_in_ten_seconds(fetched: Fetched, name: str | None) -> None:
    good = key("ES256", name)
    fetched.origin.by_path["/keys"] = ok(dumped(key_set(good)))
    assert fetched.status(fetched.fresh(private=good, kid=name)) == 200
    before, refused = len(fetched.origin.asked), 0
    flood = [
        Asked(
            Token(token(private=key("ES256", "x"), kid=f"x{number}", exp=NOW + 3600).encode()), b""
        )
        for number in range(100)
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


# -- every fault of a token ----------------------------------------------------------------------

PEM = key("RS256").as_pem(private=False)


def unsigned(algorithm: str) -> str:
    parts = base64url(dumped({"alg": algorithm, "kid": "k1"})), base64url(dumped(claims()))
    return b".".join([*parts, b""]).decode()


def confused(algorithm: str = "HS256", kid: str = "rsa") -> str:
    """Signed with the public key as if it were a shared secret."""
    header = {"alg": algorithm, "kid": kid}
    signed = b".".join(base64url(dumped(each)) for each in (header, claims()))
    code = hmac.digest(PEM, signed, algorithm.replace("HS", "sha"))
    return b".".join([signed, base64url(code)]).decode()


def tampered(**changed: Any) -> str:
    """Other claims under a good signature."""
    head, _, signature = token().split(".")
    return ".".join([head, base64url(dumped(claims(**changed))).decode(), signature])


GOOD_HEADER = {"alg": "ES256", "kid": "k1"}
FAULTS: dict[str, tuple[Callable[[], str], str]] = {
    "tampered": (lambda: tampered(sub="bob"), "its signature is wrong"),
    "another's signature": (
        lambda: token().rpartition(".")[0] + "." + token(sub="bob").rpartition(".")[2],
        "its signature is wrong",
    ),
    "signature of zeros": (
        lambda: token().rpartition(".")[0] + "." + "A" * 86,
        "its signature is wrong",
    ),
    "signature too short": (
        lambda: token().rpartition(".")[0] + "." + "A" * 80,
        "its signature is wrong",
    ),
    "no signature": (lambda: token().rpartition(".")[0] + ".", "not a signed token"),
    "two parts": (lambda: token().rpartition(".")[0], "not a signed token"),
    "encrypted": (lambda: token() + ".a.b", "not a signed token"),
    "none": (lambda: unsigned("none"), "not a signed token"),
    "None, signed": (
        lambda: by_hand({"alg": "None", "kid": "k1"}, claims()),
        "algorithm 'None'",
    ),
    "none, signed": (lambda: by_hand({"alg": "none", "kid": "k1"}, claims()), "algorithm 'none'"),
    "public key as secret": (confused, "algorithm 'HS256'"),
    "public key as secret, no kid": (lambda: confused("HS512", ""), "algorithm 'HS512'"),
    "another algorithm of that key": (
        lambda: token("PS256", key("RS256", "rsa"), "rsa"),
        "no key 'rsa' for 'PS256'",
    ),
    "key of another type": (lambda: token("ES256", kid="rsa"), "no key 'rsa' for 'ES256'"),
    "algorithm not asked for": (lambda: token("ES384"), "algorithm 'ES384'"),
    "unknown kid": (lambda: token(kid="k2"), "no key 'k2' for 'ES256'"),
    "kid that is a path": (
        lambda: token(kid="../../dev/null"),
        "no key '../../dev/null' for 'ES256'",
    ),
    "kid is a list": (
        lambda: by_hand({"alg": "ES256", "kid": ["k1"]}, claims()),
        "kid is not text",
    ),
    "no alg": (lambda: by_hand({"kid": "k1"}, claims()), "without alg"),
    "header twice": (
        lambda: by_hand(b'{"alg":"ES256","kid":"k1","kid":"k1"}', claims()),
        "a member stands in it twice",
    ),
    "claim twice": (
        lambda: by_hand(GOOD_HEADER, dumped(claims())[:-1] + b',"sub":"root"}'),
        "a member stands in it twice",
    ),
    "jku": (lambda: by_hand(GOOD_HEADER | {"jku": ISSUER}, claims()), "with jku"),
    "x5u": (lambda: by_hand(GOOD_HEADER | {"x5u": ISSUER}, claims()), "with x5u"),
    "jwk": (
        lambda: by_hand(
            GOOD_HEADER | {"jwk": key("ES256", "evil").as_dict(private=False)},
            claims(),
            key("ES256", "evil"),
        ),
        "with jwk",
    ),
    "crit": (lambda: by_hand(GOOD_HEADER | {"crit": ["exp"]}, claims()), "with crit"),
    "wrong type": (lambda: by_hand(GOOD_HEADER | {"typ": "logout+jwt"}, claims()), "type 'logout"),
    "no exp": (lambda: token(exp=None), "no exp"),
    "exp is text": (lambda: token(exp=str(NOW + 60)), "exp is no time"),
    "no iss": (lambda: token(iss=None), "not for partner: issuer missing"),
    "wrong iss": (lambda: token(iss=ISSUER + "/"), "not for partner: issuer"),
    "no aud": (lambda: token(aud=None), "not for partner: no audience"),
    "wrong aud": (lambda: token(aud="till"), "not for partner: audience 'till'"),
    "iat to come": (lambda: token(iat=NOW + 60), r"not yet valid (iat)"),
    "no sub": (lambda: token(sub=None), "claim sub names nobody"),
    "sub with a line break": (lambda: token(sub="a\r\nb"), "claim sub names nobody"),
    "sub with NUL": (lambda: token(sub="a\0b"), "claim sub names nobody"),
    "for a key's holder": (lambda: token(cnf={"jkt": "x"}), "cnf"),
}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer  "])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str, scheme: str) -> None:
    make, reason = FAULTS[fault]
    keys = key_set(key()) | {}
    keys["keys"] = keys["keys"] + key_set(key("RS256", "rsa"), alg="RS256")["keys"]
    made = gateway(partner=settings(jwks=keys, algorithms=["ES256", "RS256", "PS256"]))
    client = ask(made, f"Authorization: {scheme} {make()}")
    (answer,) = client.answers()
    assert answer.status == 401
    assert answer.field("www-authenticate") == 'Bearer error="invalid_token"'
    assert reason in made.finished[0].reason
    assert made.finished[0].principal is None
    assert made.services["10.0.0.1", 9001].attempts == 0
    assert made.log[0]["status"] == 401
    assert ask(made, f"Authorization: {scheme} {token()}").answers() == []  # a good one passes


GOOD = token(scope="read")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good token with something else in it, longer, shorter, or in another order."""
    good = GOOD.encode()
    start = draw(st.integers(0, len(good)))
    end = draw(st.integers(start, min(len(good), start + 40)))
    other = draw(
        st.binary(max_size=6)
        | st.text("ABCabc012-_.=+/ ", max_size=6).map(str.encode)
        | st.just(good[start:end].swapcase())
        | st.just(good[start:end] * 2)
        | st.just(good[start:end][::-1])
    )
    return good[:start] + other + good[end:]


def accepted(sent: bytes) -> bool:
    """By a credential that takes `GOOD`."""
    try:
        token = Token(sent)
        if VERIFIER._terms.meant(token):
            return False
        VERIFIER.verify(Asked(token, b"digest"), SimpleNamespace(now=NOW))  # type: ignore[arg-type]
    except (Refused, GatewayError):
        return False
    return True


@settings_(max_examples=1000, deadline=None)
@given(mutated())
def test_no_mutation_is_accepted(sent: bytes) -> None:
    assume(sent != GOOD.encode())
    assert not accepted(sent)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_each_part_has_one_spelling(part: int) -> None:
    """The last letter of base64 holds bits that are thrown away."""
    assert accepted(GOOD.encode())
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=":
        parts = GOOD.split(".")
        parts[part] = parts[part][:-1] + letter
        assert accepted(".".join(parts).encode()) == (".".join(parts) == GOOD)


VERIFIER = credential(gateway())


# -- several ---------------------------------------------------------------------------------------


def test_several_issuers() -> None:
    staff = settings(jwks=key_set(key("ES384"))) | {"jwt": "https://staff.example.com"}
    till = settings(jwks=key_set(key())) | {"audience": "till"}
    made = gateway(
        "[partner, staff, till, api_key]",
        partner=settings(jwks=key_set(key())),
        staff=staff,
        till=till,
    )
    for sent, who in (
        (token(), b"partner:alice"),
        (token("ES384", iss="https://staff.example.com"), b"staff:alice"),
        (token(aud=["x", "till"]), b"till:alice"),
    ):
        ask(made, f"Authorization: Bearer {sent}")
        made.reactor.settle()
        service = made.services["10.0.0.1", 9001]
        assert service.connections[-1].received.endswith(b"\r\n\r\n")
        assert b"X-Consumer-Id: %b\r\n" % who in service.connections[-1].received
    # The key of one issuer is none of another's.
    client = ask(made, f"Authorization: Bearer {token(iss='https://staff.example.com')}")
    assert client.answers()[0].status == 401
    assert made.finished[-1].reason == "staff: no key 'k1' for 'ES256'"


def test_which_of_two_it_is_for_is_a_guess_with_both() -> None:
    made = gateway(
        "[partner, till]",
        partner=settings(jwks=key_set(key())),
        till=settings(jwks=key_set(key())) | {"audience": "till"},
    )
    ask(made, f"Authorization: Bearer {token(aud=['till', 'shop'])}")
    assert b"X-Consumer-Id: partner:alice\r\n" in passed(made)


def test_a_token_and_a_key() -> None:
    made = gateway("[partner, api_key]", partner=settings(jwks=key_set(key())))
    found = made.key("good")
    client = ask(made, f"Authorization: Bearer {token()}", f"X-API-Key: {found}")
    assert client.answers()[0].status == 401
    assert made.finished[-1].reason == "two credentials: api_key and partner"


def test_limits_count_a_caller_over_its_tokens() -> None:
    text = ROUTES.replace("AUTH", "partner, limit: few") + "limits: { few: 2/min }\n"
    text += f"auth: {json.dumps({'partner': settings(jwks=key_set(key()))})}"
    made = MemoryGateway(text)
    statuses = []
    for number in range(3):
        client = ask(made, f"Authorization: Bearer {token(jti=number)}", path="/page")
        statuses += [each.status for each in client.answers()]
    assert statuses == [200, 200, 429]


def test_a_reload_keeps_what_was_learnt() -> None:
    made = gateway()
    ask(made, f"Authorization: Bearer {token()}", path="/page")
    before = credential(made)
    assert len(before.remembered) == 1
    built = made.gateway.credentials.build(made.config)
    assert built["partner"][1] is before


# -- the short way of a token that is known --------------------------------------------------------


def known(auth: str = "[partner, api_key]", more: str = "") -> MemoryGateway:
    """A gateway that knows `GOOD`."""
    text = ROUTES.replace("AUTH", auth + more) + "limits: { few: { rate: 3/min, by: address } }\n"
    text += "auth: " + json.dumps({
        "api_key": {"query": "key"},
        "partner": settings(jwks=key_set(key())),
        "till": settings(jwks=key_set(key())) | {"audience": "till"},
    })  # fmt: skip
    made = MemoryGateway(text)
    ask(made, f"Authorization: Bearer {GOOD}", path="/page")
    assert len(credential(made).remembered) == 1
    return made


@pytest.mark.parametrize(
    ("fields", "path", "status", "reason"),
    [
        (["Authorization: Bearer TOKEN"], "/page", 200, ""),
        (["Authorization: bearer  TOKEN"], "/page", 200, ""),
        (["Authorization: Bearer TOKEN"] * 2, "/page", 401, "two Authorization fields"),
        (["Authorization: Bearer TOKEN", "X-API-Key: KEY"], "/page", 401, "two credentials"),
        (["Authorization: Bearer TOKEN"], "/page?key=KEY", 401, "two credentials"),
        (["Authorization: Bearer TOKEN"], "/page?a=b", 200, ""),
        (["Authorization: BearerTOKEN"], "/page", 401, "no credential"),
        (["Authorization: Basic TOKEN"], "/page", 401, "no credential"),
        (["X-API-Key: TOKEN"], "/page", 401, "unknown key"),
        (["Authorization: Bearer TOKEN "], "/page", 200, ""),  # RFC 9110 5.5
    ],
)
def test_known_or_not_it_is_answered_alike(
    fields: list[str], path: str, status: int, reason: str
) -> None:
    made = known()
    good = made.key("good")
    put = [each.replace("TOKEN", GOOD).replace("KEY", good) for each in fields]
    client = ask(made, *put, path=path.replace("KEY", good))
    assert client.answers()[0].status == status
    assert reason in made.finished[-1].reason


def test_a_known_token_passes_without_itself() -> None:
    made = known()
    ask(made, f"Authorization: Bearer {GOOD}")
    got = passed(made)
    assert b"Authorization" not in got
    assert b"X-Consumer-Id: partner:alice\r\n" in got


def test_a_known_token_may_lack_a_scope_and_is_charged() -> None:
    made = known(more=", scopes: [pay], limit: few")
    statuses = [
        ask(made, f"Authorization: Bearer {GOOD}", path="/page").answers()[0].status
        for _ in range(3)
    ]
    assert statuses == [403, 403, 429]


def test_a_token_that_one_credential_knows_is_none_of_anothers() -> None:
    made = known("[till, partner]")
    rules = made.gateway.resource.snapshot.router.ordered
    keys = made.gateway.credentials.by_name(made.gateway.credentials._made)
    for rule in rules:
        rule.action.policy = Policy([keys["till"]], anonymous=False)
    client = ask(made, f"Authorization: Bearer {GOOD}", path="/page")
    assert client.answers()[0].status == 401


OTHER = "https://staff.example.com"
SHOWN = [
    f"Authorization: Bearer {token(iss=iss, aud=aud, hd=hd)}"
    for iss in (ISSUER, OTHER)
    for aud in ("shop", "till", ["till", "shop"])
    for hd in ("example.com", None)
]


@st.composite
def several(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Credentials of two issuers, whose audiences overlap, and of which some want more."""
    audiences = st.sampled_from(["shop", "till", ["shop", "till"]])
    found = {}
    for name in "abc":
        entry = settings(jwks=key_set(key()), audience=draw(audiences))
        entry["jwt"] = draw(st.sampled_from([ISSUER, ISSUER, OTHER]))
        if draw(st.booleans()):
            entry["claims"] = {"hd": "example.com"}
        found[name] = entry
    return found


WAYS = ["a", "b", "c", "ab", "ba", "bc", "ac", "abc", "cba"]
CALLS = st.lists(st.tuples(st.sampled_from(WAYS), st.sampled_from(SHOWN)), min_size=2, max_size=12)
RIVALS = {
    "a": settings(jwks=key_set(key()), claims={"hd": "example.com"}),
    "b": settings(jwks=key_set(key())),
    "c": settings(jwks=key_set(key())),
}


@given(several(), CALLS)
@example(RIVALS, [("b", SHOWN[0]), ("ab", SHOWN[0])])  # is a's
@example(RIVALS, [("b", SHOWN[1]), ("ab", SHOWN[1])])  # is refused by a
@settings_(max_examples=30, deadline=None)
def test_what_was_called_before_makes_nobody_else_of_a_caller(
    credentials: dict[str, dict[str, Any]], calls: list[tuple[str, str]]
) -> None:
    routes = {f"/{way}": {"page": True, "auth": ["api_key", *way]} for way in WAYS}
    text = json.dumps({"auth": credentials, "routes": {"api.example.com": routes}})
    warm, cold = MemoryGateway(text), MemoryGateway(text)
    for way, shown in calls:
        for name in credentials:
            credential(cold, name).remembered = Remembered()
        said = []
        for made in (warm, cold):
            (answer,) = ask(made, shown, path=f"/{way}").answers()
            said.append((answer.status, made.log[-1]["principal"]))
        assert said[0] == said[1], way


def test_tokens_of_several_issuers_are_known_at_once() -> None:
    """Of one issuer, those that the first takes."""
    staff = settings(jwks=key_set(key())) | {"jwt": OTHER}
    till = settings(jwks=key_set(key())) | {"audience": "till"}
    partner = settings(jwks=key_set(key()))
    made = gateway("[partner, staff, till]", partner=partner, staff=staff, till=till)
    policy = made.gateway.resource.snapshot.router.ordered[0].action.policy
    assert [each.name for each in policy.recalling] == ["partner", "staff"]


# -- as it is configured and documented ------------------------------------------------------------


def test_the_pages_ten_lines() -> None:
    said = yaml.safe_load(of("docs/jwt.md", "yaml")[0])
    said["auth"]["partner"]["jwks"] = key_set(key())
    said["upstreams"]["orders"] = "http://10.0.0.1:9001"
    made = MemoryGateway(json.dumps(said))

    def status(method: str, **claims: Any) -> Any:
        client = made.client()
        head = f"{method} /orders HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 0\r\n"
        client.send(f"{head}Authorization: Bearer {token(**claims)}\r\n\r\n".encode())
        made.reactor.settle()
        return [each.status for each in client.answers()]

    assert status("GET", aud="till") == [401]
    assert status("POST", scope="read") == [403]
    assert made.services["10.0.0.1", 9001].attempts == 0
    assert status("POST", scope="read write") == []  # it is at the service
    assert b"POST /orders " in passed(made)


def test_an_issuers_own_authority(tmp_path: Path) -> None:
    with running() as reactor, Origin(tls="127.0.0.1") as origin:
        (tmp_path / "ca.pem").write_bytes(origin.authority)
        origin.by_path["/keys"] = ok(dumped(key_set(key())))
        document = {"issuer": origin.url, "jwks_uri": origin.url + "/keys"}
        origin.by_path["/.well-known/openid-configuration"] = ok(dumped(document))
        entry = {"jwt": origin.url, "audience": "shop"}
        found = {}
        for name, ca in (("own", {"ca": "ca.pem"}), ("system", {})):
            text = ROUTES.replace("AUTH", "p") + f"auth: {json.dumps({'p': entry | ca})}"
            config = parse(text, folder=tmp_path)
            made = make("p", config.credentials["p"], reactor, lambda: NOW)  # type: ignore[arg-type]
            made.start()
            assert made.issuer is not None
            issuer = made.issuer
            reactor.turn_until(lambda issuer=issuer: not len(issuer._flights))  # type: ignore[misc]
            found[name] = made.status(NOW)
    assert (found["own"]["keys"], found["own"]["error"]) == (1, "")
    assert found["system"]["keys"] == 0
    assert found["system"]["error"].startswith("TLS: ")


def test_another_configuration_forgets() -> None:
    made = known("partner")
    before = made.gateway.credentials.build(made.config)["partner"][1]
    entry = settings(jwks=key_set(key())) | {"audience": "other"}
    text = ROUTES.replace("AUTH", "partner") + f"auth: {json.dumps({'partner': entry})}"
    after = made.gateway.credentials.build(parse(text))["partner"][1]
    assert isinstance(after, Tokens)
    assert after is not before
    assert len(after.remembered) == 0


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"audience": ["shop", "till"]}, 200),
        ({"leeway": "5s", "claims": {"sub": "alice"}}, 200),
        ({"algorithms": ["ES256"]}, 503),  # keys that were read for others
        ({"jwks": "http://127.0.0.1:9/keys"}, 503),
    ],
)
def test_a_reload_keeps_keys_of_the_same_source(
    fetched: Fetched, changed: dict[str, Any], status: int
) -> None:
    assert fetched.status(fetched.fresh()) == 200
    down(fetched.origin)
    gateway = fetched.gateway
    said = {"jwt": ISSUER, "audience": "shop", "jwks": fetched.origin.url + "/keys"} | changed
    text = ROUTES.replace("AUTH", "partner") + f"auth: {json.dumps({'partner': said})}"
    config = parse(text)
    built = gateway.gateway.credentials.build(config)
    gateway.gateway.credentials.use(built)
    for rule in gateway.gateway.resource.snapshot.router.ordered:
        rule.action.policy = Policy([built["partner"][1]])
    fetched.credential = credential(gateway)
    assert fetched.credential is built["partner"][1]
    assert fetched.credential.issuer is not None
    fetched.issuer = fetched.credential.issuer
    fetched.issuer._get = Fetcher(fetched.turning, fetched.origin.authority).get
    assert fetched.status(fetched.fresh()) == status


def test_a_reload_lets_those_who_wait_have_the_keys(fetched: Fetched) -> None:
    credentials = fetched.gateway.gateway.credentials
    credentials.start()
    client = ask(fetched.gateway, f"Authorization: Bearer {fetched.fresh()}", path="/page")
    said = {"jwt": ISSUER, "audience": ["shop", "till"], "jwks": fetched.origin.url + "/keys"}
    text = ROUTES.replace("AUTH", "partner") + f"auth: {json.dumps({'partner': said})}"
    credentials.use(credentials.build(parse(text)))
    fetched.settle()
    assert client.answers()[0].status == 200
