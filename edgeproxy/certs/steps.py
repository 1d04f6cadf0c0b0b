"""Work in steps of a few milliseconds: a generator that yields between them, returns the result."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

_Result = TypeVar("_Result")


def run(steps: Generator[None, None, _Result]) -> _Result:
    """Take all steps at once and return what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result
