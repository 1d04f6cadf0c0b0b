"""The host that a request asks for, and what that means on its connection.

Requests of one connection repeat their Host field, and connections for one name repeat it too: what
was found out is kept with both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.certs.clients import Standing, WrongConnection, standing
from edgeproxy.errors import GatewayError
from edgeproxy.forward import forwarded_lines
from edgeproxy.http1.grammar import split_host
from edgeproxy.identity.refusal import invalid
from edgeproxy.routing import HostTable

if TYPE_CHECKING:
    from edgeproxy.certs.names import NameMap
    from edgeproxy.exchange import Exchange, Peer
    from edgeproxy.hsts import StrictTransport
    from edgeproxy.snapshot import Route, Snapshot
    from edgeproxy.transport.deadlines import Clock

_MOST_ASKED = 1024
_DEFAULT_PORTS = {b"https": 443, b"http": 80}


class _Asked(NamedTuple):
    """What a Host field means on all connections that were made for one name, on one port."""

    raw: bytes
    name: str
    tables: tuple[HostTable[Route], ...]
    host_line: bytes
    shown: bytes
    origin: bytes
    refused: bool
    hsts: StrictTransport | None


def _asked(raw: bytes, peer: Peer, snapshot: Snapshot, names: NameMap | None) -> _Asked:
    host, port = split_host(raw)
    scheme = peer.scheme.encode("ascii")
    shown = host if port in (None, _DEFAULT_PORTS[scheme]) else b"%b:%d" % (host, port)
    name = host.decode("ascii")
    return _Asked(
        raw,
        name,
        snapshot.router.tables(name),
        b"Host: " + shown,
        shown,
        scheme + b"://" + shown,
        # RFC 9110 7.4: a host that would choose another certificate than this connection's.
        names is not None and names.choose(name) is not names.choose(peer.sni),
        snapshot.strict_transport(name) if peer.tls else None,
    )


class HostView:
    """What a Host field means on one connection; kept there, since its requests repeat it."""

    __slots__ = (
        "ends",
        "forwarded",
        "host_line",
        "hsts",
        "name",
        "names",
        "origin",
        "own",
        "raw",
        "refused",
        "snapshot",
        "standing",
        "tables",
    )

    def __init__(
        self, peer: Peer, snapshot: Snapshot, names: NameMap | None, asked: _Asked, now: float
    ) -> None:
        self.snapshot = snapshot
        self.names = names
        self.raw, self.name, self.tables, self.host_line, shown, self.origin, _, _ = asked
        self.refused = asked.refused
        #: What tells the client to come over TLS alone, where it has come so.
        self.hsts = asked.hsts
        self.own = forwarded_lines(peer, shown, snapshot.forwarded)
        #: Whether nothing more than an answer is to be had on this connection.
        self.ends = False
        #: What the connection's client certificate is worth here; ``None`` where none is asked for.
        self.standing: Standing | None = None
        if snapshot.policies:
            try:
                self.standing = standing(snapshot.policies, names, self.name, peer, now)
            except WrongConnection:
                self.refused = self.ends = True
            if self.standing is not None and self.standing.refusal:
                self.refused = self.ends = True
        #: Lines for the service: where the request comes from, and by whose certificate.
        self.forwarded = self.own if self.standing is None else self.own + self.standing.lines


class Hosts:
    """The hosts that requests ask for. ``names`` gives the certificates' name map in force,
    ``None`` without TLS."""

    def __init__(self, clock: Clock, names: Callable[[], NameMap | None]) -> None:
        self._clock = clock
        self._names = names
        self._asked: dict[tuple[bytes, str | None, str, int], _Asked] = {}
        self._under: tuple[Snapshot | None, NameMap | None] = None, None

    def forget(self) -> None:
        """Another configuration is in force; nothing here keeps the one before alive."""
        self._asked = {}
        self._under = None, None

    def view(self, exchange: Exchange, snapshot: Snapshot, raw: bytes | None) -> HostView:
        """What ``raw``, the Host asked for, means on the exchange's connection.

        :raises GatewayError: 421 or 401, another connection may ask for it.
        """
        peer = exchange.peer
        names = self._names() if peer.tls else None
        view = peer.host_view
        if (
            type(view) is not HostView
            or view.raw != raw
            or view.snapshot is not snapshot
            or view.names is not names
            or (
                view.standing is not None
                and exchange.started + self._clock.epoch >= view.standing.until
            )
        ):
            now = exchange.started + self._clock.epoch
            asked = self._asked_for(raw or b"", peer, snapshot, names)
            view = peer.host_view = HostView(peer, snapshot, names, asked, now)
        exchange.host = view.name
        exchange.origin = view.origin
        if view.refused:
            raise _refused(view)
        if view.hsts is not None:
            exchange.hsts = view.hsts
        return view

    def _asked_for(
        self, raw: bytes, peer: Peer, snapshot: Snapshot, names: NameMap | None
    ) -> _Asked:
        """What connections before this one have found out about a host."""
        under = self._under
        if under[0] is not snapshot or under[1] is not names or len(self._asked) >= _MOST_ASKED:
            self._under = snapshot, names
            self._asked = {}
        key = raw, peer.sni, peer.tls, peer.port
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = _asked(raw, peer, snapshot, names)
        return asked


def _refused(view: HostView) -> GatewayError:
    """Why a connection may not ask for a host at all; another connection may."""
    found = view.standing
    if found is not None and found.refusal:
        error = invalid(f"client certificate: {found.refusal}")
        error.close = view.ends
        return error
    return GatewayError(421, "This connection is not for that host.", close=view.ends)
