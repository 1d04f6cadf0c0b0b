"""Resources for routes: each does one thing that a resource may do, or should not."""

from __future__ import annotations

import weakref
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory
from twisted.web.static import Data, File
from twisted.web.util import DeferredResource, Redirect

CONFIGURATION = """
routes:
  api.example.com:
    /told: { resource: mounted_shop.Told, auth: none, body: 200KiB }
    /mine: { resource: mounted_shop.Told }
    /held: { resource: mounted_shop.Held, auth: none,
             timeouts: { first_byte: 5s, between_bytes: 7s } }
    /tree: { resource: mounted_shop.tree, auth: none }
    /fails: { resource: mounted_shop.Fails, auth: none }
    /session: { resource: mounted_shop.Visits, auth: none }
    /: { resource: mounted_shop.tree, auth: none }
    exact:/one: { resource: mounted_shop.Told, auth: none }
    /v1/cut: { resource: mounted_shop.Told, auth: none, strip: /v1 }
    /shown: { resource: mounted_shop.Headed, auth: none,
              response: { set: { X-Set: by us }, remove: [X-Gone] } }
"""


class Told(Resource):
    """Tells what it was given."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        principal = request.principal
        told = {
            "method": request.method,
            "uri": request.uri,
            "prepath": request.prepath,
            "postpath": request.postpath,
            "args": request.args,
            "fields": request.getAllHeaders(),
            "url": request.prePathURL(),
            "client": request.getClientAddress().host,
            "secure": request.isSecure(),
            "principal": principal and principal.name,
            "id": request.request_id,
            "size": len(request.content.read()),
            "file": type(getattr(request.content, "_file", request.content)).__name__,
            "cookie": request.getCookie(b"a"),
        }
        return repr(told).encode()


class Held(Resource):
    """Leaves its requests to the test."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.ends: list[Any] = []

    def render(self, request: Any) -> Any:
        self.requests.append(request)
        request.notifyFinish().addBoth(self.ends.append)
        return NOT_DONE_YET


class Fails(Resource):
    """Fails in the way that the path says."""

    def getChild(self, path: bytes, request: Any) -> Any:
        if path == b"child":
            raise ValueError("<b>secret</b>")
        self.isLeaf = True
        return self

    def render(self, request: Any) -> Any:
        way = request.prepath[-1]
        if way == b"raises":
            raise ValueError("<b>secret</b>")
        if way == b"later":
            failing: Deferred[Any] = Deferred()
            failing.errback(ValueError("<b>secret</b>"))
            return DeferredResource(failing).render(request)
        if way == b"text":
            return "<b>secret</b>"
        if way == b"exit":
            raise SystemExit("secret")
        request.write(b"some")
        if way == b"midway":
            raise ValueError("<b>secret</b>")
        raise AssertionError(way)


class Headed(Resource):
    """An answer with a head that the query describes: name=value."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        for name, values in request.args.items():
            if name == b"status":
                request.setResponseCode(*values)
            else:
                request.responseHeaders.setRawHeaders(name, values)
        request.setHeader("X-Gone", "gone")
        request.addCookie(b"a", b"1")
        request.addCookie(b"b", b"2")
        return b"headed"


class Seen(Resource):
    """Remembers its requests weakly."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def render(self, request: Any) -> Any:
        self.seen.append(weakref.ref(request))
        if request.postpath == [b"fails"]:
            request.setHeader("Content-Length", "5")
            return request.write(b"more than five") or NOT_DONE_YET
        return b"" if request.postpath == [b"ends"] else NOT_DONE_YET


class Visits(Resource):
    """Counts a session's visits."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        session = request.getSession()
        session.visits = getattr(session, "visits", 0) + 1
        return b"%d" % session.visits


class Pull:
    """A producer that is asked for each piece."""

    def __init__(self, request: Any, pieces: int, piece: bytes) -> None:
        self.request = request
        self.pieces = pieces
        self.piece = piece
        self.stopped = False

    def resumeProducing(self) -> None:
        self.pieces -= 1
        self.request.write(self.piece)
        if not self.pieces:
            self.request.unregisterProducer()
            self.request.finish()

    def stopProducing(self) -> None:
        self.stopped = True


class Push(Pull):
    """A producer that goes on until it is told to stop."""

    paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.go()

    def go(self) -> None:
        while self.pieces and not self.paused and not self.stopped:
            super().resumeProducing()


def tree() -> Resource:
    """Some of what ``twisted.web`` has ready."""
    root = Resource()
    root.putChild(b"", Data(b"the root", "text/plain"))
    root.putChild(b"data", Data(b"some data", "text/plain"))
    root.putChild(b"away", Redirect(b"/tree/data"))
    big = Data(b"z" * 100_000, "text/plain")
    root.putChild(b"zipped", EncodingResourceWrapper(big, [GzipEncoderFactory()]))
    later: Deferred[Any] = Deferred()
    later.callback(Data(b"later", "text/plain"))
    root.putChild(b"later", DeferredResource(later))
    return root


def files(path: str) -> File:
    return File(path)


#: What is there already.
ready = Told()
nothing = None


class NoResource:
    pass


def gives_nothing() -> None:
    return None


def wants_more(*, path: str) -> Resource:
    return File(path)
