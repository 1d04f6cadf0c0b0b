"""Whatever a file holds, the user reads sentences: never a traceback, never pydantic's words."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config import ConfigError, load, parse
from edgeproxy.config.written import Written

EXAMPLE = """\
listen: { https: ":8443", http: ":8080" }
certs: { folder: certs/, default: a.example }
keys: keys.jsonl
auth: { api_key: { query: key } }
limits:
  default: { rate: 100/min, plans: { gold: 1000/min } }
defaults: { auth: api_key, limit: default, response: { set: { X-A: b } } }
upstreams:
  users:    http://127.0.0.1:9001
  payments: { targets: [http://pay.internal], set: { X-Token: "${env:PAY}" } }
routes:
  "*.example.com":
    GET|POST /users: { to: users, scopes: [pay], strip: true, when: { X: y } }
    /status: { page: true, auth: none }
    regex:/a.*: [ users, { to: payments, when: { X: y } } ]
"""
#: Words of pydantic's messages, and of Python's.
FOREIGN = re.compile(
    r"input should be|validation error|extra inputs|field required|valid (string|integer|list)"
    r"|pydantic|traceback|object at 0x|NoneType|<class|\bdict\b|\btuple\b|\bstr\b|another kind of",
    re.IGNORECASE,
)


def assert_sentences(error: ConfigError) -> None:
    assert error.problems
    for problem in error.problems:
        line = str(problem)
        assert re.match(r"[^\n]*:[0-9]+:[0-9]+: .", line) and line.isprintable()
        assert not FOREIGN.search(re.sub(r"'[^']*'", "", line)), line
        assert problem.line >= 1 and problem.column >= 1
        assert len(problem.message) < 1500


def try_it(text: str) -> None:
    try:
        parse(text, "e.yaml", folder=Path("/nonexistent"), environ={"PAY": "x"})
    except ConfigError as error:
        assert_sentences(error)


def setting_names() -> list[str]:
    found = {"routes", "upstreams", "limits", "*", "/a", "GET /b", "a", "[key]", "", "api_key"}

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            found.update(part.get("properties", {}))
            for each in part.values():
                walk(each)

    walk(Written.model_json_schema())
    return sorted(found)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        [
            "a",
            "none",
            "api_key",
            "60s",
            "1/s",
            "10MiB",
            "http://a",
            ":1",
            "key",
            "*",
            "/a",
            "${env:",
        ]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(setting_names()), inner, max_size=4)
    ),
    max_leaves=15,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(list(Written.model_fields)), values, max_size=4))
def test_any_values_under_known_names(document: dict[str, Any]) -> None:
    try_it(json.dumps(document, ensure_ascii=False))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_value_of_an_example_replaced(data: st.DataObject) -> None:
    document = yaml.safe_load(EXAMPLE)
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        below = place[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.booleans()):
            place[key] = data.draw(values)
            break
        place = below
    try_it(yaml.safe_dump(document, allow_unicode=True))


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, len(EXAMPLE)),
    st.integers(0, 20),
    st.text(max_size=5) | st.text("[]{}:,&*!|>'\"%@`#?-\t\n \x00", max_size=5),
)
def test_any_slip_of_the_keyboard(start: int, length: int, put: str) -> None:
    try_it(EXAMPLE[:start] + put + EXAMPLE[start + length :])


@settings(deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=20).map(EXAMPLE.encode().__add__))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    try:
        load(path, environ={"PAY": "x"})
    except ConfigError as error:
        assert_sentences(error)


def test_the_example_loads() -> None:
    """So that the slips above are slips."""
    assert len(parse(EXAMPLE, environ={"PAY": "x"}).routes) == 4


BOMBS = {
    "brackets": "[" * 1_000_000,
    "braces": "{a: " * 200_000,
    "dashes": "- " * 200_000,
    "block": "".join(" " * n + "a:\n" for n in range(2000)),
    "quotes": '"' * 200_001,
    "bangs": "!" * 200_000,
    "questions": "? " * 200_000,
    "colons": "a:" * 200_000,
    "one key": "a" * 1_000_000 + ": b",
    "one value": "keys: " + "a" * 1_000_000,
    "digits": "listen: { connections: " + "9" * 1_000_000 + " }",
    "self": "routes: &a { b: *a }",
    "laughs": "a0: &a0 [x,x]\n"
    + "".join(f"a{n}: &a{n} [*a{n - 1},*a{n - 1}]\n" for n in range(1, 99)),
    "regex": "routes: { '*': { 'regex:" + "(" * 900 + ")" * 900 + "': a } }",
    "surrogate": "keys: \ud800",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_bombs(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "e.yaml")
    assert_sentences(caught.value)
