"""Many of a kind, one line."""

from __future__ import annotations

from edgeproxy.bursts import PAUSE, Burst


def test_the_first_at_once_then_one_a_minute() -> None:
    burst = Burst()
    assert burst.another(5.0)
    assert not any(burst.another(5.0 + PAUSE * part / 10) for part in range(10))
    assert burst.another(5.0 + PAUSE)
    assert not burst.another(5.0 + PAUSE)
    assert burst.count == 13
