"""How many wrong credentials an address may show."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from edgeproxy.config import units
from edgeproxy.config.frozen import Frozen
from edgeproxy.config.units import Rate


def _rate_or_off(value: Any) -> Any:
    return None if value in ("off", None) else units.rate(value)


RateOrOff = Annotated[
    Rate | None,
    BeforeValidator(_rate_or_off),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"{units.RATE_PATTERN}|^off$",
            "examples": ["1000/min", "off"],
        }
    ),
]


class Guessing(Frozen):
    """Wrong credentials from one address (/64 for IPv6); beyond that it is refused for a while."""

    # Discord's API: 10,000 in 10 minutes, beyond which an address is shut out
    rate: RateOrOff = Field(
        default=units.rate("1000/min"),
        description="Wrong credentials per time, or `off`.",
        json_schema_extra={"default": "1000/min"},
    )
    # nginx: a zone of 1 MB holds 16,000
    table: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Addresses that are counted; beyond them none is.",
    )


def _lengthen(value: Any) -> Any:
    return value if isinstance(value, dict | BaseModel) else {"rate": value}


GuessingValue = Annotated[
    Guessing, BeforeValidator(_lengthen, json_schema_input_type=RateOrOff | Guessing)
]
