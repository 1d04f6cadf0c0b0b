"""What a reload says: which routes, upstreams and limits, and what has to wait for a start."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeproxy.changes import describe
from edgeproxy.config import Config, parse

BASE: dict[str, Any] = {
    "upstreams": {"a": "http://127.0.0.1:1", "b": "http://127.0.0.1:2"},
    "limits": {"few": {"rate": "1/min"}},
    "routes": {"*": {"/a": "a", "/b": {"to": "b", "limit": "few"}}},
}


def config(**changes: Any) -> Config:
    return parse(json.dumps({**BASE, **changes}))


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"routes": {"*": {"/a": "a"}}}, ["route removed: * /b"]),
        (
            {"routes": {"*": {"/a": "b", "/b": {"to": "b", "limit": "few"}, "POST /c": "a"}}},
            ["route added: * POST /c", "route changed: * /a"],
        ),
        (
            {"upstreams": {"a": "http://127.0.0.1:3", "b": "http://127.0.0.1:2"}},
            ["upstream changed: a"],
        ),
        ({"limits": {"few": {"rate": "2/min"}}}, ["limit changed: few"]),
        ({"server_header": "keep"}, ["server_header changed"]),
        ({"trusted_proxies": ["10.0.0.0/8"]}, ["trusted_proxies changed"]),
        ({"auth": {"api_key": {"query": "key"}}}, ["auth changed"]),
        ({"access_log": "off"}, ["access_log changed: takes effect at the next start"]),
        ({"listen": {"https": ":9443"}}, ["listen changed: takes effect at the next start"]),
        ({"listen": {"tls": "modern"}}, ["listen: tls is modern now"]),
        (
            {"listen": {"tls": "modern", "http": ":9080"}},
            ["listen: tls is modern now", "listen changed: takes effect at the next start"],
        ),
        ({"hsts": {"*": "1h"}}, ["hsts changed"]),
        ({"control": "other.sock"}, ["control changed: takes effect at the next start"]),
    ],
)
def test_each_difference_is_a_line(changes: dict[str, Any], lines: list[str]) -> None:
    assert describe(config(), config(**changes)) == lines


def test_many_are_counted() -> None:
    many = {f"/{number}": "a" for number in range(9)}
    (line,) = describe(config(routes={"*": {"/x": "a"}}), config(routes={"*": {"/x": "a", **many}}))
    assert line == "routes added: * /0, * /1, * /2, * /3, * /4 and 4 more"


def test_where_a_route_stands_in_the_file_makes_no_difference() -> None:
    one = parse(json.dumps(BASE))
    other = parse("\n\n" + json.dumps(BASE, indent=2))
    assert one.routes[0].line != other.routes[0].line
    assert describe(one, other) == []


def test_another_order_is_told() -> None:
    first = config(routes={"*": {"regex:/a.*": "a", "regex:/b.*": "b"}})
    second = config(routes={"*": {"regex:/b.*": "b", "regex:/a.*": "a"}})
    assert describe(first, second) == ["routes: another order"]


def test_every_setting_is_told_of() -> None:
    """A setting that is added to the configuration must not be forgotten here."""
    from edgeproxy import changes

    told = {"routes", "upstreams", "limits", *changes._IN_FORCE, *changes._AT_START}
    told |= {"source", "folder", "defaults"}  # where it lies; what its routes have inherited
    assert set(Config.model_fields) == told
