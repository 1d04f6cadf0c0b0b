"""Credentials that an HTTP endpoint knows: what it said is remembered, and asked for once at a
time.

A request whose credential is known goes on at once. Another waits for the answer, together with
all that show the same meanwhile. What the endpoint refuses is remembered too, for a shorter time
and in a table of its own.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from twisted.logger import Logger
from twisted.python.failure import Failure

from edgeproxy.config.lookups import IntrospectionForm, LookUp, SessionForm
from edgeproxy.identifying import Credential, Sent, is_ours
from edgeproxy.identity.answers import Answers, Known
from edgeproxy.identity.claims import Mapped
from edgeproxy.identity.cookies import good_cookie, take_cookie
from edgeproxy.identity.introspection import Expected, find, wrong_token
from edgeproxy.identity.refusal import invalid, unavailable
from edgeproxy.identity.strictjson import strict_object
from edgeproxy.identity.token import Refused
from edgeproxy.waiting import Flights

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from edgeproxy.asking import Endpoint, Reply
    from edgeproxy.identity.principal import Principal

_log = Logger()

#: Seconds for which an endpoint that has just failed is not asked where an old answer will do.
PAUSE = 1.0
#: Seconds from one line in the log that an endpoint fails to the next: whoever knows a token that
#: makes it stumble must not fill the disk.
QUIET = 10.0


class Trouble:
    """Whether an endpoint answers; a line in the log when it ceases to, and one when it answers
    again. `why` is empty while it does, `last` is when it last did not (monotonic seconds)."""

    def __init__(self, name: str) -> None:
        self.why = ""
        self.last = 0.0
        self._name = name
        self._told = False
        self._quiet = 0.0

    def failed(self, why: str, now: float) -> None:
        """It did not answer, or not so that it could be understood."""
        self.why, self.last = why, now
        if not self._told and now >= self._quiet:
            self._told, self._quiet = True, now + QUIET
            _log.warn("auth: {name}: its endpoint fails: {why}", name=self._name, why=why)

    def over(self) -> None:
        """It answered."""
        self.why = ""
        if self._told:
            self._told = False
            _log.info("auth: {name}: its endpoint answers again", name=self._name)


class Lookup(Credential):
    """What is the same for all of them. `now` tells seconds since 1970."""

    def __init__(
        self, name: str, said: LookUp, expected: Expected, endpoint: Endpoint, now: Any
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.answers: Answers[Principal] = Answers()
        self.trouble = Trouble(name)
        self._said = said
        self._expected = expected
        self._now: Callable[[], float] = now
        self._flights: Flights[Principal] = Flights()

    def stop(self) -> None:
        self.endpoint.stop()

    def verify(self, claim: bytes, sent: Sent) -> Principal | Deferred[Principal]:
        digest = sha256(claim).digest()
        now = sent.exchange.started
        known = self.answers.known(digest, now)
        if known is not None and (now < known.fresh or self._spared(now)):
            return known.answer
        refusal = self.answers.refusal(digest, now)
        if refusal is not None:
            raise invalid(f"{self.name}: {refusal}")

        def begin() -> Deferred[Principal]:
            asking = self._ask(claim)
            return asking.addCallbacks(
                self._answered,
                self._unanswered,
                callbackArgs=(digest, sent.now, now),
                errbackArgs=(digest, sent.now, now),
            )

        return self._flights.join(digest, begin)

    def _spared(self, now: float) -> bool:
        return bool(self.trouble.why) and now < self.trouble.last + PAUSE

    def _ask(self, claim: bytes) -> Deferred[Reply]:
        raise NotImplementedError

    def _told(self, reply: Reply) -> Mapping[str, Any]:
        """What the answer says. Raises `Refused`, and `ValueError` for no answer at all."""
        raise NotImplementedError

    def _later(self, asked: float, started: float) -> tuple[float, float]:
        """Both clocks now, for a request that began at `started` (monotonic), which is `asked`
        since 1970; whatever happened to that clock meanwhile, no longer ago than an answer may
        take."""
        spent = min(max(0.0, self._now() - asked), self._said.timeout)
        return asked + spent, started + spent

    def _answered(self, reply: Reply, digest: bytes, asked: float, started: float) -> Principal:
        wall, now = self._later(asked, started)
        try:
            found = find(self.name, self._told(reply), self._expected, wall)
        except Refused as error:
            self.trouble.over()
            self.answers.refuse(digest, str(error), now + self._said.refused)
            raise invalid(f"{self.name}: {error}") from None
        except ValueError as error:
            return self._without(digest, str(error), now)
        self.trouble.over()
        fresh = now + min(self._said.cache, found.life)
        stale = now + min(self._said.stale or 0.0, found.life)
        self.answers.let_in(digest, Known(found.principal, fresh, max(fresh, stale)))
        return found.principal

    def _unanswered(
        self, failure: Failure, digest: bytes, asked: float, started: float
    ) -> Principal:
        from edgeproxy.asking import Unanswered

        error = failure.value
        if not isinstance(error, Unanswered):
            failure.raiseException()
        now = self._later(asked, started)[1]
        if not error.ours:
            return self._without(digest, str(error), now)
        known = self.answers.known(digest, now)
        if known is None:
            raise unavailable(f"{self.name}: {error}")
        return known.answer

    def _without(self, digest: bytes, why: str, now: float) -> Principal:
        """The endpoint is of no use: who was known lately still is, where that is configured."""
        self.trouble.failed(why, now)
        known = self.answers.known(digest, now)
        if known is not None:
            return known.answer
        raise unavailable(f"{self.name}: its endpoint fails: {why}")

    def status(self, now: float) -> dict[str, Any]:
        """For `edgeproxy status`."""
        return {
            "endpoint": self.endpoint.shown,
            "error": self.trouble.why,
            "under_way": self.endpoint.busy,
            "remembered": len(self.answers),
            "refused": self.answers.refused,
        }


class Introspection(Lookup):
    """Bearer tokens that nobody else of the route claims (RFC 7662)."""

    rank = 9
    takes_bearer = True

    def __init__(self, name: str, said: IntrospectionForm, endpoint: Endpoint, now: Any) -> None:
        mapped = _mapped(said)
        expected = Expected("introspection", mapped, said.issuer, frozenset(said.audience))
        super().__init__(name, said, expected, endpoint, now)
        self._fields = [
            (b"Accept", b"application/json"),
            (b"Content-Type", b"application/x-www-form-urlencoded"),
        ]
        if said.client_id is not None and said.client_secret is not None:
            self._fields.append(
                (b"Authorization", _basic(said.client_id, said.client_secret.get_secret_value()))
            )

    def claim(self, sent: Sent) -> bytes | None:
        token = sent.bearer
        if token is None or is_ours(token):
            return None
        sent.bearer = None
        sent.withhold_bearer()
        why = wrong_token(token)
        if why:
            raise invalid(f"{self.name}: {why}")
        return token

    def _ask(self, claim: bytes) -> Deferred[Reply]:
        body = urlencode({"token": claim, "token_type_hint": "access_token"}).encode("ascii")
        return self.endpoint.ask("POST", self._fields, body)

    def _told(self, reply: Reply) -> Mapping[str, Any]:
        if reply.status in (401, 403):
            raise ValueError(f"status {reply.status}; it asks for another client_id and secret")
        if reply.status != 200:
            raise ValueError(f"status {reply.status}")
        return strict_object(reply.body)


class Sessions(Lookup):
    """One cookie, whose value is sent on to whoever knows its session."""

    def __init__(self, name: str, said: SessionForm, endpoint: Endpoint, now: Any) -> None:
        expected = Expected("session", _mapped(said), active=False)
        super().__init__(name, said, expected, endpoint, now)
        self._cookie = said.cookie.encode("ascii")
        self._keep = said.keep

    def claim(self, sent: Sent) -> bytes | None:
        head = sent.exchange.head
        values, lines = take_cookie(head.lines, self._cookie)
        if not values:
            return None
        if not self._keep:
            head.lines = lines
        if len(values) > 1:
            raise invalid(f"{self.name}: the cookie stands there twice")
        if not good_cookie(values[0]):
            raise invalid(f"{self.name}: the cookie's value is none")
        return values[0]

    def _ask(self, claim: bytes) -> Deferred[Reply]:
        fields = [(b"Accept", b"application/json"), (b"Cookie", self._cookie + b"=" + claim)]
        return self.endpoint.ask("GET", fields)

    def _told(self, reply: Reply) -> Mapping[str, Any]:
        if reply.status in (401, 403, 404):
            raise Refused(f"no such session (status {reply.status})")
        if not 200 <= reply.status < 300:
            raise ValueError(f"status {reply.status}")
        return strict_object(reply.body)


def _mapped(said: LookUp) -> Mapped:
    return Mapped(said.principal, said.name, said.scopes, said.groups, said.plan)


def _basic(user: str, password: str) -> bytes:
    """RFC 6749 2.3.1: each is written as in a form before they are joined."""
    both = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return b"Basic " + b64encode(both.encode("ascii"))
