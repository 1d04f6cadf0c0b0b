"""External authorization over whole requests: what is shown, what is answered, what is set."""

from __future__ import annotations

from typing import Any

import pytest
from asking_support import World
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.exchange import Outcome

CHECKED = {
    "authorize": "https://auth.internal/check",
    "take": ["X-User-Id", "X-User-Groups"],
    "principal": "X-User-Id",
    "groups": "X-User-Groups",
}
ALICE: Any = {"X_User_Id": "alice", "X_User_Groups": "ops, dev"}


def test_let_in() -> None:
    world = World(CHECKED, groups=["dev"])
    client = world.send("Authorization: Bearer t", "Cookie: sid=1", "X-Other: o", line="GET /a?b=c")
    (question,) = world.questions
    assert (question.method, question.body) == ("GET", None)
    request_id = question.fields.pop(b"X-Request-Id")
    assert question.fields == {
        b"X-Forwarded-Method": b"GET",
        b"X-Forwarded-Proto": b"https",
        b"X-Forwarded-Host": b"api.example.com",
        b"X-Forwarded-Uri": b"/a?b=c",
        b"X-Forwarded-For": b"192.0.2.1",
        b"X-Original-Method": b"GET",
        b"X-Original-URI": b"/a?b=c",
        b"X-Original-URL": b"https://api.example.com/a?b=c",
        b"authorization": b"Bearer t",
        b"cookie": b"sid=1",
    }
    assert world.attempts == 0
    question.raw(204, b"", **ALICE)
    got = world.passed()
    assert b"X-Consumer-Id: known:alice\r\n" in got
    assert b"X-Consumer-Groups: ops,dev\r\n" in got
    assert b"X-User-Id: alice\r\nX-User-Groups: ops, dev\r\n" in got
    assert b"X-Other: o\r\n" in got
    assert b"X-Request-Id: " + request_id in got
    assert b"Authorization" not in got
    assert b"sid=1" not in got
    assert world.status(client) == 200
    assert world.gateway.log[-1]["kind"] == "authorization"


def test_what_is_kept() -> None:
    world = World({**CHECKED, "keep": "cookie"})
    world.send("Authorization: Bearer t", "Cookie: sid=1")
    world.questions[0].raw(200, b"", **ALICE)
    got = world.passed()
    assert b"Cookie: sid=1\r\n" in got
    assert b"Authorization" not in got


def test_nothing_is_shown_that_was_not_sent() -> None:
    world = World(CHECKED)
    world.send()
    assert not {b"authorization", b"cookie"} & set(world.questions[0].fields)


def test_our_keys_are_not_shown() -> None:
    world = World(CHECKED)
    key = world.gateway.key("good")
    world.send(f"Authorization: Bearer {key}")
    assert key.encode() not in b"".join(world.questions[0].fields.values())
    world.questions[0].raw(200, b"", **ALICE)
    assert key.encode() not in world.passed()


def test_the_path_as_it_was_asked_for() -> None:
    world = World(CHECKED, strip="/")
    world.send(line="GET /%61/b%20c?q")
    assert world.questions[0].fields[b"X-Original-URI"] == b"/a/b%20c?q"


@pytest.mark.parametrize(
    ("line", "uri"),
    [
        ("GET /v1/users?q", b"/v1/users?q"),
        ("GET /v1/%75sers", b"/v1/users"),
        ("GET https://api.example.com/v1/%75sers?q", b"/v1/users?q"),
    ],
)
def test_the_path_before_it_is_stripped(line: str, uri: bytes) -> None:
    world = World(CHECKED, path="/v1", strip=True)
    world.send(line=line)
    assert world.questions[0].fields[b"X-Forwarded-Uri"] == uri
    world.questions[0].raw(200, b"", **ALICE)
    assert world.passed().startswith(b"GET /users")


def test_nobody_in_particular() -> None:
    world = World({"authorize": "https://auth.internal/check"})
    world.send()
    world.questions[0].raw(200, b"")
    assert b"X-Consumer-Id: known\r\n" in world.passed()


@pytest.mark.parametrize("status", [401, 403])
def test_refused(status: int) -> None:
    world = World(CHECKED)
    client = world.send()
    world.questions[0].raw(status, b"secret", WWW_Authenticate='Basic realm="x"', X_Other="o")
    assert world.status(client) == status
    (answer,) = client.answers()
    assert answer.field("www-authenticate") == 'Basic realm="x"'
    assert answer.field("x-other") is None
    assert answer.field("content-type") == "application/problem+json"
    assert b"secret" not in answer.body
    assert world.attempts == 0
    assert world.reason == f"known: status {status}"


