"""What a filter is given: one request, and its answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeproxy.filters.contract import BODILESS
from edgeproxy.filters.headers import Guard, Headers

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange


class Caller(NamedTuple):
    """Who is calling, as it was proved."""

    id: str
    name: str
    groups: tuple[str, ...]
    scopes: frozenset[str]
    plan: str
    kind: str


class Request:
    """One request. Text throughout; only ``headers`` and ``state`` can be changed.

    ``headers`` are those that the service would get from the client: no identity or forwarding
    fields, no credential that was taken here, nothing of the connection. In
    ``on_upstream_request`` they, and ``path``, are what the service does get. ``state`` is the
    request's own dictionary, shared by its filters from the first hook to the last.
    """

    __slots__ = ("_exchange", "_guard", "_headers", "_lines", "_now", "_path", "state")

    def __init__(
        self,
        exchange: Exchange,
        guard: Guard,
        now: float,
        lines: list[bytes] | None = None,
        path: bytes | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        self._exchange = exchange
        self._guard = guard
        self._now = now
        self._lines = lines
        self._path = path
        self._headers: Headers | None = None
        self.state: dict[str, Any] = {} if state is None else state

    @property
    def method(self) -> str:
        return self._exchange.method.decode("ascii")

    @property
    def scheme(self) -> str:
        """``https``, or ``http`` within a site without TLS."""
        return self._exchange.peer.scheme

    @property
    def host(self) -> str:
        """The host asked for, in lower case, without a port."""
        return self._exchange.host

    @property
    def path(self) -> str:
        """The path in its one form (see ``docs/behaviour.md``), percent-encoded."""
        path = self._exchange.path if self._path is None else self._path
        return path.decode("ascii")

    @property
    def query(self) -> str:
        """What follows the question mark, as it came; a key that was taken here is not in it."""
        return self._exchange.query[1:].decode("ascii")

    @property
    def headers(self) -> Headers:
        found = self._headers
        if found is None:
            lines = _passing(self._exchange) if self._lines is None else self._lines
            found = self._headers = Headers(lines, self._guard, request=True)
        return found

    @property
    def client(self) -> str:
        """The caller's address, also behind trusted proxies."""
        return self._exchange.client

    @property
    def principal(self) -> Caller | None:
        """Who is calling; ``None`` for a caller without a credential on an open route."""
        found = self._exchange.principal
        if found is None:
            return None
        return Caller(found.id, found.name, found.groups, found.scopes, found.plan, found.kind)

    @property
    def route(self) -> str:
        """The route, as ``edgeproxy routes`` and the access log name it."""
        route = self._exchange.route
        return "" if route is None else route.label

    @property
    def id(self) -> str:
        """As it stands in the access log and in ``X-Request-Id``."""
        return self._exchange.id.decode("ascii")

    @property
    def time(self) -> datetime:
        """When it came, in UTC."""
        return datetime.fromtimestamp(self._now, UTC)

    def copied(self) -> Request:
        """The same, with fields that can be written to without consequence; one ``state``."""
        made = Request(self._exchange, self._guard, self._now, path=self._path, state=self.state)
        made._headers = self.headers.copied()
        return made

    def close(self) -> set[bytes]:
        """Its head has gone: nothing in it can be changed any more.

        :return: the names of the fields that were written, folded.
        """
        if self._headers is None:
            return set()
        self._headers.closed = True
        return self._headers.written

    def at(self, path: bytes, lines: list[bytes]) -> Request:
        """The same request as the service gets it."""
        return Request(self._exchange, self._guard, self._now, lines, path, self.state)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.host}{self.path}>"


def _passing(exchange: Exchange) -> list[bytes]:
    """The lines of the client's that go on; other credentials than ours are among them."""
    head = exchange.head
    if head.keys:
        head.lines += [line for _, _, line in head.keys if line is not exchange.credential]
        head.keys = ()
    return head.lines


class Response:
    """The head of an answer. ``status`` can be changed, ``headers`` too.

    ``source`` says whose it is: ``service`` (or a resource), ``filter`` or ``gateway``.
    """

    __slots__ = ("_status", "headers", "source")

    def __init__(self, status: int, headers: Headers, source: str) -> None:
        self._status = status
        self.headers = headers
        self.source = source

    def copied(self) -> Response:
        """The same, to be changed without consequence."""
        return Response(self._status, self.headers.copied(), self.source)

    @property
    def status(self) -> int:
        return self._status

    @status.setter
    def status(self, status: int) -> None:
        if type(status) is not int or not 200 <= status <= 599:
            raise ValueError(f"{status!r} is not the status of an answer; 200 to 599 is right")
        if (status in BODILESS) is not (self._status in BODILESS):
            raise ValueError(f"{self._status} cannot become {status}: only one has a body")
        self._status = status

    def __repr__(self) -> str:
        return f"<Response {self._status} of the {self.source}>"
