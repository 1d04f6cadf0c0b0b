"""CAs and revocation lists: what is read, what is refused, what changes while it runs."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from certs_support import Issued
from clients_support import DAY, EARLY, LATE, REAL, Shop, issue, revoke
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edgeproxy.certs.authority import Authority, read_authority
from edgeproxy.certs.clients import Certified, Policies, WrongConnection, standing
from edgeproxy.certs.trust import TrustWatch, read_policies
from edgeproxy.config import Config, parse
from edgeproxy.exchange import Peer

TEXT = """
upstreams: { shop: http://10.0.0.1:80 }
auth:
  staff: { client_certificate: staff-ca.pem, crl: staff.crl, principal: "subject:cn" }
  partner: { client_certificate: partner-ca.pem }
client_certificates:
  a.example.com: staff
  "*.example.com": { by: staff, forward: chain }
  "*": { by: partner, required: false }
routes: { "*": { /: shop } }
"""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def config(shop: Shop) -> Config:
    return parse(TEXT, folder=shop.folder)


def policies(config: Config, before: Policies | None = None) -> Policies:
    found, problems = read_policies(config, REAL, before)
    assert problems == []
    return found


# -- files that are wrong ------------------------------------------------------------------------


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_crl(pem).public_bytes(Encoding.DER)


Files = tuple[list[bytes], list[bytes]]

WRONG: dict[str, tuple[Callable[[Shop], Files], str]] = {
    "no PEM": (lambda s: ([b"\x30\x82"], []), "no certificate in PEM form"),
    "empty": (lambda s: ([b""], []), "no certificate in PEM form"),
    "cut": (lambda s: ([s.staff.pem[:-40]], []), "cannot be read as certificates"),
    "a key": (lambda s: ([s.staff.key], []), "cannot be read as certificates"),
    "no CA": (lambda s: ([s.person().pem], []), "may not issue others"),
    "a CA and a person": (lambda s: ([s.staff.pem + s.person().pem], []), "may not issue"),
    "an expired CA": (
        lambda s: ([issue("Old", ca=True, end=REAL - DAY).pem], []),
        "no CA here is valid now",
    ),
    "no list": (lambda s: ([s.staff.pem], [b"nothing"]), "cannot be read as a revocation list"),
    "an empty list": (lambda s: ([s.staff.pem], [b""]), "cannot be read as a revocation list"),
    "a list cut short": (
        lambda s: ([s.staff.pem], [revoke(s.staff)[:-30]]),
        "the file is cut short",
    ),
    "a list of DER cut short": (
        lambda s: ([s.staff.pem], [der(revoke(s.staff))[:-1]]),
        "cannot be read as a revocation list",
    ),
    "a list of another": (
        lambda s: ([s.staff.pem], [revoke(s.partner)]),
        "CN=Partner CA, which is none of the CAs",
    ),
    "a list signed by another": (
        lambda s: ([s.staff.pem], [revoke(s.staff, signer=s.partner.private)]),
        "not signed by it",
    ),
    "a list that is too old": (
        lambda s: ([s.staff.pem], [revoke(s.staff, end=REAL - DAY)]),
        "too old: the next one was due on",
    ),
    "a list of tomorrow": (
        lambda s: ([s.staff.pem], [revoke(s.staff, start=REAL + DAY)]),
        "begins on",
    ),
    "a list of changes": (
        lambda s: ([s.staff.pem], [revoke(s.staff, extension=x509.DeltaCRLIndicator(1))]),
        "is a partial one",
    ),
    "a list of some": (
        lambda s: (
            [s.staff.pem],
            [
                revoke(
                    s.staff,
                    extension=x509.IssuingDistributionPoint(
                        None, None, False, True, None, False, False
                    ),
                )
            ],
        ),
        "is a partial one",
    ),
    "a CA without a list": (
        lambda s: ([s.staff.pem, s.partner.pem], [revoke(s.staff)]),
        "no revocation list of CN=Partner CA",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told(shop: Shop, name: str) -> None:
    files, message = WRONG[name]
    cas, lists = files(shop)
    _, problems = read_authority(
        [("ca.pem", each) for each in cas], [("list.crl", each) for each in lists], REAL
    )
    assert [message in each.message for each in problems].count(True) == 1, problems


def test_lists_in_either_form(shop: Shop) -> None:
    for written in (revoke(shop.staff), der(revoke(shop.staff))):
        found, problems = read_authority([("a", shop.staff.pem)], [("b", written)], REAL)
        assert problems == []
        assert len(found.lists) == 1
        assert found.until == LATE


def test_a_file_that_is_not_there(shop: Shop, config: Config) -> None:
    (shop.folder / "staff.crl").unlink()
    _, problems = read_policies(config, REAL)
    assert [(Path(each.file).name, each.message) for each in problems] == [
        ("staff.crl", "cannot be read: no such file or directory"),
        # which nobody is told twice of, though two names ask for it
    ]


# -- what is known of a chain afterwards ---------------------------------------------------------


def test_objections(shop: Shop) -> None:
    alice = shop.person()
    chain = [alice.certificate, shop.staff.certificate]
    good = Authority([shop.staff.certificate])
    assert good.objection(chain, REAL) == ""
    assert good.objection(chain, LATE + DAY) == "expired"
    other = Authority([shop.partner.certificate])
    assert other.objection(chain, REAL) == "issued by a CA that is not trusted any more"
    assert good.objection([], REAL) == "issued by a CA that is not trusted any more"

    def listed(*revoked: Issued, end: datetime = LATE) -> Authority:
        made = x509.load_pem_x509_crl(revoke(shop.staff, *revoked, end=end))
        return Authority([shop.staff.certificate], [made])

    assert listed(shop.person("bob")).objection(chain, REAL) == ""
    assert listed(alice).objection(chain, REAL) == "revoked"
    assert listed(end=REAL + DAY).objection(chain, REAL + 2 * DAY) == (
        "the revocation list is too old"
    )
    below = issue("Below", shop.staff, number=30, ca=True)
    carol = shop.person("carol", below)
    longer = [carol.certificate, below.certificate, shop.staff.certificate]
    assert listed().objection(longer, REAL) == "no revocation list is there for its CA"


# -- which policy --------------------------------------------------------------------------------


def test_the_policy_of_a_name(config: Config) -> None:
    found = policies(config)
    exact, wildcard, any_ = (found.by_host[h] for h in ("a.example.com", "*.example.com", "*"))
    assert len({exact, wildcard, any_}) == 3
    for name, policy in {
        "a.example.com": exact,
        "A.Example.COM.": exact,
        "b.example.com": wildcard,
        "b.a.example.com": any_,
        "example.com": any_,
        "192.0.2.1": any_,
        "not a name": any_,
    }.items():
        assert found.find(name) is policy, name
    assert found.find(None) is any_


def test_names_that_ask_alike_share_their_policy(shop: Shop) -> None:
    text = TEXT.replace("{ by: staff, forward: chain }", "staff")
    found = policies(parse(text, folder=shop.folder)).by_host
    assert found["a.example.com"] is found["*.example.com"]


def peer(config: Policies, shown: Issued | None, *above: Issued, sni: str) -> Peer:
    made = Peer("192.0.2.1", 50000, 8443, "TLSv1.3", sni)
    policy = config.find(sni)
    if shown is not None and policy is not None:
        chain = tuple(each.certificate for each in (shown, *above))
        made.certified = Certified(policy, chain)
    return made


def test_standing(shop: Shop, config: Config) -> None:
    found = policies(config)
    now = REAL.timestamp()
    alice = peer(found, shop.person(), shop.staff, sni="a.example.com")
    good = standing(found, None, "a.example.com", alice, now)
    assert good is not None and good.principal is not None
    assert (good.credential, good.principal.id, good.refusal) == ("staff", "staff:alice", "")
    assert good.lines == b""
    # Its life ends with the certificate's, or the list's.
    assert good.until == LATE.timestamp()
    for other in ("b.example.com", "example.com"):
        with pytest.raises(WrongConnection):
            standing(found, None, other, alice, now)
    with pytest.raises(WrongConnection):
        standing(found, None, "a.example.com", peer(found, None, sni="a.example.com"), now)
    nobody = standing(found, None, "x.org", peer(found, None, sni="y.org"), now)
    assert nobody is not None and not nobody.shown
    late = standing(found, None, "a.example.com", alice, (LATE + DAY).timestamp())
    assert late is not None and (late.refusal, late.principal) == ("expired", None)


def test_fields_for_the_service(shop: Shop, config: Config) -> None:
    """RFC 9440: the certificate as a byte sequence; the chain in order, without the CA."""
    found = policies(config)
    below = issue("Below", shop.partner, number=31, ca=True)
    shown = shop.person("bob", below)
    text = TEXT.replace("required: false", "forward: chain")
    found = policies(parse(text, folder=shop.folder))
    bob = peer(found, shown, below, shop.partner, sni="x.org")
    got = standing(found, None, "x.org", bob, REAL.timestamp())
    assert got is not None
    fields = re.findall(rb"(Client-Cert|Client-Cert-Chain): :([A-Za-z0-9+/=]+):\r\n", got.lines)
    assert [name for name, _ in fields] == [b"Client-Cert", b"Client-Cert-Chain"]
    read = [x509.load_der_x509_certificate(base64.b64decode(value)) for _, value in fields]
    assert read == [shown.certificate, below.certificate]


def test_a_chain_that_is_too_large(shop: Shop, config: Config) -> None:
    found = policies(config)
    names = [x509.DNSName(f"{number}.{'x' * 60}.example.com") for number in range(300)]
    large = shop.person(names=names)
    got = standing(
        found, None, "a.example.com", peer(found, large, shop.staff, sni="a.example.com"),
        REAL.timestamp(),
    )  # fmt: skip
    assert got is not None
    assert got.refusal == "more than 16384 bytes of certificates"


# -- files that change ---------------------------------------------------------------------------


class Calls:
    """A reactor of one timer, which the test lets go off."""

    def callLater(self, delay: float, call: Callable[[], None]) -> Calls:
        self.call = call
        return self

    def active(self) -> bool:
        return True

    def cancel(self) -> None:
        del self.call


class Watched:
    def __init__(self, config: Config) -> None:
        self.now = REAL
        self.told: list[Policies] = []
        self.reactor = Calls()
        self.watch = TrustWatch(self.reactor, lambda: self.now, self.told.append)
        self.policies = policies(config)
        self.watch.watch(config, self.policies)
        self.watch.start()

    def look(self) -> str:
        self.reactor.call()
        return self.watch.trouble


def test_a_new_list(shop: Shop, config: Config) -> None:
    watched = Watched(config)
    assert watched.look() == "" and watched.told == []
    shop.write(shop.person())
    assert watched.look() == ""
    (new,) = watched.told
    assert new.by_host["a.example.com"] is not watched.policies.by_host["a.example.com"]
    assert new.by_host["*"] is watched.policies.by_host["*"]
    assert watched.look() == "" and len(watched.told) == 1


def test_the_same_again(shop: Shop, config: Config) -> None:
    watched = Watched(config)
    path = shop.folder / "staff.crl"
    path.write_bytes(path.read_bytes() + b"\n")
    assert watched.look() == "" and watched.told == []


@pytest.mark.parametrize("change", ["broken", "gone", "too old"])
def test_a_list_that_is_broken_changes_nothing(shop: Shop, config: Config, change: str) -> None:
    watched = Watched(config)
    path = shop.folder / "staff.crl"
    if change == "broken":
        path.write_bytes(path.read_bytes()[:100])
    elif change == "gone":
        path.unlink()
    else:
        path.write_bytes(revoke(shop.staff, start=EARLY, end=REAL - DAY))
    assert str(path) in watched.look()
    assert watched.told == []
    shop.write(shop.person())
    assert watched.look() == "" and len(watched.told) == 1


def test_a_broken_file_keeps_nothing_else_back(shop: Shop, config: Config) -> None:
    watched = Watched(config)
    (shop.folder / "partner-ca.pem").write_bytes(b"nothing")
    shop.write_list(shop.person())
    assert "partner-ca.pem: no certificate" in watched.look()
    (new,) = watched.told
    assert new.by_host["a.example.com"] is not watched.policies.by_host["a.example.com"]
    assert new.by_host["*"] is watched.policies.by_host["*"]


def test_what_changed_while_it_was_read_is_seen(shop: Shop, config: Config) -> None:
    read = policies(config)
    shop.write(shop.person())
    watched = Watched(config)
    watched.watch.watch(config, read)
    watched.look()
    assert len(watched.told) == 1


def test_a_list_that_gets_too_old_is_told(shop: Shop, config: Config) -> None:
    watched = Watched(config)
    assert watched.look() == ""
    watched.now = LATE + DAY
    assert watched.look() == "the revocation list of staff is too old"
    watched.watch.stop()
    assert not hasattr(watched.reactor, "call")


@pytest.mark.parametrize("asked", ["[::1]", "::1", "0:0:0:0:0:0:0:1", "[0::1]"])
def test_an_address_of_ipv6_finds_its_policy(shop: Shop, asked: str) -> None:
    """Hosts are written in brackets, names in certificates are not."""
    text = TEXT.replace('  "*": { by: partner, required: false }\n', '  "[0::1]": partner\n')
    found = policies(parse(text, folder=shop.folder))
    policy = found.find(asked)
    assert policy is not None
    assert policy.credential == "partner"
    assert found.find("[::2]") is None
