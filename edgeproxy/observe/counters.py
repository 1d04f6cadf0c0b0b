"""Plain integers, counted where things happen and read when somebody asks."""

from __future__ import annotations

from edgeproxy.exchange import Exchange, Outcome

_OK = Outcome.OK


class Counters:
    """Since the start: requests by status and by outcome, and bytes of bodies both ways."""

    __slots__ = ("outcomes", "received", "sent", "shadow", "statuses")

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0
        #: By status; 0 for those that ended without an answer.
        self.statuses = [0] * 1000
        #: By outcome, but for the good one.
        self.outcomes: dict[Outcome, int] = {}
        #: By the status that policies in shadow mode would have answered.
        self.shadow: dict[int, int] = {}

    def count(self, exchange: Exchange) -> None:
        self.received += exchange.received
        self.sent += exchange.sent
        self.statuses[exchange.status] += 1
        outcome = exchange.outcome
        if outcome is not _OK and outcome is not None:
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if exchange.shadow:
            for status, _ in exchange.shadow:
                self.shadow[status] = self.shadow.get(status, 0) + 1

    def as_dict(self) -> dict[str, object]:
        requests = sum(self.statuses)
        bad = {outcome.value: count for outcome, count in self.outcomes.items()}
        return {
            "requests": requests,
            "received_bytes": self.received,
            "sent_bytes": self.sent,
            "statuses": {str(n): count for n, count in enumerate(self.statuses) if count},
            "shadow": {str(status): count for status, count in sorted(self.shadow.items())},
            "outcomes": {_OK.value: requests - sum(bad.values()), **dict(sorted(bad.items()))},
        }
