"""Whole configurations: what is loaded and inherited, where paths lead, included files."""

import os
import sys
import time
from ipaddress import ip_network
from pathlib import Path

import pytest

from edgeproxy.config import Config, ConfigError, Rate, Target, load, parse
from edgeproxy.config.keys import Keys
from edgeproxy.config.model import FieldRules, Limit, Route, Upstream

EXAMPLE = """
listen: { https: ":8443", http: ":8080" }
certs: certs/
keys: keys.jsonl
include: conf.d/*.yaml
limits:
  default: { rate: 100/min, plans: { gold: 1000/min } }
  pay:     { rate: 10/min }
defaults: { auth: api_key, limit: default }
upstreams:
  users:    http://127.0.0.1:9001
  orders:   [http://10.0.0.2:9002, http://10.0.0.3:9002]
  payments: { targets: [http://pay.internal], set: { X-Token: "${env:PAY}" } }
routes:
  api.example.com:
    /users:         users
    /orders:        orders
    POST /payments: { to: payments, scopes: [pay], limit: [default, pay] }
    /status:        { page: true, auth: none }
"""


def test_example(tmp_path: Path) -> None:
    config = parse(EXAMPLE, folder=tmp_path, environ={"PAY": "s3cret"})
    assert (config.listen.https, config.listen.http) == (":8443", ":8080")
    assert config.certs.folder == tmp_path / "certs"
    assert config.keys == Keys(file=tmp_path / "keys.jsonl")
    assert config.limits["default"].rate == Rate(100, 60.0)
    assert config.limits["default"].plans == {"gold": Rate(1000, 60.0)}
    assert config.upstreams["orders"].targets == (
        Target(host="10.0.0.2", port=9002),
        Target(host="10.0.0.3", port=9002),
    )
    assert config.upstreams["payments"].set["X-Token"].get_secret_value() == "s3cret"
    assert "s3cret" not in repr(config)
    users, _, pay, status = config.routes
    assert (users.host, users.path, users.to) == ("api.example.com", "/users", "users")
    assert users.auth == ("api_key",) and users.limit == ("default",) and not users.open
    assert (pay.methods, pay.scopes, pay.limit) == (("POST",), ("pay",), ("default", "pay"))
    assert status.open and status.page


def one(text: str, **options: str) -> Route:
    (route,) = parse("upstreams: { a: http://a }\n" + text, environ=options).routes
    return route


def test_defaults_of_everything(tmp_path: Path) -> None:
    config = parse("routes: { '*': { /: { page: true } } }", folder=tmp_path)
    placed = {"folder", "routes", "certs", "keys", "access_log", "control"}
    rest = config.model_dump(exclude=placed)
    fresh = Config().model_dump(include=set(rest))
    assert rest == fresh
    assert config.access_log == tmp_path / "access.log"
    assert config.control.path == tmp_path / "edgeproxy.sock"
    assert config.routes[0] == Route(host="*", path="/", page=True, file="edgeproxy.yaml", line=1)


def test_entries_have_the_defaults_of_their_models() -> None:
    """The written forms and the models give the same defaults."""
    config = parse("limits: { l: 1/s }\nupstreams: { a: http://a }\nroutes: {}")
    assert config.limits["l"] == Limit(name="l", rate=Rate(1, 1.0))
    assert config.upstreams["a"] == Upstream(name="a", targets=(Target(host="a"),))


def test_configurations_are_frozen() -> None:
    config = parse("routes: {}")
    for thing in (config, config.listen, config.timeouts):
        with pytest.raises(ValueError):
            thing.anything = 1  # type: ignore[union-attr]
    with pytest.raises(ValueError):
        config.state = Path("x")  # type: ignore[misc]


