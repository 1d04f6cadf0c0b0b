"""CAs and revocation lists: what is read, what is refused, what changes while it runs."""

from __future__ import annotations

import base64
import errno
import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from certs_support import Issued
from clients_support import DAY, EARLY, LATE, REAL, Shop, issue, revoke
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.logger import capturedLogs, formatEvent

from edgeproxy.certs import trust
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
        [("ca.pem", each) for each in cas], [("list.crl", each) for each in lists]
    )
    assert [message in each.message for each in problems].count(True) == 1, problems


UNTIMELY: dict[str, tuple[Callable[[Shop], Files], str]] = {
    "an expired CA": (
        lambda s: ([issue("Old", ca=True, end=REAL - DAY).pem], []),
        "ca.pem: no CA here is valid now",
    ),
    "a CA of tomorrow": (
        lambda s: ([issue("New", ca=True, start=REAL + DAY).pem], []),
        "ca.pem: no CA here is valid now",
    ),
    "a list that is too old": (
        lambda s: ([s.staff.pem], [revoke(s.staff, end=REAL - DAY)]),
        "list.crl: the revocation list of CN=Staff CA is too old: the next one was due on",
    ),
    "a list of tomorrow": (
        lambda s: ([s.staff.pem], [revoke(s.staff, start=REAL + DAY)]),
        "list.crl: the revocation list of CN=Staff CA begins on",
    ),
}


@pytest.mark.parametrize("name", UNTIMELY)
def test_what_is_out_of_its_time(shop: Shop, name: str) -> None:
    """Nothing is wrong with it for good."""
    files, message = UNTIMELY[name]
    cas, lists = files(shop)
    found, problems = read_authority(
        [("ca.pem", each) for each in cas], [("list.crl", each) for each in lists]
    )
    assert problems == []
    (told,) = found.untimely(REAL)
    assert f"{told.file}: {told.message}".startswith(message)
    assert told.error
    moment = REAL + 2 * DAY if "tomorrow" in name else REAL - 2 * DAY
    assert found.untimely(moment) == []


def test_lists_in_either_form(shop: Shop) -> None:
    for written in (revoke(shop.staff), der(revoke(shop.staff))):
        found, problems = read_authority([("a", shop.staff.pem)], [("b", written)])
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
    assert listed().objection(chain, EARLY - DAY) == "the revocation list is not valid yet"
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

    def look(self, later: timedelta = timedelta()) -> str:
        """What is in trouble at the next look; ``said`` is what the log says then."""
        self.now += later
        with capturedLogs() as logs:
            self.reactor.call()
        self.said = [formatEvent(each) for each in logs]
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