def test_a_401_says_how_to_do_better() -> None:
    world = World(CHECKED)
    client = world.send()
    world.questions[0].raw(401, b"")
    assert client.answers()[0].field("www-authenticate") == "Bearer"
    client = world.send("Authorization: Basic wrong")
    world.questions[1].raw(401, b"")
    assert client.answers()[0].field("www-authenticate") == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("cached", [{}, {"cache": "10s"}])
@pytest.mark.parametrize(
    ("field", "status", "counted"),
    [
        ("Authorization: Basic wrong", 401, 1),
        ("Cookie: sid=wrong", 401, 1),
        ("X-Ticket: wrong", 401, 1),
        ("X-Other: o", 401, 0),  # nothing that is looked at there
        ("Authorization: Basic good", 403, 0),  # known, and not allowed
        ("Cookie: sid=old", 302, 0),
        ("Authorization: Basic wrong", 500, 0),
        ("Authorization: Basic good", 200, 0),
    ],
)
def test_what_it_calls_wrong_is_a_guess(
    field: str, status: int, counted: int, cached: dict[str, str]
) -> None:
    send = ["authorization", "cookie", "x-ticket"]
    world = World({**CHECKED, "send": send, "redirect": True, **cached})
    world.send(field)
    world.questions[0].raw(status, b"", Location="https://id/login", **ALICE)
    world.gateway.reactor.settle()
    assert world.gateway.gateway.resource.guessing.failures == counted


def test_passwords_are_not_tried_on_and_on() -> None:
    world = World(CHECKED, top={"guessing": "3/min"})
    statuses = []
    for number in range(5):
        client = world.send(f"Authorization: Basic {number}")
        if world.questions:
            world.questions.pop().raw(401, b"")
        statuses.append(world.status(client))
    assert statuses == [401, 401, 401, 429, 429]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_sent_elsewhere(status: int) -> None:
    world = World({**CHECKED, "redirect": True})
    client = world.send()
    cookies = ["a=1; Secure", "b=2"]
    world.questions[0].raw(status, b"", Location="https://id/login?x", Set_Cookie=cookies)
    (answer,) = client.answers()
    assert answer.status == status
    assert answer.field("location") == "https://id/login?x"
    assert answer.all("set-cookie") == cookies
    assert world.attempts == 0


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (302, {}),
        (302, {"Location": ["/a", "/b"]}),
        (302, {"Location": "/a b"}),
        (304, {"Location": "/a"}),
        (404, {}),
        (500, {}),
        (200, {}),
        (200, {"X_User_Id": ["alice", "bob"]}),
        (200, {"X_User_Id": "\xff"}),
        (200, {"X_User_Id": "a\x00b"}),
        (200, {"X_User_Id": "alice", "X_User_Groups": "a" * 9000}),
        (200, {"X_User_Id": "alice", "X_User_Groups": ",".join(map(str, range(201)))}),
    ],
)
def test_no_answer_that_counts(status: int, fields: Any) -> None:
    world = World({**CHECKED, "redirect": True})
    client = world.send()
    world.questions[0].raw(status, b"", **fields)
    assert world.status(client) == 503
    assert world.attempts == 0
    assert world.credential.status(0)["error"]


def test_redirections_only_where_they_are_wanted() -> None:
    world = World(CHECKED)
    client = world.send()
    world.questions[0].raw(302, b"", Location="/login")
    assert world.status(client) == 503


def test_down() -> None:
    world = World(CHECKED)
    client = world.send()
    world.questions[0].fail()
    assert world.status(client) == 503
    assert world.attempts == 0


def test_every_request_is_asked_about_unless_it_is_cached() -> None:
    world = World(CHECKED)
    for _ in range(2):
        world.send("Cookie: sid=1")
    assert len(world.questions) == 2
    world = World({**CHECKED, "cache": "10s"})
    for _ in range(2):
        world.send("Cookie: sid=1")
    world.send("Cookie: sid=2")
    world.send("Cookie: sid=1", line="POST /")
    world.send("Cookie: sid=1", line="GET /other")
    assert len(world.questions) == 4
    world.questions[0].raw(200, b"", **ALICE)
    assert world.passed().count(b"X-User-Id: alice") == 2
    world.send("Cookie: sid=1")
    assert len(world.questions) == 4
    assert world.passed()
    world.gateway.wait(10.5)
    world.send("Cookie: sid=1")
    assert len(world.questions) == 5


def test_refusals_are_not_remembered() -> None:
    world = World({**CHECKED, "cache": "10s"})
    for number in range(2):
        world.send("Cookie: sid=1")
        world.questions[number].raw(401, b"")


