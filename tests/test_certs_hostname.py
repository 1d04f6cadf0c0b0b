from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.certs.hostname import (
    normalise,
    normalise_address,
    normalise_pattern,
    parent_pattern,
)

LONGEST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("example.com.", "example.com"),
        ("localhost", "localhost"),
        ("a_b.example.com", "a_b.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("bücher。example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("9.example", "9.example"),
        (LONGEST, LONGEST),
        (LONGEST + ".", LONGEST),
    ],
)
def test_a_host_name_has_one_spelling(name: str, expected: str) -> None:
    assert normalise(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "example.com..",
        ".example.com",
        "a..b",
        "*.example.com",
        "*",
        "127.0.0.1",
        "1.2.3.4.",
        "1.2.3",
        "0x7f.1",
        "::1",
        "[::1]",
        "example.com:443",
        "exa mple.com",
        "example.com\n",
        "example.com\0",
        "example.com/",
        "-a.example",
        "a-.example",
        "a" * 64 + ".example",
        LONGEST + "x",
        "é" * 300,
        "xn--\udc80",
        "\u200d",
        "a\u3002\u3002b",
        "ex%61mple.com",
        "example.com\r\nX: y",
        "ẞ" * 254,
    ],
)
def test_what_cannot_be_a_host_name_is_none(name: str) -> None:
    assert normalise(name) is None


@given(st.text(max_size=300))
def test_any_text_gives_a_name_that_normalises_to_itself_or_none(text: str) -> None:
    name = normalise(text)
    if name is not None:
        assert normalise(name) == name == name.lower()
        assert 0 < len(name) <= 253
        assert all(0 < len(label) <= 63 for label in name.split("."))
        assert normalise(name.upper() + ".") == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("127.1", None),
        ("localhost", None),
        ("", None),
        ("[", None),
    ],
)
def test_addresses(text: str, expected: str | None) -> None:
    assert normalise_address(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("*.Example.com.", "*.example.com"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("example.com", "example.com"),
        ("*", None),
        ("*.", None),
        ("*.*.example.com", None),
        ("f*.example.com", None),
        ("a.*.example.com", None),
    ],
)
def test_a_wildcard_is_the_whole_first_label_or_nothing(name: str, expected: str | None) -> None:
    assert normalise_pattern(name) == expected


def test_a_wildcard_stands_for_one_label() -> None:
    assert parent_pattern("a.b.example.com") == "*.b.example.com"
    assert parent_pattern("localhost") is None
