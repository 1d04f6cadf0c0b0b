"""How an upstream's targets share the work, and which of them are left out: the settings.

Each default names the precedent that it follows.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from edgeproxy.config.fields import Authority, Duration, one_or_more, seconds
from edgeproxy.config.frozen import Frozen
from edgeproxy.config.units import shown

_PERCENT = re.compile(r"([0-9]{1,3})%", re.ASCII)
_STATUSES = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", re.ASCII)
_PROBE_PATH = re.compile(r"/[!-\"$-\[\]-~]{0,2047}", re.ASCII)  # neither #, \ nor space


def percent(value: object) -> int:
    """Percent from `50%`."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not a share; write it as {value}%")
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if not found or int(found[1]) > 100:
        raise ValueError(f"{shown(value)} is not a share; write it as 50%, at most 100%")
    return int(found[1])


def statuses(value: object) -> tuple[int, int]:
    """The first and last of a range of statuses from `200` or `200-299`."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    found = _STATUSES.fullmatch(text) if isinstance(text, str) else None
    if not found or int(found[2] or found[1]) < int(found[1]):
        raise ValueError(f"{shown(value)} is not a status; write it as 200 or 200-299")
    return int(found[1]), int(found[2] or found[1])


def probe_path(value: object) -> str:
    """What a probe asks for: a path, with a query or not, as it goes over the wire."""
    if not isinstance(value, str) or not _PROBE_PATH.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a path to ask for; write it as /healthz")
    return value


def _range(value: Any) -> Any:
    return value if isinstance(value, tuple) else statuses(value)


def _share(value: Any) -> Any:
    return percent(value)


Statuses = Annotated[
    tuple[int, int],
    BeforeValidator(_range),
    WithJsonSchema(
        {"type": ["integer", "string"], "pattern": f"^{_STATUSES.pattern}$", "examples": [200]}
    ),
]
Percent = Annotated[
    int,
    BeforeValidator(_share),
    WithJsonSchema({"type": "string", "pattern": "^(100|[0-9]{1,2})%$", "examples": ["50%"]}),
]
ProbePath = Annotated[
    str,
    BeforeValidator(probe_path),
    WithJsonSchema({"type": "string", "pattern": "^/", "examples": ["/healthz"]}),
]


class Balance(Frozen):
    """Which target gets the next request."""

    # nginx, Envoy
    method: Literal["round_robin", "least_requests", "hash"] = Field(
        default="round_robin",
        description="In turn; the less busy one of two; or each caller always to the same.",
    )
    # what limits count by, too
    hash: Literal["key", "address"] | None = Field(
        default=None,
        description="What tells callers apart: their key (their address where there is none), or "
        "their address. Says `method: hash` by itself.",
    )

    @model_validator(mode="after")
    def _one_method(self) -> "Balance":
        if self.hash is not None and self.method != "hash" and "method" in self.model_fields_set:
            raise ValueError(f"`hash` means nothing to {self.method}; remove one of the two")
        return self

    @property
    def by(self) -> Literal["round_robin", "least_requests", "key", "address"]:
        """The method, or what is hashed."""
        if self.hash is None and self.method != "hash":
            return self.method
        return self.hash or "key"


class HealthCheck(Frozen):
    """What each target is asked from time to time, and what its answers mean."""

    path: ProbePath = Field(description="What is asked for by GET.")
    # Envoy expected_statuses
    status: Annotated[tuple[Statuses, ...], one_or_more(Statuses)] = Field(
        default=((200, 200),),
        description="Statuses that are good: `200`, `200-299`, or a list.",
        json_schema_extra={"default": 200},
    )
    # nginx health_check
    interval: Duration = seconds("5s", "How long from one probe to the next.")
    # HAProxy: `inter`, 2 s, bounds a check too
    timeout: Duration = seconds("2s", "How long a probe may take, connecting included.")
    # HAProxy
    rise: int = Field(
        default=2, ge=1, le=100, description="Probes in a row that bring a target back."
    )
    # HAProxy
    fall: int = Field(
        default=3, ge=1, le=100, description="Failed probes in a row that take a target out."
    )
    host: Authority | None = Field(
        default=None, description="The Host of probes; absent: the upstream's, or the target's own."
    )


class Eject(Frozen):
    """When a target is left out because of what became of requests, and for how long."""

    # Envoy consecutive_5xx
    failures: int = Field(
        default=5,
        ge=0,
        le=1_000_000,
        description="Failures in a row that eject a target; 0: none do, only failing connects.",
    )
    # nginx fail_timeout
    time: Duration = seconds("10s", "How long, the first time.")
    # Envoy max_ejection_time
    max_time: Duration = seconds("300s", "How long at most, however often.")
    # Envoy healthy_panic_threshold
    max_ejected: Percent = Field(
        default=50,
        description="Share of the targets that may be out before no more are ejected.",
        json_schema_extra={"default": "50%"},
    )

    @model_validator(mode="after")
    def _fit(self) -> "Eject":
        if self.max_time < self.time:
            raise ValueError("`max_time` is shorter than `time`; make it at least as long")
        return self
