"""Whom a certificate names."""

from __future__ import annotations

from typing import Any

import pytest
from clients_support import issue
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from edgeproxy.config.clientcerts import CREDENTIAL
from edgeproxy.identity.clientcert import Holders, Unknown
from edgeproxy.identity.principal import Principal


def holder(certificate: x509.Certificate, **written: Any) -> Principal:
    config = CREDENTIAL.validate_python({"client_certificate": "ca.pem", **written})
    return Holders("staff", config).principal(certificate)


def email(*values: str) -> list[x509.GeneralName]:
    return [x509.RFC822Name(value) for value in values]


ALICE = issue(
    "Alice",
    ou=("ops", "web"),
    names=[
        *email("alice@example.com"),
        x509.DNSName("Alice.example.com"),
        x509.UniformResourceIdentifier("spiffe://example.com/alice"),
    ],
).certificate


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("subject", "CN=Alice,OU=web,OU=ops"),
        ("subject:cn", "Alice"),
        ("san:email", "alice@example.com"),
        ("san:dns", "alice.example.com"),
        ("san:uri", "spiffe://example.com/alice"),
    ],
)
def test_each_source(source: str, name: str) -> None:
    found = holder(ALICE, principal=source)
    assert (found.id, found.name) == (f"staff:{name}", name)
    assert (found.kind, found.groups, found.scopes) == ("client_certificate", (), frozenset())


def test_groups() -> None:
    assert holder(ALICE, groups="ou").groups == ("ops", "web")


def test_the_table_lets_in_only_who_stands_in_it() -> None:
    callers = {"Alice": {"groups": ["web", "admin"], "scopes": "pay", "plan": "gold"}}
    found = holder(ALICE, principal="subject:cn", groups="ou", callers=callers)
    assert found.groups == ("ops", "web", "admin")
    assert (found.id, found.plan, found.scopes) == ("staff:Alice", "gold", frozenset({"pay"}))
    with pytest.raises(Unknown, match="'Mallory' is not among the callers"):
        holder(issue("Mallory").certificate, principal="subject:cn", callers=callers)


def test_a_caller_with_a_name_and_an_id() -> None:
    found = holder(ALICE, principal="san:email", callers={"alice@example.com": "Alice A."})
    assert (found.id, found.name) == ("staff:Alice A.", "Alice A.")
    callers = {"alice@example.com": {"consumer": "3fKq9Zr1Lm2x"}}
    found = holder(ALICE, principal="san:email", callers=callers)
    assert (found.id, found.name) == ("3fKq9Zr1Lm2x", "alice@example.com")


def test_fingerprints() -> None:
    print_ = ALICE.fingerprint(SHA256()).hex()
    assert holder(ALICE, principal="fingerprint", callers={print_: "alice"}).id == "staff:alice"
    with pytest.raises(Unknown):
        holder(ALICE, principal="fingerprint", callers={"00" * 32: "alice"})


@pytest.mark.parametrize(
    ("certificate", "source", "why"),
    [
        (issue(None), "subject", "empty"),
        (issue(None), "subject:cn", "no common name"),
        (issue("a"), "san:email", "no e-mail address"),
        (issue("a", names=email("a@x.org", "b@x.org")), "san:email", "2 of e-mail address"),
        (issue("a\x00b"), "subject:cn", "what no name may"),
        (issue("a\r\nX-Consumer-Id: root"), "subject:cn", "what no name may"),
        (issue("a\u0085b"), "subject:cn", "what no name may"),
        (issue(" a"), "subject:cn", "what no name may"),
        (issue("a", names=email("a@" + "x" * 1000)), "san:email", "too long"),
    ],
)
def test_what_names_nobody(certificate: Any, source: str, why: str) -> None:
    with pytest.raises(Unknown, match=why):
        holder(certificate.certificate, principal=source)


def test_a_group_that_is_no_name() -> None:
    with pytest.raises(Unknown, match="organizational unit"):
        shown = issue("a", ou=["ops\nroot"]).certificate
        holder(shown, groups="ou", principal="subject:cn")


def test_an_id_is_no_other_credentials() -> None:
    """Neither an API key's, which holds no colon, nor another credential's."""
    assert ":" in holder(ALICE).id
    config = CREDENTIAL.validate_python({"client_certificate": "ca.pem"})
    assert Holders("partner", config).principal(ALICE).id != holder(ALICE).id
