"""How a caller is refused (RFC 6750 3): the status and the challenge; the reason is for the log."""

from __future__ import annotations

from edgeproxy.errors import GatewayError, Source

_MISSING = b"Bearer"
_INVALID = b'Bearer error="invalid_token"'
_SCOPE = b'Bearer error="insufficient_scope"'


class WrongCredential(GatewayError):
    """A credential was shown that does not let in: a guess, perhaps."""


def missing(reason: str) -> GatewayError:
    """401 for a request without the credential that is asked for."""
    return _refused(401, "A valid credential is needed.", _MISSING, reason)


def invalid(reason: str) -> GatewayError:
    """401 for a credential that does not let in, whatever is wrong with it."""
    return WrongCredential(
        401,
        "A valid credential is needed.",
        reason=reason,
        fields=(b"WWW-Authenticate: " + _INVALID,),
    )


def guessed(seconds: int) -> GatewayError:
    """429 for an address that has shown too many of these."""
    return GatewayError(
        429,
        "Too many wrong credentials came from this address.",
        reason="too many wrong credentials from its address",
        fields=(b"Retry-After: %d" % seconds,),
    )


def lacking(reason: str, *, scope: bool = False) -> GatewayError:
    """403 for a caller who is known and may not come here; `scope` if it is for want of one."""
    return _refused(403, "This credential may not do that.", _SCOPE if scope else _MISSING, reason)


def elsewhere(reason: str) -> GatewayError:
    """403 for an address that may not come here, whoever is calling."""
    return GatewayError(403, "Callers from this address may not come here.", reason=reason)


def unavailable(reason: str) -> GatewayError:
    """503 while nobody can say who is calling."""
    return GatewayError(
        503,
        "Who is calling cannot be verified at the moment.",
        source=Source.UPSTREAM,
        reason=reason,
        fields=(b"Retry-After: 1",),
    )


def answered(status: int, lines: list[bytes], reason: str, *, shown: bool) -> GatewayError:
    """What another service has answered in our place: 401, 403, or a way to where one signs in;
    `lines` are its fields. A 401 is a wrong credential if any was `shown`, and always says how to
    do better (RFC 9110 15.5.2); a 403 is for somebody who is known."""
    if status == 401 and not lines:
        lines = [b"WWW-Authenticate: " + (_INVALID if shown else _MISSING)]
    detail = {
        401: "A valid credential is needed.",
        403: "This credential may not do that.",
    }.get(status, "Signing in is done elsewhere.")
    kind = WrongCredential if status == 401 and shown else GatewayError
    return kind(status, detail, reason=reason, fields=tuple(lines))


def _refused(status: int, detail: str, challenge: bytes, reason: str) -> GatewayError:
    fields = (b"WWW-Authenticate: " + challenge,)
    return GatewayError(status, detail, reason=reason, fields=fields)
