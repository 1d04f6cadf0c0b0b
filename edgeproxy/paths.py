"""Paths (RFC 3986 6.2.2): one form for routing and for forwarding, so that no spelling of a path
reaches a weaker route than the one that the upstream will see.

What could be read in two ways is refused: empty segments, dot segments however they are spelled,
encoded NUL, control bytes and backslashes, raw backslashes, and path parameters on dots.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from edgeproxy.errors import malformed

#: Paths with nothing to decode and nothing to doubt: nearly all of them.
_CLEAN = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,=:@\-]++)*/?\Z")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~")
#: Dot segments, and those that become dots or nothing in servlets, which cut from ``;`` on.
_DOTS = re.compile(rb"/(?:\.{1,2}(?:/|\Z)|\.{0,2};)")


class Path(NamedTuple):
    """``decoded`` is what rules look at and what an upstream will decode; ``wire`` is forwarded.

    ``slash`` tells that an encoded slash stands in it, which only some routes take.
    """

    decoded: bytes
    wire: bytes
    slash: bool


def normalise(raw: bytes) -> Path:
    """Bring a request target's path into the one form.

    :param raw: the path without query, visible ASCII only.
    :raises GatewayError: 400 when it is doubtful.
    """
    if raw and _CLEAN.match(raw):
        return Path(raw, raw, False)
    if not raw.startswith(b"/"):
        raise malformed("The path must begin with a slash.")
    if b"\\" in raw or b"#" in raw:
        raise malformed("The path holds a character that is not allowed there.")
    wire = _ESCAPE.sub(_escape, raw)
    decoded = unquote_to_bytes(wire)
    if b"//" in decoded:
        raise malformed("The path holds an empty segment.")
    if _DOTS.search(decoded):
        raise malformed("The path holds a dot segment.")
    return Path(decoded, wire, b"%2F" in wire)


def _escape(match: re.Match[bytes]) -> bytes:
    digits = match.group(1)
    if digits is None:
        raise malformed("The path holds a malformed percent-encoding.")
    code = int(digits, 16)
    if code in _UNRESERVED:
        return bytes((code,))
    if code < 0x20 or code in (0x7F, 0x2E, 0x5C):
        raise malformed("The path holds an encoded character that is not allowed there.")
    return b"%" + digits.upper()


def strip_prefix(path: Path, prefix: bytes) -> bytes:
    """The wire form below ``prefix`` (decoded form, no trailing slash); at least ``/``.

    :raises GatewayError: 400 when the prefix does not end at a segment of the wire form, as
        with an encoded slash inside it.
    """
    wire = path.wire
    if wire is path.decoded:
        return wire[len(prefix) :] or b"/"
    end = wire.find(b"/", 1)
    while True:
        cut = len(wire) if end < 0 else end
        if unquote_to_bytes(wire[:cut]) == prefix:
            return wire[cut:] or b"/"
        if end < 0:
            raise malformed("The path's prefix is spelled with an encoded slash.")
        end = wire.find(b"/", end + 1)
