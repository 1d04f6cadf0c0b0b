"""The rows of the table: each measures one piece of work for one peer, once."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench import cpu, job, load
from bench import http2 as h2
from bench.origin import Origin
from bench.peers.base import Peer
from bench.process import BenchError, wait_until

IDLE_BEFORE = 200  # connections open before the first look at memory: pools and arenas have grown
IDLE = 1000  # connections added until the second look


@dataclass
class Bench:
    """What the rows share: the folder of this run, the origin, the load's CPU, the span in s."""

    folder: Path
    origin: Origin
    cpu: int
    seconds: float


def requests(bench: Bench, peer: Peer) -> float:
    """CPU µs per keep-alive request, over a span that begins after handshakes and first requests.

    Requests are counted where they arrive, at the origin, at the moments at which CPU is read.
    """
    before = bench.origin.count()
    heads = peer.setting.job.requests()
    with load.wrk(bench.folder, heads, peer.port, bench.cpu, peer.name) as run:
        wait_until(
            lambda: bench.origin.count() > before + 300, 15, f"{peer.name} relays no requests"
        )
        used, done = cpu.seconds(peer.pid), bench.origin.count()
        time.sleep(bench.seconds)
        used, done = cpu.seconds(peer.pid) - used, bench.origin.count() - done
        run.finish(lambda: bench.origin.count() - before)
    return used / done * 1e6


def http2(bench: Bench, peer: Peer) -> float:
    """CPU µs per request over HTTP/2, counted as above."""
    before = bench.origin.count()
    with h2.running(bench.folder, peer, bench.seconds + 2, bench.cpu) as finish:
        wait_until(lambda: bench.origin.count() > before + 300, 15, f"{peer.name} relays no HTTP/2")
        used, done = cpu.seconds(peer.pid), bench.origin.count()
        time.sleep(bench.seconds)
        used, done = cpu.seconds(peer.pid) - used, bench.origin.count() - done
        finish()
    return used / done * 1e6


def connections(bench: Bench, peer: Peer) -> float:
    """CPU µs for a new connection, its full TLS 1.3 handshake, one request and the close."""
    heads = peer.setting.job.requests(connection="close", count=1000)
    used = cpu.seconds(peer.pid)
    done = load.new_connections(peer.port, heads, bench.seconds)
    return (cpu.seconds(peer.pid) - used) / done * 1e6


def resumed(bench: Bench, peer: Peer) -> float:
    """The same with a handshake that resumes a session of the connection before."""
    heads = peer.setting.job.requests(connection="close", count=1000)
    context = load.client_context()
    sessions = load.new_sessions(peer.port, heads, context)
    used = cpu.seconds(peer.pid)
    done = load.new_connections(peer.port, heads, bench.seconds, sessions=sessions, context=context)
    return (cpu.seconds(peer.pid) - used) / done * 1e6


def idle(bench: Bench, peer: Peer) -> float:
    """KiB that a TLS connection costs which has done one request and now waits for the next.

    A process of its own each time: memory that a former ramp left behind would hide the cost.
    """
    fresh = type(peer)(peer.setting)
    heads = fresh.setting.job.requests(count=IDLE_BEFORE + IDLE)
    context = load.client_context()
    with fresh.start(), ExitStack() as open_ones:
        before = 0
        for number, request in enumerate(heads):
            if number == IDLE_BEFORE:
                before = _settled(fresh)
            connection = open_ones.enter_context(load.connect(context, fresh.port))
            if load.ask(connection, request).status != 200:
                raise BenchError(f"{peer.name}: an answer is not 200")
        return (_settled(fresh) - before) / IDLE


def _settled(peer: Peer) -> int:
    """KiB of the process tree once two looks half a second apart differ by less than 64 KiB."""
    last = cpu.kibibytes(peer.pid)
    for _ in range(20):
        time.sleep(0.5)
        last, former = cpu.kibibytes(peer.pid), last
        if abs(last - former) < 64:
            break
    return last


def download(bench: Bench, peer: Peer) -> float:
    """CPU ms per MB of a body of 100 MB, downloaded over one connection by one client."""
    request = peer.setting.job.request(job.DOWNLOAD_PATH, peer.setting.job.keys[0])
    used, megabytes = cpu.seconds(peer.pid), 0.0
    end = time.monotonic() + bench.seconds
    with load.connect(load.client_context(), peer.port) as connection:
        while time.monotonic() < end or not megabytes:
            megabytes += load.download(connection, request) / 1e6
    return (cpu.seconds(peer.pid) - used) / megabytes * 1e3


class Work(NamedTuple):
    """A row: what stands in the table, and how one figure is got."""

    title: str
    unit: str
    measure: Callable[[Bench, Peer], float]

    def suits(self, peer: Peer) -> bool:
        """Whether the peer can do it at all."""
        return peer.http2 or self.measure is not http2


ROWS: dict[str, Work] = {
    "requests": Work("HTTP/1.1 keep-alive, 32 connections", "CPU µs per request", requests),
    "http2": Work("HTTP/2, 8 connections x 16 streams, GET", "CPU µs per request", http2),
    "connections": Work("new TLS 1.3 connection and one request", "CPU µs", connections),
    "resumed": Work("resumed TLS 1.3 connection and one request", "CPU µs", resumed),
    "idle": Work("idle connection", "KiB", idle),
    "download": Work("download of 100 MB", "CPU ms per MB", download),
    "filters": Work("filters, edgeproxy only", "CPU µs per request", requests),
    "tokens": Work("JSON Web Tokens, edgeproxy only", "CPU µs per request", requests),
    "scale": Work("keys and routes, edgeproxy only", "CPU µs per request", requests),
}
