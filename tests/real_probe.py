"""A gateway in a process of its own, started as its tap starts it, with a heartbeat beside it.

    python real_probe.py CONFIG

The heart beats every millisecond. What comes between two beats is a stall: the lesser of the time
that passed and the processor time that the process used, so that a machine that is busy with
something else counts for nothing, and a thread of ours that holds the interpreter for everything.
A line on standard input asks for the longest stall since the last line, in milliseconds; the
answer is a line on standard output.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

BEAT = 0.001


class Heart:
    """See the module's text."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.longest = 0.0
        self._last = time.perf_counter(), time.process_time()

    def beat(self) -> None:
        now = time.perf_counter(), time.process_time()
        stalled = min(now[0] - self._last[0], now[1] - self._last[1])
        self.longest = max(self.longest, stalled - BEAT)
        self._last = now
        self._reactor.callLater(BEAT, self.beat)

    def tell(self) -> None:
        print(f"{self.longest * 1000:.2f}", flush=True)
        self.longest = 0.0


def main() -> None:
    from edgeproxy.tap import chosen_reactor

    reactor = chosen_reactor()
    from twisted.internet.stdio import StandardIO
    from twisted.logger import globalLogBeginner, textFileLogObserver
    from twisted.protocols.basic import LineReceiver

    from edgeproxy.config import load
    from edgeproxy.service import Gateway

    observer: Any = textFileLogObserver(sys.stderr)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    gateway = Gateway(reactor, load(Path(sys.argv[1])))
    gateway.prepare()
    gateway.startService()
    heart = Heart(reactor)

    class Asked(LineReceiver):
        delimiter = b"\n"

        def lineReceived(self, line: bytes) -> None:
            heart.tell()

    StandardIO(Asked())
    reactor.addSystemEventTrigger("before", "shutdown", gateway.stopService)
    reactor.callWhenRunning(heart.beat)
    reactor.run()


if __name__ == "__main__":
    main()
