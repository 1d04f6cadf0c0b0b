"""Callers who show nothing, as somebody: a credential that is the want of one."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from edgeproxy.config.clientcerts import CallerName
from edgeproxy.config.fields import Name, one_or_more
from edgeproxy.config.frozen import Frozen, NamedCredential


class Guest(Frozen):
    """What is said of callers who show nothing."""

    name: CallerName | None = Field(
        default=None, description="Their name; absent: the credential's."
    )
    # Kong anonymous: a consumer like any other
    plan: Name | None = Field(default=None, description="Chooses among the rates of a limit.")
    groups: Annotated[tuple[Name, ...], one_or_more(Name)] = Field(
        default=(), description="Groups that they are in."
    )
    scopes: Annotated[tuple[Name, ...], one_or_more(Name)] = Field(
        default=(), description="Scopes that they have."
    )


class Anonymous(NamedCredential):
    """A credential: nothing at all, which a route that names it takes for this caller."""

    anonymous: Guest = Field(description="Who callers are that show nothing.")


ANONYMOUS: TypeAdapter[Anonymous] = TypeAdapter(Anonymous)
