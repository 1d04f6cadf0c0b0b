"""What a token claims, held against what its credential asks for, and turned into a principal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from edgeproxy.identity.principal import Principal, is_sayable
from edgeproxy.identity.token import Refused, Token

KIND = "jwt"
#: What a token may be unless its credential says otherwise: nothing said, RFC 7519, RFC 9068.
USUAL_TYPES = frozenset([None, "jwt", "at+jwt"])

_LATEST = 1 << 53
"""Seconds that a time may have: what every reader of JSON keeps exact (RFC 8259 6)."""
_MOST_GROUPS = 200  # as in Azure's tokens
_ABSENT = object()


class Mapped(NamedTuple):
    """The claims that the parts of a principal are read from; ``None`` for none."""

    principal: str = "sub"
    name: str | None = None
    scopes: tuple[str, ...] = ("scope", "scp")
    groups: str | None = None
    plan: str | None = None


class Terms(NamedTuple):
    """What one credential asks of its tokens. `leeway` in seconds; `type` as in the header."""

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    leeway: float = 30.0
    type: str | None = None
    required: Mapping[str, tuple[Any, ...]] = {}
    mapped: Mapped = Mapped()

    def meant(self, token: Token) -> str:
        """Why a token is not meant for this credential; "" when it is."""
        if token.claims.get("iss") != self.issuer:
            return f"issuer {shown_claim(token.claims.get('iss'))}"
        audience = token.claims.get("aud")
        if isinstance(audience, str):
            audience = [audience]
        if not isinstance(audience, list) or not all(isinstance(each, str) for each in audience):
            return "no audience"
        if self.audiences.isdisjoint(audience):
            return f"audience {shown_claim(token.claims['aud'])}"
        return ""

    def check(self, token: Token, now: float) -> float:
        """All that can be said before the signature is looked at; returns until when the token is
        good, in seconds since 1970.

        :raises Refused: it is not good, whoever has signed it.
        """
        if token.algorithm not in self.algorithms:
            raise Refused(f"algorithm {shown_claim(token.algorithm)}")
        self._check_type(token.header.get("typ"))
        claims = token.claims
        until = self._times(claims, now)
        if "cnf" in claims:
            # RFC 7800: only with a proof, which a bearer of it does not give.
            raise Refused("bound to a key of its holder (cnf)")
        for path, allowed in self.required.items():
            found = at(claims, path)
            values = found if isinstance(found, list) else [found]
            if not any(_same(value, each) for value in values for each in allowed):
                raise Refused(f"claim {path} is {shown_claim(None if found is _ABSENT else found)}")
        return until

    def _check_type(self, said: Any) -> None:
        kind = said.lower().removeprefix("application/") if isinstance(said, str) else said
        asked = USUAL_TYPES if self.type is None else (self.type,)
        if not isinstance(kind, str | None) or kind not in asked:
            raise Refused(f"type {shown_claim(said)}")

    def _times(self, claims: Mapping[str, Any], now: float) -> float:
        """RFC 7519 4.1.4 to 4.1.6; `exp` must be there."""
        expires = time_of(claims, "exp")
        if expires is None:
            raise Refused("no exp")
        if expires + self.leeway <= now:
            raise Refused("expired")
        for name in ("nbf", "iat"):
            begins = time_of(claims, name)
            if begins is not None and begins - self.leeway > now:
                raise Refused(f"not yet valid ({name})")
        return expires + self.leeway


def principal(
    credential: str, claims: Mapping[str, Any], mapped: Mapped, kind: str = KIND
) -> Principal:
    """Who the bearer of a verified token is.

    Its id is the credential's name, a colon and the claim's value, so that it never is an API
    key's, nor another issuer's. Endpoints may say a whole number above 0, as the tables of
    applications have them; a token says a text (RFC 7519 4.1.2).

    :raises Refused: the claims leave that open.
    """
    value = at(claims, mapped.principal)
    if type(value) is int and value > 0 and kind != KIND:
        value = str(value)
    if not isinstance(value, str) or not is_sayable(value):
        raise Refused(f"claim {mapped.principal} names nobody: {shown_claim(value)}")
    return Principal(
        f"{credential}:{value}",
        _text(claims, mapped.name) or value,
        _groups(claims, mapped.groups),
        _scopes(claims, mapped.scopes),
        _text(claims, mapped.plan),
        kind,
    )


def at(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that name; else, along the dots of `path`, one within others."""
    found: Any = claims.get(path, _ABSENT)
    if found is not _ABSENT or "." not in path or ":" in path:
        return found  # names with a colon are URIs (RFC 7519 4.2), whose dots part nothing
    found = claims
    for step in path.split("."):
        found = found.get(step, _ABSENT) if isinstance(found, dict) else _ABSENT
    return found


def time_of(claims: Mapping[str, Any], name: str) -> float | None:
    """A time (RFC 7519 2, NumericDate) that may be missing. Raises `Refused` for what is none."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise Refused(f"{name} is no time: {shown_claim(value)}")
    return float(value)


def _text(claims: Mapping[str, Any], path: str | None) -> str:
    """A text that may be missing."""
    value = _ABSENT if path is None else at(claims, path)
    if value is _ABSENT or value is None or value == "":
        return ""
    if not isinstance(value, str) or not is_sayable(value):
        raise Refused(f"claim {path} is {shown_claim(value)}")
    return value


def _groups(claims: Mapping[str, Any], path: str | None) -> tuple[str, ...]:
    value = _ABSENT if path is None else at(claims, path)
    if value is _ABSENT or value is None:
        return ()
    found = _texts(value, path)
    if len(found) > _MOST_GROUPS:
        raise Refused(f"claim {path} has more than {_MOST_GROUPS} groups")
    return tuple(dict.fromkeys(found))


def _scopes(claims: Mapping[str, Any], paths: Sequence[str]) -> frozenset[str]:
    """Those of the first claim that is there: a text with spaces between (RFC 8693 4.2), or a
    list, as some issuers write it."""
    for path in paths:
        value = at(claims, path)
        if value is not _ABSENT and value is not None:
            if not isinstance(value, str):
                return frozenset(_texts(value, path))
            found = _known_scopes.get(value)
            if found is None:
                found = frozenset(_texts(value.split(), path))
                if len(value) <= _LONGEST_KNOWN:
                    if len(_known_scopes) >= _MOST_KNOWN:
                        _known_scopes.clear()
                    _known_scopes[value] = found
            return found
    return frozenset()


#: Lists of scopes that were met, by their text. An issuer gives out few, so thousands of callers
#: share them. Bounded.
_known_scopes: dict[str, frozenset[str]] = {}
_MOST_KNOWN = 256
_LONGEST_KNOWN = 1000


def _texts(value: Any, path: str | None) -> Collection[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list):
        raise Refused(f"claim {path} is no list of names: {shown_claim(value)}")
    for each in found:
        if not isinstance(each, str) or not is_sayable(each):
            raise Refused(f"claim {path} is no list of names: {shown_claim(value)}")
    return found


def _same(one: Any, other: Any) -> bool:
    """Equal, and of one type: `true` is not 1."""
    return type(one) is type(other) and bool(one == other)


def shown_claim(value: Any) -> str:
    """One short line for the log, whatever stands in a token."""
    if value is _ABSENT or value is None:
        return "missing"
    return ascii(value)[:100]
