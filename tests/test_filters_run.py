"""Filters over whole requests: what they see, change and answer; what waits, what fails."""

from __future__ import annotations

import gc
from asyncio import CancelledError as CancelledByAsyncio
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogPublisher

from edgeproxy.config import ConfigError
from edgeproxy.exchange import Exchange, Outcome
from edgeproxy.filters import Answer, Filter, LogEntry, Refuse, Request, Response
from edgeproxy.filters.pending import Pending
from edgeproxy.filters.run import Run
from edgeproxy.testing import FilterHarness, MemoryGateway, Way


class Odd(Refuse):
    """Without the constructor of what it is."""

    def __init__(self) -> None:
        pass


def changed(given: Any, **members: Any) -> Any:
    for name, value in members.items():
        setattr(given, name, value)
    return given


SPOILT = [
    changed(Refuse(403, "No."), status="403"),
    changed(Refuse(403, "No."), detail=None),
    Odd(),
    changed(Answer(200, body="x"), status=204),
    changed(Answer(200), body="text"),
    changed(Answer(200), lines=["A: b"]),
    changed(Answer(200), lines=[b"A: b\r\nC: d"]),
]


@pytest.mark.parametrize("hook", ["on_request", "on_upstream_request", "on_response"])
@pytest.mark.parametrize("given", SPOILT, ids=range(len(SPOILT)))
def test_an_answer_that_was_spoilt_is_a_failure_of_its_filter(hook: str, given: Any) -> None:
    def ask(self: Any, request: Request) -> Any:
        return given

    def respond(self: Any, request: Request, response: Response) -> Any:
        return given

    made = type("Spoils", (Filter,), {hook: respond if hook == "on_response" else ask})
    seen = FilterHarness(made).request()
    assert seen.status == 500
    assert seen.log["reason"] == "filter spoils: TypeError"


class Leaves(BaseException):
    """Not an Exception, as asyncio's CancelledError."""


@pytest.mark.parametrize("error", [Leaves, CancelledByAsyncio, GeneratorExit, SystemExit])
def test_whatever_a_filter_raises_is_its_failure(error: type[BaseException]) -> None:
    class Raises(Filter):
        def on_request(self, request: Request) -> None:
            if request.path == "/in":
                raise error

        def on_log(self, request: Request, entry: LogEntry) -> None:
            raise error

    harness = FilterHarness(Raises)
    assert harness.request(path="/in").log["reason"] == f"filter raises: {error.__name__}"
    assert harness.request(path="/").status == 200
    assert harness.gateway.gateway.filters.counts["raises"].errors == 3


class Tenant(Filter):
    """Tells the service whose sub-domain was asked for."""

    sets = ["X-Tenant"]

    def on_request(self, request: Request) -> None:
        name, dot, _ = request.host.partition(".")
        if name == "www":
            raise Refuse(404, "There is no such tenant.", reason="no tenant")
        request.state["tenant"] = name
        request.headers["X-Tenant"] = name

    def on_log(self, request: Request, entry: LogEntry) -> None:
        entry["tenant"] = request.state.get("tenant")


def test_a_filter_sets_what_it_declares_and_nobody_else_does() -> None:
    seen = FilterHarness(Tenant).request(
        host="acme.example.com",
        headers=[("X-Tenant", "evil"), ("x_tenant", "evil"), ("Connection", "X-Tenant")],
    )
    assert seen.status == 200
    assert seen.passed_on is not None
    named = [value for name, value in seen.passed_on.fields if "tenant" in name.lower()]
    assert named == ["acme"]
    assert seen.log["tenant"] == "acme"


def test_a_refusal_is_a_problem_document_and_its_reason_is_in_the_log_alone() -> None:
    harness = FilterHarness(Tenant)
    seen = harness.request(host="www.example.com")
    assert (seen.status, seen.passed_on) == (404, None)
    assert seen.answer is not None
    assert seen.answer.json["detail"] == "There is no such tenant."
    assert b"no tenant" not in seen.answer.body
    assert seen.log["reason"] == "filter tenant: no tenant"
    assert (seen.log["outcome"], seen.log["tenant"]) == ("refused", None)
    counts = harness.gateway.gateway.filters.counts["tenant"]
    assert (counts.calls, counts.refused, counts.errors) == (2, 1, 0)


