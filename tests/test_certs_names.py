from __future__ import annotations

import ipaddress
from datetime import datetime

import pytest
from certs_support import DAY, NOW
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.certs.names import Entry, NameMap, normalise
from edgeproxy.certs.scan import Chain


def chain(
    *names: str,
    kind: str = "ECDSA",
    start: datetime = NOW - DAY,
    end: datetime = NOW + 30 * DAY,
    mark: str = "",
) -> Chain:
    fingerprint = f"{mark} {names} {kind} {start} {end}"
    return Chain(names, kind, start, end, b"chain", b"key", ("file",), "issuer", fingerprint)


def test_exact_before_wildcard_before_default() -> None:
    exact, wild, default = chain("a.example"), chain("*.example"), chain("fallback.test")
    names = NameMap([exact, wild, default], "fallback.test", NOW)
    assert names.choose("a.example") == Entry("a.example", ecdsa=exact)
    assert names.choose("b.example") == Entry("*.example", ecdsa=wild)
    assert names.choose("other.test") == Entry("fallback.test", ecdsa=default)
    assert names.choose(None) == Entry("fallback.test", ecdsa=default)
    assert names.choose("") == Entry("fallback.test", ecdsa=default)


def test_without_default_what_is_unknown_is_refused() -> None:
    names = NameMap([chain("a.example"), chain("*.b.example")], None, NOW)
    for name in (None, "", "b.example", "x.y.b.example", "xb.example", "a.example.evil", "a"):
        assert names.choose(name) is None, name


def test_a_default_that_names_nothing_is_none_and_can_be_told() -> None:
    names = NameMap([chain("a.example")], "typo.example", NOW)
    assert names.default is None
    assert names.default_name == "typo.example"
    assert names.choose("b.example") is None


def test_the_default_may_be_covered_by_a_wildcard() -> None:
    wild = chain("*.example")
    assert NameMap([wild], "www.Example.", NOW).choose(None) == Entry("*.example", ecdsa=wild)


def test_per_key_type_the_one_that_lasts_longest_wins_in_any_order() -> None:
    short = chain("a.example", start=NOW - DAY / 2, mark="z")
    long = chain("a.example", end=NOW + 90 * DAY, mark="a")
    rsa = chain("a.example", kind="RSA", end=NOW + 2 * DAY)
    for chains in ([short, long, rsa], [rsa, long, short]):
        assert NameMap(chains, None, NOW).choose("a.example") == Entry(
            "a.example", ecdsa=long, rsa=rsa
        )


def test_one_that_lasts_longest_but_is_not_yet_valid_waits() -> None:
    today = chain("a.example")
    tomorrow = chain("a.example", start=NOW + DAY, end=NOW + 90 * DAY)
    names = NameMap([today, tomorrow], None, NOW)
    assert names.choose("a.example") == Entry("a.example", ecdsa=today)
    assert names.until == NOW + DAY
    later = NameMap([today, tomorrow], None, NOW + DAY)
    assert later.choose("a.example") == Entry("a.example", ecdsa=tomorrow)


def test_an_expired_one_answers_only_where_no_valid_one_covers_the_name() -> None:
    old = chain("a.example", "b.example", "c.test", end=NOW - DAY)
    old_rsa = chain("a.example", kind="RSA", end=NOW - DAY)
    good = chain("a.example")
    wild = chain("*.example")
    names = NameMap([old, old_rsa, good, wild], None, NOW)
    assert names.choose("a.example") == Entry("a.example", ecdsa=good)
    assert names.choose("b.example") == Entry("*.example", ecdsa=wild)
    assert names.choose("c.test") == Entry("a.example", ecdsa=old)


def test_names_served_by_the_same_chains_share_one_entry() -> None:
    one = chain("a.example", "b.example", "127.0.0.1")
    names = NameMap([one], None, NOW)
    assert names.choose("a.example") is names.choose("B.example.") is names.choose("127.0.0.1")
    assert names.entries == (Entry("a.example", ecdsa=one),)


def test_addresses_are_found_in_any_spelling_and_never_by_wildcard() -> None:
    one = chain("2001:db8::1", "127.0.0.1", "*.0.0.1")
    names = NameMap([one], None, NOW)
    assert names.choose("[2001:DB8:0:0::1]") is not None
    assert names.choose("127.0.0.1") is not None
    assert names.choose("128.0.0.1") is None


def test_the_next_change_is_the_nearest_begin_or_end() -> None:
    assert NameMap([], None, NOW).until is None
    assert NameMap([chain("a", end=NOW + 3 * DAY), chain("b")], None, NOW).until == NOW + 3 * DAY
    assert NameMap([chain("a", end=NOW - DAY)], None, NOW).until is None


