"""The total order of routes against a sorter that knows nothing of tables."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.http1.fields import request_fields
from edgeproxy.http1.grammar import HeadLimits, RequestHead, parse_request
from edgeproxy.routing import NoRoute, PathKind, Router, Rule, find

TABLE = request_fields()

HOSTS = ["a.example", "b.example", "x.a.example", "*.example", "*.a.example", "*"]
ASKED = [
    "a.example",
    "b.example",
    "c.example",
    "x.a.example",
    "y.a.example",
    "x.y.example",
    "local",
]
PATHS = [b"/", b"/a", b"/a/", b"/a/b", b"/a/b/", b"/ab", b"/b", b"/a/b/c"]
PATTERNS = [rb"/a.*", rb"/(a|b)", rb"/.*", rb"/a/[^/]+"]
METHODS = [
    frozenset[bytes](),
    frozenset([b"GET"]),
    frozenset([b"POST"]),
    frozenset([b"GET", b"PUT"]),
]
CONDITIONS = [(), ((b"x-v", b"1"),), ((b"x-v", b"2"),), ((b"x-v", b"1"), (b"x-w", b"1"))]


@st.composite
def rules(draw: st.DrawFn) -> list[Rule[int]]:
    made = []
    for order in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(PathKind))
        regex = kind is PathKind.REGEX
        path = draw(st.sampled_from(PATTERNS if regex else PATHS))
        made.append(
            Rule(
                draw(st.sampled_from(HOSTS)),
                draw(st.sampled_from(METHODS)),
                kind,
                path,
                draw(st.sampled_from(CONDITIONS)),
                order,
                order,
                re.compile(path) if regex else None,
            )
        )
    return made


def head_of(method: bytes, fields: tuple[tuple[bytes, bytes], ...]) -> RequestHead:
    lines = b"".join(b"%b: %b\r\n" % (name.title(), value) for name, value in fields)
    data = method + b" / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n"
    found = parse_request(data, TABLE, HeadLimits())
    assert found is not None
    return found[0]


def host_matches(pattern: str, host: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return re.fullmatch(r"[^.]+" + re.escape(pattern[1:]), host) is not None
    return pattern == host


def path_matches(rule: Rule[int], path: bytes) -> bool:
    if rule.kind is PathKind.EXACT:
        return path == rule.path
    if rule.kind is PathKind.REGEX:
        return re.fullmatch(rule.path, path) is not None
    if rule.path.endswith(b"/"):
        return path.startswith(rule.path)
    return path == rule.path or path.startswith(rule.path + b"/")


def order(rule: Rule[int]) -> tuple[object, ...]:
    """behaviour.md, "Choice of route", word by word."""
    return (
        ["exact", "wildcard", "any"].index(
            "any" if rule.host == "*" else "wildcard" if "*" in rule.host else "exact"
        ),
        [PathKind.EXACT, PathKind.PREFIX, PathKind.REGEX].index(rule.kind),
        -len(rule.path) if rule.kind is PathKind.PREFIX else 0,
        not rule.methods,
        -len(rule.when),
        rule.order,
    )


@settings(max_examples=500, deadline=None)
@given(
    rules(),
    st.sampled_from(ASKED),
    st.sampled_from([*PATHS, b"/a/x", b"/abc", b"/c", b"/a/b/c/d"]),
    st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE"]),
    st.sampled_from([(), ((b"x-v", b"1"),), ((b"x-v", b"1"), (b"x-w", b"1")), ((b"x-v", b"3"),)]),
)
def test_the_total_order(
    made: list[Rule[int]],
    host: str,
    path: bytes,
    method: bytes,
    fields: tuple[tuple[bytes, bytes], ...],
) -> None:
    router = Router(made)
    assert [rule.order for rule in router.ordered] == [r.order for r in sorted(made, key=order)]
    fitting = [
        rule
        for rule in sorted(made, key=order)
        if host_matches(rule.host, host)
        and path_matches(rule, path)
        and set(rule.when) <= set(fields)
    ]
    wanted = [rule.action for rule in fitting if not rule.methods or method in rule.methods]
    try:
        found = find(router.tables(host), path, method, head_of(method, fields))
    except NoRoute as error:
        assert not wanted
        assert error.allowed == frozenset().union(*(rule.methods for rule in fitting))
    else:
        assert wanted and found == wanted[0]


def test_conditions_are_exact_and_any_line_may_hold_them() -> None:
    rule = Rule("*", frozenset(), PathKind.PREFIX, b"/", ((b"x-v", b"1"),), 0, "found")
    tables = Router([rule]).tables("a")
    assert find(tables, b"/", b"GET", head_of(b"GET", ((b"x-v", b"0"), (b"x-v", b"1")))) == "found"
    for fields in [(), ((b"x-v", b"11"),), ((b"x-v", b"1, 2"),), ((b"x-w", b"1"),)]:
        with pytest.raises(NoRoute):
            find(tables, b"/", b"GET", head_of(b"GET", fields))


def test_five_thousand_routes_are_no_slower_than_five() -> None:
    """Counted, not timed: how many rules are asked for one request."""
    asked = 0

    class Counting(Rule[int]):
        def takes(self, method: bytes, head: RequestHead) -> bool:
            nonlocal asked
            asked += 1
            return super().takes(method, head)

    made = [
        Counting("a", frozenset([b"GET"]), PathKind.PREFIX, b"/p/%d" % n, (), n, n)
        for n in range(5000)
    ]
    tables = Router(made).tables("a")
    assert find(tables, b"/p/4711/x/y/z", b"GET", head_of(b"GET", ())) == 4711
    assert asked == 1
