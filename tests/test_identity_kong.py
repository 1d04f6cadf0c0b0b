"""Keys from Kong's declarative files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.identity.kong import read

NOW = 1_767_225_600.5
KEY = "Zx0123456789abcdefGHIJKLMNOPqrst"

FILE = f"""\
_format_version: "3.0"
services:
- name: shop
  url: http://10.0.0.1
  routes: [{{ name: all, paths: [/] }}]
consumers:
- username: alice
  custom_id: "7"
  tags: [old]
  keyauth_credentials:
  - key: {KEY}1
    tags: [web, "2"]
    ttl: 3600
  - key: {KEY}2
    ttl: 0
    created_at: 1
  acls:
  - group: staff
- custom_id: bob-9
  id: 5bd5b4a1-1c2d-4f0e-9d37-6a0b5f0f1c11
  keyauth_credentials: [{{ key: {KEY}3, ttl: 100, created_at: 1767225000 }}]
  basicauth_credentials: [{{ username: bob, password: x }}]
- username: nobody
keyauth_credentials:
- {{ consumer: "7", key: {KEY}4 }}
- {{ consumer: {{ username: alice }}, key: {KEY}5 }}
acls:
- {{ consumer: alice, group: ops }}
- {{ consumer: alice, group: staff }}
"""


def test_consumers_their_keys_and_groups() -> None:
    found = read(FILE, "kong.yaml", NOW)
    assert not found.problems
    assert [(key.name, key.credential[-1], key.holder) for key in found.keys] == [
        ("alice", "1", "alice"),
        ("alice", "2", "alice"),
        ("alice", "4", "alice"),
        ("alice", "5", "alice"),
        ("bob-9", "3", "5bd5b4a1-1c2d-4f0e-9d37-6a0b5f0f1c11"),
    ]
    assert [key.fields["groups"] for key in found.keys] == [["staff", "ops"]] * 4 + [[]]
    assert [key.fields.get("expires") for key in found.keys] == [
        1767229200,
        *[None] * 3,
        1767225100,
    ]
    assert found.keys[0].fields["note"] == "web, 2"
    assert [key.place.line for key in found.keys] == [11, 14, 25, 26, 21]
    assert [str(note) for note in found.notes][:1] == [
        "kong.yaml:22: basicauth_credentials of 'bob-9' are not API keys: left behind"
    ]


def test_json_is_read_too() -> None:
    value = {"consumers": [{"username": "a", "keyauth_credentials": [{"key": KEY}]}]}
    (key,) = read(json.dumps(value), "kong.json", NOW).keys
    assert (key.name, key.credential) == ("a", KEY)


PLUGINS = """\
plugins:
- { name: cors, config: { key_names: [origin] } }
services:
- name: shop
  routes:
  - plugins:
    - name: key-auth
      config: { key_names: [x-api-key, The-Key] }
"""


@pytest.mark.parametrize(
    ("more", "header", "told"),
    [
        ("", "", ["f:1: Kong's callers send their keys as `apikey`"]),
        ("", "apikey", []),
        ("plugins: [{ name: key-auth }]", "x", ["f:1: Kong's callers send their keys as `apikey`"]),
        (PLUGINS, "", ["f:9: Kong's callers send their keys as `The-Key`"]),
        (PLUGINS, "the_key", []),
    ],
)
def test_what_callers_send_keys_in_is_told(more: str, header: str, told: list[str]) -> None:
    text = f"consumers: [{{ username: a, keyauth_credentials: [{{ key: {KEY} }}] }}]\n{more}"
    notes = read(text, "f", NOW, header).notes
    assert [str(note).partition(",")[0] for note in notes] == told
    assert not read("consumers: []", "f", NOW).notes


def test_username_and_custom_id_are_names_of_different_kinds() -> None:
    """Kong lets the one of one consumer be the other of another; a name alone is the username."""
    found = read(
        f"""
consumers:
- {{ username: ann, custom_id: "1" }}
- {{ username: "1" }}
keyauth_credentials:
- {{ consumer: "1", key: {KEY}1 }}
- {{ consumer: {{ custom_id: "1" }}, key: {KEY}2 }}
- {{ consumer: {{ username: "1" }}, key: {KEY}3 }}
""",
        "f",
        NOW,
    )
    assert not found.problems
    held = {key.credential[-1]: (key.name, key.holder) for key in found.keys}
    assert held == {"1": ("1", "1"), "2": ("ann", "ann"), "3": ("1", "1")}


def credential(text: str) -> str:
    return "consumers:\n- username: a\n  keyauth_credentials:\n  - " + text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f:1: there are no `consumers`"),
        ("routes: []", "f:1: there are no `consumers`"),
        ("consumers: {}", "f:1: `consumers` must be a list"),
        ("consumers: [a]", "f:1: an entry of `consumers` must be a mapping"),
        ("consumers:\n- tags: [a]", "f:2: a consumer has a `username` or a `custom_id`"),
        (
            "consumers:\n- username: a\n- username: a",
            "f:3: another consumer has the `username` 'a' already",
        ),
        (
            "consumers: [{ username: a, custom_id: x }, { username: b, custom_id: x }]",
            "f:1: another consumer has the `custom_id` 'x' already",
        ),
        (
            "consumers:\n- username: a\n- custom_id: a",
            "f:3: services would know another consumer as 'a', too; give both an `id`",
        ),
        ("consumers:\n- username: 5", "f:2: `username` must be text; put it in quotes"),
        (credential("key: 123456789"), "f:4: `key` must be text; put it in quotes"),
        (credential("key: [a]"), "f:4: `key` must be text; put it in quotes"),
        (credential("tags: [a]"), "f:4: there is no `key`: Kong would make one"),
        (credential("key: '{vault://env/x}'"), "f:4: the `key` is in a vault of Kong's"),
        (
            credential("""key: '${{ env "DECK_PARTNER_KEY" }}'"""),
            "f:4: the `key` is decK's placeholder for a variable; import what "
            "`deck file render --populate-env-vars` makes",
        ),
        (credential("""key: 'acme-${{ env "DECK_PARTNER_KEY" }}'"""), "f:4: the `key` is decK's"),
        (credential("{ key: abc, ttl: soon }"), "f:4: `ttl` must be seconds"),
        (credential("{ key: abc, ttl: -1 }"), "f:4: `ttl` must be seconds"),
        (credential("{ key: abc, ttl: true }"), "f:4: `ttl` must be seconds"),
        (credential("{ key: abc, ttl: .nan }"), "f:4: `ttl` must be seconds"),
        ("consumers: []\nkeyauth_credentials: [{ key: abc }]", "f:2: its `consumer` must be one"),
        ("consumers: []\nacls: [{ consumer: x, group: g }]", "f:2: its `consumer` must be one"),
        ("consumers: [{ username: a, acls: [{}] }]", "f:1: an entry of `acls` has a `group`"),
        ("consumers: [}", "f:1: "),
        ("consumers: []\nconsumers: []", "f:2: 'consumers' stands here twice"),
    ],
)
def test_what_is_wrong(text: str, message: str) -> None:
    found = read(text, "f", NOW)
    assert message in [str(each)[: len(message)] for each in found.problems]


_VALUE: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["consumers", "username", "id", "keyauth_credentials", "key", "ttl", "acls"]
                + ["group", "consumer", "tags", "created_at"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(_VALUE)
def test_nothing_breaks_it(value: object) -> None:
    found = read(json.dumps({"consumers": value, "keyauth_credentials": value}), "f", NOW)
    assert all(each.place.line == 1 for each in found.problems)
