"""One request on its way through the filters of its route."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import iscoroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.errors import GatewayError, Source
from edgeproxy.exchange import Outcome
from edgeproxy.filters.contract import Answer, FieldError, Refuse
from edgeproxy.filters.entry import LogEntry
from edgeproxy.filters.headers import Headers
from edgeproxy.filters.pending import Pending, TimedOut
from edgeproxy.filters.request import Request, Response
from edgeproxy.forward import without_named
from edgeproxy.http1.fields import FOLD
from edgeproxy.observe.accesslog import members

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.filters.answering import Held
    from edgeproxy.filters.chain import Chain, Entry, Hooks

_log = Logger()
_FAILED = "The gateway failed to handle this request."
_SLOW = "The gateway could not decide about this request in time."

#: What becomes of a request after a hook: an answer in its place, or a refusal.
Verdict = Answer | GatewayError


class Run:
    """See the module's text. The guard of its heads: ``writer`` is the filter at work.

    ``passed`` is how many filters, from the first, the answer goes through; ``entered`` how many
    are told of the end.
    """

    __slots__ = (
        "_paused",
        "_pending",
        "_since",
        "_source",
        "chain",
        "entered",
        "exchange",
        "held",
        "passed",
        "replaced",
        "request",
        "touched",
        "writer",
        "written",
    )

    def __init__(self, chain: Chain, exchange: Exchange, now: float) -> None:
        self.chain = chain
        self.exchange = exchange
        self.entered = self.passed = len(chain.entries)
        self.writer: Entry | None = None
        self.replaced = False
        #: Names of the answer's fields that were written, folded: they go from its trailers too.
        self.touched: set[bytes] = set()
        #: The same of the request's.
        self.written: set[bytes] = set()
        self._paused = False
        self._pending: Pending | None = None
        self.held: Held | None = None
        self._source = "gateway"
        route = exchange.route
        path = exchange.asked if route is not None and route.strip else exchange.path
        self.request = Request(exchange, self, now, None, path)

    # -- requests --------------------------------------------------------------------------------

    def admit(self, then: Callable[[], None]) -> bool:
        """Ask the filters about the request. True if it may go on now; else it was answered, or
        ``then`` follows when all have said yes.

        :raises GatewayError: 400 for a head that the service could not be given.
        """
        hooks = self.chain.requests
        if not hooks:
            return True
        head = self.exchange.head
        if head.connection:
            # What Connection names is the client's own; what filters write has to stay.
            head.lines[:] = without_named(head.lines, head.connection)
            head.connection = frozenset()
        request = self.request

        def go_on() -> None:
            self.written = request.close()
            then()

        if self._ask(hooks, 0, (request,), go_on, self._refused):
            self.written = request.close()
            return True
        return False

    def see_off(self, head: bytes, then: Callable[[bytes], None]) -> bytes | None:
        """Show the filters the head that the service is about to get.

        :return: the head as they leave it; ``None`` when it was answered, or ``then`` follows.
        """
        first, *lines = head[:-4].split(b"\r\n")
        request = self.request.at(self.exchange.path, lines)

        def written() -> bytes:
            self.written = self.written | request.close()
            return b"\r\n".join([first, *lines, b"\r\n"])

        def go_on() -> None:
            then(written())

        hooks = self.chain.upstream
        return written() if self._ask(hooks, 0, (request,), go_on, self._refused_late) else None

    def _refused(self, entry: Entry, verdict: Verdict) -> None:
        self.entered = entry.index + 1
        self._refused_late(entry, verdict)

    def _refused_late(self, entry: Entry, verdict: Verdict) -> None:
        self.passed = entry.index
        self._answer(entry, verdict)

    def _answer(self, entry: Entry, verdict: Verdict) -> None:
        exchange = self.exchange
        if isinstance(verdict, GatewayError):
            if verdict.source is Source.OURSELVES:
                exchange.failure = Outcome.ERROR
            self._source = "gateway" if verdict.source is Source.OURSELVES else "filter"
            exchange.refuse(verdict)
            return
        self._source = "filter"
        exchange.reason = f"filter {entry.name}: answered"
        lines = [*verdict.lines, b"X-Request-Id: " + exchange.id]
        if verdict.status not in (204, 304):
            lines.append(b"Content-Length: %d" % len(verdict.body))
        exchange.reply(verdict.status, lines, verdict.body)

    # -- hooks, one after the other --------------------------------------------------------------

    def _ask(
        self,
        hooks: Hooks,
        at: int,
        arguments: tuple[Any, ...],
        then: Callable[[], None],
        answered: Callable[[Entry, Verdict], None],
    ) -> bool:
        """Call the hooks from the one at ``at`` on. True when all have let it pass already."""
        for place in range(at, len(hooks)):
            entry, hook = hooks[place]
            self.writer = entry
            given = arguments if not entry.shadow else self._apart(arguments)
            counts = entry.counts
            counts.calls += 1
            began = perf_counter()
            try:
                result = hook(*given)
            except (Exception, SystemExit) as error:
                counts.seconds += perf_counter() - began
                result = error
            else:
                counts.seconds += perf_counter() - began
                if result is None:
                    continue
                if isinstance(result, Deferred) or iscoroutine(result):
                    follow = partial(self._follow, hooks, place, arguments, then, answered)
                    pending = Pending(self.chain.deadlines, entry.timeout, result, follow)
                    if not pending.done:
                        self._wait(pending)
                        return False
                    result = pending.result
            verdict = self._judge(entry, result)
            result = None  # what was raised holds this frame
            if verdict is not None:
                self.writer = None
                answered(entry, verdict)
                return False
        self.writer = None
        return True

    def _follow(
        self,
        hooks: Hooks,
        at: int,
        arguments: tuple[Any, ...],
        then: Callable[[], None],
        answered: Callable[[Entry, Verdict], None],
        result: object,
    ) -> None:
        """What a hook was waiting for is here."""
        entry = hooks[at][0]
        exchange = self.exchange
        if exchange.worker is self._pending:
            exchange.worker = None
        self._pending = None
        entry.counts.seconds += perf_counter() - self._since
        try:
            verdict = self._judge(entry, result)
            if verdict is not None:
                self.writer = None
                answered(entry, verdict)
            elif self._ask(hooks, at + 1, arguments, then, answered):
                then()
        except Exception as error:
            self.chain.failed(exchange, error)

    def _wait(self, pending: Pending) -> None:
        """Until a hook has its result. Whoever gives an answer that is looked at stays at work on
        the exchange; a request is nobody else's yet."""
        self._pending = pending
        self._since = perf_counter()
        if self.held is None:
            self.exchange.worker = pending

    def _judge(self, entry: Entry, result: object) -> Verdict | None:
        """What a hook's result means; a failure is logged."""
        if result is None:
            return None
        counts = entry.counts
        verdict: Verdict
        if isinstance(result, Refuse):
            counts.refused += 1
            verdict = GatewayError(
                result.status,
                result.detail,
                reason=f"filter {entry.name}: {result.reason}",
                fields=tuple(result.lines),
            )
        elif isinstance(result, Answer):
            counts.refused += 1
            verdict = result
        elif isinstance(result, TimedOut):
            counts.timeouts += 1
            verdict = GatewayError(
                503,
                _SLOW,
                source=Source.OURSELVES,
                reason=f"filter {entry.name}: no answer within {entry.timeout:g} s",
                fields=(b"Retry-After: 1",),
            )
        else:
            counts.errors += 1
            verdict = self._failed(entry, result)
        if not entry.shadow:
            return verdict
        counts.shadowed += 1
        self.exchange.shadowed(f"filter {entry.name}: {_told(verdict)}")
        return None

    def _failed(self, entry: Entry, result: object) -> GatewayError:
        error = result
        if not isinstance(error, BaseException):
            name = type(result).__name__
            error = TypeError(f"a hook gave {name}; None, an Answer or a Deferred is right")
        _log.failure(
            "{route}: the filter {filter} failed at request {request}",
            Failure(error),
            route="" if self.exchange.route is None else self.exchange.route.label,
            filter=entry.name,
            request=self.exchange.id.decode("ascii"),
        )
        reason = f"filter {entry.name}: {type(error).__name__}"
        return GatewayError(500, _FAILED, source=Source.OURSELVES, reason=reason)

    def _apart(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """For a filter in shadow mode: copies, so that nothing it writes goes anywhere."""
        return tuple(each.copied() for each in arguments)

    # -- what may be written ---------------------------------------------------------------------

    def may_write(self, headers: Headers, name: str, *, remove: bool) -> None:
        writer = self.writer
        if writer is None or headers.closed:
            raise FieldError(f"{name} cannot be written any more: this head has gone")
        writer.check_write(name, request=headers.request, remove=remove)

    # -- answers ---------------------------------------------------------------------------------

    def respond(self, held: Held) -> None:
        """An answer begins: the filters that its request has passed see its head first."""
        if self.replaced and held.source is not None:
            return  # of the one that was replaced
        if self._pending is not None:
            self._pending.drop()
            self._pending = self.held = None
        hooks = tuple(each for each in self.chain.responses if each[0].index < self.passed)
        if not hooks:
            held.begin(self.exchange)
            return
        source = "service" if held.source is not None else self._source
        response = Response(held.status, Headers(held.lines, self, request=False), source)
        self.held = held
        self._paused = False

        def go_on() -> None:
            self.held = None
            response.headers.closed = True
            self.touched = response.headers.written
            held.release(self.exchange, response.status, paused=self._paused)

        if self._ask(hooks, 0, (self.request, response), go_on, self._replace):
            go_on()
        elif self.held is held:
            self._paused = True
            held.pause()

    def _replace(self, entry: Entry, verdict: Verdict) -> None:
        """A hook of answers has given another one. Whoever gave the first is told in a turn of
        its own, since it may be at work right now; what it still says is dropped."""
        self.held = None
        self.replaced = True
        self.passed = entry.index
        exchange = self.exchange
        worker, exchange.worker = exchange.worker, None
        if worker is not None:
            self.chain.later(worker.cancelled, exchange)
        self._answer(entry, verdict)

    def trailers(self, lines: list[bytes]) -> list[bytes]:
        """Those of an answer that none of the filters has taken out of its head or set there."""
        return _without(lines, self.touched)

    def untouched(self, lines: list[bytes]) -> list[bytes]:
        """The same for the request's."""
        return _without(lines, self.written)

    # -- the end ---------------------------------------------------------------------------------

    def ended(self, outcome: Outcome) -> None:
        """The exchange is about to end: what is waited for is not any more, and the log's hooks
        have their say."""
        if self._pending is not None:
            self._pending.drop()
            self._pending = None
        self.held = None
        hooks = [each for each in self.chain.logs if each[0].index < self.entered]
        if hooks:
            self._tell_all(hooks, outcome)
        del self.request  # which holds us: no collector is needed for what has ended

    def _tell_all(self, hooks: list[tuple[Entry, Callable[..., Any]]], outcome: Outcome) -> None:
        exchange, clock = self.exchange, self.chain.deadlines.clock
        exchange.outcome = outcome
        exchange.duration = clock.now() - exchange.started
        log = LogEntry(members(exchange, clock.epoch))
        for entry, hook in hooks:
            self._tell(entry, hook, log)
        exchange.notes += log.notes()

    def _tell(self, entry: Entry, hook: Callable[..., Any], log: LogEntry) -> None:
        """Call one hook of the log; nobody waits for what it begins."""
        counts = entry.counts
        counts.calls += 1
        began = perf_counter()
        try:
            result = hook(self.request, log)
        except (Exception, SystemExit) as error:
            result = error
        counts.seconds += perf_counter() - began
        judge = partial(self._judge_told, entry)
        if isinstance(result, Deferred) or iscoroutine(result):
            pending = Pending(self.chain.deadlines, entry.timeout, result, judge)
            if not pending.done:
                return
            result = pending.result
        judge(result)

    def _judge_told(self, entry: Entry, result: object) -> None:
        if isinstance(result, TimedOut):
            entry.counts.timeouts += 1
        elif result is not None:
            entry.counts.errors += 1
            self._failed(entry, result)


def _without(lines: list[bytes], written: set[bytes]) -> list[bytes]:
    return [line for line in lines if line.partition(b":")[0].translate(FOLD) not in written]


def _told(verdict: Verdict) -> str:
    """A verdict in a few words, for the log."""
    if isinstance(verdict, Answer):
        return f"{verdict.status}"
    return f"{verdict.status} {verdict.reason.partition(': ')[2]}"
