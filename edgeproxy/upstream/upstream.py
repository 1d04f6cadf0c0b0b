"""A service with its targets: which one gets the next request, and what may be repeated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeproxy.upstream.budget import RetryBudget
from edgeproxy.upstream.target import Target


class Upstream:
    """See the module's text. Targets take turns; one that refused lately is skipped while there
    is another. ``urls`` are the targets as they are configured."""

    __slots__ = ("_turn", "budget", "name", "only", "origins", "targets")

    def __init__(self, name: str, urls: Iterable[str]) -> None:
        self.name = name
        self.budget = RetryBudget()
        self._turn = 0
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
        #: The target, where there is only one.
        self.only = self.targets[0] if len(self.targets) == 1 else None

    def choose(self, now: float, tried: Sequence[Target]) -> Target | None:
        """The next target; ``None`` when all have been tried."""
        if self.only is not None:
            return None if self.only in tried else self.only
        targets = self.targets
        count = len(targets)
        start = self._turn
        self._turn = (start + 1) % (count or 1)
        skipped: Target | None = None
        for step in range(count):
            target = targets[(start + step) % count]
            if target in tried:
                continue
            if target.skip_until <= now:
                return target
            skipped = skipped or target
        return skipped
