"""Balancing: shares by weight, who is passed over, and whom a change moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.upstream.balance import Balancer, Hash, LeastRequests, RoundRobin
from edgeproxy.upstream.health import Ejection, Health, Out


class Place:
    """A target as balancing sees it."""

    def __init__(self, name: str, weight: int = 1, busy: int = 0) -> None:
        self.name = f"http://{name}"
        self.weight = weight
        self.busy = busy
        self.health = Health()

    def __repr__(self) -> str:
        return self.name.removeprefix("http://")


def places(*weights: int) -> list[Place]:
    return [Place("abcdefghij"[n], weight) for n, weight in enumerate(weights)]


def made(kind: str, targets: Sequence[Place], seed: int = 1) -> Balancer[Place]:
    if kind == "round robin":
        return RoundRobin(targets)
    if kind == "hash":
        return Hash(targets)
    return LeastRequests(targets, Random(seed).random)


KINDS = ["round robin", "least requests", "hash"]
CALLERS = [f"key-{n:05}" for n in range(10_000)]
weights = st.lists(st.integers(1, 9), min_size=1, max_size=6)


# -- what holds for all -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(weights, st.data())
@settings(max_examples=60)
def test_only_a_target_that_is_in_and_untried_is_chosen(
    kind: str, shares: list[int], data: st.DataObject
) -> None:
    targets = places(*shares)
    balancer = made(kind, targets)
    for step in range(20):
        for target in targets:
            target.health.drain(data.draw(st.booleans()))
        tried = tuple(t for t in targets if data.draw(st.booleans()))
        left = [t for t in targets if not t.health.out and t not in tried]
        found = balancer.next(tried, f"caller {step}")
        assert (found in left) if left else (found is None)


@pytest.mark.parametrize("kind", KINDS)
def test_where_there_are_no_targets_none_is_chosen(kind: str) -> None:
    """As long as a name leads nowhere, its upstream has none."""
    assert made(kind, []).next((), "caller") is None


@pytest.mark.parametrize("kind", KINDS)
def test_where_none_is_in_those_that_are_out_share_the_work_but_for_draining_ones(
    kind: str,
) -> None:
    targets = places(1, 1, 1, 1)
    for target in targets[:3]:
        target.health.refused(0.0, "refused", Ejection())
    targets[3].health.drain(True)
    balancer = made(kind, targets)
    assert balancer.next((), CALLERS[0]) is None
    found = Counter(balancer.next((), caller, Out.LAST) for caller in CALLERS)
    assert found.keys() == set(targets[:3])
    assert max(found.values()) < 1.2 * min(found.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("out", [None, 2])
def test_shares_follow_the_weights(kind: str, out: int | None) -> None:
    """Also while one is out: the others' shares grow in proportion."""
    targets = places(3, 1, 5, 1)
    if out is not None:
        targets[out].health.drain(True)
    balancer = made(kind, targets)
    found = Counter(balancer.next((), caller) for caller in CALLERS)
    whole = sum(t.weight for t in targets if not t.health.out)
    for target in targets:
        share = 0 if target.health.out else len(CALLERS) * target.weight / whole
        assert abs(found[target] - share) <= 0.15 * share


# -- round robin --------------------------------------------------------------------------------


def test_weights_are_spread_as_nginx_spreads_them() -> None:
    balancer = RoundRobin(places(5, 1, 1))
    assert "".join(repr(balancer.next((), "")) for _ in range(14)) == "aabacaa" * 2


def test_equal_targets_take_turns() -> None:
    balancer = RoundRobin(places(2, 2, 2))
    assert "".join(repr(balancer.next((), "")) for _ in range(6)) == "abcabc"


@given(weights)
def test_in_each_round_everyone_has_exactly_its_weight(shares: list[int]) -> None:
    targets = places(*shares)
    balancer = RoundRobin(targets)
    for _ in range(3):
        found = Counter(balancer.next((), "") for _ in range(sum(shares)))
        # Weights that are all the same, whatever they are, make the same rounds.
        assert found == {target: target.weight for target in targets}


