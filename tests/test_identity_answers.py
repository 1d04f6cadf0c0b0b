"""What is remembered of callers: how long, how many, and that guesses drive nobody out."""

from __future__ import annotations

from edgeproxy.identity.answers import Answers, Known
from edgeproxy.identity.principal import Principal

ANN = Principal("ann", "Ann")


def known(fresh: float, stale: float | None = None) -> Known[Principal]:
    return Known(ANN, fresh, fresh if stale is None else stale)


def test_known_until_it_is_stale() -> None:
    answers = Answers[Principal]()
    answers.let_in(b"a", known(10, 20))
    assert answers.known(b"a", 19.9) == known(10, 20)
    assert answers.known(b"a", 20) is None
    assert len(answers) == 0


def test_refused_until_then() -> None:
    answers = Answers[Principal]()
    answers.refuse(b"a", "unknown", 5)
    assert answers.refusal(b"a", 4.9) == "unknown"
    assert answers.refusal(b"a", 5) is None
    assert answers.refused == 0


def test_one_or_the_other() -> None:
    answers = Answers[Principal]()
    answers.let_in(b"a", known(10))
    answers.refuse(b"a", "gone", 5)
    assert answers.known(b"a", 1) is None
    answers.let_in(b"a", known(10))
    assert answers.refusal(b"a", 1) is None


def test_the_one_asked_about_longest_ago_makes_room() -> None:
    answers = Answers[Principal](most=2)
    for name in (b"a", b"b", b"a", b"c"):
        answers.let_in(name, known(10))
    assert [answers.known(name, 1) is not None for name in (b"a", b"b", b"c")] == [
        True,
        False,
        True,
    ]
    assert len(answers) == 2


def test_guesses_drive_nobody_out() -> None:
    answers = Answers[Principal](most=2, most_refused=3)
    answers.let_in(b"a", known(10))
    for number in range(100):
        answers.refuse(b"%d" % number, "unknown", 5)
    assert answers.known(b"a", 1) is not None
    assert answers.refused == 3
    assert answers.refusal(b"99", 1) == "unknown"
    assert answers.refusal(b"0", 1) is None
