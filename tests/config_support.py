"""Configurations written with a » before each place where a problem is expected."""

from edgeproxy.config import ConfigError, Problem, parse

MARK = "»"

#: Something that is right, for the tests to stand on.
BASE = "upstreams: { users: http://127.0.0.1:9001, orders: http://127.0.0.1:9002 }\n"
ROUTE = "routes: { '*': { /: users } }\n"


def problems(text: str, **environ: str) -> list[Problem]:
    """What is wrong with `text`; nothing when it loads."""
    try:
        parse(text, "e.yaml", environ=environ)
    except ConfigError as error:
        return error.problems
    return []


def unmarked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """`text` without marks, and where they stood: (line, column), both from 1."""
    places = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        while MARK in line:
            places.append((number, line.index(MARK) + 1))
            line = line.replace(MARK, "", 1)
        lines[number - 1] = line
    return "\n".join(lines), places


def assert_problems(marked: str, *messages: str, **environ: str) -> None:
    """The problems of `marked` stand exactly at its marks, and hold these messages, in order."""
    text, places = unmarked(marked)
    found = problems(text, **environ)
    assert [(each.line, each.column) for each in found] == places, [str(each) for each in found]
    assert len(found) == len(messages)
    for each, message in zip(found, messages, strict=True):
        assert message in each.message, str(each)
