"""Which other origins' pages may call a route from a browser: CORS (Fetch standard, 3.2)."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    WithJsonSchema,
    model_validator,
)

from edgeproxy.config import grammar, units
from edgeproxy.config.fields import FieldName, one_or_more
from edgeproxy.config.frozen import Frozen
from edgeproxy.config.units import shown

#: Firefox remembers a preflight for a day at most, Chromium for two hours.
_LONGEST = 86400
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@\s]+)([/?#].*|)", re.DOTALL)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PREFIX = "access-control-"


def origin(value: str) -> str:
    """An origin as browsers serialise it (RFC 6454 6.2), `*.` before its host's parent, `*` for
    any, or `null`.

    :raises ValueError: it is none of these.
    """
    if value in ("*", "null"):
        return value
    match = _PARTS.fullmatch(value)
    if match is None:
        raise ValueError(f"{shown(value)} is not an origin; write it as https://app.example.com")
    scheme, authority, rest = match[1].lower(), match[2], match[3]
    if rest:
        near = shown(f"{scheme}://{authority}")
        raise ValueError(f"{shown(value)} is more than an origin; did you mean {near}?")
    if scheme not in _DEFAULT_PORTS:  # of apps and extensions: an opaque host, taken as it is
        if "*" in authority:
            raise ValueError(f"{shown(value)} has a *, which only http and https may have")
        return f"{scheme}://{authority}"
    star, whole = ("*.", authority[2:]) if authority.startswith("*.") else ("", authority)
    if "*" in whole:
        raise ValueError(
            f"{shown(value)} has a * elsewhere than in front of a name; "
            "write https://*.example.com, which covers one label"
        )
    whole = grammar.authority(whole)
    name, colon, port = whole.rpartition(":")
    if not colon or whole.endswith("]"):
        name, port = whole, ""
    if star and ("." not in name or name.rpartition(".")[2].isdigit()):
        raise ValueError(f"{shown(value)} covers what anybody can have; write more of the name")
    if port and int(port) == _DEFAULT_PORTS[scheme]:
        port = ""
    return f"{scheme}://{star}{name}" + (f":{int(port)}" if port else "")


def _method(value: str) -> str:
    return grammar.method(value)


def _age(value: Any) -> int:
    """Seconds; 0: browsers ask before every request."""
    return units.age(value, _LONGEST)


Origin = Annotated[
    str,
    AfterValidator(origin),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]+)$",
            "examples": ["https://app.example.com", "https://*.example.com"],
        }
    ),
]
Method = Annotated[str, AfterValidator(_method)]
Age = Annotated[
    int,
    BeforeValidator(_age),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "pattern": rf"^0$|{units.DURATION_PATTERN}",
            "minimum": 0,
            "examples": ["10m"],
        }
    ),
]


class Cors(Frozen):
    """Whose pages may read the answers of a route."""

    origins: Annotated[tuple[Origin, ...], one_or_more(Origin)] = Field(
        description="Origins whose pages may; `https://*.example.com` covers one label, `*` any."
    )
    methods: Annotated[tuple[Method, ...], one_or_more(Method)] = Field(
        default=(), description="Methods that they may use; absent: those of the route."
    )
    # what callers of this gateway send: a credential, and JSON
    headers: Annotated[tuple[FieldName, ...], one_or_more(FieldName)] = Field(
        default=("Authorization", "Content-Type", "X-API-Key"),
        description="Fields that they may send beside those that are always allowed; `*`: any.",
        json_schema_extra={"default": "Authorization, Content-Type, X-API-Key"},
    )
    # Fetch standard: none but the safelisted
    expose: Annotated[tuple[FieldName, ...], one_or_more(FieldName)] = Field(
        default=(),
        description="Fields of answers that they may read beside those that all may; `*`: any.",
    )
    # Fetch standard
    credentials: bool = Field(
        default=False, description="Whether browsers may send cookies along, and show the answer."
    )
    # Spring, Tomcat
    max_age: Age = Field(
        default=1800,
        description="How long browsers remember that they may; 0: they ask each time.",
        json_schema_extra={"default": "30m"},
    )

    @model_validator(mode="after")
    def _sensible(self) -> "Cors":
        if "*" in self.origins and len(self.origins) > 1:
            raise ValueError("`*` covers all origins; remove it, or the others")
        for what in ("headers", "expose"):
            if "*" in getattr(self, what) and len(getattr(self, what)) > 1:
                raise ValueError(f"`*` covers all of `{what}`; remove it, or the others")
        if self.credentials:
            self._named()
        return self

    def _named(self) -> None:
        """With credentials nothing is left open: whoever may act for a user has a name."""
        for wide, what in (("*", "any page"), ("null", "any page in a sandboxed frame")):
            if wide in self.origins:
                raise ValueError(
                    f"with `credentials` {what} could act for whoever is signed in; "
                    f"name the origins in place of `{wide}`"
                )
        for what in ("headers", "expose"):
            if "*" in getattr(self, what):
                raise ValueError(
                    f"with `credentials` the `*` of `{what}` means a field of that name (Fetch "
                    "standard); name the fields"
                )


#: What `cors: none` is: no origin, so the same as nothing, but said.
NONE = Cors.model_construct(origins=())


def _lengthen(value: Any) -> Any:
    if value == "none":
        return NONE
    return value if isinstance(value, dict | BaseModel) else {"origins": value}


CorsValue = Annotated[
    Cors,
    BeforeValidator(
        _lengthen, json_schema_input_type=Literal["none"] | Origin | list[Origin] | Cors
    ),
]


def own_fields(names: list[str]) -> list[str]:
    """Those of `names` that only `cors` writes where it holds."""
    return [name for name in names if name.lower().startswith(_PREFIX)]
