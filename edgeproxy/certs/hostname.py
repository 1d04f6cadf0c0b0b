"""The one spelling under which names are compared.

A name reaches us from a client's hello, from a Host field, from the configuration and from
certificates. All of them pass `normalise`, so that no spelling chooses a certificate that
another spelling of the same name would not.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import idna

MAX_NAME = 253
"""Characters in a host name without its trailing dot (RFC 1035 section 2.3.4)."""

# Letters, digits and hyphens (RFC 1123 section 2.1), and the underscore, which host names in
# private zones do carry. A hyphen never begins or ends a label.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)

# A last label that is a number makes the whole thing an IPv4 address, well-formed or not
# (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)


@lru_cache(4096)
def normalise(name: str) -> str | None:
    """Return the host name as lower-case A-labels without trailing dot.

    None is returned for whatever cannot be a host name: empty, an IP address, an empty or
    over-long label, a wildcard, a port, any other character. Never raises.
    """
    if not name.isascii():
        encoded = _a_labels(name)
        if encoded is None:
            return None
        name = encoded
    name = name.lower().removesuffix(".")
    if len(name) > MAX_NAME or not _NAME.fullmatch(name) or _NUMBER.fullmatch(name):
        return None
    return name


def _a_labels(name: str) -> str | None:
    """Return an internationalised name in ASCII (UTS 46, IDNA 2008), or None if it has none."""
    # idna's work grows faster than the length: bound what it sees.
    if len(name) > MAX_NAME + 1:
        return None
    try:
        return idna.encode(name, uts46=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError, ValueError, IndexError):
        return None


def normalise_address(text: str) -> str | None:
    """Return an IP address in its canonical text, or None if it is none. Brackets are allowed."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def normalise_pattern(name: str) -> str | None:
    """Return a name as certificates carry it, where `*.` may stand for exactly one label.

    The asterisk is accepted as the whole left-most label only (RFC 9525 section 6.3).
    """
    if not name.startswith("*."):
        return normalise(name)
    rest = normalise(name[2:])
    # One octet less than MAX_NAME would be needed for the shortest label and its dot.
    return None if rest is None else "*." + rest


def parent_pattern(name: str) -> str | None:
    """Return the wildcard that covers a normalised name, or None where there is only one label."""
    _, dot, rest = name.partition(".")
    return "*." + rest if dot else None
