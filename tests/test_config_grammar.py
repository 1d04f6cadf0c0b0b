"""Hosts, route keys, paths, fields, addresses, targets."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config import grammar
from edgeproxy.config.grammar import RouteKey, authority, host, path, route_key, split_address


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("*", "*"),
        ("API.Example.com", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("*.Example.com", "*.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("my_service", "my_service"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("0:0::1", "[::1]"),
    ],
)
def test_hosts(written: str, compared: str) -> None:
    assert host(written) == compared


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "is not a host name"),
        ("a b", "is not a host name"),
        ("-a", "is not a host name"),
        ("a..b", "is not a host name"),
        (".", "is not a host name"),
        ("a" * 64, "is not a host name"),
        ("a." * 130 + "b", "is not a host name"),
        ("api.example.com:8443", "leave it out, a route holds on every port"),
        ("https://api.example.com", "leave out the scheme and the path"),
        ("api.example.com/x", "leave out the scheme and the path"),
        ("*.*.com", "write '*.example.com' or '*'"),
        ("api.*.com", "write '*.example.com' or '*'"),
        ("*example.com", "write '*.example.com' or '*'"),
        ("*.", "is not a host name"),
        ("1.2.3", "neither a name nor an IPv4 address"),
        ("256.1.1.1", "neither a name nor an IPv4 address"),
        ("ab\u0301\u200d.example", "write its xn-- form"),
    ],
)
def test_no_hosts(written: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        host(written)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("/", RouteKey((), "prefix", "/")),
        ("/orders/", RouteKey((), "prefix", "/orders/")),
        ("POST /payments", RouteKey(("POST",), "prefix", "/payments")),
        ("GET|HEAD exact:/a", RouteKey(("GET", "HEAD"), "exact", "/a")),
        ("M-SEARCH /a", RouteKey(("M-SEARCH",), "prefix", "/a")),
        (r"regex:/a/\d+ b", RouteKey((), "regex", r"/a/\d+ b")),
        (r"GET regex:/a/(\d+)", RouteKey(("GET",), "regex", r"/a/(\d+)")),
        ("/a;b=c,d/@x:y", RouteKey((), "prefix", "/a;b=c,d/@x:y")),
        ("/\u00e4/my files", RouteKey((), "prefix", "/\u00e4/my files")),
        ("GET /my files", RouteKey(("GET",), "prefix", "/my files")),
    ],
)
def test_route_keys(written: str, key: RouteKey) -> None:
    assert route_key(written) == key


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "it begins with /"),
        ("orders", "it begins with /, as in '/orders'"),
        ("get /a", "did you mean 'GET'?"),
        ("GET", "it begins with /"),
        ("GET,HEAD /a", "write it as GET or GET|HEAD"),
        ("GET| /a", "write it as GET or GET|HEAD"),
        ("GET|GET /a", "names a method twice"),
        ("TRACE /a", "TRACE is never relayed"),
        ("CONNECT /a", "CONNECT is never relayed"),
        ("GET POST /a", "it begins with /"),
        ("/a//b", "holds //"),
        ("//", "holds //"),
        ("/a/../b", "dot segment"),
        ("/.", "dot segment"),
        ("exact:/a/./b", "dot segment"),
        ("/a%2fb", "percent-encoded"),
        ("/a?b", "routes see the path only"),
        ("/a#b", "routes see the path only"),
        ("/users/{id}", "placeholder"),
        ("/users/<id>", "placeholder"),
        ("/users/:id", "placeholder"),
        ("/api/*", "holds a *; a path holds for all that lies under it"),
        ("/a/..;b", "dot segment"),
        ("/a/;b", "dot segment"),
        ("/a\\b", "a character that no path can hold"),
        ("/a\u2028b", "a character that no path can hold"),
        ("/\ud800", "a character that no path can hold"),
        ("/a\x00", "a character that no path can hold"),
        ("exact:a", "it begins with /"),
        ("/" + "a" * 3000, "longer than"),
        ("regex:", "between 1 and 1000 characters"),
        ("regex:" + "a" * 2000, "between 1 and 1000 characters"),
        ("regex:(", "is not a regular expression: missing ), unterminated subpattern"),
        (r"regex:/\u00e4", "is not a regular expression: bad escape"),
        ("regex:a{99999999999}", "too complex"),
        ("regex:" + "(" * 900, "is not a regular expression|too complex"),
    ],
)
def test_no_route_keys(written: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        route_key(written)
    assert any(each in str(caught.value) for each in message.split("|")), caught.value


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        (":8443", ("", 8443)),
        (":0", ("", 0)),
        ("127.0.0.1:8443", ("127.0.0.1", 8443)),
        ("[::1]:8443", ("::1", 8443)),
        ("[::]:1", ("::", 1)),
    ],
)
def test_addresses(written: str, parts: tuple[str, int]) -> None:
    assert split_address(written) == parts


@pytest.mark.parametrize(
    "written",
    [
        "",
        "8443",
        ":",
        ":x",
        ":65536",
        ":٣",
        "localhost:1",
        "::1:1",
        "[::1]",
        "[1.2.3.4]:1",
        "1.2.3:1",
        ":-1",
        ": 1",
    ],
)
def test_no_addresses(written: str) -> None:
    with pytest.raises(ValueError, match="write|brackets"):
        split_address(written)


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("http://127.0.0.1:9001", ("http", "127.0.0.1", 9001)),
        ("http://pay.internal", ("http", "pay.internal", 80)),
        ("http://Pay.Internal/", ("http", "pay.internal", 80)),
        ("http://[::1]:9001", ("http", "::1", 9001)),
        ("HTTP://a:1", ("http", "a", 1)),
        ("https://pay.internal", ("https", "pay.internal", 443)),
        ("https://[::1]:8443", ("https", "::1", 8443)),
    ],
)
def test_targets(written: str, parts: tuple[str, str, int]) -> None:
    assert grammar.target_url(written) == parts


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "write it as http://10.0.0.1:9001"),
        ("127.0.0.1:9001", "write it as http://10.0.0.1:9001"),
        ("localhost:9001", "write it as http://10.0.0.1:9001"),
        ("ftp://a", "write it as http://10.0.0.1:9001"),
        ("http://", "write it as http://10.0.0.1:9001"),
        ("http://a b", "write it as http://10.0.0.1:9001"),
        ("http://a\n", "write it as http://10.0.0.1:9001"),
        ("http://[::1", "write it as http://10.0.0.1:9001"),
        ("http://[v1.x]", "is not a"),
        ("http://a:99999", "write it as http://10.0.0.1:9001"),
        ("http://a:0", "no port that can be reached"),
        ("http://a:", "no port that can be reached"),
        ("http://[fe80::1%eth0]:80", "names an interface"),
        ("https://", "write it as http://10.0.0.1:9001"),
        ("http://a/b", "leave the rest out"),
        ("http://a?b", "leave the rest out"),
        ("http://a/#", "leave the rest out"),
        ("http://a_b..c", "is not a host name"),
    ],
)
def test_no_targets(written: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        grammar.target_url(written)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "written", ["http://u:sekrit@a", "https://u:sekrit@a", "http://sekrit@a:x"]
)
def test_passwords_of_targets_are_not_shown(written: str) -> None:
    with pytest.raises(ValueError) as caught:
        grammar.target_url(written)
    assert "sekrit" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("10.0.0.2", ("10.0.0.2", 53)),
        ("10.0.0.2:5353", ("10.0.0.2", 5353)),
        ("fd00::2", ("fd00::2", 53)),
        ("[fd00::2]", ("fd00::2", 53)),
        ("[FD00::2]:5353", ("fd00::2", 5353)),
    ],
)
def test_dns_servers(written: str, parts: tuple[str, int]) -> None:
    assert grammar.split_server(written) == parts
    assert grammar.server(written) == written


@pytest.mark.parametrize(
    "written",
    ["", "dns.test", "10.0.0", "10.0.0.2:", "10.0.0.2:0", "10.0.0.2:99999", "[10.0.0.2]:53"]
    + ["[fd00::2", "fd00::2]", "udp://10.0.0.2", "10.0.0.2,10.0.0.3"],
)
def test_no_dns_servers(written: str) -> None:
    with pytest.raises(ValueError, match="write 10.0.0.2, 10.0.0.2:5353 or"):
        grammar.server(written)


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("Example.com", "example.com"),
        ("a:8080", "a:8080"),
        ("[::1]:80", "[::1]:80"),
        ("[::1]", "[::1]"),
    ],
)
def test_authorities(written: str, compared: str) -> None:
    assert authority(written) == compared


@pytest.mark.parametrize(
    "written", ["", "*", "*.a", "a:", "a:0", "a:x", "a:99999999999", "a/b", "::1"]
)
def test_no_authorities(written: str) -> None:
    with pytest.raises(ValueError):
        authority(written)


def test_field_values() -> None:
    assert grammar.field_value("a b\tc") == "a b\tc"
    for wrong in ("", " a", "a ", "a\nb", "a\rb", "a\x00", "ä", "a" * 9000):
        with pytest.raises(ValueError):
            grammar.field_value(wrong)
    with pytest.raises(ValueError) as caught:
        grammar.field_value("sekrit\n", secret=True)
    assert "sekrit" not in str(caught.value)


FUNCTIONS: list[Callable[[str], object]] = [
    grammar.name,
    grammar.limit_name,
    grammar.query_name,
    grammar.field_name,
    grammar.field_value,
    grammar.listening,
    grammar.target_url,
    grammar.server,
    grammar.socket_path,
    grammar.whole_socket_path,
    grammar.regex,
    authority,
    host,
    route_key,
]


@settings(deadline=None)
@given(
    st.text(max_size=50)
    | st.text("/.:%*[]@#?{}()|\\ aGET0-9", max_size=30)
    | st.text(max_size=30).map("http://".__add__)
    | st.text(max_size=30).map("regex:".__add__)
)
def test_only_value_errors(text: str) -> None:
    for function in FUNCTIONS:
        try:
            function(text)
        except ValueError as error:
            assert not isinstance(error, UnicodeError) and len(str(error)) < 400


@settings(deadline=None)
@given(st.text("/.ab%", max_size=12))
def test_paths_that_pass_are_as_requests_are_routed(text: str) -> None:
    try:
        accepted = path(text)
    except ValueError:
        return
    assert accepted.startswith("/") and "//" not in accepted and "%" not in accepted
    assert not {".", ".."} & set(accepted.split("/"))
