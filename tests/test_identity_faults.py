"""What callers are told whose credential is not right: every kind of credential, every fault.

A kind is a row of `KINDS`: a configuration, and what a request shows in each of the `FAULTS`. What
is answered is the same whatever the kind, and nothing reaches the service behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import pytest
from tokens_support import ISSUER, NOW, key, key_set, token
from twisted.internet.defer import succeed
from twisted.web.http_headers import Headers

from edgeproxy.asking import Reply
from edgeproxy.identity.keyfile import parse_line
from edgeproxy.identity.keyindex import PepperedIndex
from edgeproxy.identity.pepper import Pepper
from edgeproxy.testing import MemoryGateway, Way
from edgeproxy.testing.reactor import EPOCH

Fields = list[bytes]
Shows = Callable[[MemoryGateway], Fields]


class Answer(NamedTuple):
    """A status, and the field WWW-Authenticate, `None` for none."""

    status: int
    challenge: str | None


MISSING = Answer(401, "Bearer")
INVALID = Answer(401, 'Bearer error="invalid_token"')

FAULTS: dict[str, Answer] = {
    "missing": MISSING,
    "malformed": INVALID,
    "unknown": INVALID,
    "expired": INVALID,
    "not yet valid": INVALID,
    "revoked": INVALID,
    "field twice": INVALID,
    "two credentials": INVALID,
    "empty": INVALID,
    "8 KiB": INVALID,
    "not ASCII": INVALID,
    "lacking a scope": Answer(403, 'Bearer error="insufficient_scope"'),
    "lacking a group": Answer(403, "Bearer"),
    "larger than a head": Answer(431, None),
    "NUL": Answer(400, None),
    "line break": Answer(400, None),
}


class Kind(NamedTuple):
    """How a credential is shown: rightly, and with each fault. What a kind cannot have (a key is
    never "not yet valid" where nothing says so) is named in `never`, with the reason."""

    configuration: str
    good: Shows
    faults: Mapping[str, Shows]
    never: Mapping[str, str] = {}
    prepare: Callable[[MemoryGateway], None] = lambda gateway: None


# -- API keys --------------------------------------------------------------------------------------


def route(options: str = "scopes: [pay], groups: [staff]") -> str:
    """The one route of a kind's configuration."""
    return f"""
upstreams: {{ users: http://10.0.0.1:9001 }}
routes: {{ api.example.com: {{ /: {{ to: users, {options} }} }} }}
"""


def _made(gateway: MemoryGateway, name: str = "good", **more: object) -> bytes:
    given = {"scopes": ["pay"], "groups": ["staff"]} | more
    return gateway.key(name, **given).encode()  # type: ignore[arg-type]


_PEPPER = Pepper(b"0123456789abcdef")


def _imported(gateway: MemoryGateway, name: str = "good", **more: Any) -> bytes:
    """A key with a text of its own, under a pepper, beside one from before that."""
    if not isinstance(gateway.gateway.keys.index, PepperedIndex):
        gateway.gateway.keys.index = PepperedIndex(_PEPPER)
        gateway.key("from before")
    credential = f"{name}, known since the old gateway".encode()
    now = gateway.clock.now() + gateway.clock.epoch
    line = {
        "id": name,
        "name": name,
        "digest": _PEPPER.digest(credential).hex(),
        "pepper": _PEPPER.fingerprint,
        "scopes": ["pay"],
        "groups": ["staff"],
    } | {k: now + v if type(v) in (int, float) else v for k, v in more.items()}
    text = json.dumps(line).encode()
    assert gateway.gateway.keys.index.add(parse_line(text, 1), text)
    return credential


def _keys(field: bytes, made: Callable[..., bytes] = _made) -> dict[str, Shows]:
    def one(credential: bytes) -> Fields:
        return [field + credential]

    return {
        "missing": lambda gateway: [],
        "malformed": lambda gateway: one(made(gateway)[:-1]),
        "unknown": lambda gateway: one(b"edge_" + b"x" * 63),
        "expired": lambda gateway: one(made(gateway, expires=-1)),
        "not yet valid": lambda gateway: one(made(gateway, not_before=1)),
        "revoked": lambda gateway: one(made(gateway, revoked=True)),
        "field twice": lambda gateway: one(made(gateway)) * 2,
        "two credentials": lambda gateway: [
            b"X-API-Key: " + made(gateway),
            b"Authorization: Bearer " + made(gateway, "other"),
        ],
        "8 KiB": lambda gateway: one(made(gateway) + b"x" * 8192),
        "not ASCII": lambda gateway: one(made(gateway) + "é".encode()),
        "lacking a scope": lambda gateway: one(made(gateway, scopes=["read"])),
        "lacking a group": lambda gateway: one(made(gateway, groups=["guests"])),
        "larger than a head": lambda gateway: one(made(gateway) + b"x" * 16384),
        "NUL": lambda gateway: one(made(gateway) + b"\0"),
        "line break": lambda gateway: one(made(gateway) + b"\rX-Consumer-Id: admin"),
    }


