"""A WSGI application behind a route, in the reactor's threads, with backpressure.

Twisted's ``WSGIResource`` takes whatever an application yields, however slowly the client reads;
here the application is asked for its next piece only when there is room for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

from twisted.web.resource import Resource
from twisted.web.wsgi import WSGIResource

from edgeproxy.mounted.loading import LoadError, find

Application = Callable[[dict[str, Any], Callable[..., Any]], Any]


class WSGI(Resource):
    """The resource for ``resource: edgeproxy.wsgi.WSGI``; ``application`` is the dotted path of a
    WSGI application.

    :raises LoadError: there is none.
    """

    isLeaf = True

    def __init__(self, application: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        found = find(application)
        if not callable(found):
            raise LoadError(f"{application!r} is not a WSGI application, which is called")
        self._application: Application = found

    def render(self, request: Any) -> Any:
        reactor = request.site.reactor
        room = _Room(self._application, request, reactor)
        request.registerProducer(room, True)
        return WSGIResource(reactor, reactor.getThreadPool(), room).render(request)


class _Room:
    """One request's application, held back while its client is slow: a push producer."""

    def __init__(self, application: Application, request: Any, reactor: Any) -> None:
        self._application = application
        self._request = request
        self._reactor = reactor
        self._free = Event()
        self._free.set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        """The application, in its thread. How long it may wait is the connection's affair: a
        client that takes nothing for too long is aborted, which ends the producer."""
        try:
            pieces = self._application(environ, start_response)
            try:
                for piece in pieces:
                    yield piece
                    self._free.wait()
            finally:
                close = getattr(pieces, "close", None)
                if close is not None:
                    close()
        finally:
            # Before the end of the answer, which is told to the reactor's thread after this.
            self._reactor.callFromThread(self._request.unregisterProducer)

    def pauseProducing(self) -> None:
        self._free.clear()

    def resumeProducing(self) -> None:
        self._free.set()

    def stopProducing(self) -> None:
        self._free.set()
