"""Who is calling, on routes that ask for anything but an API key alone.

A route names credentials. Each looks at what the request shows (`Sent`) and claims what is of its
kind; `edgeproxy.policy` says which claims there have to be. What was claimed is verified, and taken
out of the request, which goes on to a service without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from edgeproxy.http1.fields import Kind
from edgeproxy.identity.refusal import invalid
from edgeproxy.identity.token import Refused, Token

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from edgeproxy.certs.clients import Standing
    from edgeproxy.exchange import Exchange
    from edgeproxy.identity.keyindex import KeyIndex
    from edgeproxy.identity.principal import Principal

#: RFC 9110 11.4 allows several spaces; a tab stays part of the credential, which is wrong then.
#: Nothing after the scheme is a credential too, and a wrong one.
_BEARER = re.compile(rb"(?i:bearer)(?=[ \t]|\Z) *+([ \t]*+.*)\Z")
#: A key of ours, whether it is valid or not.
_OURS = re.compile(rb"[ \t]*+edge_", re.IGNORECASE)
_API_KEY = Kind.API_KEY
_AUTHORIZATION = Kind.AUTHORIZATION


class Sent:
    """What a request shows of its caller.

    `bearer` is the token of its Authorization field, ``None`` when there is none or another scheme
    stands there; a credential that claims it sets it to ``None``, one that does not may say why in
    `objections`, for the log. `doubled` tells that there are two such fields. `standing` is what
    the connection's client certificate is worth for this host, `now` is in seconds since 1970.
    """

    __slots__ = (
        "_strange",
        "_token",
        "bearer",
        "doubled",
        "exchange",
        "now",
        "objections",
        "parameter",
        "standing",
    )

    def __init__(
        self, exchange: Exchange, standing: Standing | None, parameter: bytes | None, now: float
    ) -> None:
        self.exchange = exchange
        self.standing = standing
        self.parameter = parameter
        self.now = now
        self.bearer: bytes | None = None
        self.objections: tuple[str, ...] = ()
        self._token: Token | None = None
        self._strange = False
        fields = [value for kind, value, _ in exchange.head.keys if kind is _AUTHORIZATION]
        self.doubled = len(fields) > 1
        match = _BEARER.match(fields[0]) if fields else None
        if match is not None:
            self.bearer = match.group(1)

    def token(self) -> Token | None:
        """The bearer token, unverified, taken apart once for all who ask; ``None`` when it is no
        JSON Web Token."""
        if self._token is None and self.bearer is not None and not self._strange:
            try:
                self._token = Token(self.bearer)
            except Refused as error:
                self._strange = True
                self.objections += (str(error),)
        return self._token

    def withhold_bearer(self) -> None:
        """The service does not get the Authorization field."""
        head = self.exchange.head
        head.keys = tuple([each for each in head.keys if each[0] is not _AUTHORIZATION])


class Credential:
    """One credential that routes may name.

    `rank` is its place among the others of a route: those that can tell by its form that something
    is theirs come before those that take what is left. `takes_bearer` says that a bearer token
    that nobody claims is refused rather than left to the application.
    """

    name: str
    rank = 0
    takes_bearer = False

    def claim(self, sent: Sent) -> Any:
        """What the request shows of this kind, ``None`` for nothing; what is claimed is taken
        out of the request. Raises `GatewayError` (401) when it is there twice, or doubtful."""
        raise NotImplementedError

    def verify(self, claim: Any, sent: Sent) -> Principal | Deferred[Principal]:
        """Who that is. Raises `GatewayError` (401, 403, 503), or the Deferred fails with it."""
        raise NotImplementedError

    def inherit(self, before: Credential) -> None:
        """Take over what the credential of this name has learnt that was in force until now."""

    def start(self) -> None:
        """The configuration that names it comes into force."""

    def stop(self) -> None:
        """Nobody will ask any more."""

    def status(self, now: float) -> dict[str, Any] | None:
        """What `edgeproxy status` shows of it, ``None`` for nothing."""
        return None


class ApiKeys(Credential):
    """The keys of the key file, beside other credentials; alone they are
    `edgeproxy.resource.ReverseProxyResource`'s."""

    name = "api_key"

    def __init__(self, keys: Callable[[], KeyIndex]) -> None:
        self._keys = keys

    def claim(self, sent: Sent) -> bytes | None:
        bearer = sent.bearer
        if bearer is not None and is_ours(bearer):
            sent.bearer = None
        return key_of(sent.exchange, sent.parameter)

    def verify(self, claim: bytes, sent: Sent) -> Principal:
        return holder(self._keys(), claim, sent.now)


