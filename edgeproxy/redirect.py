"""The plain listener: what comes there is sent to https, but for probes of a load balancer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeproxy.errors import GatewayError, malformed
from edgeproxy.exchange import Exchange
from edgeproxy.http1.grammar import split_host

if TYPE_CHECKING:
    from edgeproxy.readiness import Readiness
    from edgeproxy.snapshot import Snapshot


class RedirectToHttps:
    """Answers 308, which keeps method and body (RFC 9110 15.4.9). ``port`` is the https one;
    ``probes`` answer here unless they have a listener of their own."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], port: int, probes: Readiness | None = None
    ) -> None:
        self._snapshot = snapshot
        self._probes = probes
        self._port = b"" if port == 443 else b":%d" % port

    def handle(self, exchange: Exchange) -> None:
        if self._probes is not None and self._probes.answer(exchange):
            return
        exchange.snapshot = self._snapshot()
        target = exchange.head.target
        path, mark, query = target.partition(b"?")
        exchange.path = path
        exchange.query = mark + query
        try:
            name, _ = split_host(exchange.head.host or b"")
            if not target.startswith(b"/"):
                raise malformed("The request target must be a path.")
        except GatewayError as error:
            exchange.refuse(error)
            return
        exchange.host = name.decode("ascii")
        exchange.reply(
            308,
            [b"Location: https://" + name + self._port + target, b"Content-Length: 0"],
            b"",
        )
