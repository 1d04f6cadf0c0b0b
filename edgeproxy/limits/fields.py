"""The fields that tell a caller about its limits: RateLimit-Policy, RateLimit, Retry-After.

Source: draft-ietf-httpapi-ratelimit-headers (both are Lists of Strings with parameters, RFC 9651)
and RFC 9110 section 10.2.3. Everything that does not change between two requests is built once per
limit and rate, in `Terms`; a request formats two numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edgeproxy.config.units import Rate


class Terms:
    """What a limit grants under one rate, and the bytes that say so; shared by all its windows.

    `name` is a limit's name ([a-z0-9_-]+, so that it needs no escaping in a structured field).
    """

    __slots__ = ("head", "name", "policy", "rate", "state")

    def __init__(self, name: str, rate: Rate) -> None:
        self.name = name
        self.rate = rate
        # `w` is an Integer of seconds: a window below a second is told as one.
        seconds = max(1, math.ceil(rate.window))
        self.policy = b'"%b";q=%d;w=%d' % (name.encode("ascii"), rate.count, seconds)
        self.state = b'"%b";r=' % name.encode("ascii")
        self.head = b"RateLimit-Policy: %b\r\nRateLimit: %b" % (self.policy, self.state)

    def __repr__(self) -> str:
        return f"<Terms {self.policy.decode()}>"


class Told(Protocol):
    """What is asked of a window here; every kind of window has it."""

    @property
    def terms(self) -> Terms: ...
    @property
    def remaining(self) -> int: ...
    def reset(self, now: float) -> int: ...


def field_lines(window: Told, now: float) -> bytes:
    """Both RateLimit lines, each with its CRLF, for an answer that one limit was looked at for.

    Call it after `record` (or after `full` said yes): `r` and `t` are what is left then.
    """
    return b"%b%d;t=%d\r\n" % (window.terms.head, window.remaining, window.reset(now))


def joined_field_lines(windows: Sequence[Told], now: float) -> bytes:
    """The same for any number of limits, in their order on the route; empty for none."""
    if len(windows) == 1:
        return field_lines(windows[0], now)
    if not windows:
        return b""
    policies = b", ".join([window.terms.policy for window in windows])
    states = b", ".join(
        [
            b"%b%d;t=%d" % (window.terms.state, window.remaining, window.reset(now))
            for window in windows
        ]
    )
    return b"RateLimit-Policy: %b\r\nRateLimit: %b\r\n" % (policies, states)


def retry_after(refusing: Iterable[Told], now: float) -> int:
    """Whole seconds for Retry-After: the largest `t` among the windows that refuse, at least 1."""
    return max([1, *(window.reset(now) for window in refusing)])
