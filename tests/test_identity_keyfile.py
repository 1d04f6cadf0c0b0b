"""Lines of the key file: what is accepted, what is refused and why."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.identity import keyfile
from edgeproxy.identity.keyfile import KeyFileError, parse_line
from edgeproxy.identity.keyrecord import KeyState

NEW_YEAR = 1_767_225_600.0  # 2026-01-01T00:00:00Z
GOOD = {"id": "k1", "name": "one", "digest": "0123456789abcdef" * 4}


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def refused(text: bytes) -> str:
    with pytest.raises(KeyFileError) as caught:
        parse_line(text, 7)
    assert caught.value.line == 7
    assert str(caught.value) == f"line 7: {caught.value.message}"
    return caught.value.message


def test_the_least_that_is_a_key() -> None:
    record = parse_line(line(), 1)
    assert (record.id, record.name, record.consumer) == ("k1", "one", "k1")
    assert record.digest.hex() == GOOD["digest"]
    assert record.not_before == -math.inf
    assert record.expires == math.inf
    assert record.state(0.0) is KeyState.OK
    assert record.principal.id == "k1"
    assert record.principal.plan == ""
    assert record.principal.kind == "api_key"


def test_all_there_is() -> None:
    record = parse_line(
        line(
            created="2025-12-01T00:00:00Z",
            not_before="2026-01-01T00:00:00Z",
            expires="2026-01-01T02:00:00+01:00",
            plan="gold",
            scopes=["read", "pay:all"],
            groups=["staff", "eu"],
            consumer="k0",
            replaces="k0",
            note="for the shop: ünïcode",
            revoked=False,
        ),
        1,
    )
    assert record.not_before == NEW_YEAR
    assert record.expires == NEW_YEAR + 3600
    assert record.principal.id == "k0"
    assert record.principal.plan == "gold"
    assert record.principal.scopes == {"read", "pay:all"}
    assert record.principal.groups == ("staff", "eu")
    assert record.principal is record.principal


def test_times_may_be_numbers() -> None:
    record = parse_line(line(not_before=NEW_YEAR, expires=int(NEW_YEAR) + 1), 1)
    assert (record.not_before, record.expires) == (NEW_YEAR, NEW_YEAR + 1)


def test_states_at_their_edges() -> None:
    record = parse_line(line(not_before=100, expires=200), 1)
    assert [record.state(now) for now in (99.999, 100.0, 199.999, 200.0)] == [
        "not_yet",
        "ok",
        "ok",
        "expired",
    ]
    for revoked in (True, "2026-01-01T00:00:00Z", 5, "2099-01-01T00:00:00Z"):
        gone = parse_line(line(not_before=100, expires=200, revoked=revoked), 1)
        assert [gone.state(now) for now in (50.0, 150.0, 250.0)] == ["revoked"] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "id must be 1 to 64 of"),
        ({"id": "a b"}, "id must be"),
        ({"id": "a\n"}, "id must be"),
        ({"id": 5}, "id must be"),
        ({"id": None}, "id is missing"),
        ({"id": "x" * 65}, "id must be"),
        ({"name": ""}, "name must be"),
        ({"name": " x"}, "name must be"),
        ({"name": "x "}, "name must be"),
        ({"name": "a\r\nX-Consumer-Id: root"}, "name must be"),
        ({"name": "a\x85"}, "name must be"),
        ({"name": "\ud800"}, "name must be"),
        ({"name": "x" * 201}, "name must be"),
        ({"digest": None}, "digest is missing"),
        ({"digest": "0" * 63}, "digest must be 64 hex digits"),
        ({"digest": "0" * 65}, "digest must be"),
        ({"digest": "0" * 62 + "  "}, "digest must be"),
        ({"digest": "g" * 64}, "digest must be"),
        ({"digest": ["0" * 64]}, "digest must be"),
        ({"expires": "2026-01-01"}, "expires must be a time such as"),
        ({"expires": "2026-01-01T00:00:00"}, "expires must be"),  # whose time?
        ({"expires": "soon"}, "expires must be"),
        ({"expires": None}, "expires must be"),
        ({"expires": True}, "expires must be"),
        ({"expires": [1]}, "expires must be"),
        ({"expires": 10**30}, "expires must be"),
        ({"created": "yesterday"}, "created must be"),
        ({"not_before": {}}, "not_before must be"),
        ({"not_before": 200, "expires": 200}, "expires must be later than not_before"),
        ({"revoked": "no"}, "revoked must be"),
        ({"revoked": None}, "revoked must be"),
        ({"plan": 5}, "plan must be"),
        ({"plan": ""}, "plan must be"),
        ({"plan": "two words"}, "plan must be"),
        ({"scopes": "read"}, "scopes must be a list"),
        ({"scopes": ["read", 5]}, "scopes must be words"),
        ({"scopes": ["a b"]}, "scopes must be words"),
        ({"scopes": None}, "scopes must be a list"),
        ({"groups": ["\r\n"]}, "groups must be words"),
        ({"groups": {"a": 1}}, "groups must be a list"),
        ({"consumer": "a b"}, "consumer must be"),
        ({"replaces": 5}, "replaces must be"),
        ({"note": "\udfff"}, "note must be"),
        ({"expiers": "2026-01-01T00:00:00Z"}, "unknown field 'expiers'"),
        ({"": 1}, "unknown field"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], message: str) -> None:
    assert refused(line(**changes)).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not a JSON object"),
        (line()[:-20], "not a JSON object"),
        (line() + line(), "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b"5", "not a JSON object"),
        (b"garbage", "not a JSON object"),
        (b"\x00\x01", "not a JSON object"),
        (b"[" * 60_000, "not a JSON object: nested too deeply"),
        (b'{"note":' * 8_000, "not a JSON object: nested too deeply"),
        (line(note="x" * 65536), "longer than 65536 bytes"),
        (line().replace(b"one", b"\xff\xfe"), "not UTF-8 at byte"),
        (b"\xef\xbb\xbf" + line(), "not a JSON object"),
        (line()[:-1] + b', "expires": 5, "expires": 9e9}', "a field is there twice"),
        (line()[:-1] + b', "expires": Infinity}', "Infinity is not JSON"),
        (line()[:-1] + b', "expires": NaN}', "NaN is not JSON"),
        (line()[:-1] + b', "expires": 1e999}', "expires must be a time"),
    ],
)
def test_what_is_no_object_is_said(text: bytes, message: str) -> None:
    assert refused(text).startswith(message)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.integers(0, 90).map(lambda cut: line()[:cut])))
def test_garbage_gives_the_documented_error_only(text: bytes) -> None:
    try:
        parse_line(text, 1)
    except KeyFileError:
        pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(keyfile._KNOWN)), json_values)
def test_any_value_in_any_field_is_a_record_or_the_documented_error(field: str, value: Any) -> None:
    try:
        record = parse_line(json.dumps({**GOOD, field: value}).encode(), 1)
    except KeyFileError:
        return
    assert record.principal.fields.startswith(b"X-Consumer-Id: ")
    assert record.state(0.0) in KeyState


def test_all_problems_of_a_file_at_once() -> None:
    text = b"\n".join(
        [
            line(),
            b"",
            b"{",
            line(id="k2"),
            line(digest="f" * 64),
            line(id="k3", digest="e" * 64),
            b"\xff",
        ]
    )
    assert [str(problem).split(":")[0] for problem in keyfile.problems(text)] == [
        "line 3",
        "line 4",
        "line 5",
        "line 7",
    ]
    assert str(keyfile.problems(text)[1]) == "line 4: digest of k2 is already on line 1"
    assert str(keyfile.problems(text)[2]) == "line 5: id k1 is already on line 1"
    assert keyfile.problems(b"") == []
    assert keyfile.problems(b"\n\n \r\n") == []


def test_lines_with_carriage_returns_are_read() -> None:
    assert [record.id for record in keyfile.records(line() + b"\r\n") if record] == ["k1"]


def test_changing_one_line_leaves_the_others_as_they_were() -> None:
    odd = b'  {"digest":"' + b"a" * 64 + b'" , "name":"odd","id":"odd"}\t'
    text = b"\n" + odd + b"\n" + line() + b"\n\n" + line(id="k2", digest="b" * 64)
    changed = keyfile.replaced(text, "k1", {"expires": 5})
    before, after = text.split(b"\n"), changed.split(b"\n")
    assert [a for a, b in zip(after, before, strict=True) if a != b] == [line(expires=5)]
    with pytest.raises(KeyError):
        keyfile.replaced(text, "k9", {})
    with pytest.raises(ValueError, match="expires"):
        keyfile.replaced(text, "k1", {"expires": "never"})
    assert keyfile.appended(text, {**GOOD, "id": "k3"}) == text + b"\n" + line(id="k3") + b"\n"
    assert keyfile.appended(b"", GOOD) == line() + b"\n"


def test_stamps_read_back() -> None:
    assert keyfile.stamp(NEW_YEAR + 0.9) == "2026-01-01T00:00:00Z"
    assert keyfile.moment(keyfile.stamp(NEW_YEAR), "x") == NEW_YEAR
