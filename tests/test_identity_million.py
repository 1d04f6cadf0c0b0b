"""What many keys cost in memory and in turns of the reactor, measured in a process of its own.

A hundred thousand here, which is enough for the cost of each; `python -m bench.keys` has a million.
"""

from __future__ import annotations

import pytest

from bench import keys

COUNT = 100_000
BOUND = 0.020
"""Seconds that a turn of the reactor may take; a slice takes 3 to 4 ms."""
TRIES = 3
"""Processor time too is longer where others have the machine: the best of so many counts."""


@pytest.mark.parametrize("peppered", [False, True])
def test_a_million_would_fit(peppered: bool) -> None:
    longest: list[float] = []
    while len(longest) < TRIES and (not longest or longest[-1] > BOUND):
        found = keys.run(COUNT, peppered=peppered)
        assert found["keys"] == COUNT
        assert found["per_key"] < 600, "a million would take more than 600 MB"
        longest.append(max(found["longest_slice"], found["again"]["longest_slice"]))
    assert min(longest) < BOUND
