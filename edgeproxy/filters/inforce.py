"""The filters of the configuration in force, and of one that is about to be.

The life of a filter: its class is imported and its options are checked, beside what is in force
(``build``); it is made and its ``start`` called, in the reactor's thread (``make``); it comes into
force with its configuration (``use``). A reload that names the same class with the same options
keeps it. Otherwise ``stop`` is called once the last request that it has to do with has ended.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from edgeproxy.config import Config, ConfigError, Problem
from edgeproxy.config.filters import FilterUse, hashable
from edgeproxy.filters.chain import Chain, Entry, Made
from edgeproxy.filters.counts import Counts
from edgeproxy.filters.dropins import Dropins
from edgeproxy.filters.loading import (
    conditions,
    find,
    make,
    options_of,
    problem,
    start,
)
from edgeproxy.http1.fields import folded
from edgeproxy.mounted.loading import LoadError

if TYPE_CHECKING:
    from edgeproxy.transport.deadlines import Deadlines

_log = Logger()


class Building:
    """The filters of one configuration. ``chains`` by the place of the route in it, ``sets`` the
    fields that clients may not send, each with the name of a filter that sets it."""

    def __init__(self) -> None:
        self.chains: dict[int, Chain] = {}
        self.made: dict[Any, Made] = {}
        self.sets: dict[str, str] = {}
        #: Those that are new, with the first place that names each.
        self.fresh: list[tuple[Made, FilterUse]] = []
        self.started: list[Made] = []

    def drop(self) -> None:
        """It will not come into force."""
        for made in self.started:
            _stop(made.name, made.filter)
        self.started = []


class Filters:
    """See the module's text. ``named`` are drop-ins besides those under ``twisted/plugins``."""

    def __init__(
        self, reactor: Any, deadlines: Deadlines, named: Mapping[str, Any] | None = None
    ) -> None:
        self._reactor = reactor
        self._deadlines = deadlines
        self._named = dict(named or {})
        self._made: dict[Any, Made] = {}
        self._leaving: list[weakref.finalize[..., Any]] = []
        #: By the name in the configuration, since the start of the process.
        self.counts: dict[str, Counts] = {}

    def build(self, config: Config) -> Building:
        """Import and check what the routes name. May run in a thread; nothing is made yet.

        :raises ConfigError: with each thing that is wrong.
        """
        building = Building()
        reader = _Reader(self, config, building)
        for order, route in enumerate(config.routes):
            if route.filters:
                chain = reader.chain(route.filters)
                if chain is not None:
                    building.chains[order] = chain
        wrong = reader.problems + conditions(config, building.sets)
        if wrong:
            raise ConfigError(wrong)
        return building

    def make(self, building: Building) -> None:
        """Make and start the filters that are new, in the reactor's own thread.

        :raises ConfigError: with each that cannot be; none of them is running then.
        """
        wrong = []
        for made, use in building.fresh:
            try:
                made.filter = make(made.kind, made.name, made.options)
                start(made.filter, made.name)
            except LoadError as error:
                wrong.append(problem(use, error))
            else:
                building.started.append(made)
        if wrong:
            building.drop()
            raise ConfigError(wrong)
        for chain in {id(each): each for each in building.chains.values()}.values():
            chain.compile()

    def use(self, building: Building) -> None:
        """These are in force; what no route names any more is stopped when its last request has
        ended. Cannot fail."""
        before, self._made = self._made, building.made
        building.started = []
        building.fresh = []
        self._leaving = [each for each in self._leaving if each.alive]
        for key, made in before.items():
            if key not in building.made:
                leave = self._reactor.callFromThread
                finalizer = weakref.finalize(made, leave, _stop, made.name, made.filter)
                finalizer.atexit = False
                self._leaving.append(finalizer)

    def stop(self) -> None:
        """The gateway has drained."""
        for finalizer in self._leaving:
            detached = finalizer.detach()
            if detached is not None:
                _stop(*detached[2][1:])
        self._leaving = []
        made, self._made = self._made, {}
        for each in made.values():
            _stop(each.name, each.filter)

    def status(self) -> dict[str, dict[str, object]]:
        """What each has done so far."""
        return {name: counts.as_dict() for name, counts in sorted(self.counts.items())}


