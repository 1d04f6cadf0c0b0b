"""`hsts:` as it is written."""

from __future__ import annotations

import pytest
from config_support import assert_problems

from edgeproxy.config import parse
from edgeproxy.config.hsts import Hsts, hsts_of

TOP = "upstreams: { shop: http://127.0.0.1:9001 }\nroutes: { a.example.com: { /: shop } }\n"


def test_short_and_long() -> None:
    config = parse(
        TOP
        + """
hsts:
  a.example.com: 365d
  "*.example.com": 0
  "*": { max_age: 365d, subdomains: true, preload: true, replace: true }
"""
    )
    year = 365 * 86400
    assert config.hsts == {
        "a.example.com": Hsts(max_age=year),
        "*.example.com": Hsts(max_age=0),
        "*": Hsts(max_age=year, subdomains=True, preload=True, replace=True),
    }
    assert parse(TOP).hsts == {}


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("hsts: { a.example.com: »1y }", ["'1y' is not a duration; write it as 60s"]),
        ("hsts: { a.example.com: »500ms }", ["not whole seconds"]),
        ("hsts: { a.example.com: »-1 }", ["out of range"]),
        ("hsts: { a.example.com: »true }", ["true is not a duration"]),
        ("hsts: { a.example.com: »{ subdomains: true } }", ["max_age"]),
        ("hsts: { a.example.com: { max_age: 1h, »subdomain: true } }", ["mean 'subdomains'?"]),
        (
            "hsts: { a.example.com: »{ max_age: 365d, preload: true } }",
            ["write `{ max_age: 365d, subdomains: true, preload: true }`"],
        ),
        (
            "hsts: { a.example.com: »{ max_age: 364d, subdomains: true, preload: true } }",
            ["accepted for a year"],
        ),
        (
            "hsts: { »a.exampel.com: 365d }",
            ["no route is for 'a.exampel.com'; did you mean 'a.example.com'?"],
        ),
    ],
)
def test_what_is_wrong(text: str, messages: list[str]) -> None:
    assert_problems(TOP + text + "\n", *messages)


@pytest.mark.parametrize(
    ("host", "age"),
    [("a.x.test", 1), ("b.x.test", 2), ("x.test", 3), ("b.a.x.test", 3), ("localhost", 3)],
)
def test_the_nearest_entry_counts(host: str, age: int) -> None:
    table = {
        "a.x.test": Hsts(max_age=1),
        "*.x.test": Hsts(max_age=2),
        "*": Hsts(max_age=3),
    }
    found = hsts_of(host, table)
    assert found is not None and found.max_age == age
    assert hsts_of(host, {}) is None
