"""Plain integers, counted where things happen and read when somebody asks."""

from __future__ import annotations

from edgeproxy.exchange import Exchange


class Counters:
    """Since the start: requests by status and outcome, and bytes of bodies both ways."""

    __slots__ = ("outcomes", "received", "requests", "sent", "statuses")

    def __init__(self) -> None:
        self.requests = 0
        self.received = 0
        self.sent = 0
        self.statuses: dict[int, int] = {}
        self.outcomes: dict[str, int] = {}

    def count(self, exchange: Exchange) -> None:
        self.requests += 1
        self.received += exchange.received
        self.sent += exchange.sent
        status = exchange.status
        statuses = self.statuses
        statuses[status] = statuses.get(status, 0) + 1
        outcome = exchange.outcome
        if outcome is not None:
            name = outcome._value_
            self.outcomes[name] = self.outcomes.get(name, 0) + 1

    def as_dict(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "received_bytes": self.received,
            "sent_bytes": self.sent,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "outcomes": dict(sorted(self.outcomes.items())),
        }