def test_a_client_that_goes() -> None:
    world = World(CHECKED)
    client = world.send()
    client.reset()
    assert world.questions[0].cancelled
    assert world.gateway.finished[0].outcome is Outcome.CLIENT_GONE
    assert world.credential.status(0)["error"] == ""


@pytest.mark.parametrize(
    "fields",
    [
        ("Authorization: Bearer a", "Authorization: Bearer b"),
        ("Cookie: a=1", "Cookie: b=1"),
        ("Cookie: a=1", "cookie: a=1"),
    ],
)
def test_what_stands_there_twice(fields: tuple[str, str]) -> None:
    world = World(CHECKED)
    client = world.send(*fields)
    assert world.status(client) == 401
    assert not world.questions


def test_spelled_with_another_mark() -> None:
    world = World({**CHECKED, "send": "x-session"})
    client = world.send("X-Session: a", "X_Session: b")
    assert world.status(client) == 401
    world.send("X_Session: b")
    assert world.questions[0].fields[b"x-session"] == b"b"
    world.questions[0].raw(200, b"", **ALICE)
    assert b"ession" not in world.passed()


_MARKS = st.sampled_from("-_.~!|")
_CASES = st.booleans()


@st.composite
def _spelled(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(["x-user-id", "x-user-groups", "x-consumer-id", "x-edge-token"]))
    return "".join(
        draw(_MARKS) if letter == "-" else letter.upper() if draw(_CASES) else letter
        for letter in name
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(_spelled(), min_size=1, max_size=4), st.sampled_from(["known", "none"]))
def test_no_spelling_of_a_reserved_field_gets_through(names: list[str], auth: str) -> None:
    """Neither in the head nor in trailers, nor on a route that asks for nothing."""
    world = World(CHECKED, auth=auth)
    lines = [f"{name}: forged" for name in names]
    trailers = "".join(f"{line}\r\n" for line in lines)
    world.send(
        *lines,
        "Transfer-Encoding: chunked",
        "TE: trailers",
        "Connection: TE",
        line="POST /",
        body=f"1\r\nx\r\n0\r\nX-Passes: yes\r\n{trailers}\r\n".encode(),
    )
    if auth == "known":
        world.questions[0].raw(200, b"", **ALICE)
    got = world.passed()
    assert b"forged" not in got
    assert b"X-Passes: yes" in got
    assert (b"X-User-Id: alice" in got) == (auth == "known")


def test_connection_takes_no_field_of_ours_away() -> None:
    world = World(CHECKED)
    world.send("Connection: X-User-Id, X-Consumer-Id")
    world.questions[0].raw(200, b"", **ALICE)
    got = world.passed()
    assert b"X-User-Id: alice\r\n" in got
    assert b"X-Consumer-Id: known:alice\r\n" in got


def test_beside_a_key_that_is_asked_for_too() -> None:
    world = World(CHECKED, auth={"all": ["api_key", "known"]})
    key = world.gateway.key("good")
    assert world.status(world.send("Cookie: a=1")) == 401
    assert not world.questions
    for field in (f"X-API-Key: {key}", f"Authorization: Bearer {key}"):
        world.send(field, "Cookie: a=1")
        shown = world.questions[-1].fields
        assert shown[b"cookie"] == b"a=1"
        assert key.encode() not in b"".join(shown.values())
        world.questions[-1].raw(200, b"", **ALICE)
        got = world.passed()
        assert b"X-Consumer-Name: good\r\n" in got
        assert b"X-User-Id: alice\r\n" in got
        assert key.encode() not in got


def test_what_others_claim_is_not_shown() -> None:
    legacy = {"introspect": "https://id.example.com/introspect"}
    world = World(CHECKED, auth={"all": ["known", "legacy"]}, others={"legacy": legacy})
    world.send("Authorization: Bearer t", "Cookie: a=1")
    assert world.questions[0].fields[b"cookie"] == b"a=1"
    assert b"authorization" not in world.questions[0].fields
    world.questions[0].raw(200, b"", **ALICE)
    assert world.attempts == 0
    world.questions[1].reply(active=True, sub="bob")
    got = world.passed()
    assert b"X-Consumer-Id: known:alice\r\n" in got
    assert b"X-User-Id: alice\r\n" in got


def test_each_request_has_what_was_said_of_it() -> None:
    """The same caller may be told of in other words the next time."""
    world = World({"authorize": "https://a/", "take": "X-Tenant"})
    for number, tenant in enumerate(("red", "blue")):
        world.send()
        world.questions[number].raw(200, b"", X_Tenant=tenant)
        assert f"X-Tenant: {tenant}\r\n".encode() in world.passed()
