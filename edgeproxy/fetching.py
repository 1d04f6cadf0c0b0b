"""Small documents of others (key sets), fetched by treq: each over a connection of its own, with
all the bounds of `edgeproxy.asking`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from edgeproxy.asking import Endpoint, Reply, Unanswered

LONGEST = 5.0
"""Seconds for all of it: Envoy's default for remote JWKS is 1 s, PyJWT's 30 s."""
LARGEST = 512 << 10
"""Bytes of head and body: the largest key sets in use have some tens of thousands."""


class FetchError(Exception):
    """There is no such document to be had; the text says why, for the log."""


class Fetcher:
    """Fetches documents from addresses that the configuration names.

    ``authorities`` are the certificates (PEM) that servers are verified by, ``None`` for the
    system's. ``reactor`` connects and has the time.
    """

    def __init__(self, reactor: Any, authorities: bytes | None = None) -> None:
        self._reactor = reactor
        self._authorities = authorities

    def get(self, url: str) -> Deferred[bytes]:
        """The body of a 200 answer; the Deferred fails with `FetchError` alone."""
        endpoint = Endpoint(self._reactor, url, self._authorities, LONGEST, 1, LARGEST)
        reply = endpoint.ask("GET", [(b"Accept", b"application/json")])
        endpoint.stop()  # the connection goes with the answer
        return reply.addCallbacks(_document, _refused)


def _document(reply: Reply) -> bytes:
    if reply.status != 200:
        raise FetchError(f"status {reply.status}")
    return reply.body


def _refused(failure: Failure) -> Failure:
    failure.trap(Unanswered)
    return Failure(FetchError(str(failure.value)))
