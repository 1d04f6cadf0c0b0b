"""The table of a limit: bounded, never dropping what is live, and what happens when it is full."""

from __future__ import annotations

import random
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config.units import Rate
from edgeproxy.limits.group import WindowGroup
from edgeproxy.limits.table import OVERFLOW_SLOTS, LimitTable
from edgeproxy.limits.window import SUB_WINDOWS, ExactWindow, SlidingWindow, Window

examples = settings(max_examples=300, deadline=None)
SLOW = Rate(3, 16.0)


def admit(table: LimitTable, caller: object, rate: Rate, now: float) -> bool:
    window = table.window(caller, rate, now)
    if window.full(now):
        return False
    window.record(now)
    return True


def held(table: LimitTable, now: float) -> set[object]:
    """Callers with live admissions in windows of their own."""
    return {caller for caller, window in table._windows.items() if not window.dead(now)}


def consistent(table: LimitTable) -> None:
    assert len(table.callers) == len(set(table.callers)) == len(table._windows)
    assert set(table.callers) == set(table._windows)


def test_one_caller_has_one_window() -> None:
    table = LimitTable("default", 10)
    window = table.window("a", SLOW, 0.0)
    window.record(0.0)
    assert table.window("a", SLOW, 1.0) is window
    assert table.window("b", SLOW, 1.0) is not window
    assert window.terms.name == "default"
    assert len(table) == 2
    assert isinstance(table.window("c", Rate(1024, 1.0), 0.0), ExactWindow)
    assert isinstance(table.window("d", Rate(1025, 1.0), 0.0), SlidingWindow)


@examples
@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 300), st.sampled_from([0.0, 0.25, 1.0, 16.0])), max_size=150),
)
def test_no_caller_exceeds_its_bound_whatever_the_table_does(
    size: int, steps: list[tuple[int, float]]
) -> None:
    """Callers come, are dropped, overflow, and come back: each one's own admissions are counted."""
    table = LimitTable("default", size)
    admitted: dict[int, list[float]] = defaultdict(list)
    now = 0.0
    for caller, gap in steps:
        now += gap
        before = held(table, now)
        mine = [at for at in admitted[caller] if now - at < SLOW.window]
        if admit(table, caller, SLOW, now):
            assert len(mine) < SLOW.count
            admitted[caller].append(now)
        else:
            # Refused: its own are N, or those of all who share its slot are.
            others = [
                at
                for other, times in admitted.items()
                if other % OVERFLOW_SLOTS == caller % OVERFLOW_SLOTS
                for at in times
                if now - at < SLOW.window
            ]
            assert len(others) >= SLOW.count
        assert before <= set(table._windows)  # nothing live was dropped
        assert len(table) <= size
        consistent(table)


@examples
@given(st.data())
def test_the_bound_of_every_rate_holds_through_overflow_and_changes_of_plan(
    data: st.DataObject,
) -> None:
    """Plans change at any time, the table is tiny: still no more than N in W under the rate asked.

    All rates have one window length here: under a longer one than before, what had left is gone.
    """
    rates = [Rate(n, 16.0) for n in (1, 2, 4)]
    table = LimitTable("default", data.draw(st.integers(1, 2)))
    admitted: dict[int, list[float]] = defaultdict(list)
    now = 0.0
    steps = st.tuples(
        st.sampled_from([0, 1, 256]),
        st.sampled_from(rates),
        st.sampled_from([0.0, 0.5, 3.0, 16.0]),
    )
    for caller, rate, gap in data.draw(st.lists(steps, max_size=80)):
        now += gap
        if admit(table, caller, rate, now):
            admitted[caller].append(now)
            mine = [at for at in admitted[caller] if now - at < rate.window]
            assert len(mine) <= rate.count


def test_full_of_live_entries_newcomers_share() -> None:
    table = LimitTable("default", 2)
    assert admit(table, 1, SLOW, 0.0)
    assert admit(table, 2, SLOW, 0.0)
    assert table.overflows == 0
    first = table.window(3, SLOW, 1.0)
    assert isinstance(first, WindowGroup)
    assert [admit(table, caller, SLOW, 1.0) for caller in (3, 3 + 256, 3, 3 + 512)] == [
        True,
        True,
        True,
        False,
    ]
    assert admit(table, 4, SLOW, 1.0)  # another slot
    assert table.overflows == 6
    assert len(table) == 2
    assert [admit(table, 1, SLOW, 2.0) for _ in range(3)] == [True, True, False]  # untouched


