"""What a caller is told of its limits."""

from __future__ import annotations

import math
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config.units import Rate
from edgeproxy.limits.fields import Terms, field_lines, joined_field_lines, retry_after
from edgeproxy.limits.window import OwnWindow, new_window


def window(name: str, rate: Rate, *admissions: float) -> OwnWindow:
    made = new_window(Terms(name, rate))
    for now in admissions:
        assert not made.full(now)
        made.record(now)
    return made


def test_one_limit() -> None:
    """The example of the draft's section on RateLimit, with our numbers."""
    used = window("default", Rate(100, 60.0), *[12.5] * 43)
    assert field_lines(used, 60.5) == (
        b'RateLimit-Policy: "default";q=100;w=60\r\nRateLimit: "default";r=57;t=12\r\n'
    )
    assert joined_field_lines([used], 60.5) == field_lines(used, 60.5)


def test_several_limits_in_the_order_of_the_route() -> None:
    first = window("default", Rate(100, 60.0), 0.0)
    second = window("pay", Rate(10, 3600.0))
    assert joined_field_lines([first, second], 0.5) == (
        b'RateLimit-Policy: "default";q=100;w=60, "pay";q=10;w=3600\r\n'
        b'RateLimit: "default";r=99;t=60, "pay";r=10;t=0\r\n'
    )
    assert joined_field_lines([second, first], 0.5).startswith(b'RateLimit-Policy: "pay"')
    assert joined_field_lines([], 0.5) == b""


def test_retry_after_is_the_largest_among_those_that_refuse() -> None:
    short = window("short", Rate(1, 10.0), 0.0)
    long = window("long", Rate(1, 60.0), 0.0)
    assert retry_after([short], 0.0) == 10
    assert retry_after([short, long], 2.5) == 58
    assert retry_after([], 0.0) == 1
    assert retry_after([window("idle", Rate(1, 10.0))], 0.0) == 1


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), st.integers(1, 90), st.floats(0, 1e6), st.floats(0, 100))
def test_waiting_as_told_is_enough(count: int, span: int, start: float, gap: float) -> None:
    """A caller that was refused and waits `t` is admitted; one second less was too early."""
    rate = Rate(count, float(span))
    used = window("x", rate, *[start] * count)
    now = start + min(gap, span * 0.999)
    if not used.full(now):
        return
    told = retry_after([used], now)
    assert told <= span
    assert used.full(now + told - 1 - 1e-9 * max(1.0, now)) or told == 1
    assert not used.full(now + told + 2e-6)


@settings(max_examples=200, deadline=None)
@given(
    st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True),
    st.integers(1, 10**9),
    st.floats(0.001, 1e6),
    st.integers(0, 30),
)
def test_the_lines_are_structured_fields(name: str, count: int, span: float, used: int) -> None:
    made = new_window(Terms(name, Rate(count, span)))
    for _ in range(min(used, count)):
        made.full(0.0)
        made.record(0.0)
    found = re.fullmatch(
        rb'RateLimit-Policy: "([a-z0-9_-]+)";q=(\d+);w=(\d+)\r\n'
        rb'RateLimit: "([a-z0-9_-]+)";r=(\d+);t=(\d+)\r\n',
        field_lines(made, 0.0),
    )
    assert found is not None
    assert found[1] == found[4] == name.encode()
    assert int(found[2]) == count
    assert int(found[3]) == max(1, math.ceil(span))
    assert int(found[5]) == count - min(used, count)
