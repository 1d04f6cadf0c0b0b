"""External authorization: a service that is asked about each request (nginx auth_request)."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter

from edgeproxy.config.asking import LONGEST, Asking, Location, at_most, wrong_endpoint
from edgeproxy.config.fields import Duration, FieldName, SettableName, one_or_more
from edgeproxy.http1.fields import folded

#: What the gateway itself says of each request to who decides about it: the words of Traefik and
#: Envoy (X-Forwarded-*), and those of nginx's users (X-Original-*).
STATEMENTS = (
    "X-Forwarded-Method",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Uri",
    "X-Forwarded-For",
    "X-Original-Method",
    "X-Original-URI",
    "X-Original-URL",
    "X-Request-Id",
)
#: What only the caller can say: nobody else's word stands in for it, on any route.
_CALLERS = frozenset(["authorization", "cookie", "x-api-key", "accept-encoding", "range"])


def _taken(value: str) -> str:
    lower = value.lower()
    if lower in _CALLERS or lower.startswith(("content-", "if-")):
        raise ValueError(
            f"{value} is the caller's own on other routes, and would be removed there; "
            "take a field that the service reads for this alone"
        )
    return value


Taken = Annotated[SettableName, AfterValidator(_taken)]


class AuthorizationForm(Asking):
    """A credential: whatever another service lets in."""

    authorize: str = Field(description="Who is asked: https://HOST/PATH, by GET without a body.")
    # what nginx auth_request and Traefik forwardAuth send too, beside all others
    send: Annotated[tuple[SettableName, ...], one_or_more(SettableName)] = Field(
        default=("authorization", "cookie"),
        description="Fields of the request that are shown; the service does not get them.",
    )
    keep: Annotated[tuple[SettableName, ...], one_or_more(SettableName)] = Field(
        default=(), description="Those of `send` that the service gets all the same."
    )
    # Traefik authResponseHeaders, Envoy allowed_upstream_headers
    take: Annotated[tuple[Taken, ...], one_or_more(Taken)] = Field(
        default=(), description="Fields of the answer that are set on the request."
    )
    principal: FieldName | None = Field(
        default=None, description="The answer's field that says who the caller is."
    )
    name: FieldName | None = Field(
        default=None, description="The answer's field with the caller's name."
    )
    groups: FieldName | None = Field(
        default=None, description="The answer's field with groups, commas between."
    )
    scopes: FieldName | None = Field(
        default=None, description="The answer's field with scopes, spaces between."
    )
    plan: FieldName | None = Field(default=None, description="The answer's field with the plan.")
    redirect: bool = Field(
        default=False, description="Whether clients get its redirections, as to a login page."
    )
    # nginx, Envoy and Traefik keep none
    cache: Annotated[Duration, at_most(LONGEST)] | None = Field(
        default=None,
        description="How long the same request is let in without another question; absent: never.",
    )

    @property
    def url(self) -> str:
        return self.authorize

    @property
    def alone(self) -> bool:
        return True

    @property
    def reserved(self) -> tuple[str, ...]:
        return self.take

    def wrong(self) -> Iterator[tuple[Location, str]]:
        yield from wrong_endpoint("authorize", self)
        sent = {folded(name) for name in self.send}
        said = {folded(name) for name in STATEMENTS}
        for name in self.send:
            if folded(name) in said:
                yield (
                    ("send",),
                    f"{name} is what the gateway says of the request; a client that sends it too "
                    "would contradict that; remove it",
                )
        for name in self.keep:
            if folded(name) not in sent:
                yield ("keep",), f"{name} is not sent, so the service gets it anyway; remove it"
        for name in self.take:
            if folded(name) in sent:
                yield (
                    ("take",),
                    f"{name} is removed from what clients send; it cannot stand in `send` too",
                )
        for key in ("name", "groups", "scopes", "plan"):
            if getattr(self, key) is not None and self.principal is None:
                yield (
                    (key,),
                    f"`{key}` is somebody's; add `principal`, the field that says whose",
                )


AUTHORIZATION: TypeAdapter[AuthorizationForm] = TypeAdapter(AuthorizationForm)
