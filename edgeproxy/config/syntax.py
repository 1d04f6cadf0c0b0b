"""What PyYAML says about text that is not YAML, said so that it can be put right."""

import yaml

from edgeproxy.config.problems import Problem

DEPTH = 32  # the deepest sensible configuration needs 9
TOO_DEEP = f"nested more than {DEPTH} deep; nothing here needs that"

#: A part of PyYAML's or libyaml's message -> what is wrong and what would be right.
_WORDS = (
    # libyaml 0.2.6 counts open brackets while it looks ahead, before we see the first of them.
    ("maximum nesting depth", TOO_DEEP),
    (
        "while scanning an alias",
        'text that begins with * needs quotes, as in "*.example.com"',
    ),
    ("while scanning an anchor", "text that begins with & needs quotes"),
    ("'\\t'", "a tab indents this line; YAML indents with spaces"),
    ("tab character", "a tab indents this line; YAML indents with spaces"),
    ("cannot start any token", "this text begins with a character that needs quotes around it"),
    (
        "mapping values are not allowed",
        "a second `: ` on one line; put text that holds it in quotes",
    ),
    ("could not find expected ':'", "a key without its colon; write `key: value`"),
    ("found unexpected end of stream", "a quote opens here that never closes"),
    (
        "did not find expected ',' or '}'",
        "a { opens here that is not closed, or a comma is missing",
    ),
    (
        "did not find expected ',' or ']'",
        "a [ opens here that is not closed, or a comma is missing",
    ),
    ("expected ',' or '}'", "a { opens here that is not closed, or a comma is missing"),
    ("expected ',' or ']'", "a [ opens here that is not closed, or a comma is missing"),
    ("did not find expected key", "the indentation does not fit the lines above"),
    ("expected <block end>", "the indentation does not fit the lines above"),
    ("did not find expected '-' indicator", "the indentation does not fit the list above"),
    (
        "block sequence entries are not allowed",
        "a list cannot begin here; put it on lines of its own",
    ),
    ("escape", "an escape that YAML does not know; write \\\\ for a backslash, or use ' for \""),
    ("undefined tag handle", "text that begins with ! needs quotes"),
    ("while scanning a tag", "text that begins with ! needs quotes"),
    ("directive", "a line that begins with % needs quotes"),
    ("while scanning a block scalar", "after | or > the line ends, and the text stands below it"),
    ("document start", "the text goes on after its end; is a line indented too little?"),
)
_OTHERWISE = "this is not YAML; write `key: value` lines, indented with spaces"


class Unreadable(Exception):
    """The text is not YAML that we read; carries the one problem that can be told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def position(text: str, index: int) -> tuple[int, int]:
    """(line, column), both from 1, of the character at `index`."""
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


def explain(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    """The problem behind a parser's error, at the place that helps most."""
    said = f"{error.context or ''} {error.problem or ''}"
    message = next((ours for theirs, ours in _WORDS if theirs in said), _OTHERWISE)
    mark = error.problem_mark or error.context_mark
    if error.context_mark and (" opens here" in message or "needs quotes, as" in message):
        mark = error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = text.split("\n", line)
    if len(lines) >= line and lines[line - 1][: max(column, 1)].lstrip(" ").startswith("\t"):
        message = "a tab indents this line; YAML indents with spaces"
    return Problem(file, line, column, message)
