"""Who may come in by a route, as it is written: what is refused, and how it is told."""

from __future__ import annotations

import pytest
from config_support import assert_problems

from edgeproxy.config import parse
from edgeproxy.config.policy import who

TOP = """
upstreams: { users: http://127.0.0.1:9001 }
auth:
  staff: { jwt: https://id.example.com, audience: shop, secret: "${env:S}" }
  opaque: { introspect: "https://id.example.com/introspect" }
  session: { cookie: sid, at: "https://id.example.com/session" }
  guest: { anonymous: { scopes: [read], groups: [guests] } }
  other: { anonymous: { name: Other, plan: free } }
"""
SECRET = "0123456789abcdef" * 4


def route(entry: str) -> str:
    return TOP + f"routes: {{ '*': {{ /: {{ to: users, {entry} }} }} }}\n"


def defaults(entry: str) -> str:
    return TOP + f"defaults: {{ {entry} }}\nroutes: {{ '*': {{ /: users }} }}\n"


@pytest.mark.parametrize(
    ("entry", "auth", "every", "guest"),
    [
        ("body: 1", ("api_key",), False, None),
        ("auth: staff", ("staff",), False, None),
        ("auth: [api_key, staff]", ("api_key", "staff"), False, None),
        ("auth: { any: [api_key, staff] }", ("api_key", "staff"), False, None),
        ("auth: { all: [api_key, staff] }", ("api_key", "staff"), True, None),
        ("auth: { all: staff }", ("staff",), True, None),
        ("auth: { all: [staff, session] }", ("staff", "session"), True, None),
        ("auth: [staff, opaque]", ("staff", "opaque"), False, None),
        ("auth: [api_key, guest]", ("api_key", "guest"), False, "guest"),
        ("auth: guest, scopes: read, groups: guests", ("guest",), False, "guest"),
    ],
)
def test_right(entry: str, auth: tuple[str, ...], every: bool, guest: str | None) -> None:
    (found,) = parse(route(entry), environ={"S": SECRET}).routes
    assert (found.auth, found.every, found.guest) == (auth, every, guest)
    assert found.open == (guest is not None)


def test_defaults_may_ask_for_all() -> None:
    text = defaults("auth: { all: [api_key, staff] }")
    (found,) = parse(text, environ={"S": SECRET}).routes
    assert (found.auth, found.every) == (("api_key", "staff"), True)
    (found,) = parse(
        text.replace("/: users", "/: { to: users, auth: staff }"), environ={"S": SECRET}
    ).routes
    assert (found.auth, found.every) == (("staff",), False)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("auth: { all: [api_key, »guest] }", "'guest' lets in without a credential; it cannot"),
        ("auth: { all: [api_key, »anonymous] }", "'anonymous' lets in without a credential"),
        ("auth: { all: [staff, api_key, »opaque] }", "'staff' and 'opaque' are both shown as a b"),
        ("auth: { all: »none }", "'none' lets in without a credential"),
        ("auth: »{ all: api_key, any: staff }", "`any` and `all` stand here; one of the two"),
        ("auth: »{}", "nothing is asked for here; `all: [api_key, staff]` would be right"),
        ("auth: { all: [api_key, »staf] }", "there is no credential 'staf'; did you mean 'staff'"),
        ("auth: { any: [api_key, »staf] }", "there is no credential 'staf'"),
        ("auth: { »oll: staff }", "'oll' is not a setting here; did you mean 'all'?"),
        ("auth: { all: »[] }", "an empty list says nothing"),
        ("auth: { all: »[staff, staff] }", "'staff' stands twice"),
        ("auth: »[guest, other]", "'guest' and 'other' both stand for callers who show nothing"),
        ("auth: »[anonymous, guest]", "both stand for callers who show nothing"),
        ("auth: »[none, guest]", "'none' stands alone"),
        ("auth: [api_key, guest], scopes: »[read, write]", "'guest' does not have the scope 'wri"),
        ("auth: [api_key, guest], groups: »[staff]", "'guest' does not have one of these groups"),
        ("auth: [api_key, anonymous], scopes: »read", "an open route cannot ask for scopes"),
        ("allow: »10.0.0.1/8", "is an address within a network; did you mean '10.0.0.0/8'?"),
        ("deny: [10.0.0.0/8, »inside]", "'inside' is not a network; write it as 10.0.0.0/8"),
        ("allow: »[]", "an empty list says nothing"),
        ("allow: ['::1', »10.1.0.0/16], deny: 10.0.0.0/8", "10.1.0.0/16 is within 10.0.0.0/8, whi"),
        ("allow: »10.1.0.0/16, deny: ['::/0', 10.1.0.0/16]", "within 10.1.0.0/16, which is denied"),
        ("shadow: »yes", "'yes' stands here; true or false"),
        ("auth: none, shadow: »true", "an open route refuses nobody whom `shadow` could let in"),
    ],
)
def test_wrong(entry: str, message: str) -> None:
    assert_problems(route(entry), message, S=SECRET)


def test_defaults_that_ask_for_nothing() -> None:
    assert_problems(defaults("auth: »{}"), "nothing is asked for here", S=SECRET)


@pytest.mark.parametrize("entry", ["shadow: true", "allow: 10.0.0.0/8", "deny: 10.0.0.0/8"])
def test_what_only_a_route_says(entry: str) -> None:
    assert_problems(defaults(f"»{entry}"), "is not a setting here", S=SECRET)


@pytest.mark.parametrize("name", ["none", "anonymous", "guest"])
def test_nothing_in_defaults_opens(name: str) -> None:
    message = f"'{name}' here would open every route; say it on the route itself"
    assert_problems(defaults(f"auth: »{name}"), message, S=SECRET)
    assert_problems(defaults(f"auth: [api_key, »{name}]"), message, S=SECRET)
    assert_problems(defaults(f"auth: {{ all: [api_key, »{name}] }}"), message, S=SECRET)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{ anonymous: »yes }", "'yes' stands here"),
        ("{ anonymous: { »skopes: [read] } }", "did you mean 'scopes'?"),
        ("{ anonymous: { name: »'' } }", "'' is not a name"),
        ("{ anonymous: {}, »plan: free }", "'plan' is not a setting here"),
        ("{ anonymous: { plan: »'a b' } }", "'a b'"),
    ],
)
def test_wrong_guests(entry: str, message: str) -> None:
    text = f"auth: {{ guest: {entry} }}\nroutes: {{ '*': {{ /: {{ page: true, auth: guest }} }} }}"
    assert_problems(text, message)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("auth: none", "everybody"),
        ("auth: anonymous", "everybody"),
        ("auth: [api_key, anonymous]", "everybody, as nobody or by api_key"),
        ("auth: [api_key, guest]", "everybody, as guest or by api_key"),
        ("auth: guest", "everybody, as guest"),
        ("auth: [api_key, staff]", "api_key or staff"),
        ("auth: { all: [api_key, staff] }", "api_key and staff"),
        ("allow: [10.0.0.0/8, '::1'], deny: 10.0.0.6", "api_key, from 10.0.0.0/8 or ::1/128, not"),
        ("auth: none, deny: 10.0.0.6", "everybody, not from 10.0.0.6/32"),
        ("auth: staff, shadow: true", "everybody, in shadow mode; else staff"),
        ("scopes: [a, b], groups: [c, d]", "api_key, with scope a and scope b, in group c or "),
    ],
)
def test_in_words(entry: str, said: str) -> None:
    (found,) = parse(route(entry), environ={"S": SECRET}).routes
    assert who(found).startswith(said)
