"""Strict Transport Security per host: for how long browsers go nowhere but over TLS (RFC 6797)."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, WithJsonSchema, model_validator

from edgeproxy.config import units
from edgeproxy.config.frozen import Frozen
from edgeproxy.config.nodes import Node
from edgeproxy.config.reading import Reader

# https://hstspreload.org/#deployment-recommendations
_PRELOAD = 365 * 86400
# Mozilla's guidelines 5.8 recommend 63072000 seconds, two years.
_LONGEST = 2 * units.LONGEST


def _age(value: Any) -> int:
    """Seconds; 0 takes back what browsers have remembered (RFC 6797 6.1.1)."""
    try:
        return units.age(value, _LONGEST)
    except ValueError as error:
        raise ValueError(f"{error}; 365d is usual, and 0 takes back what was said") from None


Age = Annotated[
    int,
    BeforeValidator(_age),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": rf"^0$|{units.DURATION_PATTERN}",
            "minimum": 0,
            "examples": ["365d"],
        }
    ),
]


class Hsts(Frozen):
    """What the clients of a host are told."""

    max_age: Age = Field(description="How long they remember it; 0: they forget it.")
    # RFC 6797: neither unless it is said, since neither is easily taken back
    subdomains: bool = Field(
        default=False, description="Whether it holds for all names below this one."
    )
    preload: bool = Field(
        default=False, description="Whether browsers may have the name built in (hstspreload.org)."
    )
    replace: bool = Field(
        default=False, description="Whether it takes the place of what the service says."
    )

    @model_validator(mode="after")
    def _preloadable(self) -> "Hsts":
        if self.preload and (self.max_age < _PRELOAD or not self.subdomains):
            raise ValueError(
                "`preload` is accepted for a year and with the names below only; "
                "write `{ max_age: 365d, subdomains: true, preload: true }`"
            )
        return self


def _lengthen(value: Any) -> Any:
    return value if isinstance(value, dict | BaseModel) else {"max_age": value}


HstsValue = Annotated[Hsts, BeforeValidator(_lengthen, json_schema_input_type=Age | Hsts)]
HSTS: TypeAdapter[Hsts] = TypeAdapter(HstsValue)


def hsts(reader: Reader, name: str, node: Node) -> Hsts | None:
    """One entry of `hsts`."""
    return reader.model(Hsts, node, HSTS)


def hsts_of(host: str, table: Mapping[str, Hsts]) -> Hsts | None:
    """What holds for the host of a request: its own, else the wildcard's over it, else `*`'s."""
    return table.get(host) or table.get("*." + host.partition(".")[2]) or table.get("*")