def test_every_setting() -> None:
    config = parse(
        """
listen: { https: "127.0.0.1:1", http: "[::1]:2", backlog: 3, connections: 4,
  tls: modern, proxy_protocol: 10.0.0.0/8 }
certs: { folder: /c, default: Example.com }
keys: { file: /k, pepper: "${env:PEPPER}" }
state: /st
auth: { api_key: { query: key } }
limits: { l: { rate: 1/s, by: address, table: 5, shadow: true } }
defaults: { body: 1k, timeouts: { first_byte: 7s } }
timeouts: { handshake: 1s, head: 2s, keep_alive: 3s, requests_per_connection: 4,
  client_write: 5s, close: 6s, drain: 7s, body_rate: 8B/s, body_grace: 9s }
heads: { request: 4k, fields: 5, target: 1k, response: 8k }
trusted_proxies: [ 10.0.0.0/8, "::1" ]
forwarded: forwarded
access_log: "-"
server_header: keep
control: /s
upstreams:
  a: { targets: http://a, host: "b:1", connections: 1, waiting: 0, wait: 2s, idle: 3s,
    eject: { time: 4s },
    timeouts: { connect: 1s, first_byte: 2s, between_bytes: 3s, tunnel: 4s } }
routes:
  "*": { /: { to: a, groups: g, when: { X-A: b }, encoded_slash: keep, websocket: true } }
""",
        environ={"PEPPER": "0123456789abcdef" * 2},
    )
    assert config.keys.file == Path("/k")
    assert config.keys.hashing is not None
    assert config.state == Path("/st")
    assert config.listen.model_dump() == {
        "https": "127.0.0.1:1",
        "http": "[::1]:2",
        "backlog": 3,
        "connections": 4,
        "proxy_protocol": (ip_network("10.0.0.0/8"),),
        "tls": "modern",
    }
    assert config.certs.model_dump() == {"folder": Path("/c"), "default": "example.com"}
    assert config.auth.api_key.query == "key"
    limit = config.limits["l"]
    assert (limit.by, limit.table, limit.shadow) == ("address", 5, True)
    assert list(config.timeouts.model_dump().values()) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert list(config.heads.model_dump().values()) == [4096, 5, 1024, 8192]
    assert config.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert (config.forwarded, config.access_log, config.server_header) == ("forwarded", "-", "keep")
    upstream = config.upstreams["a"]
    assert (upstream.connections, upstream.waiting, upstream.wait) == (1, 0, 2.0)
    assert (upstream.idle, upstream.eject.time) == (3.0, 4.0)
    assert list(upstream.timeouts.model_dump().values()) == [2.0, 3.0, 4.0, 1.0]
    (route,) = config.routes
    assert route.body == 1024 and route.host_header == "b:1" and route.groups == ("g",)
    assert route.when == {"x-a": "b"} and route.encoded_slash == "keep" and route.websocket
    assert list(route.timeouts.model_dump().values()) == [2.0, 3.0, 4.0]


def test_access_log_off() -> None:
    assert parse("access_log: off\nroutes: {}").access_log == "off"


def test_timeouts_are_inherited_from_the_nearest() -> None:
    text = """
defaults: { timeouts: { first_byte: 1s, between_bytes: 1s } }
upstreams: { a: http://a, b: { targets: http://b, timeouts: { first_byte: 2s } } }
routes: { "*": { /a: a, /b: b, /c: { to: b, timeouts: { first_byte: 3s, tunnel: 4s } } } }
"""
    config = parse(text)
    assert [r.timeouts.first_byte for r in config.routes] == [1.0, 2.0, 3.0]
    assert [r.timeouts.between_bytes for r in config.routes] == [1.0, 1.0, 1.0]
    assert [r.timeouts.tunnel for r in config.routes] == [300.0, 300.0, 4.0]
    assert not any(r.websocket for r in config.routes)
    assert config.upstreams["b"].timeouts.between_bytes == 1.0


def test_limits_are_inherited_or_replaced() -> None:
    text = "limits: { l: 1/s, m: 2/s }\ndefaults: { limit: l }\nroutes: { '*': { /: %s } }"
    assert one(text % "a").limit == ("l",)
    assert one(text % "{ to: a, limit: m }").limit == ("m",)
    assert one(text % "{ to: a, limit: [ l, m ] }").limit == ("l", "m")
    assert one(text % "{ to: a, limit: none }").limit == ()


def test_field_rules_are_inherited_by_name() -> None:
    route = one(
        """
defaults: { response: { set: { A: "1", B: "1" }, add: { C: "1" }, remove: [ D, E ] } }
routes: { "*": { /: { to: a, response: { set: { a: "2", d: "2" }, remove: [ c ] } } } }
"""
    )
    assert route.response == FieldRules(set={"B": "1", "a": "2", "d": "2"}, remove=("E", "c"))
    assert route.request == FieldRules()


def test_places_of_routes() -> None:
    config = parse(
        """
upstreams: { a: http://a }
routes:
  "*":
    /a: a
    /b:
      - { to: a, when: { X: "1" } }
      - a
""",
        "e.yaml",
    )
    assert [(r.file, r.line) for r in config.routes] == [
        ("e.yaml", 5),
        ("e.yaml", 7),
        ("e.yaml", 8),
    ]


def test_json() -> None:
    text = '{\n\t"upstreams": {"a": ["http://a"]},\n\t"routes": {"*": {"/": {"to": "a"}}}\n}'
    assert parse(text).routes[0].to == "a"


