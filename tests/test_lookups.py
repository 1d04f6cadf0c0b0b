"""Tokens and sessions that an endpoint knows, over whole requests: who is asked, what is
remembered, and what happens while nobody answers."""

from __future__ import annotations

from typing import Any

import pytest
from asking_support import World

from edgeproxy.exchange import Outcome
from edgeproxy.testing.reactor import EPOCH

INTROSPECTION = {
    "introspect": "https://id.example.com/introspect",
    "client_id": "edge",
    "client_secret": "${env:SECRET}",
}
SESSION = {"cookie": "sid", "at": "https://accounts.internal/session"}
TOKEN = "Authorization: Bearer opaque"
COOKIE = "Cookie: a=1; sid=s1; b=2"


KINDS = [
    pytest.param(INTROSPECTION, TOKEN, id="introspection"),
    pytest.param(SESSION, COOKIE, id="session"),
]
both = pytest.mark.parametrize(("settings", "shown"), KINDS)


def test_a_token_is_introspected() -> None:
    world = World(INTROSPECTION, scopes=["read"])
    client = world.send(TOKEN)
    (question,) = world.questions
    assert question.method == "POST"
    assert question.body == b"token=opaque&token_type_hint=access_token"
    assert question.fields[b"Authorization"] == b"Basic ZWRnZTpzJTNBY3JldCUyMCUyNSUyRiUyQg=="
    assert world.attempts == 0
    question.reply(active=True, sub="alice", scope="read write", exp=EPOCH + 99)
    got = world.passed()
    assert b"X-Consumer-Id: known:alice\r\n" in got
    assert b"opaque" not in got
    assert world.status(client) == 200
    assert world.gateway.log[-1]["kind"] == "introspection"


def test_a_session_is_looked_up() -> None:
    world = World({**SESSION, "principal": "user.id", "name": "user.name", "groups": "roles"})
    world.send(COOKIE)
    (question,) = world.questions
    assert question.method == "GET"
    assert question.fields[b"Cookie"] == b"sid=s1"
    question.reply(user={"id": "u7", "name": "Ann"}, roles=["ops"])
    got = world.passed()
    assert b"X-Consumer-Id: known:u7\r\nX-Consumer-Name: Ann\r\nX-Consumer-Groups: ops" in got
    assert b"Cookie: a=1; b=2\r\n" in got
    assert b"s1" not in got


def test_the_cookie_may_go_on() -> None:
    world = World({**SESSION, "keep": True})
    world.send(COOKIE)
    world.questions[0].reply(sub="u7")
    assert f"{COOKIE}\r\n".encode() in world.passed()


@both
def test_remembered_for_half_a_minute(settings: dict[str, Any], shown: str) -> None:
    world = World(settings)
    world.send(shown)
    world.questions[0].reply(active=True, sub="alice")
    assert world.passed()
    world.gateway.wait(29.5)
    client = world.send(shown)
    assert world.passed()
    assert world.status(client) == 200
    assert len(world.questions) == 1
    world.gateway.wait(1)
    world.send(shown)
    assert len(world.questions) == 2


@both
def test_no_longer_than_its_life(settings: dict[str, Any], shown: str) -> None:
    world = World({**settings, "stale": "1h"})
    world.send(shown)
    world.questions[0].reply(active=True, sub="alice", exp=EPOCH + 10)
    assert world.passed()
    world.gateway.wait(10.5)
    client = world.send(shown)
    world.questions[1].fail()
    assert world.status(client) == 503


@both
def test_those_who_wait_share_one_question(settings: dict[str, Any], shown: str) -> None:
    world = World(settings)
    clients = [world.send(shown) for _ in range(3)]
    (question,) = world.questions
    question.reply(active=False)
    assert [world.status(client) for client in clients] == [401] * 3
    assert world.attempts == 0


