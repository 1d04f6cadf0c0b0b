"""Client certificates: who issues them, who their holders are, and which names ask for them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, TypeAdapter

from edgeproxy.config.fields import Name, WrittenPath, one_or_more
from edgeproxy.config.frozen import Frozen, NamedCredential
from edgeproxy.config.units import shown

Source = Literal["subject", "subject:cn", "san:email", "san:dns", "san:uri", "fingerprint"]

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_LONGEST = 1000
_LONGEST_NAME = 200  # as in the key file


def _caller_name(value: str) -> str:
    if not value.isprintable() or not 0 < len(value) <= _LONGEST_NAME or value != value.strip():
        raise ValueError(f"{shown(value)} is not a name; 1 to {_LONGEST_NAME} letters are right")
    return value


CallerName = Annotated[str, AfterValidator(_caller_name)]


class Caller(Frozen):
    """What is known of one holder beside the certificate."""

    name: CallerName | None = Field(
        default=None, description="The caller's name; absent: what the certificate says."
    )
    consumer: Name | None = Field(
        default=None,
        description="The caller's id, as an API key may name it; absent: CREDENTIAL:NAME.",
    )
    groups: Annotated[tuple[Name, ...], one_or_more(Name)] = Field(
        default=(), description="Groups, beside those of the certificate."
    )
    scopes: Annotated[tuple[Name, ...], one_or_more(Name)] = Field(
        default=(), description="Scopes that the caller has."
    )
    plan: Name | None = Field(default=None, description="Chooses among the rates of a limit.")


def _lengthened(key: str) -> Any:
    def lengthen(value: Any) -> Any:
        return value if isinstance(value, dict | BaseModel) else {key: value}

    return lengthen


CallerValue = Annotated[
    Caller, BeforeValidator(_lengthened("name"), json_schema_input_type=str | Caller)
]


class ClientCertificate(NamedCredential):
    """A credential: a certificate that one of these CAs has issued to the client."""

    client_certificate: Annotated[tuple[WrittenPath, ...], one_or_more(WrittenPath)] = Field(
        description="Files of the CAs (PEM), under which certificates are valid."
    )
    crl: Annotated[tuple[WrittenPath, ...], one_or_more(WrittenPath)] = Field(
        default=(), description="Files of revocation lists (PEM or DER), one list for each CA."
    )
    # nginx $ssl_client_s_dn
    principal: Source = Field(
        default="subject", description="What of the certificate says who the caller is."
    )
    groups: Literal["ou"] | None = Field(
        default=None, description="`ou`: the organizational units are the caller's groups."
    )
    callers: dict[str, CallerValue] = Field(
        default={},
        description="Holders by what `principal` says of them; when there are any, only these.",
    )

    def within(self, folder: Path) -> "ClientCertificate":
        """The same with files below `folder`."""
        return self.model_copy(
            update={
                "client_certificate": tuple(folder / path for path in self.client_certificate),
                "crl": tuple(folder / path for path in self.crl),
                "callers": {
                    fingerprint(key) if self.principal == "fingerprint" else key: caller
                    for key, caller in self.callers.items()
                },
            }
        )


class Asked(Frozen):
    """What the clients of a name are asked for during the handshake."""

    by: str = Field(description="The credential, under `auth`, whose CAs are meant.")
    required: bool = Field(
        default=True, description="Whether clients without a certificate are refused."
    )
    # RFC 9440 leaves it to the deployment; most services do not expect the fields
    forward: Literal["nothing", "certificate", "chain"] = Field(
        default="nothing",
        description="Whether services get Client-Cert, or Client-Cert-Chain too (RFC 9440).",
    )


AskedValue = Annotated[
    Asked, BeforeValidator(_lengthened("by"), json_schema_input_type=str | Asked)
]

CREDENTIAL: TypeAdapter[ClientCertificate] = TypeAdapter(ClientCertificate)
ASKED: TypeAdapter[Asked] = TypeAdapter(AskedValue)


def fingerprint(text: str) -> str:
    """A SHA-256 fingerprint in its one form: 64 hex digits in lower case, without colons."""
    return text.replace(":", "").lower()


def wrong_callers(credential: ClientCertificate) -> dict[str, str]:
    """What is wrong with keys of `callers`, by key; `""` for the table as a whole."""
    wrong: dict[str, str] = {}
    if credential.principal == "fingerprint":
        if not credential.callers:
            wrong[""] = (
                "a fingerprint alone names nobody; add `callers:` with a name for each fingerprint"
            )
        seen: set[str] = set()
        for key in credential.callers:
            plain = fingerprint(key)
            if not _FINGERPRINT.fullmatch(plain):
                wrong[key] = (
                    f"{shown(key)} is not a SHA-256 fingerprint; 64 hex digits are right, as "
                    "`openssl x509 -noout -fingerprint -sha256` prints them"
                )
            elif plain in seen:
                wrong[key] = f"{shown(key)} stands here twice; once is right"
            seen.add(plain)
        return wrong
    for key in credential.callers:
        if not key.isprintable() or not 0 < len(key) <= _LONGEST:
            wrong[key] = f"{shown(key)} is not what a certificate can say; write it as it stands"
    return wrong


def policy_of(host: str, asked: Mapping[str, Asked]) -> Asked | None:
    """What clients of a route's host are asked for: exact, then the wildcard over it, then any."""
    wildcard = host if host.startswith("*") else "*." + host.partition(".")[2]
    return asked.get(host) or asked.get(wildcard) or asked.get("*")


class Routed(Protocol):
    """A route, as far as it matters here."""

    @property
    def host(self) -> str: ...
    @property
    def auth(self) -> tuple[str, ...]: ...


def unreachable(route: Routed, names: Iterable[str], asked: Mapping[str, Asked]) -> str | None:
    """What is wrong with a route that lets certificates in which nobody is asked for."""
    policy = policy_of(route.host, asked)
    by = None if policy is None else policy.by
    for name in names:
        if name in route.auth and name != by:
            instead = f"it asks for {shown(by)}" if by else "it asks for none"
            return (
                f"{shown(name)} needs a certificate that clients of {route.host} can show, and "
                f"{instead}; add `client_certificates: {{ {shown(route.host)}: {name} }}`"
            )
    return None
