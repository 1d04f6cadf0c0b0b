"""The grammar of HTTP/1.1 heads (RFC 9112), both roles: bytes in, a head or a refusal out.

A head is split at CRLF, and each line must match an expression that cannot backtrack, or have
matched it before. (Possessive quantifiers stand on single sets of characters only: on groups
CPython before 3.11.5 does not restore the position when the group fails half-way, gh-106052, and
then "/.." would be a clean path.) Whatever the expressions do not know is
refused: bare LF, bare CR, NUL, obsolete folding, a space before the colon or before the first
field, an empty name. What passes is kept as the lines that came, and passed on as they are.
"""

from __future__ import annotations

import re
from collections.abc import Set
from itertools import filterfalse
from typing import NoReturn

from edgeproxy.errors import malformed
from edgeproxy.http1.fields import FieldTable, Kind

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_LINES = rb"((?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*)\r\n"

#: A path of plain characters, which nearly all have, and its query; or any other target.
_TARGET = rb"(?:(/[A-Za-z0-9._~!$&'()*+,=:@/\-]*+)(\?[\x21-\x7e]*+)? |([\x21-\x7e]++) )"
# CONNECT makes a tunnel of a connection for whoever takes it up: whatever its target looks like,
# no service may see one.
_REQUEST_LINE = re.compile(rb"(?!CONNECT )(" + _TOKEN + rb") " + _TARGET + rb"HTTP/1\.([01])\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*+))?\Z")
_TRAILERS = re.compile(_LINES)
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")
_HOST = re.compile(
    rb"((?:[A-Za-z0-9](?:[A-Za-z0-9_\-]{0,62})(?:\.|(?=:|\Z)))+|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?\Z"
)
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*+(?: |\Z)")

HOST = Kind.HOST
CONTENT_LENGTH = Kind.CONTENT_LENGTH
TRANSFER_ENCODING = Kind.TRANSFER_ENCODING
CONNECTION = Kind.CONNECTION
EXPECT = Kind.EXPECT
API_KEY = Kind.API_KEY
AUTHORIZATION = Kind.AUTHORIZATION


