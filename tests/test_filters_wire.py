"""Filters beside everything else: order, shadow mode, what may be written, resources, tunnels."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from edgeproxy.config.filters import FilterUse
from edgeproxy.filters import Answer, FieldError, Filter, Refuse, Request, Response
from edgeproxy.filters.chain import Entry, Made
from edgeproxy.filters.counts import Counts
from edgeproxy.testing import FilterHarness, MemoryGateway, Way

SERVICE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def gateway_with(routes: str, way: Way = Way.WHOLE, **filters: type) -> MemoryGateway:
    text = f"upstreams: {{ a: http://10.0.0.1:80 }}\nroutes: {{ '*': {{ {routes} }} }}\n"
    return MemoryGateway(text, way, filters=filters)


# -- layers --------------------------------------------------------------------------------------


class Layer(Filter):
    """Notes what is called; the first that finds its name in X-Stop refuses."""

    name = ""
    called: list[str]

    def on_request(self, request: Request) -> None:
        self.note(request, "request")

    def on_upstream_request(self, request: Request) -> None:
        self.note(request, "upstream")

    def on_response(self, request: Request, response: Response) -> None:
        self.note(request, f"response {response.status} {response.source}")

    def on_log(self, request: Request, entry: Any) -> None:
        self.note(request, f"log {entry['status']}")

    def note(self, request: Request, what: str) -> None:
        self.called.append(f"{self.name} {what}")
        hook, _, _ = what.partition(" ")
        if f"{self.name}.{hook}" in request.headers.get("X-Stop", ""):
            raise Refuse(403, "Stopped.")


def layers(stop: str = "", answer: bytes = SERVICE) -> list[str]:
    called: list[str] = []
    classes = {
        name: type(name.upper(), (Layer,), {"name": name, "called": called}) for name in "abc"
    }
    gateway = gateway_with("/: { to: a, auth: none, filters: [a, b, c] }", **classes)
    client = gateway.client()
    client.send(f"GET / HTTP/1.1\r\nHost: a.example.com\r\nX-Stop: {stop}\r\n\r\n".encode())
    if gateway.service("a").connections:
        gateway.service("a").accept().send(answer)
    assert client.answers("GET")[0].status
    return called


def test_requests_go_through_in_order_and_answers_the_other_way_round() -> None:
    hooks = ["request", "upstream"]
    back = ["response 200 service", "log 200"]
    assert layers() == [f"{n} {hook}" for hook in hooks for n in "abc"] + [
        f"{n} {hook}" for hook in back for n in "cba"
    ]


@pytest.mark.parametrize(
    ("stop", "called"),
    [
        ("b.request", "a request,b request,a response 403 filter,b log 403,a log 403"),
        (
            "b.upstream",
            "a request,b request,c request,a upstream,b upstream,a response 403 filter,"
            "c log 403,b log 403,a log 403",
        ),
        (
            "b.response",
            "a request,b request,c request,a upstream,b upstream,c upstream,c response 200 service,"
            "b response 200 service,a response 403 filter,c log 403,b log 403,a log 403",
        ),
    ],
)
def test_the_filters_before_the_one_that_refuses_see_its_answer(stop: str, called: str) -> None:
    assert layers(stop) == called.split(",")


def test_answers_of_the_gateway_itself_are_seen() -> None:
    assert "a response 502 gateway" in layers(answer=b"no HTTP at all\r\n\r\n")


# -- shadow --------------------------------------------------------------------------------------


class Strict(Filter):
    """Does everything that a filter can do."""

    sets = ["X-Strict"]

    async def on_request(self, request: Request) -> None:
        request.headers["X-Strict"] = "1"
        what = request.headers.get("X-What")
        if what == "refuse":
            raise Refuse(403, "No.", reason="strict")
        if what == "fail":
            raise KeyError("secret")
        if what == "wait":
            await Deferred()

    def on_upstream_request(self, request: Request) -> Any:
        del request.headers["X-What"]
        return Answer(299) if request.headers.get("X-Late") else None

    def on_response(self, request: Request, response: Response) -> Any:
        response.headers["X-Strict"] = "1"
        response.status = 201
        return Answer(299) if request.headers.get("X-Back") else None


@pytest.mark.parametrize(
    ("headers", "shadow"),
    [
        ({"X-What": "refuse"}, "filter strict: 403 strict"),
        ({"X-What": "fail"}, "filter strict: 500 KeyError"),
        ({"X-What": "wait"}, "filter strict: 503 no answer within 1 s"),
        ({"X-Late": "1", "X-What": "no"}, "filter strict: 299"),
        ({"X-Back": "1", "X-What": "no"}, "filter strict: 299"),
    ],
)
def test_a_filter_in_shadow_mode_changes_nothing(headers: dict[str, str], shadow: str) -> None:
    harness = FilterHarness(Strict, settings={"shadow": True, "timeout": "1s"})
    seen = harness.request(headers=headers)
    assert seen.status == 200
    harness.wait(2)
    assert seen.passed_on is not None
    assert seen.passed_on.field("X-Strict") is None
    assert seen.passed_on.field("X-What") == headers["X-What"]
    assert seen.field("X-Strict") is None
    assert (seen.log["shadow"], seen.log["outcome"]) == (shadow, "ok")
    assert harness.gateway.gateway.filters.counts["strict"].shadowed == 1


class Slow(Filter):
    """Waits in the hook that a request names, and writes afterwards."""

    sets = ["X-Slow"]

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    async def on_request(self, request: Request) -> None:
        await self._do(request, "Early", request)

    async def on_upstream_request(self, request: Request) -> None:
        await self._do(request, "Late", request)

    async def on_response(self, request: Request, response: Response) -> None:
        await self._do(request, "Back", response)

    async def _do(self, request: Request, when: str, head: Any) -> None:
        if f"X-{when}" in request.headers:
            self.waiting.append(Deferred())
            await self.waiting[-1]
            head.headers["X-Slow"] = "1"
            raise Refuse(403, "No.", reason="slow")


@pytest.mark.parametrize("when", ["Early", "Late", "Back"])
def test_nobody_waits_for_a_filter_in_shadow_mode(when: str) -> None:
    harness = FilterHarness(Slow, settings={"shadow": True, "timeout": "2s"})
    seen = harness.request(headers={f"X-{when}": "1"})
    assert seen.status == 200
    harness.filter.waiting[0].callback(None)
    assert seen.field("X-Slow") is None
    assert seen.log["shadow"] == "filter slow: 403 slow"
    counts = harness.gateway.gateway.filters.counts["slow"]
    assert (counts.refused, counts.errors, counts.shadowed) == (1, 0, 1)
    later = harness.request(headers={f"X-{when}": "1"})
    assert (later.status, later.log.get("shadow")) == (200, None)
    harness.wait(3)
    assert (counts.timeouts, counts.shadowed) == (1, 2)


class Remembering(Filter):
    """Writes into the request's state what the one before it has written there."""

    name = ""

    def on_request(self, request: Request) -> None:
        request.state["seen"] = [*request.state.get("seen", []), self.name]

    def on_upstream_request(self, request: Request) -> None:
        request.state["late"] = self.name

    def on_response(self, request: Request, response: Response) -> None:
        request.state = {**request.state, "back": self.name}

    def on_log(self, request: Request, entry: Any) -> None:
        entry[f"state_{self.name}"] = self.state = dict(request.state)
        entry["last"] = self.name
        if self.name == "b":
            raise KeyError("secret")


