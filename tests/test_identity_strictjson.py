"""JSON that two readers would understand alike."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.identity.strictjson import strict_object

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_reads_what_is_written(value: dict[str, object]) -> None:
    assert strict_object(json.dumps(value).encode()) == value


@given(st.binary())
def test_only_its_own_error(data: bytes) -> None:
    try:
        strict_object(data)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":Infinity}',
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"5",
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(a member|Infinity|it is not)"):
        strict_object(data)
