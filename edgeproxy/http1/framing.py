"""Where a body ends (RFC 9112 6 and 7): decoders that take bytes and give payload.

Each has ``feed(data)`` which returns ``(payload, rest)``: the body bytes in ``data``, and what
stands after the end of the body, or ``None`` while the body goes on. Afterwards ``trailers`` are
the lines that followed a chunked body.
"""

from __future__ import annotations

import re
from typing import Protocol

from edgeproxy.http1.grammar import parse_trailers

#: A chunk's size line: hex digits and extensions (RFC 9112 7.1.1).
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?)\r\n")
_LONGEST_LINE = 16 + 256
_TRAILER_SIZE = 8192


class Decoder(Protocol):
    """See the module's text."""

    trailers: list[bytes]

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]: ...


class Length:
    """A body of a declared length."""

    __slots__ = ("remaining", "trailers")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.trailers: list[bytes] = []

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        size = len(data)
        if size < self.remaining:
            self.remaining -= size
            return data, None
        if size == self.remaining:
            self.remaining = 0
            return data, b""
        end, self.remaining = self.remaining, 0
        return data[:end], data[end:]


class UntilClose:
    """An answer that ends with its connection (RFC 9112 6.3, item 8)."""

    __slots__ = ("trailers",)

    def __init__(self) -> None:
        self.trailers: list[bytes] = []

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        return data, None


class Chunked:
    """The chunked transfer coding.

    :raises ValueError: from ``feed``, on anything that the grammar does not know.
    """

    __slots__ = ("_buffer", "_ended", "_left", "_seen", "trailers")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = -1  # of the chunk and its CRLF; -1 when a size line comes next
        self._ended = False
        self._seen = 0  # of the trailers
        self.trailers: list[bytes] = []

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        payload: list[bytes] = []
        position = 0
        while not self._ended:
            if self._left < 0:
                position = self._size_line(data, position)
                if position < 0:
                    return b"".join(payload), None
                continue
            piece = data[position : position + self._left]
            if self._left > 2:
                payload.append(piece[: self._left - 2])
            if len(piece) < self._left:
                self._keep(piece)
                return b"".join(payload), None
            if piece[-2:] != b"\r\n":
                raise ValueError("a chunk is longer than its size")
            position += self._left
            self._left = -1
        found = parse_trailers(data[position:], _TRAILER_SIZE, self._seen)
        if found is None:
            self._buffer = data[position:]
            self._seen = len(self._buffer)
            return b"".join(payload), None
        self.trailers, taken = found
        return b"".join(payload), data[position + taken :]

    def _keep(self, piece: bytes) -> None:
        """A chunk goes on in the next read; its CRLF, if begun, is looked at when whole."""
        left = self._left - len(piece)
        if left < 2:
            # Part of the CRLF is here: it must be a CR, and is seen again with the rest.
            if piece[-1:] != b"\r":
                raise ValueError("a chunk is longer than its size")
            self._buffer = b"\r"
            self._left = 2
        else:
            self._left = left

    def _size_line(self, data: bytes, position: int) -> int:
        """Read a size line; the position after it, or -1 when it is not whole yet."""
        match = _CHUNK.match(data, position)
        if match is None:
            rest = data[position:]
            if b"\n" in rest or len(rest) > _LONGEST_LINE or not _may_become_size(rest):
                raise ValueError("malformed chunk size")
            self._buffer = rest
            return -1
        if len(match.group(2)) > 256:
            raise ValueError("chunk extension too long")
        size = int(match.group(1), 16)
        if size == 0:
            self._ended = True
        else:
            self._left = size + 2
        return match.end()


_PREFIX = re.compile(rb"[0-9A-Fa-f]{0,16}(?:[ \t]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?\r?)?\Z")


def _may_become_size(rest: bytes) -> bool:
    return _PREFIX.match(rest) is not None and rest[:1] not in (b" ", b"\t", b";", b"\r")


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk; ``data`` must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of a chunked body, with trailer lines."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + b"\r\n".join(trailers) + b"\r\n\r\n"