@both
def test_a_refusal_is_remembered_for_a_while(settings: dict[str, Any], shown: str) -> None:
    world = World(settings)
    first = world.send(shown)
    world.questions[0].reply(active=False)
    assert world.status(first) == 401
    again = world.send(shown)
    assert world.status(again) == 401
    assert world.reason == "known: not active"
    assert len(world.questions) == 1
    world.gateway.wait(5.5)
    client = world.send(shown)
    world.questions[1].reply(active=True, sub="alice")
    assert world.passed()
    assert world.status(client) == 200


@both
def test_down(settings: dict[str, Any], shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for level in ("warn", "info"):
        monkeypatch.setattr(
            f"edgeproxy.lookups._log.{level}", lambda text, **how: told.append(text.format(**how))
        )
    world = World(settings)
    for number in range(2):
        client = world.send(shown)
        world.questions[number].fail()
        assert world.status(client) == 503
        assert client.answers()[0].field("retry-after") == "1"
        assert client.answers()[0].field("www-authenticate") is None
    assert world.reason == "known: its endpoint fails: cannot connect: refused"
    assert world.credential.status(0)["error"] == "cannot connect: refused"
    client = world.send(shown)
    world.questions[2].reply(active=True, sub="alice")
    assert world.passed()
    assert world.credential.status(0)["error"] == ""
    assert told == [
        "auth: known: its endpoint fails: cannot connect: refused",
        "auth: known: its endpoint answers again",
    ]


@both
def test_down_with_old_answers(settings: dict[str, Any], shown: str) -> None:
    world = World({**settings, "stale": "5m"})
    world.send(shown)
    world.questions[0].reply(active=True, sub="alice")
    assert world.passed()
    world.gateway.wait(40)
    client = world.send(shown)
    world.questions[1].fail()
    assert b"known:alice" in world.passed()
    assert world.status(client) == 200
    world.send(shown)  # at once: it has just failed
    assert len(world.questions) == 2
    assert b"known:alice" in world.passed()
    world.gateway.wait(261)
    client = world.send(shown)
    world.questions[2].fail()
    assert world.status(client) == 503


@both
def test_what_is_known_no_more_is_not_let_in_by_an_old_answer(
    settings: dict[str, Any], shown: str
) -> None:
    world = World({**settings, "stale": "5m"})
    world.send(shown)
    world.questions[0].reply(active=True, sub="alice")
    assert world.passed()
    world.gateway.wait(40)
    world.send(shown)
    world.questions[1].reply(active=False)
    world.gateway.wait(6)
    client = world.send(shown)
    world.questions[2].fail()
    assert world.status(client) == 503


@both
def test_a_client_that_goes_takes_its_question_along(settings: dict[str, Any], shown: str) -> None:
    world = World(settings)
    one, other = world.send(shown), world.send(shown)
    one.reset()
    assert not world.questions[0].cancelled
    other.reset()
    assert world.questions[0].cancelled
    assert {each.outcome for each in world.gateway.finished} == {Outcome.CLIENT_GONE}
    assert world.credential.trouble.why == ""


@both
def test_too_many_questions(settings: dict[str, Any], shown: str) -> None:
    world = World(settings)
    client = world.send(shown)
    world.questions[0].fail("64 questions are under way", ours=True)
    assert world.status(client) == 503
    assert world.credential.trouble.why == ""


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (302, b'{"active": true, "sub": "a"}'),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"active": true, "active": true, "sub": "a"}'),
        (200, b"\xff"),
        (200, b"[" * 60_000),
    ],
)
@both
def test_no_answer_that_could_be_understood(
    settings: dict[str, Any], shown: str, status: int, body: bytes
) -> None:
    world = World(settings)
    client = world.send(shown)
    world.questions[0].raw(status, body)
    assert world.status(client) == 503
    assert world.attempts == 0
    assert world.credential.trouble.why


@pytest.mark.parametrize("status", [401, 403, 404])
def test_no_such_session(status: int) -> None:
    world = World(SESSION)
    client = world.send(COOKIE)
    world.questions[0].raw(status, b"whatever")
    assert world.status(client) == 401
    assert world.credential.trouble.why == ""


