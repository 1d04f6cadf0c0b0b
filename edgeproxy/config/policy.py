"""Who may come in by a route: what of it does not make sense, and how people are told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from edgeproxy.config.anonymous import Anonymous
from edgeproxy.config.asking import Asked
from edgeproxy.config.jwt import Jwt
from edgeproxy.config.lookups import IntrospectionForm
from edgeproxy.config.units import shown

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from edgeproxy.config.frozen import NamedCredential
    from edgeproxy.config.model import Route
    from edgeproxy.config.nodes import Node
    from edgeproxy.config.reading import Location
    from edgeproxy.config.written import AskedOf, RouteForm

if TYPE_CHECKING:
    Range = IPv4Network | IPv6Network

#: What opens a route, and is no credential.
OPENERS = ("none", "anonymous")


def wrong_auth(section: Node, auth: AskedOf | None) -> Iterator[tuple[Location, str]]:
    """The `auth` of a route or of `defaults` that names nothing. (Where its names were wrong they
    have been told of, and are not there any more.)"""
    written = section.get("auth")
    if auth is not None and not auth.names and written is not None and not written.pairs:
        yield ("auth",), "nothing is asked for here; `all: [api_key, staff]` would be right"


def guest_among(names: Iterable[str], credentials: Mapping[str, NamedCredential]) -> str | None:
    """Which of the credentials lets in callers who show nothing."""
    return next((name for name in names if isinstance(credentials.get(name), Anonymous)), None)


def wrong_defaults(
    auth: AskedOf | None, credentials: Mapping[str, NamedCredential]
) -> Iterator[tuple[Location, str]]:
    """Nothing in `defaults` may open a route."""
    for index, name in enumerate(auth.names if auth else ()):
        if name in OPENERS or guest_among([name], credentials):
            message = f"'{name}' here would open every route; say it on the route itself"
            yield ("auth", "all" if auth and auth.all else "any", index), message


def wrong_policy(
    form: RouteForm, credentials: Mapping[str, NamedCredential]
) -> Iterator[tuple[Location, str]]:
    """What of a route's policy does not make sense, and where."""
    auth = form.auth
    names = () if auth is None else auth.names
    openers = [name for name in names if name in OPENERS or guest_among([name], credentials)]
    if auth is not None and auth.all and openers:
        message = f"{shown(openers[0])} lets in without a credential; it cannot be one of `all`"
        yield ("auth", "all", names.index(openers[0])), message
    elif "none" in names and len(names) > 1:
        yield ("auth",), "'none' stands alone; 'anonymous' makes the others voluntary"
    elif len(openers) > 1:
        both = f"{shown(openers[0])} and {shown(openers[1])}"
        yield ("auth",), f"{both} both stand for callers who show nothing; name one"
    tokens = [name for name in names if _is_token(credentials.get(name))]
    if auth is not None and auth.all and len(tokens) > 1:
        first, second, *_ = tokens
        message = (
            f"{shown(first)} and {shown(second)} are both shown as a bearer token, of which a "
            "request has one; name one of the two"
        )
        yield ("auth", "all", names.index(second)), message
    yield from _wrong_demands(form, credentials, openers)
    yield from _wrong_ranges(form)
    if form.shadow and "none" in names and not (form.allow or form.deny):
        message = "an open route refuses nobody whom `shadow` could let in; remove one of the two"
        yield ("shadow",), message


def _is_token(credential: NamedCredential | None) -> bool:
    """Whether it is shown as the one bearer token that there can be."""
    said = credential.said if isinstance(credential, Asked) else credential
    return isinstance(said, Jwt | IntrospectionForm)


def _wrong_ranges(form: RouteForm) -> Iterator[tuple[Location, str]]:
    """What is denied as a whole is never let in."""
    for index, allowed in enumerate(form.allow):
        for denied in form.deny:
            if allowed.version == denied.version and _within(allowed, denied):
                message = f"{allowed} is within {denied}, which is denied; remove one of the two"
                yield ("allow", index), message
                break


def _within(inner: Range, outer: Range) -> bool:
    return outer.prefixlen <= inner.prefixlen and inner.network_address in outer


def _wrong_demands(
    form: RouteForm, credentials: Mapping[str, NamedCredential], openers: list[str]
) -> Iterator[tuple[Location, str]]:
    """An opener that lets nobody in says something else than it does."""
    if not openers or not (form.scopes or form.groups):
        return
    wanted = "scopes" if form.scopes else "groups"
    found = credentials.get(openers[0])
    if not isinstance(found, Anonymous):
        yield (
            (wanted,),
            f"an open route cannot ask for {wanted}, which nobody without a credential has; "
            "remove one of the two",
        )
        return
    guest = found.anonymous
    lacks = sorted(set(form.scopes) - set(guest.scopes))
    if lacks or (form.groups and not set(form.groups) & set(guest.groups)):
        what = f"the scope {shown(lacks[0])}" if lacks else "one of these groups"
        yield (
            (wanted,),
            f"{shown(openers[0])} does not have {what}, and so would never get in; "
            "give it that, or remove one of the two",
        )


def who(route: Route) -> str:
    """Who may come in, in words."""
    if route.shadow:
        return f"everybody, in shadow mode; else {_by(route)}"
    return _by(route)


def _by(route: Route) -> str:
    word = " and " if route.every else " or "
    by = word.join(name for name in route.auth if name not in (*OPENERS, route.guest))
    if route.guest is not None:
        by = f"everybody, as {route.guest} or by {by}" if by else f"everybody, as {route.guest}"
    elif "anonymous" in route.auth:
        by = f"everybody, as nobody or by {by}" if by else "everybody"
    return ", ".join([by or "everybody", *_demands(route)])


def _demands(route: Route) -> Iterator[str]:
    if route.scopes:
        yield "with " + " and ".join(f"scope {name}" for name in route.scopes)
    if route.groups:
        yield "in " + " or ".join(f"group {name}" for name in route.groups)
    if route.allow:
        yield "from " + " or ".join(map(str, route.allow))
    if route.deny:
        yield "not from " + " or ".join(map(str, route.deny))


def opening(route: Route) -> str:
    """How an open route is open, to be said after its name; nothing for the usual way."""
    if route.shadow:
        return ", in shadow mode"
    return "" if route.guest is None else f", as {route.guest}"