class _Reader:
    """Takes the filters of one configuration's routes; the same list is looked at once."""

    def __init__(self, filters: Filters, config: Config, building: Building) -> None:
        self.problems: list[Problem] = []
        self._filters = filters
        self._config = config
        self._building = building
        self._dropins: Dropins | None = None
        self._chains: dict[int, Chain | None] = {}
        self._kinds: dict[str, type | LoadError] = {}
        #: Fields that credentials set, folded.
        self._reserved = frozenset(map(folded, config.reserved))

    def chain(self, uses: tuple[FilterUse, ...]) -> Chain | None:
        """Compiled, as far as that is possible before its filters are made."""
        if id(uses) not in self._chains:
            made = [self._one(use) for use in uses]
            entries = [
                Entry(index, each, use, self._reserved)
                for index, (each, use) in enumerate(zip(made, uses, strict=True))
                if each is not None
            ]
            filters = self._filters
            self._chains[id(uses)] = Chain(
                entries, filters._deadlines, lambda *call: filters._reactor.callLater(0, *call)
            )
        return self._chains[id(uses)]

    def _one(self, use: FilterUse) -> Made | None:
        try:
            kind = self._kind(use.use)
        except LoadError as error:
            self.problems.append(problem(use, error))
            return None
        building, filters = self._building, self._filters
        key = (kind, hashable(use.options))
        made = building.made.get(key)
        if made is None:
            try:
                self._check_fields(kind)
                options, wrong = options_of(kind, use, self._config.folder)
            except LoadError as error:
                wrong = [problem(use, error)]
            if wrong:
                self.problems += wrong
                return None
            made = filters._made.get(key)
            if made is None:
                counts = filters.counts.setdefault(use.use, Counts())
                made = Made(use.use, kind, options, counts, getattr(kind, "sets", ()))
                building.fresh.append((made, use))
            building.made[key] = made
            for name in made.sets:
                building.sets.setdefault(folded(name).decode("ascii"), made.name)
        return made

    def _check_fields(self, kind: type) -> None:
        for which in ("sets", "changes"):
            for name in getattr(kind, which, ()):
                if folded(name) in self._reserved:
                    raise LoadError(
                        f"{kind.__name__}.{which}: {name} is set by a credential under `auth`; "
                        "rename one of the two"
                    )

    def _kind(self, name: str) -> type:
        """The class; imported once, and what is wrong with it is told wherever it is named."""
        if name not in self._kinds:
            try:
                self._kinds[name] = find(name, self._config.folder, self._dropin)
            except LoadError as error:
                self._kinds[name] = error
        found = self._kinds[name]
        if isinstance(found, LoadError):
            raise found
        return found

    def _dropin(self, name: str) -> Any:
        if self._dropins is None:
            self._dropins = Dropins(self._config.folder, self._filters._named)
        return self._dropins.get(name)


def problems(config: Config) -> list[Problem]:
    """What is wrong with any route's filters, after making each of them; none is started."""
    building = Building()
    nowhere: Any = None
    reader = _Reader(Filters(nowhere, nowhere), config, building)
    for route in config.routes:
        if route.filters:
            reader.chain(route.filters)
    wrong = reader.problems + conditions(config, building.sets)
    for made, use in building.fresh:
        try:
            make(made.kind, made.name, made.options)
        except LoadError as error:
            wrong.append(problem(use, error))
    return wrong


def _stop(name: str, made: Any) -> None:
    end = getattr(made, "stop", None)
    if end is None:
        return
    try:
        end()
    except Exception:
        _log.failure("{filter}: stopping it failed", filter=name)
