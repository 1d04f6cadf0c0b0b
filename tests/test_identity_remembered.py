"""Tokens that were verified: how many, how long."""

from __future__ import annotations

from edgeproxy.identity.jwk import Key
from edgeproxy.identity.principal import Principal
from edgeproxy.identity.remembered import Remembered, Verified

KEY = Key(b"x" * 32, None, ["HS256"], "")
ANN = Principal("ann", "Ann")


def test_until_it_expires() -> None:
    table = Remembered()
    verified = Verified(ANN, 100.0, KEY)
    table.add(b"a", verified)
    assert table.find(b"a", 99.9) is verified
    assert table.find(b"b", 99.9) is None
    assert table.find(b"a", 100.0) is None
    assert len(table) == 0


def test_until_its_key_leaves() -> None:
    table = Remembered()
    key = Key(b"x" * 32, None, ["HS256"], "")
    table.add(b"a", Verified(ANN, 100.0, key))
    key.gone = True
    assert table.find(b"a", 1.0) is None
    assert len(table) == 0


def test_bounded() -> None:
    table = Remembered(most=2)
    for name in (b"a", b"b", b"b", b"c"):
        table.add(name, Verified(ANN, 100.0, KEY))
    assert [table.find(name, 1.0) is not None for name in (b"a", b"b", b"c")] == [False, True, True]
