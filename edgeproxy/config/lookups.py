"""Credentials that an HTTP endpoint knows: tokens it is asked about (RFC 7662), and sessions."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter

from edgeproxy.config import grammar
from edgeproxy.config.asking import LONGEST, Asking, Location, at_most, wrong_endpoint
from edgeproxy.config.fields import Duration, OutsideSecret, one_or_more, seconds
from edgeproxy.config.jwt import Claim
from edgeproxy.config.units import shown

_LONGEST_STALE = 86400  # s


def _cookie(value: str) -> str:
    try:
        return grammar.field_name(value)  # RFC 6265 4.1.1: a token, too
    except ValueError:
        raise ValueError(
            f"{shown(value)} is not the name of a cookie; write it as sessionid"
        ) from None


def _text(value: str) -> str:
    if not 0 < len(value) <= 1000 or not value.isprintable():
        raise ValueError(f"{shown(value)} is not a name; 1 to 1000 letters are right")
    return value


Text = Annotated[str, AfterValidator(_text)]


class LookUp(Asking):
    """What is remembered of answers, and what they mean."""

    # as long as nginx Plus' and Kong's examples at most
    cache: Annotated[Duration, at_most(LONGEST)] = seconds(
        "30s", "How long a caller is known without another question."
    )
    # Varnish and DNS resolvers keep what is not there for seconds
    refused: Annotated[Duration, at_most(LONGEST)] = seconds(
        "5s", "How long a refusal is remembered."
    )
    stale: Annotated[Duration, at_most(_LONGEST_STALE)] | None = Field(
        default=None,
        description="How old an answer may be while the endpoint is down; absent: 503 then.",
    )
    principal: Claim = Field(default="sub", description="The member that says who the caller is.")
    name: Claim | None = Field(
        default=None, description="The member with the caller's name; absent: as `principal`."
    )
    scopes: Annotated[tuple[Claim, ...], one_or_more(Claim)] = Field(
        default=("scope", "scp"), description="The member with scopes; of several, the first there."
    )
    groups: Claim | None = Field(
        default=None, description="The member with groups: groups, realm_access.roles."
    )
    plan: Claim | None = Field(
        default=None, description="The member with the plan, which chooses among rates of a limit."
    )


class IntrospectionForm(LookUp):
    """A credential: a bearer token that an endpoint knows (RFC 7662)."""

    introspect: str = Field(description="The introspection endpoint: https://HOST/PATH.")
    client_id: Text | None = Field(default=None, description="Who we are there (HTTP Basic).")
    client_secret: OutsideSecret | None = Field(
        default=None, description="Our secret there, as ${file:PATH}, ${env:NAME}."
    )
    audience: Annotated[tuple[Text, ...], one_or_more(Text)] = Field(
        default=(), description="Who tokens must be meant for (`aud`): any of these."
    )
    issuer: Text | None = Field(default=None, description="Who must have issued them (`iss`).")

    @property
    def url(self) -> str:
        return self.introspect

    def wrong(self) -> Iterator[tuple[Location, str]]:
        yield from wrong_endpoint("introspect", self)
        if (self.client_id is None) != (self.client_secret is None):
            there = "client_secret" if self.client_id is None else "client_id"
            other = "client_id" if self.client_id is None else "client_secret"
            yield (there,), f"`{there}` is of no use alone; add `{other}`"


class SessionForm(LookUp):
    """A credential: a cookie whose session an endpoint knows."""

    cookie: Annotated[str, AfterValidator(_cookie)] = Field(description="Name of the cookie.")
    at: str = Field(description="Who knows its session: https://HOST/PATH, asked by GET.")
    keep: bool = Field(default=False, description="Whether the service gets the cookie too.")

    @property
    def url(self) -> str:
        return self.at

    def wrong(self) -> Iterator[tuple[Location, str]]:
        yield from wrong_endpoint("at", self)


INTROSPECTION: TypeAdapter[IntrospectionForm] = TypeAdapter(IntrospectionForm)
SESSION: TypeAdapter[SessionForm] = TypeAdapter(SessionForm)
