"""The request that a resource is given, and the site that it finds itself in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET, Request, Session, Site

from edgeproxy.errors import GatewayError, Source
from edgeproxy.mounted.files import has_child, looked_at

if TYPE_CHECKING:
    from edgeproxy.identity.principal import Principal
    from edgeproxy.mounted.channel import Channel

_log = Logger()

#: Sessions of one mount. At 1 KiB or so each they are 10 MiB; whoever needs more keeps them in a
#: place of his own.
_MOST_SESSIONS = 10_000
_SESSION = (b"TWISTED_SESSION", b"TWISTED_SECURE_SESSION")


class GatewayRequest(Request):
    """A ``twisted.web.server.Request`` with what the gateway knows besides.

    ``principal`` is who is calling, ``None`` for a caller without a credential on an open route;
    ``request_id`` is the request's id, as it stands in the access log and in ``X-Request-Id``.
    """

    def __init__(self, channel: Channel, principal: Principal | None, request_id: str) -> None:
        super().__init__(channel, queued=False)  # type: ignore[no-untyped-call]
        self.principal = principal
        self.request_id = request_id
        self.mount: tuple[bytes, ...] = channel.mount

    def render(self, resrc: Any) -> None:
        """As Twisted's; an answer that is no bytes is a failure like any other."""
        super().render(_Checked(looked_at(resrc, self)))  # type: ignore[no-untyped-call]

    def processingFailed(self, reason: Failure) -> Failure:
        """The resource failed: one log line, and 500 without a word of it for the client."""
        channel: Channel | None = getattr(self, "channel", None)
        if channel is None or channel.over:
            # The client has gone, and what was at work was most likely cancelled for that.
            if reason.check(CancelledError, ConnectionLost, ConnectionDone) is None:
                _log.failure("{request}: failed after its end", reason, request=self.request_id)
            return reason
        _log.failure(
            "{route}: the resource failed at request {request}",
            reason,
            route=channel.route.label,
            request=self.request_id,
        )
        channel.fail(
            GatewayError(
                500,
                "The gateway failed to handle this request.",
                source=Source.OURSELVES,
                reason=f"resource: {reason.type.__name__ if reason.type else 'failed'}",
            )
        )
        return reason

    # Whoever answers late, to a client that has gone, does no harm.

    def finish(self) -> None:
        if not self._disconnected:
            super().finish()  # type: ignore[no-untyped-call]

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._disconnected:
            producer.stopProducing()
        else:
            super().registerProducer(producer, streaming)  # type: ignore[no-untyped-call]

    def unregisterProducer(self) -> None:
        if self._disconnected:
            self.producer = None
        else:
            super().unregisterProducer()  # type: ignore[no-untyped-call]

    def addCookie(self, k: Any, v: Any, *args: Any, **options: Any) -> None:
        """As Twisted's; the cookie of a session is out of reach for scripts and other sites."""
        if isinstance(k, bytes) and k.startswith(_SESSION):
            options = {"httpOnly": True, "sameSite": "lax", **options}
        super().addCookie(k, v, *args, **options)  # type: ignore[no-untyped-call]


class _Checked:
    """A resource whose answer is looked at before Twisted shows a wrong one to the client."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource

    def __repr__(self) -> str:
        return repr(self._resource)

    def render(self, request: Any) -> Any:
        body = self._resource.render(request)
        if body is not NOT_DONE_YET and not isinstance(body, bytes):
            raise TypeError(
                f"{self._resource!r} gave {type(body).__name__}; bytes or NOT_DONE_YET is right"
            )
        if body and isinstance(body, bytes) and request.method == b"HEAD":
            # Resources answer HEAD as GET where they have no other way; Twisted logs each.
            request.setHeader(b"Content-Length", b"%d" % len(body))
            request.finish()
            return NOT_DONE_YET
        return body


class MountSite(Site):
    """The site of one mounted resource: where it is found, and its sessions."""

    def __init__(self, resource: Any, reactor: Any, name: str) -> None:
        super().__init__(resource, reactor=reactor)  # type: ignore[no-untyped-call]
        # Tells the cookies of several mounts on one host apart.
        self._cookie = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").encode("ascii")

    def getResourceFor(self, request: Any) -> Any:
        """As Twisted's, below the route's path."""
        depth = len(request.mount)
        request.prepath, request.postpath = request.postpath[:depth], request.postpath[depth:]
        request.site = self
        request.sitepath = [self._cookie]
        found: Any = self.resource
        while request.postpath and not found.isLeaf:
            segment = request.postpath.pop(0)
            request.prepath.append(segment)
            if not has_child(found, segment):
                return found.childNotFound
            found = found.getChildWithDefault(segment, request)
        return found

    def makeSession(self) -> Session:
        """As Twisted's; the oldest makes room for one too many."""
        if len(self.sessions) >= _MOST_SESSIONS:
            next(iter(self.sessions.values())).expire()
        made: Session = super().makeSession()  # type: ignore[no-untyped-call]
        return made

    def close(self) -> None:
        """Nobody will come any more: the sessions end."""
        for session in list(self.sessions.values()):
            session.expire()
