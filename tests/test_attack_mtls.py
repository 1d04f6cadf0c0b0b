"""Getting past a client certificate: every way in that we know of, over real TLS on sockets.

One name demands the staff's certificate, one the partners', one asks for the staff's without
insisting, one is open. Whatever a client does, it reaches the service of a name that demands
a certificate only by a good one of that very name's CA, shown on a connection to that very name.
"""

from __future__ import annotations

import re
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certs_support import TLS12, Issued, client_context, handshake, pump, read
from clients_support import DAY, EARLY, FAKE, LATE, REAL, SERVER, Shop, issue, revoke
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from edgeproxy.certs.clients import Policies
from edgeproxy.config import parse
from edgeproxy.reloading import Staged
from edgeproxy.testing import Ending, MemoryGateway, TLSWire, Way

CONFIG = """
upstreams: { shop: http://10.0.0.1:80 }
auth:
  staff: { client_certificate: FOLDER/staff-ca.pem, crl: FOLDER/staff.crl, principal: san:email }
  partner: { client_certificate: FOLDER/partner-ca.pem }
client_certificates:
  staff.example.com: staff
  partner.example.com: partner
  maybe.example.com: { by: staff, required: false }
routes:
  open.example.com: { /: { to: shop, auth: none } }
  staff.example.com: { /: { to: shop, auth: staff }, /open: { to: shop, auth: none } }
  partner.example.com: { /: { to: shop, auth: partner } }
  maybe.example.com: { /: { to: shop, auth: [staff, api_key] }, /open: { to: shop, auth: none } }
"""
OPEN = """
upstreams: { shop: http://10.0.0.1:80 }
routes:
  open.example.com: { /: { to: shop, auth: none } }
  staff.example.com: { /: { to: shop, auth: none }, /open: { to: shop, auth: none } }
  partner.example.com: { /: { to: shop, auth: none } }
  maybe.example.com: { /: { to: shop, auth: none } }
"""
NAMES = ("open", "staff", "partner", "maybe")
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
CERTIFICATES = {
    "one certificate": [("open.example.com", "*.example.com")],
    "one for each name": [(f"{name}.example.com",) for name in NAMES],
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture(params=VERSIONS, ids=["TLS 1.2", "TLS 1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    found: ssl.TLSVersion = request.param
    return found


@pytest.fixture(params=CERTIFICATES)
def made(request: pytest.FixtureRequest, shop: Shop) -> Iterator[MemoryGateway]:
    yield start(shop, CONFIG, CERTIFICATES[request.param])


def start(
    shop: Shop, text: str, certificates: list[tuple[str, ...]] | None = None
) -> MemoryGateway:
    text = text.replace("FOLDER", str(shop.folder))
    return MemoryGateway(text, Way.TLS, certificates or CERTIFICATES["one certificate"])


def reload(gateway: MemoryGateway, shop: Shop, text: str) -> None:
    inner = gateway.gateway
    inner.use(inner.build(parse(text.replace("FOLDER", str(shop.folder)))), Staged())
    inner.resource.snapshot.finished = gateway._record


def ask(
    gateway: MemoryGateway, client: TLSWire, host: str, path: str = "/", fields: str = ""
) -> int | str:
    """The status of an answer, "alert" where TLS ended first."""
    service = gateway.service("shop")
    before = len(client.received)
    reached = {wire: wire.received.count(b"GET ") for wire in service.connections}
    if client.ending is Ending.OPEN:
        client.send(f"GET {path} HTTP/1.1\r\nHost: {host}.example.com\r\n{fields}\r\n".encode())
    let_in = [w for w in service.connections if w.received.count(b"GET ") > reached.get(w, 0)]
    for wire in let_in:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    if client.failure is not None or (client.ending is not Ending.OPEN and not client.received):
        assert not let_in
        return "alert"
    status = int(client.received[before:].split(b" ", 2)[1])
    assert (status == 200) is bool(let_in)
    return status


def connect(
    gateway: MemoryGateway,
    context: ssl.SSLContext,
    name: str,
    session: ssl.SSLSession | None = None,
) -> TLSWire:
    asked = f"{name}.example.com" if name else ""
    client = gateway.client(name=asked, context=context, session=session)
    assert isinstance(client, TLSWire)
    return client


# -- the matrix ----------------------------------------------------------------------------------

Show = Callable[[Shop], Issued | None]

SHOWN: dict[str, Show] = {
    "nothing": lambda shop: None,
    "the right one": lambda shop: shop.person(),
    "the partners'": lambda shop: shop.person(issuer=shop.partner),
    "a stranger's": lambda shop: shop.person(issuer=issue("Other", number=4, ca=True)),
    "one of a CA of the same name": lambda shop: shop.person(
        issuer=issue("Staff CA", shop.root, number=5, ca=True)
    ),
    "one of the root above": lambda shop: shop.person(issuer=shop.root),
    "self-signed": lambda shop: issue("alice", number=6),
    "expired": lambda shop: shop.person(end=REAL - DAY),
    "not yet valid": lambda shop: shop.person(start=REAL + DAY, end=LATE),
    "for servers": lambda shop: shop.person(usage=SERVER),
    "one issued by a person": lambda shop: shop.person("mallory", shop.person(), number=11),
    "under a CA without a list": lambda shop: shop.person(issuer=deep(shop.staff, 1)),
    "under four CAs of the partners'": lambda shop: shop.person(issuer=deep(shop.partner, 4)),
    "under five CAs of the partners'": lambda shop: shop.person(issuer=deep(shop.partner, 5)),
}


def deep(above: Issued, count: int) -> Issued:
    for number in range(count):
        above = issue(f"CA {number}", above, number=20 + number, ca=True)
    return above


#: (the name asked for in TLS, "" for none; the Host; what is shown) -> what comes of it
MATRIX: dict[tuple[str, str, str], int | str] = {
    ("staff", "staff", "the right one"): 200,
    ("maybe", "maybe", "the right one"): 200,
    ("partner", "partner", "the partners'"): 200,
    ("partner", "partner", "under four CAs of the partners'"): 200,
    ("partner", "partner", "under five CAs of the partners'"): "alert",
    ("open", "open", "nothing"): 200,
    ("open", "open", "the right one"): 200,  # nobody asks for it, so it is not sent
    ("maybe", "maybe", "nothing"): 401,
    # another Host than the name of the connection
    ("open", "staff", "nothing"): 421,
    ("open", "staff", "the right one"): 421,
    ("open", "maybe", "the right one"): 421,
    ("maybe", "staff", "nothing"): 421,
    ("maybe", "staff", "the right one"): 421,
    ("staff", "maybe", "the right one"): 421,
    ("staff", "partner", "the right one"): 421,
    ("partner", "staff", "the partners'"): 421,
    ("staff", "open", "the right one"): 421,
    ("", "staff", "nothing"): 421,
    ("", "staff", "the right one"): 421,
    # a certificate that is not good
    **{
        ("staff", "staff", shown): "alert"
        for shown in SHOWN
        if shown != "the right one"
    },
    **{
        ("maybe", "maybe", shown): "alert"
        for shown in SHOWN
        if shown not in ("the right one", "nothing")
    },
    ("partner", "partner", "the right one"): "alert",
    ("partner", "partner", "nothing"): "alert",
}  # fmt: skip


@pytest.mark.parametrize("cell", MATRIX, ids=lambda cell: "-".join(cell))
def test_matrix(
    made: MemoryGateway, shop: Shop, version: ssl.TLSVersion, cell: tuple[str, str, str]
) -> None:
    sni, host, shown = cell
    client = connect(made, shop.context(SHOWN[shown](shop), version), sni)
    assert ask(made, client, host) == MATRIX[cell]


# -- what changes while connections are there ----------------------------------------------------


def test_revoked(made: MemoryGateway, shop: Shop, version: ssl.TLSVersion) -> None:
    alice, bob = shop.person(), shop.person("bob", number=12)
    client = connect(made, shop.context(alice, version), "staff")
    other = connect(made, shop.context(bob, version), "staff")
    assert ask(made, client, "staff") == 200
    shop.write(alice)
    made.gateway.trust.look()
    assert ask(made, client, "staff") == 401
    assert made.finished[-1].reason == "client certificate: revoked"
    assert client.ending is Ending.ENDED
    assert ask(made, other, "staff") == 200
    assert ask(made, connect(made, shop.context(alice, version), "staff"), "staff") == "alert"
    assert ask(made, connect(made, shop.context(bob, version), "staff"), "staff") == 200


def test_revoked_where_certificates_are_voluntary(made: MemoryGateway, shop: Shop) -> None:
    alice = shop.person()
    client = connect(made, shop.context(alice), "maybe")
    assert ask(made, client, "maybe") == 200
    shop.write(alice)
    made.gateway.trust.look()
    assert ask(made, client, "maybe") == 401
    assert ask(made, client, "maybe", "/open") == 200
    assert ask(made, client, "maybe", fields=f"X-API-Key: {made.key('k')}\r\n") == 401


def test_another_ca(made: MemoryGateway, shop: Shop, version: ssl.TLSVersion) -> None:
    old = shop.context(shop.person(), version)
    client = connect(made, old, "staff")
    assert ask(made, client, "staff") == 200
    shop.staff = issue("Staff CA", shop.root, number=7, ca=True)
    shop.write()
    reload(made, shop, CONFIG)
    assert ask(made, client, "staff") == 401
    again = connect(made, old, "staff", client.session)
    assert ask(made, again, "staff") == "alert"
    assert ask(made, connect(made, shop.context(shop.person(), version), "staff"), "staff") == 200


def test_a_reload_that_changes_nothing(made: MemoryGateway, shop: Shop) -> None:
    client = connect(made, shop.context(shop.person()), "staff")
    before = made.gateway.tls.policies.by_host
    reload(made, shop, CONFIG)
    assert made.gateway.tls.policies.by_host == before
    assert ask(made, client, "staff") == 200


def test_a_connection_from_before(shop: Shop, version: ssl.TLSVersion) -> None:
    """What was open to everyone demands a certificate now: also of those who are there."""
    gateway = start(shop, OPEN)
    client = connect(gateway, shop.context(None, version), "staff")
    assert ask(gateway, client, "staff") == 200
    reload(gateway, shop, CONFIG)
    assert ask(gateway, client, "staff") == 421
    assert client.ending is Ending.ENDED


# -- lists that are out of their time --------------------------------------------------------------

UNTIMELY = {
    "too old": (EARLY, EARLY + DAY),
    "of tomorrow": (LATE - DAY, LATE),
}


@pytest.fixture(params=UNTIMELY)
def untimely(request: pytest.FixtureRequest, shop: Shop) -> str:
    """Why the staff's list does not count."""
    start, end = UNTIMELY[request.param]
    (shop.folder / "staff.crl").write_bytes(revoke(shop.staff, start=start, end=end))
    return "too old" if request.param == "too old" else "not valid yet"


def test_a_start_with_a_list_out_of_its_time(
    shop: Shop, untimely: str, version: ssl.TLSVersion
) -> None:
    """It stops nobody but those whom it is about."""
    gateway = start(shop, CONFIG)
    gateway.gateway.trust.look()
    assert "staff lets nobody in" in gateway.gateway.trust.trouble
    context = shop.context(shop.person(), version)
    for name in ("staff", "maybe"):
        client = connect(gateway, context, name)
        assert ask(gateway, client, name) == "alert"
        again = connect(gateway, context, name, client.session)
        assert ask(gateway, again, name, "/open") == "alert"
        assert not again.resumed
    bare = shop.context(None, version)
    assert ask(gateway, connect(gateway, bare, "maybe"), "maybe") == 401
    assert ask(gateway, connect(gateway, bare, "maybe"), "maybe", "/open") == 200
    assert ask(gateway, connect(gateway, bare, "staff"), "staff") == "alert"
    assert ask(gateway, connect(gateway, bare, "open"), "open") == 200
    partner = shop.context(shop.person(issuer=shop.partner), version)
    assert ask(gateway, connect(gateway, partner, "partner"), "partner") == 200
    shop.write()
    gateway.gateway.trust.look()
    context = shop.context(shop.person(), version)
    assert ask(gateway, connect(gateway, context, "staff"), "staff") == 200


@pytest.mark.parametrize("name", ["staff", "maybe"])
def test_a_reload_with_a_list_out_of_its_time(
    shop: Shop, untimely: str, version: ssl.TLSVersion, name: str
) -> None:
    """Whom no list was about before it locks out, on connections and in sessions from then too."""
    gateway = start(shop, CONFIG.replace(", crl: FOLDER/staff.crl", ""))
    context = shop.context(shop.person(), version)
    client = connect(gateway, context, name)
    assert ask(gateway, client, name) == 200
    reload(gateway, shop, CONFIG)
    gateway.gateway.trust.look()
    assert "staff lets nobody in" in gateway.gateway.trust.trouble
    assert ask(gateway, client, name) == 401
    assert gateway.finished[-1].reason == f"client certificate: the revocation list is {untimely}"
    again = connect(gateway, context, name, client.session)
    assert ask(gateway, again, name) == "alert"
    assert not again.resumed
    assert ask(gateway, connect(gateway, context, name), name) == "alert"


def test_a_reload_keeps_a_list_that_counts(
    made: MemoryGateway, shop: Shop, version: ssl.TLSVersion
) -> None:
    """One that is out of its time does not take its place: nobody is locked out, nor let in."""
    mallory = shop.person("mallory", number=12)
    shop.write(mallory)
    made.gateway.trust.look()
    for start, end in UNTIMELY.values():
        (shop.folder / "staff.crl").write_bytes(revoke(shop.staff, start=start, end=end))
        reload(made, shop, CONFIG)
        context = shop.context(shop.person(), version)
        assert ask(made, connect(made, context, "staff"), "staff") == 200
        context = shop.context(mallory, version)
        assert ask(made, connect(made, context, "staff"), "staff") == "alert"
        made.gateway.trust.look()
        assert made.gateway.trust.trouble.endswith("the CAs and lists read before stay in use")


def test_a_start_with_a_ca_that_has_expired(shop: Shop, version: ssl.TLSVersion) -> None:
    shop.partner = issue("Partner CA", shop.root, number=3, ca=True, end=REAL - DAY)
    shop.write()
    gateway = start(shop, CONFIG)
    gateway.gateway.trust.look()
    assert "partner lets nobody in" in gateway.gateway.trust.trouble
    context = shop.context(shop.person(issuer=shop.partner), version)
    assert ask(gateway, connect(gateway, context, "partner"), "partner") == "alert"
    staff = shop.context(shop.person(), version)
    assert ask(gateway, connect(gateway, staff, "staff"), "staff") == 200


# -- resumption ----------------------------------------------------------------------------------


def test_a_session_from_before(shop: Shop, version: ssl.TLSVersion) -> None:
    gateway = start(shop, OPEN)
    context = shop.context(None, version)
    client = connect(gateway, context, "staff")
    assert ask(gateway, client, "staff") == 200
    again = connect(gateway, context, "staff", client.session)
    assert ask(gateway, again, "staff") == 200
    assert again.resumed
    reload(gateway, shop, CONFIG)
    late = connect(gateway, context, "staff", client.session)
    assert ask(gateway, late, "staff") == "alert"
    elsewhere = connect(gateway, context, "open", client.session)
    assert ask(gateway, elsewhere, "staff") == 421
    assert not elsewhere.resumed


@pytest.mark.parametrize("first", ["open", "maybe", "staff"])
def test_no_session_is_resumed(
    made: MemoryGateway, shop: Shop, version: ssl.TLSVersion, first: str
) -> None:
    context = shop.context(shop.person() if first == "staff" else None, version)
    client = connect(made, context, first)
    ask(made, client, first, "/open" if first == "maybe" else "/")
    again = connect(made, context, "staff", client.session)
    assert ask(made, again, "staff") == (200 if first == "staff" else "alert")
    assert not again.resumed


@pytest.mark.parametrize("first", ["open", "staff"])
def test_a_session_that_was_resumed_all_the_same(
    made: MemoryGateway, shop: Shop, version: ssl.TLSVersion, first: str
) -> None:
    """The check of each request stands alone: here the guard on resumption is taken away."""
    tls = made.gateway.tls
    policies, tls.policies = tls.policies, Policies()
    tls.rotate()  # a base context that gives tickets out
    context = shop.context(None, version)
    client = connect(made, context, first)  # nothing is asked for
    ask(made, client, "open" if first == "open" else "staff", "/open")
    assert client.session is not None and client.session.has_ticket
    tls.policies = policies
    again = connect(made, context, "staff", client.session)
    assert again.resumed
    assert ask(made, again, "staff") == 421
    assert ask(made, connect(made, context, "staff", client.session), "staff", "/open") == 421


# -- what the service is told --------------------------------------------------------------------


@pytest.mark.parametrize("forward", ["nothing", "certificate"])
@pytest.mark.parametrize(("name", "shown"), [("open", False), ("staff", True), ("maybe", False)])
def test_a_certificate_that_is_only_said(shop: Shop, forward: str, name: str, shown: bool) -> None:
    """Client-Cert and identity of the client's own making, in every spelling, reach nobody."""
    text = CONFIG.replace(
        "staff.example.com: staff", f"""staff.example.com: {{ by: staff, forward: {forward} }}"""
    )
    gateway = start(shop, text)
    alice = shop.person()
    client = connect(gateway, shop.context(alice if shown else None), name)
    said = "".join(
        f"{field}: :c3Bvb2Y=:\r\n"
        for field in ("Client-Cert", "client_cert", "CLIENT-CERT", "Client.Cert",
                      "Client-Cert-Chain", "Client_Cert_Chain",
                      "X-Consumer-Id", "X_Consumer_Name", "x-consumer-groups")
    )  # fmt: skip
    assert ask(gateway, client, name, "/" if name == "open" else "/open", said) == 200
    got = gateway.service("shop").received
    assert b"c3Bvb2Y" not in got
    assert b"consumer" not in got.lower()  # nobody was asked who it is
    told = re.findall(rb"Client-Cert: :([^:]+):\r\n", got)
    if shown and forward == "certificate":
        assert told == [b64encode(alice.certificate.public_bytes(Encoding.DER))]
    else:
        assert b"client" not in got.lower().replace(b"client.", b"")


def test_who_may_do_what(shop: Shop) -> None:
    """Groups of the certificate, scopes and plan of the table; a limit counts the holder."""
    text = CONFIG.replace(
        "principal: san:email }",
        "principal: san:email, groups: ou, callers: { alice@example.com: { scopes: pay }, "
        "bob@example.com: Bob } }",
    ).replace(
        "staff.example.com: { /: { to: shop, auth: staff },",
        "staff.example.com: { /: { to: shop, auth: staff, limit: two }, "
        "/ops: { to: shop, auth: staff, groups: ops }, "
        "/pay: { to: shop, auth: staff, scopes: pay },",
    )
    gateway = start(shop, text + "limits: { two: 2/min }\n")
    alice = connect(gateway, shop.context(shop.person(ou=["ops"])), "staff")
    bob = connect(gateway, shop.context(shop.person("bob", number=12)), "staff")
    carol = connect(gateway, shop.context(shop.person("carol", number=13)), "staff")
    assert ask(gateway, alice, "staff", "/ops") == ask(gateway, alice, "staff", "/pay") == 200
    assert ask(gateway, bob, "staff", "/ops") == ask(gateway, bob, "staff", "/pay") == 403
    # Who names nobody is let in nowhere on a name that demands certificates.
    assert ask(gateway, carol, "staff", "/open") == 401
    assert gateway.finished[-1].reason == (
        "client certificate: 'carol@example.com' is not among the callers"
    )
    again = connect(gateway, shop.context(shop.person(ou=["ops"])), "staff")
    assert [ask(gateway, each, "staff") for each in (alice, again, alice, bob)] == [
        200, 200, 429, 200,
    ]  # fmt: skip
    line = gateway.log[0]
    assert (line["principal"], line["kind"]) == ("staff:alice@example.com", "client_certificate")


@pytest.mark.parametrize("name", ["maybe", "staff"])
def test_it_is_over_when_the_certificate_is(shop: Shop, name: str) -> None:
    """Within the connection too; on a name that demands one, for open routes too."""
    # The handshake goes by the machine's clock, every request after it by the gateway's.
    end = LATE - DAY
    gateway = start(shop, CONFIG)
    gateway.clock.epoch += (end - FAKE).total_seconds() - 60
    client = connect(gateway, shop.context(shop.person(end=end)), name)
    assert ask(gateway, client, name) == 200
    gateway.wait(50)
    assert ask(gateway, client, name, "/open") == 200
    gateway.wait(11)
    path = "/open" if name == "staff" else "/"
    assert ask(gateway, client, name, path) == 401
    assert gateway.finished[-1].reason == "client certificate: expired"


# -- later in the connection ---------------------------------------------------------------------


def test_after_the_handshake(made: MemoryGateway, shop: Shop) -> None:
    """A client that would show its certificate later (RFC 8446 4.6.2) is never asked to."""
    context = shop.context(shop.person())
    context.post_handshake_auth = True
    client = connect(made, context, "open")
    assert ask(made, client, "open") == 200
    assert ask(made, client, "staff") == 421
    assert client.ending is Ending.ENDED


def test_renegotiation(made: MemoryGateway, shop: Shop) -> None:
    """TLS 1.2 could begin anew within the connection, and show a certificate then."""
    met = handshake(made.gateway.tls.context, client_context(TLS12), b"open.example.com")
    assert met.done
    met.client.renegotiate()
    with pytest.raises(SSL.Error):
        for _ in range(3):
            try:
                met.client.do_handshake()
            except SSL.WantReadError:
                pump(met.client, met.server)
                read(met.server)
                pump(met.server, met.client)
    assert met.server.total_renegotiations() == 0


def test_a_certificate_and_a_key(made: MemoryGateway, shop: Shop) -> None:
    key = f"X-API-Key: {made.key('someone')}\r\n"
    shown = connect(made, shop.context(shop.person()), "maybe")
    assert ask(made, shown, "maybe", fields=key) == 401
    bare = connect(made, shop.context(), "maybe")
    assert ask(made, bare, "maybe", fields=key) == 200
    assert made.finished[-1].principal.kind == "api_key"
    # Where no key is asked for, none counts.
    assert ask(made, connect(made, shop.context(), "maybe"), "maybe", "/open", key) == 200