class Certificates(Credential):
    """Client certificates under one named credential."""

    def __init__(self, name: str) -> None:
        self.name = name

    def claim(self, sent: Sent) -> Standing | None:
        found = sent.standing
        if found is None or not found.shown or found.credential != self.name:
            return None
        return found

    def verify(self, claim: Standing, sent: Sent) -> Principal:
        if claim.principal is None:
            raise invalid(f"client certificate: {claim.objection}")
        return claim.principal


class Anonymous(Credential):
    """The want of a credential, under a name: whoever shows nothing is `guest`."""

    def __init__(self, name: str, guest: Principal) -> None:
        self.name = name
        self.guest = guest

    def claim(self, sent: Sent) -> None:
        """It is what is left when nobody claims anything."""
        return


def is_ours(bearer: bytes) -> bool:
    """Whether a bearer token is an API key, valid or not: nobody else is to see it."""
    return _OURS.match(bearer) is not None


def is_key(value: bytes) -> bool:
    """Whether a field's value is an API key, with or without its scheme."""
    return _ANY_KEY.match(value) is not None


def holder(keys: KeyIndex, credential: bytes, now: float) -> Principal:
    """Whose API key that is. Raises `GatewayError` (401)."""
    record = keys.find(credential, now)
    if record is None:
        raise invalid("unknown key")
    if record.revoked or not record.not_before <= now < record.expires:
        raise invalid(f"key {record.id}: {record.state(now)}")
    return record.principal


def key_of(exchange: Exchange, parameter: bytes | None) -> bytes | None:
    """The one API key that was sent; its line (or parameter) will not be passed on.

    Raises `GatewayError` (401) when several were sent: which one counts would be a guess.
    """
    found: bytes | None = None
    for kind, value, line in exchange.head.keys:
        if kind is not _API_KEY:
            match = _BEARER.match(value)
            if match is None or not _OURS.match(match.group(1)):
                continue  # another scheme's, or another party's token: the application's
            value = match.group(1)
        if found is not None:
            raise invalid("two credentials")
        found = value
        exchange.credential = line
    if parameter is not None and exchange.query:
        found = _query_key(exchange, parameter, found)
    return found


def withhold_keys(exchange: Exchange, parameter: bytes | None) -> None:
    """Nobody is asked for a key here; one that comes along all the same is none of the service's
    business, which could use it in the caller's place."""
    head = exchange.head
    head.keys = tuple([each for each in head.keys if not is_key(each[1])])
    if parameter is not None and exchange.query:
        parts = exchange.query[1:].split(b"&")
        kept = [part for part in parts if not _is_parameter(part, parameter)]
        exchange.query = b"?" + b"&".join(kept) if kept else b""


#: A key of ours in either field.
_ANY_KEY = re.compile(rb"(?:bearer[ \t]+)?edge_", re.IGNORECASE)


def _is_parameter(part: bytes, parameter: bytes) -> bool:
    """Whether a part of a query has the parameter's name, percent-encoded or not: services read
    both alike."""
    name = part.partition(b"=")[0]
    return name == parameter or (b"%" in name and unquote_to_bytes(name) == parameter)


def _query_key(exchange: Exchange, parameter: bytes, found: bytes | None) -> bytes | None:
    """Percent-encoding stands for its character, a plus sign for itself: senders of forms mean a
    space by it, but a key that is sent as it stands has plus signs, and hardly ever spaces."""
    kept = []
    for part in exchange.query[1:].split(b"&"):
        if not _is_parameter(part, parameter):
            kept.append(part)
        elif found is not None:
            raise invalid("two credentials")
        else:
            found = unquote_to_bytes(part.partition(b"=")[2])
    exchange.query = b"?" + b"&".join(kept) if kept else b""
    return found
