"""Types of single settings: how each is read, and what an editor is told about it.

Each is a plain Python type with a validator of `units` or `grammar` in front, and the JSON Schema
of what may be written, which is wider than the type (a duration is a float, written `60s`).
"""

import ipaddress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)

from edgeproxy.config import grammar, units
from edgeproxy.config.reserved import reserved
from edgeproxy.config.secrets import expand
from edgeproxy.config.units import Rate, shown
from edgeproxy.http1.fields import folded as folded_name

__all__ = ["Rate"]

_LONGEST_LIST = 1000  # items that are looked through for repetition

_NUMBER_OR = {"type": ["string", "number"]}
Duration = Annotated[
    float,
    BeforeValidator(units.duration),
    WithJsonSchema(_NUMBER_OR | {"pattern": units.DURATION_PATTERN, "exclusiveMinimum": 0}),
]
Size = Annotated[
    int,
    BeforeValidator(units.size),
    WithJsonSchema({"type": ["string", "integer"], "pattern": units.SIZE_PATTERN, "minimum": 0}),
]
Speed = Annotated[
    int,
    BeforeValidator(units.speed),
    WithJsonSchema({"type": ["string", "integer"], "pattern": units.SPEED_PATTERN, "minimum": 0}),
]
RateValue = Annotated[
    Rate,
    BeforeValidator(units.rate),
    WithJsonSchema({"type": "string", "pattern": units.RATE_PATTERN, "examples": ["100/min"]}),
]


def seconds(default: str, description: str) -> Any:
    """A field for a duration; the default is written as people write it."""
    return Field(
        default=units.duration(default),
        description=description,
        json_schema_extra={"default": default},
    )


def bytes_(default: str, description: str) -> Any:
    """A field for a size; the default is written as people write it."""
    return Field(
        default=units.size(default),
        description=description,
        json_schema_extra={"default": default},
    )


def _several(value: Any) -> Any:
    if isinstance(value, tuple):
        return value
    if isinstance(value, list):
        if not value:
            raise ValueError("an empty list says nothing; name something, or remove the line")
        texts = [each for each in value if isinstance(each, str)]
        twice = next((each for each in texts if texts.count(each) > 1), None)
        if twice is not None and len(texts) <= _LONGEST_LIST:
            raise ValueError(f"{shown(twice)} stands twice in this list; once is right")
        return tuple(value)
    return (value,)


def one_or_more(item: Any) -> BeforeValidator:
    """One value, or a list of them that is not empty; a tuple either way."""
    items = Annotated[list[item], Field(min_length=1)]
    written = Union[item, items]  # noqa: UP007 (items are annotations, known at run time only)
    return BeforeValidator(_several, json_schema_input_type=written)


def _path(value: Any) -> Any:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"{shown(value)} is not a path; write it as folder/name")
    return Path(value)


def _network(value: Any) -> Any:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a network; write it as 10.0.0.0/8")
    try:
        found = ipaddress.ip_network(value)
    except ValueError:
        pass
    else:
        mapped = getattr(found.network_address, "ipv4_mapped", None)
        if mapped is not None and found.prefixlen >= 96:
            # Callers over IPv4 are known by its own addresses, so it would never match.
            right = mapped if found.prefixlen == 128 else f"{mapped}/{found.prefixlen - 96}"
            raise ValueError(f"{shown(value)} is IPv4 in the form of IPv6; write it as '{right}'")
        return found
    try:
        near = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{shown(value)} is not a network; write it as 10.0.0.0/8") from None
    raise ValueError(f"{shown(value)} is an address within a network; did you mean '{near}'?")


def _plain_value(value: str) -> str:
    if "${" in value:
        raise ValueError("secrets are put in only under an upstream's `set`; move the field there")
    return grammar.field_value(value)


def _settable(value: str) -> str:
    why = reserved(value, request=True)
    if why:
        raise ValueError(f"{value} {why}")
    return value