def test_a_filter_in_shadow_mode_writes_into_neither_state_nor_log() -> None:
    classes = {name: type(name, (Remembering,), {"name": name}) for name in "abc"}
    gateway = gateway_with(
        "/: { to: a, auth: none, filters: [a, { use: b, shadow: true }, c] }", **classes
    )
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    gateway.service("a").accept().send(SERVICE)
    assert client.answers()[0].status == 200
    (line,) = gateway.log
    state = {"seen": ["a", "c"], "late": "c", "back": "a"}
    assert line["state_c"] == line["state_a"] == state
    assert line["last"] == "a"
    assert "state_b" not in line
    chain = gateway.gateway.snapshot().router.ordered[0].action.filters
    assert chain is not None
    tried = chain.entries[1].made
    assert tried.filter.state == {"seen": ["a", "b"], "late": "b", "back": "b"}
    assert (tried.counts.errors, tried.counts.shadowed) == (1, 1)


def test_what_a_filter_in_shadow_mode_sets_no_client_can_send_already() -> None:
    harness = FilterHarness(Strict, settings={"shadow": True})
    seen = harness.request(headers={"X-Strict": "evil"})
    assert seen.passed_on is not None and seen.passed_on.field("X-Strict") is None


# -- what may be written -------------------------------------------------------------------------


