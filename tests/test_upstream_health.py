"""One target's health: probes, ejections and draining, each with its own end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.upstream.health import Ejection, Health, Out, State, Thresholds, room_for_one_more

EJECTION = Ejection(failures=3, time=10.0, longest=25.0, share=50)
PROBES = Thresholds(rise=2, fall=3)


def probed(health: Health, wrong: str = "", now: float = 1.0, began: float | None = None) -> str:
    return health.probed(now if began is None else began, now, wrong, wrong or "status 200", PROBES)


def failed(health: Health, times: int, now: float = 1.0, *, room: bool = True) -> str:
    lines = [health.failed(now, "status 503", EJECTION, room) for _ in range(times)]
    assert not any(lines[:-1])
    return lines[-1]


# -- failures of requests -----------------------------------------------------------------------


def test_failures_in_a_row_eject_and_the_time_ends_it() -> None:
    health = Health()
    assert failed(health, 2) == ""
    assert health.state is State.HEALTHY
    assert failed(health, 1) == "ejected for 10 s: 3 failures in a row, the last: status 503"
    assert health.state is State.EJECTED
    assert health.out
    assert health.tick(10.9) == ""
    assert health.tick(11.0) == "no longer ejected: its time is over"
    assert not health.out
    assert health.failures == 0


def test_a_good_answer_between_begins_the_row_anew() -> None:
    health = Health()
    failed(health, 2)
    health.failures = 0  # what the relay does
    assert failed(health, 2) == ""


def test_each_further_ejection_is_longer_up_to_the_longest_and_calm_shortens_them() -> None:
    health = Health()
    now = 100.0
    for seconds in (10.0, 20.0, 25.0, 25.0):
        failed(health, 3, now)
        assert health.ejected_until == now + seconds
        now = health.ejected_until
        assert health.tick(now)
        now += 1
    now += 30.0  # three spans without any
    failed(health, 3, now)
    assert health.ejected_until == now + 20.0
    assert health.ejections == 5


def test_without_room_nothing_is_ejected_until_there_is() -> None:
    health = Health()
    assert failed(health, 10, room=False) == ""
    assert not health.out
    assert failed(health, 1).startswith("ejected for 10 s: 11 failures")


def test_zero_failures_means_that_answers_never_eject() -> None:
    health = Health()
    never = EJECTION._replace(failures=0)
    assert not any(health.failed(1.0, "status 500", never, True) for _ in range(100))
    assert health.refused(1.0, "refused", never)


def test_failures_while_it_is_out_do_not_make_it_longer() -> None:
    health = Health()
    failed(health, 3)
    assert failed(health, 9, 5.0) == ""
    assert health.ejected_until == 11.0


# -- connects -----------------------------------------------------------------------------------


def test_one_refused_connect_is_enough_and_told_once() -> None:
    health = Health()
    assert health.refused(1.0, "cannot connect: refused", EJECTION)
    assert health.refused(3.0, "cannot connect: refused", EJECTION) == ""
    assert health.ejected_until == 13.0
    assert health.tick(12.0) == ""
    assert health.tick(13.0)


def test_a_connection_that_is_made_ends_it() -> None:
    health = Health()
    assert health.connected(1.0) == ""
    health.refused(1.0, "refused", EJECTION)
    assert health.connected(2.0) == "no longer ejected: it takes connections again"
    assert not health.out


def test_a_connection_that_is_made_says_nothing_about_bad_answers() -> None:
    """A service that hangs, or answers 500 to all, takes connections as before."""
    health = Health()
    failed(health, 3)
    assert health.connected(2.0) == ""
    assert health.out


def test_refused_connects_do_not_grow() -> None:
    health = Health()
    for now in (0.0, 100.0, 200.0):
        health.refused(now, "refused", EJECTION)
        assert health.ejected_until == now + 10.0
        health.tick(now + 10.0)


# -- probes -------------------------------------------------------------------------------------


def test_before_the_first_probe_it_is_healthy_and_that_one_decides_alone() -> None:
    health = Health()
    assert not health.out
    assert probed(health, "status 503") == "unhealthy: status 503"
    assert health.state is State.UNHEALTHY
    assert probed(health) == ""
    assert probed(health) == "healthy again: 2 probes passed"


def test_fall_and_rise_count_in_a_row() -> None:
    health = Health()
    assert probed(health) == ""
    for _ in range(5):
        assert probed(health, "timed out") == ""
        assert probed(health, "timed out") == ""
        assert probed(health) == ""
    probed(health, "timed out")
    probed(health, "timed out")
    assert probed(health, "timed out") == "unhealthy: timed out (3 times)"
    for _ in range(5):
        assert probed(health) == ""
        assert probed(health, "timed out") == ""
    assert health.out
    assert health.unhealthy == 1
    assert health.probe == "timed out"


def test_probes_that_pass_end_an_ejection_too() -> None:
    """Envoy's successful_active_health_check_uneject_host, with `rise` for one."""
    health = Health()
    for _ in range(3):
        probed(health)
    failed(health, 3, now=5.0)
    assert probed(health, began=4.9, now=5.1) == "", "begun before: it counts for nothing"
    assert probed(health, now=6.0) == ""
    assert probed(health, now=7.0) == "healthy again: 2 probes passed"
    assert not health.out


