"""X-Edge-Token through a whole gateway: who gets it, who cannot send it, where the keys are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from wire_support import answer, get, lines, names

from edgeproxy.testing import MemoryGateway, Wire
from edgeproxy.testing.reactor import EPOCH

Make = Callable[..., MemoryGateway]

PATH = "/.well-known/edge-jwks.json"
TEXT = f"""
listen: {{ https: ":8443", http: ":8080" }}
edge_token: https://edge.example.com
auth: {{ guest: {{ anonymous: {{ name: Guest }} }} }}
upstreams:
  users: {{ targets: http://10.0.0.1:9001, identity: token }}
routes:
  api.example.com:
    /token: users
    /both: {{ to: users, identity: both }}
    /fields: {{ to: users, identity: fields }}
    /open: {{ to: users, auth: [api_key, anonymous] }}
    /guest: {{ to: users, auth: [api_key, guest] }}
    exact:{PATH}: {{ jwks: true, auth: none }}
    /closed{PATH}: {{ jwks: true }}
"""


def key_line(gateway: MemoryGateway, **settings: Any) -> bytes:
    return b"X-API-Key: %b\r\n" % gateway.key("ada", **settings).encode()


def head(gateway: MemoryGateway, client: Wire, data: bytes) -> bytes:
    """What the service gets of a request."""
    service = gateway.service("users")
    if not service.connections:
        client.send(data)
        service.accept()
    else:
        client.send(data)
    wire = service.connections[-1]
    before = getattr(wire, "seen", 0)
    found = wire.received[before:]
    wire.seen = len(wire.received)  # type: ignore[attr-defined]
    wire.send(answer())
    return found


def tokens(found: bytes) -> list[str]:
    said = [line.decode() for line in lines(found) if line.lower().startswith(b"x-edge-token:")]
    return [line.partition(": ")[2] for line in said]


def published(gateway: MemoryGateway, path: str = PATH, **to: Any) -> dict[str, Any]:
    client = gateway.client(**to)
    client.send(get(path))
    (found,) = client.answers()
    assert found.status == 200
    assert found.field("content-type") == "application/jwk-set+json"
    assert found.field("cache-control") == "public, max-age=300"
    keys: dict[str, Any] = json.loads(found.body)
    assert all("d" not in key for key in keys["keys"])
    return keys


def test_a_service_verifies_who_is_calling(make: Make) -> None:
    gateway = make(TEXT)
    key = key_line(gateway, groups=["ops"], scopes=["read"], plan="gold")
    found = head(gateway, gateway.client(), get("/token/x", key))
    assert not {b"x-consumer-id", b"x-consumer-name", b"x-api-key"} & set(names(found))
    (token,) = tokens(found)
    keys = KeySet.import_key_set(published(gateway, plain=True))
    claims = jwt.decode(token, keys, algorithms=["ES256"]).claims
    principal = gateway.finished[0].principal
    assert principal is not None
    told = {name: claims[name] for name in ("iss", "aud", "sub", "name", "groups", "plan", "kind")}
    assert told == {
        "iss": "https://edge.example.com",
        "aud": "users",
        "sub": principal.id,
        "name": "ada",
        "groups": ["ops"],
        "plan": "gold",
        "kind": "api_key",
    }
    assert 0 <= claims["iat"] - EPOCH < 60
    assert claims["exp"] == claims["iat"] + 60


def test_each_route_as_it_says(quick: Make) -> None:
    gateway = quick(TEXT)
    key, client = key_line(gateway), gateway.client()
    both = head(gateway, client, get("/both", key))
    assert len(tokens(both)) == names(both).count(b"x-consumer-id") == 1
    fields = head(gateway, client, get("/fields", key))
    assert (tokens(fields), names(fields).count(b"x-consumer-id")) == ([], 1)
    (guest,) = tokens(head(gateway, client, get("/guest")))
    keys = KeySet.import_key_set(published(gateway))
    assert jwt.decode(guest, keys, algorithms=["ES256"]).claims["kind"] == "anonymous"
    nobody = head(gateway, client, get("/open"))
    assert (tokens(nobody), names(nobody).count(b"x-consumer-id")) == ([], 0)


def test_one_token_for_many_requests(quick: Make) -> None:
    gateway = quick(TEXT)
    key = key_line(gateway)
    found = [tokens(head(gateway, gateway.client(), get("/token", key))) for _ in range(5)]
    assert len({each[0] for each in found}) == 1
    gateway.wait(31)
    later = tokens(head(gateway, gateway.client(), get("/token", key)))
    assert later != found[0]
    issuing = gateway.gateway.issuing.tokens
    assert issuing is not None
    assert issuing.status()["signed"] == 2


SPELLINGS = [b"X-Edge-Token", b"x-edge-token", b"X_Edge_Token", b"X-Edge_Token", b"X.EDGE.TOKEN"]


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("path", ["/token", "/both", "/fields", "/open"])
def test_no_client_can_send_one(quick: Make, name: bytes, path: str) -> None:
    gateway = quick(TEXT)
    fields = name + b": forged\r\n"
    if path != "/open":
        fields += key_line(gateway)
    found = head(gateway, gateway.client(), get(path, fields))
    assert b"forged" not in found
    assert len(tokens(found)) == (path in ("/token", "/both"))


def test_where_the_keys_are(make: Make) -> None:
    gateway = make(TEXT)
    assert published(gateway, plain=True) == published(gateway)
    client = gateway.client()
    client.send(get("/closed" + PATH))
    assert client.answers()[0].status == 401
    client = gateway.client(plain=True)
    client.send(get(PATH, b"Content-Length: 0\r\n", "POST"))
    (found,) = client.answers("POST")
    assert (found.status, found.field("allow")) == (405, "GET, HEAD")


def test_on_a_listener_of_its_own(quick: Make) -> None:
    gateway = quick("health: :9000\n" + TEXT)
    published(gateway, probe=True)
    client = gateway.client(plain=True)
    client.send(get(PATH))
    assert client.answers()[0].status == 308
    gateway = quick(
        "health: :9000\n" + TEXT.partition("edge_token")[0] + "routes: { a: { /: { page: true } } }"
    )
    client = gateway.client(probe=True)
    client.send(get(PATH))
    assert client.answers()[0].status == 404


def test_keys_rotate_while_requests_go_on(quick: Make) -> None:
    gateway = quick(TEXT)
    gateway.gateway.issuing.start()
    before = published(gateway, plain=True)["keys"]
    gateway.wait(86400 + 90)
    (token,) = tokens(head(gateway, gateway.client(), get("/token", key_line(gateway))))
    keys = published(gateway, plain=True)
    assert [key["kid"] for key in keys["keys"]][:2] == [key["kid"] for key in before]
    header = jwt.decode(token, KeySet.import_key_set({"keys": before}), algorithms=["ES256"]).header
    assert header["kid"] == before[1]["kid"], "known to services since yesterday"
    gateway.gateway.issuing.stop()
