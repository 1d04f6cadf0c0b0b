"""YAML text into nodes: core schema, places, bounds, and what is said about broken text."""

import json
import re

import pytest
import yaml
from config_support import assert_problems, problems
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeproxy.config import nodes
from edgeproxy.config.nodes import read, resolve
from edgeproxy.config.syntax import Unreadable


def plain(text: str) -> object:
    root, found = read(text, "e.yaml")
    assert not found
    return root.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("none", "none"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("12", 12),
        ("-7", -7),
        ("012", 12),
        ("0o14", 12),
        ("0xC", 12),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        (".inf", float("inf")),
        ("9" * 5000, "9" * 5000),
        ("+", "+"),
        (".", "."),
    ],
)
def test_core_schema(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)
    assert plain(f"a: {text}") == {"a": value}
    assert plain(f"a: '{text}'") == {"a": text}


def test_keys_are_text() -> None:
    assert plain("{1: a, true: b, null: c, no: d}") == {
        "1": "a",
        "true": "b",
        "null": "c",
        "no": "d",
    }


def test_places() -> None:
    root, _ = read("a:\n  - x\n  - { b: 'ä', c: d }\n", "e.yaml")
    key, value = root.pairs["a"]  # type: ignore[index]
    assert (key.line, key.column) == (1, 1)
    assert (value.items[0].line, value.items[0].column) == (2, 5)  # type: ignore[index]
    c = value.items[1].get("c")  # type: ignore[index]
    assert c is not None and (c.line, c.column) == (3, 18)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.text(st.characters(max_codepoint=0xD7FF, exclude_categories=["Cc", "Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcdef", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values, st.booleans())
def test_json_is_read(value: object, tabs: bool) -> None:
    text = json.dumps(value, ensure_ascii=False, indent="\t" if tabs else None)
    assert plain(text) == value


@settings(deadline=None)
@given(json_values)
def test_yaml_is_read(value: object) -> None:
    # PyYAML writes YAML 1.1, in which text such as 1e3 needs no quotes.
    text = yaml.safe_dump(value, allow_unicode=True)
    assume(not re.search(r"[0-9]e[0-9]|0o", text))
    assert plain(text) == value


def test_aliases_are_read() -> None:
    assert plain("a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        ("a: 1\n»a: 2\n", "'a' stands here twice, first on line 1; remove one"),
        ("a: 1\n»<<: {b: 1}\n", "`<<` is not part of YAML 1.2"),
    ],
)
def test_double_and_merge_keys(marked: str, message: str) -> None:
    place = marked.index("»")
    root, found = read(marked.replace("»", ""), "e.yaml")
    assert [each.line for each in found] == [marked[:place].count("\n") + 1]
    assert message in found[0].message
    assert root.plain() == {"a": 1}


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        ("a:\n»\tb: 1\n", "a tab indents this line; YAML indents with spaces"),
        ("routes:\n  »*.example.com:\n    /: users\n", 'needs quotes, as in "*.example.com"'),
        ("routes:\n  »*:\n    /: users\n", 'needs quotes, as in "*.example.com"'),
        ("a: »@x\n", "begins with a character that needs quotes"),
        ("a: b»: c\n", "a second `: ` on one line"),
        ("a:\n  b: 1\n »c: 1\n", "the indentation does not fit"),
        ("a: »{ b: 1\n", "is not closed"),
        ("a: »[ b\n", "is not closed"),
        ('a: »"b\n', "a quote opens here that never closes"),
        ("a: »!!python/object/apply:os.system [x]\n", "tags such as"),
        ("a: »!x y\n", "tags such as"),
        ("a: 1\n»---\nb: 1\n", "a second document begins; a file holds one"),
        ("a: &x [»*x]\n", "*x stands inside what it names"),
        ("a: »*x\n", "no anchor &x stands above; text that begins with * needs quotes"),
        ("? »[a]\n: b\n", "a key is one line of text, not a list or a mapping"),
        ("? »{a: b}\n: b\n", "a key is one line of text, not a list or a mapping"),
        ("a: b»\x00\n", "the character U+0000 is not text; remove it"),
        ("a: b\nä»\x1b\n", "the character U+001B is not text"),
        ("»" + "[" * 100, "nested more than"),
    ],
)
def test_not_yaml(marked: str, message: str) -> None:
    text = marked.replace("»", "")
    with pytest.raises(Unreadable) as caught:
        read(text, "e.yaml")
    problem = caught.value.problem
    assert message in problem.message
    if "nested" not in message:
        index = marked.index("»")
        line = marked[:index].count("\n") + 1
        assert (problem.line, problem.column) == (line, index - marked[:index].rfind("\n"))


def test_bounds() -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))
    for text in (bomb, chain):
        with pytest.raises(Unreadable, match="aliases make this file too large"):
            read(text, "e.yaml")
    for text in ("[" * 1_000_000, "{a: " * 100_000, "- " * 100_000):
        with pytest.raises(Unreadable, match="nested more than 32 deep"):
            read(text, "e.yaml")


def test_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "MOST", 100)
    assert_many = "a: [" + "x," * 200 + "]"
    with pytest.raises(Unreadable, match="more than 100 values stand in this file; split it"):
        read(assert_many, "e.yaml")


def test_byte_order_mark() -> None:
    assert plain("\ufeffa: 1") == {"a": 1}


def test_one_broken_file_is_one_problem() -> None:
    assert_problems("routes:\n»\t/: users\n", "a tab indents")
    assert len(problems("a: [")) == 1


@settings(deadline=None)
@given(
    st.text(
        st.characters(exclude_categories=["Cs"]) | st.sampled_from(":-[]{}&*!|>'\"%@`#\n\t "),
        max_size=80,
    )
)
def test_only_unreadable(text: str) -> None:
    try:
        root, _ = read(text, "e.yaml")
        root.plain()
    except Unreadable as error:
        assert error.problem.line >= 1 and error.problem.column >= 1
