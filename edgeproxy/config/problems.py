"""What is wrong with a configuration: one `Problem` for each place, all of them at once."""

import difflib
from collections.abc import Iterable
from typing import NamedTuple

_COMPARISONS = 50_000  # about a second of difflib, however many names are misspelt
_LONGEST_NAME = 64  # difflib is quadratic, and nobody misspells more than this


class Problem(NamedTuple):
    """One thing that is wrong. `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class ConfigError(Exception):
    """A configuration that is not loaded. `problems` holds every reason, in reading order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = [
            problem._replace(file=_printable(problem.file), message=_printable(problem.message))
            for problem in problems
        ]
        super().__init__("\n".join(str(problem) for problem in self.problems))


def _printable(text: str) -> str:
    """One line that every terminal takes, whatever names and values stand in it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Suggestions:
    """`did you mean …?`, with a bound on the work for one load."""

    def __init__(self) -> None:
        self._left = _COMPARISONS
        self._sorted: tuple[object, list[str]] = (None, [])

    def near(self, name: str, known: Iterable[str]) -> str:
        """`; did you mean 'x'?`, or nothing when nothing is near."""
        names = self._in_order(known)
        self._left -= len(names)
        if self._left < 0 or len(name) > _LONGEST_NAME:
            return ""
        by_fold = {each.casefold().replace("-", "_"): each for each in names}
        found = difflib.get_close_matches(name.casefold().replace("-", "_"), by_fold, 1)
        return f"; did you mean '{by_fold[found[0]]}'?" if found else ""

    def unknown(self, name: str, known: Iterable[str]) -> str:
        """As `near`; when nothing is near, what there is (as far as one line holds it)."""
        names = self._in_order(known)
        near = self.near(name, known)
        if near or not names:
            return near
        listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        return f"; there is: {listed}"

    def _in_order(self, known: Iterable[str]) -> list[str]:
        """`known` sorted; the last answer is kept, as 5,000 routes ask about one set of names."""
        if self._sorted[0] is not known:
            self._sorted = (known, sorted(known))
        return self._sorted[1]
