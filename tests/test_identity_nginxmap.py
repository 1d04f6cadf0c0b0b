"""Keys from nginx: what its own parser takes is read so, and anything else is told."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.identity.keyimport import Findings
from edgeproxy.identity.nginxmap import read

KEY = "Zx0123456789abcdefGHIJKLMNOPqrst"


def no_files(name: str, by: str) -> list[tuple[str, str]]:
    raise ValueError(f"{name} of {by} is not there")


def found_in(text: str) -> Findings:
    return read(text, "f", no_files)


def in_map(lines: str) -> Findings:
    return found_in("map $http_x_api_key $client {\n" + lines + "\n}\n")


EXAMPLE = """\
# map $http_x_api_key $x { "commented" out; }
http {
    map $http_x_api_key $client {
        default "";
        volatile;
        plain-key-1 one;  # a comment; with { signs }
        "quoted key" 'two words';
        'a"b\\'c' three;
        "d\\"e\\\\f" three;
        "g#h;i{j}k" four;
        \\~tilde five;
        \\default five;
        "off" "";
        "off2" 0;
        two
          lines;
    }
    map $uri $other { /a b; default $uri; }
    server { listen 127.0.0.1:80; location / { return 200 "${client} };{"; } }
}
events {}
"""


def test_what_the_map_says() -> None:
    found = found_in(EXAMPLE)
    assert [str(each) for each in found.problems] == []
    assert [(key.credential, key.name, key.place.line) for key in found.keys] == [
        ("plain-key-1", "one", 6),
        ("quoted key", "two words", 7),
        ("a\"b'c", "three", 8),
        ('d"e\\f', "three", 9),
        ("g#h;i{j}k", "four", 10),
        ("~tilde", "five", 11),
        ("default", "five", 12),
        ("two", "lines", 15),
    ]
    assert [key.holder for key in found.keys[2:4]] == ["three", "three"]
    assert [note.place.line for note in found.notes] == [13, 14, 6]
    assert "whatever their case" in found.notes[2].message


@pytest.mark.debian("nginx")
def test_nginx_takes_the_example(tmp_path: Path) -> None:
    """Else it would be no example of what it takes."""
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    assert binary is not None
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nerror_log stderr;\n" + EXAMPLE)
    done = subprocess.run(
        [binary, "-t", "-p", str(tmp_path), "-c", "nginx.conf"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_includes() -> None:
    files = {"more.conf": f"{KEY} one;\ninclude again.conf;", "again.conf": "x two"}

    def include(name: str, by: str) -> list[tuple[str, str]]:
        return [(name, files[name])]

    text = "map $http_x_api_key $c {\n include more.conf;\n}"
    found = read(text, "f", include)
    assert [(str(key.place), key.name) for key in found.keys] == [("more.conf:1", "one")]
    assert [str(each) for each in found.problems] == [
        "again.conf:1: this is not nginx's syntax: the file ends within a statement"
    ]
    files["again.conf"] = "include more.conf;"
    found = read(text, "f", include)
    assert [each.message for each in found.problems] == ["too many files include one another"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("hostnames;", "f:2: `hostnames` makes patterns of the keys; remove it"),
        ("~^abc x;", "f:2: a regular expression lets in more than one key"),
        ('"~*abc" x;', "f:2: a regular expression lets in more than one key"),
        ("default nobody;", "f:2: this names callers without a key 'nobody'"),
        ('"" nobody;', "f:2: this names callers without a key 'nobody'"),
        ("abc $uri;", "f:2: the name is made of variables"),
        ("abc;", "f:2: a line of the map is a key and a name"),
        ("a b c;", "f:2: a line of the map is a key and a name"),
        ("include x.conf;", "f:2: x.conf of f is not there"),
        ("a b", "f:2: this is not nginx's syntax: a `;` is missing"),
        ("a { b c; }", "f:2: this is not nginx's syntax: a map holds no blocks"),
        ('"a b;', "f:2: this is not nginx's syntax: the quotes are not closed"),
        ('"a"b c;', "f:2: this is not nginx's syntax: a space is missing after the quotes"),
        ("}", "f:3: this is not nginx's syntax: this `}` closes nothing"),
    ],
)
def test_what_is_wrong(lines: str, message: str) -> None:
    found = in_map(lines)
    assert message in [str(each)[: len(message)] for each in found.problems]


def test_lines_are_counted_within_quotes_too() -> None:
    found = in_map('"a\nb" one;\n\n# x\n  c two;\nd\n three;')
    assert [key.place.line for key in found.keys] == [2, 6, 7]


def test_another_map_is_none() -> None:
    (problem,) = found_in("map $http_apikey $c { a b; }").problems
    assert str(problem) == (
        "f:1: there is no `map $http_x_api_key $client { … }`; there are maps of $http_apikey; "
        "if callers show their keys there, `auth: { api_key: { header: apikey } }` says so"
    )
    (problem,) = found_in("map $http_upgrade $c {} map $http_the_key $d {} map $uri $e {}").problems
    assert str(problem).endswith("`auth: { api_key: { header: the-key } }` says so")
    (problem,) = found_in("map $uri $e {}").problems
    assert str(problem).endswith("there are maps of $uri")
    assert found_in("").problems and found_in("http {").problems


@pytest.mark.parametrize("source", ["$http_shop_key", "${http_shop_key}", "$HTTP_Shop_Key"])
def test_a_map_of_the_field_that_may_carry_keys(source: str) -> None:
    text = f"map {source} $c {{ {KEY} ann; }} map $http_x_api_key $c {{ {KEY}x bob; }}"
    found = read(text, "f", no_files, "Shop-Key")
    assert not found.problems
    assert [key.name for key in found.keys] == ["ann", "bob"]


def test_a_large_file_takes_time_in_proportion() -> None:
    found = in_map("".join(f'"{KEY}{number}" name{number};\n' for number in range(20_000)))
    assert len(found.keys) == 20_000
    assert found.keys[-1].place.line == 20_001


@given(st.text(max_size=200) | st.text("map ;{}\"'\\#\n$~", max_size=200))
def test_nothing_breaks_it(text: str) -> None:
    for start in ("", "map $http_x_api_key $c {"):
        found = found_in(start + text)
        assert all(each.place.line >= 1 for each in found.problems)
