"""The filters of one route, compiled: which hooks there are, in which order they run.

Hooks of requests run in the route's order, hooks of answers the other way round, as layers do: an
answer passes those filters that its request has passed. What a filter writes into heads, and what
it may write, is looked at in :mod:`edgeproxy.filters.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.config.filters import FilterUse
from edgeproxy.config.reserved import reserved
from edgeproxy.errors import GatewayError, Source
from edgeproxy.filters.answering import ending, filtered
from edgeproxy.filters.contract import FieldError
from edgeproxy.filters.run import Run
from edgeproxy.filters.shadow import apart
from edgeproxy.http1.fields import folded

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.filters.counts import Counts
    from edgeproxy.filters.headers import Headers
    from edgeproxy.transport.deadlines import Deadlines

_log = Logger()


class Made:
    """One filter of a configuration: its class with its options, and, once it was made, itself."""

    __slots__ = (
        "__weakref__",
        "beside",
        "changes",
        "counts",
        "filter",
        "kind",
        "name",
        "options",
        "sets",
    )

    def __init__(
        self, name: str, kind: type, options: Any, counts: Counts, sets: Sequence[str]
    ) -> None:
        self.name = name
        self.kind = kind
        self.options = options
        self.counts = counts
        self.sets = tuple(sets)
        self.changes: tuple[str, ...] = tuple(getattr(kind, "changes", ()))
        self.filter: Any = None
        #: How many of its hooks wait for something with no request that waits for them.
        self.beside = 0


class Entry:
    """A filter at its place in a route's list."""

    __slots__ = (
        "_known",
        "_reserved",
        "counts",
        "index",
        "made",
        "may",
        "name",
        "shadow",
        "timeout",
    )

    def __init__(
        self, index: int, made: Made, use: FilterUse, reserved: Set[bytes] = frozenset()
    ) -> None:
        #: Fields that credentials set, folded.
        self._reserved = reserved
        self.index = index
        self.made = made
        self.name = made.name
        self.counts = made.counts
        self.timeout = use.timeout
        self.shadow = use.shadow
        #: The fields of requests that it may set, folded.
        self.may = frozenset(folded(name) for name in (*made.sets, *made.changes))
        #: Writes that were looked at and are right.
        self._known: set[tuple[str, bool, bool]] = set()

    def may_write(self, headers: Headers, name: str, *, remove: bool) -> None:
        """As the guard of a head."""
        self.check_write(name, request=headers.request, remove=remove)

    def check_write(self, name: str, *, request: bool, remove: bool) -> None:
        """Raises :class:`FieldError` for a field that is not this filter's to write."""
        if (name, request, remove) in self._known:
            return
        why = reserved(name, request=request)
        if request and folded(name) in self._reserved:
            why = "is written by a credential of the configuration"
        if why:
            raise FieldError(f"{self.name} may not write {name}: it {why}")
        if request and not remove and folded(name) not in self.may:
            raise FieldError(
                f"{self.name} may not set {name}, which it does not declare: in `sets`, for a "
                "field that services rely on and no client may send, or in `changes`, for one "
                "of clients'"
            )
        if len(self._known) < _MOST_KNOWN:
            self._known.add((name, request, remove))


_MOST_KNOWN = 256
_NOTHING: frozenset[bytes] = frozenset()

#: A hook with the entry that it is of.
Hooks = tuple[tuple[Entry, Callable[..., Any]], ...]


class Chain:
    """See the module's text. Its hooks are there once its filters have been made."""

    __slots__ = (
        "_become",
        "deadlines",
        "entries",
        "later",
        "logs",
        "requests",
        "responses",
        "upstream",
    )

    def __init__(
        self, entries: Sequence[Entry], deadlines: Deadlines, later: Callable[..., Any]
    ) -> None:
        self.entries = tuple(entries)
        self.deadlines = deadlines
        #: Calls in a turn of the reactor of its own.
        self.later = later
        self.requests: Hooks = ()
        self.upstream: Hooks = ()
        self.responses: Hooks = ()
        self.logs: Hooks = ()
        #: What exchanges become, by their class; ``None`` where they stay what they are.
        self._become: Callable[[Any], type[Exchange]] | None = None

    def begin(self, exchange: Exchange) -> Run:
        """Take an exchange on its way through."""
        run = Run(self, exchange)
        exchange.written = _NOTHING
        if self._become is not None:
            kind: Any = type(exchange)
            exchange.__class__ = self._become(kind)
            exchange.filtering = run
        return run

    def failed(self, exchange: Exchange, error: Exception) -> None:
        """What follows a hook that took its time has raised."""
        if not isinstance(error, GatewayError):
            _log.failure("A request failed in the gateway itself", Failure(error))
            detail = "The gateway failed to handle this request."
            error = GatewayError(500, detail, source=Source.OURSELVES)
        exchange.refuse(error)

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.entries]

    def compile(self) -> None:
        """Look the hooks up."""
        self.requests = self._hooks("on_request")
        self.upstream = self._hooks("on_upstream_request")
        self.responses = self._hooks("on_response")[::-1]
        self.logs = self._hooks("on_log")[::-1]
        self._become = filtered if self.responses else ending if self.logs else None

    def _hooks(self, name: str) -> Hooks:
        found = ((entry, getattr(entry.made.filter, name, None)) for entry in self.entries)
        return tuple(
            (entry, apart(entry, hook) if entry.shadow else hook)
            for entry, hook in found
            if hook is not None
        )
