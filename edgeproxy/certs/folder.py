"""Watches the certificate folder, and lets no broken file take a good certificate away.

A look at the folder is a survey, the reading of what changed, a scan and a new `NameMap`; it
runs in slices of a few milliseconds. inotify asks for one as soon as something changes, a timer
every ten seconds whatever happens, and so does the moment when a certificate's validity begins
or ends. What fails on the way leaves everything as it is, and the next look begins again.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Generator, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from twisted.logger import Logger

from edgeproxy.certs.keeping import eased, kept, reasons, removed, shortened, told_of
from edgeproxy.certs.loading import loadable
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.pem import Content
from edgeproxy.certs.reading import (
    Identity,
    Signature,
    Survey,
    cannot_read,
    read_file,
    read_folder,
    survey_in_steps,
)
from edgeproxy.certs.scan import Chain, Problem, scan_in_steps
from edgeproxy.certs.steps import run
from edgeproxy.certs.telling import Counts, Telling
from edgeproxy.certs.watching import FolderWatch

__all__ = ["CertificateFolder", "read_folder"]

INTERVAL = 10.0
"""Seconds between looks that nothing asked for."""
QUIET = 0.2
"""Seconds without a change before a look: a renewal writes several files."""
PATIENCE = 0.7
"""Seconds after which a look is taken although changes keep coming: with the look itself, what
was written first is in force within a second."""
SLICE = 0.005
"""Seconds of work in one turn of the reactor."""

# A file changed this recently may change again without another signature (coarse clocks of
# file systems): it is read again at the next look.
_FRESH_NS = 2_000_000_000

# That a file cannot be read for these is no fault of the file.
_OF_THE_SYSTEM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class _Known(NamedTuple):
    signature: Signature | None
    """None: to be read again at the next look."""
    data: bytes | None
    """None: it could not be read."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _reached(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and now >= moment


