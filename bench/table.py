"""Figures gathered in rounds, and what is made of them: text, JSON, Markdown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

BEGIN = "<!-- written by `make bench`: begin -->"
END = "<!-- written by `make bench`: end -->"


@dataclass
class Row:
    """One line of work: figures by peer and round, in the row's unit.

    `base` is the peer that the others are compared with; `apart` says that the names are not those
    of the other rows' peers.
    """

    name: str
    title: str
    unit: str
    base: str = ""
    apart: bool = False
    figures: dict[str, dict[int, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, peer: str, number: int, figure: float) -> None:
        self.figures.setdefault(peer, {})[number] = figure

    def median(self, peer: str) -> float:
        return median(self.figures[peer].values())

    def span(self, peer: str) -> tuple[float, float]:
        """The lowest and the highest."""
        return min(self.figures[peer].values()), max(self.figures[peer].values())

    def ratio(self, peer: str) -> float | None:
        """Median of the ratios within each round: a machine that slows down slows both."""
        base = self.figures.get(self.base, {})
        ratios = [
            figure / base[number]
            for number, figure in self.figures[peer].items()
            if base.get(number)
        ]
        return median(ratios) if ratios else None


def text(rows: Iterable[Row]) -> str:
    """The rows for a terminal: median (lowest-highest) and ratio to the base."""
    lines = []
    for row in rows:
        if not row.figures:
            continue
        lines.append(f"{row.title}, {row.unit}; ratio to {row.base}")
        for peer in row.figures:
            figures = f"{_short(row.median(peer)):>8}  {_span(row, peer):<18}"
            lines.append(f"  {peer:<28}{figures}{_times(row.ratio(peer)):>8}")
        lines.extend(f"  {note}" for note in row.notes)
        lines.append("")
    return "\n".join(lines)


def as_json(rows: Iterable[Row]) -> dict[str, object]:
    """The rows as plain values, all rounds included."""
    return {
        row.name: {
            "title": row.title,
            "unit": row.unit,
            "notes": row.notes,
            "peers": {
                peer: {
                    "median": row.median(peer),
                    "rounds": list(figures.values()),
                    "ratio": row.ratio(peer),
                }
                for peer, figures in row.figures.items()
            },
        }
        for row in rows
    }


def markdown(rows: Iterable[Row], about: Mapping[str, str]) -> str:
    """A table of rows by peers, and a list of the rest: what was measured, where, with what."""
    shown = [row for row in rows if row.figures]
    beside = [row for row in shown if not row.apart]
    peers = list(dict.fromkeys(peer for row in beside for peer in row.figures))
    lines = ["| | " + " | ".join(peers) + " |", "|---" * (len(peers) + 1) + "|"]
    for row in beside:
        cells = [_cell(row, peer) if peer in row.figures else "-" for peer in peers]
        lines.append(f"| {row.title}, {row.unit} | " + " | ".join(cells) + " |")
    lines += ["", "Median, ratio to the first column within a round, lowest-highest.", ""]
    for row in shown:
        if row.apart:
            figures = "; ".join(f"{peer}: {_cell(row, peer)}" for peer in row.figures)
            lines.append(f"- {row.title}, {row.unit}: {figures}")
        lines.extend(f"- {note}" for note in row.notes)
    lines.extend(f"- {what}: {value}" for what, value in about.items())
    return "\n".join(lines) + "\n"


def write(path: Path, table: str) -> None:
    """Put the table between its two marks in `path`; a page without them gets both at its end."""
    page = path.read_text() if path.exists() else "# Performance\n\n"
    before, begin, rest = page.partition(BEGIN)
    after = rest.partition(END)[2] if begin else "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before.rstrip()}\n\n{BEGIN}\n{table}{END}{after}")


def _cell(row: Row, peer: str) -> str:
    times = _times(row.ratio(peer))
    return f"{_short(row.median(peer))} {times and f'**{times}** '}{_span(row, peer)}"


def _span(row: Row, peer: str) -> str:
    low, high = row.span(peer)
    return f"({_short(low)}-{_short(high)})"


def _short(figure: float) -> str:
    if figure >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"
