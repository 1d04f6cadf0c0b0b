"""One cookie, taken out of a request's head (RFC 6265 5.4)."""

from __future__ import annotations

import re

LARGEST = 4096
"""Bytes of a value that are looked up: what a browser keeps of a cookie (RFC 6265 6.1)."""

#: RFC 6265 4.1.1, without the double quotes that may stand around it.
_VALUE = re.compile(rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+\Z")


def take_cookie(lines: list[bytes], name: bytes) -> tuple[list[bytes], list[bytes]]:
    """All values of the cookie `name`, and the head's lines without it.

    The other cookies stay as they were sent, and so does every line that does not hold it.
    """
    values: list[bytes] = []
    kept: list[bytes] = []
    for line in lines:
        field, _, sent = line.partition(b":")
        if field.lower() != b"cookie":
            kept.append(line)
            continue
        pairs = sent.split(b";")
        others = []
        for pair in pairs:
            key, _, value = pair.partition(b"=")
            if key.strip(b" \t") == name:
                values.append(value.strip(b" \t"))
            else:
                others.append(pair)
        if len(others) == len(pairs):
            kept.append(line)
        elif b"".join(others).strip(b" \t"):
            kept.append(field + b": " + b";".join(others).strip(b" \t"))
    return values, kept


def good_cookie(value: bytes) -> bool:
    """Whether it is a value that every reader takes for the same."""
    return len(value) <= LARGEST and _VALUE.match(value) is not None
