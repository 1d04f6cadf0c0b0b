"""What the result of a hook means for its request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.errors import GatewayError, Source
from edgeproxy.filters.contract import BODILESS, Answer, Refuse
from edgeproxy.filters.pending import TimedOut

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.filters.chain import Entry

_log = Logger()
_FAILED = "The gateway failed to handle this request."
_SLOW = "The gateway could not decide about this request in time."

_SPOILT = (
    "a hook gave {name} that is not as its constructor makes it: call `super().__init__` in a "
    "class of your own, and change nothing in it"
)

#: What becomes of a request after a hook: an answer in its place, or a refusal.
Verdict = Answer | GatewayError


def judge(entry: Entry, exchange: Exchange, result: object) -> Verdict | None:
    """What a hook's result means; a failure is logged."""
    if result is None:
        return None
    counts = entry.counts
    verdict: Verdict
    if isinstance(result, Answer | Refuse) and not _whole(result):
        counts.errors += 1
        verdict = failed(entry, exchange, TypeError(_SPOILT.format(name=type(result).__name__)))
    elif isinstance(result, Refuse):
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
        verdict = failed(entry, exchange, result)
    if not entry.shadow:
        return verdict
    counts.shadowed += 1
    exchange.shadowed(verdict.status, f"filter {entry.name}: {_told(verdict)}")
    return None


def _whole(result: Answer | Refuse) -> bool:
    """Whether it can be sent: a filter may have changed it since, or a constructor of its own."""
    status, lines = getattr(result, "status", None), getattr(result, "lines", None)
    if type(status) is not int or not isinstance(lines, list):
        return False
    if not all(type(line) is bytes and b"\n" not in line for line in lines):
        return False
    if isinstance(result, Refuse):
        said = getattr(result, "detail", None), getattr(result, "reason", None)
        return 400 <= status <= 599 and all(isinstance(each, str) for each in said)
    body = getattr(result, "body", None)
    return 200 <= status <= 599 and type(body) is bytes and not (body and status in BODILESS)


def failed(entry: Entry, exchange: Exchange, result: object) -> GatewayError:
    """A hook failed, or gave what none may give: one traceback in the log, 500."""
    error = result
    if not isinstance(error, BaseException):
        name = type(result).__name__
        error = TypeError(f"a hook gave {name}; None, an Answer or a Deferred is right")
    _log.failure(
        "{route}: the filter {filter} failed at request {request}",
        Failure(error),
        route="" if exchange.route is None else exchange.route.label,
        filter=entry.name,
        request=exchange.id.decode("ascii"),
    )
    reason = f"filter {entry.name}: {type(error).__name__}"
    return GatewayError(500, _FAILED, source=Source.OURSELVES, reason=reason)


def _told(verdict: Verdict) -> str:
    """A verdict in a few words, for the log."""
    if isinstance(verdict, Answer):
        return f"{verdict.status}"
    return f"{verdict.status} {verdict.reason.partition(': ')[2]}"
