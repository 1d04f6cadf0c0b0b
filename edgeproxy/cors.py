"""CORS of a route (Fetch standard, 3.2): whose pages may read its answers, and preflights.

Everything is worked out when the configuration is read: for a request the origin is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from edgeproxy.config.cors import Cors

_OWN = b"access-control-"
_OWN_SIZE = len(_OWN)
_A, _O, _V = b"aA", b"oO", b"vV"  # what names begin with that are looked for: a third of the time
_VARY = b"Vary: Origin"
_VARY_PREFLIGHT = b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
_TOKENS = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_NEVER = (b"CONNECT", b"TRACE")  # Fetch standard, 2.2.1: no page may use them
_ASKED = (b"origin", b"access-control-request-method", b"access-control-request-headers")


class Grant:
    """What an answer says about who may read it."""

    __slots__ = ("_lines", "_varies")

    def __init__(self, lines: Iterable[bytes] = (), *, varies: bool = True) -> None:
        self._lines = tuple(lines)
        self._varies = varies

    def apply(self, lines: list[bytes]) -> list[bytes]:
        """The lines of an answer's head, without CRLF: what others say of it is taken out."""
        found = [line for line in lines if line[:1] not in _A or line[:_OWN_SIZE].lower() != _OWN]
        found += self._lines
        if self._varies and not _told(found):
            found.append(_VARY)
        return found


def _told(lines: list[bytes]) -> bool:
    """Whether caches know already that the answer depends on Origin."""
    for line in lines:
        if line[:1] in _V and line[:5].lower() == b"vary:":
            names = line[5:].lower().replace(b" ", b"").replace(b"\t", b"").split(b",")
            if b"origin" in names or b"*" in names:
                return True
    return False


class Preflight(NamedTuple):
    """What a browser asks before it sends a request."""

    origin: bytes
    method: bytes
    headers: bytes


def preflight(lines: list[bytes]) -> Preflight | None:
    """What an OPTIONS with these field lines asks; ``None`` for an ordinary one.

    Fields that stand there twice make it an ordinary one: no browser sends them so.
    """
    found: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _ASKED:
            if name in found:
                return None
            found[name] = value.strip(b" \t")
    origin, method, headers = (found.get(name, b"") for name in _ASKED)
    if not origin or not _METHOD.fullmatch(method) or method in _NEVER:
        return None
    return Preflight(origin, method, headers)


class CrossOrigin:
    """The settings of one route, compiled."""

    def __init__(self, config: Cors) -> None:
        self._any = "*" in config.origins
        methods = {method.encode("ascii") for method in config.methods}
        # Browsers take HEAD for granted, as GET (Fetch standard, 2.2.1).
        self._methods = frozenset(methods | ({b"HEAD"} if b"GET" in methods else set()))
        self._headers = frozenset(name.lower().encode("ascii") for name in config.headers)
        self._fixed = _fixed(config)
        expose = ", ".join(config.expose).encode("ascii")
        self._shown = [b"Access-Control-Expose-Headers: " + expose] if expose else []
        self._vouched = [b"Access-Control-Allow-Credentials: true"] if config.credentials else []
        exact = [each for each in config.origins if "://*." not in each and each != "*"]
        self._known = {each.encode("ascii"): self._grant(each.encode("ascii")) for each in exact}
        self._pattern = _pattern(config.origins)
        self._everybody = Grant([b"Access-Control-Allow-Origin: *", *self._shown], varies=False)
        self._nobody = Grant()
        self._nobody_ever = Grant(varies=False)

    def answering(self, lines: list[bytes], method: bytes) -> Grant:
        """What the answer to a request with these field lines says."""
        if self._methods and method not in self._methods:
            return self._nobody_ever if self._any else self._nobody
        if self._any:
            return self._everybody
        found = [line for line in lines if line[:1] in _O and line[:7].lower() == b"origin:"]
        if len(found) != 1:
            return self._nobody
        return self._of(found[0][7:].strip(b" \t")) or self._nobody

    def allowing(self, asked: Preflight) -> tuple[list[bytes], str]:
        """The lines of the answer to a preflight, and for the log why it allows nothing."""
        if self._methods and asked.method not in self._methods:
            return [_VARY_PREFLIGHT], "cors: the method is not allowed"
        if self._any:
            allowed = [b"Access-Control-Allow-Origin: *"]
        elif self._of(asked.origin) is None:
            return [_VARY_PREFLIGHT], "cors: the origin is not allowed"
        else:
            allowed = [b"Access-Control-Allow-Origin: " + asked.origin, *self._vouched]
        # The announced method alone: another one may lead to another route.
        lines = [*allowed, b"Access-Control-Allow-Methods: " + asked.method, *self._fixed]
        if b"*" in self._headers and _TOKENS.fullmatch(asked.headers):
            # By name, since the wildcard does not cover Authorization (Fetch standard, 4.9).
            lines.append(b"Access-Control-Allow-Headers: " + asked.headers)
        lines.append(_VARY_PREFLIGHT)
        return lines, ""

    def _of(self, origin: bytes) -> Grant | None:
        found = self._known.get(origin)
        if found is None and self._pattern is not None and self._pattern.fullmatch(origin):
            return self._grant(origin)
        return found

    def _grant(self, origin: bytes) -> Grant:
        allowed = b"Access-Control-Allow-Origin: " + origin
        return Grant([allowed, *self._vouched, *self._shown])


def _fixed(config: Cors) -> list[bytes]:
    """The lines that all preflights get that are allowed."""
    lines = [b"Access-Control-Max-Age: %d" % config.max_age]
    if "*" not in config.headers:
        lines.append(b"Access-Control-Allow-Headers: " + ", ".join(config.headers).encode("ascii"))
    return lines


def _pattern(origins: Iterable[str]) -> re.Pattern[bytes] | None:
    """What matches an origin that one of the patterns covers: one label in place of the star."""
    parts = [
        re.escape(scheme) + r"://[a-z0-9_-]{1,63}\." + re.escape(rest)
        for scheme, star, rest in (each.partition("://*.") for each in origins)
        if star
    ]
    return re.compile("|".join(parts).encode("ascii")) if parts else None
