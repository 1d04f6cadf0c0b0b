"""Looking names up in threads of our own.

A DNS server that does not answer holds up its own thread and nobody else's: not the reactor, nor a
reload, nor the end of the process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from time import monotonic
from typing import NamedTuple

#: Seconds for which an answer holds that says nothing of its own time: nginx's `valid=30s`.
HOLDS = 30.0
#: Threads that look up at the same time.
_THREADS = 16


class Answer(NamedTuple):
    """The addresses of a name, and for how many seconds they hold.

    Without addresses it is a failure: ``error`` says why. ``absent`` tells that the name itself
    was answered for, and there is none, or none with an address.
    """

    addresses: tuple[str, ...] = ()
    ttl: float = HOLDS
    error: str = ""
    absent: bool = False


LookUp = Callable[[str], Answer]


def in_order(found: Iterable[str]) -> tuple[str, ...]:
    """Addresses, each once, so that the same ones are the same value whatever their order was.

    Of this machine's own only those of IPv4, if there are any: `localhost` is one place, and a
    service there rarely listens on ::1.
    """
    addresses = sorted({ip_address(each) for each in found}, key=lambda ip: (ip.version, int(ip)))
    if any(ip.is_loopback and ip.version == 4 for ip in addresses):
        addresses = [ip for ip in addresses if not (ip.is_loopback and ip.version == 6)]
    return tuple(str(ip) for ip in addresses)


class Lookups:
    """Threads that last as long as there is something to look up."""

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._lock = threading.Lock()
        self._wanted: deque[tuple[str, Callable[[str, Answer], None]]] = deque()
        self._threads = 0

    def ask(self, host: str, answered: Callable[[str, Answer], None]) -> None:
        """Look a name up; ``answered`` is called with name and answer, in the thread."""
        with self._lock:
            self._wanted.append((host, answered))
            if self._threads == _THREADS:
                return
            self._threads += 1
        threading.Thread(target=self._work, name="edgeproxy names", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._threads -= 1
                    return
                host, answered = self._wanted.popleft()
            try:
                answer = self._look_up(host)
            except Exception as error:
                answer = Answer(error=repr(error))
            answered(host, answer)


def look_up_all(hosts: Iterable[str], look_up: LookUp, within: float) -> dict[str, Answer]:
    """Look names up at the same time, for at most ``within`` seconds. Blocks as long.

    Those that no answer came for in time have a failure.
    """
    late = Answer(error="no answer in time")
    answers = dict.fromkeys(hosts, late)
    found = threading.Condition()
    missing = set(answers)

    def answered(host: str, answer: Answer) -> None:
        with found:
            if host in missing:
                missing.discard(host)
                answers[host] = answer
                found.notify()

    lookups = Lookups(look_up)
    for host in answers:
        lookups.ask(host, answered)
    end = monotonic() + within
    with found:
        while missing and (left := end - monotonic()) > 0:
            found.wait(left)
        missing.clear()
    return answers