def test_paths_start_where_the_file_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "e.yaml").write_text("keys: ../k\nroutes: {}")
    monkeypatch.chdir(tmp_path)
    config = load(Path("x/e.yaml"))
    assert config.source == tmp_path / "x" / "e.yaml"
    assert config.folder == tmp_path / "x"
    assert config.keys.file == tmp_path / "x" / ".." / "k"
    assert config.certs.folder == tmp_path / "x" / "certs"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path = path.with_suffix(".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "main.yaml"


def told(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [str(each).replace(f"{path.parent}/", "") for each in caught.value.problems]


def test_include(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main="include: [ conf.d/*.yaml, one.yaml ]\nroutes: { '*': { /m: a } }",
        one="limits: { l: 1/s }\nroutes: { '*': { /o: { to: a, limit: l } } }",
    )
    write(tmp_path / "conf.d", b="routes: { '*': { /b: a } }", a="upstreams: { a: http://a }")
    config = load(main)
    assert [route.path for route in config.routes] == ["/m", "/b", "/o"]
    assert config.routes[1].file == str(tmp_path / "conf.d" / "b.yaml")


def test_included_secrets_start_at_their_file(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main="include: sub/*.yaml",
        sub__a='upstreams: { a: { targets: http://a, set: { X: "${file:t}" } } }',
    )
    (tmp_path / "sub" / "t").write_text("x")
    assert load(main).upstreams["a"].set["X"].get_secret_value() == "x"


def test_a_pattern_may_match_nothing(tmp_path: Path) -> None:
    assert load(write(tmp_path, main="include: conf.d/*.yaml")).routes == ()


def test_problems_of_all_files(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main="""
include: [ sub/*.yaml, missing.yaml, "main*.yaml" ]
limits: { l: 1/s }
upstreams: { a: http://a }
routes: { "*": { /: a } }
""",
        sub__a="limits: { l: 1/s }\nupstreams: { a: http://b }\nroutes: { '*': { /: a } }",
        sub__b="listen: ':1'\nuptsreams: {}\ninclude: sub/*.yaml\n",
    )
    assert told(main) == [
        "main.yaml:2:24: 'missing.yaml' cannot be read: no such file or directory",
        "main.yaml:2:38: this includes the file itself; narrow the pattern",
        "sub/a.yaml:1:11: 'l' stands in main.yaml:3 already; rename one",
        "sub/a.yaml:2:14: 'a' stands in main.yaml:4 already; rename one",
        "sub/a.yaml:3:18: main.yaml:5 has a route for the same requests; change one, or tell them "
        "apart by `when`",
        "sub/b.yaml:1:1: 'listen' stands in the main file only; move it there",
        "sub/b.yaml:2:1: 'uptsreams' is not a setting here; did you mean 'upstreams'?",
        "sub/b.yaml:3:1: 'include' stands in the main file only; move it there",
    ]


def test_names_are_not_missed_in_files_that_cannot_be_read(tmp_path: Path) -> None:
    main = write(
        tmp_path, main="include: a.yaml\nroutes: { '*': { /: users } }", a="upstreams: [\n"
    )
    (problem,) = told(main)
    assert problem.startswith("a.yaml:")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert told(tmp_path / "nope.yaml") == [
        "nope.yaml:1:1: cannot be read: no such file or directory; `edgeproxy init` writes one"
    ]
    (tmp_path / "folder").mkdir()
    assert "is not a regular file" in told(tmp_path / "folder")[0]
    os.mkfifo(tmp_path / "fifo")
    assert "is not a regular file" in told(tmp_path / "fifo")[0]
    (tmp_path / "latin").write_bytes(b"a: b\nc: \xe4\n")
    assert told(tmp_path / "latin") == ["latin:2:4: byte 0xe4 is not UTF-8; save the file in UTF-8"]
    with open(tmp_path / "large", "wb") as file:
        file.truncate((16 << 20) + 1)
    assert "it is larger than 16777216 bytes" in told(tmp_path / "large")[0]
    with pytest.raises(ConfigError, match="its name cannot be a path"):
        load(Path("a\0b"))


def test_all_files_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["edgeproxy.config.load"], "LARGEST", 100)
    main = write(tmp_path, main="include: [ a.yaml, b.yaml ]", a="#" * 50, b="#" * 50)
    (problem,) = told(main)
    assert problem.startswith("main.yaml:1:20: 'b.yaml' cannot be read: it is larger than 23 bytes")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_permission(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").touch(0o000)
    assert "permission denied" in told(tmp_path / "e.yaml")[0]


def test_five_thousand_routes() -> None:
    text = "upstreams: { a: http://a }\nroutes:\n  '*':\n" + "".join(
        f"    GET /a/{n}: {{ to: a, scopes: [ b ], body: 1MiB, when: {{ X: y }} }}\n"
        for n in range(5000)
    )
    before = time.process_time()
    assert len(parse(text).routes) == 5000
    assert time.process_time() - before < 8  # 1.2 s measured; slow machines and coverage are slower
