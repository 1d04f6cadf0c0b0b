"""Which header fields mean something to a gateway, and finding them quickly in a head.

A browser's head has some sixteen fields, most mean nothing to us, and most are the same from
request to request (HTTP/2 compresses heads by that). So a table remembers the lines that it has
checked and found meaningless, up to a bound, and only the others are taken apart again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, Protocol


class Kind(Enum):
    """What a field is to us."""

    HOST = "host"
    CONTENT_LENGTH = "content-length"
    TRANSFER_ENCODING = "transfer-encoding"
    CONNECTION = "connection"
    EXPECT = "expect"
    UPGRADE = "upgrade"
    TE = "te"
    AUTHORIZATION = "authorization"
    API_KEY = "x-api-key"
    FORWARDED = "forwarded"  # who the client says it is: believed from trusted proxies only
    REQUEST_ID = "x-request-id"
    TRACE = "traceparent"
    VIA = "via"
    RESERVED = "reserved"  # fields that only the gateway may set
    HOP = "hop"  # means something on one connection only; removed, nothing else
    LOCATION = "location"
    SOFTWARE = "software"  # tells which software the service runs on
    RATE = "rate"  # the upstream's own rate limit fields


#: RFC 9110 7.6.1 and the fields of RFC 7540 3.2.1 that speak of the connection alone.
_HOP_BY_HOP = {
    "keep-alive": Kind.HOP,
    "proxy-connection": Kind.HOP,
    "proxy-authenticate": Kind.HOP,
    "proxy-authorization": Kind.HOP,
    "http2-settings": Kind.HOP,
    "connection": Kind.CONNECTION,
    "te": Kind.TE,
    "transfer-encoding": Kind.TRANSFER_ENCODING,
    "upgrade": Kind.UPGRADE,
}

#: Identity fields that we emit: removed from what a client sent, in every spelling.
IDENTITY = (
    "x-consumer-id",
    "x-consumer-name",
    "x-consumer-groups",
    "x-edge-token",
    "client-cert",
    "client-cert-chain",
)

#: What further ones begin with. Services that stood behind other gateways believe more of them
#: than we write: Kong says X-Consumer-Username and X-Consumer-Custom-ID.
IDENTITY_FAMILY = "x-consumer-"

FORWARDING = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "forwarded",
    "x-real-ip",
    "x-original-url",
    "x-rewrite-url",
)


#: ``name.translate(FOLD)`` is what servers behind us make of a name that becomes a variable (CGI,
#: WSGI): all of them write ``-`` and ``_`` alike, some every mark (lighttpd ``.``, too).
FOLD = bytes(
    ord(chr(code).lower()) if chr(code).isalnum() else ord("-") for code in range(128)
) + bytes(range(128, 256))


def folded(name: str) -> bytes:
    """The one spelling of a name, see :data:`FOLD`."""
    return name.encode("ascii").translate(FOLD)


class FieldTable:
    """The fields that matter on one side, by name.

    ``kinds`` maps names in lower case; ``fold`` lists those that are also recognised with ``_``
    or another mark written for ``-``, see :data:`FOLD`. ``reserved`` is what names begin with,
    so written, that are reserved whatever follows.
    """

    def __init__(
        self, kinds: dict[str, Kind], fold: Iterable[str] = (), reserved: tuple[str, ...] = ()
    ) -> None:
        self._reserved = tuple(name.encode("ascii") for name in reserved)
        self._names = {name.encode("ascii"): kind for name, kind in kinds.items()}
        self._folded = {name.encode("ascii"): kinds[name] for name in fold if "-" in name}
        #: Lines met before that are well-formed and mean nothing to us. Clients and services
        #: repeat most of theirs from message to message.
        self.passing: set[bytes] = set()
        self.passes = self.passing.__contains__
        #: Lines met before that do mean something, taken apart.
        self.known: dict[bytes, tuple[Kind, bytes]] = {}
        self._spelled: dict[bytes, Kind | None] = {}

    def kind(self, name: bytes) -> Kind | None:
        """What the field ``name``, as it was spelled, is to us; ``None`` if nothing."""
        lower = name.lower()
        kind = self._names.get(lower)
        if kind is None and self._folded:
            folded = name.translate(FOLD)
            kind = self._folded.get(folded)
            if kind is None and folded.startswith(self._reserved):
                kind = Kind.RESERVED
        return kind

    def read(self, line: bytes) -> tuple[Kind | None, bytes] | None:
        """A field line's kind and value, without the white space around it; ``None`` for a line
        that the grammar does not know (RFC 9112 5).

        Asked for lines that are neither :attr:`passing` nor :attr:`known`, and puts them there,
        but for those that hold a secret or differ from message to message. All tables are
        emptied when they are full, so what a client invents costs others no more than another
        call.
        """
        name, colon, value = line.partition(b":")
        if name in self._spelled:
            kind = self._spelled[name]
        else:
            if not _NAME.match(name):
                return None
            kind = self.kind(name)
            if len(name) < _LONGEST_KNOWN:
                _bounded(self._spelled)
                self._spelled[name] = kind
        if not colon or not _VALUE.match(value):
            return None
        value = value.strip(b" \t")
        if kind not in _UNIQUE and len(line) < _LONGEST_KNOWN:
            if kind is None:
                _bounded(self.passing)
                self.passing.add(line)
            else:
                _bounded(self.known)
                self.known[line] = kind, value
        return kind, value


def _bounded(table: set[bytes] | dict[bytes, Any]) -> None:
    if len(table) >= _MOST_KNOWN:
        table.clear()


_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++\Z")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+\Z")
_MOST_KNOWN = 4096
_LONGEST_KNOWN = 256
# A tuple: looking for a member of an Enum in a set calls Python code.
_UNIQUE = (Kind.CONTENT_LENGTH, Kind.AUTHORIZATION, Kind.API_KEY, Kind.REQUEST_ID, Kind.TRACE)


def request_fields(reserved: Iterable[str] = (), key: str | None = None) -> FieldTable:
    """The table for heads of requests; ``reserved`` are further names that clients may not set,
    ``key`` is one in which they may show an API key, in every spelling."""
    keys: dict[str, Kind] = {}
    if key is not None:
        keys[folded(key).decode("ascii")] = Kind.API_KEY
    guarded = dict.fromkeys((*IDENTITY, *(name.lower() for name in reserved)), Kind.RESERVED)
    forwarding = dict.fromkeys(FORWARDING, Kind.FORWARDED)
    kinds = {
        **keys,
        **guarded,
        **forwarding,
        **_HOP_BY_HOP,
        "host": Kind.HOST,
        "content-length": Kind.CONTENT_LENGTH,
        "expect": Kind.EXPECT,
        "authorization": Kind.AUTHORIZATION,
        "x-api-key": Kind.API_KEY,
        "x-request-id": Kind.REQUEST_ID,
        "traceparent": Kind.TRACE,
        "via": Kind.VIA,
    }
    fold = (*keys, *guarded, *forwarding, "x-request-id")
    return FieldTable(kinds, fold, reserved=(IDENTITY_FAMILY,))


def response_fields(*, hide_software: bool = True) -> FieldTable:
    """The table for heads of an upstream's answers."""
    kinds = {
        **_HOP_BY_HOP,
        "content-length": Kind.CONTENT_LENGTH,
        "location": Kind.LOCATION,
        "content-location": Kind.LOCATION,
        "ratelimit": Kind.RATE,
        "ratelimit-policy": Kind.RATE,
    }
    if hide_software:
        kinds |= {"server": Kind.SOFTWARE, "x-powered-by": Kind.SOFTWARE}
    return FieldTable(kinds)


