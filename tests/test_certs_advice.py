"""What is not wrong yet."""

from __future__ import annotations

from datetime import timedelta

from certs_support import DAY, NOW
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.certs.advice import all_advice, open_keys, part_left
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import Chain


def chain(*names: str, kind: str = "ECDSA", left: float = 60, life: float = 90) -> Chain:
    end = NOW + left * DAY
    fingerprint = f"{names} {kind} {left}"
    return Chain(
        names, kind, end - life * DAY, end, b"", b"", (f"{names[0]} {left}",), "", fingerprint
    )


def advice(*chains: Chain) -> dict[str, str]:
    found = all_advice(NameMap(chains, None, NOW), (), {})
    return {problem.file: problem.message for problem in found}


@given(st.floats(0.01, 5000), st.floats(-0.5, 1))
def test_the_parts_of_any_life(life: float, left: float) -> None:
    one = chain("a.example", left=life * left, life=life)
    # Away from the moments themselves, which are microseconds.
    seconds = (one.not_after - NOW) / timedelta(seconds=1)
    whole = (one.not_after - one.not_before) / timedelta(seconds=1)
    expected = None
    if seconds >= 0:
        expected = 10 if seconds <= whole / 10 else 5 if seconds <= whole / 5 else None
    if all(abs(seconds - whole * part) > 0.001 for part in (0, 0.1, 0.2)):
        assert part_left(one, NOW) == expected


def test_certificates_of_six_days_are_told_late_enough() -> None:
    assert advice(chain("a.example", left=1.3, life=6)) == {}
    assert "a fifth" in advice(chain("a.example", left=1.1, life=6))["a.example 1.1"]


def test_only_what_answers_grows_old() -> None:
    assert advice(chain("a.example", left=3), chain("a.example")) == {}
    # The other type of key answers beside it.
    assert list(advice(chain("a.example", left=3), chain("a.example", kind="RSA"))) == [
        "a.example 3"
    ]


def test_overlaps() -> None:
    part = chain("a.example", "b.example", left=40)
    assert advice(part, chain("b.example", "c.example")) == {
        "a.example 40": "its certificate is for b.example too, and b.example 60 answers: "
        "one name, two certificates in use"
    }
    assert advice(part, chain("b.example", "a.example")) == {}
    assert advice(part, chain("b.example", "c.example", left=-1)) == {}
    assert advice(part, chain("*.example")) == {}
    many = chain(*(f"{n}.example" for n in range(9)), left=40)
    (message,) = advice(many, chain(*(f"{n}.example" for n in range(1, 20)))).values()
    assert "is for 1.example, 2.example, 3.example, … too" in message


def test_a_newer_certificate_that_an_older_one_outlives() -> None:
    old = chain("a.example", left=300, life=365)
    new = chain("a.example", left=89)
    told = {
        "a.example 89": "its certificate for a.example is not used: a.example 300 began earlier, "
        "and goes before it as it lasts longer"
    }
    assert advice(old, new) == advice(new, old) == told
    # Where its other names are answered by what began later still, those are not told.
    both = chain("a.example", "b.example", left=89)
    assert advice(old, both, chain("b.example", left=89.5)) == told
    # It has begun when the old one did; the other type of key; a name of its own; too early.
    assert advice(chain("a.example", left=300, life=301), new) == {}
    assert advice(old, chain("a.example", left=89, kind="RSA")) == {}
    assert (
        advice(old, chain("a.example", "b.example", left=89))
        .popitem()[1]
        .startswith("its certificate is for a.example too")
    )
    assert advice(old, chain("a.example", left=120)) == {}


@given(st.lists(st.floats(1, 40), min_size=1, max_size=9), st.floats(1, 400))
def test_what_renewals_leave_behind_is_not_told(gaps: list[float], life: float) -> None:
    """However often it was renewed, as long as each lasts longer than the one before."""
    begin = NOW - sum(gaps) * DAY
    left = [(begin - NOW) / DAY + life]
    for gap in gaps:
        left.append(left[-1] + gap)
    assert not any(
        "not used" in m
        for m in advice(*(chain("a.example", left=each, life=life) for each in left)).values()
    )


def test_modes() -> None:
    modes = {"a": 0o600, "b": 0o640, "c": 0o604, "d": 0o620, "e": 0o400, "f": 0o444, "g": 0o777}
    told = [problem.file for problem in open_keys((*modes, "gone"), modes)]
    assert told == ["c", "d", "f", "g"]
