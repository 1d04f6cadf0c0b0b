"""The pool against a model that counts by itself, and the budget for retries."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeproxy.upstream.budget import RetryBudget
from edgeproxy.upstream.pool import Pool


class Connection:
    """What the pool knows of one."""

    idle_since = 0.0


class PoolMachine(RuleBasedStateMachine):
    """Plays the target: connects, lends, takes back, loses, as it likes."""

    @initialize(cap=st.integers(1, 4), queue=st.integers(0, 3))
    def begin(self, cap: int, queue: int) -> None:
        self.now = 0.0
        self.pool: Pool[Connection, str] = Pool(cap, queue, 30.0)
        self.idle: dict[Connection, float] = {}
        self.busy: list[Connection] = []
        self.closing: list[Connection] = []  # told to close, not gone yet
        self.connecting = 0
        self.waiting: list[str] = []
        self.number = 0

    # -- what exchanges do ----------------------------------------------------------------------

    @rule(fresh=st.sampled_from([1.0, 30.0]))
    def ask(self, fresh: float) -> None:
        taken = self.pool.take(self.now, fresh)
        young = [each for each, since in self.idle.items() if self.now - since <= fresh]
        if taken is not None:
            assert taken in young
            # The one used last: the others may then grow old and be closed.
            assert self.idle[taken] == max(self.idle.values())
            del self.idle[taken]
            self.busy.append(taken)
            return
        assert not young
        live = len(self.idle) + len(self.busy) + len(self.closing) + self.connecting
        allowed, old = self.pool.reserve()
        if old is not None:
            assert allowed and live >= self.pool.cap
            del self.idle[old]
            self.closing.append(old)
            self.pool.open += 1  # as the target does: the old one counts itself out later
        else:
            assert allowed == (live < self.pool.cap)
        if allowed:
            self.connecting += 1
            return
        self.number += 1
        who = f"exchange {self.number}"
        if self.pool.wait(who):
            self.waiting.append(who)
        else:
            assert len(self.waiting) == self.pool.queue

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(self.waiting))
        self.pool.leave(who)
        self.waiting.remove(who)

    @rule()
    def leave_without_waiting(self) -> None:
        self.pool.leave("nobody")

    # -- what connections do ----------------------------------------------------------------------

    @precondition(lambda self: self.connecting)
    @rule()
    def connected(self) -> None:
        self.connecting -= 1
        self.busy.append(Connection())

    @precondition(lambda self: self.connecting)
    @rule()
    def refused(self) -> None:
        self.connecting -= 1
        self.next_connects(self.pool.gone(None))

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(self.busy))
        who = self.pool.give(connection, self.now)
        if self.waiting:
            assert who == self.waiting.pop(0)  # it stays busy, for who has waited longest
        else:
            assert who is None
            self.busy.remove(connection)
            self.idle[connection] = self.now

    @precondition(lambda self: self.busy or self.idle or self.closing)
    @rule(data=st.data())
    def lost(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from([*self.busy, *self.idle, *self.closing]))
        self.idle.pop(connection, None)
        for group in (self.busy, self.closing):
            if connection in group:
                group.remove(connection)
        self.next_connects(self.pool.gone(connection))

    def next_connects(self, who: str | None) -> None:
        live = len(self.idle) + len(self.busy) + len(self.closing) + self.connecting
        if self.waiting and live < self.pool.cap:
            assert who == self.waiting.pop(0)
            self.pool.open += 1  # as the target does before it connects
            self.connecting += 1
        else:
            assert who is None

    # -- time -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 1.0, 20.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        old = self.pool.expire(self.now)
        assert set(old) == {e for e, since in self.idle.items() if self.now - since > 30.0}
        for each in old:
            del self.idle[each]
            self.closing.append(each)

    @rule()
    def empty(self) -> None:
        old = self.pool.empty()
        assert set(old) == set(self.idle)
        self.closing += old
        self.idle.clear()

    # -- always ---------------------------------------------------------------------------------

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "pool"):
            return
        live = len(self.idle) + len(self.busy) + len(self.closing) + self.connecting
        assert self.pool.open == live
        # One too many at most for each that was told to close to make room.
        assert live - len(self.closing) <= self.pool.cap
        assert set(self.pool.idle) == set(self.idle)
        assert list(self.pool.waiting) == self.waiting
        assert len(self.waiting) <= self.pool.queue
        assert not (self.waiting and self.idle)
        assert repr(self.pool) == (
            f"<Pool open={live}/{self.pool.cap} idle={len(self.idle)} waiting={len(self.waiting)}>"
        )


PoolMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestPool = PoolMachine.TestCase


def test_a_budget_has_a_floor() -> None:
    budget = RetryBudget()
    assert [budget.spend() for _ in range(33)] == [True] * 32 + [False]


def test_a_budget_is_a_fifth_of_recent_requests() -> None:
    budget = RetryBudget()
    budget.tick(0.0)
    budget.requests += 1000
    assert [budget.spend() for _ in range(201)] == [True] * 200 + [False]


@pytest.mark.parametrize("rate", [0, 10, 500])
def test_a_budget_forgets(rate: int) -> None:
    """Retries of ten seconds ago weigh no more; requests of then give no more either."""
    budget = RetryBudget()
    spent = []
    for second in range(40):
        budget.tick(float(second))
        budget.requests += rate
        count = 0
        while budget.spend():
            count += 1
        spent.append(count)
    for start in range(30):
        # A mark a second: eleven of them may lie in a window.
        assert sum(spent[start : start + 10]) <= max(32, 0.2 * rate * 11)
    assert sum(spent[10:]) >= max(32, 0.2 * rate * 10) * 2
