"""X-Edge-Token: a short-lived JWT of ours that tells a service who is calling (RFC 7519)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt

from edgeproxy.identity.edgekeys import Key
from edgeproxy.identity.principal import Principal

MOST = 16384
"""Tokens remembered for one audience; at about a kilobyte each."""


class Line(NamedTuple):
    """Lines with their CRLF, and from when until when (unix seconds) they are sent."""

    since: float
    until: float
    line: bytes


class Audience:
    """The tokens for one audience. Each is made once for a caller, and sent until half of its life
    is over: a service has at least the other half to look at it.

    `key` gives the key that signs at a time, `fresh` what no two tokens share (`jti`). With
    `fields` the caller's X-Consumer-* stand before it.
    """

    def __init__(
        self,
        issuer: str,
        audience: tuple[str, ...],
        lifetime: int,
        key: Callable[[float], Key],
        fresh: Callable[[], str],
        *,
        fields: bool = False,
        most: int = MOST,
    ) -> None:
        self._issuer = issuer
        self._audience: str | list[str] = audience[0] if len(audience) == 1 else list(audience)
        self._lifetime = lifetime
        self._key = key
        self._fresh = fresh
        self._fields = fields
        self._most = most
        #: How many were signed.
        self.signed = 0
        self._sent: OrderedDict[Principal, Line] = OrderedDict()
        #: What is known of a caller -> its token: several principals may say the same.
        self._made: OrderedDict[tuple[Any, ...], Line] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sent)

    def lines(self, principal: Principal, now: float) -> bytes:
        """The identity fields of a request, each with its CRLF. `now` in unix seconds."""
        found = self._sent.get(principal)
        # A clock that was set back must not keep one for longer than its life.
        if found is not None and found.since <= now < found.until:
            return found.line
        return self._renew(principal, now)

    def _renew(self, principal: Principal, now: float) -> bytes:
        who = principal
        known = who.id, who.name, who.groups, who.scopes, who.plan, who.kind
        found = self._made.get(known)
        if found is None or not found.since <= now < found.until:
            found = self._make(principal, now)
            _remember(self._made, known, found, self._most)
        _remember(self._sent, principal, found, self._most)
        return found.line

    def _make(self, principal: Principal, now: float) -> Line:
        issued = int(now)
        claims = {
            "iss": self._issuer,
            "sub": principal.id,
            "name": principal.name,
            "groups": list(principal.groups),
            "scopes": sorted(principal.scopes),
            "kind": principal.kind,
            "aud": self._audience,
            "iat": issued,
            "nbf": issued,
            "exp": issued + self._lifetime,
            "jti": self._fresh(),
        }
        if principal.plan:
            claims["plan"] = principal.plan
        key = self._key(now)
        self.signed += 1
        token = jwt.encode(claims, key.private, "ES256", headers={"kid": key.id})
        line = b"X-Edge-Token: %b\r\n" % token.encode("ascii")
        if self._fields:
            line = principal.fields + line
        return Line(issued, issued + self._lifetime / 2, line)


def _remember(table: OrderedDict[Any, Line], key: Any, line: Line, most: int) -> None:
    """Put it in; the one that has been there longest makes room."""
    if table.pop(key, None) is None and len(table) >= most:
        table.popitem(last=False)  # a plain dict would look for its first entry
    table[key] = line
