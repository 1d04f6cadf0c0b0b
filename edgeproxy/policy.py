"""What a route asks of its callers: any of several credentials, all of them, or one that is
voluntary.

Of any, exactly one is right. Of all, each has to be there, and each is verified, one after the
other in the order in which they are named, so that a cheap one that fails spares those that have
to ask elsewhere. The first named says who is calling: its scopes, groups and plan count, those of
the others never do, since then two callers could come together with what neither of them may.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.errors import GatewayError
from edgeproxy.http1.fields import Kind
from edgeproxy.identifying import ApiKeys, Credential, withhold_keys
from edgeproxy.identity.refusal import elsewhere, invalid, lacking, missing
from edgeproxy.tokens import Tokens

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.identifying import Sent
    from edgeproxy.identity.addresses import Addresses
    from edgeproxy.identity.principal import Principal
    from edgeproxy.snapshot import Route

_log = Logger()

Claims = Sequence[tuple[Credential, Any]]

_API_KEY = Kind.API_KEY
_AUTHORIZATION = Kind.AUTHORIZATION


class Policy:
    """What one route asks of its callers.

    `anonymous` lets in those who show nothing, as `guest`, or as nobody in particular. With
    `every` all credentials are asked for; that excludes `anonymous`.
    """

    __slots__ = (
        "_ranked",
        "_strict",
        "anonymous",
        "credentials",
        "every",
        "guest",
        "keys",
        "recalling",
    )

    def __init__(
        self,
        credentials: Sequence[Credential],
        *,
        anonymous: bool = False,
        guest: Principal | None = None,
        every: bool = False,
        shadow: bool = False,
    ) -> None:
        assert not (every and (anonymous or guest)), "closed and open at once"
        self.credentials = tuple(credentials)
        self.anonymous = anonymous or guest is not None
        self.guest = guest
        self.every = every
        self.keys = any(isinstance(each, ApiKeys) for each in credentials)
        self._ranked = sorted(credentials, key=lambda each: each.rank)
        self._strict = any(each.takes_bearer for each in credentials)
        #: Those that are asked for tokens that they know, and that nobody named before them could
        #: claim; none where something else may be shown, or where what is refused goes on.
        self.recalling: tuple[Tokens, ...] = ()
        if not (every or shadow) and all(
            isinstance(each, Tokens | ApiKeys) for each in credentials
        ):
            self.recalling = _unrivalled(self._ranked)

    def recall(self, exchange: Exchange, now: float) -> Principal | None:
        """The short way for a request that shows one bearer token and nothing else, if the token is
        known: what `identify` would say, for a third of what that costs. ``None``: ask there."""
        head = exchange.head
        if len(head.keys) != 1:
            return None
        kind, value, _ = head.keys[0]
        if kind is not _AUTHORIZATION or value[:7] != b"Bearer ":
            return None
        digest = sha256(value[7:]).digest()
        for credential in self.recalling:
            found = credential.recall(digest, now)
            if found is not None:
                head.keys = ()
                return found
        return None

    def identify(self, sent: Sent) -> Principal | Deferred[Principal] | None:
        """Who is calling; ``None`` for nobody in particular, where that is allowed.

        Raises `GatewayError`; a Deferred may fail with one.
        """
        if self._strict and sent.doubled:
            raise invalid("two Authorization fields")
        if not self.keys:
            withhold_keys(sent.exchange, sent.parameter)
        claims = []
        for credential in self._ranked:
            claim = credential.claim(sent)
            if claim is not None:
                claims.append((credential, claim))
        if self._strict and sent.bearer is not None:
            why = "".join(f"; {each}" for each in sent.objections)
            raise invalid(f"a bearer token that none of the route's credentials takes{why}")
        if self.every:
            return _in_turn(self._all_of(claims), sent)
        if not claims:
            if self.anonymous:
                return self.guest
            names = ", ".join(each.name for each in self.credentials)
            raise missing(f"no credential ({names})")
        if len(claims) > 1:
            names = " and ".join(each.name for each, _ in claims)
            raise invalid(f"two credentials: {names}")
        credential, claim = claims[0]
        return credential.verify(claim, sent)

    def _all_of(self, claims: Claims) -> Claims:
        """The claims in the order in which they are named. Nothing is verified while one is not
        there: so nobody learns of one credential whether it is good without having the others."""
        shown = dict(claims)
        absent = [each.name for each in self.credentials if each not in shown]
        if absent:
            raise missing(f"no credential ({' and '.join(absent)})")
        return [(each, shown[each]) for each in self.credentials]

    def withhold(self, sent: Sent) -> None:
        """The request goes on to a service though it was not let in: without any credential of a
        kind that is asked for here, however often and in whatever form it was sent."""
        for credential in self._ranked:
            try:
                credential.claim(sent)
            except GatewayError:
                continue  # that is why it was not let in
        exchange = sent.exchange
        withhold_keys(exchange, sent.parameter)
        if self.keys:
            head = exchange.head
            head.keys = tuple(each for each in head.keys if each[0] is not _API_KEY)
        if self._strict and (sent.doubled or sent.bearer is not None):
            sent.withhold_bearer()


def _unrivalled(credentials: Sequence[Credential]) -> tuple[Tokens, ...]:
    """The first of each issuer. What another of the same issuer knows, an earlier one may have to
    claim and to refuse: that is seen only when the token is read."""
    found: dict[str, Tokens] = {}
    for each in credentials:
        if isinstance(each, Tokens):
            found.setdefault(each.named, each)
    return tuple(found.values())


def permit(route: Route, principal: Principal) -> None:
    """May this caller come here? Raises `GatewayError` (403)."""
    if route.scopes and not route.scopes <= principal.scopes:
        raise lacking("scope missing", scope=True)
    if route.groups and route.groups.isdisjoint(principal.groups):
        raise lacking("not in a group that is let in")


def check_address(route: Route, addresses: Addresses, exchange: Exchange) -> None:
    """May anybody come here from where this request does? Raises `GatewayError` (403)."""
    why = addresses.objection(exchange.client)
    if not why:
        return
    if not route.shadow:
        raise elsewhere(why)
    exchange.shadowed(403, f"403 {why}")


def overlook(policy: Policy, sent: Sent, error: Exception) -> None:
    """In shadow mode: note what would have been answered; the request goes on, and shows the
    service as little as if it had been let in."""
    status, why = 500, type(error).__name__
    if isinstance(error, GatewayError):
        status, why = error.status, error.reason
    else:
        _log.failure("Identity in shadow mode failed in the gateway itself", Failure(error))
    policy.withhold(sent)
    sent.exchange.shadowed(status, f"{status} {why}")


def _in_turn(
    claims: Claims, sent: Sent, first: Principal | None = None
) -> Principal | Deferred[Principal]:
    """The principal of the first, once all are verified. Raises `GatewayError`."""
    for number, (credential, claim) in enumerate(claims, 1):
        found = credential.verify(claim, sent)
        if isinstance(found, Deferred):
            return found.addCallback(partial(_after, claims[number:], sent, first))
        first = first or found
    assert first is not None, "a policy names a credential"
    return first


def _after(
    rest: Claims, sent: Sent, first: Principal | None, found: Principal
) -> Principal | Deferred[Principal]:
    return _in_turn(rest, sent, first or found) if rest else first or found
