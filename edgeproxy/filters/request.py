"""What a filter is given: one request, and its answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeproxy.filters.contract import BODILESS
from edgeproxy.filters.headers import CLOSED, Guard, Headers

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

    # Not in slots: most stay as they are here, and need not be set for each request.
    _headers: Headers | None = None
    _state: dict[str, Any] | None = None
    _states: dict[Guard, dict[str, Any]] | None = None
    _exchange: Exchange

    @property
    def state(self) -> dict[str, Any]:
        found = self._state
        if found is None:
            found = self._state = {}
        return found

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._state = state

    @property
    def _came(self) -> float:
        """When, in seconds since 1970."""
        raise NotImplementedError

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
        exchange = self._exchange
        route = exchange.route
        path = exchange.asked if route is not None and route.strip else exchange.path
        return path.decode("ascii")

    @property
    def query(self) -> str:
        """What follows the question mark, as it came; a key that was taken here is not in it."""
        return self._exchange.query[1:].decode("ascii")

    @property
    def headers(self) -> Headers:
        found = self._headers
        if found is None:
            found = self._headers = Headers(self._lines(), self._guard(), request=True)
        return found

    def _lines(self) -> list[bytes]:
        """The lines of the client's that go on; other credentials than ours are among them."""
        exchange = self._exchange
        head = exchange.head
        if head.keys:
            head.lines += [line for _, _, line in head.keys if line is not exchange.credential]
            head.keys = ()
        return head.lines

    def _guard(self) -> Guard:
        return CLOSED

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
        return datetime.fromtimestamp(self._came, UTC)

    def _shadows(self) -> dict[Guard, dict[str, Any]]:
        """The dictionaries of its filters in shadow mode, by whom each is of."""
        if self._states is None:
            self._states = {}
        return self._states

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.host}{self.path}>"


class Seen(Request):
    """The same request with another path and other fields: as the service gets it, say."""

    def __init__(self, request: Request, path: str, headers: Headers) -> None:
        self._exchange = request._exchange
        self._request = request
        self._state = request.state
        self._own_path = path
        self._headers = headers

    def _shadows(self) -> dict[Guard, dict[str, Any]]:
        return self._request._shadows()

    @property
    def path(self) -> str:
        return self._own_path

    @property
    def _came(self) -> float:
        return self._request._came


class Apart(Seen):
    """The same for a filter in shadow mode: what it writes goes nowhere. Its ``state`` is its own,
    and begins as a copy."""

    def __init__(self, request: Request, guard: Guard) -> None:
        super().__init__(request, request.path, request.headers.copied(guard))
        self._whose = guard

    @property
    def state(self) -> dict[str, Any]:
        return self._shadows().setdefault(self._whose, dict(self._request.state))

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._shadows()[self._whose] = state


class Response:
    """The head of an answer. ``status`` can be changed, ``headers`` too.

    ``source`` says whose it is: ``service`` (or a resource), ``filter`` or ``gateway``.
    """

    __slots__ = ("_status", "headers", "source")

    def __init__(self, status: int, headers: Headers, source: str) -> None:
        self._status = status
        self.headers = headers
        self.source = source

    def copied(self, guard: Guard) -> Response:
        """The same, to be changed without consequence."""
        return Response(self._status, self.headers.copied(guard), self.source)

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
