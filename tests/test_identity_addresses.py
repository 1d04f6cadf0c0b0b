"""Ranges of addresses, against the library that takes one range at a time."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.identity import addresses as module
from edgeproxy.identity.addresses import Addresses, Ranges

#: Few enough that ranges and addresses meet.
four = st.integers(0, 63).map(lambda n: IPv4Address((n << 26) | n))
six = st.integers(0, 63).map(lambda n: IPv6Address((n << 122) | n))
ranges = st.lists(
    st.one_of(st.tuples(four, st.integers(0, 32)), st.tuples(six, st.integers(0, 128))).map(
        lambda drawn: ip_network(f"{drawn[0]}/{drawn[1]}", strict=False)
    ),
    max_size=6,
)


@given(ranges, st.one_of(four, six))
def test_as_the_library(ranges: list[module.Range], address: IPv4Address | IPv6Address) -> None:
    assert (str(address) in Ranges(ranges)) == any(address in each for each in ranges)


@given(ranges, ranges, four)
def test_deny_comes_first(
    allow: list[module.Range], deny: list[module.Range], address: IPv4Address
) -> None:
    denied = any(address in each for each in deny)
    allowed = not allow or any(address in each for each in allow)
    assert bool(Addresses(allow, deny).objection(str(address))) == (denied or not allowed)


@pytest.mark.parametrize(
    ("address", "objection"),
    [
        ("10.0.0.1", ""),
        ("10.0.0.2", "its address is denied"),
        ("::ffff:10.0.0.2", "its address is denied"),
        ("::ffff:a00:1", ""),
        ("192.0.2.1", "its address is not among the allowed ones"),
        ("fd00::1", ""),
        ("fd00::2%eth0", ""),
        ("fe80::1%eth0", "its address is not among the allowed ones"),
        ("", "its address is unknown"),
        ("unix", "its address is unknown"),
    ],
)
def test_objections(address: str, objection: str) -> None:
    found = Addresses([ip_network("10.0.0.0/8"), ip_network("fd00::/8")], [ip_network("10.0.0.2")])
    assert [found.objection(address) for _ in range(2)] == [objection] * 2


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 4)
    found = Addresses([], [ip_network("10.0.0.2")])
    for number in range(20):
        denied = bool(found.objection(str(ip_address(0x0A000000 + number))))
        assert denied == (number == 2)
        assert len(found._known) <= 4
