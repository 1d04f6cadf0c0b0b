"""External authorization: another service is asked about each request, by a GET with its head.

As nginx's auth_request: 2xx lets in, 401 and 403 are the client's answer, and so is a redirection
where that is wanted. Anything else is no answer. The body of the request waits with the client.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from edgeproxy.config.authorization import STATEMENTS, AuthorizationForm
from edgeproxy.http1.fields import FOLD, folded
from edgeproxy.identifying import Credential, Sent, is_key
from edgeproxy.identity.answers import Answers, Known
from edgeproxy.identity.authorization import Allowed, Read, allowed, passed_on, redirection
from edgeproxy.identity.refusal import answered, invalid, unavailable
from edgeproxy.lookups import Trouble
from edgeproxy.waiting import Flights

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from edgeproxy.asking import Endpoint, Reply
    from edgeproxy.exchange import Exchange
    from edgeproxy.identity.principal import Principal

#: RFC 9110 15.4: those that a browser follows.
_REDIRECTIONS = frozenset((301, 302, 303, 307, 308))
*_ABOUT, _REQUEST_ID = [name.encode("ascii") for name in STATEMENTS]

Fields = list[tuple[bytes, bytes]]


class Authorization(Credential):
    """See the module's text. It is asked about every request, so it stands alone on a route, or
    beside others that are all asked for."""

    #: What others claim is theirs, and not shown.
    rank = 99

    def __init__(
        self, name: str, said: AuthorizationForm, endpoint: Endpoint, now: Callable[[], float]
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.answers: Answers[Allowed] = Answers()
        self.trouble = Trouble(name)
        self._now = now
        self._said = said
        self._read = Read(said.principal, said.name, said.groups, said.scopes, said.plan, said.take)
        #: By the name that services would read: the name as it is written.
        self._send = {folded(each): each.encode("ascii") for each in said.send}
        self._kept = frozenset(map(folded, said.keep))
        self.takes_bearer = b"authorization" in self._send
        self._taken = frozenset(each.lower().encode("ascii") for each in said.take)
        self._flights: Flights[Allowed] = Flights()

    def stop(self) -> None:
        self.endpoint.stop()

    # -- what is shown ---------------------------------------------------------------------------

    def claim(self, sent: Sent) -> Fields:
        """The fields that are shown, taken out of the request unless they are kept."""
        head = sent.exchange.head
        shown: dict[bytes, bytes] = {}
        twice = b""
        if self.takes_bearer:
            sent.bearer = None

        def goes_on(line: bytes) -> bool:
            nonlocal twice
            name, _, value = line.partition(b":")
            folded = name.translate(FOLD)
            if folded not in self._send:
                return True
            if folded in shown:
                twice = folded
            shown[folded] = value.strip(b" \t")
            return folded in self._kept

        head.lines = [line for line in head.lines if goes_on(line)]
        head.keys = tuple(each for each in head.keys if is_key(each[1]) or goes_on(each[2]))
        if twice:
            raise invalid(f"{self.name}: two fields {twice.decode('ascii', 'replace')}")
        return [(self._send[folded], value) for folded, value in shown.items()]

    def verify(self, claim: Fields, sent: Sent) -> Principal | Deferred[Principal]:
        exchange = sent.exchange
        asked = _about(exchange)
        cache = self._said.cache
        if cache is None:
            asked.append((_REQUEST_ID, exchange.id))
            return self._ask(asked, claim, sent, b"").addCallback(self._set, exchange)
        whole = b"\n".join([name + b":" + value for name, value in (*asked, *claim)])
        digest = sha256(whole).digest()
        known = self.answers.known(digest, exchange.started)
        if known is not None:
            return self._set(known.answer, exchange)
        flight = self._flights.join(digest, lambda: self._ask(asked, claim, sent, digest))
        return flight.addCallback(self._set, exchange)

    def _set(self, found: Allowed, exchange: Exchange) -> Principal:
        """Set what the answer says on a request. What its Connection field names is taken out
        later: it cannot name these."""
        head = exchange.head
        head.lines = [*head.lines, *found.lines]
        if not self._taken.isdisjoint(head.connection):
            head.connection -= self._taken
        return found.principal

    def _ask(self, asked: Fields, claim: Fields, sent: Sent, digest: bytes) -> Deferred[Allowed]:
        asking = self.endpoint.ask("GET", [*asked, *claim])
        return asking.addCallbacks(
            self._answered,
            self._unanswered,
            callbackArgs=(sent, digest, bool(claim)),
            errbackArgs=(sent,),
        )

    # -- what is answered ------------------------------------------------------------------------

    def _answered(self, reply: Reply, sent: Sent, digest: bytes, shown: bool) -> Allowed:
        status = reply.status
        lines: list[bytes] = []
        try:
            if 200 <= status < 300:
                found = allowed(self.name, reply.all, self._read)
                self.trouble.over()
                if digest and self._said.cache is not None:
                    until = self._time(sent) + self._said.cache
                    self.answers.let_in(digest, Known(found, until, until))
                return found
            if status in _REDIRECTIONS and self._said.redirect:
                lines = redirection(reply.all)
            elif status in (401, 403):
                lines = passed_on(reply.all, [b"WWW-Authenticate"])
            else:
                raise ValueError(f"status {status}")
        except ValueError as error:
            raise self._failed(str(error), sent) from None
        self.trouble.over()
        raise answered(status, lines, f"{self.name}: status {status}", shown=shown)

    def _unanswered(self, failure: Failure, sent: Sent) -> Allowed:
        from edgeproxy.asking import Unanswered

        error = failure.value
        if not isinstance(error, Unanswered):
            failure.raiseException()
        if error.ours:
            raise unavailable(f"{self.name}: {error}")
        raise self._failed(str(error), sent)

    def _failed(self, why: str, sent: Sent) -> Exception:
        self.trouble.failed(why, self._time(sent))
        return unavailable(f"{self.name}: its endpoint fails: {why}")

    def _time(self, sent: Sent) -> float:
        """Monotonic, as in `Lookup`: no longer after the request than an answer may take."""
        spent = min(max(0.0, self._now() - sent.now), self._said.timeout)
        return sent.exchange.started + spent

    def status(self, now: float) -> dict[str, Any]:
        """For `edgeproxy status`."""
        return {
            "endpoint": self.endpoint.shown,
            "error": self.trouble.why,
            "under_way": self.endpoint.busy,
            "remembered": len(self.answers),
        }


def _about(exchange: Exchange) -> Fields:
    """What the request is, in the order of `STATEMENTS`, the last of which is for those that are
    not remembered. The path is the one form that routes are found by."""
    scheme, _, host = exchange.origin.partition(b"://")
    route = exchange.route
    path = exchange.asked if route is not None and route.strip else exchange.path
    uri = path + exchange.query
    method, client = exchange.method, exchange.client.encode("ascii")
    said = (method, scheme, host, uri, client, method, uri, exchange.origin + uri)
    return list(zip(_ABOUT, said, strict=True))
