"""The lines of an answer, with what its host says about TLS."""

from __future__ import annotations

import pytest

from edgeproxy.config.hsts import Hsts
from edgeproxy.hsts import StrictTransport

YEAR = 365 * 86400


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ({"max_age": YEAR}, b"max-age=31536000"),
        ({"max_age": 0}, b"max-age=0"),
        ({"max_age": 60, "subdomains": True}, b"max-age=60; includeSubDomains"),
        (
            {"max_age": YEAR, "subdomains": True, "preload": True},
            b"max-age=31536000; includeSubDomains; preload",
        ),
    ],
)
def test_the_field(said: dict, value: bytes) -> None:
    lines = [b"A: b"]
    expected = [b"A: b", b"Strict-Transport-Security: " + value]
    assert StrictTransport(Hsts(**said)).apply(lines) == expected


THEIRS = [b"strict-TRANSPORT-security:max-age=5", b"A: b", b"Strict-Transport-Security: max-age=6"]


def test_what_stands_there_is_kept_unless_it_shall_be_replaced() -> None:
    assert StrictTransport(Hsts(max_age=60)).apply(THEIRS) == THEIRS
    found = StrictTransport(Hsts(max_age=60, replace=True)).apply(THEIRS)
    assert found == [b"A: b", b"Strict-Transport-Security: max-age=60"]


def test_a_name_that_only_begins_so_is_another_field() -> None:
    other = b"Strict-Transport-Security-Report: x"
    found = StrictTransport(Hsts(max_age=60)).apply([other])
    assert found == [other, b"Strict-Transport-Security: max-age=60"]
