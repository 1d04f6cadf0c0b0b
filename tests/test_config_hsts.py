"""`hsts:` as it is written."""

from __future__ import annotations

import pytest
from config_support import assert_problems

from edgeproxy.config import parse
from edgeproxy.config.hsts import Hsts, hsts_of

TOP = "upstreams: { shop: http://127.0.0.1:9001 }\nroutes: { a.example.com: { /: shop } }\n"


def test_two_years_as_mozilla_recommends() -> None:
    for written in ("730d", "63072000s", "63072000"):
        config = parse(TOP + f"hsts: {{ a.example.com: {{ max_age: {written} }} }}\n")
        assert config.hsts["a.example.com"].max_age == 63072000


def test_a_host_in_any_spelling() -> None:
    """They are looked up as requests name them: whoever writes otherwise means the same."""
    top = 'routes: { "*": { /: { page: true, auth: none } } }\n'
    config = parse(top + 'hsts: { A.Example.com.: 1h, "*.BÜCHER.example": 2h, "[0:0::1]": 3h }\n')
    assert list(config.hsts) == ["a.example.com", "*.xn--bcher-kva.example", "[::1]"]


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
        ("hsts: { a.example.com: »733d }", ["more than 0 and at most 732d; 365d is usual"]),
        # One message, not that there is no route for it besides.
        ("hsts: { »a.example.com:8443: 365d }", ["has a port; leave it out"]),
        ("hsts: { »'a b': 365d }", ["'a b' is not a host name"]),
        ("hsts: { a.example.com: 1h, »A.example.com: 2h }", ["stands in e.yaml:"]),
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
