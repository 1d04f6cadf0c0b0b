"""The heads of the PROXY protocol: what is taken, what is refused, and not a byte too many."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.proxyprotocol import SIGNATURE, BadHead, HeadReader, Told, crc32c, looks_cut

V4 = IPv4Address("192.0.2.7").packed + IPv4Address("192.0.2.1").packed + b"\x1f\x90\x01\xbb"
V6 = IPv6Address("2001:db8::7").packed + IPv6Address("::1").packed + b"\x1f\x90\x01\xbb"


def two(rest: bytes, family: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def checked(rest: bytes, spoil: int = 0) -> bytes:
    """A head of version 2 with its checksum, and a value that means nothing after it."""
    value = two(rest + b"\x03\x00\x04" + bytes(4) + b"\x04\x00\x02ab")
    place = 16 + len(rest) + 3
    return value[:place] + struct.pack("!I", crc32c(value) ^ spoil) + value[place + 4 :]


def read(data: bytes, step: int = 1 << 16) -> tuple[Told | None, bytes]:
    """What a reader makes of a connection whose bytes come ``step`` at a time; and the rest."""
    reader = HeadReader()
    left, come = data, 0
    while not reader.done:
        assert come < len(data) + step, "it wants more than there is"
        come += step
        here = len(left) - max(0, len(data) - come)
        while here > 0 and not reader.done:
            piece = left[: min(reader.wanted, here)]
            peeked = reader.peek
            size = reader.take(piece)
            assert size == len(piece) or peeked
            left, here = left[size:], here - size
    return reader.told, left


GOOD: list[tuple[bytes, Told | None]] = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 8080 443\r\n", Told("192.0.2.7", 8080)),
    (b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n", Told("2001:db8::7", 0)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", Told("192.0.2.7", 1)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", None),
    (two(V4), Told("192.0.2.7", 8080)),
    (two(V6, 0x21), Told("2001:db8::7", 8080)),
    (two(bytes(216), 0x31), None),
    (two(b"", 0x00), None),
    (two(b"whatever", 0x00), None),
    (two(b"", 0x00, 0x20), None),
    (two(V4, 0x11, 0x20), None),
    (two(V4 + b"\xea\x00\x03abc" + b"\x02\x00\x00"), Told("192.0.2.7", 8080)),
    (two(V4 + b"\x04\x3e\x80" + bytes(16000)), Told("192.0.2.7", 8080)),
    (checked(V4), Told("192.0.2.7", 8080)),
]


@pytest.mark.parametrize(("head", "told"), GOOD)
@pytest.mark.parametrize("step", [1, 2, 7, 16, 1 << 16])
@pytest.mark.parametrize("rest", [b"", b"\x16\x03\x01\x02", b"GET / HTTP/1.1\r\n\r\n", b"\r\n\n"])
def test_good_heads_and_nothing_of_what_follows(
    head: bytes, told: Told | None, step: int, rest: bytes
) -> None:
    assert read(head + rest, step) == (told, rest)


BAD = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"proxy TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n",
    b"PROXY  TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 01 2\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 2\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1 99999\r\n",
    b"PROXY TCP4 192.0.2.007 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 192.0.2 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n",
    b"PROXY TCP6 ::1%lo ::1 1 2\r\n",
    b"PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n",
    b"PROXY UNKNOWNx y\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n" + b"x" * 90,
    b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
    two(V4, 0x11, 0x11),
    two(V4, 0x11, 0x22),
    two(V4, 0x12),
    two(V4, 0x13),
    two(V4, 0x41),
    two(V4[:-1]),
    two(V4, 0x21),
    two(V4 + b"\x04"),
    two(V4 + b"\x04\x00\x02a"),
    two(V4 + b"\x03\x00\x00"),
    checked(V4, 1),
    two(V4 + b"\x04\x3f\xff" + bytes(16383)),
    SIGNATURE[:-1] + b"x" + bytes(8),
]


@pytest.mark.parametrize("head", BAD)
@pytest.mark.parametrize("step", [1, 1 << 16])
def test_bad_heads(head: bytes, step: int) -> None:
    with pytest.raises(BadHead):
        read(head + b"x" * 120, step)


def test_the_checksum_is_castagnolis() -> None:
    """RFC 3720 B.4 and the value that every table of checksums has for it."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@given(st.ip_addresses(), st.integers(0, 65535), st.integers(1, 40), st.binary(max_size=40))
def test_any_address_in_both_versions(address: object, port: int, step: int, rest: bytes) -> None:
    source = ip_address(str(address))
    six = source.version == 6
    told = Told(str(getattr(source, "ipv4_mapped", None) or source), port)
    line = f"PROXY TCP{source.version} {source} {source} {port} 1\r\n".encode()
    assert read(line + rest, step) == (told, rest)
    packed = source.packed * 2 + struct.pack("!HH", port, 1)
    assert read(two(packed, 0x21 if six else 0x11) + rest, step) == (told, rest)


@given(st.sampled_from(GOOD), st.data(), st.integers(1, 40))
def test_a_changed_head_is_read_or_refused(
    good: tuple[bytes, object], data: st.DataObject, step: int
) -> None:
    head = bytearray(good[0][:200])
    for _ in range(data.draw(st.integers(1, 4))):
        head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(head) + bytes(70_000), step * 100)
    except BadHead as error:
        assert str(error).isprintable()


@pytest.mark.parametrize(
    ("head", "looks"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 8080 443\r\n", True),
        (b"PROXY TCP6 ::1 ::1 8080 443\r\n", True),
        (b"PROXY UNKNOWN\r\n", True),
        (SIGNATURE + b"\x21\x11\x00\x0c", True),
        (b"PROXY http://example.com/ HTTP/1.1\r\n", False),
        (b"GET / HTTP/1.1\r\n", False),
        (b"\r\n\r\n\x00", False),
        (b"", False),
    ],
)
def test_what_is_left_of_a_head_that_tls_began_to_read(head: bytes, looks: bool) -> None:
    assert looks_cut(head[5:]) is looks
