"""The pieces that authors hold in their hands: answers, refusals, fields, entries."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.filters import Answer, FieldError, Headers, LogEntry, Refuse
from edgeproxy.filters.contract import field_line


class Anything:
    """A guard that lets everything be written."""

    def may_write(self, headers: Headers, name: str, *, remove: bool) -> None:
        pass


def headers(*lines: bytes) -> Headers:
    return Headers(list(lines), Anything(), request=True)


def test_an_answer() -> None:
    answer = Answer(302, {"Location": "/elsewhere"})
    assert (answer.status, answer.lines, answer.body) == (302, [b"Location: /elsewhere"], b"")
    assert Answer(200, body="é").lines == [b"Content-Type: text/plain; charset=utf-8"]
    assert Answer(200, [("content-type", "text/html")], "é").lines == [b"content-type: text/html"]
    assert (
        Answer(200, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]).lines[1] == b"Set-Cookie: b=2"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Answer(100),
        lambda: Answer(600),
        lambda: Answer(True),
        lambda: Answer(204, body=b"x"),
        lambda: Answer(200, {"Content-Length": "3"}),
        lambda: Answer(200, {"X-A": "a\r\nX-B: b"}),
        lambda: Answer(200, {"X A": "a"}),
        lambda: Refuse(200, "no"),
        lambda: Refuse(403, "no", headers={"Transfer-Encoding": "chunked"}),
    ],
)
def test_what_cannot_be_answered(wrong: Any) -> None:
    with pytest.raises(ValueError):
        wrong()


def test_a_body_is_bytes_or_text() -> None:
    with pytest.raises(TypeError):
        Answer(200, body={"a": 1})  # type: ignore[arg-type]


def test_a_401_says_what_is_wanted() -> None:
    assert Refuse(401, "no").lines == [b"WWW-Authenticate: Bearer"]
    own = Refuse(401, "no", headers={"WWW-Authenticate": "Basic"})
    assert own.lines == [b"WWW-Authenticate: Basic"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "a"),
        ("X:", "a"),
        ("X-A", "a\0"),
        ("X-A", "\u20ac"),
        ("X-A", "a\n"),
        ("X-A", "x" * 8193),
    ],
)
def test_what_is_no_field(name: str, value: str) -> None:
    with pytest.raises(FieldError):
        field_line(name, value)


def test_fields_are_found_in_any_case_and_joined() -> None:
    found = headers(b"X-A: 1", b"x-a:2", b"Cookie: a=1", b"Cookie: b=2", b"X-Ab: 3")
    assert found["X-a"] == "1, 2"
    assert found.get_all("X-A") == ["1", "2"]
    assert found["cookie"] == "a=1; b=2"
    assert "X-B" not in found and "x-ab" in found
    assert found.get("X-B") is None and found.get("X-B", "") == ""
    assert list(found) == ["X-A", "x-a", "Cookie", "Cookie", "X-Ab"]
    with pytest.raises(KeyError):
        found["X-B"]
    assert "a=1" not in repr(found)


def test_fields_are_set_and_removed_in_every_spelling() -> None:
    found = headers(b"X-A: 1", b"x_a: 2", b"X.A: 3", b"X-B: 4")
    found["X-A"] = "5"
    assert found.items() == [("X-B", "4"), ("X-A", "5")]
    found.add("X-A", "6")
    assert found.get_all("X-A") == ["5", "6"]
    del found["x-a"]
    found.remove("X-Never")
    assert found.items() == [("X-B", "4")]
    assert found.written == {b"x-a", b"x-never"}


def test_an_entry_takes_new_members_only() -> None:
    entry = LogEntry({"status": 200})
    entry["tenant"] = "acme"
    entry["tenant"] = "é\n"
    assert (entry["status"], entry["tenant"], len(entry)) == (200, "é\n", 2)
    assert entry.notes() == '"tenant":"\\u00e9\\n",'
    for name, value in [
        ("status", 1),
        ("a b", 1),
        ("a", object()),
        ("a", float("nan")),
        ("a", "x" * 5000),
    ]:
        with pytest.raises(ValueError):
            entry[name] = value
    for number in range(31):
        entry[f"m{number}"] = number
    with pytest.raises(ValueError):
        entry["more"] = 1
