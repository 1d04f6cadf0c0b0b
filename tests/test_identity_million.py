"""What many keys cost in memory and in turns of the reactor, measured in a process of its own.

A hundred thousand here, which is enough for the cost of each; `python -m bench.keys` has a million.
"""

from __future__ import annotations

import pytest

from bench import keys

COUNT = 100_000


@pytest.mark.parametrize("peppered", [False, True])
def test_a_million_would_fit(peppered: bool) -> None:
    found = keys.run(COUNT, peppered=peppered)
    assert found["keys"] == COUNT
    assert found["per_key"] < 600, "a million would take more than 600 MB"
    assert found["longest_slice"] < 0.020
    assert found["again"]["longest_slice"] < 0.020
