"""No spelling of a reserved field passes, in heads and in trailers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.forward import FieldRules
from edgeproxy.http1.fields import (
    FORWARDING,
    IDENTITY,
    FieldTable,
    Kind,
    passing_trailers,
    request_fields,
    response_fields,
)
from edgeproxy.http1.grammar import HeadLimits, parse_request, parse_response

HOP = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade",
       "http2-settings", "proxy-authenticate", "proxy-authorization"]  # fmt: skip
#: Kong's, which services may still believe, and anything else that begins so.
FAMILY = ["x-consumer-username", "x-consumer-custom-id", "x-consumer-"]
OURS = ["x-request-id", *IDENTITY, *FAMILY, *FORWARDING, "x-mapped-role"]


@st.composite
def spellings(draw: st.DrawFn, names: list[str], *, fold: bool) -> bytes:
    """A name with any case for each letter, and `_` for `-` where ``fold``."""
    name = draw(st.sampled_from(names))
    letters = []
    for letter in name:
        options = [letter.lower(), letter.upper()]
        if letter == "-" and fold:
            options = ["-", "_"]
        letters.append(draw(st.sampled_from(options)))
    return "".join(letters).encode()


@settings(max_examples=500)
@given(
    st.lists(
        st.one_of(
            spellings(OURS, fold=True), spellings([*HOP[:1], *HOP[2:4], *HOP[5:]], fold=False)
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([b"", b" ", b"\t"]),
)
def test_no_spelling_passes(sent: list[bytes], space: bytes) -> None:
    table = request_fields(["X-Mapped-Role"])
    fields = b"".join(name + b":" + space + b"v\r\n" for name in sent)
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\n" + fields + b"\r\n"
    for _ in range(2):  # once unknown to the table, once remembered
        found = parse_request(head, table, HeadLimits())
        assert found is not None
        assert found[0].lines == [b"X-Kept: 1"]


@given(st.lists(spellings(OURS, fold=True), min_size=1, max_size=5))
def test_no_spelling_passes_in_trailers(sent: list[bytes]) -> None:
    table = request_fields(["X-Mapped-Role"])
    lines = [name + b": v" for name in sent]
    assert passing_trailers([b"X-Sum: 1", *lines], table, None) == [b"X-Sum: 1"]


@given(st.lists(spellings(HOP, fold=False), min_size=1, max_size=4))
def test_hop_by_hop_fields_of_an_answer(sent: list[bytes]) -> None:
    values = {b"transfer-encoding": b"chunked", b"connection": b"x"}
    names = {name.lower(): name for name in sent}  # each once: twice chunked is refused
    lines = b"".join(b"%b: %b\r\n" % (n, values.get(low, b"v")) for low, n in names.items())
    data = b"HTTP/1.1 200 OK\r\nX-Kept: 1\r\n" + lines + b"\r\n"
    found = parse_response(data, response_fields())
    assert found is not None
    assert found[0].lines == [b"X-Kept: 1"]


@pytest.mark.parametrize("name", [
    b"X-Auth-Token", b"X-Consumer", b"X-Consumers-Id", b"XConsumerId", b"X-Forwarded-Proton",
    b"Client-Certs", b"Hos", b"Hostx",
])  # fmt: skip
def test_others_are_the_applications(name: bytes) -> None:
    assert request_fields().kind(name) is None


def test_spellings_that_are_not_folded_are_other_fields() -> None:
    """Content_Length frames nothing, for nobody."""
    table = request_fields()
    for name in (b"Content_Length", b"Transfer_Encoding", b"x_api_key", b"HO_ST"):
        assert table.kind(name) is None
    assert table.kind(b"x_request_id") is Kind.REQUEST_ID


@given(spellings(["x-shop-key"], fold=True))
@pytest.mark.parametrize("named", ["X-Shop-Key", "x_shop_key"])
def test_one_more_field_may_carry_a_key(named: str, sent: bytes) -> None:
    table = request_fields(key=named)
    head = b"GET / HTTP/1.1\r\nHost: a\r\n%b: k\r\nX-API-Key: l\r\n\r\n" % sent
    found = parse_request(head, table, HeadLimits())
    assert found is not None
    assert found[0].lines == []
    assert [(kind, value) for kind, value, _ in found[0].keys] == [
        (Kind.API_KEY, b"k"),
        (Kind.API_KEY, b"l"),
    ]
    assert passing_trailers([sent + b": k"], table, None) == []
    assert b"k" not in table.known and sent + b": k" not in table.known


def test_what_the_gateway_writes_is_never_a_key() -> None:
    table = request_fields(["X-Mapped-Role"], key="X-Mapped_Role")
    for name in (b"x-mapped-role", b"x_mapped_role", b"x-mapped_role"):
        assert table.kind(name) is Kind.RESERVED


def test_tables_stay_small() -> None:
    """What clients invent is forgotten again."""
    table = request_fields()
    for number in range(20_000):
        line = b"X-%d: v\r\nX-Request-Id: %d\r\nVia: %d\r\n" % (number, number, number)
        parse_request(
            b"GET / HTTP/1.1\r\nHost: a%d\r\n%b\r\n" % (number, line), table, HeadLimits()
        )
    sizes = [len(each) for each in vars(table).values() if isinstance(each, dict | set)]
    assert max(sizes) <= 4096


def test_tables_hold_no_secret() -> None:
    table = request_fields()
    secret = b"edge_secret"
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: %b\r\nAuthorization: Bearer %b\r\n\r\n"
    parse_request(head % (secret, secret), table, HeadLimits())
    assert secret not in repr(list(vars(table).values())).encode()


@given(spellings(["x-token"], fold=True), spellings(["x-gone"], fold=True))
def test_rules_take_every_spelling(token: bytes, gone: bytes) -> None:
    rules = FieldRules([("X-Token", "ours")], [], ["x_gone"])
    lines = [token + b": theirs", b"X-Kept: 1", gone + b": 1"]
    assert rules.apply(lines) == [b"X-Kept: 1", b"X-Token: ours"]
    table = FieldTable({})
    assert passing_trailers(lines, table, rules) == [b"X-Kept: 1"]
