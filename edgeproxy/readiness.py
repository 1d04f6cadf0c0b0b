"""``/healthz`` and ``/readyz``: what a load balancer in front, or an orchestrator, asks; and the
keys of X-Edge-Token, which services fetch.

They answer on the listener that ``health:`` names, which has nothing else, or else on the plain
one, before its redirect; never over TLS, where hosts and paths belong to routes. Probes come
every few seconds for ever: they are counted, and not logged.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING

from edgeproxy.edgetokens import PATH
from edgeproxy.errors import GatewayError
from edgeproxy.exchange import Exchange

if TYPE_CHECKING:
    from edgeproxy.edgetokens import EdgeTokens
    from edgeproxy.snapshot import Snapshot

#: Connections at once; each prober holds one.
PROBES = 64
ALIVE, READY = b"/healthz", b"/readyz"  # Kubernetes' names
#: Balancers ask for these without Host: HAProxy's ``option httpchk GET /readyz`` is HTTP/1.0.
PATHS = (ALIVE, READY)
_FIELDS = (b"Content-Type: text/plain", b"Cache-Control: no-store")


class Readiness:
    """Answers probes. ``obstacle`` tells in a few words why no traffic should come, ``""`` when
    it may; ``probes`` counts what was answered, by path. ``tokens`` are those whose keys are
    published, if there are any."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        obstacle: Callable[[], str],
        tokens: Callable[[], EdgeTokens | None] = lambda: None,
    ) -> None:
        self._tokens = tokens
        self._snapshot = snapshot
        self._obstacle = obstacle
        self.probes = {"healthz": 0, "readyz": 0}

    def handle(self, exchange: Exchange) -> None:
        """For a listener of its own: whatever is no probe is not there."""
        if not self.answer(exchange):
            exchange.snapshot = self._snapshot()
            exchange.refuse(GatewayError(404, "Only /healthz and /readyz are here."))

    def answer(self, exchange: Exchange) -> bool:
        """Answer a probe; ``False`` when it is something else, which is not touched."""
        path = exchange.head.target.partition(b"?")[0]
        if path == PATH:
            return self._publish(exchange)
        if path not in PATHS:
            return False
        exchange.path = path
        exchange.snapshot = copy(self._snapshot())  # all the same, but no line in the log
        exchange.snapshot.finished = self._ended
        if exchange.method not in (b"GET", b"HEAD"):
            allow = (b"Allow: GET, HEAD",)
            exchange.refuse(GatewayError(405, "A probe is a GET or a HEAD.", fields=allow))
            return True
        obstacle = self._obstacle() if path == READY else ""
        body = (obstacle or "ok").encode("ascii") + b"\n"
        lines = [*_FIELDS, b"Content-Length: %d" % len(body)]
        exchange.reply(503 if obstacle else 200, lines, body)
        return True

    def _publish(self, exchange: Exchange) -> bool:
        tokens = self._tokens()
        if tokens is None:
            return False
        exchange.path = PATH
        exchange.snapshot = self._snapshot()
        if exchange.method in (b"GET", b"HEAD"):
            tokens.publish(exchange)
        else:
            allow = (b"Allow: GET, HEAD",)
            exchange.refuse(GatewayError(405, "Keys are fetched by GET.", fields=allow))
        return True

    def _ended(self, exchange: Exchange) -> None:
        self.probes[exchange.path[1:].decode("ascii")] += 1
