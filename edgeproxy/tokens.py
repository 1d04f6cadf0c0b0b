"""JSON Web Tokens as a credential: who claims one, what is remembered, what waits for keys."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from twisted.internet.defer import Deferred

from edgeproxy.config.jwt import Jwt, key_set
from edgeproxy.identifying import Credential, Sent
from edgeproxy.identity.claims import Mapped, Terms, principal
from edgeproxy.identity.refusal import invalid, unavailable
from edgeproxy.identity.remembered import Remembered, Verified
from edgeproxy.identity.token import Refused, Token, UnknownKey, signer

if TYPE_CHECKING:
    from edgeproxy.identity.jwk import KeySet
    from edgeproxy.identity.principal import Principal
    from edgeproxy.issuer import Issuer


class Asked(NamedTuple):
    """A token that is to be verified, its SHA-256, and until when it will be good then."""

    token: Token
    digest: bytes
    until: float = 0.0


class Tokens(Credential):
    """The tokens of one issuer under one name. ``issuer`` fetches its keys, ``None`` where they
    stand in the configuration; `named` is what its tokens call it (`iss`)."""

    #: Before what takes any token: these say whose they are.
    rank = 1
    takes_bearer = True

    def __init__(
        self, name: str, settings: Jwt, issuer: Issuer | None, now: Callable[[], float]
    ) -> None:
        self.name = name
        self.issuer = issuer
        self.named = settings.said.jwt
        self.remembered = Remembered()
        self._now = now
        self._fixed = key_set(settings)
        self._terms = terms(settings)

    def inherit(self, before: Credential) -> None:
        if isinstance(before, Tokens) and self.issuer is not None and before.issuer is not None:
            self.issuer.inherit(before.issuer)

    def start(self) -> None:
        """The first caller should not have to wait for the keys."""
        if self.issuer is not None:
            self.issuer.refresh(self._now())

    def recall(self, digest: bytes, now: float) -> Principal | None:
        """Whose the bearer token with this SHA-256 is, where that is known and still so."""
        issuer = self.issuer
        if issuer is not None and (now >= issuer.due or now >= issuer.late or now >= issuer.until):
            return None  # `verify` looks after the keys first
        found = self.remembered.find(digest, now)
        return None if found is None else found.principal

    def claim(self, sent: Sent) -> Verified | Asked | None:
        bearer = sent.bearer
        if bearer is None:
            return None
        digest = sha256(bearer).digest()
        claim: Verified | Asked | None = self.remembered.find(digest, sent.now)
        if claim is None:
            token = sent.token()
            if token is None:
                return None
            unlike = self._terms.meant(token)
            if unlike:
                sent.objections += (f"not for {self.name}: {unlike}",)
                return None
            claim = Asked(token, digest)
        sent.bearer = None
        sent.withhold_bearer()
        return claim

    def verify(self, claim: Verified | Asked, sent: Sent) -> Principal | Deferred[Principal]:
        issuer, now = self.issuer, sent.now
        if isinstance(claim, Asked):
            try:
                claim = Asked(claim.token, claim.digest, self._terms.check(claim.token, now))
            except Refused as error:
                raise invalid(f"{self.name}: {error}") from None
        if issuer is not None and (now >= issuer.due or now >= issuer.late):
            waiting = issuer.refresh(now)
            if waiting is not None and now >= issuer.late:
                return waiting.addCallback(lambda _: self._decide(claim, now, waited=True))
        return self._decide(claim, now, waited=False)

    def _decide(
        self, claim: Verified | Asked, now: float, *, waited: bool
    ) -> Principal | Deferred[Principal]:
        """Who that is, by the keys that are known now. Unless it has `waited` for a refresh, it may
        do so, if there are no keys or not the right one."""
        keys = self._keys(now)
        if keys is None:
            return self._later(claim, now) if not waited else self._unavailable()
        if type(claim) is Verified:
            if claim.key.gone:
                raise invalid(f"{self.name}: its key has left the set")
            return claim.principal
        assert isinstance(claim, Asked)
        try:
            return self._verified(claim, keys)
        except UnknownKey as error:
            if self.issuer is None or (waited and not self.issuer.error):
                raise invalid(f"{self.name}: {error}") from None
            return self._later(claim, now, error) if not waited else self._unavailable()
        except Refused as error:
            raise invalid(f"{self.name}: {error}") from None

    def _later(
        self, claim: Verified | Asked, now: float, unknown: UnknownKey | None = None
    ) -> Deferred[Principal]:
        """The same after a refresh of the keys, if there may be one now."""
        assert self.issuer is not None
        waiting = self.issuer.refresh(now)
        if waiting is not None:
            return waiting.addCallback(lambda _: self._decide(claim, now, waited=True))
        if unknown is None or self.issuer.error:
            self._unavailable()
        raise invalid(f"{self.name}: {unknown}")

    def _unavailable(self) -> NoReturn:
        assert self.issuer is not None
        raise unavailable(f"{self.name}: no keys from its issuer: {self.issuer.error}")

    def _keys(self, now: float) -> KeySet | None:
        if self.issuer is None:
            return self._fixed
        return self.issuer.keys if now < self.issuer.until else None

    def _verified(self, asked: Asked, keys: KeySet) -> Principal:
        """:raises Refused: the token is not good."""
        key = signer(asked.token, keys)
        found = principal(self.name, asked.token.claims, self._terms.mapped)
        self.remembered.add(asked.digest, Verified(found, asked.until, key))
        return found

    def status(self, now: float) -> dict[str, Any]:
        """For `edgeproxy status`."""
        issuer = self.issuer
        keys = self._fixed if issuer is None else issuer.keys
        return {
            "issuer": self._terms.issuer,
            "keys": 0 if keys is None else len(keys.keys),
            "age": None if issuer is None or keys is None else round(now - issuer.fetched, 1),
            "error": "" if issuer is None else issuer.error,
            "remembered": len(self.remembered),
        }


def terms(settings: Jwt) -> Terms:
    """What a configuration asks of tokens."""
    said = settings.said
    return Terms(
        said.jwt,
        frozenset(said.audience),
        frozenset(settings.algorithms),
        said.leeway,
        said.type,
        said.claims,
        Mapped(said.principal, said.name, said.scopes, said.groups, said.plan),
    )


def make(name: str, settings: Jwt, reactor: Any, now: Callable[[], float]) -> Tokens:
    """The credential of a configuration. Nothing is fetched before it starts."""
    if settings.said.secret is not None or settings.keys is not None:
        return Tokens(name, settings, None, now)
    # A third of a second, most of it treq: only where something is fetched.
    from edgeproxy.fetching import Fetcher
    from edgeproxy.issuer import Issuer

    get = Fetcher(reactor, settings.authorities).get
    return Tokens(name, settings, Issuer(name, settings, get, reactor), now)
