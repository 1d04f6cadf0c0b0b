"""Addresses that show wrong credentials, one after the other.

Each wrong one is counted for the address that it came from (/64 for IPv6), in the windows that
limits have, and good ones never are. When the window of an address is full, its requests are
refused before any credential is looked at, until the oldest wrong one has left.

The table is bounded. Addresses that find it full are not counted: sharing a window, as limits do
then, would let those who flood the table lock others out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from edgeproxy.bursts import Burst
from edgeproxy.limits.table import LimitTable

if TYPE_CHECKING:
    from edgeproxy.config.guessing import Guessing as Settings

_log = Logger()

_STEPS = 16  # entries that are looked at when a newcomer finds the table full, as limits do


class Guessing:
    """See the module's text. `suspects` is empty while no address is held to anything: the one
    thing that other requests look at. `failures` and `refused` count since the start."""

    def __init__(self, settings: Settings) -> None:
        self.failures = self.refused = 0
        self._burst = Burst()
        self._begin(settings)

    def _begin(self, settings: Settings) -> None:
        self._settings = settings
        self._table = LimitTable("guessing", settings.table)
        self.suspects = self._table.callers

    def use(self, settings: Settings) -> None:
        """Another configuration: what was counted under another rate is forgotten."""
        if settings.rate != self._settings.rate:
            self._begin(settings)
        self._settings = settings
        self._table.size = settings.table

    def wait(self, caller: str, now: float) -> int:
        """For how many seconds an address has to be refused; 0 if it may go on.

        `caller` is what limits by address count by, `now` in monotonic seconds.
        """
        self._table.sweep(now, 2)  # so that it is empty again some time after the last
        if caller not in self._table:
            return 0
        usage = self._table.show(caller, now)
        if usage is None or usage.remaining > 0:
            return 0
        self.refused += 1
        return max(1, usage.reset)

    def failed(self, caller: str, now: float) -> None:
        """An address has shown a wrong credential."""
        self.failures += 1
        rate, table = self._settings.rate, self._table
        if rate is None:
            return
        if caller not in table and len(table) >= table.size:
            table.sweep(now, _STEPS)
            if len(table) >= table.size:
                table.overflows += 1
                return
        window = table.window(caller, rate, now)
        if window.full(now):
            return  # asked before it was full, and answered after
        window.record(now)
        if window.remaining <= 0 and self._burst.another(now):
            _log.warn(
                "guessing: {caller} has shown {count} wrong credentials within {seconds:g} s and "
                "is refused for now (429); a proxy in front belongs into `trusted_proxies`",
                caller=caller,
                count=rate.count,
                seconds=rate.window,
            )

    def status(self) -> dict[str, int]:
        """For `edgeproxy status`."""
        return {
            "addresses": len(self._table),
            "failures": self.failures,
            "refused": self.refused,
            "uncounted": self._table.overflows,
        }
