"""Endpoints that are asked about callers: where they are, and how they are asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from edgeproxy.config.fields import Duration, WrittenPath, seconds
from edgeproxy.config.frozen import NamedCredential
from edgeproxy.config.jwt import authorities_of, wrong_url
from edgeproxy.config.secrets import reason
from edgeproxy.config.units import shown

LONGEST = 30  # s that an answer is believed: who logs out is out by then
_LONGEST_TIMEOUT = 30  # s; a drain lasts no longer

Location = tuple[str, ...]


def at_most(most: int) -> Any:
    """A validator of durations."""

    def check(value: float) -> float:
        if value > most:
            raise ValueError(f"{value:g} s is too long; at most {most} s are right")
        return value

    return AfterValidator(check)


class Asking(NamedCredential):
    """How an endpoint is asked."""

    # Envoy ext_authz 200 ms, Apache APISIX openid-connect 3 s
    timeout: Annotated[Duration, at_most(_LONGEST_TIMEOUT)] = seconds(
        "2s", "How long its answer may take; then nobody is let in by it."
    )
    # a quarter of what a target of an upstream gets
    connections: int = Field(
        default=64, ge=1, le=65535, description="Questions at once; more are answered 503."
    )
    ca: WrittenPath | None = Field(
        default=None,
        description="File of the authorities for its certificate; absent: the system's.",
    )
    plain: bool = Field(
        default=False,
        description="Whether an http:// URL off this machine may be asked; true is not safe.",
    )

    @property
    def url(self) -> str:
        """Whom to ask."""
        raise NotImplementedError

    def wrong(self) -> Iterator[tuple[Location, str]]:
        """What is wrong between the settings."""
        raise NotImplementedError


class Asked(NamedCredential):
    """A credential as it is used: what was written, and what stood in its file (PEM)."""

    said: Asking
    authorities: bytes | None = None

    @property
    def alone(self) -> bool:
        return self.said.alone

    @property
    def reserved(self) -> tuple[str, ...]:
        return self.said.reserved


def wrong_endpoint(key: str, form: Asking) -> Iterator[tuple[Location, str]]:
    """What is wrong with the URL that stands under `key`."""
    url = form.url
    why = wrong_url(url)
    if why and not (form.plain and url.startswith("http://") and not wrong_url("https" + url[4:])):
        hint = ""
        if url.startswith("http://") and not form.plain:
            hint = ", or add `plain: true` if nobody else can listen in between"
        yield (key,), f"{shown(url)} {why}; write it as https://id.internal/path{hint}"
    elif form.ca is not None and url.startswith("http://"):
        yield ("ca",), "http:// shows no certificate; remove `ca`, or write https://"


def wrong_asking(form: Asking) -> Iterator[tuple[Location, str]]:
    """What is wrong between the settings of one credential."""
    return form.wrong()


def settle(form: Any, folder: Path) -> Iterator[tuple[Location, str] | Asked]:
    """Reads the file; yields what is wrong with it, or the credential."""
    authorities = None
    if form.ca is not None:
        try:
            authorities = authorities_of(folder / form.ca)
        except (OSError, ValueError) as error:
            yield ("ca",), f"{shown(str(form.ca))}: {reason(error)}"
            return
    yield Asked(said=form, authorities=authorities)