def test_no_client_sends_what_a_filter_sets_on_any_route_nor_as_a_trailer() -> None:
    gateway = MemoryGateway(
        """
        upstreams: { a: http://10.0.0.1:80 }
        routes: { "*": { /: { to: a, auth: none }, /t: { to: a, auth: none, filters: tenant } } }
        """,
        filters={"tenant": Tenant},
    )
    client = gateway.client()
    client.send(
        b"POST / HTTP/1.1\r\nHost: a.example.com\r\nX-Tenant: evil\r\nX.Tenant: evil\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Tenant: evil\r\nX-Fine: 1\r\n\r\n"
    )
    received = gateway.service("a").received
    assert b"evil" not in received
    assert b"X-Fine: 1" in received


class Everything(Filter):
    """Answers, waits and fails as the request's fields want it."""

    waiting: list[Deferred[Any]]

    def __init__(self) -> None:
        self.waiting = []
        self.cancelled = 0

    def later(self) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred(self._cancel)
        self.waiting.append(deferred)
        return deferred

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self.cancelled += 1

    def on_request(self, request: Request) -> Any:
        return self._do(request, "Early")

    def on_upstream_request(self, request: Request) -> Any:
        return self._do(request, "Late")

    def on_response(self, request: Request, response: Response) -> Any:
        response.headers["X-Seen"] = response.source
        return self._do(request, "Back")

    def _do(self, request: Request, when: str) -> Any:
        what = request.headers.get(f"X-{when}")
        if what == "answer":
            return Answer(299, {"X-Own": "1"}, "mine")
        if what == "refuse":
            raise Refuse(451, "No.")
        if what == "fail":
            raise KeyError("secret")
        if what == "exit":
            raise SystemExit(3)
        if what == "wrong":
            return 3
        if what == "wait":
            return self.later()
        if what == "fired":
            ready = self.later()
            ready.callback(None)
            return ready
        return self._async() if what == "async" else None

    async def _async(self) -> None:
        await self.later()


@pytest.mark.parametrize("when", ["Early", "Late", "Back"])
@pytest.mark.parametrize(
    ("what", "status"),
    [("answer", 299), ("refuse", 451), ("fail", 500), ("exit", 500), ("wrong", 500), ("no", 200)],
)
def test_what_a_hook_gives_at_once(when: str, what: str, status: int) -> None:
    harness = FilterHarness(Everything)
    seen = harness.request(headers={f"X-{when}": what})
    assert seen.status == status
    assert (seen.passed_on is None) is (when != "Back" and status != 200)
    assert seen.answer is not None
    assert b"secret" not in seen.answer.body
    if status == 500:
        assert seen.log["reason"].startswith("filter everything: ")
        assert seen.log["outcome"] == "error"
        assert harness.gateway.gateway.filters.counts["everything"].errors == 1
    if what == "answer":
        assert (seen.answer.body, seen.field("X-Own")) == (b"mine", "1")
        assert seen.field("Content-Type") == "text/plain; charset=utf-8"
    # The connection is as good as new after it.
    again = harness.request()
    assert again.status == 200


@pytest.mark.parametrize("when", ["Early", "Late", "Back"])
@pytest.mark.parametrize("what", ["wait", "async", "fired"])
@pytest.mark.parametrize(
    ("result", "status"),
    [(None, 200), (Answer(299), 299), (Refuse(451, "No."), 451), (KeyError("secret"), 500)],
)
def test_what_a_hook_gives_later(when: str, what: str, result: Any, status: int) -> None:
    harness = FilterHarness(Everything)
    seen = harness.request(headers={f"X-{when}": what})
    if what == "fired":
        assert seen.status == 200
        return
    assert seen.status == 0
    assert (seen.passed_on is None) is (when != "Back")
    (deferred,) = harness.filter.waiting
    if what == "async" and isinstance(result, Answer):
        result, status = None, 200  # what is awaited is not what is returned
    if isinstance(result, Exception):
        deferred.errback(result)
    else:
        deferred.callback(result)
    assert seen.status == status
    assert harness.request().status == 200


