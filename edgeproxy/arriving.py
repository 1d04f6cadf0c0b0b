"""Requests whose meaning is not plain: targets taken apart, doubtful paths refused, what a trusted
proxy says believed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.errors import malformed
from edgeproxy.forward import is_trusted, trusted_chain
from edgeproxy.http1.fields import Kind
from edgeproxy.http1.grammar import RequestHead, split_host
from edgeproxy.paths import Path
from edgeproxy.routing import HostTable, NoRoute, find

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.snapshot import Route, Snapshot

_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]+)([/?].*)?\Z")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:\-]{8,128}\Z")
_PARAMETERS = re.compile(rb";[^/]*+")


def take_apart(exchange: Exchange, head: RequestHead) -> tuple[bytes, bool]:
    """Take apart a target that is not simply a clean path.

    :return: the authority, and whether it came from an absolute target (RFC 9112 3.2.2).
    """
    raw, target = head.host or b"", head.target
    absolute = target[:1] != b"/"
    if absolute:
        match = _ABSOLUTE.match(target)
        if match is None:
            raise malformed("The request target must be a path or an http URL.")
        authority, rest = match.groups()
        if split_host(authority)[0] != split_host(raw)[0]:
            raise malformed("The Host field and the request target name two hosts.")
        raw, target = authority, rest or b"/"
        if target[:1] != b"/":
            target = b"/" + target
    path, mark, query = target.partition(b"?")
    exchange.path = path
    exchange.query = mark + query
    return raw, absolute


def believe(exchange: Exchange, snapshot: Snapshot) -> None:
    """Behind a trusted proxy the caller is who the proxy says, and the request's id its own."""
    if not is_trusted(exchange.peer.address, snapshot.trusted):
        return
    exchange.client = trusted_chain(
        exchange.head, exchange.peer, snapshot.trusted, snapshot.forwarded
    )[0]
    sent = [line for kind, line in exchange.head.special if kind is Kind.REQUEST_ID]
    if len(sent) == 1:
        value = sent[0].partition(b":")[2].strip(b" \t")
        if _REQUEST_ID.match(value):
            exchange.id = value


def check_doubtful(
    path: Path,
    route: Route,
    tables: tuple[HostTable[Route], ...],
    method: bytes,
    head: RequestHead,
) -> None:
    """What may be meant by more than one route.

    An encoded slash does not divide segments for everybody. Servlets look a path up without the
    parameters of its segments (``/admin;a=b``): where that leads elsewhere, the route that was
    found does not guard what would answer; but for a route whose own path names parameters.

    :raises GatewayError: 400.
    """
    if path.slash and not route.keep_slash:
        raise malformed(
            "The path holds an encoded slash; a route takes it with 'encoded_slash: keep'."
        )
    if b";" not in path.decoded or ";" in route.label:
        return
    bare = _PARAMETERS.sub(b"", path.decoded)
    try:
        if find(tables, bare, method, head) is route:
            return
    except NoRoute:
        pass
    raise malformed("The path's parameters leave open which route is meant.")
