"""A gateway with one credential that an endpoint is asked for, and the endpoint's side of it: a
list of questions, which the test answers when it likes."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from edgeproxy.asking import Reply, Unanswered
from edgeproxy.testing import MemoryGateway

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Question:
    """One question, as it reached the endpoint; `reply` and `fail` answer it."""

    def __init__(self, method: str, fields: Any, body: bytes | None) -> None:
        self.method = method
        self.fields = dict(fields)
        self.body = body
        self.cancelled = False
        self.answer: Deferred[Reply] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.cancelled = True
        self.answer.errback(Unanswered("nobody waits", ours=True))

    def reply(self, status: int = 200, **members: Any) -> None:
        """With a JSON object."""
        self.raw(status, json.dumps(members).encode())

    def raw(self, status: int, body: bytes, **fields: str | list[str]) -> None:
        """With fields whose names have `_` for `-`."""
        headers = Headers()
        for name, said in fields.items():
            for value in [said] if isinstance(said, str) else said:
                headers.addRawHeader(name.replace("_", "-"), value.encode("latin-1"))
        self.answer.callback(Reply(status, headers, body))

    def fail(self, why: str = "cannot connect: refused", **how: Any) -> None:
        self.answer.errback(Unanswered(why, **how))


class World:
    """A gateway with one credential, which its one route asks for unless `auth` says otherwise."""

    def __init__(
        self,
        settings: dict[str, Any],
        auth: Any = "known",
        path: str = "/",
        *,
        name: str = "known",
        host: str = "api.example.com",
        secret: str = "s:cret %/+",
        others: dict[str, Any] | None = None,
        top: dict[str, Any] | None = None,
        **route: Any,
    ) -> None:
        self.questions: list[Question] = []
        self.host = host
        #: How much of what each connection to the service got was looked at.
        self._read: dict[int, int] = {}
        config = {
            "upstreams": {"users": "http://10.0.0.1:9001"},
            "auth": {name: settings, **(others or {})},
            "routes": {host: {path: {"to": "users", "auth": auth, **route}}},
            **(top or {}),
        }
        self.gateway = MemoryGateway(json.dumps(config), environ={"SECRET": secret})
        made = self.gateway.gateway.credentials
        found: dict[str, Any] = made.by_name(made._made)
        self.credential = found[name]
        for each in (name, *(others or ())):
            found[each].endpoint.ask = self._ask

    def _ask(self, method: str, fields: Any, body: bytes | None = None) -> Deferred[Reply]:
        question = Question(method, fields, body)
        self.questions.append(question)
        return question.answer

    def send(self, *fields: str, line: str = "GET /", body: bytes = b"") -> Any:
        """A client, and its request."""
        client = self.gateway.client()
        lines = "".join(f"{field}\r\n" for field in fields)
        head = f"{line} HTTP/1.1\r\nHost: {self.host}\r\n{lines}\r\n"
        client.send(head.encode("latin-1") + body)
        return client

    @property
    def attempts(self) -> int:
        return self.gateway.services["10.0.0.1", 9001].attempts

    def passed(self) -> bytes:
        """What the service got, which then answers."""
        self.gateway.reactor.settle()
        service = self.gateway.services["10.0.0.1", 9001]
        found = b""
        for wire in service.connections:
            size = self._read.get(id(wire), 0)
            if len(wire.received) > size:
                self._read[id(wire)] = len(wire.received)
                found += wire.received[size:]
                wire.send(OK)
        assert found, self.gateway.finished[-1].reason
        return found

    def status(self, client: Any) -> int:
        self.gateway.reactor.settle()
        status: int = client.answers()[-1].status
        return status

    @property
    def reason(self) -> str:
        return self.gateway.finished[-1].reason