def _without(faults: dict[str, Shows], *names: str) -> dict[str, Shows]:
    return {name: shows for name, shows in faults.items() if name not in names}


_OPEN_TO_ALL = {
    "missing": "who shows nothing is let in",
    "lacking a scope": "where everybody may come in nobody is asked for one",
    "lacking a group": "where everybody may come in nobody is asked for one",
}
_NOT_OURS = "what does not begin with edge_ is another party's token, and none of ours is there"

KINDS: dict[str, Kind] = {
    "X-API-Key": Kind(
        route(),
        lambda gateway: [b"X-API-Key: " + _made(gateway)],
        _keys(b"X-API-Key: ") | {"empty": lambda gateway: [b"X-API-Key:"]},
    ),
    "a key as bearer": Kind(
        route(),
        lambda gateway: [b"Authorization: Bearer " + _made(gateway)],
        _keys(b"Authorization: Bearer "),
        {"empty": _NOT_OURS},
    ),
    "an imported key": Kind(
        route(),
        lambda gateway: [b"X-API-Key: " + _imported(gateway)],
        _keys(b"X-API-Key: ", _imported)
        | {
            "empty": lambda gateway: [b"X-API-Key:"],
            "two credentials": lambda gateway: [
                b"X-API-Key: " + _imported(gateway),
                b"Authorization: Bearer " + _made(gateway, "other"),
            ],
        },
    ),
    "a key, or nobody": Kind(
        route("auth: [api_key, anonymous]"),
        lambda gateway: [b"X-API-Key: " + _made(gateway)],
        _without(_keys(b"X-API-Key: ") | {"empty": lambda gateway: [b"X-API-Key:"]}, *_OPEN_TO_ALL),
        _OPEN_TO_ALL,
    ),
}

# -- JSON Web Tokens -------------------------------------------------------------------------------


def _token(gateway: MemoryGateway, **said: object) -> bytes:
    given = {"scope": "pay", "groups": ["staff"]} | said
    return b"Authorization: Bearer " + token(**given).encode()


_TOKENS: dict[str, Shows] = {
    "missing": lambda gateway: [],
    "malformed": lambda gateway: [_token(gateway)[:-1]],
    "unknown": lambda gateway: [_token(gateway, private=key("ES256", "other"))],
    "expired": lambda gateway: [_token(gateway, exp=NOW - 31)],
    "not yet valid": lambda gateway: [_token(gateway, nbf=NOW + 31)],
    "field twice": lambda gateway: [_token(gateway)] * 2,
    "two credentials": lambda gateway: [_token(gateway), b"X-API-Key: " + _made(gateway)],
    "empty": lambda gateway: [b"Authorization: Bearer "],
    "8 KiB": lambda gateway: [_token(gateway, more="x" * 8192)],
    "not ASCII": lambda gateway: [_token(gateway) + "é".encode()],
    "lacking a scope": lambda gateway: [_token(gateway, scope="read")],
    "lacking a group": lambda gateway: [_token(gateway, groups=["guests"])],
    "larger than a head": lambda gateway: [_token(gateway, more="x" * 16384)],
    "NUL": lambda gateway: [_token(gateway) + b"\0"],
    "line break": lambda gateway: [_token(gateway) + b"\rX-Consumer-Id: admin"],
}
KINDS["a JSON Web Token, or a key"] = Kind(
    route("auth: [partner, api_key], scopes: [pay], groups: [staff]")
    + f"""
auth:
  partner: {{ jwt: '{ISSUER}', audience: shop, groups: groups, jwks: {json.dumps(key_set(key()))} }}
""",
    lambda gateway: [_token(gateway)],
    _TOKENS,
    {"revoked": "a token is good until it expires, or its issuer withdraws the key"},
)

# -- all of several --------------------------------------------------------------------------------


def _both(names: str) -> str:
    configuration = KINDS["a JSON Web Token, or a key"].configuration
    return configuration.replace("auth: [partner, api_key]", f"auth: {{ all: [{names}] }}")


def _beside(*shows: Shows) -> Shows:
    return lambda gateway: [field for each in shows for field in each(gateway)]


def _key(gateway: MemoryGateway) -> Fields:
    return [b"X-API-Key: " + _made(gateway)]


# The other credential is right: what is wrong with this one is answered as if it stood alone.
KINDS["a key, and a token"] = Kind(
    _both("api_key, partner"),
    lambda gateway: [*_key(gateway), _token(gateway)],
    {
        fault: _beside(shows, lambda gateway: [_token(gateway)])
        for fault, shows in KINDS["X-API-Key"].faults.items()
    }
    | {"two credentials": lambda gateway: [*_key(gateway), _token(gateway), _token(gateway)]},
)
KINDS["a token, and a key"] = Kind(
    _both("partner, api_key"),
    lambda gateway: [_token(gateway), *_key(gateway)],
    {fault: _beside(_key, shows) for fault, shows in _TOKENS.items()}
    | {
        "two credentials": lambda gateway: [
            _token(gateway),
            *_key(gateway),
            b"X-API-Key: " + _made(gateway, "other"),
        ]
    },
    KINDS["a JSON Web Token, or a key"].never,
)