@pytest.mark.parametrize("when", ["Early", "Late", "Back"])
@pytest.mark.parametrize("what", ["wait", "async"])
def test_a_hook_that_takes_too_long_is_cancelled_and_answered(when: str, what: str) -> None:
    harness = FilterHarness(Everything, settings={"timeout": "2s"})
    seen = harness.request(headers={f"X-{when}": what})
    harness.wait(1.5)
    assert seen.status == 0
    harness.wait(1)
    assert (seen.status, seen.field("Retry-After")) == (503, "1")
    assert seen.log["reason"] == "filter everything: no answer within 2 s"
    assert harness.filter.cancelled == 1
    assert harness.gateway.gateway.filters.counts["everything"].timeouts == 1
    assert harness.request().status == 200


@pytest.mark.parametrize("when", ["Early", "Late", "Back"])
def test_a_client_that_goes_away_cancels_what_is_waited_for(when: str) -> None:
    harness = FilterHarness(Everything)
    seen = harness.request(headers={f"X-{when}": "wait"})
    seen._client.reset()
    harness.settle()
    assert harness.filter.cancelled == 1
    assert seen.log["outcome"] == Outcome.CLIENT_GONE.value
    assert not [
        each
        for each in harness.gateway.gateway.deadlines.waiting
        if type(each).__name__ == "Pending"
    ]


def test_a_hook_that_swallows_its_cancellation_lets_nobody_in() -> None:
    class Stubborn(Filter):
        async def on_request(self, request: Request) -> None:
            try:
                await Deferred()
            except CancelledError:
                pass

    harness = FilterHarness(Stubborn)
    seen = harness.request()
    harness.wait(6)
    assert (seen.status, seen.passed_on) == (503, None)


class Sharing(Filter):
    """Everybody waits for the same look-up, which is done once."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.lookup: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self.cancelled += 1

    def on_request(self, request: Request) -> Any:
        return self._do(request, "Early")

    def on_upstream_request(self, request: Request) -> Any:
        return self._do(request, "Late")

    def on_response(self, request: Request, response: Response) -> Any:
        return self._do(request, "Back")

    def _do(self, request: Request, when: str) -> Any:
        return self.lookup if f"X-{when}" in request.headers else None


RESULTS = [
    (None, 200),
    (Answer(299, body="mine"), 299),
    (Refuse(403, "No."), 403),
    (KeyError("secret"), 500),
    (True, 500),
]


@pytest.mark.parametrize("when", ["Early", "Late", "Back"])
@pytest.mark.parametrize(("result", "status"), RESULTS)
def test_a_deferred_that_several_requests_wait_for_says_the_same_to_each(
    when: str, result: Any, status: int, unhandled: list[str]
) -> None:
    harness = FilterHarness(Sharing)
    waiting = [harness.request(headers={f"X-{when}": "1"}) for _ in range(3)]
    assert [each.status for each in waiting] == [0, 0, 0]
    fire = harness.filter.lookup
    if isinstance(result, Exception):
        fire.errback(result)
    else:
        fire.callback(result)
    harness.settle()
    late = [harness.request(headers={f"X-{when}": "1"}) for _ in range(2)]
    assert [each.status for each in waiting + late] == [status] * 5
    if when != "Back" and status != 200:
        assert not any(each.passed_on for each in waiting + late)
    del fire
    del harness.filter.lookup
    gc.collect()
    assert unhandled == []


@pytest.fixture
def unhandled() -> Iterator[list[str]]:
    """What Twisted says of failures that nobody has looked at."""
    found: list[str] = []

    def observe(event: Any) -> None:
        text = str(event.get("log_format"))
        if "Unhandled" in text:
            found.append(text)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def test_a_failure_that_comes_after_what_was_looked_at_is_told_as_ever(
    unhandled: list[str],
) -> None:
    def fail(result: Any) -> None:
        raise KeyError("later")

    harness = FilterHarness(Sharing)
    seen = harness.request(headers={"X-Early": "1"})
    harness.filter.lookup.callback(None)
    assert seen.status == 200
    harness.filter.lookup.addCallback(fail)
    del harness.filter.lookup
    gc.collect()
    assert unhandled == ["Unhandled error in Deferred:"]


def test_a_client_that_goes_away_cancels_nothing_that_others_wait_for() -> None:
    harness = FilterHarness(Sharing)
    first, second = (harness.request(headers={"X-Early": "1"}) for _ in range(2))
    first._client.reset()
    harness.settle()
    assert (harness.filter.cancelled, second.status) == (0, 0)
    second._client.reset()
    harness.settle()
    assert harness.filter.cancelled == 1


def test_what_takes_too_long_ends_for_all_who_wait_for_it() -> None:
    """Else newcomers would keep alive what never ends."""
    harness = FilterHarness(Sharing, settings={"timeout": "2s"})
    first = harness.request(headers={"X-Early": "1"})
    harness.wait(1)
    second = harness.request(headers={"X-Early": "1"})
    harness.wait(1.5)
    assert (first.status, second.status, harness.filter.cancelled) == (503, 503, 1)
    assert (first.passed_on, second.passed_on) == (None, None)


def test_who_may_wait_longer_does() -> None:
    harness = FilterHarness(Sharing)
    deadlines = harness.gateway.gateway.deadlines
    told: list[Any] = []
    for timeout in (1, 3):
        Pending(deadlines, timeout, harness.filter.lookup, told.append)
    harness.wait(2)
    assert ([type(each).__name__ for each in told], harness.filter.cancelled) == (["TimedOut"], 0)
    harness.filter.lookup.callback("late")
    assert told[1:] == ["late"]


@pytest.mark.parametrize("way", Way)
def test_an_answer_waits_with_its_body_for_the_filter(way: Way) -> None:
    """Whatever the service's framing, nothing is lost, and nothing comes before its time."""
    body = b"x" * 100_000
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + body,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + body + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n"
        + body
        + b"\r\n0\r\nX-Late: 1\r\nX-Seen: evil\r\n\r\n",
    ):
        gateway = MemoryGateway(
            """
            upstreams: { a: http://10.0.0.1:80 }
            routes: { "*": { /: { to: a, auth: none, filters: everything } } }
            """,
            way,
            filters={"everything": Everything},
        )
        client = gateway.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\nX-Back: wait\r\n\r\n")
        service = gateway.service("a").accept()
        service.send(answer, apart=False)
        assert client.received == b""
        chain = gateway.gateway.snapshot().router.ordered[0].action.filters
        assert chain is not None
        (deferred,) = chain.entries[0].made.filter.waiting
        deferred.callback(None)
        gateway.reactor.settle()
        (found,) = client.answers("GET")
        assert found.body == body
        assert found.field("X-Seen") == "service"
        assert found.trailers in ((), ("X-Late: 1",))


