"""The head that a proxy puts before a connection's bytes to tell whose it is: the PROXY protocol,
versions 1 and 2 (https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt).

Twisted's parsers take no address to the test, no checksum, and a line of version 1 of any length.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
#: No head of either version is shorter: `PROXY UNKNOWN` with its CRLF.
SHORTEST = 15
_V1_MOST = 107  # section 2.1, with the CRLF
_V2_FIXED = 16
# The protocol allows 64 KiB; an address, a name and a chain of certificates fit into what other
# servers take for a whole request head.
_V2_MOST = 16384
_V1 = re.compile(
    rb"PROXY (TCP[46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+)"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n\Z"
)
_CRC32C = 0x03
#: Length of the addresses by family and transport, section 2.2.
_ADDRESSES = {0x11: 12, 0x21: 36, 0x31: 216}


class BadHead(ValueError):
    """There is no PROXY head, or a wrong one; ``str()`` says what is wrong with it."""


class Told(NamedTuple):
    """Whose connection it is; ``None`` where the proxy speaks for itself or does not tell."""

    address: str
    port: int


class HeadReader:
    """Reads one head from a connection and not a byte more, so that what follows can be TLS.

    Ask for at most ``wanted`` bytes; with ``peek`` they must only be looked at, and ``take`` says
    how many of them are the head's. ``done`` when it is whole; ``told`` is what it says then.
    """

    __slots__ = ("_head", "done", "peek", "told", "wanted")

    def __init__(self) -> None:
        self._head = b""
        self.wanted = SHORTEST
        self.peek = False
        self.done = False
        self.told: Told | None = None

    def take(self, data: bytes) -> int:
        """How many of ``data`` belong to the head.

        :raises BadHead: it can become none any more.
        """
        if self.peek:
            # The CR may have come before; with it in front, the LF is at `end` of the data.
            end = (self._head[-1:] + data).find(b"\r\n")
            data = data[: end + 1] if end >= 0 else data
        self._head = head = self._head + data
        if head[:12] == SIGNATURE[: len(head)]:
            self._second(head)
        elif head[:6] == b"PROXY "[: len(head)]:
            self._first(head)
        else:
            raise BadHead("it does not begin with a PROXY head")
        return len(data)

    def _first(self, head: bytes) -> None:
        if head.endswith(b"\r\n"):
            self.told = parse_v1(head)
            self.done = True
        elif len(head) >= _V1_MOST:
            raise BadHead("the PROXY line is longer than 107 bytes")
        elif len(head) < SHORTEST:
            self.wanted = SHORTEST - len(head)
        else:
            self.peek = True
            self.wanted = _V1_MOST - len(head)

    def _second(self, head: bytes) -> None:
        if len(head) < SHORTEST:
            self.wanted = SHORTEST - len(head)
            return
        size = _V2_FIXED
        if len(head) >= _V2_FIXED:
            size += int.from_bytes(head[14:16], "big")
            if size > _V2_MOST:
                raise BadHead(f"the PROXY head is {size} bytes long; {_V2_MOST} are the most")
        self.wanted = size - len(head)
        if not self.wanted and len(head) >= _V2_FIXED:
            self.told = parse_v2(head)
            self.done = True


def looks_cut(data: bytes) -> bool:
    """Whether these bytes go on where a head's first five have been taken for a TLS record's."""
    return data.startswith((b" TCP4 ", b" TCP6 ", b" UNKNOWN", SIGNATURE[5:]))


def parse_v1(line: bytes) -> Told | None:
    """What a line of version 1, with its CRLF, tells.

    :raises BadHead: it is none.
    """
    if line == b"PROXY UNKNOWN\r\n" or line.startswith(b"PROXY UNKNOWN "):
        return None
    match = _V1.match(line)
    if match is None:
        raise BadHead("the PROXY line is malformed")
    family, source, target = (part.decode("ascii") for part in match.group(1, 2, 3))
    kind = IPv4Address if family == "TCP4" else IPv6Address
    try:
        address, _ = kind(source), kind(target)
    except AddressValueError:
        raise BadHead(f"the PROXY line holds an address that is none of {family}") from None
    if int(match[4]) > 65535 or int(match[5]) > 65535:
        raise BadHead("the PROXY line holds a port that is none")
    return Told(_text(address), int(match[4]))


def parse_v2(head: bytes) -> Told | None:
    """What a whole head of version 2 tells.

    :raises BadHead: it is none.
    """
    command, family = head[12], head[13]
    if command not in (0x20, 0x21):
        raise BadHead(f"the PROXY head has version and command {command:#x}, which are not known")
    if command == 0x20 or family == 0x00:
        return None  # LOCAL, or UNSPEC: the rest has no meaning (section 2.2)
    size = _ADDRESSES.get(family)
    if size is None:
        raise BadHead(f"the PROXY head is about {family:#x}, which is no TCP connection")
    rest = head[_V2_FIXED:]
    if len(rest) < size:
        raise BadHead("the PROXY head is too short for its addresses")
    _check_values(head, _V2_FIXED + size)
    if family == 0x31:
        return None  # a Unix socket: no address to tell
    port = int.from_bytes(rest[size - 4 : size - 2], "big")
    if family == 0x11:
        return Told(_text(IPv4Address(rest[:4])), port)
    return Told(_text(IPv6Address(rest[:16])), port)


def _text(address: IPv4Address | IPv6Address) -> str:
    """An IPv4 address is never in its IPv6 form."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _check_values(head: bytes, position: int) -> None:
    """The types, lengths and values after the addresses: whole, and the checksum right."""
    while position < len(head):
        if position + 3 > len(head):
            raise BadHead("the PROXY head ends within a value")
        begin = position + 3
        end = begin + int.from_bytes(head[position + 1 : begin], "big")
        if end > len(head):
            raise BadHead("the PROXY head ends within a value")
        if head[position] == _CRC32C:
            without = head[:begin] + bytes(end - begin) + head[end:]
            if end - begin != 4 or head[begin:end] != crc32c(without).to_bytes(4, "big"):
                raise BadHead("the PROXY head has a wrong checksum")
        position = end


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The checksum of RFC 3720, which Python's own modules do not have."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