#: Names that never belong in trailers (RFC 9110 6.5.1): framing, routing, authentication,
#: and what a recipient evaluates before the body.
_NOT_IN_TRAILERS = frozenset(
    name.encode("ascii")
    for name in (
        *_HOP_BY_HOP,
        *IDENTITY,
        *FORWARDING,
        "host",
        "content-length",
        "content-encoding",
        "content-type",
        "content-range",
        "trailer",
        "authorization",
        "x-api-key",
        "cookie",
        "set-cookie",
        "expect",
        "via",
        "cache-control",
        "max-forwards",
        "range",
        "x-request-id",
        "traceparent",
        "location",
        "www-authenticate",
        "age",
        "date",
        "expires",
        "retry-after",
        "vary",
        "warning",
    )
)


class Dropping(Protocol):
    """Rules of a route that take fields out: ``drop`` are their names, as :data:`FOLD` makes
    them."""

    drop: frozenset[bytes]


def passing_trailers(lines: list[bytes], table: FieldTable, rules: Dropping | None) -> list[bytes]:
    """The trailer lines that may be passed on: none that could be taken for what the gateway
    says, or that the route's ``rules`` set or remove, with another mark for ``-`` either."""
    dropped = () if rules is None else rules.drop
    passing = []
    for line in lines:
        name = line.partition(b":")[0]
        folded = name.translate(FOLD)
        if folded not in _NOT_IN_TRAILERS and folded not in dropped and table.kind(name) is None:
            passing.append(line)
    return passing