def test_who_is_not_probed_any_more_is_not_unhealthy() -> None:
    health = Health()
    assert health.unwatched() == ""
    probed(health, "status 503")
    assert health.unwatched() == "no longer unhealthy: it is not probed any more"
    assert not health.out
    assert health.probe == ""


# -- draining -----------------------------------------------------------------------------------


def test_draining_stands_above_all_and_only_a_word_ends_it() -> None:
    health = Health()
    assert health.drain(True) == "draining: no new requests"
    assert health.drain(True) == ""
    health.refused(1.0, "refused", EJECTION)
    probed(health, "refused")
    assert health.state is State.DRAINING
    health.tick(100.0)
    probed(health)
    probed(health)
    assert health.state is State.DRAINING
    assert health.out
    assert health.drain(False) == "no longer draining"
    assert health.state is State.HEALTHY


# -- together -----------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["fail", "no room", "refuse", "connect", "pass", "wrong", "tick"]),
        st.sampled_from([0.0, 1.0, 7.0]),
    ),
    max_size=60,
)


@given(steps, st.booleans())
def test_a_line_is_told_exactly_when_the_state_changes(
    moves: list[tuple[str, float]], drained: bool
) -> None:
    health = Health()
    now = 0.0
    if drained:
        health.drain(True)
    for move, later in moves:
        now += later
        before = (bool(health.failing), bool(health.ejected_until))
        line = {
            "fail": lambda: health.failed(now, "reset", EJECTION, True),
            "no room": lambda: health.failed(now, "reset", EJECTION, False),
            "refuse": lambda: health.refused(now, "refused", EJECTION),
            "connect": lambda: health.connected(now),
            "pass": lambda: probed(health, now=now),
            "wrong": lambda: probed(health, "status 500", now=now),
            "tick": lambda: health.tick(now),
        }[move]()
        after = (bool(health.failing), bool(health.ejected_until))
        assert bool(line) == (before != after), move
        assert health.out == (Out.NEVER if drained else Out.LAST if any(after) else Out.IN)
        assert health.ejected_until <= now + EJECTION.longest
    health.tick(now + EJECTION.longest)
    assert not health.ejected_until, "an ejection always ends"


@given(st.integers(1, 50), st.integers(0, 100))
def test_the_floor_holds(count: int, share: int) -> None:
    out = 0
    while out <= count and room_for_one_more(out, count, EJECTION._replace(share=share)):
        out += 1
    assert out * 100 <= share * count < (out + 1) * 100


def test_one_target_alone_is_never_ejected_by_its_answers() -> None:
    assert not room_for_one_more(0, 1, Ejection())
    assert room_for_one_more(0, 2, Ejection())
    assert not room_for_one_more(1, 3, Ejection())
