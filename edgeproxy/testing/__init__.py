"""A whole gateway in memory, for the tests of edgeproxy and of whoever builds on it.

Everything is the real thing (configuration, keys, limits, routing, parsing, relaying, pooling)
but the sockets, the clock and the reactor, so tests neither sleep nor open a port, and the same
test gives the same bytes each time::

    gateway = MemoryGateway("upstreams: { users: http://10.0.0.1:80 }\\n"
                            "routes: { api.example.com: { /users: { to: users, auth: none } } }")
    client = gateway.client()
    client.send(b"GET /users HTTP/1.1\\r\\nHost: api.example.com\\r\\n\\r\\n")
    service = gateway.service("users").accept()
    service.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi")
    assert client.transcript() == ...

A :class:`FilterHarness` is such a gateway around one filter, to test that.

A :class:`Wire` is the far end of one of the gateway's streams, held by the test: what it sends
arrives whole, byte by byte, or as TLS records on a real ``TLSStream`` (:class:`Way`).
"""

from edgeproxy.testing.filters import FilterHarness, PassedOn, Seen
from edgeproxy.testing.gateway import MemoryGateway, Service
from edgeproxy.testing.link import MemoryStream, MemoryWire
from edgeproxy.testing.reactor import MemoryClock, MemoryReactor
from edgeproxy.testing.tls import TLSWire
from edgeproxy.testing.transcript import Answer, read_answers, shown
from edgeproxy.testing.wire import Ending, Way, Wire

__all__ = [
    "Answer",
    "Ending",
    "FilterHarness",
    "MemoryClock",
    "MemoryGateway",
    "MemoryReactor",
    "MemoryStream",
    "MemoryWire",
    "PassedOn",
    "Seen",
    "Service",
    "TLSWire",
    "Way",
    "Wire",
    "read_answers",
    "shown",
]
