"""The JSON Schema: shipped as it is made, true to what loads, of use to an editor."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import edgeproxy.config
from edgeproxy.config import ConfigError, parse
from edgeproxy.config.schema import schema
from edgeproxy.config.written import Written

SHIPPED = Path(edgeproxy.config.__file__).with_name("schema.json")
VALIDATOR = Draft202012Validator(schema())


def test_shipped_is_made() -> None:
    assert json.loads(SHIPPED.read_text()) == schema(), (
        "make it anew: python -m edgeproxy.config.schema > edgeproxy/config/schema.json"
    )


def test_printed() -> None:
    command = [sys.executable, "-m", "edgeproxy.config.schema"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == (
        SHIPPED.read_text()
    )


def test_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


RIGHT = [
    "listen: ':8443'",
    "listen: { https: ':8443', http: '127.0.0.1:8080' }",
    "certs: certs/",
    "certs: { folder: c, default: a.example }",
    "include: conf.d/*.yaml",
    "include: [ a*.yaml, b*.yaml ]",
    "limits: { a: 100/min, b: { rate: 10/10s, plans: { gold: 1/s } } }",
    "limits:",
    "defaults: { auth: api_key, body: 1024, timeouts: { first_byte: 1m30s } }",
    "timeouts: { head: 10, close: 1.5, body_rate: 500B/s }",
    "trusted_proxies: [ 10.0.0.0/8 ]",
    "access_log: '-'",
    "upstreams: { a: http://a, b: [ http://a, http://b ], c: { targets: http://c } }",
    "upstreams: { a: { targets: http://a, set: { X: 'Bearer ${env:HOME}' } } }",
    "upstreams: { a: http://a }\nroutes: { '*': { /: a, GET /b: { to: a }, 'regex:/.': [ a ] } }",
]
WRONG = [
    "lissten: ':1'",
    "listen: 8443",
    "listen: { https: 8443 }",
    "keys:",
    "keys: []",
    "include: []",
    "limits: { A B: 1/s }",
    "limits: { a: 1/fortnight }",
    "limits: { a: {} }",
    "limits: { a: { rate: 1/s, by: ip } }",
    "timeouts: { head: 10 s }",
    "timeouts: { head: 0 }",
    "heads: { fields: 0 }",
    "forwarded: both",
    "upstreams: { a: ftp://a }",
    "upstreams: { a: { targets: https://a, tls: { verify: maybe } } }",
    "upstreams: { a: {} }",
    "upstreams: { a: { targets: http://a, connections: '5' } }",
    "routes: { '*': { orders: a } }",
    "routes: { '*': { get /orders: a } }",
    "routes: { '*': { /: { to: a, auth: [] } } }",
    "routes: { '*': { /: { to: a, auht: a } } }",
    "routes: { '*': { /: { to: a, when: { A: 5 } } } }",
    "routes: { '*': { /: } }",
    "auth: { partner: {} }",
]


def whole(text: str) -> str:
    return text if "routes" in text else text + "\nroutes: {}"


@pytest.mark.parametrize("text", RIGHT)
def test_right(text: str, tmp_path: Path) -> None:
    parse(whole(text), folder=tmp_path)
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(whole(text)))] == []


@pytest.mark.parametrize("text", WRONG)
def test_wrong(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(whole(text))
    assert not VALIDATOR.is_valid(yaml.safe_load(whole(text)))


def objects(part: Any) -> list[dict[str, Any]]:
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [each for value in inner for each in objects(value)] + (
        [part] if isinstance(part, dict) else []
    )


def test_every_setting_is_described() -> None:
    made = schema()
    assert set(made["properties"]) == set(Written.model_fields)
    for holder in objects(made):
        for name, setting in holder.get("properties", {}).items():
            reference = setting.get("$ref", "").rpartition("/")[2]
            description = setting.get("description") or made["$defs"][reference]["description"]
            assert description.endswith("."), name


def test_nothing_unknown_passes() -> None:
    for holder in objects(schema()):
        if "properties" in holder and holder.get("type") == "object":
            others = holder["additionalProperties"]
            # Credentials have names of their own.
            assert others is False or set(others) <= {"$ref", "anyOf"}
