"""docs/sessions.md and docs/external-authorization.md as they are written: the configurations, what
the endpoints get and answer, what services and clients get."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from asking_support import Question, World
from docs_support import of, page, table

SESSIONS = "docs/sessions.md"
EXTERNAL = "docs/external-authorization.md"
COOKIE = "Cookie: other=1; sid=s1"


def world(name: str, credential: str, auth: Any, **route: Any) -> World:
    """The credential of a page's example, under the name by which it stands there."""
    settings = yaml.safe_load(of(name, "yaml")[0])["auth"][credential]
    if "client_secret" in settings:
        settings["client_secret"] = "${env:SECRET}"
    return World(settings, auth, name=credential, host="shop.example.com", **route)


def shown(question: Question, path: str) -> str:
    """A question, as the pages show it."""
    lines = [f"{question.method} {path} HTTP/1.1"]
    lines += [f"{name.decode()}: {value.decode()}" for name, value in question.fields.items()]
    body = "" if question.body is None else f"\n{question.body.decode()}\n"
    return "\n".join(lines) + "\n" + body


def test_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, _ = of(SESSIONS, "text")
    said, _ = of(SESSIONS, "json")
    made = world(SESSIONS, "legacy", ["api_key", "legacy"], scopes="read", secret="secret")
    made.send("Authorization: Bearer opaque")
    assert shown(made.questions[0], "/introspect") == asked
    made.questions[0].reply(**json.loads(said))
    assert b"X-Consumer-Id: legacy:u7\r\n" in made.passed()


def test_a_cookie() -> None:
    _, asked = of(SESSIONS, "text")
    _, said = of(SESSIONS, "json")
    made = world(SESSIONS, "session", "session")
    made.send(COOKIE)
    assert shown(made.questions[0], "/session") == asked
    made.questions[0].reply(**json.loads(said))
    got = made.passed()
    assert b"Cookie: other=1\r\n" in got
    for field in re.findall(r"`(X-Consumer-[^`]+)`", page(SESSIONS)):
        assert f"{field}\r\n".encode() in got


def test_external_authorization() -> None:
    (asked,) = of(EXTERNAL, "text")
    made = world(EXTERNAL, "checked", "checked")
    made.send("Cookie: sid=s1", line="POST /cart?item=7")
    question = made.questions[0]
    (id,) = re.findall(r"X-Request-Id: (.*)", asked)
    assert shown(question, "/check").replace(question.fields[b"X-Request-Id"].decode(), id) == asked
    question.raw(200, b"", X_User_Id="alice", X_User_Groups="ops")
    got = made.passed()
    assert b"X-Consumer-Id: checked:alice\r\n" in got
    assert b"X-User-Id: alice\r\nX-User-Groups: ops\r\n" in got


def test_what_it_may_answer() -> None:
    rows = table("\n## A\n" + page(EXTERNAL).partition("\n## ")[0], "A")
    told = {number: row[1] for row in rows for number in map(int, re.findall(r"\d{3}", row[0]))}
    assert set(told) == {401, 403, 301, 302, 303, 307, 308}
    for status in told:
        made = world(EXTERNAL, "checked", "checked")
        client = made.send()
        made.questions[0].raw(status, b"", Location="/login")
        assert made.status(client) == status


def test_the_bounds_that_are_told() -> None:
    from edgeproxy import asking
    from edgeproxy.identity import answers, cookies, introspection

    text = page(SESSIONS)
    assert f"{answers.MOST:,} callers and {answers.MOST_REFUSED:,} refusals" in text
    assert f"{asking.LARGEST >> 10} KiB" in text
    assert f"over {introspection.LARGEST >> 10} KiB (a cookie: {cookies.LARGEST >> 10} KiB)" in text
    assert f"({introspection.LEEWAY:g} s of leeway)" in text
