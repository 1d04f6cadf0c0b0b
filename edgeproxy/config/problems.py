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
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Suggestions:
    """`did you mean …?`, with a bound on the work for one load."""

    def __init__(self) -> None:
        self._left = _COMPARISONS

    def near(self, name: str, known: Iterable[str]) -> str:
        """`; did you mean 'x'?`, or nothing when nothing is near."""
        names = sorted(known)
        self._left -= len(names)
        if self._left < 0 or len(name) > _LONGEST_NAME:
            return ""
        by_fold = {each.casefold().replace("-", "_"): each for each in names}
        found = difflib.get_close_matches(name.casefold().replace("-", "_"), by_fold, 1)
        return f"; did you mean '{by_fold[found[0]]}'?" if found else ""

    def unknown(self, name: str, known: Iterable[str]) -> str:
        """As `near`; when nothing is near, what there is (as far as one line holds it)."""
        names = sorted(known)
        near = self.near(name, names)
        if near or not names:
            return near
        listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        return f"; there is: {listed}"
