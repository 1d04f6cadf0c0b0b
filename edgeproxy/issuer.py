"""The keys of one issuer, kept fresh: fetched while they are used, and good for a while after.

There is no timer: whoever uses the keys says what time it is, and if they are due they are fetched
beside the request that noticed it. A refresh is under way once, whoever asks for it, and is begun
once in ten seconds at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.config.jwt import Jwt, wrong_url
from edgeproxy.fetching import FetchError
from edgeproxy.identity.jwk import KeySet, read_set
from edgeproxy.identity.strictjson import strict_object
from edgeproxy.waiting import Flights

_log = Logger()

FRESH = 300.0
"""Seconds until keys are fetched anew: as Envoy's remote_jwks, half of PyJWT's lifespan."""
LATE = 600.0
"""Seconds after which a request waits for the refresh: a key that was withdrawn is out by then."""
PAUSE = 10.0
"""Seconds between two beginnings of a refresh, whatever is asked."""
RETRY = 30.0
"""Seconds after which a refresh that failed is tried again while the old keys serve."""
_DISCOVERY = 3600.0
"""Seconds for which the address of the keys is believed."""


class Issuer:
    """See the module's text. Times are in seconds since 1970.

    ``keys`` are good before ``until``, should be fetched anew from ``due`` on, and are waited for
    from ``late`` on. ``error`` says
    what is wrong with the last refresh, "" when it went well.
    """

    def __init__(
        self, name: str, settings: Jwt, get: Callable[[str], Deferred[bytes]], reactor: Any
    ) -> None:
        self.name = name
        self.keys: KeySet | None = None
        self.until = self.due = self.late = 0.0
        self.fetched = 0.0
        self.error = ""
        self._settings = settings
        self._get = get
        self._begun = 0.0
        self._flights: Flights[None] = Flights(reactor)
        said = settings.said.jwks
        self._fixed = said if isinstance(said, str) else None
        self._discovered: tuple[str, float] | None = None

    def inherit(self, before: Issuer) -> None:
        """Another configuration that has its keys from the same place: they are good here too, and
        may be needed while no others can be had."""
        if self._source != before._source or before.keys is None:
            return
        self.keys, self.fetched, self.due = before.keys, before.fetched, before.due
        self.late, self.error = before.late, before.error
        self.until = before.fetched + self._settings.said.stale

    @property
    def _source(self) -> tuple[object, ...]:
        settings = self._settings
        return settings.said.jwt, settings.said.jwks, settings.authorities, settings.algorithms

    def refresh(self, now: float) -> Deferred[None] | None:
        """Fires, with nothing, when the refresh is over that is under way or begins now; ``None``
        if the last one has begun too lately for that."""
        if not len(self._flights):
            if self._begun <= now < self._begun + PAUSE:
                return None
            self._begun = now
            self.due = now + RETRY
            self._flights.join("keys", lambda: self._fetch(now))  # ours: it lands, whoever leaves
            if not len(self._flights):
                return _done()  # it has landed already
        return self._flights.join("keys", _done)

    def _fetch(self, now: float) -> Deferred[None]:
        work: Deferred[KeySet] = self._load(now)
        done: Deferred[None] = work.addCallback(self._loaded, now)
        return done.addErrback(self._failed)

    @inlineCallbacks
    def _load(self, now: float) -> Any:
        url = self._fixed
        if url is None:
            if self._discovered is None or now >= self._discovered[1] + _DISCOVERY:
                self._discovered = None
                self._discovered = ((yield self._discover()), now)
            url = self._discovered[0]
        data = yield self._get(url)
        try:
            return read_set(data, self._settings.algorithms)
        except ValueError as error:
            raise FetchError(f"{_place(url)}: {error}") from None

    @inlineCallbacks
    def _discover(self) -> Any:
        """OpenID Connect Discovery 1.0, 4: where the issuer says that its keys are."""
        issuer = self._settings.said.jwt
        url = issuer.rstrip("/") + "/.well-known/openid-configuration"
        data = yield self._get(url)
        try:
            document = strict_object(data)
        except ValueError as error:
            raise FetchError(f"discovery: {error}") from None
        if document.get("issuer") != issuer:
            said = ascii(document.get("issuer"))[:200]
            raise FetchError(f"discovery: the issuer there is {said}, not the configured one")
        found = document.get("jwks_uri")
        if not isinstance(found, str) or wrong_url(found):
            raise FetchError("discovery: jwks_uri is no https:// URL")
        return found

    def _loaded(self, found: KeySet, now: float) -> None:
        self.keys = found.after(self.keys)
        self.fetched = now
        self.due = now + FRESH
        self.late = now + LATE
        self.until = now + self._settings.said.stale
        if self.error:
            _log.info("auth: {name}: the keys of its issuer are there again", name=self.name)
        self.error = ""

    def _failed(self, failure: Failure) -> None:
        """What was fetched before stays in use, as long as it is good."""
        self._discovered = None
        self.late = float("inf")  # nobody waits for what may not come, while the old ones serve
        known, error = bool(self.error), failure.value
        if isinstance(error, FetchError):
            self.error = str(error)
        else:
            self.error = "an error of our own"
            _log.failure("auth: {name}", failure, name=self.name)
        if not known:
            _log.warn(
                "auth: {name}: no keys from its issuer: {error}{rest}",
                name=self.name,
                error=self.error,
                rest="" if self.keys is None else "; those that are known serve on",
            )


def _done() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done


def _place(url: str) -> str:
    return urlsplit(url).hostname or "?"
