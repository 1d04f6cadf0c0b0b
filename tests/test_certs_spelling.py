"""No spelling of a name chooses a certificate that does not cover it.

Real certificates, real handshakes in memory, and two oracles that know nothing of our code:
service-identity, which is what Twisted's clients verify names with, and cryptography's verifier.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from functools import cache

import idna
import pytest
from certs_support import NOW, TLS13, Issued, client_context, handshake, issue, key, root
from cryptography import x509
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    ServerVerifier,
    Store,
    VerificationError,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from service_identity import CertificateError
from service_identity import VerificationError as NameMismatch
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)

from edgeproxy.certs.contexts import ServerTLS
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import scan

# What certificates carry: names that lie close together, so that a mistake finds a wrong one.
CARRIED = (
    "example.com",
    "www.example.com",
    "*.example.com",
    "a.b.example.com",
    "*.b.example.com",
    "xn--bcher-kva.example.com",
    "*.xn--bcher-kva.example",
    "a_b.example.com",
    "localhost",
    "127.0.0.1",
    "::1",
)
LABELS = ("example", "com", "www", "a", "b", "xn--bcher-kva", "bücher", "BÜCHER", "a_b", "_", "*")
ODD = ("", "-", "ß", "xn--", "a" * 63, "a" * 64, "w w", "w\0w", "w\n", "%77ww", "w/", "ｗww", "🦊")


@cache
def issued(names: tuple[str, ...]) -> Issued:
    return issue(names, root(), private=key("ECDSA", 77), cn="spelling")


@cache
def server(certificates: tuple[tuple[str, ...], ...]) -> ServerTLS:
    files = {str(n): issued(names).full + issued(names).key for n, names in enumerate(certificates)}
    return ServerTLS(NameMap(scan(files, NOW).chains, None, NOW))


SETS = [(one,) for one in CARRIED] + [
    ("example.com", "*.example.com"),
    ("www.example.com", "*.b.example.com", "::1"),
]
CERTIFICATES = st.lists(st.sampled_from(SETS), min_size=1, max_size=4, unique=True).map(tuple)
SPELLED = st.one_of(
    st.builds(
        lambda labels, dots, tail, case: case(dots.join(labels) + tail),
        st.lists(st.sampled_from(LABELS + ODD), min_size=0, max_size=5),
        st.sampled_from([".", ".", ".", "。", ".."]),
        st.sampled_from(["", "", ".", "..", ":443", "\0", "\0.example.com", " ", "\t"]),
        st.sampled_from([str, str.upper, str.title]),
    ),
    st.builds(
        lambda name, head, case: case(head + name),
        st.sampled_from(CARRIED),
        st.sampled_from(["", "", "x.", "x.y.", ".", "*.", "x", "a" * 250 + ".", "[", " "]),
        st.sampled_from([str, str.upper, str.title]),
    ),
    st.sampled_from(["127.1", "0x7f.1", "2130706433", "0:0::1", "[::1]", "127.0.0.1."]),
    st.text(max_size=30),
)


# RFC 1123 section 2.1, and the underscore: what a client can have looked up to get here.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


def covers(certificate: x509.Certificate, name: str) -> bool:
    """What a client says that asked for `name` and was shown this certificate."""
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        pass
    else:
        return _ip(certificate, str(address))
    try:
        ascii_name = name if name.isascii() else idna.encode(name, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError, IndexError):
        return False
    # A trailing dot says that the name is absolute: clients verify it without (RFC 6066 section 3).
    ascii_name = ascii_name.removesuffix(".")
    return bool(ascii_name) and _service_identity(certificate, ascii_name)


def _service_identity(certificate: x509.Certificate, name: str) -> bool:
    # It never lets a wildcard stand for an A-label; browsers, OpenSSL and RFC 9525 section 6.3 do.
    head, dot, rest = name.partition(".")
    if head.lower().startswith("xn--"):
        mine = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if name.lower() not in mine.get_values_for_type(x509.DNSName):
            name = f"label{dot}{rest}"
    try:
        verify_certificate_hostname(certificate, name)
    except (NameMismatch, CertificateError, ValueError):
        return False
    return True


def _ip(certificate: x509.Certificate, address: str) -> bool:
    try:
        verify_certificate_ip_address(certificate, address)
    except (NameMismatch, CertificateError, ValueError):
        return False
    return True


def chosen(tls: ServerTLS, name: str) -> x509.Certificate | None:
    """The certificate that our map chooses for a text, as the Host field would ask for it."""
    entry = tls.names.choose(name)
    return None if entry is None else x509.load_pem_x509_certificate(entry.chains[0].chain_pem)


@settings(max_examples=1500, deadline=None)
@given(CERTIFICATES, SPELLED)
def test_what_is_chosen_covers_the_name_and_what_is_covered_is_chosen(
    certificates: tuple[tuple[str, ...], ...], name: str
) -> None:
    found = chosen(server(certificates), name)
    if found is not None:
        assert covers(found, name), name
    elif HOST.fullmatch(name) and len(name) <= 253:
        # The other way round: no client that would be content is turned away.
        assert not any(covers(issued(names).certificate, name) for names in certificates), name


@settings(max_examples=300, deadline=None)
@given(CERTIFICATES, SPELLED)
def test_what_a_handshake_gives_covers_the_name_that_was_sent(
    certificates: tuple[tuple[str, ...], ...], name: str
) -> None:
    sent = name.encode("utf-8").split(b"\0")[0]  # as C's functions take it, and every client does
    if len(sent) > 255:
        return
    met = handshake(server(certificates).context, client_context(TLS13), sent or None)
    if met.done:
        certificate = x509.load_pem_x509_certificate(met.served)
        assert sent.isascii() and covers(certificate, sent.decode()), sent
    else:
        assert met.alert == "tlsv1 unrecognized name"
        assert not sent.isascii() or chosen(server(certificates), sent.decode()) is None


@settings(max_examples=300, deadline=None)
@given(CERTIFICATES, SPELLED)
def test_cryptographys_verifier_accepts_what_is_chosen(
    certificates: tuple[tuple[str, ...], ...], name: str
) -> None:
    """The strictest of the three: WebPKI's own rules. It knows no names with an underscore."""
    found = chosen(server(certificates), name)
    plain = name.removesuffix(".")
    if found is None or not plain.isascii() or "_" in plain:
        return
    try:
        subject: x509.DNSName | x509.IPAddress = x509.IPAddress(
            ipaddress.ip_address(plain.strip("[]"))
        )
    except ValueError:
        subject = x509.DNSName(plain)
    _verifier(subject).verify(found, [])  # raises where it does not


