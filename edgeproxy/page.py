"""The page that answers on a route without an upstream, so that a first start shows something."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange


def welcome(exchange: Exchange) -> None:
    """Answer with who the caller is and what is to be done next, as JSON for people."""
    principal = exchange.principal
    body = json.dumps(
        {
            "message": "edgeproxy is running. Name an upstream in edgeproxy.yaml to relay to it.",
            "you": None if principal is None else {"id": principal.id, "name": principal.name},
            "request_id": exchange.id.decode("ascii"),
        },
        indent=2,
    ).encode("ascii")
    exchange.give(
        [
            b"Content-Type: application/json",
            b"Content-Length: %d" % (len(body) + 1),
            b"Cache-Control: no-store",
        ],
        body + b"\n",
    )