def test_an_answer_without_an_end_is_paused_while_a_filter_looks_at_it() -> None:
    gateway = MemoryGateway(
        """
        upstreams: { a: http://10.0.0.1:80 }
        routes: { "*": { /: { to: a, auth: none, filters: everything } } }
        """,
        filters={"everything": Everything},
    )
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\nX-Back: wait\r\n\r\n")
    service = gateway.service("a").accept()
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    for _ in range(100):
        service.send(b"x" * 10_000)
    chain = gateway.gateway.snapshot().router.ordered[0].action.filters
    assert chain is not None
    exchange = gateway.gateway.listeners[0].connections
    (connection,) = exchange
    run = connection.exchange.filtering  # type: ignore[union-attr]
    assert run is not None and run.held is not None
    assert sum(map(len, run.held._pieces)) <= 65536
    chain.entries[0].made.filter.waiting[0].callback(None)
    gateway.reactor.settle()
    assert client.received.count(b"x") == 1_000_000


def test_unknown_classes_and_options_refuse_to_start() -> None:
    with pytest.raises(ConfigError) as caught:
        FilterHarness(Tenant, {"suffix": 1})
    assert "takes no options" in str(caught.value)


def test_no_collector_is_needed_for_what_has_ended() -> None:
    harness = FilterHarness(Everything)
    gc.collect()
    before = _exchanges()
    gc.disable()
    try:
        assert harness.request().status == 200
        assert harness.request(headers={"X-Early": "refuse"}).status == 451
        assert harness.request(headers={"X-Back": "answer"}).status == 299
        harness.gateway.gateway.log.flush()
        harness.gateway.finished.clear()
        assert _exchanges() == before
    finally:
        gc.enable()


def _exchanges() -> int:
    return sum(isinstance(each, Run | Exchange) for each in gc.get_objects())
