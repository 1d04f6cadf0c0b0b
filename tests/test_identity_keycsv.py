"""Keys from CSV: columns, lists, times, and what is told of a line that is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.identity.keycsv import read

KEY = "0123456789abcdef" * 2


def test_all_columns() -> None:
    text = (
        "name,key,groups,scopes,plan,not_before,expires,consumer,note,id\n"
        f'"Ann, the ""boss""",{KEY},a;b c,"x, y",gold,2026-01-01,2030-01-01T00:00:00+01:00,c,n,i\n'
    )
    (key,) = read(text, "f").keys
    assert (key.name, key.credential, key.digest) == ('Ann, the "boss"', KEY, b"")
    assert key.fields == {
        "groups": ["a", "b", "c"],
        "scopes": ["x", "y"],
        "plan": "gold",
        "not_before": 1767225600.0,
        "expires": 1893452400.0,
        "consumer": "c",
        "note": "n",
        "id": "i",
    }
    assert (key.place.file, key.place.line) == ("f", 2)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write(separator: str, end: str) -> None:
    rows = [["Key", "Name", "Group"], [KEY, "Ann", "staff"], ["", "", ""], [KEY, "Bob", ""]]
    text = "\ufeff" + end.join(separator.join(row) for row in rows)
    found = read(text, "f")
    assert not found.problems
    assert [(key.name, key.place.line) for key in found.keys] == [("Ann", 2), ("Bob", 4)]
    assert found.keys[0].fields["groups"] == ["staff"]


def test_a_line_is_where_its_row_begins() -> None:
    text = f'key,name,note\n{KEY},Ann,"one\ntwo"\n{KEY},,\nx\n'
    found = read(text, "f")
    assert [key.place.line for key in found.keys] == [2, 4]
    assert [str(each) for each in found.problems] == [
        "f:5: 1 fields stand here, and the first line names 3"
    ]


def test_digests() -> None:
    digest = "AB" * 32
    (key,) = read(f"sha256,name,expires\n{digest},Ann,1893456000\n", "f").keys
    assert (key.digest, key.credential) == (b"\xab" * 32, "")
    assert key.fields["expires"] == 1893456000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nAnn", "f:1: the first line names the columns; there is no 'key' or 'sha256'"),
        ("key\nx", "f:1: the first line names the columns; there is no 'name'"),
        ("key,nmae\n", "f:1: the first line names the columns, and 'nmae' is none; did you mean"),
        ("key,name,foo\n", "and 'foo' is none; there are key, sha256, name"),
        (f"{KEY},name\n", "and one of them is none; there are key"),
        ("key,name,key\n", "f:1: the column 'key' is there twice"),
        ('key,name\n"x', "f:2: this is not CSV: "),
        (f"key,name,sha256\n{KEY},Ann,{'ab' * 32}", "f:2: one of `key` and `sha256` is right"),
        ("key,name\n,Ann", "f:2: one of `key` and `sha256` is right"),
        ("sha256,name\nabc,Ann", "f:2: sha256 must be 64 hex digits"),
        (f"key,name,expires\n{KEY},Ann,soon", "f:2: expires must be a time such as"),
        (f"key,name,expires\n{KEY},Ann,2030-02-30", "f:2: expires must be a time such as"),
        (f"key,name,expires\n{KEY},Ann,2030-01-01T00:00", "f:2: expires must be a time such as"),
    ],
)
def test_what_is_wrong(text: str, message: str) -> None:
    found = read(text, "f")
    assert len(found.problems) == 1
    assert message in str(found.problems[0])
    assert KEY not in str(found.problems[0])
    assert not found.keys


@given(st.text(max_size=300) | st.text('key,nam"\n;\t sha256', max_size=300))
def test_nothing_breaks_it(text: str) -> None:
    for start in ("", "key,name\n", 'key;name;groups\n"'):
        found = read(start + text, "f")
        assert all(each.place.line >= 1 for each in found.problems)
