"""Credentials by JSON Web Token, as they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_support import assert_problems
from tokens_support import SECRET, key, key_set

from edgeproxy.config import ConfigError, parse
from edgeproxy.config.jwt import Jwt
from edgeproxy.config.jwt import key_set as keys_of

TOP = "upstreams: { shop: http://127.0.0.1:9001 }\nroutes: { '*': { /: { to: shop, auth: p } } }\n"
INLINE = json.dumps(key_set(key()))


def written(entry: str) -> str:
    return TOP + "auth: { p: { jwt: https://id.example.com, audience: shop, " + entry + " } }"


def credential(entry: str, folder: Path = Path("."), **environ: str) -> Jwt:
    found = parse(written(entry), folder=folder, environ=environ).credentials["p"]
    assert isinstance(found, Jwt)
    return found


def test_short() -> None:
    text = TOP + "auth: { p: { jwt: https://id.example.com, audience: shop } }"
    found = parse(text).credentials["p"]
    assert isinstance(found, Jwt)
    assert found.said.audience == ("shop",)
    assert (found.said.leeway, found.said.stale) == (30.0, 86400.0)
    assert keys_of(found) is None


def test_keys_from_everywhere(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(INLINE)
    for found in (
        credential("jwks: keys.json", tmp_path),
        credential("jwks: " + INLINE),
        credential("secret: '${env:SECRET}'", SECRET=SECRET),
    ):
        keys = keys_of(found)
        assert keys is not None
        assert len(keys.keys) == 1
    found = credential("jwks: http://127.0.0.1:9/keys")
    assert keys_of(found) is None
    assert SECRET not in repr(credential("secret: '${env:SECRET}'", SECRET=SECRET))


def test_a_changed_file_is_a_changed_credential(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(INLINE)
    first = credential("jwks: keys.json", tmp_path)
    assert first == credential("jwks: keys.json", tmp_path)
    (tmp_path / "keys.json").write_text(json.dumps(key_set(key("ES384"))))
    assert first != credential("jwks: keys.json", tmp_path)


@pytest.mark.parametrize(
    ("entry", "messages"),
    [
        ("»jwk: x", ["did you mean 'jwks'"]),
        ("jwks: »http://id.example.com/keys", ["is not https://"]),
        ("jwks: »ftp://id.example.com/keys", ["is not https://"]),
        ("jwks: »https://a:b@id.example.com/", ["'https://…@id.example.com/' is not a URL"]),
        ("jwks: »[x]", ["a URL, a file or"]),
        ("jwks: »none.json", ["'none.json' cannot be read: no such file"]),
        ("jwks: »{ keys: [] }", ["these keys cannot be used"]),
        ("jwks: »{ kays: [] }", ["no list of `keys`"]),
        ("secret: »0123456789abcdef0123456789abcdef", ["a secret stands outside"]),
        ("secret: »'${env:NONE}'", ["NONE is not set"]),
        ("secret: »'${env:SHORT}'", ["too short; 32 random bytes"]),
        ("secret: '${env:GOOD}', algorithms: »RS256", ["RS256 needs another key"]),
        ("secret: '${env:GOOD}', algorithms: »HS512", ["HS512 needs another key"]),
        ("secret: '${env:GOOD}', jwks: »https://id.example.com/", ["remove `jwks` or `secret`"]),
        ("secret: '${env:GOOD}', ca: »ca.pem", ["remove `ca` or `secret`"]),
        ("algorithms: »HS256", ["HS256 needs a `secret`"]),
        ("algorithms: »none", ["'RS256'"]),
        ("jwks: { keys: [] }, ca: »ca.pem", ["remove `ca`"]),
        ("ca: »none.pem", ["'none.pem': no such file"]),
        ("leeway: »1h", ["at most 300 s"]),
        ("type: »'at jwt'", ["write it as at+jwt"]),
        ("principal: »''", ["not the name of a claim"]),
        ("secret: »short, claims: { tenant: »[] }", ["a secret stands", "empty list"]),
        ("claims: { tenant: »[] }", ["empty list"]),
        ("claims: { tenant: »1.5 }", ["a whole number, true or false"]),
    ],
)  # fmt: skip
def test_what_is_wrong(entry: str, messages: list[str]) -> None:
    environ = {"SHORT": "x" * 31, "GOOD": "x" * 32}
    assert_problems(written(entry), *messages, **environ)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{ jwt: https://id.example.com }", "'audience' is missing"),
        ("{ jwt: id.example.com, audience: shop }", "add `jwks` or `secret`"),
        ("{ jwt: http://id.example.com, audience: shop }", "add `jwks` or `secret`"),
        ("{ jwt: 'https://id.example.com?a', audience: shop }", "add `jwks` or `secret`"),
        ("{ jwt: '', audience: shop }", "is not an issuer"),
        ("{ jwt: [a], audience: shop }", "text would be right"),
        ("{ jwt: https://id.example.com, audience: [] }", "empty list"),
        ("{ jwt: https://id.example.com, audience: '' }", "an audience"),
    ],
)
def test_what_is_wrong_with_the_issuer(entry: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(TOP + f"auth: {{ p: {entry} }}")
    assert message in str(caught.value)
