"""What each filter has done and cost: plain numbers, read when somebody asks."""

from __future__ import annotations


class Counts:
    """Of one filter, by the name in the configuration, since the start of the process.

    ``seconds`` lie between a hook's call and its result, waiting included; ``shadowed`` are
    answers, failures and waits of a filter in shadow mode that were not enforced.
    """

    __slots__ = ("calls", "errors", "refused", "seconds", "shadowed", "timeouts")

    def __init__(self) -> None:
        self.calls = self.errors = self.refused = self.shadowed = self.timeouts = 0
        self.seconds = 0.0

    def as_dict(self) -> dict[str, object]:
        return {
            "calls": self.calls,
            "seconds": round(self.seconds, 6),
            "refused": self.refused,
            "errors": self.errors,
            "timeouts": self.timeouts,
            "shadowed": self.shadowed,
        }
