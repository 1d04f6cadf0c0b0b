"""`edgeproxy routes`, and what all tables share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import call, called, on_terminal, write
from tokens_support import key, key_set

PAGE = {"page": True}
ROUTES = {
    "*": {"/": PAGE},
    "*.example.com": {"/": PAGE},
    "api.example.com": {
        "regex:/v[0-9]+/.*": "app",
        "/": "app",
        "/orders": {"to": "app", "limit": "few"},
        "POST /orders": "app",
        "exact:/orders": {"page": True, "auth": "none"},
        "/when": [{"to": "app", "when": {"X-Beta": "1"}}, "app"],
    },
}
RIGHT = [
    ("api.example.com", "exact:/orders"),
    ("api.example.com", "POST /orders"),
    ("api.example.com", "/orders"),
    ("api.example.com", "/when [1]"),
    ("api.example.com", "/when"),
    ("api.example.com", "/"),
    ("api.example.com", "regex:/v[0-9]+/.*"),
    ("*.example.com", "/"),
    ("*", "/"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(
        tmp_path,
        upstreams={"app": "http://127.0.0.1:9001"},
        limits={"few": {"rate": "1/min"}},
        routes=ROUTES,
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_hosts_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        upstreams={"app": "http://127.0.0.1:9001"},
        auth={"staff": {"client_certificate": "ca.pem"}},
        client_certificates={
            "a.example.com": "staff",
            "b.example.com": {"by": "staff", "required": False},
        },
        routes={
            "a.example.com": {
                "/1": {"to": "app", "auth": "none"},
                "/2": {"to": "app", "auth": "staff"},
                "/3": "app",
            },
            "b.example.com": {"/4": {"to": "app", "auth": ["staff", "api_key"]}},
        },
    )
    monkeypatch.chdir(tmp_path)
    lines = called("routes").splitlines()
    for path, credentials in {
        "/1": "OPEN + staff certificate",
        "/2": "staff",
        "/3": "api_key + staff certificate",
        "/4": "staff, api_key",
    }.items():
        (line,) = (line for line in lines if f" {path} " in line)
        assert f" {credentials}  " in line, line
    asked = [route["client_certificate"] for route in json.loads(called("routes", "--json"))]
    assert [each["required"] for each in asked] == [True, True, True, False]


def _named(route: dict[str, object]) -> tuple[object, str]:
    methods = "|".join(route["methods"]) + " " if route["methods"] else ""  # type: ignore[arg-type]
    kind = "" if route["kind"] == "prefix" else f"{route['kind']}:"
    return route["host"], f"{methods}{kind}{route['path']}{' [1]' if route['when'] else ''}"


def test_routes_stand_in_their_total_order(folder: Path) -> None:
    found = json.loads(called("routes", "--json"))
    assert [_named(route) for route in found] == RIGHT
    assert [route["order"] for route in found] == list(range(1, 10))
    assert [route["open"] for route in found] == [True] + [False] * 8


def test_the_order_is_the_one_in_which_the_gateway_looks(folder: Path) -> None:
    """Each route, asked for as precisely as it can be, is found before those listed after it."""
    from edgeproxy.cli.listing import in_order
    from edgeproxy.config import load
    from edgeproxy.snapshot import compile_limits, compile_router
    from edgeproxy.upstream.upstream import Upstream

    config = load(folder / "edgeproxy.yaml")
    upstreams = {name: Upstream(name, ()) for name in config.upstreams}
    router = compile_router(config, upstreams, compile_limits(config, {}))
    assert [config.routes[rule.order] for rule in router.ordered] == in_order(config)


def test_open_routes_are_marked_in_the_table(folder: Path) -> None:
    result = call("routes")
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["#", "HOST", "METHODS", "PATH"]
    assert [line.split()[0] for line in lines if " OPEN " in line] == ["1"]
    assert "edgeproxy.yaml:" in lines[1]
    assert "open to callers without a key: 1 route, marked OPEN" in result.stderr
    assert "\x1b" not in result.stdout


def test_routes_that_may_become_a_websocket_say_so(tmp_path: Path) -> None:
    routes = {"*": {"/": "app", "/chat": {"to": "app", "websocket": True}}}
    write(tmp_path, upstreams={"app": "http://127.0.0.1:9001"}, routes=routes)
    lines = called("routes", "--config", str(tmp_path / "edgeproxy.yaml")).splitlines()
    assert [" app (websocket) " in line for line in lines] == [False, True, False]
    found = json.loads(called("routes", "--json", "--config", str(tmp_path / "edgeproxy.yaml")))
    assert [route["websocket"] for route in found] == [True, False]


def test_who_may_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        upstreams={"app": "http://127.0.0.1:9001"},
        auth={
            "staff": {"jwt": "https://id.example.com", "audience": "shop", "jwks": "keys.json"},
            "guest": {"anonymous": {}},
        },
        routes={
            "a.example.com": {
                "/1": {"to": "app", "auth": {"all": ["staff", "api_key"]}},
                "/2": {"to": "app", "auth": ["api_key", "guest"]},
                "/3": {"to": "app", "shadow": True, "deny": "10.0.0.66"},
                "/4": {"to": "app", "allow": "10.0.0.0/8"},
                "/5": {"to": "app", "allow": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]},
            }
        },
    )
    (tmp_path / "keys.json").write_text(json.dumps(key_set(key())))
    monkeypatch.chdir(tmp_path)
    lines = called("routes").splitlines()
    for path, credentials in {
        "/1": "staff and api_key",
        "/2": "OPEN as guest",
        "/3": "OPEN in shadow mode not from 10.0.0.66/32",
        "/4": "api_key from 10.0.0.0/8",
        "/5": "api_key from 10.0.0.1/32 or 10.0.0.2/32 and 1 more",
    }.items():
        (line,) = (line for line in lines if f" {path} " in line)
        assert f" {credentials}  " in line, line
    words = [
        "staff and api_key",
        "everybody, as guest or by api_key",
        "everybody, in shadow mode; else api_key, not from 10.0.0.66/32",
        "api_key, from 10.0.0.0/8",
        "api_key, from 10.0.0.1/32 or 10.0.0.2/32 or 10.0.0.3/32",
    ]
    found = json.loads(called("routes", "--json"))
    assert [route["who"] for route in found] == words
    assert [route["open"] for route in found] == [False, True, True, False, False]
    checked = json.loads(call("check", "--json").stdout)
    assert [route["who"] for route in checked["routes"]] == words
    told = [warning for warning in checked["warnings"] if warning.startswith("open")]
    assert [warning.partition(" (")[0] for warning in told] == [
        "open to everyone, as guest: a.example.com /2",
        "open to everyone, in shadow mode: a.example.com /3",
    ]


def test_colours_only_on_a_terminal(folder: Path) -> None:
    seen = on_terminal("routes", cwd=folder)
    assert "\x1b[1;31m" in seen
    assert "OPEN" in seen


def test_a_wrong_configuration_is_told(folder: Path) -> None:
    write(folder, rotues={})
    result = call("routes")
    assert result.exit_code == 1
    assert "edgeproxy: edgeproxy.yaml:" in result.stderr


def test_names_from_certificates_cannot_play_with_the_terminal() -> None:
    import click
    from click.testing import CliRunner

    from edgeproxy.cli.output import table

    @click.command()
    def show() -> None:
        table(["A"], [["x\x1b[2J\ny"]])

    assert CliRunner().invoke(show).output == "A\nx\\x1b[2J\\ny\n"


def test_a_resource_stands_where_upstreams_do(folder: Path) -> None:
    write(folder, routes={"*": {"/": {"resource": "nowhere.Status", "options": {"a": 1}}}})
    (found,) = json.loads(called("routes", "--json"))
    assert (found["to"], found["resource"]) == (None, "nowhere.Status")
    assert "nowhere.Status" in called("routes")
