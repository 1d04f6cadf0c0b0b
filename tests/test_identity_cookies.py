"""One cookie out of a head: nothing of it stays, and nothing else goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.identity.cookies import LARGEST, good_cookie, take_cookie


@pytest.mark.parametrize(
    ("lines", "values", "kept"),
    [
        ([b"Cookie: sid=1"], [b"1"], []),
        ([b"cookie:sid=1"], [b"1"], []),
        ([b"Cookie: a=1; sid=2; b=3"], [b"2"], [b"Cookie: a=1; b=3"]),
        ([b"Cookie: sid=2; b=3"], [b"2"], [b"Cookie: b=3"]),
        ([b"Cookie: a=1;sid=2"], [b"2"], [b"Cookie: a=1"]),
        ([b"Cookie: sid=1; sid=2"], [b"1", b"2"], []),
        ([b"Cookie: sid=1", b"A: b", b"COOKIE: sid=2; c"], [b"1", b"2"], [b"A: b", b"COOKIE: c"]),
        ([b"Cookie:  sid = 1 ;"], [b"1"], []),
        ([b"Cookie: sid"], [b""], []),
        ([b"Cookie: SID=1; xsid=2; sidx=3"], [], [b"Cookie: SID=1; xsid=2; sidx=3"]),
        ([b'Cookie: a="x; sid=1"'], [b'1"'], [b'Cookie: a="x']),
        ([b"X-Cookie: sid=1"], [], [b"X-Cookie: sid=1"]),
    ],
)  # fmt: skip
def test_taken(lines: list[bytes], values: list[bytes], kept: list[bytes]) -> None:
    assert take_cookie(lines, b"sid") == (values, kept)


_NAMES = st.sampled_from([b"sid", b"a", b"SID", b"sid2", b" sid ", b""])
_VALUES = st.text('=" ,a1', max_size=4).map(str.encode)


@given(st.lists(st.lists(st.tuples(_NAMES, _VALUES), max_size=4), max_size=3))
def test_nothing_of_it_stays(sent: list[list[tuple[bytes, bytes]]]) -> None:
    lines = [b"Cookie: " + b"; ".join(n + b"=" + v for n, v in pairs) for pairs in sent]
    values, kept = take_cookie(lines, b"sid")
    assert len(values) == sum(name.strip() == b"sid" for pairs in sent for name, _ in pairs)
    assert take_cookie(kept, b"sid") == ([], kept)


@pytest.mark.parametrize("value", [b"a", b"a.b-c_d~e+/=", b"a=b", b"x" * LARGEST])
def test_good(value: bytes) -> None:
    assert good_cookie(value)


@pytest.mark.parametrize(
    "value", [b"", b"a b", b'"a"', b"a,b", b"a\\b", b"\xc3\xa4", b"a\x00", b"x" * (LARGEST + 1)]
)
def test_doubtful(value: bytes) -> None:
    assert not good_cookie(value)
