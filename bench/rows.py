"""The rows: each measures one piece of work for one peer, once."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import cpu, load
from bench.origin import Origin
from bench.peers.base import Peer
from bench.process import wait_until


@dataclass
class Bench:
    """What the rows share: the folder of this run, the origin, the load's CPU, the span."""

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
        time.sleep(0.05)
        run.finish(lambda: bench.origin.count() - before)
    return used / done * 1e6


ROWS: dict[str, tuple[str, str, Callable[[Bench, Peer], float]]] = {
    "requests": ("HTTP/1.1 keep-alive, 32 connections", "CPU µs per request", requests),
}
