"""One run: start the origin and the peers, go round over them, end everything."""

import fcntl
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import certificate, cpu, handshake, job, origin, probe, table, tokens
from bench.peers import Edgeproxy, Peer, Setting
from bench.peers.base import STATE
from bench.peers.edgeproxy import EmptyFilter, TenantFilter, Tokens
from bench.process import BenchError
from bench.rows import ROWS, Bench

#: Keys, routes, and how many of them the load uses. The second beside the first shows what tables
#: cost that are large; the third, what many callers do who all come: each has a window and a record
#: of its own, which the processor has to fetch again from far away.
SCALES = {
    "10 keys, 10 routes": (10, 10, 10),
    "100,000 keys, 5,000 routes": (100_000, 5000, 10),
    "the same, 1,000 in use": (100_000, 5000, 1000),
}

#: What a filter costs: none, one that does nothing, one that does what most do.
FILTERS = {
    "no filter": Edgeproxy,
    "an empty filter": EmptyFilter,
    "one that reads a field and sets two": TenantFilter,
}


#: What a JSON Web Token costs beside an API key: one that is remembered, and one that is new.
TOKENS = {"a token that is known": 1000, "a token that is new": tokens.NEW}


@dataclass
class Plan:
    """Which peers, which rows, how many rounds."""

    peers: Sequence[type[Peer]]
    rows: Sequence[str]
    rounds: int


@dataclass
class Result:
    """Rows in order; versions, policies and the machine by name; what went wrong."""

    rows: list[table.Row] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def run(plan: Plan, seconds: float) -> Result:
    """Measure. Raises BenchError if not even the origin can be started.

    SIGALRM comes if it takes absurdly long; the caller has a handler that raises.
    """
    result = Result([table.Row(name, ROWS[name].title, ROWS[name].unit) for name in plan.rows])
    cpus = sorted(os.sched_getaffinity(0))
    result.about["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    result.about["job"] = _job()
    result.about["machine"] = f"{cpu.model()}, Linux {os.uname().release}"
    with alone(), ExitStack() as stack:
        figures = len(plan.peers) * len(plan.rows) * plan.rounds
        signal.alarm(int(60 + figures * (seconds + 30)))
        _say(f"{result.about['machine']}, load average {os.getloadavg()[0]:.1f}")
        if len(cpus) == 1:
            _say("only one CPU: proxy and load share it, the figures are worth less")
        os.sched_setaffinity(0, {cpus[-1]})
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=STATE, prefix="run-")))
        service = stack.enter_context(origin.running(folder, cpus[-1]))
        served = certificate.make(folder / "certs", job.HOST)
        setting = Setting(folder, served, job.make(), service.port, cpus[0])
        peers = [
            peer
            for kind in plan.peers
            if (peer := _started(kind, setting, stack, result, kind.name))
        ]
        apart = {
            "scale": _scaled(plan, setting, stack, result),
            "filters": _filtering(plan, setting, stack, result),
            "tokens": _with_tokens(plan, setting, stack, result),
        }
        for row in result.rows:
            row.apart = row.name in apart
            row.base = next((peer.name for peer in apart.get(row.name, peers)), "")
        bench = Bench(folder, service, cpus[-1], seconds)
        for number in range(1, plan.rounds + 1):
            for row in result.rows:
                for peer in apart.get(row.name, peers):
                    if ROWS[row.name].suits(peer):
                        _measure(bench, row, number, peer, result)
        _handshakes(result, served)
    return result


