"""Holding a request to the limits of its route: all are looked at before any is charged."""

from __future__ import annotations

from socket import AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING

from edgeproxy.errors import GatewayError
from edgeproxy.limits.fields import field_lines, joined_field_lines, retry_after
from edgeproxy.limits.window import Window

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.snapshot import Limit, Route


def by_address(exchange: Exchange, route: Route) -> list[Window]:
    """Limits by address stand before identity, so that guessing is limited too."""
    windows = of_address(exchange, route)
    _check(exchange, windows, route.address_limits)
    return windows


def of_address(exchange: Exchange, route: Route) -> list[Window]:
    """The windows of the address, unchecked. None may be kept while its request waits: an empty
    one may have left its table by then."""
    caller = network_of(exchange.client)
    now = exchange.now
    return [limit.table.window(caller, limit.rate, now) for limit in route.address_limits]


def hold(exchange: Exchange, route: Route, before: list[Window] | None) -> None:
    """All limits are looked at before any is charged."""
    now = exchange.now
    principal = exchange.principal
    caller = (principal is not None and principal.caller) or network_of(exchange.client)
    limit = route.limit
    if before is None and limit is not None:
        rate = limit.rate_for(principal) if limit.plans else limit.rate
        window = limit.table.window(caller, rate, now)
        if window.full(now):
            _refuse(exchange, [window], [window])
        window.record(now)
        exchange.limit = limit.name
        exchange.remaining = window.remaining
        exchange.limit_lines = field_lines(window, now)
        return
    windows = [each.table.window(caller, each.rate_for(principal), now) for each in route.limits]
    _check(exchange, windows, route.limits)
    charge(exchange, [*(before or ()), *windows], now)


def _check(exchange: Exchange, windows: list[Window], limits: tuple[Limit, ...]) -> None:
    now = exchange.now
    full = [window.full(now) for window in windows]
    refusing = [
        window
        for window, is_full, limit in zip(windows, full, limits, strict=True)
        if is_full and not limit.shadow
    ]
    if refusing:
        _refuse(exchange, windows, refusing)
    for window, is_full in zip(windows, full, strict=True):
        if not is_full:
            continue
        what = f"429 limit {window.terms.name}"
        if (429, what) not in exchange.shadow:  # what has waited is looked at twice
            exchange.shadowed(429, what)


def _refuse(exchange: Exchange, windows: list[Window], refusing: list[Window]) -> None:
    now = exchange.now
    exchange.limit = refusing[0].terms.name
    exchange.remaining = 0
    exchange.limit_lines = joined_field_lines(windows, now)
    raise GatewayError(
        429,
        "You have sent more requests than your limit allows.",
        reason=f"limit {exchange.limit}",
        fields=(b"Retry-After: %d" % retry_after(refusing, now),),
    )


def charge(exchange: Exchange, windows: list[Window], now: float) -> None:
    """Record one admission in each window; one in shadow mode that is full counts no further."""
    for window in windows:
        if window.remaining > 0:
            window.record(now)
    if windows:
        least = min(windows, key=lambda window: window.remaining)
        exchange.limit = least.terms.name
        exchange.remaining = least.remaining
        exchange.limit_lines = joined_field_lines(windows, now)


def network_of(address: str) -> str:
    """What an address is counted by: IPv4 whole, IPv6 by its /64 (one household or host)."""
    if ":" not in address:
        return address
    try:
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except OSError:
        return address
    return inet_ntop(AF_INET6, packed[:8] + bytes(8)) + "/64"
