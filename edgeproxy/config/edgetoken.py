"""Tokens of our own for the services behind: who issues them, how long each is good."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WithJsonSchema

from edgeproxy.config import units
from edgeproxy.config.fields import one_or_more
from edgeproxy.config.frozen import Frozen
from edgeproxy.config.units import shown

#: What a service learns of a caller: X-Consumer-* fields, X-Edge-Token, or both.
Told = Literal["fields", "token", "both"]

_LONGEST_NAME = 1000


def _issuer(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not value.isprintable() or not value.isascii() or " " in value:
        raise ValueError(f"{shown(value)} is not a URL; write it as https://edge.example.com")
    if "@" in value or "?" in value or "#" in value:
        raise ValueError(f"{shown(value)} holds more than host and path; leave the rest out")
    return value


def _audience(value: str) -> str:
    if not 0 < len(value) <= _LONGEST_NAME or not value.isprintable() or value != value.strip():
        raise ValueError(f"{shown(value)} is not an audience; write what the services expect")
    return value


def _span(value: Any, least: int, most: int, usual: str) -> int:
    found = units.duration(value, most)
    if found < least or not found.is_integer():
        raise ValueError(
            f"{shown(value)} is not whole seconds, at least {least} of them; {usual} is usual"
        )
    return int(found)


_WRITTEN = {"type": ["string", "integer"], "pattern": units.DURATION_PATTERN, "minimum": 1}
Lifetime = Annotated[
    int,
    BeforeValidator(lambda value: _span(value, 5, 3600, "60s")),
    WithJsonSchema(_WRITTEN | {"examples": ["60s"]}),
]
Period = Annotated[
    int,
    BeforeValidator(lambda value: _span(value, 3600, 31_536_000, "24h")),
    WithJsonSchema(_WRITTEN | {"examples": ["24h"]}),
]


class EdgeToken(Frozen):
    """The tokens in X-Edge-Token."""

    issuer: Annotated[str, AfterValidator(_issuer)] = Field(
        description="What the tokens say in `iss`: https://edge.example.com."
    )
    # Istio's and Google's service meshes speak of minutes; every call gets a fresh enough one
    lifetime: Lifetime = Field(
        default=60,
        description="How long a token is good.",
        json_schema_extra={"default": "60s"},
    )
    audience: Annotated[tuple[Annotated[str, AfterValidator(_audience)], ...], one_or_more(str)] = (
        Field(default=(), description="What they say in `aud`; absent: the upstream's name.")
    )
    # as our session ticket keys
    rotate: Period = Field(
        default=86400,
        description="How long a key signs before the next one does.",
        json_schema_extra={"default": "24h"},
    )


def _lengthen(value: Any) -> Any:
    return value if isinstance(value, dict | BaseModel) else {"issuer": value}


EdgeTokenValue = Annotated[
    EdgeToken, BeforeValidator(_lengthen, json_schema_input_type=str | EdgeToken)
]
