"""docs/behaviour.md and docs/embedding.md against the gateway itself, in memory."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from docs_support import of, page, table
from running_support import ROOT

from edgeproxy.exchange import Outcome
from edgeproxy.http1.fields import FORWARDING, IDENTITY
from edgeproxy.testing import MemoryGateway

PAGE = page("docs/behaviour.md")
CONFIGURATION = """
access_log: access.log
upstreams: { users: http://10.0.0.1:80 }
limits: { default: 100/min }
routes:
  api.example.com:
    /: { to: users, auth: none, limit: default }
    /closed: users
"""
HOST = "Host: api.example.com\r\n"


def get(target: str, fields: str = "", method: str = "GET") -> str:
    return f"{method} {target} HTTP/1.1\r\n{HOST}{fields}\r\n"


def chunked(fields: str = "", version: str = "1.1", chunk: str = "1\r\na\r\n0\r\n\r\n") -> str:
    head = f"POST / HTTP/{version}\r\n{HOST}Transfer-Encoding: chunked\r\n{fields}\r\n"
    return head + chunk


#: The rows of "What is refused", and what each of them means on the wire.
SENT: dict[str, list[str]] = {
    "a line that ends in a bare LF": [f"GET / HTTP/1.1\n{HOST}\r\n", get("/", "A: b\nC: d\r\n")],
    "white space before a field's colon": [get("/", "A : b\r\n")],
    "a field that is continued on the next line": [get("/", "A: b\r\n c\r\n")],
    "no Host (but for [probes](operations.md#health)), or two": [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        get("/", HOST),
    ],
    "`Content-Length` beside `Transfer-Encoding`": [chunked("Content-Length: 1\r\n")],
    "`Content-Length: 1, 1`": [get("/", "Content-Length: 1, 1\r\n") + "a"],
    "`Transfer-Encoding: gzip, chunked`": [
        get("/", "Transfer-Encoding: gzip, chunked\r\n", "POST") + "0\r\n\r\n"
    ],
    "`Transfer-Encoding` in HTTP/1.0": [chunked(version="1.0")],
    "a chunk size that is no plain hexadecimal number": [chunked(chunk="0x1\r\na\r\n0\r\n\r\n")],
    "`Connection: host`, or any other field that frames the message": [
        get("/", "Connection: host\r\n"),
        get("/", "Connection: content-length\r\nContent-Length: 0\r\n"),
    ],
    "a version other than HTTP/1.0 and HTTP/1.1": [f"GET / HTTP/2.0\r\n{HOST}\r\n"],
    "`CONNECT`, `OPTIONS *`": [
        get("api.example.com:443", method="CONNECT"),
        get("*", method="OPTIONS"),
    ],
    "a target whose host is not that of Host": [get("http://other.example/")],
    "a target with a host that is not served": [
        "GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n"
    ],
    "`/a//b`": [get("/a//b")],
    "`/a/../b`, `/a/./b`": [get("/a/../b"), get("/a/./b")],
    "`/a/%2e%2e/b`, and any encoded dot": [get("/a/%2e%2e/b"), get("/a%2ehtml")],
    "`/a/..;/b`, `/a/;b`": [get("/a/..;/b"), get("/a/;b")],
    "`/a;x/b`, where `/a/b` has another route, or none": [get("/closed;x"), get("/closed%3bx")],
    "`%00`, any encoded control character, `%5c`": [get("/%00"), get("/%1f"), get("/a%5cb")],
    "a backslash, a byte beyond ASCII": [get("/a\\b"), get("/é")],
    "`%` without two hexadecimal digits": [get("/a%2"), get("/a%zz")],
    "`%2f`, unless the route says `encoded_slash: keep`": [get("/a%2fb")],
    "`TRACE`": [get("/", method="TRACE")],
    "`Expect: something`": [get("/", "Expect: something\r\n")],
    "a target longer than 8 KiB": [get("/" + "x" * 8192)],
    "a head larger than 16 KiB": [get("/", f"A: {'x' * 16384}\r\n")],
    "more than 100 fields": [get("/", "A: b\r\n" * 100)],
}
REFUSED = {row[0]: row[1] for row in table(PAGE, "What is refused")}


def test_the_table_and_the_tests_name_the_same() -> None:
    assert list(REFUSED) == list(SENT)


@pytest.mark.parametrize("row", SENT)
def test_what_is_refused(row: str) -> None:
    for sent in SENT[row]:
        gateway = MemoryGateway(CONFIGURATION)
        client = gateway.client()
        client.send(sent.encode("latin-1"))
        assert [str(answer.status) for answer in client.answers()] == [REFUSED[row]], sent
        if "chunk size" not in row:  # which the page excepts
            assert not gateway.service("users").connections, sent
        if REFUSED[row] == "400":
            assert client.ending.value == "ended", sent
            client.send(get("/").encode())
            assert len(client.answers()) == 1, sent


def test_a_malformed_chunk_breaks_the_connection_to_the_service_off() -> None:
    gateway = MemoryGateway(CONFIGURATION)
    gateway.client().send(chunked(chunk="1\r\na\r\n0x1\r\nb\r\n").encode())
    service = gateway.service("users").accept()
    assert service.ending.value == "aborted"
    assert not service.received.endswith(b"0\r\n\r\n")


def test_the_table_of_statuses_is_complete() -> None:
    told = {
        number
        for row in table(PAGE, "Answers of the gateway itself")
        for number in re.findall(r"\d{3}", row[0])
    }
    used = set()
    for path in (ROOT / "edgeproxy").rglob("*.py"):
        text = path.read_text("utf-8")
        used |= set(re.findall(r"GatewayError\(\s*(\d{3})", text))
        used |= set(re.findall(r"_refused\((\d{3})", text))
        used |= set(re.findall(r"malformed\([^)]*\b(\d{3})\)", text))
        used |= set(re.findall(r"Failure\.\w+: (\d{3})", text))
        used |= set(re.findall(r"exchange\.reply\(\s*(204|3\d{2})", text))
    assert told == used | {"400"}


def test_the_answer_shown_is_the_one_given() -> None:
    (shown,) = [text for text in of("docs/behaviour.md", "text") if "401" in text]
    client = MemoryGateway(CONFIGURATION).client()
    client.send(get("/closed").encode())
    given = client.received.decode().replace("\r\n", "\n")
    for text in re.findall(r"[0-9a-f]{32}", given):
        given = given.replace(text, "ID")
    # What differs from answer to answer: the id, and the moment.
    given = re.sub(r"Date: .* GMT", "Date: NOW", given)
    shown = re.sub(r"Date: .* GMT", "Date: NOW", re.sub(r"[0-9a-f]{32}", "ID", shown))
    assert shown.strip() == given


def test_fields_that_clients_may_not_send_are_named() -> None:
    text = PAGE.replace("`, `-", "`, `X-Forwarded-").replace("`-Proto`", "`X-Forwarded-Proto`")
    for name in (*IDENTITY, *FORWARDING):
        assert f"`{name}`" in text.lower(), name


# -- the access log ------------------------------------------------------------------------------


def logged(times: int = 1) -> dict[str, Any]:
    """A line with everything in it: a client behind a trusted proxy, refused, with a query; from
    the second time on beyond a limit in shadow mode."""
    text = CONFIGURATION.replace("/closed: users", "/closed: { to: users, limit: soon }").replace(
        "limits: {", "limits: { soon: { rate: 1/min, by: address, shadow: true },"
    )
    gateway = MemoryGateway(text + "\ntrusted_proxies: 192.0.2.1\n")
    client = gateway.client()
    forwarded = "X-Forwarded-For: 203.0.113.9\r\n"
    for _ in range(times):
        client.send(get("/closed?token=secret", forwarded + "X-API-Key: secret\r\n").encode())
    return gateway.log[-1]


def test_the_fields_of_the_access_log_are_in_the_table() -> None:
    named = [
        name
        for row in table(PAGE, "The access log")
        for name in re.findall(r"`(\w+)`", row[0])
        if name not in {outcome.value for outcome in Outcome}
    ]
    line = logged(2)
    assert sorted(line) == sorted(named)
    assert "secret" not in json.dumps(line)


def test_the_line_shown_is_one_that_could_be_written() -> None:
    (shown,) = of("docs/behaviour.md", "json")
    example, line = json.loads(shown), logged()
    assert list(example) == [name for name in line if name not in ("peer", "reason")]
    for name, value in example.items():
        assert type(value) is type(line[name]), name


def test_every_outcome_has_its_row() -> None:
    rows = " ".join(row[0] for row in table(PAGE, "The access log"))
    for outcome in Outcome:
        assert f"`{outcome.value}`" in rows


# -- embedding -----------------------------------------------------------------------------------


def test_the_test_shown_passes(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = [t for t in of("docs/embedding.md", "python") if "MemoryGateway" in t]
    space: dict[str, Any] = {}
    exec(compile(example, "docs/embedding.md", "exec"), space)
    (test,) = [value for name, value in space.items() if name.startswith("test_")]
    test()
    assert "<< HTTP/1.1 429 Too Many Requests" in capsys.readouterr().out