class Writing(Filter):
    """Writes a field where it is told to; keeps the heads that it was given."""

    sets = ["X-Tenant"]
    changes = ["Accept-Language"]

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def on_request(self, request: Request) -> None:
        self.kept.append(request.headers)
        self.write(request, "Early", request.headers)

    def on_upstream_request(self, request: Request) -> None:
        self.kept.append(request.headers)
        self.write(request, "Late", request.headers)

    def on_response(self, request: Request, response: Response) -> None:
        self.kept.append(response.headers)
        self.write(request, "Back", response.headers)

    def write(self, request: Request, when: str, headers: Any) -> None:
        what = request.headers.get(f"X-{when}")
        if what is not None:
            verb, _, name = what.partition(" ")
            if verb == "remove":
                headers.remove(name)
            else:
                getattr(headers, verb)(name, "written")


REQUESTS = [
    "X-Consumer-Id",
    "x_consumer_name",
    "X-Consumer-Plan",
    "Client-Cert",
    "X-Forwarded-For",
    "Via",
    "X-Request-Id",
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Upgrade",
]


@pytest.mark.parametrize("when", ["Early", "Late"])
@pytest.mark.parametrize("verb", ["set", "add", "remove"])
@pytest.mark.parametrize("name", REQUESTS)
def test_fields_that_are_the_gateways_own(when: str, verb: str, name: str) -> None:
    harness = FilterHarness(Writing)
    seen = harness.request(headers={f"X-{when}": f"{verb} {name}"}, key=harness.key("Ann"))
    assert (seen.status, seen.passed_on) == (500, None)
    assert seen.log["reason"] == "filter writing: FieldError"


@pytest.mark.parametrize("verb", ["set", "add", "remove"])
@pytest.mark.parametrize("name", ["Content-Length", "Connection", "X-Request-Id", "RateLimit"])
def test_fields_of_answers_that_are_the_gateways_own(verb: str, name: str) -> None:
    seen = FilterHarness(Writing).request(headers={"X-Back": f"{verb} {name}"})
    assert seen.status == 500
    assert seen.answer is not None and seen.answer.json["status"] == 500


@pytest.mark.parametrize("when", ["Early", "Late"])
@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("set X-Tenant", 200),
        ("set x-tenant", 200),
        ("set Accept-Language", 200),
        ("remove User-Agent", 200),
        ("set X-Other", 500),
        ("add X-Other", 500),
        ("set User-Agent", 500),
    ],
)
def test_fields_that_are_declared(when: str, what: str, status: int) -> None:
    seen = FilterHarness(Writing).request(
        headers={f"X-{when}": what, "Accept-Language": "de", "User-Agent": "curl"}
    )
    assert seen.status == status
    if status == 200:
        assert seen.passed_on is not None
        verb, name = what.split()
        assert seen.passed_on.all(name) == (["written"] if verb == "set" else [])


def test_fields_of_credentials_cannot_even_be_removed() -> None:
    made = Made("w", Writing, None, Counts(), ())
    use = FilterUse(use="w")
    Entry(0, made, use).check_write("X-User", request=True, remove=True)
    entry = Entry(0, made, use, frozenset([b"x-user"]))
    with pytest.raises(FieldError, match="w may not write x_user: it is written by a credential"):
        entry.check_write("x_user", request=True, remove=True)
    entry.check_write("X-User", request=False, remove=True)


def test_a_head_that_has_gone_cannot_be_written() -> None:
    harness = FilterHarness(Writing)
    assert harness.request().status == 200
    assert len(harness.filter.kept) == 3
    for headers in harness.filter.kept:
        with pytest.raises(FieldError, match="this head has gone"):
            headers["X-Tenant"] = "late"


def test_what_is_changed_is_still_the_clients_elsewhere() -> None:
    gateway = gateway_with("/: { to: a, auth: none }, /w: { to: a, filters: w }", w=Writing)
    gateway.client().send(
        b"GET / HTTP/1.1\r\nHost: a.example.com\r\nAccept-Language: de\r\nX-Tenant: evil\r\n\r\n"
    )
    received = gateway.service("a").received
    assert b"Accept-Language: de" in received and b"evil" not in received