@pytest.mark.parametrize("status", [401, 403])
def test_our_own_secret_is_wrong(status: int) -> None:
    world = World(INTROSPECTION)
    client = world.send(TOKEN)
    world.questions[0].raw(status, b"{}")
    assert world.status(client) == 503


def test_nobody_else_sees_our_keys() -> None:
    world = World(INTROSPECTION)
    key = world.gateway.key("good")
    client = world.send(f"Authorization: Bearer {key}")
    assert world.status(client) == 401
    assert not world.questions


def test_beside_api_keys() -> None:
    world = World(INTROSPECTION, auth=["known", "api_key"])
    key = world.gateway.key("good")
    world.send(f"Authorization: Bearer {key}")
    assert b"X-Consumer-Name: good" in world.passed()
    assert not world.questions
    world.send(TOKEN)
    assert len(world.questions) == 1


def test_a_large_body_waits_outside() -> None:
    world = World(INTROSPECTION)
    client = world.send(TOKEN, "Content-Length: 5000000", line="POST /", body=b"x" * 1_000_000)
    world.gateway.reactor.settle()
    (protocol,) = world.gateway.gateway.listeners[0].connections
    assert len(protocol.buffer) <= 256 << 10
    world.questions[0].reply(active=False)
    assert world.status(client) == 401


def test_reloaded_as_it_was() -> None:
    world = World(INTROSPECTION)
    world.send(TOKEN)
    world.questions[0].reply(active=True, sub="alice")
    made = world.gateway.gateway.credentials
    assert made.build(world.gateway.config)["known"][1] is world.credential


@both
def test_a_drain_waits_for_the_answer(settings: dict[str, Any], shown: str) -> None:
    world = World(settings)
    client = world.send(shown)
    world.gateway.gateway.drain()
    world.gateway.wait(10)
    world.questions[0].reply(active=True, sub="alice")
    assert world.passed()
    assert world.status(client) == 200


@both
def test_but_not_for_ever(settings: dict[str, Any], shown: str) -> None:
    world = World(settings)
    world.send(shown)
    world.gateway.gateway.drain()
    world.gateway.wait(31)
    assert world.questions[0].cancelled
    assert world.gateway.finished[0].outcome is Outcome.DRAINED
    assert world.attempts == 0


@pytest.mark.parametrize("said", [{"aud": "other"}, {"iss": "https://other"}, {"aud": None}])
def test_for_somebody_else(said: dict[str, Any]) -> None:
    world = World({**INTROSPECTION, "audience": "shop", "issuer": "https://id"})
    client = world.send(TOKEN)
    world.questions[0].reply(
        **{"active": True, "sub": "a", "aud": "shop", "iss": "https://id"} | said
    )
    assert world.status(client) == 401
    assert client.answers()[0].field("www-authenticate") == 'Bearer error="invalid_token"'
    assert world.attempts == 0
    assert world.reason.startswith("known: ")


@both
def test_an_old_answer_serves_where_too_many_ask(settings: dict[str, Any], shown: str) -> None:
    world = World({**settings, "stale": "5m"})
    world.send(shown)
    world.questions[0].reply(active=True, sub="alice")
    assert world.passed()
    world.gateway.wait(40)
    world.send(shown)
    world.questions[1].fail("64 questions are under way", ours=True)
    assert b"known:alice" in world.passed()


def test_one_that_stumbles_now_and_then_does_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    for level in ("warn", "info"):
        monkeypatch.setattr(
            f"edgeproxy.lookups._log.{level}", lambda text, **how: told.append(level)
        )
    world = World(INTROSPECTION)
    for number in range(20):
        world.send(f"Authorization: Bearer t{number}")
        if number % 2:
            world.questions[number].reply(active=False)
        else:
            world.questions[number].raw(500, b"")
    assert len(told) == 2
    world.gateway.wait(10)
    world.send("Authorization: Bearer other")
    world.questions[-1].fail()
    assert len(told) == 3