def _verifier(subject: x509.DNSName | x509.IPAddress) -> ServerVerifier:
    """Only what it says of names counts: test certificates carry few extensions."""
    authority = ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, Criticality.AGNOSTIC, None
    )
    named = ExtensionPolicy.permit_all().require_present(
        x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
    )
    return (
        PolicyBuilder()
        .store(Store([root().certificate]))
        .time(NOW.replace(tzinfo=None))
        .extension_policies(ca_policy=authority, ee_policy=named)
        .build_server_verifier(subject)
    )


def test_cryptographys_verifier_refuses_other_names() -> None:
    certificate = issued(("*.example.com",)).certificate
    _verifier(x509.DNSName("www.example.com")).verify(certificate, [])
    for name in ("example.com", "a.b.example.com", "www.example.org"):
        with pytest.raises(VerificationError):
            _verifier(x509.DNSName(name)).verify(certificate, [])


@pytest.mark.parametrize("name", ["", "*", "*.example.com", "*.*.example.com", "x.y.example.com"])
def test_literally(name: str) -> None:
    """With every certificate there at once, and a wildcard over the rest."""
    everything = tuple((one,) for one in CARRIED)
    assert chosen(server(everything), name) is None
    met = handshake(server(everything).context, client_context(TLS13), name.encode() or None)
    assert met.alert == "tlsv1 unrecognized name"


def test_the_oracle_knows_what_covers_what() -> None:
    """The oracle itself: it would be of no use if it said yes, or no, to everything."""
    said = {
        (pattern, name): covers(issued((pattern,)).certificate, name)
        for pattern, name in itertools.product(CARRIED, CARRIED)
        if "*" not in name
    }
    assert {pair for pair, yes in said.items() if yes} == {
        *((name, name) for name in CARRIED if "*" not in name),
        ("*.example.com", "www.example.com"),
        ("*.example.com", "a_b.example.com"),
        ("*.example.com", "xn--bcher-kva.example.com"),
        ("*.b.example.com", "a.b.example.com"),
    }
