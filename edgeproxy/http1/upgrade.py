"""The change from HTTP/1.1 to WebSocket (RFC 6455 4, RFC 9110 7.8): who may ask, who has agreed.

It is the only protocol that a connection is given away to, and nothing of it is read here: the
key, the version and the extensions are for the client and the service to agree on.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgeproxy.http1.fields import Kind
from edgeproxy.http1.grammar import RequestHead, ResponseHead

#: What stands in both heads of a change that both sides agree on.
LINES = (b"Connection: Upgrade", b"Upgrade: websocket")


def asks_for_websocket(head: RequestHead) -> bool:
    """Whether a request asks for a WebSocket and nothing else.

    RFC 9110 7.8 lets a server ignore ``Upgrade``, and wants it ignored in HTTP/1.0, so whatever
    is doubtful (another method, a list of protocols, no ``Connection: upgrade``) is an ordinary
    request.
    """
    return (
        head.method == b"GET"
        and head.minor == b"1"
        and b"upgrade" in head.connection
        and _websocket_alone(head.special)
    )


def agrees_to_websocket(head: ResponseHead) -> bool:
    """Whether an answer with status 101 says what RFC 6455 4.1 wants it to say, and nothing that
    could be taken for a body (RFC 9110 8.6, RFC 9112 6.1)."""
    return (
        head.minor == b"1"
        and head.upgrade
        and not head.chunked
        and not head.length
        and _websocket_alone(head.special)
    )


def _websocket_alone(special: Iterable[tuple[Kind, bytes]]) -> bool:
    lines = [line for kind, line in special if kind is Kind.UPGRADE]
    return len(lines) == 1 and lines[0].partition(b":")[2].strip(b" \t").lower() == b"websocket"