def test_trailers_do_not_bring_back_what_a_filter_has_taken_out() -> None:
    gateway = gateway_with("/: { to: a, auth: none, filters: w }", w=Writing)
    client = gateway.client()
    client.send(
        b"POST / HTTP/1.1\r\nHost: a.example.com\r\nX-Early: remove X-Mode\r\nX-Mode: 1\r\n"
        b"X-Back: remove X-Inner\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\nX_Mode: evil\r\nX-Fine: 1\r\n\r\n"
    )
    service = gateway.service("a").accept()
    assert b"evil" not in service.received and b"X-Fine: 1" in service.received
    service.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Inner: 1\r\n\r\n"
        b"2\r\nok\r\n0\r\nx-inner: 2\r\nX-Fine: 1\r\n\r\n"
    )
    (answer,) = client.answers("POST")
    assert answer.trailers == ("X-Fine: 1",)
    assert answer.field("X-Inner") is None


def test_a_filter_sees_neither_the_credential_nor_what_a_client_may_not_say() -> None:
    class Looking(Filter):
        def on_request(self, request: Request) -> None:
            request.state = {"seen": request.headers.items()}  # replaced whole, which may be

        def on_log(self, request: Request, entry: Any) -> None:
            entry["seen"] = request.state["seen"]
            caller = request.principal
            assert caller is not None
            entry["caller"] = [caller.name, caller.plan, *sorted(caller.scopes), *caller.groups]

    harness = FilterHarness(Looking)
    key = harness.key("Ann", scopes=["read"], groups=["staff"], plan="gold")
    seen = harness.request(
        headers={
            "X-Consumer-Id": "evil",
            "X_Forwarded_For": "evil",
            "Authorization": "Basic mine",
            "Connection": "keep-alive, X-Hop",
            "X-Hop": "1",
            "X-Fine": "1",
        },
        key=key,
    )
    assert seen.log["seen"] == [["X-Fine", "1"], ["Authorization", "Basic mine"]]
    assert seen.log["caller"] == ["Ann", "gold", "read", "staff"]
    assert key not in str(seen.log)
    assert seen.passed_on is not None
    assert seen.passed_on.all("Authorization") == ["Basic mine"]


# -- the rest of a gateway -----------------------------------------------------------------------


class Showing(Filter):
    def on_request(self, request: Request) -> None:
        request.state["early"] = request.path

    def on_upstream_request(self, request: Request) -> None:
        request.state["late"] = request.path

    def on_response(self, request: Request, response: Response) -> None:
        response.headers["X-Paths"] = f"{request.state['early']} {request.state.get('late')}"
        response.headers["X-Source"] = response.source


