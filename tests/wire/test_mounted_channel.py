"""Resources behind routes, as their clients see them."""

from __future__ import annotations

import ast
import gc
import gzip
from collections.abc import Callable
from typing import Any

import pytest
from mounted_shop import CONFIGURATION, Held, Pull, Push
from twisted.logger import LogLevel, capturedLogs
from wire_support import get, names, post

from edgeproxy.exchange import Outcome
from edgeproxy.testing import Ending, MemoryGateway, Wire

Make = Callable[..., MemoryGateway]

MOST = 2 * 65536 + 16


def held(gateway: MemoryGateway) -> Held:
    """The resource of /held."""
    for rule in gateway.gateway.snapshot().router.ordered:
        if rule.action.label == "api.example.com /held":
            assert rule.action.mounted is not None
            found: Held = rule.action.mounted.site.resource
            return found
    raise AssertionError


def told(wire: Wire) -> dict[str, Any]:
    found: dict[str, Any] = ast.literal_eval(wire.answers()[-1].body.decode())
    return found


# -- what the resource is given --------------------------------------------------------------------


def test_a_request_as_its_resource_sees_it(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client("2001:db8::7")
    client.send(get("/told/a%20b/c?x=1&x=2", b"Cookie: a=b\r\nX-Mine: 1\r\nX-Mine: 2\r\n"))
    found = told(client)
    assert found["uri"] == b"/told/a%20b/c?x=1&x=2"
    assert (found["prepath"], found["postpath"]) == ([b"told"], [b"a b", b"c"])
    assert found["args"] == {b"x": [b"1", b"2"]}
    assert found["url"] == b"https://api.example.com/told"
    assert (found["client"], found["secure"]) == ("2001:db8::7", True)
    assert found["principal"] is None
    assert found["cookie"] == b"b"
    fields = found["fields"]
    assert fields[b"x-mine"] == b"2"
    assert fields[b"x-request-id"] == found["id"].encode()
    assert fields[b"x-forwarded-for"] == b"2001:db8::7"
    assert fields[b"host"] == b"api.example.com"
    assert gateway.log[-1]["id"] == found["id"]


@pytest.mark.parametrize(
    ("path", "prepath", "postpath"),
    [
        ("/told", [b"told"], []),
        ("/told/", [b"told"], [b""]),
        ("/one", [b"one"], []),
        ("/v1/cut/x", [b"cut"], [b"x"]),
    ],
)
def test_the_routes_path_is_where_it_is_mounted(
    quick: Make, path: str, prepath: list[bytes], postpath: list[bytes]
) -> None:
    client = quick(CONFIGURATION).client()
    client.send(get(path))
    found = told(client)
    assert (found["prepath"], found["postpath"]) == (prepath, postpath)


def test_a_slash_within_the_mounts_segments_is_refused(quick: Make) -> None:
    gateway = quick(
        "routes: { api.example.com: { /a/b: "
        "{ resource: mounted_shop.Told, auth: none, encoded_slash: keep } } }"
    )
    client = gateway.client()
    client.send(get("/a/b/c%2Fd"))
    assert told(client)["postpath"] == [b"c/d"]
    client.send(get("/a%2Fb/c"))
    assert client.answers()[-1].status == 400


def test_the_caller_is_who_the_gateway_says(make: Make) -> None:
    gateway = make(CONFIGURATION)
    key = gateway.key("ada", groups=["staff"]).encode()
    client = gateway.client()
    client.send(get("/mine"))
    assert client.answers()[-1].status == 401
    client.send(
        get("/mine", b"X-API-Key: %b\r\nX-Consumer-Id: root\r\nX_Consumer_Name: root\r\n" % key)
    )
    found = told(client)
    assert found["principal"] == "ada"
    assert found["fields"][b"x-consumer-name"] == b"ada"
    assert found["fields"][b"x-consumer-groups"] == b"staff"
    assert b"root" not in client.answers()[-1].body
    assert key not in client.answers()[-1].body


def test_the_client_behind_a_trusted_proxy(quick: Make) -> None:
    gateway = quick("trusted_proxies: 192.0.2.1\n" + CONFIGURATION)
    client = gateway.client()
    client.send(get("/told", b"X-Forwarded-For: 203.0.113.9\r\n"))
    assert told(client)["client"] == "203.0.113.9"


def test_rules_of_the_route_hold_for_requests_too(quick: Make) -> None:
    gateway = quick(
        "routes: { api.example.com: { /: { resource: mounted_shop.ready, auth: none,"
        " request: { set: { X-Set: edge }, remove: [Cookie] } } } }"
    )
    client = gateway.client()
    client.send(get("/", b"Cookie: a=b\r\n"))
    assert told(client)["fields"][b"x-set"] == b"edge"
    assert told(client)["cookie"] is None


# -- bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_forms_are_parsed(make: Make, chunked: bool) -> None:
    client = make(CONFIGURATION).client()
    fields = b"Content-Type: application/x-www-form-urlencoded\r\n"
    client.send(post(b"a=1&b=2", "/told?a=0", fields, chunked=chunked))
    found = told(client)
    assert found["args"] == {b"a": [b"1"], b"b": [b"2"]}
    assert found["fields"][b"content-length"] == b"7"
    assert b"transfer-encoding" not in found["fields"]


def test_a_malformed_form_is_refused(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(post(b"garbage", "/told", b"Content-Type: multipart/form-data; boundary=x\r\n"))
    assert client.answers()[-1].status == 400
    assert client.ending is not Ending.OPEN


@pytest.mark.parametrize(
    ("size", "chunked", "where"),
    [(1000, False, "BytesIO"), (1000, True, "BytesIO"), (150_000, True, "BufferedRandom")],
)
def test_a_large_body_lies_in_a_file(quick: Make, size: int, chunked: bool, where: str) -> None:
    client = quick(CONFIGURATION).client()
    client.send(post(b"x" * size, "/told", chunked=chunked))
    assert told(client)["size"] == size
    assert told(client)["file"] == where


def test_a_body_over_the_bound_is_refused(make: Make) -> None:
    gateway = make(CONFIGURATION)
    for chunked in (False, True):
        client = gateway.client()
        client.send(post(b"x" * 205_000, "/told", chunked=chunked), apart=False)
        assert client.answers()[-1].status == 413


def test_100_continue_is_answered_when_the_body_is_wanted(make: Make) -> None:
    client = make(CONFIGURATION).client()
    client.send(get("/told", b"Expect: 100-continue\r\nContent-Length: 3\r\n", "POST"))
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"abc")
    assert b"'size': 3" in client.take()


def test_a_client_that_goes_within_its_body_leaves_nothing(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held", b"Content-Length: 30\r\n", "POST") + b"x")
    client.reset()
    assert held(gateway).requests == []
    assert [each.outcome for each in gateway.finished] == [Outcome.CLIENT_GONE]


def test_no_room_for_a_body(quick: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = quick(CONFIGURATION)
    client = gateway.client()
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with capturedLogs() as logs:
        client.send(post(b"x" * 150_000, "/told", chunked=True))
    assert client.answers()[-1].status == 503
    assert [event["why"] for event in logs if event["log_level"] is LogLevel.error] == [
        "No such file or directory"
    ]


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/tree/", 200, b"the root"),
        ("/", 200, b"the root"),
        ("/tree/data", 200, b"some data"),
        ("/data", 200, b"some data"),
        ("/tree/later", 200, b"later"),
        ("/tree/none", 404, None),
    ],
)
def test_what_twisted_has_ready(make: Make, path: str, status: int, body: bytes | None) -> None:
    client = make(CONFIGURATION).client()
    client.send(get(path))
    (found,) = client.answers()
    assert found.status == status
    assert body is None or found.body == body


def test_head_and_the_same_connection_again(make: Make) -> None:
    client = make(CONFIGURATION).client()
    client.send(get("/tree/data", method="HEAD") + get("/told", method="HEAD"))
    client.send(get("/tree/data"))
    first, second, third = client.answers("HEAD", "HEAD", "GET")
    assert (first.body, second.body, third.body) == (b"", b"", b"some data")
    assert b"Content-Length: 9\r\n" in client.received


def test_a_redirect_and_compression(make: Make) -> None:
    client = make(CONFIGURATION).client()
    client.send(get("/tree/away") + get("/tree/zipped", b"Accept-Encoding: gzip\r\n"))
    away, zipped = client.answers()
    assert away.status == 302
    assert b"Location: /tree/data\r\n" in client.received
    assert gzip.decompress(zipped.body) == b"z" * 100_000


def test_an_answer_of_unknown_length(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    request.write(b"")
    gateway.reactor.settle()
    assert b"Transfer-Encoding: chunked\r\n" in client.take()
    request.write(b"abc")
    request.write(b"")
    request.write(b"def")
    gateway.reactor.settle()
    assert client.take() == b"3\r\nabc\r\n3\r\ndef\r\n"
    request.finish()
    gateway.reactor.settle()
    assert client.take() == b"0\r\n\r\n"
    client.send(get("/tree/data"))
    assert client.answers()[-1].body == b"some data"
    assert held(gateway).ends == [None]


def test_http_1_0_is_ended_by_the_connection(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held").replace(b"HTTP/1.1", b"HTTP/1.0"))
    (request,) = held(gateway).requests
    request.write(b"abc")
    request.finish()
    gateway.reactor.settle()
    assert client.received.endswith(b"\r\n\r\nabc")
    assert b"chunked" not in client.received
    assert client.ending is Ending.ENDED


def test_pipelined_requests_are_answered_in_order(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held") + get("/tree/data") + get("/held"))
    assert len(held(gateway).requests) == 1
    held(gateway).requests[0].finish()
    gateway.reactor.settle()
    assert len(held(gateway).requests) == 2
    held(gateway).requests[1].write(b"second")
    held(gateway).requests[1].finish()
    gateway.reactor.settle()
    assert [answer.body for answer in client.answers()] == [b"", b"some data", b"second"]


def test_two_at_once(make: Make) -> None:
    gateway = make(CONFIGURATION)
    first, second = gateway.client(), gateway.client()
    first.send(get("/held/1"))
    second.send(get("/held/2"))
    one, two = held(gateway).requests
    two.write(b"two")
    two.finish()
    one.write(b"one")
    one.finish()
    gateway.reactor.settle()
    assert (first.answers()[0].body, second.answers()[0].body) == (b"one", b"two")


def test_the_head_is_treated_as_a_services(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(
        get(
            "/shown?Server=mine&X-Powered-By=me&Connection=close,X-Named&X-Named=1&Keep-Alive=1"
            "&Upgrade=h2c&Content-Encoding=identity&Transfer-Encoding=gzip&X-Many=1&X-Many=2"
        )
    )
    (found,) = client.answers()
    assert found.body == b"headed"
    seen = names(client.received)
    assert seen.count(b"set-cookie") == seen.count(b"x-many") == 2
    assert seen.count(b"x-set") == seen.count(b"date") == 1
    gone = (b"server", b"x-powered-by", b"connection", b"x-named", b"keep-alive", b"upgrade")
    for name in (*gone, b"transfer-encoding", b"x-gone"):
        assert name not in seen, name


def test_server_header_keep(quick: Make) -> None:
    client = quick("server_header: keep\n" + CONFIGURATION).client()
    client.send(get("/shown?Server=mine"))
    assert b"Server: mine\r\n" in client.received


@pytest.mark.parametrize(
    "query",
    [
        "X-A=1%0d%0aX-Injected:%201",
        "X-A=1%0aX-Injected:%201",
        "X-A%0d%0aX-Injected:%201=1",
        "X-A=%01",
        "X-A=%00X-Injected:%201",
        "status=200&X%20A=1",
    ],
)
def test_no_field_can_be_smuggled_in(make: Make, query: str) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get(f"/shown?{query}".replace("%0", "%0")))
    assert client.answers()[-1].status in (200, 500)
    assert b"x-injected" not in names(client.received)


def test_limits_are_told(quick: Make) -> None:
    gateway = quick(
        "limits: { few: 2/min }\n"
        "routes:\n  '*': { /: { resource: mounted_shop.ready, auth: none, limit: few } }"
    )
    client = gateway.client()
    client.send(get("/") * 3)
    assert [answer.status for answer in client.answers()] == [200, 200, 429]
    assert names(client.received).count(b"ratelimit") == 1


# -- lengths ---------------------------------------------------------------------------------------


def test_an_answer_longer_than_it_said_never_ends_cleanly(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    with capturedLogs() as logs:
        request.setHeader("Content-Length", "3")
        request.write(b"abcdef")
        request.write(b"more")
        request.finish()
        gateway.reactor.settle()
    assert client.ending is Ending.ABORTED
    assert b"abcdef" not in client.received
    assert gateway.finished[-1].outcome is Outcome.ERROR
    assert len([event for event in logs if event["log_level"] is LogLevel.error]) == 1


def test_an_answer_shorter_than_it_said_never_ends_cleanly(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    request.setHeader("Content-Length", "10")
    request.write(b"abcdef")
    request.finish()
    gateway.reactor.settle()
    assert client.ending is Ending.ABORTED
    assert gateway.log[-1]["outcome"] == "error"
    assert gateway.log[-1]["reason"] == "resource: it wrote less than its Content-Length"


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way_of_failing", ["raises", "child", "later", "text", "exit"])
def test_a_failing_resource_is_500_and_one_log_line(make: Make, way_of_failing: str) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    with capturedLogs() as logs:
        client.send(get(f"/fails/{way_of_failing}"))
    (found,) = client.answers()
    assert found.status == 500
    assert b"application/problem+json" in client.received
    assert gateway.log[-1]["id"].encode() in found.body
    for secret in (b"secret", b"Traceback", b"html", b"mounted_shop", b"ValueError"):
        assert secret not in client.received
    assert len([e for e in logs if e["log_level"] is LogLevel.critical]) == 1
    assert gateway.log[-1]["outcome"] == "error"
    client.send(get("/tree/data"))
    assert client.answers()[-1].body == b"some data"


def test_a_resource_that_fails_midway_never_ends_cleanly(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    with capturedLogs() as logs:
        client.send(get("/fails/midway"))
    assert client.ending is Ending.ABORTED
    assert b"secret" not in client.received
    assert len([e for e in logs if e["log_level"] is LogLevel.critical]) == 1


@pytest.mark.parametrize("status", [b"99", b"100", b"101", b"1000"])
def test_what_is_no_status_of_an_answer_is_500(quick: Make, status: bytes) -> None:
    gateway = quick(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    request.setResponseCode(int(status))
    request.finish()
    gateway.reactor.settle()
    assert client.answers()[-1].status == 500


@pytest.mark.parametrize("code", [204, 304])
def test_answers_without_a_body(make: Make, code: int) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    request = held(gateway).requests[-1]
    request.setResponseCode(code)
    request.setHeader("Content-Length", "0")
    request.write(b"not for the client")
    request.finish()
    gateway.reactor.settle()
    assert b"content-length" not in names(client.take())
    client.send(get("/tree/data"))
    assert client.take().endswith(b"some data")


def test_a_resource_that_takes_too_long(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    gateway.wait(4.5)
    assert client.received == b""
    gateway.wait(1)
    assert client.answers()[-1].status == 504
    assert len(held(gateway).ends) == 1
    held(gateway).requests[0].write(b"late")
    held(gateway).requests[0].finish()
    gateway.reactor.settle()
    client.send(get("/held"))
    gateway.wait(4)
    held(gateway).requests[1].write(b"in time")
    gateway.reactor.settle()
    gateway.wait(6)
    held(gateway).requests[1].write(b"again")
    gateway.reactor.settle()
    gateway.wait(7.5)
    assert client.ending is Ending.ABORTED
    assert gateway.log[-1]["reason"] == "the resource took too long"


def test_a_stream_of_events_may_be_silent(quick: Make) -> None:
    gateway = quick(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    request.setHeader("Content-Type", "text/event-stream")
    request.write(b"data: 1\n\n")
    gateway.wait(290)
    assert client.ending is Ending.OPEN
    gateway.wait(11)
    assert client.ending is Ending.ABORTED


@pytest.mark.parametrize("path", ["/seen/ends", "/seen/fails", "/seen/goes"])
def test_what_has_ended_needs_no_collector(quick: Make, path: str) -> None:
    gateway = quick(
        "routes: { api.example.com: { /seen: { resource: mounted_shop.Seen, auth: none } } }"
    )
    client = gateway.client()
    gc.disable()
    try:
        client.send(get(path))
        client.reset()
        (rule,) = gateway.gateway.snapshot().router.ordered
        assert rule.action.mounted is not None
        assert [seen() for seen in rule.action.mounted.site.resource.seen] == [None]
    finally:
        gc.enable()


# -- ends ------------------------------------------------------------------------------------------


def test_a_client_that_goes_is_told_of(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    producer = Push(request, 100, b"x" * 10)
    request.registerProducer(producer, True)
    gateway.reactor.settle()
    client.reset()
    assert producer.stopped
    assert len(held(gateway).ends) == 1
    late = Push(request, 1, b"x")
    with capturedLogs() as logs:
        request.write(b"late")
        request.unregisterProducer()
        request.registerProducer(late, True)
        request.unregisterProducer()
        request.finish()
        request.finish()
        gateway.reactor.settle()
    assert late.stopped
    assert logs == []
    assert [each.outcome for each in gateway.finished] == [Outcome.CLIENT_GONE]


def test_writing_after_the_end_is_an_error_of_the_resource_alone(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    request.finish()
    gateway.reactor.settle()
    with pytest.raises(RuntimeError):
        request.write(b"late")
    client.send(get("/tree/data"))
    assert [answer.body for answer in client.answers()] == [b"", b"some data"]


def test_a_drain_that_is_over_ends_it(quick: Make) -> None:
    gateway = quick("timeouts: { drain: 2s }\n" + CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    gateway.gateway.drain()
    gateway.reactor.settle()
    assert held(gateway).ends == []
    gateway.wait(3)
    assert len(held(gateway).ends) == 1
    assert gateway.finished[-1].outcome is Outcome.DRAINED


def test_a_resource_may_close_the_connection(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    request.write(b"some")
    gateway.reactor.settle()
    request.transport.loseConnection()
    gateway.reactor.settle()
    assert client.ending is Ending.ABORTED
    assert len(held(gateway).ends) == 1


# -- backpressure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Pull, Push])
def test_a_slow_client_pauses_the_producer(quick: Make, kind: type[Pull]) -> None:
    gateway = quick(CONFIGURATION)
    client = gateway.client()
    client.stall()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    producer = kind(request, 1000, b"x" * 10_000)
    request.registerProducer(producer, kind is Push)
    gateway.reactor.settle()
    if isinstance(producer, Push):
        producer.go()
    gateway.reactor.settle()
    (stream,) = [each for each in gateway.streams if each.wire is client]
    assert stream.peak <= MOST
    assert producer.pieces > 980
    gateway.wait(30)  # the client's time, not the resource's
    for _ in range(20):
        client.stall(window=50_000)
        gateway.reactor.settle()
        assert stream.peak <= MOST
    client.flow()
    assert client.answers()[-1].body == b"x" * 10_000_000
    assert held(gateway).ends == [None]


def test_a_client_that_takes_nothing_more_ends_the_producer(quick: Make) -> None:
    gateway = quick(CONFIGURATION)
    client = gateway.client()
    client.stall()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    producer = Pull(request, 1000, b"x" * 10_000)
    request.registerProducer(producer, False)
    gateway.reactor.settle()
    gateway.wait(65)
    assert producer.stopped
    assert gateway.finished[-1].outcome is Outcome.CLIENT_STALLED
    assert len(held(gateway).ends) == 1


def test_a_producer_that_fails(make: Make) -> None:
    gateway = make(CONFIGURATION)
    client = gateway.client()
    client.send(get("/held"))
    (request,) = held(gateway).requests
    producer = Pull(request, 3, "text")  # type: ignore[arg-type]
    with capturedLogs() as logs:
        request.registerProducer(producer, False)
        gateway.reactor.settle()
    assert client.ending is Ending.ABORTED or client.answers()[-1].status == 500
    assert producer.stopped
    assert len([e for e in logs if e["log_level"] is LogLevel.critical]) == 1
