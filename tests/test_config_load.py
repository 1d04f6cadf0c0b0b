"""Whole configurations: what is loaded, what is inherited, where paths lead."""

from pathlib import Path

from edgeproxy.config import Config, Rate, Target, parse

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


def example(tmp_path: Path) -> Config:
    return parse(EXAMPLE, folder=tmp_path, environ={"PAY": "s3cret"})


def test_example(tmp_path: Path) -> None:
    config = example(tmp_path)
    assert (config.listen.https, config.listen.http) == (":8443", ":8080")
    assert config.certs.folder == tmp_path / "certs"
    assert config.keys == tmp_path / "keys.jsonl"
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
