"""Failures and the one map from a failure to an answer (behaviour: RFC 9457 problem details)."""

from __future__ import annotations

import json
from enum import Enum
from http import HTTPStatus


class Source(Enum):
    """Whose doing a failure is; it stands in the access log."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    OURSELVES = "ourselves"


class GatewayError(Exception):
    """A failure that is answered with ``status``.

    ``detail`` is for the caller and says nothing that helps an attacker: no address, no software.
    ``reason`` is for the log alone. ``fields`` are lines (``b"Name: value"``) for the answer's
    head, ``close`` asks for the connection to end after it.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        source: Source = Source.CLIENT,
        reason: str = "",
        fields: tuple[bytes, ...] = (),
        close: bool = False,
    ) -> None:
        super().__init__(status, detail, reason)
        self.status = status
        self.detail = detail
        self.source = source
        self.reason = reason or detail
        self.fields = fields
        self.close = close


#: RFC 9110 15.5 renamed some; Python's table follows with 3.13.
_TITLES = {
    413: "Content Too Large",
    414: "URI Too Long",
    422: "Unprocessable Content",
    499: "Client Closed Request",
}


def title(status: int) -> str:
    """The reason phrase of ``status``; empty for one that nobody has registered."""
    if status in _TITLES:
        return _TITLES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def problem(status: int, detail: str, request_id: str) -> bytes:
    """The body of an answer of our own: ``application/problem+json`` (RFC 9457)."""
    return json.dumps(
        {
            "type": "about:blank",
            "title": title(status),
            "status": status,
            "detail": detail,
            "request_id": request_id,
        }
    ).encode("ascii")


def malformed(detail: str, status: int = 400) -> GatewayError:
    """What cannot be read, or could be read in two ways: answered and closed."""
    return GatewayError(status, detail, close=True)
