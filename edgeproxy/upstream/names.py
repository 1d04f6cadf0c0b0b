"""What a name leads to: the hosts file, DNS with its times, then whatever else the system knows.

`getaddrinfo` tells no TTL, so DNS is asked by dnspython; what only the system's own sources know
(nsswitch.conf: mDNS, containers of systemd, LDAP) is asked of `getaddrinfo` after that.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from time import monotonic

import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver

from edgeproxy.config.grammar import split_server
from edgeproxy.upstream.lookup import Answer, in_order

#: Seconds for both questions of one look-up; under `FIRST`, which waits for it.
_WITHIN = 4.0
_LARGEST = 1 << 20  # bytes of a hosts file that are looked at
#: Addresses of one name that are used: each is a target with a pool.
_MOST = 256


@dataclass(frozen=True)
class Names:
    """Looks up names; calling it blocks.

    ``servers`` are the DNS servers to ask, ``ip`` or ``ip:port``; none: those of resolv.conf, with
    its search list and options. Named servers have the last word: the system is not asked then.
    """

    servers: tuple[str, ...] = ()
    hosts: Path = Path("/etc/hosts")
    resolv_conf: Path = Path("/etc/resolv.conf")

    def __call__(self, host: str) -> Answer:
        written = tuple(self._hosts(host))
        if written:
            return Answer(in_order(written))
        answer = self._dns(host)
        if answer.addresses or self.servers:
            return answer
        return _system(host) or answer

    def _hosts(self, host: str) -> Iterator[str]:
        try:
            with self.hosts.open("rb") as file:
                text = file.read(_LARGEST).decode("utf-8", "replace")
        except OSError:
            return
        for line in text.splitlines():
            address, *names = line.partition("#")[0].split() or [""]
            if host in map(str.lower, names) and _is_usable(address):
                yield address

    def _dns(self, host: str) -> Answer:
        try:
            resolver = self._resolver()
        except (dns.exception.DNSException, OSError, ValueError):
            return Answer(error=f"{self.resolv_conf} names no DNS server")
        end = monotonic() + _WITHIN
        found: list[str] = []
        times: list[float] = []
        failed = ""
        for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            try:
                answer = resolver.resolve(
                    host,
                    kind,
                    raise_on_no_answer=False,
                    lifetime=max(end - monotonic(), 0.01),
                    search=not self.servers,
                )
            except dns.resolver.NXDOMAIN:
                if not found and not failed:
                    return Answer(error="there is no such name", absent=True)
            except dns.exception.DNSException as error:
                failed = failed or _why(error)
            else:
                if answer.rrset is not None:
                    found += [record.to_text() for record in answer.rrset]
                    times.append(answer.chaining_result.minimum_ttl)
        # Of two questions one may fail: there are servers that answer none about IPv6 at all.
        if found:
            return Answer(in_order(_reachable(found))[:_MOST], min(times))
        if failed:
            return Answer(error=failed)
        return Answer(error="the name has no address", absent=True)

    def _resolver(self) -> dns.resolver.Resolver:
        if not self.servers:
            return dns.resolver.Resolver(str(self.resolv_conf))
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = [
            dns.nameserver.Do53Nameserver(*split_server(each)) for each in self.servers
        ]
        return resolver


def _why(error: dns.exception.DNSException) -> str:
    if isinstance(error, dns.exception.Timeout):
        return "no DNS server has answered in time"
    if isinstance(error, dns.resolver.NoNameservers):
        return "no DNS server has given an answer"
    return str(error) or type(error).__name__


def _is_usable(address: str) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    return not ip.is_unspecified and not ip.is_multicast and "%" not in address


def _reachable(addresses: Iterable[str]) -> list[str]:
    """Without those of IPv6 where this machine has no way there (RFC 6724 rule 1), if others
    are left. Nothing is sent: a datagram socket is only pointed at the address."""
    found = [each for each in addresses if _is_usable(each)]
    others = [each for each in found if ":" not in each]
    return [each for each in found if ":" not in each or _has_way(each)] if others else found


def _has_way(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.connect((address, 9))
    except OSError:
        return False
    return True


def _system(host: str) -> Answer | None:
    """What `getaddrinfo` says, if it knows the name."""
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return Answer(in_order(filter(_is_usable, (str(info[4][0]) for info in infos)))[:_MOST])