@pytest.mark.parametrize("file", ["staff.crl", "staff-ca.pem"])
def test_what_could_not_be_read_is_tried_again(
    shop: Shop, config: Config, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Without any change of the file: so many connections may take the last descriptor."""
    watched = Watched(config)
    watched.look()
    if file == "staff.crl":
        shop.write_list(shop.person())
    else:
        shop.staff = issue("Staff CA", shop.root, number=7, ca=True)
        shop.write()
    reasons = [errno.EMFILE, errno.EMFILE, errno.ENFILE]
    read = trust.read_regular

    def failing(path: Path, largest: int) -> bytes:
        if path.name == file:
            raise OSError(reasons[0], os.strerror(reasons[0]))
        return read(path, largest)

    monkeypatch.setattr(trust, "read_regular", failing)
    said = []
    while reasons:
        assert f"{file}: cannot be read: too many open files" in watched.look()
        said.append(len(watched.said))
        del reasons[0]
    assert said == [1, 0, 1]  # in silence while it is the same
    assert watched.told == []
    monkeypatch.undo()
    assert watched.look() == ""
    (new,) = watched.told
    assert new.by_host["a.example.com"] is not watched.policies.by_host["a.example.com"]
    watched.look()
    assert len(watched.told) == 1


@pytest.mark.parametrize("file", ["staff.crl", "staff-ca.pem"])
def test_what_begins_later_comes_into_force_then(shop: Shop, config: Config, file: str) -> None:
    """The clock of the CA may be ahead of ours; the file does not change again."""
    watched = Watched(config)
    start = REAL + timedelta(seconds=6)
    if file == "staff-ca.pem":
        shop.staff = issue("Staff CA", shop.root, number=7, ca=True, start=start)
        shop.write()
        why = "no CA here is valid now"
    else:
        path = shop.folder / file
        path.write_bytes(revoke(shop.staff, shop.person(), start=start))
        why = f"the revocation list of CN=Staff CA begins on {start:%Y-%m-%d %H:%M:%S} UTC"
    second = timedelta(seconds=1)
    said = []
    for _ in range(5):
        assert f"{file}: {why}" in watched.look(second)
        said += watched.said
    assert watched.told == []
    assert [line.endswith("the CAs and lists read before stay in use") for line in said] == [True]
    assert watched.look(second) == ""
    assert len(watched.told) == 1


def test_what_is_broken_is_parsed_once(
    shop: Shop, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large list costs milliseconds: not each second, however long it lies there."""
    watched = Watched(config)
    (shop.folder / "partner-ca.pem").write_bytes(b"nothing")
    (shop.folder / "staff.crl").unlink()
    assert watched.look() != ""
    monkeypatch.setattr(trust, "read_authority", None)
    assert watched.look() != ""


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
    (shop.folder / "staff.crl").write_bytes(revoke(shop.staff, end=REAL + DAY))
    watched = Watched(config)
    watched.look()
    watched.now += 2 * DAY
    assert "staff.crl: the revocation list of CN=Staff CA is too old" in watched.look()
    assert watched.said == [watched.watch.trouble]
    assert watched.watch.trouble.endswith("; staff lets nobody in")
    watched.look()
    assert watched.said == []
    watched.watch.stop()
    assert not hasattr(watched.reactor, "call")


def test_a_list_that_is_too_old_is_told_at_the_start_and_at_a_reload(
    shop: Shop, config: Config
) -> None:
    (shop.folder / "staff.crl").write_bytes(revoke(shop.staff, end=REAL - DAY))
    with capturedLogs() as logs:
        watched = Watched(config)
    (line,) = map(formatEvent, logs)
    assert "staff.crl: the revocation list of CN=Staff CA is too old" in line
    assert line.endswith("; staff lets nobody in")
    assert watched.look() == line
    assert watched.said == watched.told == []
    with capturedLogs() as logs:
        watched.watch.watch(config, watched.policies)
    assert list(map(formatEvent, logs)) == watched.watch.lines == [line]


def test_a_list_that_will_soon_be_too_old_is_told(shop: Shop, config: Config) -> None:
    """Once, when a twentieth of its life is left; a new one ends that."""

    def write(start: datetime) -> None:
        made = revoke(shop.staff, start=start, end=start + 20 * DAY)
        (shop.folder / "staff.crl").write_bytes(made)

    write(REAL)
    watched = Watched(config)
    assert watched.look(18.9 * DAY) == ""
    warned = watched.look(0.1 * DAY)
    assert "staff.crl: the revocation list of CN=Staff CA is good until" in warned
    assert warned.endswith("; fetch the next one; then staff lets nobody in")
    assert watched.said == [warned]
    assert watched.look(0.9 * DAY) == warned
    assert watched.said == []
    write(REAL + 19 * DAY)
    assert watched.look() == ""
    assert len(watched.told) == 1


def test_a_list_that_gets_too_old_beside_a_broken_file_is_told(shop: Shop, config: Config) -> None:
    (shop.folder / "staff.crl").write_bytes(revoke(shop.staff, end=REAL + DAY))
    watched = Watched(config)
    (shop.folder / "partner-ca.pem").write_bytes(b"nothing")
    watched.look()
    trouble = watched.look(2 * DAY)
    assert "partner-ca.pem: no certificate" in trouble
    (line,) = watched.said
    assert "staff.crl: the revocation list of CN=Staff CA is too old" in line
    assert line in trouble


@pytest.mark.parametrize("asked", ["[::1]", "::1", "0:0:0:0:0:0:0:1", "[0::1]"])
def test_an_address_of_ipv6_finds_its_policy(shop: Shop, asked: str) -> None:
    """Hosts are written in brackets, names in certificates are not."""
    text = TEXT.replace('  "*": { by: partner, required: false }\n', '  "[0::1]": partner\n')
    found = policies(parse(text, folder=shop.folder))
    policy = found.find(asked)
    assert policy is not None
    assert policy.credential == "partner"
    assert found.find("[::2]") is None
