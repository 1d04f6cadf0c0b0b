"""Figures gathered in rounds, and the table made of them."""

import statistics
from dataclasses import dataclass, field


@dataclass
class Figures:
    """All rounds of one row for one peer, in the row's unit."""

    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        low, high = min(self.rounds), max(self.rounds)
        return f"{_short(self.median)} ({_short(low)}-{_short(high)})"


@dataclass
class Row:
    """One line of work: its figures by peer, in the order in which peers were measured."""

    name: str
    title: str
    unit: str
    figures: dict[str, Figures] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, peer: str, figure: float) -> None:
        self.figures.setdefault(peer, Figures()).rounds.append(figure)


def _short(figure: float) -> str:
    if figure >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def text(rows: list[Row], peers: list[str], against: str) -> str:
    """The rows for a terminal: median (lowest-highest), and the ratio to `against`."""
    lines = []
    for row in rows:
        lines.append(f"{row.title}, {row.unit}: median (lowest-highest), ratio to {against}")
        base = row.figures.get(against)
        for peer in peers:
            figures = row.figures.get(peer)
            if figures is None:
                continue
            ratio = f"{figures.median / base.median:6.2f}x" if base else ""
            lines.append(f"  {peer:<24}{figures!s:>28}{ratio:>10}")
        lines.extend(f"  {note}" for note in row.notes)
        lines.append("")
    return "\n".join(lines)
