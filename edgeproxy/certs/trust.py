"""The files of CAs and revocation lists: read, turned into policies, watched.

At the start and at a reload anything that is broken is an error, and nothing changes. While the
gateway runs they are looked at once a second; one that is broken, or a list that is too old,
changes nothing either, and one line in the log says so. What could not be read is tried again each
second, and what begins later is taken over then.

A list that is too old lets nobody in, be it read like that or be it in use: OpenSSL refuses the
handshake, and `Authority.objection` what is left of connections. So it stops nothing else, neither
a start nor a reload.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from twisted.logger import Logger

from edgeproxy.certs.authority import Authority, read_authority
from edgeproxy.certs.clients import Policies, Policy
from edgeproxy.certs.scan import Problem
from edgeproxy.config import Config
from edgeproxy.config.clientcerts import ClientCertificate
from edgeproxy.config.secrets import read_regular, reason
from edgeproxy.identity.clientcert import Holders

_log = Logger()

INTERVAL = 1.0
"""Seconds between two looks at the files, as for the key file: what a revocation takes to work."""

LARGEST = 4 << 20
"""Bytes of one file: a list of 80,000 certificates. Measured for 10,000: a new list takes 20 ms to
read, and as long again in the first handshake under it, in which OpenSSL reads it."""


_KEPT = "the CAs and lists read before stay in use"


def read_policies(
    config: Config, now: datetime, before: Policies | None = None
) -> tuple[Policies, list[Problem]]:
    """The policies of a configuration, and what is wrong with the files that it names.

    A policy that is what it was in ``before`` is the same object. With any problem the policies
    must not be used. What is out of its time is none (`ages`).
    """
    before = before or Policies()
    in_use = _in_use(before)
    authorities: dict[str, Authority] = {}
    problems: list[Problem] = []
    credentials = config.certificates
    for name in _asked_for(config):
        reading = _read(credentials[name])
        authorities[name] = _better(reading.authority, in_use.get(name), now)
        problems += reading.problems
    return _policies(config, authorities, before), list(dict.fromkeys(problems))


def ages(policies: Policies, now: datetime) -> list[Problem]:
    """What is out of its time, as errors, and the lists that soon will be."""
    return [
        problem
        for each in _in_use(policies).values()
        for problem in (*each.untimely(now), *each.aging(now))
    ]


def _in_use(policies: Policies) -> dict[str, Authority]:
    """By credential."""
    return {each.credential: each.authority for each in policies.by_host.values()}


def _better(new: Authority, old: Authority | None, now: datetime) -> Authority:
    """Lists that are out of their time do not take the place of those that count, of the very
    same CAs."""
    if old is not None and old.lists and old.cas == new.cas and not old.untimely(now):
        return old if new.untimely(now) else new
    return new


class _Reading(NamedTuple):
    """What the files of a credential held when they were read."""

    seen: tuple[tuple[int, int, int, int] | None, ...]
    """What tells two states of the files apart."""
    unread: list[Problem]
    """The files that could not be read: another try may do without any change of them."""
    problems: list[Problem]
    """Those, and what is wrong with the others; with any, ``authority`` must not be used."""
    authority: Authority


def _read(credential: ClientCertificate, before: _Reading | None = None) -> _Reading:
    """Read the files of a credential; ``before`` itself where that would find nothing else."""
    seen = _seen(credential)
    if before is not None and before.seen != seen:
        before = None
    if before is not None and not before.unread:
        return before
    unread: list[Problem] = []
    cas = _contents(credential.client_certificate, unread)
    lists = _contents(credential.crl, unread)
    if before is not None and unread == before.unread:
        return before
    if len(cas) < len(credential.client_certificate):
        # Nothing can be said of lists without the CAs that have signed them.
        return _Reading(seen, unread, unread, Authority(()))
    authority, wrong = read_authority(cas, lists)
    return _Reading(seen, unread, unread + wrong, authority)


def _seen(credential: ClientCertificate) -> tuple[tuple[int, int, int, int] | None, ...]:
    seen: list[tuple[int, int, int, int] | None] = []
    for path in (*credential.client_certificate, *credential.crl):
        try:
            found = os.stat(path)
        except OSError:
            seen.append(None)
        else:
            seen.append((found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
    return tuple(seen)


def _contents(paths: Sequence[Path], problems: list[Problem]) -> list[tuple[str, bytes]]:
    found = []
    for path in paths:
        try:
            found.append((str(path), read_regular(path, LARGEST)))
        except (OSError, ValueError) as error:
            problems.append(Problem(str(path), f"cannot be read: {reason(error)}"))
    return found


def _policies(config: Config, authorities: Mapping[str, Authority], before: Policies) -> Policies:
    made: dict[tuple[Any, ...], Policy] = {
        (each.asked, each.authority, each.holders): each for each in before.by_host.values()
    }
    found = {}
    for host, asked in config.client_certificates.items():
        holders = Holders(asked.by, config.certificates[asked.by])
        key = asked, authorities[asked.by], holders
        found[host] = made.setdefault(key, Policy(*key))
    return Policies(found)


def _asked_for(config: Config) -> Iterable[str]:
    """The credentials that some name asks for."""
    return dict.fromkeys(asked.by for asked in config.client_certificates.values())


class TrustWatch:
    """Looks at the files of the configuration in force, and tells of policies that changed.

    ``lines`` say what was wrong at the last look, or will soon be; ``trouble`` is all of them, ""
    for none.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], datetime],
        changed: Callable[[Policies], object],
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._changed = changed
        self._call: Any = None
        self._config = Config()
        self._policies = Policies()
        # By credential.
        self._in_use: dict[str, Authority] = {}
        self._readings: dict[str, _Reading] = {}
        self.lines: list[str] = []

    @property
    def trouble(self) -> str:
        return "; ".join(self.lines)

    def watch(self, config: Config, policies: Policies) -> None:
        """From now on the files of ``config``, from which ``policies`` were read.

        They are read again at the first look: one may have changed since.
        """
        self._config = config
        self._use(policies)
        self._readings = {}
        self.lines = []
        if self._call is not None:
            self._tell(self._now())

    def start(self) -> None:
        self._tell(self._now())
        self._call = self._reactor.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _use(self, policies: Policies) -> None:
        self._policies = policies
        self._in_use = _in_use(policies)

    def _look(self) -> None:
        self._call = self._reactor.callLater(INTERVAL, self._look)
        if self._policies:
            self.look()

    def look(self) -> None:
        """One look at the files."""
        now = self._now()
        credentials = self._config.certificates
        self._readings = {
            name: _read(credentials[name], self._readings.get(name)) for name in self._in_use
        }
        self._take_over(now)
        self._tell(now)

    def _take_over(self, now: datetime) -> None:
        """What is broken or out of its time keeps back nothing but its own credential."""
        new = {
            name: each.authority
            for name, each in self._readings.items()
            if each.authority != self._in_use[name] and not _against(each, now)
        }
        if new:
            policies = _policies(self._config, {**self._in_use, **new}, self._policies)
            self._changed(policies)
            self._use(policies)
            _log.info("CAs and revocation lists of client certificates: read anew")

    def _tell(self, now: datetime) -> None:
        """One line in the log for each thing that was not so at the last look."""
        lines: list[str] = []
        warnings: list[str] = []
        for name, in_use in self._in_use.items():
            counts, reading = in_use, self._readings.get(name)
            if reading is not None and reading.authority != in_use:
                lines += [_line(each, _KEPT) for each in _against(reading, now)]
            elif reading is not None:
                lines += [_line(each, _KEPT) for each in reading.problems]
                counts = reading.authority  # by the names of today's files
            lines += [_line(each, f"{name} lets nobody in") for each in counts.untimely(now)]
            warnings += [_line(each, f"then {name} lets nobody in") for each in counts.aging(now)]
        for log, said in ((_log.error, lines), (_log.warn, warnings)):
            for line in dict.fromkeys(said):
                if line not in self.lines:
                    log("{line}", line=line)
        self.lines = list(dict.fromkeys(lines + warnings))


def _against(reading: _Reading, now: datetime) -> list[Problem]:
    """Why what was read is not taken over."""
    return reading.problems or reading.authority.untimely(now)


def _line(problem: Problem, consequence: str) -> str:
    return f"{problem.file}: {problem.message}; {consequence}"
