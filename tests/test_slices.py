"""Long work between other events, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from edgeproxy.slices import SLICE, in_slices


class Turns(Clock):
    """`turn` runs what is due now, and nothing that it leads to."""

    def turn(self) -> None:
        due, self.calls = self.calls, []
        for call in due:
            call.called = 1
            call.func(*call.args, **call.kw)


@pytest.fixture
def reactor() -> Iterator[Turns]:
    made = Turns()
    yield made
    assert made.getDelayedCalls() == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that the work itself takes."""
    made = Clock()
    monkeypatch.setattr("edgeproxy.slices.time.monotonic", made.seconds)
    return made


def busy(clock: Clock, steps: list[int], count: int = 4) -> Generator[None, None, str]:
    """Each step takes more than half a slice."""
    for number in range(count):
        clock.advance(SLICE * 0.6)
        steps.append(number)
        yield
    return "done"


def test_a_turn_does_a_slice_of_it(reactor: Turns, clock: Clock) -> None:
    steps: list[int] = []
    done = in_slices(reactor, busy(clock, steps))
    assert steps == []
    reactor.turn()
    assert steps == [0, 1]
    reactor.turn()
    assert steps == [0, 1, 2, 3]
    assert not done.called
    reactor.turn()
    assert done.result == "done"


def test_short_steps_share_a_turn(reactor: Turns) -> None:
    done = in_slices(reactor, (None for _ in range(3)))
    reactor.turn()
    assert done.called


def test_what_it_raises(reactor: Turns) -> None:
    def broken() -> Generator[None, None, None]:
        yield
        raise OSError("no")

    failures: list[object] = []
    in_slices(reactor, broken()).addErrback(lambda f: failures.append(f.check(OSError)))
    reactor.turn()
    assert failures == [OSError]


def test_cancelling_ends_the_work(reactor: Turns, clock: Clock) -> None:
    ended: list[bool] = []

    def work() -> Generator[None, None, None]:
        try:
            yield from busy(clock, [])
        finally:
            ended.append(True)

    failures: list[object] = []
    done = in_slices(reactor, work())
    done.addErrback(lambda f: failures.append(f.check(CancelledError)))
    reactor.turn()
    done.cancel()
    assert (ended, failures) == ([True], [CancelledError])
