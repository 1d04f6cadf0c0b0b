"""edgeproxy: a TLS-terminating edge proxy and API gateway on Twisted.

The life of a request, and where each part of it is written:

A client connects. :mod:`edgeproxy.transport.port` accepts, and stops accepting while the listener
has as many connections as it may. :mod:`edgeproxy.listening` puts an
:class:`~edgeproxy.http1.server.Http1Server` on the connection, over TLS on the socket itself
(:mod:`edgeproxy.transport.tls`). During the handshake :mod:`edgeproxy.certs.contexts` chooses the
certificate by the name that the client asks for, from the map that :mod:`edgeproxy.certs.names`
made of the folder's files; for a name that nobody serves the handshake is refused.
Where the name asks for a client certificate (:mod:`edgeproxy.certs.clients`), OpenSSL verifies it
by that name's own CAs, and :mod:`edgeproxy.identity.clientcert` says who its holder is.

Bytes come. :mod:`edgeproxy.http1.grammar` reads a head off them, or refuses what is malformed or
could be read in two ways; then nothing that follows on that connection is looked at any more. The
head, with the connection's :class:`~edgeproxy.exchange.Peer`, becomes an
:class:`~edgeproxy.exchange.Exchange`: one request and its answer, for as long as it takes. From
here on the channel is of no importance: a stock ``twisted.web`` site hands in the same exchanges
(:mod:`edgeproxy.site`).

:mod:`edgeproxy.resource` takes the exchange through its phases; it is the file to read first. The
exchange keeps the :mod:`~edgeproxy.snapshot` of the configuration that is in force now, whatever
is reloaded meanwhile. What the host means on this connection is remembered
(:mod:`edgeproxy.hostview`); a target that is not plain is taken apart (:mod:`edgeproxy.arriving`).
Host and path are brought into their one form (:mod:`edgeproxy.paths`), and
the first route of the one total order that fits is chosen (:mod:`edgeproxy.routing`). What other
origins' pages may read is told by :mod:`edgeproxy.cors`, which answers preflights too. Where the
route says from which addresses one may come, that is looked at, then limits by address, and whether
the address has shown too many wrong credentials (:mod:`edgeproxy.guessing`); then the
credential, by its hash, in the index of keys
(:mod:`edgeproxy.identity.keyindex`), which leads to a
:class:`~edgeproxy.identity.principal.Principal`. On a route that asks for other credentials
:mod:`edgeproxy.policy` finds out whose they are: a token, say, is for :mod:`edgeproxy.tokens`, by
keys that :mod:`edgeproxy.issuer` keeps fresh; where one has to be asked elsewhere, the exchange
waits (:mod:`edgeproxy.waiting`). Then come the route's other limits, all of them looked at before
any is charged (:mod:`edgeproxy.limits.window`). A phase that says no raises
:class:`~edgeproxy.errors.GatewayError`, and that is answered in one place.

What is let through is relayed. :mod:`edgeproxy.forward` writes the head anew: without what the
client may not say, with who is calling and where from. :mod:`edgeproxy.relay` gives it to a target
of the upstream, on a connection from its pool (:mod:`edgeproxy.upstream.target`), and
:mod:`edgeproxy.http1.client` speaks to the service. The body follows as it comes; whichever side
is slow, the other is paused. If the service cannot be reached or breaks off, the request is
repeated where that is safe.

A route may lead to Python in place of an upstream: then :mod:`edgeproxy.mounted.mount` waits for
the body, and lets a ``twisted.web`` resource answer through :mod:`edgeproxy.mounted.channel`.

The answer's head is relayed back, with the fields that tell the state of the limits, and its body
streams. Should the service break off now, the client's connection is aborted, so that half an
answer never looks whole. However it ended, the exchange ends in
:meth:`~edgeproxy.exchange.Exchange.finish`, once: what was taken is released, the counters are
moved, and :mod:`edgeproxy.observe.accesslog` writes one line. The connection waits for the next
request.

Where the route allows it and the service agrees (:mod:`edgeproxy.http1.upgrade`), the connection
stops being HTTP: :mod:`edgeproxy.tunnel` takes both streams, and passes on what comes until they
end.

What a load balancer in front asks of the gateway itself, :mod:`edgeproxy.readiness` answers.

Around all this :mod:`edgeproxy.service` builds, starts, reloads and drains the gateway, and
:mod:`edgeproxy.tap` starts it under twistd.
"""