class RequestHead:
    """One request's head.

    ``lines`` are the field lines that may pass on, as they came and in their order. Lines with a
    meaning for the gateway are taken out of them: ``host`` is written anew, credentials are in
    ``keys``, the rest is in ``special`` as ``(kind, line)``; only ``Content-Length`` stays.
    ``length`` is the body's length when it was declared, ``chunked`` tells the other framing;
    with neither there is no body. ``keys`` are ``(kind, value, line)``.

    ``path`` and ``query`` (with its question mark) are those of a target whose path needs no
    second look; any other target is ``unclear``, and ``path`` is ``None``.
    """

    __slots__ = (
        "chunked",
        "close",
        "connection",
        "expect",
        "host",
        "keys",
        "length",
        "lines",
        "method",
        "minor",
        "path",
        "query",
        "special",
        "unclear",
    )

    def __init__(
        self,
        method: bytes,
        path: bytes | None,
        query: bytes,
        unclear: bytes | None,
        minor: bytes,
        lines: list[bytes],
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.unclear = unclear
        self.minor = minor
        self.lines = lines
        self.special: tuple[tuple[Kind, bytes], ...] = ()
        self.keys: tuple[tuple[Kind, bytes, bytes], ...] = ()
        self.host: bytes | None = None
        self.length: int | None = None
        self.chunked = False
        self.close = minor == b"0"
        self.connection = _NO_OPTIONS
        self.expect: bytes | None = None

    @property
    def target(self) -> bytes:
        """The request target as it came."""
        return self.unclear if self.path is None else self.path + self.query  # type: ignore[return-value]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """``(name, value)`` of every field but the framing ones and Host: those that mean nothing
        to the gateway in their order, then the others."""
        special = [line for _, line in self.special] + [line for _, _, line in self.keys]
        pairs = (line.partition(b":") for line in self.lines + special)
        return [(name, value.strip(b" \t")) for name, _, value in pairs]


_NO_OPTIONS: frozenset[bytes] = frozenset()


class HeadLimits:
    """Bounds of a head: bytes of the whole, of the target, and the number of fields; and the
    paths (``hostless``) that may be asked for without a Host field."""

    __slots__ = ("fields", "hostless", "size", "target")

    def __init__(
        self,
        size: int = 16384,
        target: int = 8192,
        fields: int = 100,
        hostless: tuple[bytes, ...] = (),
    ) -> None:
        self.size = size
        self.target = target
        self.fields = fields
        self.hostless = hostless


def parse_request(
    buffer: bytes, table: FieldTable, limits: HeadLimits, seen: int = 0
) -> tuple[RequestHead, int] | None:
    """Read a request head from the start of ``buffer``, of which ``seen`` bytes were looked at
    before and were not enough: a head that comes byte by byte is not read anew for each.

    :return: the head and the number of bytes it took; ``None`` when more bytes are needed.
    :raises GatewayError: 400, 414 or 431, always with ``close``.
    """
    end = buffer.find(b"\r\n\r\n", seen - 3 if seen > 3 else 0)
    if end < 0:
        _refuse_or_wait(buffer, limits, seen)
        return None
    lines = buffer[:end].split(b"\r\n")
    match = _REQUEST_LINE.match(lines[0])
    if match is None or end + 4 > limits.size or len(lines) - 1 > limits.fields:
        _refuse_head(lines, end, limits)
    method, path, query, target, minor = match.groups()
    if path is not None and (b"/." in path or b"//" in path):
        # Perhaps not in the one form that edgeproxy.paths explains: to be looked at again.
        target = path + (query or b"")
        path = query = None
    del lines[0]
    head = RequestHead(method, path, query or b"", target, minor, lines)
    if end > limits.target:
        _refuse_target(head, limits)
    known = table.known
    for line in filterfalse(table.passes, tuple(lines)):
        found = known.get(line) or table.read(line)
        if found is None:
            raise malformed("The request head is malformed.")
        kind, value = found
        if kind is None:
            continue
        if kind is CONTENT_LENGTH:
            if head.length is not None:
                raise malformed("Content-Length was sent twice.")
            head.length = content_length(value)
            continue
        lines.remove(line)
        if kind is HOST:
            if head.host is not None:
                raise malformed("A request needs exactly one Host field.")
            head.host = value
        elif kind is API_KEY or kind is AUTHORIZATION:
            head.keys += ((kind, value, line),)
        elif kind is CONNECTION:
            if value == b"keep-alive":
                head.close = b"close" in head.connection
            else:
                _read_connection(head, value)
        else:
            head.special += ((kind, line),)
            if kind is TRANSFER_ENCODING:
                _read_transfer_encoding(head, value)
            elif kind is EXPECT and minor == b"1":  # RFC 9110 10.1.1: nothing in HTTP/1.0
                head.expect = value.lower()
    if head.host is None and head.path not in limits.hostless:
        raise malformed("A request needs exactly one Host field.")
    if head.chunked and head.length is not None:
        raise malformed("Content-Length and Transfer-Encoding cannot stand together.")
    return head, end + 4


def _refuse_head(lines: list[bytes], end: int, limits: HeadLimits) -> NoReturn:
    """Say what is wrong with a whole head whose first line, size or number of lines is."""
    first = lines[0].split(b" ")
    if len(first) > 1 and len(first[1]) > limits.target:
        raise malformed("The request target is too long.", 414)
    if end + 4 > limits.size:
        raise malformed("The request head is too large.", 431)
    if len(lines) - 1 <= limits.fields or not _REQUEST_LINE.match(lines[0]):
        raise malformed("The request head is malformed.")
    raise malformed("The request has too many header fields.", 431)


def _refuse_target(head: RequestHead, limits: HeadLimits) -> None:
    if len(head.target) > limits.target:
        raise malformed("The request target is too long.", 414)


def _read_connection(head: RequestHead, value: bytes) -> None:
    options = value.lower()
    head.connection |= {option.strip(b" \t") for option in options.split(b",")} - {b""}
    if b"close" in head.connection:
        head.close = True
    elif b"keep-alive" in head.connection:
        head.close = False


def _read_transfer_encoding(head: RequestHead, value: bytes) -> None:
    if head.chunked or value.lower() != b"chunked":
        raise malformed("Transfer-Encoding must be exactly chunked.")
    if head.minor == b"0":
        raise malformed("HTTP/1.0 has no Transfer-Encoding.")
    head.chunked = True


def content_length(value: bytes) -> int:
    """One plain number; neither a list nor a sign (RFC 9112 6.3 allows to refuse both)."""
    if not _DIGITS.match(value):
        raise malformed("Content-Length is not a plain number.")
    return int(value)


def _refuse_or_wait(buffer: bytes, limits: HeadLimits, seen: int) -> None:
    """Tell a head that is not complete yet from one that never can be."""
    line = buffer.find(b"\r\n")
    target = buffer.find(b" ") + 1
    stops = (line, buffer.find(b" ", target), len(buffer))
    if target and min(stop for stop in stops if stop >= 0) - target > limits.target:
        raise malformed("The request target is too long.", 414)
    if len(buffer) > limits.size:
        raise malformed("The request head is too large.", 431)
    if _BARE.search(buffer, max(0, seen - 1)) or (line != 0 and not _METHOD.match(buffer)):
        raise malformed("The request head is malformed.")


def split_host(value: bytes) -> tuple[bytes, int | None]:
    """A Host value as name (lower case, no trailing dot) and port.

    :raises GatewayError: 400 when it is neither a name nor an address.
    """
    match = _HOST.match(value)
    if match is None:
        raise malformed("The Host field is malformed.")
    name, port = match.groups()
    number = None if port is None else int(port)
    if number is not None and not 0 < number < 65536:
        raise malformed("The Host field is malformed.")
    name = name.lower()
    return (name[:-1] if name.endswith(b".") else name), number


class ResponseHead:
    """An upstream's head; ``lines``, ``special`` and ``length`` as in :class:`RequestHead`.

    ``close`` tells that the connection is not to be used again; it never is after HTTP/1.0.
    ``upgrade`` tells that ``Connection`` said so.

    ``Content-Length`` is in ``lines``; lines that are looked at again have been taken out into
    ``special``.
    """

    __slots__ = (
        "chunked",
        "close",
        "length",
        "lines",
        "minor",
        "reason",
        "special",
        "status",
        "upgrade",
    )

    def __init__(self, minor: bytes, status: int, reason: bytes, lines: list[bytes]) -> None:
        self.minor = minor
        self.status = status
        self.reason = reason
        self.lines = lines
        self.special: tuple[tuple[Kind, bytes], ...] = ()
        self.length: int | None = None
        self.chunked = self.upgrade = False
        self.close = minor == b"0"


def parse_response(
    buffer: bytes, table: FieldTable, size: int = 65536, seen: int = 0
) -> tuple[ResponseHead, int] | None:
    """Read an upstream's head from the start of ``buffer``; ``seen`` as in :func:`parse_request`.

    :return: the head and the bytes it took; ``None`` when more are needed.
    :raises ValueError: what came is not an answer, or could be read in two ways.
    """
    end = buffer.find(b"\r\n\r\n", seen - 3 if seen > 3 else 0)
    if end < 0 or end > size:
        _refuse_response_or_wait(buffer, end, size, seen)
        return None
    lines = buffer[:end].split(b"\r\n")
    first = lines.pop(0)
    if len(lines) > _MOST_FIELDS:
        raise ValueError("too many fields")
    minor, status, reason = _statuses.get(first) or _read_status_line(first)
    head = ResponseHead(minor, status, reason, lines)
    options: set[bytes] = set()
    known = table.known
    for line in filterfalse(table.passes, tuple(lines)):
        found = known.get(line) or table.read(line)
        if found is None:
            raise ValueError("malformed field")
        kind, value = found
        if kind is None:
            continue
        if kind is CONTENT_LENGTH:
            if head.length is not None or not _DIGITS.match(value):
                raise ValueError("doubtful Content-Length")
            head.length = int(value)
            continue
        lines.remove(line)
        if kind is CONNECTION:
            if value != b"keep-alive":
                options |= {option.strip(b" \t") for option in value.lower().split(b",")}
        elif kind is TRANSFER_ENCODING:
            if head.chunked or value.lower() != b"chunked" or minor == b"0":
                raise ValueError("doubtful Transfer-Encoding")
            head.chunked = True
        elif kind in _KEPT_ASIDE:
            head.special += ((kind, line),)
    if options:
        _read_response_connection(head, options)
    if head.chunked and head.length is not None:
        raise ValueError("Content-Length beside Transfer-Encoding")
    return head, end + 4


#: Of an answer (Envoy and Python's http.client allow 100; nginx any number). The thousands that
#: 64 KiB can hold would keep the reactor for a quarter of a second: some are taken out one by one.
_MOST_FIELDS = 500


#: Status lines met before, taken apart; there are few.
_statuses: dict[bytes, tuple[bytes, int, bytes]] = {}


def _read_status_line(line: bytes) -> tuple[bytes, int, bytes]:
    match = _STATUS_LINE.match(line)
    if match is None:
        raise ValueError("malformed status line")
    minor, status, reason = match.groups()
    if len(_statuses) >= 256:
        _statuses.clear()
    found = _statuses[line] = minor, int(status), reason or b""
    return found


#: Fields of answers that are looked at again when the answer is passed on.
_KEPT_ASIDE = (Kind.LOCATION, Kind.RATE, Kind.UPGRADE)


def _refuse_response_or_wait(buffer: bytes, end: int, size: int, seen: int) -> None:
    """Tell a head that is not complete yet from one that never can be."""
    if end > size or len(buffer) > size:
        raise ValueError("head too large")
    if _BARE.search(buffer, max(0, seen - 1)):
        raise ValueError("malformed head")
    if not b"HTTP/1.".startswith(buffer[:7]):
        raise ValueError("not HTTP/1")


def _read_response_connection(head: ResponseHead, options: set[bytes]) -> None:
    """What Connection names goes no further; the answer's own frame cannot be taken away."""
    if b"close" in options:
        head.close = True
    head.upgrade = b"upgrade" in options
    head.lines[:] = without(head.lines, options - {b"content-length"})


def without(lines: list[bytes], names: Set[bytes]) -> list[bytes]:
    """``lines`` without the fields called one of ``names`` (lower case).

    Each line is looked at once: a head that names thousands costs no more than another.
    """
    return [line for line in lines if line.partition(b":")[0].lower() not in names]


def parse_trailers(buffer: bytes, size: int, seen: int = 0) -> tuple[list[bytes], int] | None:
    """Read trailer lines up to their empty line; as :func:`parse_request` otherwise.

    :raises ValueError: malformed or larger than ``size``.
    """
    if not buffer.startswith(b"\r\n") and buffer.find(b"\r\n\r\n", max(0, seen - 3)) < 0:
        if len(buffer) > size or _BARE.search(buffer, max(0, seen - 1)):
            raise ValueError("malformed trailers")
        return None
    match = _TRAILERS.match(buffer)
    if match is None:
        raise ValueError("malformed trailers")
    if match.end() > size:
        raise ValueError("trailers too large")
    lines = match.group(1).split(b"\r\n")
    lines.pop()
    return lines, match.end()
