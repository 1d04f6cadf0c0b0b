"""No spelling of a path reaches a weaker route than the one that the service will see."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from edgeproxy.errors import GatewayError
from edgeproxy.http1.fields import request_fields
from edgeproxy.http1.grammar import HeadLimits, RequestHead, parse_request
from edgeproxy.paths import Path, normalise, strip_prefix
from edgeproxy.routing import NoRoute, PathKind, Router, Rule, find

_BITS = st.sampled_from([
    b"/", b"/", b"//", b".", b"..", b"%2e", b"%2E", b"%2f", b"%2F", b"%5c", b"\\", b";", b"%3b",
    b"%",
    b"%00", b"%0d%0a", b"%20", b"%25", b"%252e", b"%c0%ae", b"%e2%80%a4", b"a", b"b", b"A", b"%61",
    b"%41", b"%7e", b"~", b"-", b"open", b"%6fpen", b"admin", b"%61dmin", b"adm%69n", b"#", b"*",
    b"+", b"=", b"&", b"@", b":", b",", b"%2", b"%zz", b"\x7f", b"%7F", b"%ff", b"|", b'"', b"<",
])  # fmt: skip
_VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
PATHS = st.one_of(
    st.lists(_BITS, max_size=12).map(b"".join), _VISIBLE.map(str.encode)
).map(lambda path: b"/" + path.replace(b"?", b"").replace(b"\x7f", b""))  # fmt: skip


def accepted(raw: bytes) -> Path:
    try:
        return normalise(raw)
    except GatewayError as error:
        assert error.status == 400
        assert error.close
        assume(False)
        raise


@settings(max_examples=600, deadline=None)
@given(PATHS)
@example(b"/open/%2e%2e/admin")
@example(b"/open%2f..%2fadmin")
@example(b"/open/..;/admin")
@example(b"/open/.;x/admin")
def test_one_form(raw: bytes) -> None:
    path = accepted(raw)
    # What a service decodes is what the rules look at; and nothing but spelling has changed.
    assert unquote_to_bytes(path.wire) == path.decoded == unquote_to_bytes(raw)
    assert re.fullmatch(rb"[\x21-\x7e]+", path.wire)
    # Normal once is normal for ever.
    assert normalise(path.wire) == path
    # A service that resolves dots, merges slashes or turns backslashes finds nothing to do.
    assert b"\\" not in path.decoded
    assert b"\0" not in path.decoded
    text = path.decoded.decode("latin-1")
    assert posixpath.normpath(text).rstrip("/") == text.rstrip("/")
    # So does one that cuts parameters off dot segments, as servlets do.
    cut = re.sub(r"(/\.{0,2});[^/]*", r"\1", text)
    assert posixpath.normpath(cut).rstrip("/") == text.rstrip("/")
    assert path.slash == (re.search(rb"%2[fF]", raw) is not None)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=4))
def test_segments_survive(segments: list[bytes]) -> None:
    """Whatever a segment holds, if it is accepted it arrives as it was."""
    raw = b"/" + b"/".join(quote_from_bytes(s, safe="").encode() for s in segments)
    path = accepted(raw)
    assert [unquote_to_bytes(each) for each in path.wire[1:].split(b"/")] == segments


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        normalise(raw)
    except GatewayError as error:
        assert error.status == 400


@pytest.mark.parametrize(
    ("raw", "decoded", "wire"),
    [
        (b"/", b"/", b"/"),
        (b"/a/b/", b"/a/b/", b"/a/b/"),
        (b"/%61%7E%2D", b"/a~-", b"/a~-"),
        (b"/%c3%a4", b"/\xc3\xa4", b"/%C3%A4"),
        (b"/a%20b", b"/a b", b"/a%20b"),
        (b"/a%2fb", b"/a/b", b"/a%2Fb"),
        (b"/a%252e%252e", b"/a%2e%2e", b"/a%252e%252e"),
        (b"/a;v=1/b", b"/a;v=1/b", b"/a;v=1/b"),
        (b"/.well-known/..a/a..", b"/.well-known/..a/a..", b"/.well-known/..a/a.."),
        (b"/...", b"/...", b"/..."),
        (b'/"<>^`{|}', b'/"<>^`{|}', b'/"<>^`{|}'),
    ],
)
def test_accepted(raw: bytes, decoded: bytes, wire: bytes) -> None:
    assert normalise(raw)[:2] == (decoded, wire)


@pytest.mark.parametrize("raw", [
    b"", b"a", b"//", b"/a//b", b"/a//", b"/.", b"/..", b"/a/.", b"/a/./b", b"/a/../b", b"/%2e",
    b"/a/%2e%2e/b", b"/a/.%2e", b"/a%2eb", b"/%2f", b"/a%2f", b"/a%2f%2fb", b"/a%2f/b", b"/a/%2fb",
    b"/a%2f..%2fb", b"/a%5cb", b"/a\\b", b"/a%00", b"/a%0a", b"/a%7f", b"/a%1f", b"/..;/a",
    b"/.;/a",
    b"/;/a", b"/a/..;x=y/b", b"/a/..%3bx/b", b"/a%", b"/a%4", b"/a%4g", b"/a%%41", b"/a#b",
])  # fmt: skip
def test_refused(raw: bytes) -> None:
    if raw == b"/a%2f":
        assert normalise(raw).slash  # a slash at the end is fine, if the route takes encoded ones
        return
    with pytest.raises(GatewayError):
        normalise(raw)


# -- routes --------------------------------------------------------------------------------------

PLACES = [b"/", b"/open", b"/open/admin", b"/admin", b"/a", b"/a/b", b"/A", b"/open/a"]


def _head() -> RequestHead:
    found = parse_request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", request_fields(), HeadLimits())
    assert found is not None
    return found[0]


@settings(max_examples=600, deadline=None)
@given(PATHS, st.sets(st.sampled_from(PLACES), min_size=1))
def test_what_the_service_decodes_lies_under_the_chosen_route(
    raw: bytes, places: set[bytes]
) -> None:
    router = Router(
        Rule("*", frozenset(), PathKind.PREFIX, place, (), order, place)
        for order, place in enumerate(sorted(places))
    )
    path = accepted(raw)
    seen = unquote_to_bytes(path.wire)  # by the service
    resolved = posixpath.normpath(seen.decode("latin-1")).encode("latin-1")
    try:
        chosen = find(router.tables("h"), path.decoded, b"GET", _head())
    except NoRoute:
        chosen = b""
    under = [
        place for place in places
        if place == b"/" or resolved == place or resolved.startswith(place + b"/")
    ]  # fmt: skip
    assert chosen == max(under, key=len, default=b"")


@settings(max_examples=400, deadline=None)
@given(PATHS, st.integers(1, 6))
def test_what_is_left_after_stripping(raw: bytes, depth: int) -> None:
    """The rest decodes to what stands below the prefix, whatever the spelling."""
    path = accepted(raw)
    parts = path.decoded.split(b"/")
    prefix = b"/".join(parts[: depth + 1])
    assume(len(parts) > depth + 1 or not path.decoded.endswith(b"/"))
    try:
        rest = strip_prefix(path, prefix)
    except GatewayError as error:
        assert path.slash
        assert error.status == 400
        return
    assert rest.startswith(b"/")
    assert unquote_to_bytes(rest) == (path.decoded[len(prefix) :] or b"/")
    assert normalise(rest).wire == rest


def test_a_prefix_that_ends_within_an_encoded_slash() -> None:
    path = normalise(b"/a%2Fb/c")
    assert strip_prefix(path, b"/a/b") == b"/c"
    with pytest.raises(GatewayError):
        strip_prefix(path, b"/a")
