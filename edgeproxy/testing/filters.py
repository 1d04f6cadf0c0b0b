"""A filter in a whole gateway in memory, for the tests of whoever writes one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgeproxy.filters.contract import Answer, Fields, field_line
from edgeproxy.testing.gateway import MemoryGateway
from edgeproxy.testing.link import MemoryWire
from edgeproxy.testing.transcript import Answer as Received
from edgeproxy.testing.transcript import read_answers
from edgeproxy.testing.wire import Wire


class PassedOn:
    """The request that the service got."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self.method, self.path, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        self.fields = tuple((name, value.strip()) for name, _, value in pairs)

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        return [value for each, value in self.fields if each.lower() == name.lower()]

    def field(self, name: str) -> str | None:
        """The value of a field, ``None`` when it is not there; several are joined by commas."""
        return ", ".join(self.all(name)) or None


class Seen:
    """What became of a request; looked at anew whenever it is asked, as time goes on."""

    def __init__(self, harness: FilterHarness, client: Wire, method: str) -> None:
        self._harness = harness
        self._client = client
        self._method = method
        self._passed_on: PassedOn | None = None

    @property
    def answer(self) -> Received | None:
        """What the client got; ``None`` so far, or when its connection ended without."""
        self._harness.settle()
        if not self._client.received:
            return None
        answers = read_answers(self._client.received, [self._method], ended=True)
        return answers[-1] if answers[-1].status >= 200 else None

    @property
    def status(self) -> int:
        """Of the answer; 0 for none."""
        found = self.answer
        return 0 if found is None else found.status

    def field(self, name: str) -> str | None:
        """A field of the answer."""
        found = self.answer
        return None if found is None else found.field(name)

    @property
    def passed_on(self) -> PassedOn | None:
        """What the service got; ``None`` when the request has not come that far."""
        self._harness.settle()
        return self._passed_on

    @property
    def log(self) -> dict[str, Any]:
        """Its line in the access log; empty as long as it has not ended."""
        self._harness.settle()
        gateway = self._harness.gateway
        ended = gateway.exchanges(self._client)
        lines = {line["id"]: line for line in gateway.log}
        return lines[ended[0].id.decode("ascii")] if ended else {}


class FilterHarness:
    """One filter on a route of a gateway in memory, before a service that answers everything::

        harness = FilterHarness(Hours, {"opens": 9, "closes": 17})
        assert harness.request("GET", "/orders").status == 403

    ``options`` are those that the configuration would have, ``settings`` its other keys
    (``shadow``, ``timeout``), ``route`` further keys of the route. Callers need no key, but may
    have one (:meth:`key`). ``answer`` is what the service says, and may be replaced. What the
    filter itself is made of is ``filter``; ``gateway`` is the whole, for all else.

    :raises ConfigError: the options are wrong, or the class is no filter.
    """

    def __init__(
        self,
        filter: type,
        options: Mapping[str, Any] | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        route: Mapping[str, Any] | None = None,
    ) -> None:
        name = filter.__name__.lower()
        use: dict[str, Any] = {"use": name, **(settings or {})}
        if options:
            use["options"] = dict(options)
        path = {"to": "service", "auth": ["api_key", "anonymous"], "filters": [use]}
        configuration = {
            "upstreams": {"service": "http://10.0.0.1:9001"},
            "routes": {"*": {"/": path | dict(route or {})}},
        }
        self.gateway = MemoryGateway(json.dumps(configuration), filters={name: filter})
        chain = self.gateway.gateway.snapshot().router.ordered[0].action.filters
        assert chain is not None
        self.filter: Any = chain.entries[0].made.filter
        self.answer = Answer(200, {"Content-Type": "text/plain"}, b"from the service\n")
        self._taken: dict[MemoryWire, int] = {}
        self._asked: dict[Wire, Seen] = {}

    def key(
        self,
        name: str = "caller",
        *,
        scopes: Sequence[str] = (),
        groups: Sequence[str] = (),
        plan: str = "",
    ) -> str:
        """A key for a caller of that name, to be given to :meth:`request`."""
        return self.gateway.key(name, scopes=scopes, groups=groups, plan=plan)

    def request(
        self,
        method: str = "GET",
        path: str = "/",
        *,
        host: str = "shop.example.com",
        headers: Fields = (),
        body: bytes = b"",
        key: str | None = None,
        address: str = "192.0.2.1",
    ) -> Seen:
        """Send a request from ``address``, and see what becomes of it."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        if key is not None:
            pairs.append(("X-API-Key", key))
        if body:
            pairs.append(("Content-Length", str(len(body))))
        lines = [field_line(name, value) for name, value in (("Host", host), *pairs)]
        client = self.gateway.client(address)
        seen = Seen(self, client, method)
        self._asked[client] = seen
        first = f"{method} {path} HTTP/1.1".encode("ascii")
        client.send(b"\r\n".join([first, *lines, b"", body]))
        self.settle()
        return seen

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.gateway.wait(seconds)
        self.settle()

    def settle(self) -> None:
        """Let everything happen that can happen now; the service answers what it has got."""
        self.gateway.reactor.settle()
        for wire in self.gateway.service("service").connections:
            said = wire.received[self._taken.get(wire, 0) :]
            head, end, _ = said.partition(b"\r\n\r\n")
            if end:
                self._taken[wire] = len(wire.received)
                self._passed(PassedOn(head + end))
                wire.send(self._answer(head.startswith(b"HEAD ")))

    def _passed(self, request: PassedOn) -> None:
        """Tell the one whose it is, by its id."""
        for connection in self.gateway.gateway.listeners[0].connections:
            exchange = getattr(connection, "exchange", None)
            if exchange is not None and exchange.id.decode("ascii") == request.field(
                "X-Request-Id"
            ):
                seen = self._asked.get(self.gateway.peers[id(exchange.peer)])
                if seen is not None:
                    seen._passed_on = request

    def _answer(self, head: bool) -> bytes:
        answer = self.answer
        lines = [b"HTTP/1.1 %d -" % answer.status, *answer.lines]
        if answer.status not in (204, 304):
            lines.append(b"Content-Length: %d" % len(answer.body))
        return b"\r\n".join([*lines, b"", b"" if head else answer.body])
