"""Durations, sizes and rates as people write them, turned into seconds, bytes and `Rate`.

Each function takes what YAML gave (text or a number; an already converted value passes through),
returns the converted value, and raises `ValueError` whose text says what is wrong and what would
be right. Nothing else is raised, whatever comes in.
"""

import math
import re
from typing import NamedTuple

#: As nginx and Go write them; `min` stands beside `m` because rates read better with it.
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

#: `k`, `m`, `g` are nginx's (1024); `KiB` is IEC 80000-13 (1024); `kB` is SI (1000).
BYTES = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "m": 1 << 20,
    "g": 1 << 30,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}

#: What a rate may be counted over, each with a number before it or not: `100/min`, `10/10s`.
WINDOWS = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
}

LONGEST = 366 * 86400.0  # a year: whatever is longer is a slip of the keyboard
LARGEST = 1 << 50  # a pebibyte, for the same reason
MOST = 10**9  # admissions in one window

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|min|m|h|d))+$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?([kKmMgG]?[bB]|[kKmMgG]|[kKmMgG][iI][bB])?$"
SPEED_PATTERN = SIZE_PATTERN[:-1] + "(/s)?$"
RATE_PATTERN = r"^[0-9]+/[0-9]*(s|sec|second|m|min|minute|h|hour|d|day)$"

_DURATION = re.compile(DURATION_PATTERN, re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|min|m|h|d)", re.ASCII)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-zA-Z]*)", re.ASCII)
_RATE = re.compile(r"([0-9]+)/([0-9]*)([a-z]+)", re.ASCII)
_USER = re.compile(r"//.*@", re.DOTALL)
_TOO_LONG = 40  # characters: no number that means anything is longer


class Rate(NamedTuple):
    """At most `count` admissions in any span of `window` seconds."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls on a rate
    window: float


def shown(value: object) -> str:
    """`value` for a message: quoted, at most 60 characters (`ConfigError` escapes them), and of a
    URL without its user and password."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "settings in the form `key: value`"
    if isinstance(value, list | tuple):
        return "a list"
    text = value if isinstance(value, str) else f"{value}"
    text = _USER.sub("//…@", text)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"'{text}'"


def duration(value: object, longest: float = LONGEST) -> float:
    """Seconds from `60s`, `500ms`, `1m30s`, or a number of seconds; `longest` at most."""
    seconds = _number(value)
    if isinstance(value, str) and len(value) <= _TOO_LONG and _DURATION.fullmatch(value):
        seconds = sum(float(n) * SECONDS[unit] for n, unit in _DURATION_PART.findall(value))
    if seconds is None:
        raise ValueError(f"{shown(value)} is not a duration; write it as 60s, 500ms, 2m or 1h")
    if not 0 < seconds <= longest:
        raise ValueError(
            f"{shown(value)} is out of range; a duration is more than 0 and at most "
            f"{longest / 86400:g}d"
        )
    return seconds


def age(value: object, longest: float = LONGEST) -> int:
    """Whole seconds for which browsers remember something, `longest` at most; 0 for not at all."""
    if not isinstance(value, bool) and value in (0, "0", "0s"):
        return 0
    seconds = duration(value, longest)
    if not seconds.is_integer():
        raise ValueError(f"{shown(value)} is not whole seconds; write it as 10m, 1h or 365d")
    return int(seconds)


def size(value: object) -> int:
    """Bytes from `10MiB`, `64k`, or a number of bytes."""
    octets = _number(value)
    if isinstance(value, str) and len(value) <= _TOO_LONG:
        found = _SIZE.fullmatch(value)
        if found and found[2].lower() in BYTES:
            octets = float(found[1]) * BYTES[found[2].lower()]
    if octets is None or not octets.is_integer():
        raise ValueError(f"{shown(value)} is not a size; write it as 10MiB, 64KiB, 64k or 500")
    if not 0 <= octets <= LARGEST:
        raise ValueError(f"{shown(value)} is out of range; a size is at most 1048576GiB")
    return int(octets)


def speed(value: object) -> int:
    """Bytes per second from `500B/s`, `10KiB/s`; the `/s` may be left out."""
    text = value.removesuffix("/s") if isinstance(value, str) else value
    try:
        return size(text)
    except ValueError:
        raise ValueError(f"{shown(value)} is not a speed; write it as 500B/s or 10KiB/s") from None


def rate(value: object) -> Rate:
    """`Rate` from `100/min`, `10/10s`, `1000000/10s`; windows are whole seconds.

    Whole seconds because the `w` parameter of `RateLimit-Policy` is an integer number of seconds
    (draft-ietf-httpapi-ratelimit-headers).
    """
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) and len(value) <= _TOO_LONG else None
    if not found or found[3] not in WINDOWS:
        raise ValueError(f"{shown(value)} is not a rate; write it as 100/min, 10/10s or 5000/h")
    count, window = int(found[1]), int(found[2] or 1) * WINDOWS[found[3]]
    if not 1 <= count <= MOST:
        raise ValueError(f"{shown(value)} is out of range; a rate is between 1 and {MOST}")
    if not 1 <= window <= LONGEST:
        raise ValueError(f"{shown(value)} is out of range; a window is between 1s and 366d")
    return Rate(count, float(window))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    return None if math.isnan(number) else number
