"""One request on its way through the filters of its route."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import partial
from inspect import iscoroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred

from edgeproxy.errors import GatewayError, Source
from edgeproxy.exchange import Outcome
from edgeproxy.filters.contract import FieldError
from edgeproxy.filters.headers import Guard, Headers
from edgeproxy.filters.judging import Verdict, judge
from edgeproxy.filters.pending import Pending, beside
from edgeproxy.filters.request import Request, Response, Seen
from edgeproxy.filters.telling import tell
from edgeproxy.forward import without_named
from edgeproxy.http1.fields import FOLD

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.filters.answering import Held
    from edgeproxy.filters.chain import Chain, Entry, Hooks


#: As many filters as there are.
ALL = 1 << 30


class Ends(NamedTuple):
    """What follows when the hooks of one head have been asked, some of them after a while."""

    #: All have let it pass.
    then: Callable[[Run], None]
    #: One of them has answered.
    answered: Callable[[Run, Entry, Verdict], None]


class Run(Request):
    """See the module's text: the request as its filters see it, with how far it has come. The
    guard of its heads: ``writer`` is the filter at work.

    ``then`` follows when filters that take their time have all admitted the request. ``passed`` is
    how many filters, from the first, the answer goes through; ``entered`` how many are told of the
    end.
    """

    then: Callable[[Run], None]
    entered = passed = ALL
    writer: Entry | None = None
    #: Whether an answer was replaced by another: what else is said of it is dropped.
    replaced = False
    #: Names of the answer's fields that were written, folded: they go from its trailers too.
    touched: Set[bytes] = frozenset()
    #: The answer that filters are looking at.
    held: Held | None = None
    _pending: Pending | None = None
    _since = 0.0
    _paused = False
    _source = "gateway"

    def __init__(self, chain: Chain, exchange: Exchange) -> None:
        self.chain = chain
        self._exchange = exchange

    @property
    def _came(self) -> float:
        return self._exchange.started + self.chain.deadlines.clock.epoch

    def _guard(self) -> Guard:
        return self

    # -- requests --------------------------------------------------------------------------------

    def admit(self) -> bool:
        """Ask the filters about the request. True if it may go on now; else it was answered, or
        `then` follows when all have said yes.

        :raises GatewayError: 400 for a head that the service could not be given.
        """
        head = self._exchange.head
        if head.connection:
            # What Connection names is the client's own; what filters write has to stay.
            head.lines[:] = without_named(head.lines, head.connection)
            head.connection = frozenset()
        if self._ask(self.chain.requests, 0, (self,), _ADMITTING):
            if self._headers is not None:
                self.sealed()
            return True
        return False

    def sealed(self) -> None:
        """The filters have had their say about the request: its head is as it is."""
        if self._headers is not None:
            self._wrote(self._headers.close())

    def _wrote(self, names: Set[bytes]) -> None:
        if names:
            self._exchange.written |= names

    def see_off(self, head: bytes, then: Callable[[bytes], None]) -> bytes | None:
        """Show the filters the head that the service is about to get.

        :return: the head as they leave it; ``None`` when it was answered, or ``then`` follows.
        """
        first, *lines = head[:-4].split(b"\r\n")
        headers = Headers(lines, self, request=True)
        request = Seen(self, self._exchange.path.decode("ascii"), headers)

        def written() -> bytes:
            self._wrote(headers.close())
            return b"\r\n".join([first, *lines, b"\r\n"])

        ends = Ends(lambda run: then(written()), Run._refused_late)
        return written() if self._ask(self.chain.upstream, 0, (request,), ends) else None

    def _refused(self, entry: Entry, verdict: Verdict) -> None:
        self.entered = entry.index + 1
        self._refused_late(entry, verdict)

    def _refused_late(self, entry: Entry, verdict: Verdict) -> None:
        self.passed = entry.index
        self._answer(entry, verdict)

    def _answer(self, entry: Entry, verdict: Verdict) -> None:
        exchange = self._exchange
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

    def _ask(self, hooks: Hooks, at: int, arguments: tuple[Any, ...], ends: Ends) -> bool:
        """Call the hooks from the one at ``at`` on. True when all have let it pass already."""
        for entry, hook in hooks[at:] if at else hooks:
            self.writer = entry
            counts = entry.counts
            counts.calls += 1
            began = perf_counter()
            try:
                result = hook(*arguments)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # asyncio.CancelledError, SystemExit
                counts.seconds += perf_counter() - began
                result = error
            else:
                counts.seconds += perf_counter() - began
                if result is None:
                    continue
                if isinstance(result, Deferred) or iscoroutine(result):
                    if entry.shadow:
                        judged = partial(judge, entry, self._exchange)
                        beside(self.chain.deadlines, entry, result, judged)
                        continue
                    place = hooks.index((entry, hook))
                    follow = partial(self._follow, hooks, place, arguments, ends)
                    pending = Pending(self.chain.deadlines, entry.timeout, result, follow)
                    if not pending.done:
                        self._wait(pending)
                        return False
                    result = pending.result
            verdict = judge(entry, self._exchange, result)
            result = None  # what was raised holds this frame
            if verdict is not None:
                self.writer = None
                ends.answered(self, entry, verdict)
                return False
        self.writer = None
        return True

    def _follow(
        self, hooks: Hooks, at: int, arguments: tuple[Any, ...], ends: Ends, result: object
    ) -> None:
        """What a hook was waiting for is here."""
        entry = hooks[at][0]
        exchange = self._exchange
        if exchange.worker is self._pending:
            exchange.worker = None
        self._pending = None
        entry.counts.seconds += perf_counter() - self._since
        try:
            verdict = judge(entry, self._exchange, result)
            if verdict is not None:
                self.writer = None
                ends.answered(self, entry, verdict)
            elif self._ask(hooks, at + 1, arguments, ends):
                ends.then(self)
        except Exception as error:
            self.chain.failed(exchange, error)

    def _wait(self, pending: Pending) -> None:
        """Until a hook has its result. Whoever gives an answer that is looked at stays at work on
        the exchange; a request is nobody else's yet."""
        self._pending = pending
        self._since = perf_counter()
        if self.held is None:
            self._exchange.worker = pending

    # -- what may be written ---------------------------------------------------------------------

    def may_write(self, headers: Headers, name: str, *, remove: bool) -> None:
        writer = self.writer
        if writer is None:
            raise FieldError(f"{name} cannot be written any more: this head has gone")
        writer.may_write(headers, name, remove=remove)

    # -- answers ---------------------------------------------------------------------------------

    def respond(self, held: Held) -> None:
        """An answer begins: the filters that its request has passed see its head first."""
        if self.replaced and held.source is not None:
            return  # of the one that was replaced
        if self._pending is not None:
            self._pending.drop()
            self._pending = self.held = None
        hooks = self.chain.responses
        if self.passed is not ALL:
            hooks = tuple(each for each in hooks if each[0].index < self.passed)
        if not hooks:
            held.begin(self._exchange)
            return
        source = "service" if held.source is not None else self._source
        response = Response(held.status, Headers(held.lines, self, request=False), source)
        self.held = held
        self._paused = False
        self._exchange.began = True  # for whoever gives it

        def go_on(run: Run) -> None:
            run.held = None
            run.touched = response.headers.close()
            held.release(run._exchange, response.status, paused=run._paused)

        if self._ask(hooks, 0, (self, response), Ends(go_on, Run._replace)):
            go_on(self)
        elif self.held is held:
            self._paused = True
            held.pause()

    def _replace(self, entry: Entry, verdict: Verdict) -> None:
        """A hook of answers has given another one. Whoever gave the first is told in a turn of
        its own, since it may be at work right now; what it still says is dropped."""
        self.held = None
        self.replaced = True
        self.passed = entry.index
        exchange = self._exchange
        exchange.began = False
        worker, exchange.worker = exchange.worker, None
        if worker is not None:
            self.chain.later(worker.cancelled, exchange)
        self._answer(entry, verdict)

    def trailers(self, lines: list[bytes]) -> list[bytes]:
        """Those of an answer that none of the filters has taken out of its head or set there."""
        return [
            line for line in lines if line.partition(b":")[0].translate(FOLD) not in self.touched
        ]

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
            tell(self, hooks, outcome)
        self.sealed()


_ADMITTING = Ends(lambda run: run.then(run), Run._refused)
