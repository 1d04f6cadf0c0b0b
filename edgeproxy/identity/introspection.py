"""What an endpoint says of a token or session, held against what its credential asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from edgeproxy.identity.claims import Mapped, principal, shown_claim, time_of
from edgeproxy.identity.principal import Principal
from edgeproxy.identity.token import Refused

LARGEST = 8 << 10
"""Bytes of a token; as for JSON Web Tokens."""
LEEWAY = 30.0
"""Seconds that the endpoint's clock and ours may be apart."""

_FORM = re.compile(rb"[A-Za-z0-9\-._~+/]+=*\Z")


class Expected(NamedTuple):
    """What one credential asks of answers; no issuer and no audiences: nothing of that sort."""

    kind: str
    mapped: Mapped
    issuer: str | None = None
    audiences: frozenset[str] = frozenset()
    #: RFC 7662 2.2: the member must be there.
    active: bool = True


class Found(NamedTuple):
    """Who it is, and for how many seconds more that can be said at most."""

    principal: Principal
    life: float


def wrong_token(token: bytes) -> str:
    """Why nobody need be asked about a bearer token; "" for one that may be good (RFC 6750 2.1)."""
    if len(token) > LARGEST:
        return f"a token of more than {LARGEST} bytes"
    return "" if _FORM.match(token) else "not a bearer token"


def find(credential: str, answer: Mapping[str, Any], expected: Expected, now: float) -> Found:
    """Who the holder is. `now` is in seconds since 1970.

    :raises Refused: nobody who is let in.
    """
    active = answer.get("active", not expected.active)
    if active is not True:
        raise Refused("not active")
    expires, begins = time_of(answer, "exp"), time_of(answer, "nbf")
    if expires is not None and expires + LEEWAY <= now:
        raise Refused("expired")
    if begins is not None and begins - LEEWAY > now:
        raise Refused("not yet valid (nbf)")
    if expected.issuer is not None and answer.get("iss") != expected.issuer:
        raise Refused(f"issuer {shown_claim(answer.get('iss'))}")
    if expected.audiences:
        audience = answer.get("aud")
        said = [audience] if isinstance(audience, str) else audience
        if not isinstance(said, list) or not any(
            each in expected.audiences for each in _texts(said)
        ):
            raise Refused(f"audience {shown_claim(audience)}")
    if "cnf" in answer:
        # RFC 7800: only with a proof, which a bearer of it does not give.
        raise Refused("bound to a key of its holder (cnf)")
    found = principal(credential, answer, expected.mapped, expected.kind)
    return Found(found, float("inf") if expires is None else max(0.0, expires - now))


def _texts(values: list[Any]) -> list[str]:
    return [each for each in values if isinstance(each, str)]
