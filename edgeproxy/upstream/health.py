"""What is known of one target, and whether it may get new requests: decisions only.

Three things keep requests away from a target, each with its own end:

- *Probes failed* (:meth:`Health.probed`): until enough of them pass again.
- *It was ejected*, by what became of real requests: a connect that failed (:meth:`Health.refused`)
  or failures one after the other (:meth:`Health.failed`). That ends by itself, or as soon as
  enough probes pass.
- *It is draining* (:attr:`Health.draining`): somebody said so, and has to say when it ends.

Each method returns the line that tells of a change, or ``""``. Times are monotonic seconds.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple


class Ejection(NamedTuple):
    """When failing requests take a target out, and for how long.

    ``failures`` in a row do it (0: never). The first time it is for ``time`` seconds, each further
    time for as many more, up to ``longest``; forgotten at the same pace. ``share`` of the targets,
    in percent, may be out before no more are ejected by their answers.
    """

    failures: int = 5
    time: float = 10.0
    longest: float = 300.0
    share: int = 50


#: The defaults, for who wants nothing else.
EJECTION = Ejection()


class Thresholds(NamedTuple):
    """How many probes in a row bring a target back, and take it out."""

    rise: int = 2
    fall: int = 3


class Out(IntEnum):
    """How far a target is out: ``LAST`` gets requests only where no target is in (as in Envoy's
    panic: better a target that may be ill than none), ``NEVER`` gets none whatever happens."""

    IN = 0
    LAST = 1
    NEVER = 2


class State(Enum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    EJECTED = "ejected"
    DRAINING = "draining"


class Health:
    """See the module's text. ``failures`` are those in a row; who sees a good answer sets it to 0.

    ``ejected_until`` is 0 while it is not. ``failing`` says why probes take it out, ``reason`` why
    it was ejected; ``probe`` is the last probe's result in words, ``probed_at`` when it came (0:
    none yet), ``passed`` how many have in a row. ``out`` sums it up for balancing.
    """

    __slots__ = (
        "_before",
        "_count",
        "_ended",
        "_failed",
        "_refused",
        "draining",
        "ejected_at",
        "ejected_until",
        "ejections",
        "failing",
        "failures",
        "out",
        "passed",
        "probe",
        "probed_at",
        "probes",
        "reason",
        "unhealthy",
    )

    def __init__(self) -> None:
        self.out: int = Out.IN
        self.draining = False
        self.failures = 0
        self.ejected_at = self.ejected_until = 0.0
        self.failing = self.reason = self.probe = ""
        self.probed_at = 0.0
        #: Since the start: probes, ejections, times that probes took it out.
        self.probes = self.ejections = self.unhealthy = 0
        self._count = 0  # ejections that make the next one longer
        self._ended = 0.0  # when the last one ended
        self._refused = False
        self.passed = self._failed = 0

    def __repr__(self) -> str:
        return f"<Health {self.state.value}>"

    @property
    def state(self) -> State:
        """What stands in the way, the most lasting first."""
        if self.draining:
            return State.DRAINING
        if self.failing:
            return State.UNHEALTHY
        return State.EJECTED if self.ejected_until else State.HEALTHY

    # -- by what becomes of requests --------------------------------------------------------------

    def refused(self, now: float, why: str, ejection: Ejection) -> str:
        """No connection could be made: once is enough, since the request just moves on.

        The time does not grow: finding out that it is back costs no caller an error.
        """
        self.failures = 0
        if self.ejected_until:
            self.ejected_until = max(self.ejected_until, now + ejection.time)
            return ""
        self._refused = True
        return self._eject(now, ejection.time, why)

    def connected(self, now: float) -> str:
        """A connection was made: what :meth:`refused` said is no longer so."""
        if self._refused and self.ejected_until:
            return self._readmit(now, "it takes connections again")
        return ""

    def failed(self, now: float, why: str, ejection: Ejection, room: bool) -> str:
        """A request ended badly there: a status of 500 or more, a reset, no answer in time.

        ``room`` tells whether one more target may be out.
        """
        self.failures += 1
        if self.ejected_until or not room or not 0 < ejection.failures <= self.failures:
            return ""
        count = self.failures
        self.failures = 0
        # As in Envoy: each span without an ejection makes the next one shorter.
        calm = (now - self._ended) / ejection.time if self._count else 0.0
        self._count = max(0, self._count - int(calm)) + 1
        self._refused = False
        seconds = min(self._count * ejection.time, ejection.longest)
        return self._eject(now, seconds, f"{count} failures in a row, the last: {why}")

    def tick(self, now: float) -> str:
        """Whether an ejection has ended by itself; called from time to time."""
        if self.ejected_until and self.ejected_until <= now:
            return self._readmit(now, "its time is over")
        return ""

    def _eject(self, now: float, seconds: float, why: str) -> str:
        self.ejections += 1
        self.ejected_at = now
        self.ejected_until = now + seconds
        self.reason = why
        self.passed = 0
        self._set()
        return f"ejected for {seconds:g} s: {why}"

    def _readmit(self, now: float, why: str) -> str:
        self.ejected_until = 0.0
        self.failures = 0
        self.reason = ""
        self._ended = now
        self._set()
        return f"no longer ejected: {why}"

    # -- by probes --------------------------------------------------------------------------------

    def probed(
        self, began: float, now: float, wrong: str, told: str, thresholds: Thresholds
    ) -> str:
        """A probe that was begun at ``began`` has ended. ``wrong`` says what was wrong, empty when
        it passed; ``told`` is its result in words.

        The very first one decides alone: it is asked at once, so that a target that is down when
        the gateway starts is not tried ``fall`` times by callers (as HAProxy and Envoy do it).
        """
        first = not self.probes
        self.probes += 1
        self.probe, self.probed_at = told, now
        if wrong:
            self.passed = 0
            self._failed += 1
            if not self.failing and (first or self._failed >= thresholds.fall):
                self.failing = wrong
                self.unhealthy += 1
                self._set()
                times = f" ({self._failed} times)" if self._failed > 1 else ""
                return f"unhealthy: {wrong}{times}"
            if self.failing:
                self.failing = wrong
            return ""
        self._failed = 0
        if self.ejected_until and began < self.ejected_at:
            return ""  # it saw the target as it was before
        self.passed += 1
        if self.passed < thresholds.rise or not (self.failing or self.ejected_until):
            return ""
        self.failing = ""
        self._set()
        if self.ejected_until:
            self._readmit(now, "")
        return f"healthy again: {counted(self.passed)} passed"

    def unwatched(self) -> str:
        """Nobody probes it any more: what the last probes said is of no account."""
        self.passed = self._failed = self.probes = 0
        self.probe, self.probed_at = "", 0.0
        if not self.failing:
            return ""
        self.failing = ""
        self._set()
        return "no longer unhealthy: it is not probed any more"

    # -- by command -------------------------------------------------------------------------------

    def drain(self, on: bool) -> str:
        """Keep new requests away, or no longer."""
        if self.draining == on:
            return ""
        self.draining = on
        self._set()
        return "draining: no new requests" if on else "no longer draining"

    def _set(self) -> None:
        if self.draining:
            self.out = Out.NEVER
        else:
            self.out = Out.LAST if self.failing or self.ejected_until else Out.IN


def counted(probes: int) -> str:
    return f"{probes} probe{'' if probes == 1 else 's'}"


def room_for_one_more(out: int, count: int, ejection: Ejection) -> bool:
    """Whether one more of ``count`` targets may be ejected while ``out`` are out already."""
    return (out + 1) * 100 <= ejection.share * count
