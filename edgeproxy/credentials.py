"""The credentials that a configuration names, made from it; they outlive it where it repeats them.

What a credential has learnt (a key set, answers of an endpoint) is worth keeping over a reload, so
one whose configuration is what it was stays the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgeproxy import tokens
from edgeproxy.authorizing import Authorization
from edgeproxy.config import anonymous
from edgeproxy.config.asking import Asked
from edgeproxy.config.authorization import AuthorizationForm
from edgeproxy.config.clientcerts import ClientCertificate
from edgeproxy.config.frozen import Frozen
from edgeproxy.config.jwt import Jwt
from edgeproxy.config.lookups import IntrospectionForm, SessionForm
from edgeproxy.identifying import Anonymous, ApiKeys, Certificates, Credential
from edgeproxy.identity.principal import Principal
from edgeproxy.lookups import Introspection, Sessions

if TYPE_CHECKING:
    from edgeproxy.config import Config
    from edgeproxy.identity.keyindex import KeyIndex
    from edgeproxy.transport.deadlines import Clock

_ASKING: dict[type[Frozen], Callable[[str, Any, Any, Callable[[], float]], Credential]] = {
    IntrospectionForm: Introspection,
    SessionForm: Sessions,
    AuthorizationForm: Authorization,
}


def _asking(name: str, settings: Asked, reactor: Any, now: Callable[[], float]) -> Credential:
    """A credential that an endpoint is asked for. Nobody is asked before a request comes."""
    # A third of a second, most of it treq: only where something is asked.
    from edgeproxy.asking import Endpoint

    said = settings.said
    endpoint = Endpoint(reactor, said.url, settings.authorities, said.timeout, said.connections)
    return _ASKING[type(said)](name, said, endpoint, now)


#: The configuration of one kind -> what makes the credential of it, from name, settings, reactor,
#: and what tells the time in seconds since 1970.
MAKERS: dict[type[Frozen], Callable[[str, Any, Any, Callable[[], float]], Credential]] = {
    ClientCertificate: lambda name, settings, reactor, now: Certificates(name),
    Jwt: tokens.make,
    Asked: _asking,
    anonymous.Anonymous: lambda name, settings, reactor, now: Anonymous(
        name, guest(name, settings)
    ),
}


def guest(name: str, settings: anonymous.Anonymous) -> Principal:
    """Whoever shows nothing, by the credential of that name."""
    said = settings.anonymous
    scopes = frozenset(said.scopes)
    return Principal(name, said.name or name, said.groups, scopes, said.plan or "", "anonymous")


class Credentials:
    """All that routes may ask for. `build` makes what a configuration names beside what is in
    force; `use` changes over: what comes in is started, what nobody names any more is stopped."""

    def __init__(self, reactor: Any, clock: Clock, keys: Callable[[], KeyIndex]) -> None:
        self._reactor = reactor
        self._clock = clock
        self._api_keys = ApiKeys(keys)
        self._running = False
        #: By name: what each was made from, and itself.
        self._made: dict[str, tuple[Frozen, Credential]] = {}

    def build(self, config: Config) -> dict[str, tuple[Frozen, Credential]]:
        """Nothing changes yet; may run in a thread."""
        found = {}
        for name, settings in config.credentials.items():
            before = self._made.get(name)
            if before is None or before[0] != settings:
                made = MAKERS[type(settings)](name, settings, self._reactor, self._now)
                before = settings, made
            found[name] = before
        return found

    def by_name(self, built: Mapping[str, tuple[Frozen, Credential]]) -> dict[str, Credential]:
        """What the routes of a built configuration may name."""
        return {"api_key": self._api_keys} | {name: made for name, (_, made) in built.items()}

    def use(self, built: Mapping[str, tuple[Frozen, Credential]]) -> None:
        """Put what was built into force."""
        before, self._made = self._made, dict(built)
        kept = {id(made) for _, made in built.values()}
        for name, (_, made) in built.items():
            if name in before and before[name][1] is not made:
                made.inherit(before[name][1])
        if self._running:
            known = {id(made) for _, made in before.values()}
            for _, made in built.values():
                if id(made) not in known:
                    made.start()
            for _, made in before.values():
                if id(made) not in kept:
                    made.stop()

    def status(self) -> dict[str, dict[str, Any]]:
        """What is to be told of each, by its name."""
        now = self._now()
        told = {name: made.status(now) for name, (_, made) in self._made.items()}
        return {name: each for name, each in told.items() if each is not None}

    def _now(self) -> float:
        return self._clock.now() + self._clock.epoch

    def start(self) -> None:
        """The gateway begins to serve."""
        self._running = True
        for _, made in self._made.values():
            made.start()

    def stop(self) -> None:
        """The gateway has drained."""
        self._running = False
        for _, made in self._made.values():
            made.stop()