def test_one_that_was_passed_over_takes_its_turn_again() -> None:
    a, b, c = targets = places(1, 1, 1)
    balancer = RoundRobin(targets)
    a.health.drain(True)
    assert {balancer.next((), "") for _ in range(6)} == {b, c}
    a.health.drain(False)
    assert {balancer.next((), "") for _ in range(3)} == {a, b, c}


# -- least requests -----------------------------------------------------------------------------


def test_of_two_the_less_busy_one_gets_it() -> None:
    a, b = targets = [Place("a", busy=3), Place("b", busy=2)]
    balancer = made("least requests", targets)
    assert {balancer.next((), "") for _ in range(50)} == {b}
    b.busy = 4
    assert {balancer.next((), "") for _ in range(50)} == {a}


def test_busy_is_seen_in_proportion_to_the_weight() -> None:
    heavy, light = targets = [Place("a", weight=4, busy=7), Place("b", weight=1, busy=2)]
    balancer = made("least requests", targets)
    assert {balancer.next((), "") for _ in range(50)} == {heavy}
    heavy.busy = 9
    assert {balancer.next((), "") for _ in range(50)} == {light}


@given(st.integers(0, 2**32), st.lists(st.integers(1, 5), min_size=2, max_size=6))
@settings(max_examples=30)
def test_requests_under_way_stay_level(seed: int, shares: list[int]) -> None:
    """500 requests that do not end: nobody has far more of them than its weight is worth."""
    targets = places(*shares)
    balancer = made("least requests", targets, seed)
    for _ in range(500):
        found = balancer.next((), "")
        assert found is not None
        found.busy += 1
    level = 500 / sum(shares)
    assert all(target.busy <= (level + 6) * target.weight for target in targets)


# -- hash ---------------------------------------------------------------------------------------


def owners(targets: Sequence[Place]) -> dict[str, str]:
    balancer = Hash(targets)
    return {caller: str(balancer.next((), caller)) for caller in CALLERS}


def test_a_caller_stays_whoever_asks_in_between_and_wherever() -> None:
    targets = places(1, 2, 3)
    first, again = owners(targets), owners(list(reversed(targets)))
    assert first == again
    assert owners([Place("a", 1), Place("b", 2), Place("c", 3)]) == first


def test_where_callers_go_is_the_same_in_every_version() -> None:
    """Else an upgrade beside what runs would move everybody."""
    assert [owners(places(1, 1, 1))[c] for c in CALLERS[:12]] == list("abbbbbcbbbcc")


@pytest.mark.parametrize("added", [1, 4])
def test_one_more_target_moves_its_share_only(added: int) -> None:
    before = owners(places(1, 2, 1, 2))
    after = owners(places(1, 2, 1, 2, added))
    moved = {caller for caller in CALLERS if before[caller] != after[caller]}
    assert {after[caller] for caller in moved} == {"e"}, "to the new one, and nowhere else"
    share = len(CALLERS) * added / (6 + added)
    assert abs(len(moved) - share) < 0.15 * share


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.data())
@settings(max_examples=20, deadline=None)
def test_one_less_moves_nobody_else(shares: list[int], data: st.DataObject) -> None:
    targets = places(*shares)
    gone = data.draw(st.sampled_from(targets))
    before = owners(targets)
    after = owners([target for target in targets if target is not gone])
    assert all(before[c] in (after[c], repr(gone)) for c in CALLERS)


def test_callers_of_one_that_is_out_spread_by_weight_and_come_back() -> None:
    targets = places(2, 1, 3, 2)
    balancer = Hash(targets)
    before = {caller: balancer.next((), caller) for caller in CALLERS}
    targets[0].health.drain(True)
    during = {caller: balancer.next((), caller) for caller in CALLERS}
    lost = [caller for caller in CALLERS if before[caller] is targets[0]]
    assert all(during[c] is before[c] for c in CALLERS if before[c] is not targets[0])
    found = Counter(during[caller] for caller in lost)
    for target in targets[1:]:
        assert abs(found[target] - len(lost) * target.weight / 6) < 0.15 * len(lost)
    assert all(balancer.next((), c) is balancer.next((targets[0],), c) for c in lost)
    targets[0].health.drain(False)
    assert {caller: balancer.next((), caller) for caller in CALLERS} == before
