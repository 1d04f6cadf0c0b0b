"""Heads rewritten on their way (RFC 9110 7.6): what goes to the upstream, what comes back.

Lines that mean nothing to a gateway pass as the bytes that came. What is the same for all
requests of a connection, a route or a caller was joined when that began; here it is only put
together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from edgeproxy.errors import GatewayError, Source, malformed
from edgeproxy.http1.fields import FOLD, Kind, folded
from edgeproxy.http1.grammar import RequestHead, ResponseHead, without
from edgeproxy.http1.upgrade import LINES as UPGRADE

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange, Peer

_TRACE = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})\Z")
#: What Connection may name without naming a field of the message.
_OPTIONS = frozenset((b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings", b"trailers"))
_AFTER_ORIGIN = (b"", b"/", b"?", b"#")
#: Naming these in Connection would take the message's frame or address away.
_FRAME = frozenset((b"host", b"content-length", b"transfer-encoding"))
_LENGTH = frozenset((b"content-length",))


#: How often a request may have come through a gateway of this kind already: a gateway behind a
#: gateway is common, five are a loop.
_MOST_HOPS = 5
_HOP = b"1.1 edgeproxy"


class FieldRules:
    """Fields set, added and removed on one kind of head, compiled.

    ``drop`` are the names that go, as :data:`~edgeproxy.http1.fields.FOLD` makes them, since many
    services cannot tell the spellings apart; ``lines`` is what is appended, without CRLF.
    """

    __slots__ = ("drop", "lines")

    def __init__(
        self,
        set_: Iterable[tuple[str, str]] = (),
        add: Iterable[tuple[str, str]] = (),
        remove: Iterable[str] = (),
    ) -> None:
        set_, add = list(set_), list(add)
        names = (*(name for name, _ in set_), *remove)
        self.drop = frozenset(map(folded, names))
        self.lines = [f"{name}: {value}".encode("latin-1") for name, value in (*set_, *add)]

    def apply(self, lines: list[bytes]) -> list[bytes]:
        drop = self.drop
        if drop:
            lines = [line for line in lines if line.partition(b":")[0].translate(FOLD) not in drop]
        return lines + self.lines


def request_head(
    exchange: Exchange,
    host_line: bytes,
    forwarded: bytes,
    rules: FieldRules | None,
    identity: bytes,
) -> bytes:
    """The head that the upstream gets; uses the lines of the request's head up.

    ``host_line`` is a line; ``forwarded`` and ``identity`` are lines with their CRLF.

    :raises GatewayError: 400 when ``Connection`` names a field that frames the message.
    """
    head = exchange.head
    lines = head.lines
    trace = b""
    for _, _, line in head.keys:
        if line is not exchange.credential:
            lines.append(line)
    if head.connection:
        lines = without_named(lines, head.connection)
    if head.special:
        lines, trace = _from_special(head, lines, exchange)
    if rules is not None:
        lines = rules.apply(lines)
    lines.insert(0, host_line)
    fresh = exchange.trace
    return b"%b %b%b HTTP/1.1\r\n%b\r\n%bVia: 1.1 edgeproxy\r\n%bX-Request-Id: %b\r\n%b\r\n" % (
        head.method,
        exchange.path,
        exchange.query,
        b"\r\n".join(lines),
        forwarded,
        identity,
        exchange.id,
        trace or b"traceparent: 00-%b-%b-01\r\n" % (fresh, fresh[:16]),
    )


def own_hops(head: RequestHead) -> bytes:
    """What of a request's Via (RFC 9110 7.6.3) is ours, as lines with CRLF. It is passed on
    whoever says so, or a target that is the gateway itself would be asked without end.

    :raises GatewayError: 508 (RFC 5842 7.2) when it is there too often.
    """
    hops = sum(line.count(_HOP) for kind, line in head.special if kind is Kind.VIA)
    if hops >= _MOST_HOPS:
        raise GatewayError(
            508,
            "The request has come back to this gateway again and again.",
            source=Source.OURSELVES,
            reason=f"a loop: it has come through gateways like this one {hops} times",
        )
    return b"Via: %b\r\n" % _HOP * hops


def without_named(lines: list[bytes], options: frozenset[bytes]) -> list[bytes]:
    """The lines without the fields that ``Connection`` names.

    :raises GatewayError: 400 when one of them frames the message.
    """
    named = options - _OPTIONS
    if not named.isdisjoint(_FRAME):
        raise malformed("Connection names a field that frames the message.")
    return without(lines, named)


def _from_special(
    head: RequestHead, lines: list[bytes], exchange: Exchange
) -> tuple[list[bytes], bytes]:
    """What of the special lines goes on: the trace, the framing, the wish for trailers."""
    extra = b""
    for kind, line in head.special:
        if kind is Kind.TRACE:
            match = _TRACE.match(line.partition(b":")[2].strip(b" \t"))
            if match is not None and not extra:
                extra = b"traceparent: 00-%b-%b-%b\r\n" % (
                    match.group(1),
                    exchange.trace[:16],
                    match.group(2),
                )
        elif kind is Kind.TE and b"trailers" in line.lower() and not exchange.upgrade:
            lines = [*lines, b"TE: trailers", b"Connection: TE"]
    if exchange.upgrade:
        lines = [*lines, *UPGRADE]
    if head.chunked:
        lines = [*lines, b"Transfer-Encoding: chunked"]
    return lines, extra


def forwarded_lines(peer: Peer, host: bytes, style: str) -> bytes:
    """The fields that tell where a request came from, for a peer that nobody vouches for."""
    address = peer.address.encode("ascii")
    scheme = peer.scheme.encode("ascii")
    if style == "forwarded":
        node = b'"[%b]"' % address if b":" in address else address
        return b'Forwarded: for=%b;host="%b";proto=%b\r\n' % (node, host, scheme)
    return (
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n"
        b"X-Forwarded-Port: %d\r\n" % (address, scheme, host, peer.port)
    )


def trusted_chain(
    head: RequestHead,
    peer: Peer,
    trusted: Sequence[IPv4Network | IPv6Network],
    style: str,
) -> tuple[str, list[bytes]]:
    """The client behind trusted proxies, and the chain to pass on: read from the right, the
    first address that is not trusted is the client; what stands before it is hearsay.

    ``style`` says which family is believed: ``x-forwarded`` or ``forwarded`` (RFC 7239).
    """
    if style == "forwarded":
        pairs = _forwarded_pairs(head)
        chain = [value for name, value in pairs if name == b"for"]
    else:
        chain = _forwarding(head, b"x-forwarded-for").split(b",")
    client = peer.address
    kept = [peer.address.encode("ascii")]
    for node in reversed(chain):
        address = _node_address(node.strip(b" \t")) if is_trusted(client, trusted) else None
        if address is None:
            break
        client = address
        kept.append(client.encode("ascii"))
    return client, kept[::-1]


def _forwarding(head: RequestHead, name: bytes) -> bytes:
    """The values of a forwarding field, joined (RFC 9110 5.3)."""
    prefix = name + b":"
    size = len(prefix)
    return b",".join(
        line[size:].strip(b" \t")
        for kind, line in head.special
        if kind is Kind.FORWARDED and line[:size].lower() == prefix
    )


#: One parameter of Forwarded (RFC 7239 4), its value a token or a quoted string without escapes.
_PAIR = re.compile(rb"(?:\A|[;,])[ \t]*([A-Za-z]+)=(?:\"([^\"\\]*)\"|([^\";, \t]+))")
#: An address in a chain, with brackets or a port (RFC 7239 6).
_NODE = re.compile(
    rb"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?\Z|([0-9.]+)(?::[0-9]+)?\Z|([0-9A-Fa-f:.]+)\Z"
)


def _forwarded_pairs(head: RequestHead) -> list[tuple[bytes, bytes]]:
    """The parameters of Forwarded, names in lower case, in their order."""
    found = _PAIR.findall(_forwarding(head, b"forwarded"))
    return [(name.lower(), quoted or token) for name, quoted, token in found]


def _node_address(node: bytes) -> str | None:
    """The address of a node of a chain; ``None`` for one that hides it, or is none.

    An IPv4 address is never in its IPv6 form, in which a proxy that listens on ``[::]`` may write
    it: limits would count all of them as one network.
    """
    match = _NODE.match(node)
    if match is None:
        return None
    try:
        found = ip_address((match[1] or match[2] or match[3]).decode("ascii"))
    except ValueError:
        return None
    return str((found.ipv4_mapped if isinstance(found, IPv6Address) else None) or found)


def vouched_lines(
    head: RequestHead,
    peer: Peer,
    trusted: Sequence[IPv4Network | IPv6Network],
    style: str,
    own: bytes,
) -> bytes:
    """Forwarding fields behind a trusted proxy: its word is passed on, our peer added.

    ``own`` are the fields for a peer that nobody vouches for; what the proxy did not say is
    taken from them.
    """
    chain = trusted_chain(head, peer, trusted, style)[1]
    if style == "forwarded":
        said = dict(_forwarded_pairs(head))  # of several elements the nearest proxy's
        host = said.get(b"host") or own.partition(b'host="')[2].partition(b'"')[0]
        proto = said.get(b"proto") or peer.scheme.encode("ascii")
        nodes = [b'for="[%b]"' % node if b":" in node else b"for=" + node for node in chain]
        nodes[0] += b';host="%b";proto=%b' % (host, proto)
        return b"Forwarded: %b\r\n" % b", ".join(nodes)
    lines = [b"X-Forwarded-For: " + b", ".join(chain)]
    for line in own.split(b"\r\n")[1:-1]:
        name, _, value = line.partition(b": ")
        said_once = _forwarding(head, name.lower())
        lines.append(name + b": " + (said_once if said_once and b"," not in said_once else value))
    return b"\r\n".join(lines) + b"\r\n"


def is_trusted(address: str, trusted: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    return any(ip in network for network in trusted)


def response_lines(
    head: ResponseHead,
    *,
    limited: bool,
    origins: tuple[bytes, ...],
    public: bytes,
    rules: FieldRules | None,
) -> list[bytes]:
    """The lines that the client gets.

    ``limited`` tells that rate limit fields of our own replace the upstream's. ``origins`` are
    the origins that mean a target (``http://10.0.0.1:9000``), ``public`` the one to say instead.
    """
    lines = head.lines
    for kind, line in head.special:
        if kind is Kind.LOCATION:
            lines.append(_public_location(line, origins, public))
        elif kind is Kind.RATE and not limited:
            lines.append(line)
    if head.status == 204:
        lines = without(lines, _LENGTH)  # RFC 9110 8.6: a 204 has none
    return lines if rules is None else rules.apply(lines)


def _public_location(line: bytes, origins: tuple[bytes, ...], public: bytes) -> bytes:
    name, _, value = line.partition(b":")
    value = value.strip(b" \t")
    lower = value.lower()
    for origin in origins:
        # "//host/path" takes the scheme from where it is read (RFC 3986 4.2).
        said = origin if lower.startswith(origin) else origin[origin.index(b"//") :]
        size = len(said)
        if lower.startswith(said) and lower[size : size + 1] in _AFTER_ORIGIN:
            return name + b": " + public + value[size:]
    return line