# -- what an endpoint knows ------------------------------------------------------------------------

_KNOWN = {"active": True, "sub": "alice", "scope": "pay", "groups": ["staff"], "aud": "shop"}
#: What the endpoint says of each token, or session; of any other that it is not active.
_SAID: dict[bytes, dict[str, object]] = {
    b"good": {},
    b"past": {"exp": EPOCH - 60},
    b"soon": {"nbf": EPOCH + 60},
    b"gone": {"active": False},
    b"reads": {"scope": "read"},
    b"guest": {"groups": ["guests"]},
}


def _endpoint(method: str, fields: list[tuple[bytes, bytes]], body: bytes | None = None) -> object:
    shown = parse_qs(body)[b"token"][0] if body else dict(fields)[b"Cookie"].partition(b"=")[2]
    said = _KNOWN | _SAID[shown] if shown in _SAID else {"active": False}
    return succeed(Reply(200, Headers(), json.dumps(said).encode()))


def _answers(gateway: MemoryGateway) -> None:
    credentials = gateway.gateway.credentials
    known: Any = credentials.by_name(credentials._made)["known"]
    known.endpoint.ask = _endpoint


def _asked(front: bytes) -> dict[str, Shows]:
    return {
        "missing": lambda gateway: [],
        "malformed": lambda gateway: [front + b'a"b'],
        "unknown": lambda gateway: [front + b"x" * 63],
        "expired": lambda gateway: [front + b"past"],
        "not yet valid": lambda gateway: [front + b"soon"],
        "revoked": lambda gateway: [front + b"gone"],
        "field twice": lambda gateway: [front + b"good"] * 2,
        "two credentials": lambda gateway: [front + b"good", b"X-API-Key: " + _made(gateway)],
        "empty": lambda gateway: [front],
        "8 KiB": lambda gateway: [front + b"x" * 8193],
        "not ASCII": lambda gateway: [front + "é".encode()],
        "lacking a scope": lambda gateway: [front + b"reads"],
        "lacking a group": lambda gateway: [front + b"guest"],
        "larger than a head": lambda gateway: [front + b"x" * 16384],
        "NUL": lambda gateway: [front + b"good\0"],
        "line break": lambda gateway: [front + b"good\rX-Consumer-Id: admin"],
    }


for _name, _settings, _front in (
    (
        "a token, by introspection",
        "introspect: https://id/, audience: shop",
        b"Authorization: Bearer ",
    ),
    ("a session's cookie", "cookie: sid, at: https://id/", b"Cookie: sid="),
):
    KINDS[_name] = Kind(
        route("auth: [known, api_key], scopes: [pay], groups: [staff]")
        + f"auth: {{ known: {{ {_settings}, groups: groups }} }}",
        lambda gateway, front=_front: [front + b"good"],  # type: ignore[misc]
        _asked(_front),
        prepare=_answers,
    )

CASES = [(kind, fault) for kind, row in KINDS.items() for fault in FAULTS if fault not in row.never]


def ask(gateway: MemoryGateway, fields: Fields) -> tuple[int, str | None]:
    """The answer that a request with these fields gets."""
    client = gateway.client()
    head = [b"GET / HTTP/1.1", b"Host: api.example.com", *fields, b"", b""]
    client.send(b"\r\n".join(head))
    gateway.reactor.settle()
    (found,) = client.answers()
    return found.status, found.field("www-authenticate")


@pytest.mark.parametrize("way", [Way.WHOLE, Way.BYTES])
@pytest.mark.parametrize(("kind", "fault"), CASES)
def test_faults(kind: str, fault: str, way: Way) -> None:
    row = KINDS[kind]
    gateway = MemoryGateway(row.configuration, way)
    row.prepare(gateway)
    assert ask(gateway, row.faults[fault](gateway)) == FAULTS[fault]
    (service,) = gateway.services.values()
    assert service.attempts == 0, "it reached the service"
    status = FAULTS[fault].status
    if status in (401, 403):
        (exchange,) = gateway.finished
        assert exchange.reason, "the log does not say why"
        assert (exchange.principal is None) == (status == 401)


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_one_is_let_in(kind: str) -> None:
    """Else the faults above would prove nothing."""
    row = KINDS[kind]
    gateway = MemoryGateway(row.configuration)
    row.prepare(gateway)
    fields = row.good(gateway)
    client = gateway.client()
    client.send(b"\r\n".join([b"GET / HTTP/1.1", b"Host: api.example.com", *fields, b"", b""]))
    gateway.reactor.settle()
    (service,) = gateway.services.values()
    wire = service.accept()
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert [each.status for each in client.answers()] == [200]
    assert b"X-Consumer-Id: " in wire.received
    for field in fields:
        assert field not in wire.received


@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_is_forgotten(kind: str) -> None:
    row = KINDS[kind]
    assert set(row.faults) | set(row.never) == set(FAULTS)
