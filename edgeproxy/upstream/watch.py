"""Which targets are probed, and what becomes of the results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeproxy.upstream.health import Thresholds
from edgeproxy.upstream.target import Target

if TYPE_CHECKING:
    from edgeproxy.upstream.probe import Prober


class Check(NamedTuple):
    """What is asked, and which answers are good. Seconds; statuses in ranges, ends included.

    ``host`` is the Host that is asked for; ``None``: the target's own.
    """

    path: str
    host: str | None = None
    statuses: tuple[tuple[int, int], ...] = ((200, 200),)
    interval: float = 5.0
    timeout: float = 2.0
    thresholds: Thresholds = Thresholds()

    def good(self, status: int) -> bool:
        return any(low <= status <= high for low, high in self.statuses)


def load_treq() -> None:
    """Import what probes need: a third of a second, which is better spent in the thread of a
    reload than between requests, and not at all where nothing is probed."""
    import edgeproxy.upstream.probe  # noqa: F401


class Watch:
    """The probers of all targets that have a check, once it is started."""

    def __init__(self, reactor: Any, now: Callable[[], float]) -> None:
        self._reactor = reactor
        self._now = now
        self._wanted: dict[Target, Check] = {}
        self._probers: dict[Target, Prober] = {}
        self._started = False

    def start(self) -> None:
        self._started = True
        self.use(self._wanted)

    def use(self, wanted: dict[Target, Check]) -> None:
        """These are probed from now on; those that are already, by the same check, go on."""
        self._wanted = wanted
        if not self._started:
            return
        probers = self._probers
        watched = {id(target.health) for target in wanted}
        for target, prober in tuple(probers.items()):
            check = wanted.get(target)
            if check == prober.check and _host(target, check) == prober.host:
                continue
            probers.pop(target).stop()
            if id(target.health) not in watched:
                target.tell(target.health.unwatched())
        for target, check in wanted.items():
            if target not in probers:
                probers[target] = self._prober(target, check)
                probers[target].start()

    def _prober(self, target: Target, check: Check) -> Prober:
        from edgeproxy.upstream.probe import Prober

        told = partial(self._told, target, check)
        return Prober(self._reactor, self._now, target, _host(target, check), check, told)

    def _told(self, target: Target, check: Check, began: float, wrong: str, result: str) -> None:
        health = target.health
        target.tell(health.probed(began, self._now(), wrong, result, check.thresholds))

    def stop(self) -> None:
        self._started = False
        for prober in self._probers.values():
            prober.stop()
        self._probers.clear()


def _host(target: Target, check: Check) -> str:
    """What Host says: the target's own where nobody has said otherwise; nginx names a socket
    so, too."""
    if check.host:
        return check.host
    scheme, _, host = target.url.partition("://")
    return host.removesuffix({"http": ":80", "https": ":443"}[scheme]) if host else "localhost"
