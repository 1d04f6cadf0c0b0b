"""What a running gateway does from time to time, on a clock that the test turns."""

from __future__ import annotations

import gc
import weakref
from datetime import UTC, datetime

import pytest

from edgeproxy.certs.contexts import ServerTLS
from edgeproxy.certs.names import NameMap
from edgeproxy.config.units import Rate
from edgeproxy.limits.table import LimitTable
from edgeproxy.upkeep import TICKET_KEYS, Upkeep

RATE = Rate(10, 60.0)
#: A sweep comes four times a second.
SWEEP = 0.25


@pytest.fixture
def tls() -> ServerTLS:
    return ServerTLS(NameMap((), None, datetime.now(UTC)))


def table(callers: int, now: float) -> LimitTable:
    made = LimitTable("some", 100_000)
    for number in range(callers):
        made.window(f"caller{number}", RATE, now).record(now)
    return made


def test_callers_that_are_gone_are_forgotten_in_quiet_times(tls: ServerTLS) -> None:
    """A thousand a second, and none that still counts."""
    tables = [table(1000, 0.0), table(1000, 0.0)]
    live = table(100, 55.0)
    upkeep = Upkeep(tls, lambda: [*tables, live], 0.0)
    upkeep.expired(50.0)
    assert [len(each) for each in tables] == [1000, 1000]
    for sweep in range(4):
        upkeep.expired(61.0 + sweep * SWEEP)
        assert [len(each) for each in tables] == [750 - sweep * 250] * 2
    assert len(live) == 100


def test_many_tables_share_one_sweep(tls: ServerTLS) -> None:
    tables = [table(100, 0.0) for _ in range(50)]
    upkeep = Upkeep(tls, lambda: tables, 0.0)
    upkeep.expired(61.0)
    assert sum(len(each) for each in tables) == 5000 - 2500
    upkeep.expired(61.25)
    assert sum(len(each) for each in tables) == 0


def test_session_ticket_keys_live_a_day(tls: ServerTLS) -> None:
    upkeep = Upkeep(tls, lambda: (), 1000.0)
    first = tls.context
    upkeep.expired(1000.0 + TICKET_KEYS - 1)
    assert tls.context is first
    upkeep.expired(1000.0 + TICKET_KEYS)
    second = tls.context
    assert second is not first
    upkeep.expired(1000.0 + TICKET_KEYS + SWEEP)
    assert tls.context is second


class Part:
    pass


class Whole:
    def __init__(self, count: int) -> None:
        self.parts = [Part() for _ in range(count)]


def test_what_was_replaced_goes_bit_by_bit(tls: ServerTLS) -> None:
    whole = Whole(2500)
    known = [weakref.ref(each) for each in whole.parts]

    def alive() -> int:
        return sum(each() is not None for each in known)

    upkeep = Upkeep(tls, lambda: (), 0.0)
    upkeep.let_go(whole, list(whole.parts))
    collecting = gc.isenabled()
    gc.disable()
    try:
        upkeep.expired(1.0)
        assert alive() == 2500, "somebody holds it"
        del whole
        assert alive() == 2500, "not in one go"
        for left in (1500, 500, 0):
            upkeep.expired(1.0)
            assert alive() == left
    finally:
        if collecting:
            gc.enable()