def _secret(value: Any, info: ValidationInfo) -> Any:
    """The wrapped secret; the lookup comes with the validation's context."""
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("this is not text; put it in quotes")
    text = expand(value, info.context) if callable(info.context) else value
    return SecretStr(grammar.field_value(text, secret=True))


def outside(value: Any) -> Any:
    """A secret as it is written: by reference, since the configuration itself is no place for it.
    Raises ValueError otherwise."""
    if not isinstance(value, SecretStr) and (not isinstance(value, str) or "${" not in value):
        raise ValueError(
            "a secret stands outside; write ${file:PATH}, ${env:NAME}, ${credential:NAME}"
        )
    return value


def _listening(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'{value} is a number; write ":{value}"')
    return grammar.listening(value) if isinstance(value, str) else value


#: What every client sends for another purpose, and how further ones begin.
_COMMON = frozenset(
    {
        *("authorization", "cache-control", "cookie", "date", "from", "origin", "pragma"),
        *("range", "referer", "user-agent", "x-real-ip", "x-original-url", "x-rewrite-url"),
    }
)
_FAMILIES = ("accept", "access-control-", "content-", "if-", "sec-")


def _key_name(value: str) -> str:
    folded = folded_name(value).decode("ascii")
    if value.lower() == "x-api-key":
        raise ValueError(f"{value} may carry a key already; leave it out")
    if folded in _COMMON or folded.startswith(_FAMILIES) or reserved(folded, request=True):
        raise ValueError(
            f"{value} has another meaning; take a field for keys alone, such as apikey"
        )
    return value


HostName = Annotated[str, AfterValidator(grammar.domain)]
Authority = Annotated[str, AfterValidator(grammar.authority)]
ListenAddress = Annotated[
    str,
    BeforeValidator(_listening),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(.*:[0-9]{1,5}|systemd:[^:]+)$",
            "examples": [":8443", "systemd:https"],
        }
    ),
]
Server = Annotated[
    str,
    AfterValidator(grammar.server),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.2", "10.0.0.2:5353", "[fd00::2]:53"]}),
]
Name = Annotated[
    str,
    AfterValidator(grammar.name),
    WithJsonSchema({"type": "string", "pattern": grammar.NAME_PATTERN}),
]
Scope = Annotated[
    str,
    AfterValidator(grammar.scope),
    WithJsonSchema({"type": "string", "pattern": grammar.SCOPE_PATTERN}),
]
Group = Annotated[
    str,
    AfterValidator(grammar.group),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 200}),
]
LimitName = Annotated[
    str,
    AfterValidator(grammar.limit_name),
    WithJsonSchema({"type": "string", "pattern": grammar.LIMIT_NAME_PATTERN}),
]
QueryName = Annotated[
    str,
    AfterValidator(grammar.query_name),
    WithJsonSchema({"type": "string", "pattern": grammar.QUERY_NAME_PATTERN}),
]
KeyFieldName = Annotated[str, AfterValidator(grammar.field_name), AfterValidator(_key_name)]
DottedPath = Annotated[
    str,
    AfterValidator(grammar.dotted_path),
    WithJsonSchema({"type": "string", "pattern": r"^[^\W\d]\w*(\.[^\W\d]\w*)+$"}),
]
FieldName = Annotated[str, AfterValidator(grammar.field_name)]
SettableName = Annotated[str, AfterValidator(grammar.field_name), AfterValidator(_settable)]
FieldValue = Annotated[str, AfterValidator(_plain_value)]
Url = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^(https?://|unix:)",
            "examples": ["http://10.0.0.1:9001", "https://pay.internal", "unix:/run/app.sock"],
        }
    ),
]
SecretValue = Annotated[
    SecretStr,
    BeforeValidator(_secret),
    WithJsonSchema({"type": "string", "examples": ["${env:TOKEN}", "${file:/run/secrets/token}"]}),
]
OutsideSecret = Annotated[SecretValue, BeforeValidator(outside)]
WrittenPath = Annotated[
    Path, BeforeValidator(_path), WithJsonSchema({"type": "string", "minLength": 1})
]
Network = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_network),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]}),
]
