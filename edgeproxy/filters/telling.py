"""The end of a request, told to the filters that have seen it begin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import iscoroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from edgeproxy.filters.entry import LogEntry
from edgeproxy.filters.judging import failed
from edgeproxy.filters.pending import Pending, TimedOut
from edgeproxy.observe.accesslog import members

if TYPE_CHECKING:
    from edgeproxy.exchange import Outcome
    from edgeproxy.filters.chain import Entry
    from edgeproxy.filters.run import Run

#: Hooks of the log of one filter that wait at a time; what is beyond is cancelled.
_MOST_TELLING = 1000


def tell(run: Run, hooks: list[tuple[Entry, Callable[..., Any]]], outcome: Outcome) -> None:
    """The request has ended, with ``outcome``: its line is about to be written."""
    exchange, clock = run._exchange, run.chain.deadlines.clock
    exchange.outcome = outcome
    exchange.duration = clock.now() - exchange.started
    log = LogEntry(members(exchange, clock.epoch))
    for entry, hook in hooks:
        _tell(run, entry, hook, log)
    exchange.notes += log.notes()


def _tell(run: Run, entry: Entry, hook: Callable[..., Any], log: LogEntry) -> None:
    """Call one hook of the log; nobody waits for what it begins."""
    counts = entry.counts
    counts.calls += 1
    began = perf_counter()
    try:
        result = hook(run, log)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # asyncio.CancelledError, SystemExit
        result = error
    counts.seconds += perf_counter() - began
    if isinstance(result, Deferred) or iscoroutine(result):
        pending = Pending(
            run.chain.deadlines, entry.timeout, result, partial(_told_later, run, entry)
        )
        if not pending.done:
            entry.made.telling += 1
            if entry.made.telling > _MOST_TELLING:
                pending.expired(0.0)
            return
        result = pending.result
    _judge(run, entry, result)
    result = None


def _told_later(run: Run, entry: Entry, result: object) -> None:
    entry.made.telling -= 1
    _judge(run, entry, result)


def _judge(run: Run, entry: Entry, result: object) -> None:
    if isinstance(result, TimedOut):
        entry.counts.timeouts += 1
    elif result is not None:
        entry.counts.errors += 1
        failed(entry, run._exchange, result)
