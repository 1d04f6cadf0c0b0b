"""The names of targets: looked up anew when their answers have run out, off the reactor.

While a look-up fails the old answer stays, and it is tried again, more and more rarely. A name
that is said not to exist any more loses its addresses only after a while (:data:`_GONE_AFTER`):
records are taken away and put back when a zone is loaded anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.logger import Logger

from edgeproxy.transport.deadlines import NEVER
from edgeproxy.upstream.lookup import Answer, LookUp, Lookups, look_up_all

_log = Logger()

#: Seconds in which the start, or a reload, waits for first answers: resolv.conf's `timeout`.
FIRST = 5.0
#: Envoy's `dns_min_refresh_rate`; records with TTL 0 exist, and mean "not for long".
_SHORTEST = 1.0
#: A record that was meant to stay for days, and was wrong, is noticed within the hour.
_LONGEST = 3600.0
#: HAProxy's `hold nx 30s`.
_GONE_AFTER = 30.0
_BACK_OFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


class Name:
    """A name that targets use. ``addresses`` are IP addresses as text, in a fixed order.

    ``due`` is when it is looked up next, ``failures`` how often that has failed since it last
    went well, ``error`` why.
    """

    __slots__ = ("addresses", "due", "error", "failures", "gone_since", "host")

    def __init__(self, host: str) -> None:
        self.host = host
        self.addresses: tuple[str, ...] = ()
        self.due = 0.0
        self.error = ""
        self.failures = 0
        self.gone_since = NEVER

    def take(self, answer: Answer, now: float) -> bool:
        """Take an answer over; whether the addresses are others now."""
        before = self.addresses
        if answer.addresses:
            self.addresses = answer.addresses
            self.due = now + min(max(answer.ttl, _SHORTEST), _LONGEST)
            self.error = ""
            self.failures = 0
            self.gone_since = NEVER
            return self.addresses != before
        self.due = now + _BACK_OFF[min(self.failures, len(_BACK_OFF) - 1)]
        self.error = answer.error
        self.failures += 1
        self.gone_since = min(self.gone_since, now) if answer.absent else NEVER
        if now - self.gone_since >= _GONE_AFTER:
            self.addresses = ()
        return self.addresses != before


class Resolver:
    """All names that targets use. ``changed`` is told of each whose addresses are others now.

    ``ask`` has a name looked up in a thread (or, in tests in memory, by the test).
    """

    ask: Callable[[str, Callable[[str, Answer], None]], None]

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        changed: Callable[[Name], None],
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._changed = changed
        self._look_up: LookUp | None = None
        self.names: dict[str, Name] = {}
        #: Look-ups that have failed since the start.
        self.failed = 0

    def first(self, hosts: Iterable[str], look_up: LookUp) -> dict[str, Name]:
        """The names of a configuration: those in use, and new ones, which are looked up now.

        Blocks for at most :data:`FIRST` seconds, and may run in a thread: nothing changes until
        :meth:`use`.
        """
        known = self.names
        names = {host: known.get(host) or Name(host) for host in hosts}
        answers = look_up_all([h for h in names if h not in known], look_up, FIRST)
        now = self._now()
        for host, answer in answers.items():
            names[host].take(answer, now)
        return names

    def use(self, names: dict[str, Name], look_up: LookUp) -> None:
        """These are in use from now on, and looked up so."""
        if look_up != self._look_up:
            self._look_up = look_up
            self.ask = Lookups(look_up).ask
        for host, name in names.items():
            if host not in self.names and name.error:
                self._tell(name)
        self.names = names

    def sweep(self, now: float) -> None:
        """Look up what has run out; called at each sweep of the deadlines."""
        for name in self.names.values():
            if name.due <= now:
                name.due = NEVER
                self.ask(name.host, partial(self._reactor.callFromThread, self._answered))

    def _answered(self, host: str, answer: Answer) -> None:
        name = self.names.get(host)
        if name is None:
            return
        before = name.error
        if name.take(answer, self._now()):
            _log.info("{name}: {addresses}", name=host, addresses=", ".join(name.addresses) or "-")
            self._changed(name)
        if name.error:
            self.failed += 1
            if name.error != before:
                self._tell(name)
        elif before:
            _log.info("{name}: found again", name=host)

    def _tell(self, name: Name) -> None:
        _log.warn(
            "{name}: no address found: {why}; {then}",
            name=name.host,
            why=name.error,
            then="the old ones stay" if name.addresses else "its target is left out until then",
        )