class CertificateFolder:
    """A folder of certificates, as a `NameMap` that is always up to date.

    `on_change(names, problems)` is called once by `start`, and whenever either changed. It may
    return steps that remain to be taken. Where it or they raise, it is called again.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        on_change: Callable[[NameMap, tuple[Problem, ...]], Iterable[None] | None],
        default: str | None = None,
        now: Callable[[], datetime] = _utc_now,
        counts: Counts | None = None,
    ) -> None:
        """`reactor` has callLater and seconds; `default` is NameMap's; `now` gives UTC, aware."""
        self._reactor = reactor
        self._folder = folder
        self._on_change = on_change
        self._default = default
        self._now = now
        self._watch = FolderWatch(reactor, self._changed)
        self._known: dict[str, _Known] = {}
        self._memory: dict[bytes, Content] = {}
        self._modes: dict[str, int] = {}
        self._folders: dict[str, Identity] = {}
        self._key_files: tuple[str, ...] = ()
        self._unread: frozenset[Problem] = frozenset()
        self._leaving: frozenset[Chain] = frozenset()
        self._work: Generator[None, None, None] | None = None
        self._timer: Any = None
        self._first_change: float | None = None
        self._again = False
        self._behind = False  # a look that found something has not come to its end
        self._failing = ""  # why
        self._running = False
        self._telling = Telling(counts or Counts())
        self.names = NameMap((), default, now())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the files."""
        return self._telling.problems

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is not wrong yet: see `edgeproxy.certs.advice`."""
        return self._telling.warnings

    def start(self) -> None:
        """Look at the folder now, in this turn, and keep looking. Calls `on_change` once."""
        run(self.opening())

    def opening(self) -> Generator[None, None, None]:
        """Do the work of `start` in steps of a few milliseconds; `stop` ends it half-way."""
        self._running = True
        self._work = self._look(first=True)
        try:
            yield from self._work
        finally:
            self._work = None
        self._schedule(QUIET if self._again else INTERVAL)

    def stop(self) -> None:
        """Stop looking; `on_change` is not called any more."""
        self._running = False
        self._watch.close()
        self._work = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def look(self) -> None:
        """Look at the folder now, in this turn, whether or not anything seems changed."""
        self._known.clear()
        self._finish(self._look())

    def _finish(self, work: Generator[None, None, None]) -> None:
        run(work)
        self._work = None
        self._schedule(QUIET if self._again else INTERVAL)

    def fall_back(self, default: str | None) -> None:
        """From now on `names` has another default; `on_change` is not called for that."""
        self._default = default
        self.names = self.names.with_default(default)
        if self._work is not None:
            self.again()

    def again(self) -> None:
        """Call `on_change` within a moment, whether or not anything changes. A look that is under
        way begins anew."""
        self._work = None
        self._behind = True
        self._changed()

    def _changed(self) -> None:
        """Something changed in a watched folder: look once it is quiet, or patience ends."""
        if self._work is not None:
            self._again = True
            return
        now = self._reactor.seconds()
        if self._first_change is None:
            self._first_change = now
        self._schedule(max(0.0, min(QUIET, self._first_change + PATIENCE - now)))

    def _schedule(self, delay: float) -> None:
        if not self._running:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(delay, self._turn)

    def _turn(self) -> None:
        """Go on with the look, or begin one, for a slice of time."""
        if self._work is None:
            self._first_change = None
            self._again = False
            self._work = self._look()
        end = time.monotonic() + SLICE
        try:
            next(self._work)
            while time.monotonic() < end:
                next(self._work)
        except StopIteration:
            self._work = None
            self._failing = ""
        except Exception as error:
            self._work = None
            self._failed(error)
        delay = 0.0 if self._work is not None else QUIET if self._again else INTERVAL
        self._schedule(delay)

    def _failed(self, error: Exception) -> None:
        """Tell why a look failed, once until one succeeds or fails for another reason."""
        if repr(error) == self._failing:
            return
        self._failing = repr(error)
        if isinstance(error, OSError):
            self.log.error(
                "certificates: what changed cannot be taken over now ({why}); the ones in use "
                "stay, and it is tried again every {interval:g} seconds",
                why=str(error),
                interval=INTERVAL,
            )
        else:
            self.log.failure("looking at the certificates failed; the ones in use stay")

    def _look(self, first: bool = False) -> Generator[None, None, None]:
        """Look at the folder and publish what changed, in steps of a few milliseconds."""
        now = self._now()
        survey = yield from survey_in_steps(self._folder)
        self._folders = survey.compare(self._folder, self._folders)
        if self._watch.watch(survey.watch):
            # What changed between the survey and the watch went unseen.
            self._again = True
        changed = yield from self._read(survey, now)
        unread = frozenset(survey.problems)
        outlived = _reached(self.names.until, now)
        advise = survey.modes != self._modes or _reached(self._telling.due, now)
        self._modes = survey.modes
        behind = self._behind
        if first or changed or outlived or behind or unread != self._unread or self._leaving:
            self._behind = True
            self._unread = unread
            chains, told = yield from self._check(survey, now, first)
            if told or first or outlived or behind:
                yield
                names = yield from NameMap.in_steps(chains, self._default, now)
                yield from self._publish(names)
                advise = True
            self._behind = False
        if advise:
            yield from self._telling.advise(self.names, self._key_files, self._modes, now)

    def _check(
        self, survey: Survey, now: datetime, first: bool
    ) -> Generator[None, None, tuple[tuple[Chain, ...], bool]]:
        """Return the chains to be served now, and whether they or what is wrong changed."""
        files = {name: k.data for name, k in self._known.items() if k.data is not None}
        found = yield from scan_in_steps(files, now, self._memory)
        if not first:
            # At the start there is nothing to lose, and whoever builds the contexts finds out.
            known = {chain.fingerprint: chain for chain in self.names.chains}
            found = yield from loadable(found, known)
        self._key_files = found.key_files
        before = self.names.chains
        found = shortened(found, before, now)
        yield
        stay = kept(before, found, survey, now)
        yield
        going = removed((c for c in before if c not in stay), found, survey, now)
        # Between the removal of a file and the writing of another (`rm`, then `cp`; certbot's
        # links) nobody shall be turned away: the next look decides.
        leaving = tuple(chain for chain in going if chain not in self._leaving)
        self._leaving = frozenset(leaving)
        self._again = self._again or bool(leaving)
        chains = (*found.chains, *stay, *leaving)
        yield
        gone = {chain.fingerprint for chain in before}.difference(c.fingerprint for c in chains)
        ended = (c for c in before if c.fingerprint in gone and c.valid(self.names.made))
        self._telling.ended(c for c in ended if now > c.not_after)
        problems = {*survey.problems, *eased(found.problems, stay)}
        problems.update(reasons(stay, found, survey, now))
        other = self._telling.tell(problems, told_of(stay, survey.present))
        yield
        same = [(c, c.files) for c in before] == [(c, c.files) for c in chains]
        return chains, other or not same

    def _read(self, survey: Survey, now: datetime) -> Generator[None, None, bool]:
        """Read what the survey shows as changed; True if any bytes did."""
        known: dict[str, _Known] = {}
        newest = int(now.timestamp() * 1e9) - _FRESH_NS
        changed = self._known.keys() != survey.files.keys()
        for name, signature in survey.files.items():
            before = self._known.get(name)
            if before is not None and before.signature == signature:
                known[name] = before
                continue
            data = None
            settled = False
            try:
                signature, data = read_file(os.path.join(self._folder, name))
                settled = max(signature[3], signature[4]) < newest
            except OSError as error:
                if error.errno in _OF_THE_SYSTEM:
                    raise
                survey.problems.append(cannot_read(name, error))
            known[name] = _Known(signature if settled else None, data)
            changed = changed or before is None or before.data != data
            yield
        self._known = known
        return changed

    def _publish(self, names: NameMap) -> Generator[None, None, None]:
        yield from self._on_change(names, self.problems) or ()
        self.names = names
        self._telling.counts.changes += 1
        self.log.info(
            "certificates: {names} names from {chains} certificates in {folder}",
            names=len(names.by_name),
            chains=len(names.chains),
            folder=str(self._folder),
        )
