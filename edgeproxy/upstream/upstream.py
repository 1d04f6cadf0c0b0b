"""A service with its targets: which one gets the next request, and what may be repeated."""

from __future__ import annotations

from collections.abc import Sequence

from edgeproxy.upstream.budget import RetryBudget
from edgeproxy.upstream.target import Target


class Upstream:
    """See the module's text. Targets take turns; one that refused lately is skipped while there
    is another."""

    __slots__ = ("_turn", "budget", "name", "only", "origins", "targets")

    def __init__(self, name: str, targets: Sequence[Target]) -> None:
        self.name = name
        self.targets = list(targets)
        self.budget = RetryBudget()
        self._turn = 0
        #: The target, where there is only one.
        self.only = self.targets[0] if len(targets) == 1 else None
        origins = {target.origin.encode("ascii") for target in targets}
        # A service may leave the default port out of its own address.
        self.origins = tuple(origins | {o.removesuffix(b":80") for o in origins})

    def choose(self, now: float, tried: Sequence[Target]) -> Target | None:
        """The next target; ``None`` when all have been tried."""
        if self.only is not None:
            return None if tried else self.only
        targets = self.targets
        count = len(targets)
        start = self._turn
        self._turn = (start + 1) % count
        skipped: Target | None = None
        for step in range(count):
            target = targets[(start + step) % count]
            if target in tried:
                continue
            if target.skip_until <= now:
                return target
            skipped = skipped or target
        return skipped
