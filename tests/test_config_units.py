"""Durations, sizes, rates."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config import units
from edgeproxy.config.units import Rate, duration, rate, size, speed


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("60s", 60.0),
        ("500ms", 0.5),
        ("2m", 120.0),
        ("2min", 120.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        (10, 10.0),
        (0.25, 0.25),
    ],
)
def test_durations(written: object, seconds: float) -> None:
    assert duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "60",
        "60 s",
        "60S",
        "-1s",
        "1e3s",
        "1m 30s",
        "٣s",
        "9" * 50 + "s",
        "60s\n",
        "60s\x00",
    ]
    + [None, True, [], {}, float("nan"), float("inf"), -float("inf"), 0, -1, "0s", "367d", 10**400],
)
def test_no_durations(written: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; write|is out of range; a duration"):
        duration(written)


@pytest.mark.parametrize(
    ("written", "octets"),
    [
        ("10MiB", 10 << 20),
        ("64k", 64 << 10),
        ("64K", 64 << 10),
        ("8m", 8 << 20),
        ("1g", 1 << 30),
        ("1kB", 1000),
        ("1MB", 10**6),
        ("1.5KiB", 1536),
        ("500", 500),
        ("500B", 500),
        ("500 B", 500),
        (500, 500),
        (0, 0),
    ],
)
def test_sizes(written: object, octets: int) -> None:
    assert size(written) == octets


@pytest.mark.parametrize(
    "written",
    ["", "k", "10XB", "-1", "1.0001KiB", "0.5", "10 MiB ", "1e3", "²k", "2000000GiB"]
    + [None, True, [], 1.5, float("nan"), float("inf"), -1, 10**400],
)
def test_no_sizes(written: object) -> None:
    with pytest.raises(ValueError, match="is not a size; write|is out of range; a size"):
        size(written)


def test_speeds() -> None:
    assert speed("500B/s") == 500
    assert speed("10KiB/s") == 10240
    assert speed(500) == 500
    with pytest.raises(ValueError, match="is not a speed; write it as 500B/s"):
        speed("500/min")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("100/min", Rate(100, 60.0)),
        ("10/10s", Rate(10, 10.0)),
        ("1000000/10s", Rate(1_000_000, 10.0)),
        ("1/second", Rate(1, 1.0)),
        ("5000/h", Rate(5000, 3600.0)),
        ("1/2days"[:-1], Rate(1, 172800.0)),
    ],
)
def test_rates(written: str, expected: Rate) -> None:
    assert rate(written) == expected
    assert rate(expected) == expected


@pytest.mark.parametrize(
    "written",
    ["", "100", "/min", "100/", "100/mni", "100 / min", "1.5/s", "-1/s", "0/s", "1/0s", "1/ms"]
    + ["1/367d", "9999999999/s", "100/min\n", 100, None, True, [], {}],
)
def test_no_rates(written: object) -> None:
    with pytest.raises(ValueError, match=r"is not a rate; write|is out of range; a "):
        rate(written)


anything = st.one_of(
    st.text(max_size=60),
    st.from_regex(r"[0-9.]{1,8} ?[a-zA-Z/0-9]{0,6}", fullmatch=True),
    st.floats(),
    st.integers(),
    st.none(),
    st.booleans(),
)


@settings(deadline=None)
@given(anything)
def test_only_value_errors(value: object) -> None:
    for function in (duration, size, speed, rate):
        try:
            result = function(value)
        except ValueError as error:
            assert len(str(error)) < 300
        else:
            assert result is not None


@settings(deadline=None)
@given(st.text(max_size=200) | st.floats() | st.lists(st.none()) | st.booleans())
def test_shown_is_short(value: object) -> None:
    assert len(units.shown(value)) <= 62
