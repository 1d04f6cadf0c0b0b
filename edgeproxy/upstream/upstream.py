"""A service with its targets: which one gets the next request, and what may be repeated."""

from __future__ import annotations

from collections.abc import Iterable
from random import random
from typing import TYPE_CHECKING, Literal

from edgeproxy.upstream.balance import Balancer, Hash, LeastRequests, RoundRobin
from edgeproxy.upstream.budget import RetryBudget
from edgeproxy.upstream.health import EJECTION, Ejection, Out, room_for_one_more
from edgeproxy.upstream.target import Target

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange

Balance = Literal["round_robin", "least_requests", "key", "address"]


class Upstream:
    """See the module's text. ``urls`` are the targets as they are configured; ``balance`` is how
    they share the work, with ``key`` and ``address`` what is hashed."""

    __slots__ = (
        "_balance",
        "_balancer",
        "_ejection",
        "budget",
        "name",
        "only",
        "origins",
        "targets",
    )

    _balancer: Balancer[Target]

    def __init__(
        self,
        name: str,
        urls: Iterable[str],
        balance: Balance = "round_robin",
        ejection: Ejection = EJECTION,
    ) -> None:
        self.name = name
        self.budget = RetryBudget()
        self._balance = balance
        self._ejection = ejection
        origins = {url.encode("ascii") for url in urls if not url.startswith("unix:")}
        # A service may leave the default port out of its own address.
        short = {
            each.removesuffix(b":443" if each.startswith(b"https") else b":80") for each in origins
        }
        self.origins = tuple(origins | short)
        self.use(())

    def use(self, targets: Iterable[Target]) -> None:
        """These are its targets from now on."""
        self.targets: tuple[Target, ...] = tuple(targets)
        if self._balance == "round_robin":
            self._balancer = RoundRobin(self.targets)
        elif self._balance == "least_requests":
            self._balancer = LeastRequests(self.targets, random)
        else:
            self._balancer = Hash(self.targets)
        self.look()

    def look(self) -> None:
        """A target is draining, or is no longer."""
        #: The target, where there is only one, and nothing to choose.
        self.only: Target | None = None
        if len(self.targets) == 1 and not self.targets[0].health.draining:
            self.only = self.targets[0]

    def choose(self, exchange: Exchange) -> Target | None:
        """The next target for an exchange, an ailing one where there is no other; ``None`` when
        it has been to all."""
        tried = exchange.tried
        caller = self._caller(exchange)
        target = self._balancer.next(tried, caller)
        return target or self._balancer.next(tried, caller, Out.LAST)

    def with_room(self, exchange: Exchange) -> Target | None:
        """A target for an exchange that would have to wait for a connection at the last one
        chosen; ``None`` where all are as crowded, or where callers stay with their target."""
        if isinstance(self._balancer, Hash):
            return None
        crowded = [target for target in self.targets if not target.pool.room]
        if len(crowded) == len(self.targets):
            return None
        return self._balancer.next((*exchange.tried, *crowded), "")

    def again(self, exchange: Exchange) -> Target | None:
        """A target to repeat a request at: another one that is well, else any that is well, else
        another, else any. What has been tried is forgotten where it is tried anew."""
        caller = self._caller(exchange)
        tried = exchange.tried
        for most in (Out.IN, Out.LAST):
            for passed_over in (tried, ()):
                target = self._balancer.next(passed_over, caller, most)
                if target is not None:
                    exchange.tried = passed_over
                    return target
        return None

    def _caller(self, exchange: Exchange) -> str:
        principal = exchange.principal
        if self._balance == "key" and principal is not None and principal.caller:
            return principal.caller
        return exchange.client

    def failed(self, target: Target, why: str, now: float) -> None:
        """A request has ended badly at a target: it may be ejected for that."""
        out = sum(each.health.out > Out.IN for each in self.targets)
        room = room_for_one_more(out, len(self.targets), self._ejection)
        target.tell(target.health.failed(now, why, self._ejection, room))
