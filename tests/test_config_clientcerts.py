"""Credentials by client certificate, and the names that ask for them, as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_support import assert_problems

from edgeproxy.config import parse

TOP = "upstreams: { shop: http://127.0.0.1:9001 }\n"
STAFF = TOP + "auth: { staff: { client_certificate: ca.pem } }\n"
ASKED = STAFF + "client_certificates: { a.example.com: staff }\n"
ROUTE = "routes: { a.example.com: { /: { to: shop, auth: staff } } }\n"


def test_short_and_long() -> None:
    config = parse(
        TOP
        + """
auth:
  staff: { client_certificate: ca.pem, crl: [a.crl, b.crl], principal: san:email, groups: ou }
  partner:
    client_certificate: [one.pem, two.pem]
    principal: fingerprint
    callers:
      "AA:PRINT": { name: Shop, plan: gold }
client_certificates:
  a.example.com: staff
  "*.b.example.com": { by: partner, required: false, forward: chain }
routes:
  a.example.com: { /: { to: shop, auth: [api_key, staff] } }
  x.b.example.com: { /: { to: shop, auth: partner } }
""".replace("PRINT", ":".join(["0f"] * 31)),
        folder=Path("/etc/edge"),
    )
    staff, partner = config.credentials["staff"], config.credentials["partner"]
    assert staff.client_certificate == (Path("/etc/edge/ca.pem"),)
    assert staff.crl == (Path("/etc/edge/a.crl"), Path("/etc/edge/b.crl"))
    assert (staff.principal, staff.groups) == ("san:email", "ou")
    assert list(partner.callers) == ["aa" + "0f" * 31]
    asked = config.client_certificates
    assert (asked["a.example.com"].by, asked["a.example.com"].required) == ("staff", True)
    assert asked["*.b.example.com"].forward == "chain"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (TOP + "auth: { »staff: { ca: ca.pem } }\n" + "routes: { '*': { /: shop } }",
         ["'staff' does not say what kind of credential it is"]),
        (TOP + "auth: { staff: { client_certificate: ca.pem, »crll: x } }\n"
         + "routes: { '*': { /: shop } }", ["did you mean 'crl'"]),
        (TOP + "auth: { staff: { client_certificate: ca.pem, principal: »email } }\n"
         + "routes: { '*': { /: shop } }", ["'san:email'"]),
        (TOP + "auth: { staff: { client_certificate: ca.pem, principal: »fingerprint } }\n"
         + "routes: { '*': { /: shop } }", ["add `callers:`"]),
        (TOP + "auth: { staff: { client_certificate: ca.pem, principal: fingerprint, "
         "callers: { »aa: x } } }\n" + "routes: { '*': { /: shop } }",
         ["'aa' is not a SHA-256 fingerprint"]),
        (STAFF + "client_certificates: { a.example.com: »stuff }\n"
         "routes: { a.example.com: { /: shop } }", ["did you mean 'staff'"]),
        (STAFF + "client_certificates: { a.example.com: »api_key }\n"
         "routes: { a.example.com: { /: shop } }", ["there is no credential 'api_key' by cert"]),
        # A host that is misspelt would leave the one that was meant open.
        (STAFF + "client_certificates: { a.example.com: staff, »b.example.com: staff }\n" + ROUTE,
         ["no route is for 'b.example.com'; did you mean 'a.example.com'?"]),
        (STAFF + "client_certificates: { »a.example.com:443: staff }\n"
         "routes: { a.example.com: { /: shop } }", ["has a port; leave it out"]),
        (STAFF + "client_certificates: { a.example.com: staff, »A.EXAMPLE.com: staff }\n" + ROUTE,
         ["'a.example.com' stands in e.yaml:3 already"]),
        (STAFF + "client_certificates: { »'*.example.org': staff }\n"
         "routes: { a.example.com: { /: shop } }", ["no route is for '*.example.org'"]),
        # A credential that nobody is asked for.
        (STAFF + "routes: { a.example.com: { »/: { to: shop, auth: staff } } }",
         ["it asks for none; add `client_certificates: { 'a.example.com': staff }`"]),
        (ASKED + "routes: { a.example.com: { /: shop }, "
         "'*.example.com': { »/: { to: shop, auth: staff } } }", ["it asks for none"]),
        (TOP + "auth: { a: { client_certificate: ca.pem }, b: { client_certificate: ca.pem } }\n"
         "client_certificates: { a.example.com: a }\n"
         "routes: { a.example.com: { »/: { to: shop, auth: b } } }", ["it asks for 'a'"]),
    ],
)  # fmt: skip
def test_what_is_wrong(text: str, messages: list[str]) -> None:
    assert_problems(text, *messages)


@pytest.mark.parametrize(
    ("asked", "host"),
    [
        ("a.example.com", "a.example.com"),
        ("'*.example.com'", "a.example.com"),
        ("'*'", "a.example.com"),
        ("'*.example.com'", "'*.example.com'"),
        ("'*'", "'*'"),
    ],
)
def test_where_a_route_finds_its_credential(asked: str, host: str) -> None:
    routes = f"routes: {{ {host}: {{ /: {{ to: shop, auth: staff }} }} }}\n"
    parse(STAFF + f"client_certificates: {{ {asked}: staff }}\n" + routes)


@pytest.mark.parametrize("written", ["A.Example.com", "a.example.com.", "a.EXAMPLE.com."])
def test_a_host_in_any_spelling(written: str) -> None:
    """Else the name that was meant would ask for nothing, and routes for `*` would serve it."""
    config = parse(
        STAFF + f"client_certificates: {{ {written}: staff }}\nroutes: {{ '*': {{ /: shop }} }}"
    )
    assert list(config.client_certificates) == ["a.example.com"]


def test_a_name_under_a_wildcard_route_may_ask() -> None:
    parse(ASKED + "routes: { '*.example.com': { /: shop } }")
