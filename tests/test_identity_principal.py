"""The fields by which an upstream learns who calls."""

from __future__ import annotations

import re
from urllib.parse import unquote

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeproxy.identity.principal import Principal

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
LINE = re.compile(rb"X-Consumer-(Id|Name|Groups): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)\r\n")


def test_plain_names_stay_readable() -> None:
    alice = Principal("3fKq9Zr1Lm2x", "Alice's shop", ("staff", "eu-west"))
    assert alice.fields == (
        b"X-Consumer-Id: 3fKq9Zr1Lm2x\r\n"
        b"X-Consumer-Name: Alice's shop\r\n"
        b"X-Consumer-Groups: staff,eu-west\r\n"
    )
    assert b"Groups" not in Principal("x", "y").fields


@settings(max_examples=300, deadline=None)
@given(words, words, st.lists(words, max_size=4))
@example("a", "x\r\nX-Consumer-Id: root", ["a,b"])
@example("a", " padded ", ["é", " "])
@example("a", "100%41", ["%2c"])
def test_whatever_the_name_it_is_one_field_and_reads_back(
    id: str, name: str, groups: list[str]
) -> None:
    fields = Principal(id, name, tuple(groups)).fields
    found = LINE.findall(fields)
    assert b"".join(b"X-Consumer-%b: %b\r\n" % pair for pair in found) == fields
    told = {field.decode(): value.decode() for field, value in found}
    assert unquote(told["Id"]) == id
    assert unquote(told["Name"]) == name
    assert [unquote(group) for group in told.get("Groups", "").split(",") if group] == groups