@contextmanager
def alone() -> Iterator[None]:
    """Wait, ten minutes at most, until no other run measures on this machine."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        for attempt in range(600):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if not attempt:
                    _say("another bench is running; waiting for its end")
                time.sleep(1)
        else:
            raise BenchError("another bench has been running for ten minutes")
        for left in STATE.glob("run-*"):  # by a run that was killed: ours is the only one now
            shutil.rmtree(left, ignore_errors=True)
        yield


def _started(
    kind: type[Peer], setting: Setting, stack: ExitStack, result: Result, name: str
) -> Peer | None:
    """A peer that runs and does the job; None, and the reason said, if it is not here or fails."""
    if kind.found() is None:
        _say(f"{name}: not here ({kind.remedy})")
        return None
    peer = kind(setting)
    peer.name = name
    try:
        stack.enter_context(peer.start())
        probe.check(peer)
    except (BenchError, OSError, ValueError) as error:
        result.failed.append(_failure("start", peer, error))
        _say(f"{name}: FAILED")
        return None
    about = f"{peer.version()} ({peer.policy})"
    if name == kind.name:
        result.about[name] = about
    _say(f"{name}: {about}")
    return peer


def _scaled(plan: Plan, setting: Setting, stack: ExitStack, result: Result) -> list[Peer]:
    """edgeproxy with few and with many keys and routes, for the row that asks for it."""
    if "scale" not in plan.rows or Edgeproxy not in plan.peers or Edgeproxy.found() is None:
        return []
    started = [
        _started(Edgeproxy, setting._replace(job=job.make(*counts)), stack, result, name)
        for name, counts in SCALES.items()
    ]
    return [peer for peer in started if peer]


def _filtering(plan: Plan, setting: Setting, stack: ExitStack, result: Result) -> list[Peer]:
    """edgeproxy without and with filters, for the row that asks for it."""
    if "filters" not in plan.rows or Edgeproxy not in plan.peers or Edgeproxy.found() is None:
        return []
    started = [_started(kind, setting, stack, result, name) for name, kind in FILTERS.items()]
    return [peer for peer in started if peer]


def _with_tokens(plan: Plan, setting: Setting, stack: ExitStack, result: Result) -> list[Peer]:
    """edgeproxy with API keys and with tokens, for the row that asks for it."""
    if "tokens" not in plan.rows or Edgeproxy not in plan.peers or Edgeproxy.found() is None:
        return []
    started = [_started(Edgeproxy, setting, stack, result, "an API key")]
    for name, count in TOKENS.items():
        made = setting._replace(job=tokens.make(count))
        started.append(_started(Tokens, made, stack, result, name))
    return [peer for peer in started if peer]


def _measure(bench: Bench, row: table.Row, number: int, peer: Peer, result: Result) -> None:
    """One figure into the row, or one failure into the result."""
    try:
        figure = ROWS[row.name].measure(bench, peer)
    except (BenchError, OSError, ValueError) as error:  # ValueError: an answer that is no HTTP
        result.failed.append(_failure(f"{row.name}, round {number}", peer, error))
        _say(f"round {number}  {row.name:<12} {peer.name:<28} FAILED")
    else:
        row.add(peer.name, number, figure)
        _say(f"round {number}  {row.name:<12} {peer.name:<28} {figure:8.2f}")


def _failure(what: str, peer: Peer, error: Exception) -> str:
    """The error with what the peer wrote last: its folder is gone when somebody reads this."""
    written = peer.process.output() if peer.process else ""
    return f"{what}: {peer.name}: {error}\n{written}".rstrip()


def _handshakes(result: Result, served: certificate.Certificate) -> None:
    """The bare handshake of both libraries beside the rows that are mostly made of it."""
    for row in result.rows:
        if row.name in ("connections", "resumed"):
            again = row.name == "resumed"
            what = "resumed handshake" if again else "bare handshake"
            for measure in (handshake.system, handshake.wheel):
                library, cost = measure(served, resumed=again)
                row.notes.append(f"{what}, server side, {library}: {cost:.0f} µs")


def _job() -> str:
    made = job.make()
    head = made.requests(count=1)[0]
    return (
        f"{len(made.keys):,} keys, {job.RATE:,} per {job.WINDOW} s each; heads of "
        f"{head.count(b': ')} fields and {len(head)} bytes; 1,000 paths; one POST of 1 KiB in ten; "
        "answers of 1 KiB; proxy on one CPU, load and origin on another; CPU is user and system "
        "time of the proxy's process tree"
    )


def _say(line: str) -> None:
    """Progress goes to standard error: the result alone is on standard output."""
    print(line, file=sys.stderr, flush=True)