def test_the_path_before_and_after_it_was_rewritten() -> None:
    harness = FilterHarness(Showing, route={"strip": "/"})
    assert harness.request(path="/a/b").field("X-Paths") == "/a/b /a/b"
    gateway = gateway_with("/a: { to: a, auth: none, strip: true, filters: s }", s=Showing)
    client = gateway.client()
    client.send(b"GET /a/%41/b?c=d HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    gateway.service("a").accept().send(SERVICE)
    assert client.answers("GET")[0].field("X-Paths") == "/a/A/b /A/b"


class Answering(Resource):
    """Answers in pieces, the last of them later."""

    isLeaf = True
    requests: ClassVar[list[Any]] = []

    def render_GET(self, request: Any) -> int:
        self.requests.append(request)
        request.setHeader(b"X-Inner", b"1")
        request.write(b"one ")
        request.write(b"two ")
        return NOT_DONE_YET


class Waiting(Filter):
    """Holds an answer back until a test says what becomes of it."""

    waiting: ClassVar[list[Deferred[Any]]] = []

    def on_response(self, request: Request, response: Response) -> Deferred[Any]:
        response.headers["X-Source"] = response.source
        del response.headers["X-Inner"]
        self.waiting.append(Deferred())
        return self.waiting[-1]


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("way", Way)
def test_a_resource_behind_filters(way: Way, finished: bool, replaced: bool) -> None:
    gateway = gateway_with(
        f"/: {{ resource: {__name__}.Answering, auth: none, filters: w }}", way, w=Waiting
    )
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    request = Answering.requests.pop()
    if finished:
        request.write(b"three")
        request.finish()
    assert client.received == b""
    Waiting.waiting.pop().callback(Answer(299, {}, "mine") if replaced else None)
    gateway.reactor.settle()
    if not finished:
        request.write(b"three")
        if not replaced:
            request.finish()
    gateway.reactor.settle()
    (answer,) = client.answers()
    if replaced:
        assert (answer.status, answer.body) == (299, b"mine")
    else:
        assert (answer.status, answer.body) == (200, b"one two three")
        assert answer.field("X-Source") == "service"
    assert answer.field("X-Inner") is None
    client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    Waiting.waiting.pop().callback(Answer(298, {}, "again"))
    gateway.reactor.settle()
    assert [each.status for each in client.answers()][1:] == [298]
    assert [line["outcome"] for line in gateway.log] == ["ok", "ok"]


def test_the_built_in_page_behind_filters() -> None:
    gateway = gateway_with("/: { page: true, auth: none, filters: s }", s=Showing)
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    (answer,) = client.answers("GET")
    assert (answer.status, answer.field("X-Source")) == (200, "gateway")


@pytest.mark.parametrize("hook", ["on_request", "on_upstream_request"])
@pytest.mark.parametrize("status", [0, 403])
def test_a_websocket_behind_filters(hook: str, status: int) -> None:
    logged: list[int] = []

    def decide(self: Any, request: Request) -> Answer | None:
        return Answer(status) if status else None

    def log(self: Any, request: Request, entry: Any) -> None:
        logged.append(entry["status"])

    kind = type("Deciding", (Filter,), {hook: decide, "on_log": log})
    gateway = gateway_with("/: { to: a, auth: none, websocket: true, filters: d }", d=kind)
    client = gateway.client()
    client.send(
        b"GET / HTTP/1.1\r\nHost: a.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    if status:
        assert client.answers("GET")[0].status == 403
        assert not gateway.service("a").connections
        assert logged == [403]
        return
    service = gateway.service("a").accept()
    service.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello"
    )
    assert client.received.startswith(b"HTTP/1.1 101 ")
    assert client.received.endswith(b"hello")
    client.send(b"more")
    assert service.received.endswith(b"more")
    assert logged == []
    client.reset()
    assert logged == [101]


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST"])
def test_an_answer_in_place_of_the_services_leaves_the_connection_usable(method: str) -> None:
    class Always(Filter):
        def on_request(self, request: Request) -> Answer:
            return Answer(200, {"Content-Type": "application/json"}, b"{}")

    gateway = gateway_with("/: { to: a, auth: none, filters: f }", f=Always)
    client = gateway.client()
    body = b"Content-Length: 3\r\n\r\nabc" if method == "POST" else b"\r\n"
    for _ in range(2):
        client.send(method.encode() + b" / HTTP/1.1\r\nHost: a.example.com\r\n" + body)
    first, second = client.answers(method, method)
    assert first.body == second.body == (b"" if method == "HEAD" else b"{}")
    assert first.field("Content-Length") == "2"
    assert first.field("X-Request-Id") != second.field("X-Request-Id")


def test_what_a_hook_of_the_log_begins_is_not_waited_for() -> None:
    class Auditing(Filter):
        waiting: list[Deferred[None]]

        def __init__(self) -> None:
            self.waiting = []

        async def on_log(self, request: Request, entry: Any) -> None:
            entry["audited"] = True
            deferred: Deferred[None] = Deferred()
            self.waiting.append(deferred)
            await deferred
            raise KeyError("late")

    harness = FilterHarness(Auditing, settings={"timeout": "2s"})
    seen = harness.request()
    assert seen.log["audited"] is True
    counts = harness.gateway.gateway.filters.counts["auditing"]
    harness.filter.waiting[0].callback(None)
    assert (counts.errors, counts.timeouts) == (1, 0)
    harness.request()
    harness.wait(3)
    assert (counts.errors, counts.timeouts) == (1, 1)


def test_a_hook_of_the_log_that_fails_loses_no_line() -> None:
    class Failing(Filter):
        def on_log(self, request: Request, entry: Any) -> None:
            entry["status"] = 0

    harness = FilterHarness(Failing)
    seen = harness.request()
    assert (seen.status, seen.log["status"]) == (200, 200)
    assert harness.gateway.gateway.filters.counts["failing"].errors == 1


def test_filters_of_defaults_and_of_none() -> None:
    class Always(Filter):
        def on_request(self, request: Request) -> Answer:
            return Answer(299)

    text = """
    upstreams: { a: http://10.0.0.1:80 }
    defaults: { filters: [always] }
    routes:
      "*": { /: { page: true, auth: none }, /n: { page: true, auth: none, filters: none } }
    """
    gateway = MemoryGateway(text, filters={"always": Always})
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    client.send(b"GET /n HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    assert [each.status for each in client.answers("GET", "GET")] == [299, 200]


def test_hooks_of_the_log_that_wait_are_bounded() -> None:
    class Auditing(Filter):
        cancelled = 0

        def on_log(self, request: Request, entry: Any) -> Deferred[None]:
            return Deferred(self.cancel)

        def cancel(self, deferred: Deferred[None]) -> None:
            self.cancelled += 1

    harness = FilterHarness(Auditing)
    client = harness.gateway.client()
    chain = harness.gateway.gateway.snapshot().router.ordered[0].action.filters
    assert chain is not None
    made = chain.entries[0].made
    made.beside = 999
    for cancelled in (0, 1):
        client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
        harness.settle()
        assert (made.beside, harness.filter.cancelled) == (1000, cancelled)
    harness.wait(6)
    assert (made.beside, harness.filter.cancelled) == (999, 2)
    assert made.counts.timeouts == 2


def test_two_requests_at_once_are_told_apart() -> None:
    class Later(Filter):
        waiting: ClassVar[list[Deferred[None]]] = []

        def on_request(self, request: Request) -> Deferred[None]:
            self.waiting.append(Deferred())
            return self.waiting[-1]

    harness = FilterHarness(Later)
    first, second = harness.request(path="/1"), harness.request(path="/2")
    Later.waiting[1].callback(None)
    assert (first.status, second.status) == (0, 200)
    assert second.passed_on is not None and second.passed_on.path == "/2"
    assert first.passed_on is None
    Later.waiting[0].callback(None)
    assert first.passed_on is not None and first.passed_on.path == "/1"


class Holding(Filter):
    """Holds answers back until a test lets them go."""

    waiting: ClassVar[list[Deferred[None]]] = []

    def on_response(self, request: Request, response: Response) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]


class Replacing(Filter):
    def on_response(self, request: Request, response: Response) -> Answer:
        return Answer(299, {}, "mine")


@pytest.mark.parametrize("held", [False, True])
def test_what_follows_of_an_answer_that_was_replaced_goes_nowhere(held: bool) -> None:
    filters = "[h, r]" if held else "r"
    gateway = gateway_with(
        f"/: {{ to: a, auth: none, filters: {filters} }}", h=Holding, r=Replacing
    )
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    service = gateway.service("a").accept()
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst", apart=False)
    assert service.ending.value == "aborted"  # nobody wants the rest
    if held:
        assert client.received == b""
        Holding.waiting.pop().callback(None)
        gateway.reactor.settle()
    (answer,) = client.answers()
    assert (answer.status, answer.body) == (299, b"mine")


def test_a_resource_that_writes_on_while_its_replacement_is_held() -> None:
    gateway = gateway_with(
        f"/: {{ resource: {__name__}.Answering, auth: none, filters: [h, r] }}",
        h=Holding,
        r=Replacing,
    )
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    Answering.requests.pop().write(b"three")
    Holding.waiting.pop().callback(None)
    gateway.reactor.settle()
    (answer,) = client.answers()
    assert (answer.status, answer.body) == (299, b"mine")


def test_a_slow_client_does_not_pause_a_connection_that_serves_others_by_now() -> None:
    class Padding(Filter):
        async def on_response(self, request: Request, response: Response) -> None:
            Holding.waiting.append(Deferred())
            await Holding.waiting[-1]
            response.headers["X-Pad"] = "x" * 8000  # the most that fits is too much with it

    gateway = gateway_with(
        "/: { to: a, auth: none, filters: p }, /n: { to: a, auth: none }", p=Padding
    )
    slow = gateway.client()
    slow.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    service = gateway.service("a").accept()
    slow.stall()
    service.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nea60\r\n%b\r\n0\r\nX-T: 1\r\n\r\n"
        % (b"x" * 60_000),
        apart=False,
    )
    Holding.waiting.pop().callback(None)
    gateway.reactor.settle()
    other = gateway.client()
    other.send(b"GET /n HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    assert len(gateway.service("a").connections) == 1
    service.send(SERVICE)
    assert other.answers()[0].body == b"ok"