def test_why_names_the_rule_and_each_chain_that_covers() -> None:
    exact, wild, old = chain("a.example"), chain("*.example"), chain("a.example", end=NOW - DAY)
    names = NameMap([wild, old, exact], None, NOW)
    choice = names.why("A.Example.")
    assert (choice.name, choice.rule) == ("a.example", "exact")
    assert {(c.chain, c.pattern, c.verdict) for c in choice.candidates} == {
        (exact, "a.example", "answers"),
        (old, "a.example", "expired"),
        (wild, "*.example", "the exact name goes before a wildcard"),
    }
    assert names.why("b.example").rule == "wildcard"
    assert names.why("b.test")[1:] == ("refused", None, ())
    assert NameMap([exact], "a.example", NOW).why(None).rule == "default"
    assert NameMap([exact], "a.example", NOW).why("x.test").rule == "default"


def test_a_chain_never_shows_its_key() -> None:
    secret = Chain(("a",), "RSA", NOW, NOW, b"chain", b"SECRET", (), "", "")
    assert "SECRET" not in repr(secret) + repr(Entry("a", rsa=secret)) + repr(
        NameMap([secret], None, NOW)
    )


# The oracle: RFC 9525 section 6.3 written down once more, from the certificate's side.
def covers(pattern: str, presented: str) -> bool:
    name = presented
    if not name.isascii():
        try:
            name = normalise(name) or ""
        except UnicodeError:
            return False
    name = name.strip("[]").lower()
    name = name[:-1] if name.endswith(".") else name
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(pattern)
    except ValueError:
        pass
    mine, theirs = pattern.split("."), name.split(".")
    if len(mine) != len(theirs) or not all(theirs) or len(name) > 253:
        return False
    if mine[0] == "*":
        return bool(theirs[0]) and mine[1:] == theirs[1:]
    return mine == theirs


LABEL = st.sampled_from(["a", "b", "www", "x1", "xn--bcher-kva"])
PATTERN = st.one_of(
    st.builds(
        lambda star, labels: ("*." if star else "") + ".".join(labels),
        st.booleans(),
        st.lists(LABEL, min_size=1, max_size=3),
    ),
    st.sampled_from(["127.0.0.1", "::1", "10.0.0.2"]),
)
SPELLING = st.one_of(
    st.builds(
        lambda labels, upper, tail: (
            (".".join(labels).upper() if upper else ".".join(labels)) + tail
        ),
        st.lists(
            st.one_of(LABEL, st.sampled_from(["", "*", "bücher", "BÜCHER", "a b", "-", "a" * 64])),
            max_size=5,
        ),
        st.booleans(),
        st.sampled_from(["", ".", "..", ":443", "\0", "\n", "。", " ", "%2e"]),
    ),
    st.sampled_from(
        ["127.0.0.1", "127.1", "0x7f.0.0.1", "2130706433", "::1", "[::1]", "0:0::1", "[::1"]
    ),
    st.text(max_size=20),
    st.builds(lambda n: "a." * n + "b", st.integers(100, 200)),
)


@given(st.lists(st.lists(PATTERN, min_size=1, max_size=3), max_size=5), SPELLING)
def test_no_spelling_chooses_a_certificate_that_does_not_cover_it(
    certificates: list[list[str]], name: str
) -> None:
    names = NameMap([chain(*patterns) for patterns in certificates], None, NOW)
    entry = names.choose(name)
    if entry is not None:
        for one in entry.chains:
            assert any(covers(pattern, name) for pattern in one.names), (name, one.names)


@given(
    st.lists(st.lists(PATTERN, min_size=1, max_size=3), max_size=5),
    st.lists(LABEL, min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_what_is_covered_is_found_in_every_spelling(
    certificates: list[list[str]], labels: list[str], upper: bool, dot: bool
) -> None:
    plain = ".".join(labels)
    name = (plain.upper() if upper else plain) + ("." if dot else "")
    names = NameMap([chain(*patterns) for patterns in certificates], None, NOW)
    assert (names.choose(name) is not None) == any(
        covers(pattern, plain) for patterns in certificates for pattern in patterns
    )
    assert names.choose(name) is names.choose(plain)


@pytest.mark.parametrize("kinds", [("RSA",), ("ECDSA",), ("Ed25519",), ("RSA", "ECDSA", "Ed25519")])
def test_an_entry_lists_its_chains_ecdsa_first(kinds: tuple[str, ...]) -> None:
    chains = [chain("a.example", kind=kind) for kind in kinds]
    entry = NameMap(chains, None, NOW).choose("a.example")
    assert entry is not None
    order = ("ECDSA", "RSA", "Ed25519")
    assert [c.key_type for c in entry.chains] == sorted(kinds, key=order.index)
