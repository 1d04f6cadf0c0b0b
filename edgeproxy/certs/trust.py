"""The files of CAs and revocation lists: read, turned into policies, watched.

At the start and at a reload anything wrong with them is an error, and nothing changes. While the
gateway runs they are looked at once a second; one that is broken, or a list that is too old,
changes nothing either, and one line in the log says so. A list in use that gets too old lets
nobody in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from edgeproxy.certs.authority import Authority, read_authority
from edgeproxy.certs.clients import Policies, Policy
from edgeproxy.certs.scan import Problem
from edgeproxy.config import Config
from edgeproxy.config.secrets import read_regular, reason
from edgeproxy.identity.clientcert import Holders

_log = Logger()

INTERVAL = 1.0
"""Seconds between two looks at the files, as for the key file: what a revocation takes to work."""

LARGEST = 4 << 20
"""Bytes of one file: a list of 80,000 certificates. Measured for 10,000: a new list takes 20 ms to
read, and as long again in the first handshake under it, in which OpenSSL reads it."""


def read_policies(
    config: Config, now: datetime, before: Policies | None = None
) -> tuple[Policies, list[Problem]]:
    """The policies of a configuration, and what is wrong with the files that it names.

    A policy that is what it was in ``before`` is the same object. With any problem the policies
    must not be used.
    """
    authorities, wrong = _authorities(config, now)
    problems = [problem for each in wrong.values() for problem in each]
    return _policies(config, authorities, before or Policies()), list(dict.fromkeys(problems))


def _authorities(
    config: Config, now: datetime
) -> tuple[dict[str, Authority], dict[str, list[Problem]]]:
    """What the files of each credential hold, and what is wrong with those that are not good."""
    authorities: dict[str, Authority] = {}
    wrong: dict[str, list[Problem]] = {}
    for name in _asked_for(config):
        problems: list[Problem] = []
        credential = config.certificates[name]
        cas = _read(credential.client_certificate, problems)
        lists = _read(credential.crl, problems)
        authorities[name], found = read_authority(cas, lists, now)
        if problems or found:
            wrong[name] = problems + found
    return authorities, wrong


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


def _read(paths: Sequence[Path], problems: list[Problem]) -> list[tuple[str, bytes]]:
    found = []
    for path in paths:
        try:
            found.append((str(path), read_regular(path, LARGEST)))
        except (OSError, ValueError) as error:
            problems.append(Problem(str(path), f"cannot be read: {reason(error)}"))
    return found


def _seen(config: Config) -> tuple[tuple[int, int, int, int] | None, ...]:
    """What tells two states of the files apart."""
    seen: list[tuple[int, int, int, int] | None] = []
    for name in _asked_for(config):
        credential = config.certificates[name]
        for path in (*credential.client_certificate, *credential.crl):
            try:
                found = os.stat(path)
            except OSError:
                seen.append(None)
            else:
                seen.append((found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
    return tuple(seen)


class TrustWatch:
    """Looks at the files of the configuration in force, and tells of policies that changed.

    ``trouble`` is what was wrong at the last look; "" for nothing.
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
        self._known: object = None
        self.trouble = ""

    def watch(self, config: Config, policies: Policies) -> None:
        """From now on the files of ``config``, from which ``policies`` were read.

        They are read again at the first look: one may have changed since.
        """
        self._config = config
        self._policies = policies
        self._known = None
        self.trouble = ""

    def start(self) -> None:
        self._call = self._reactor.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _look(self) -> None:
        self._call = self._reactor.callLater(INTERVAL, self._look)
        if self._policies:
            self.look()

    def look(self) -> None:
        """One look at the files."""
        seen = _seen(self._config)
        if seen != self._known:
            self._known = seen
            self._read()
        elif not self.trouble:
            self._tell_of_age()

    def _read(self) -> None:
        """Take over what is good: a broken file keeps back nothing but its own credential."""
        authorities, wrong = _authorities(self._config, self._now())
        for each in self._policies.by_host.values():
            if each.credential in wrong:
                authorities[each.credential] = each.authority
        problems = dict.fromkeys(problem for each in wrong.values() for problem in each)
        self.trouble = "; ".join(f"{each.file}: {each.message}" for each in problems)
        if problems:
            _log.error("{why}; the CAs and lists read before stay in use", why=self.trouble)
        policies = _policies(self._config, authorities, self._policies)
        if policies.by_host != self._policies.by_host:
            self._policies = policies
            _log.info("CAs and revocation lists of client certificates: read anew")
            self._changed(policies)

    def _tell_of_age(self) -> None:
        now = self._now()
        old = {
            policy.credential
            for policy in self._policies.by_host.values()
            if policy.authority.until is not None and policy.authority.until < now
        }
        if old:
            names = ", ".join(sorted(old))
            self.trouble = f"the revocation list of {names} is too old"
            _log.error(
                "{why}: nobody is let in by certificate until a new one is there", why=self.trouble
            )
