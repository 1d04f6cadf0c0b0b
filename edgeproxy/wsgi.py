"""A WSGI application behind a route, in the reactor's threads, with backpressure.

Twisted's ``WSGIResource`` takes whatever an application yields, however slowly the client reads;
here the application is asked for its next piece only when there is room for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.wsgi import WSGIResource

from edgeproxy.config.units import shown
from edgeproxy.mounted.loading import LoadError, find

_STATUS = re.compile(r"[1-9][0-9][0-9] .*\Z")
Application = Callable[[dict[str, Any], Callable[..., Any]], Any]


class WSGI(Resource):
    """The resource for ``resource: edgeproxy.wsgi.WSGI``; ``application`` is the dotted path of a
    WSGI application.

    :raises LoadError: there is none.
    """

    isLeaf = True

    def __init__(self, application: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not isinstance(application, str):
            raise LoadError(
                f"application: {shown(application)} is not the dotted path of a WSGI application; "
                "write it as shop.wsgi.application"
            )
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
        self._begun = False
        self._free = Event()
        self._free.set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        """The application, in its thread. How long it may wait is the connection's affair: a
        client that takes nothing for too long is aborted, which ends the producer.

        What it raises, ``SystemExit`` too, is the request's failure like that of any resource;
        Twisted's ``WSGIResource``, which would answer 500 without a word, sees an end in order.
        """

        def begin(status: str, headers: Any, exc_info: Any = None) -> Any:
            write = start_response(status, headers, exc_info)
            if not _STATUS.match(status):  # which Twisted finds out when the first piece is sent
                raise ValueError(f"{shown(status)} is no status; '200 OK' would be right")
            self._begun = True
            return write

        try:
            yield from self._pieces(self._application(environ, begin))
        except GeneratorExit:
            raise
        except BaseException:
            start_response("500 Internal Server Error", [])
            self._reactor.callFromThread(self._request.processingFailed, Failure())
        finally:
            # Before the end of the answer, which is told to the reactor's thread after this.
            self._reactor.callFromThread(self._request.unregisterProducer)

    def _pieces(self, pieces: Any) -> Iterator[bytes]:
        try:
            for piece in pieces:
                if not isinstance(piece, bytes):
                    raise TypeError(f"the application gave {shown(piece)}; bytes would be right")
                self._check_begun()
                yield piece
                self._free.wait()
            self._check_begun()
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _check_begun(self) -> None:
        if not self._begun:
            raise RuntimeError("the application did not call start_response")

    def pauseProducing(self) -> None:
        self._free.clear()

    def resumeProducing(self) -> None:
        self._free.set()

    def stopProducing(self) -> None:
        self._free.set()