def test_back_from_overflow_what_was_admitted_there_counts() -> None:
    table = LimitTable("default", 1)
    assert admit(table, 1, SLOW, 0.0)
    assert [admit(table, 3, SLOW, 10.0) for _ in range(4)] == [True, True, True, False]
    # At 16 the entry of 1 is dead: 3 gets a window of its own, which is full all the same.
    assert not admit(table, 3, SLOW, 16.0)
    assert 3 in table._windows
    assert not admit(table, 3, SLOW, 25.999)
    assert admit(table, 3, SLOW, 26.0)
    # From then on it is its own: what others are admitted to in the slot is not its concern.
    assert [admit(table, 3 + 256, SLOW, 26.0) for _ in range(4)] == [True, True, True, False]
    assert [admit(table, 3, SLOW, 26.0) for _ in range(3)] == [True, True, False]


def test_a_table_of_dead_entries_takes_newcomers() -> None:
    table = LimitTable("default", 1000)
    for caller in range(1000):
        assert admit(table, caller, SLOW, 0.0)
    for caller in range(1000, 3000):
        assert isinstance(table.window(caller, SLOW, 20.0), ExactWindow)
    assert table.overflows == 0
    assert len(table) <= 1000


def test_dead_entries_are_found_wherever_they_stand() -> None:
    """Few dead among many live: found after at most one round of the hand, 16 steps a call."""
    for seed in range(5):
        rng = random.Random(seed)
        table = LimitTable("default", 2000)
        dead = set(rng.sample(range(2000), 20))
        for caller in range(2000):
            admit(table, caller, SLOW, 0.0)
        for caller in set(range(2000)) - dead:
            admit(table, caller, SLOW, 10.0)
        for newcomer in range(5000, 5000 + 2000 // 16 + 22):
            admit(table, newcomer, SLOW, 17.0)
        assert not dead & set(table._windows)
        consistent(table)


def test_newcomers_clear_at_least_as_much_as_they_bring() -> None:
    """One request each from callers without end: the table holds little more than is live."""
    table = LimitTable("default", 100_000)
    rate = Rate(10, 1.0)
    largest = 0
    for caller in range(50_000):
        admit(table, caller, rate, caller * 0.001)  # 1,000 are live at any time
        largest = max(largest, len(table))
    assert largest < 4_000


def test_sweep_gives_memory_back_in_quiet_times() -> None:
    table = LimitTable("default", 1000)
    for caller in range(1000):
        admit(table, caller, SLOW, 0.0)
    assert table.sweep(15.0, 10_000) == 0
    assert table.sweep(16.0, 400) == 400
    assert table.sweep(16.0, 10_000) == 600
    assert len(table) == 0
    assert table.sweep(16.0, 10) == 0


def test_a_changed_rate_keeps_live_admissions() -> None:
    table = LimitTable("default", 10)
    for _ in range(3):
        assert admit(table, "a", SLOW, 0.0)
    gold = Rate(5, 16.0)
    assert table.window("a", gold, 1.0).remaining == 2
    assert [admit(table, "a", gold, 1.0) for _ in range(3)] == [True, True, False]
    assert not admit(table, "a", Rate(2, 16.0), 2.0)  # back to less: full until the newest leave
    assert not admit(table, "a", Rate(2, 16.0), 16.5)
    assert admit(table, "a", Rate(2, 16.0), 17.0)
    large = Rate(2000, 16.0)
    window = table.window("a", large, 18.0)
    assert window.remaining == 1999  # the one of 17.0, once, though two windows know of it


def test_a_plan_that_goes_back_and_forth_forgets_nothing() -> None:
    """Two keys of one consumer, or one address with callers of two plans."""
    table = LimitTable("default", 10)
    one, two = Rate(1, 16.0), Rate(2, 16.0)
    got = [admit(table, "a", rate, 0.0) for rate in (one, two, one, two, one, two)]
    assert got == [True, True, False, False, False, False]
    # Once one rate is out of use for its window's length, the other's window stands alone again.
    assert isinstance(table._windows["a"], WindowGroup)
    assert admit(table, "a", two, 16.0)
    table.sweep(16.0, 10)
    assert isinstance(table._windows["a"], ExactWindow)
    assert not isinstance(table.window("a", two, 16.0), WindowGroup)


def test_what_counts_under_one_rate_counts_under_all() -> None:
    table = LimitTable("default", 10)
    two, three, four = Rate(2, 16.0), Rate(3, 16.0), Rate(4, 16.0)
    assert [admit(table, "a", rate, 0.0) for rate in (two, three, two)] == [True, True, False]
    # A rate that is new to the caller starts from what any of the others remembers.
    for rate in (four, four, Rate(1, 16.0)):
        admit(table, "b", rate, 0.0)
    assert not admit(table, "b", two, 0.0)
    assert admit(table, "b", three, 0.0)


def test_one_that_is_live_under_any_of_its_rates_is_not_dropped() -> None:
    table = LimitTable("default", 10)
    short, long = Rate(2, 16.0), Rate(2, 60.0)
    assert [admit(table, "a", rate, 0.0) for rate in (short, long)] == [True, True]
    table.window("a", short, 10.0)
    table.sweep(20.0, 10)
    assert not admit(table, "a", long, 59.0)
    assert admit(table, "a", long, 60.0)


def test_back_from_overflow_rates_out_of_use_are_dropped_too() -> None:
    table = LimitTable("default", 1)
    other = Rate(5, 16.0)
    admit(table, 1, SLOW, 0.0)
    for rate in (other, SLOW):
        assert admit(table, 2, rate, 10.0)
    assert admit(table, 2, SLOW, 16.0)
    own = table._windows[2]
    assert isinstance(own, WindowGroup)
    assert set(own._windows) == {SLOW, other}
    assert table.sweep(26.0, 1) == 0
    assert isinstance(table._windows[2], ExactWindow)


def test_an_equal_rate_of_a_reload_changes_nothing_and_is_quick_again() -> None:
    table = LimitTable("default", 10)
    assert admit(table, "a", Rate(3, 16.0), 0.0)
    window = table.window("a", SLOW, 0.0)
    again = Rate(*SLOW)
    assert again is not SLOW
    assert table.window("a", again, 1.0) is window
    assert window.remaining == 2
    assert window.terms.rate is again
    for _ in range(300):  # reloads without end leave nothing behind
        table.window("a", Rate(*SLOW), 1.0)
    assert len(table._terms) <= 64


def test_a_smaller_table_after_a_reload_takes_effect_as_entries_die() -> None:
    table = LimitTable("default", 10)
    for caller in range(10):
        admit(table, caller, SLOW, 0.0)
    table.size = 4
    assert isinstance(table.window(50, SLOW, 1.0), WindowGroup)
    assert len(table) == 10
    assert isinstance(table.window(51, SLOW, 16.0), ExactWindow)
    assert len(table) <= 4


def test_show_and_reset() -> None:
    table = LimitTable("default", 2)
    assert table.show("a", 0.0) is None
    assert not table.reset("a")
    admit(table, "a", SLOW, 0.0)
    admit(table, "a", SLOW, 4.5)
    assert table.show("a", 5.0) == (3, 16.0, 1, 11, False)
    assert table.show("a", 16.0) == (3, 16.0, 2, 5, False)  # what has left is not shown
    assert table.reset("a")
    assert table.show("a", 16.0) == (3, 16.0, 3, 0, False)
    admit(table, "a", SLOW, 16.0)
    admit(table, "b", SLOW, 16.0)
    admit(table, "c", SLOW, 16.0)
    assert table.show("c", 17.0) == (3, 16.0, 2, 15, True)
    assert not table.reset("c")  # shared with others: not cleared


def test_old_rates_leave_an_overflow_slot() -> None:
    table = LimitTable("default", 1)
    admit(table, 1, Rate(1, 10**6), 0.0)
    for generation in range(50):
        assert admit(table, 2, Rate(generation + 1, 16.0), generation * 20.0)
    slot = table._overflow[2]
    assert slot is not None
    assert len(slot._windows) <= 2


class Steps:
    """Counts how often a key is hashed or compared: what grows with the number of callers."""

    calls = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Steps.calls += 1
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        Steps.calls += 1
        return isinstance(other, Steps) and other.number == self.number


def test_no_call_costs_more_because_there_are_many_callers() -> None:
    """Counted in operations on keys, not in time: a newcomer to a full table does bounded work."""
    table = LimitTable("default", 20_000)
    for caller in range(20_000):
        admit(table, Steps(caller), SLOW, 0.0)
    for caller in range(20_000, 20_100):
        Steps.calls = 0
        admit(table, Steps(caller), SLOW, 1.0)
        assert Steps.calls <= 200
    known = table.callers[777]
    Steps.calls = 0
    admit(table, known, SLOW, 1.0)
    assert Steps.calls <= 3


def test_overflow_of_a_large_rate() -> None:
    """The sub-window kind in a shared slot keeps its bound too, and is late by W/64 at most."""
    table = LimitTable("default", 1)
    admit(table, 1, SLOW, 0.0)
    rate = Rate(2000, 8.0)
    admitted = [at for step in range(6000) if admit(table, 7, rate, at := 1 + step / 512)]
    for first, last in zip(admitted, admitted[2000:], strict=False):
        assert 8.0 <= last - first <= 8.0 * (1 + 2 / SUB_WINDOWS)
    window: Window = table.window(7, rate, 1 + 6000 / 512)
    assert isinstance(window, WindowGroup)
