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
from edgeproxy.filters.pending import TimedOut, beside
from edgeproxy.observe.accesslog import members

if TYPE_CHECKING:
    from edgeproxy.exchange import Outcome
    from edgeproxy.filters.chain import Entry
    from edgeproxy.filters.run import Run


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
        beside(run.chain.deadlines, entry, result, partial(_judge, run, entry))
    else:
        _judge(run, entry, result)
    result = None


def _judge(run: Run, entry: Entry, result: object) -> None:
    if result is None:
        return
    if isinstance(result, TimedOut):
        entry.counts.timeouts += 1
    else:
        entry.counts.errors += 1
        failed(entry, run._exchange, result)
    if entry.shadow:
        entry.counts.shadowed += 1
