"""The bound of one window, on a fake clock, against a checker that knows nothing of the code."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config.units import Rate
from edgeproxy.limits.fields import Terms
from edgeproxy.limits.window import (
    EXACT_UP_TO,
    SUB_WINDOWS,
    ExactWindow,
    OwnWindow,
    SlidingWindow,
    new_window,
)

# Moments are whole 1/1024 s, so that sums and differences of floats are exact and the checker needs
# no tolerance. Gaps are drawn so that bursts, exact hits of W and long silences all occur.
TICK = 1 / 1024
SPANS = [1.0, 2.0, 10.0, 60.0]

examples = settings(max_examples=300, deadline=None)


def gaps(span: float) -> st.SearchStrategy[float]:
    whole = int(span / TICK)
    return st.one_of(
        st.just(0),
        st.integers(0, 8),
        st.integers(0, whole // 4),
        st.sampled_from([whole - 1, whole, whole + 1, whole // SUB_WINDOWS, 2 * whole]),
    ).map(lambda ticks: ticks * TICK)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[Rate, list[float]]:
    span = draw(st.sampled_from(SPANS))
    rate = Rate(draw(st.integers(1, 9)), span)
    now = draw(st.integers(-(10**6), 10**6)) * TICK
    times = []
    for gap in draw(st.lists(gaps(span), min_size=1, max_size=120)):
        now += gap
        times.append(now)
    return rate, times


def admit_all(window: OwnWindow, times: list[float]) -> tuple[list[float], list[float]]:
    """Moments at which it admitted, and at which it refused."""
    admitted, refused = [], []
    for now in times:
        if window.full(now):
            refused.append(now)
        else:
            window.record(now)
            admitted.append(now)
    return admitted, refused


def most_in_any_span(admitted: list[float], span: float) -> int:
    """By brute force: the most admissions in any half-open span [s, s + span)."""
    return max(
        (sum(1 for at in admitted if start <= at < start + span) for start in admitted), default=0
    )


def live(admitted: list[float], now: float, span: float) -> int:
    """Admissions made up to `now` that are younger than `span`."""
    return sum(1 for at in admitted if at <= now and now - at < span)


def sliding(rate: Rate) -> SlidingWindow:
    """The kind for large counts, here with a small one, which brute force can check."""
    return SlidingWindow(Terms("x", rate))


@examples
@given(arrivals())
def test_exact_holds_the_bound_and_refuses_only_when_full(case: tuple[Rate, list[float]]) -> None:
    rate, times = case
    admitted, refused = [], []
    window = ExactWindow(Terms("x", rate))
    for now in times:
        before = live(admitted, now, rate.window)
        assert window.full(now) == (before >= rate.count)
        assert window.remaining == rate.count - before
        if before < rate.count:
            window.record(now)
            admitted.append(now)
            before += 1
        else:
            refused.append(now)
        assert window.remaining == rate.count - before
        oldest = min(at for at in admitted if now - at < rate.window)
        assert window.reset(now) == math.ceil(oldest + rate.window - now)
    assert most_in_any_span(admitted, rate.window) <= rate.count


@examples
@given(arrivals())
def test_sliding_holds_the_bound_and_forgets_in_time(case: tuple[Rate, list[float]]) -> None:
    rate, times = case
    late = rate.window / SUB_WINDOWS
    window = sliding(rate)
    admitted: list[float] = []
    for now in times:
        full = window.full(now)
        assert full or live(admitted, now, rate.window) < rate.count
        # One forgotten at most W/64 late: what is still counted is no older than W + W/64.
        assert rate.count - window.remaining <= live(admitted, now, rate.window + late)
        assert rate.count - window.remaining >= live(admitted, now, rate.window)
        if not full:
            window.record(now)
            admitted.append(now)
        assert window.remaining >= 0
        oldest = admitted[len(admitted) - (rate.count - window.remaining)]
        soonest, latest = oldest + rate.window - now, oldest + rate.window + late - now
        assert math.ceil(soonest) <= window.reset(now) <= math.ceil(latest)
    assert most_in_any_span(admitted, rate.window) <= rate.count


@examples
@given(st.data())
def test_any_float_times_keep_the_bound(data: st.DataObject) -> None:
    """No exact arithmetic here: the bound holds but for the rounding of one addition."""
    rate = Rate(data.draw(st.integers(1, 5)), data.draw(st.sampled_from(SPANS)))
    times = sorted(data.draw(st.lists(st.floats(0, 5 * rate.window), max_size=60)))
    for window in (ExactWindow(Terms("x", rate)), sliding(rate)):
        admitted, _ = admit_all(window, times)
        for first, last in zip(admitted, admitted[rate.count :], strict=False):
            assert last - first >= rate.window * (1 - 1e-12)


@pytest.mark.parametrize("count", [1, 100, EXACT_UP_TO, EXACT_UP_TO + 1, 5000])
@pytest.mark.parametrize("load", [0.5, 1.0, 3.0])
def test_the_kind_that_is_chosen_holds_the_bound_over_many_windows(count: int, load: float) -> None:
    """Poisson arrivals over twenty windows, and a sweep instead of brute force."""
    rng = random.Random(count)
    span = 10.0
    window = new_window(Terms("x", Rate(count, span)))
    assert isinstance(window, ExactWindow) == (count <= EXACT_UP_TO)
    late = 0.0 if count <= EXACT_UP_TO else span / SUB_WINDOWS
    now, times = 0.0, []
    while now < 20 * span and len(times) < 60_000:
        now += rng.expovariate(load * count / span)
        times.append(now)
    admitted, refused = admit_all(window, times)
    tail = 0
    for index, at in enumerate(admitted):
        while at - admitted[tail] >= span:
            tail += 1
        assert index - tail + 1 <= count
    # No refusal without N admissions in the last W (and W/64 for the larger kind).
    oldest = newest = 0
    for at in refused:
        while newest < len(admitted) and admitted[newest] <= at:
            newest += 1
        while at - admitted[oldest] >= span + late:
            oldest += 1
        assert newest - oldest >= count
    if load > 1:
        assert refused


def test_the_moment_of_leaving_is_w_after_admission() -> None:
    window = ExactWindow(Terms("x", Rate(1, 10.0)))
    assert not window.full(100.0)
    window.record(100.0)
    assert window.full(109.999)
    assert window.reset(100.0) == 10  # waiting exactly that long is enough
    assert not window.full(110.0)
    assert window.reset(110.0) == 0


def test_sub_windows_leave_one_by_one() -> None:
    """N admissions spread over W come back spread over W: no burst at a boundary of 2N in W."""
    rate = Rate(2000, 64.0)
    window = new_window(Terms("x", rate))
    for step in range(2000):
        now = step * 0.03125  # 32 a second, all within the window
        assert not window.full(now)
        window.record(now)
    assert window.full(62.5)
    assert window.full(64.0)  # the first sub-window, [0, 1), is still held
    assert not window.full(65.0)
    assert window.remaining == 32
    assert not window.full(67.0)
    assert window.remaining == 96


@examples
@given(arrivals(), st.sampled_from([ExactWindow, SlidingWindow]), st.data())
def test_a_successor_counts_what_was_live(
    case: tuple[Rate, list[float]], old_kind: type[OwnWindow], data: st.DataObject
) -> None:
    """Whatever the old and the new rate and kind: nothing that is live under both is lost."""
    rate, times = case
    old = old_kind(Terms("x", rate))
    admitted, _ = admit_all(old, times)
    now = times[-1]
    new_rate = Rate(data.draw(st.integers(1, 12)), data.draw(st.sampled_from(SPANS)))
    new = data.draw(st.sampled_from([ExactWindow, SlidingWindow]))(Terms("x", new_rate))
    new.take_over(old.admissions(now), now)
    held = min(live(admitted, now, min(rate.window, new_rate.window)), new_rate.count)
    late = (rate.window + new_rate.window) / SUB_WINDOWS
    assert 0 <= new.remaining <= new_rate.count - held
    assert new_rate.count - new.remaining <= live(admitted, now, rate.window + late)
    # And from now on the new bound holds, those counted in that were live under both.
    for gap in data.draw(st.lists(gaps(new_rate.window), max_size=40)):
        now += gap
        full = new.full(now)
        counted = [at for at in admitted if times[-1] - at < rate.window]
        assert full or live(counted, now, new_rate.window) < new_rate.count
        if not full:
            new.record(now)
            admitted.append(now)
    later = [at for at in admitted if times[-1] - at < rate.window]
    ahead = [at for at in later if at > times[-1] - new_rate.window]
    newest_before = [at for at in ahead if at <= times[-1]][-new_rate.count :]
    checked = newest_before + [at for at in ahead if at > times[-1]]
    assert most_in_any_span(checked, new_rate.window) <= new_rate.count
    # All that was taken over leaves again.
    assert not new.full(now + 2 * new_rate.window)
    assert new.remaining == new_rate.count


@examples
@given(arrivals(), st.sampled_from([ExactWindow, SlidingWindow]))
def test_charge_keeps_a_full_window_full(
    case: tuple[Rate, list[float]], kind: type[OwnWindow]
) -> None:
    """Charged for all arrivals, it is full whenever N of them are live, and never below zero."""
    rate, times = case
    window = kind(Terms("x", rate))
    for index, now in enumerate(times):
        if live(times[:index], now, rate.window) >= rate.count:
            assert window.full(now)
        window.charge(now)
        arrived = live(times[: index + 1], now, rate.window)
        assert window.remaining >= 0
        assert window.remaining <= max(0, rate.count - arrived)
        if kind is ExactWindow:
            assert window.remaining == max(0, rate.count - arrived)


@pytest.mark.parametrize("kind", [ExactWindow, SlidingWindow])
def test_the_newest_decide(kind: type[OwnWindow]) -> None:
    """Of more than N live ones the N newest are kept: the oldest is the one that gives way."""
    charged, taken = kind(Terms("x", Rate(3, 16.0))), kind(Terms("x", Rate(3, 16.0)))
    for now in (0.0, 1.0, 2.0, 3.0):
        charged.charge(now)
    taken.take_over([(0.0, 1), (1.0, 1), (2.0, 1), (3.0, 1)], 3.0)
    for window in (charged, taken):
        assert window.full(16.5)
        assert not window.full(17.5)
        assert window.remaining == 1


@examples
@given(arrivals(), st.sampled_from([ExactWindow, SlidingWindow]))
def test_dead_means_nothing_live(case: tuple[Rate, list[float]], kind: type[OwnWindow]) -> None:
    rate, times = case
    window = kind(Terms("x", rate))
    assert window.dead(times[0])
    admitted, _ = admit_all(window, times)
    last = admitted[-1]
    assert not window.dead(last + rate.window - TICK)
    late = 0 if kind is ExactWindow else rate.window / SUB_WINDOWS
    assert window.dead(last + rate.window + late)


def test_a_successor_of_sub_windows_takes_the_latest_moment_for_all() -> None:
    old = sliding(Rate(2, 64.0))
    for now in (0.0, 0.5):  # one sub-window, [0, 1)
        assert not old.full(now)
        old.record(now)
    new = ExactWindow(Terms("x", Rate(2, 64.0)))
    new.take_over(old.admissions(10.0), 10.0)
    assert new.full(64.25)  # 0.5 is live; 0.0 is not, but nobody knows which is which
    assert not new.full(65.0)
    assert new.remaining == 2
    soon = ExactWindow(Terms("x", Rate(2, 64.0)))
    soon.take_over(old.admissions(0.5), 0.5)  # none was made after now
    assert not soon.full(64.5)


def test_whole_seconds_are_told_as_they_are() -> None:
    for tick in range(2000):
        now = tick * 0.1
        for window in (ExactWindow(Terms("x", Rate(5, 60.0))), sliding(Rate(5, 64.0))):
            window.record(now)
            assert window.reset(now) == (60 if isinstance(window, ExactWindow) else 65)


def test_memory_of_a_window_is_bounded_and_given_back() -> None:
    exact = ExactWindow(Terms("x", Rate(100, 60.0)))
    now = 0.0
    for _ in range(10_000):
        now += 0.6
        if not exact.full(now):
            exact.record(now)
    assert len(exact._leaves) <= 100
    assert exact._leaves.__sizeof__() < 100 * 8 * 2 + 200
    large = sliding(Rate(1_000_000, 10.0))
    for step in range(100_000):
        now = 10_000 + step * 0.001
        if not large.full(now):
            large.record(now)
    assert len(large._leaves) < SUB_WINDOWS + 2 + 16  # those that left go in groups of 16
    for window in (exact, large):
        assert not window.full(now + 1000)
        assert len(window._leaves) == 0
