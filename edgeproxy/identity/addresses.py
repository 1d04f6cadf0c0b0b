"""Where callers may come from: ranges of addresses that are let in, and others that are not."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address

Range = IPv4Network | IPv6Network

_REMEMBERED = 4096  # addresses whose verdict is kept; then it begins anew


class Ranges:
    """A set of ranges, looked through in as many steps as it has different lengths of prefixes."""

    __slots__ = ("_by_version",)

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._by_version: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for each in ranges:
            shift = each.max_prefixlen - each.prefixlen
            prefixes = self._by_version[each.version].setdefault(shift, set())
            prefixes.add(int(each.network_address) >> shift)

    def __contains__(self, address: str) -> bool:
        """Whether a range holds the address; an IPv4 one is the same in its IPv6 form.

        :raises ValueError: that is no address.
        """
        ip = ip_address(address)
        if ip.version == 6:
            ip = ip.ipv4_mapped or ip
        number = int(ip)
        lengths = self._by_version[ip.version]
        return any(number >> shift in prefixes for shift, prefixes in lengths.items())


class Addresses:
    """`deny` comes first; then, if there is any `allow`, only these may come in."""

    __slots__ = ("_allow", "_deny", "_known")

    def __init__(self, allow: Iterable[Range], deny: Iterable[Range]) -> None:
        allow = tuple(allow)
        self._allow = Ranges(allow) if allow else None
        self._deny = Ranges(deny)
        self._known: dict[str, str] = {}

    def objection(self, address: str) -> str:
        """Why an address may not come in, for the log; "" if it may."""
        found = self._known.get(address)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[address] = self._objection(address)
        return found

    def _objection(self, address: str) -> str:
        try:
            if address in self._deny:
                return "its address is denied"
            if self._allow is not None and address not in self._allow:
                return "its address is not among the allowed ones"
        except ValueError:
            return "its address is unknown"
        return ""
