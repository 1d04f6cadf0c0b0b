"""What a configuration file may say: the forms as they are written, short and long.

`None` means "not said here": then `defaults` or the default of `model` holds. The JSON Schema for
editors is made from these classes.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

from edgeproxy.config import grammar
from edgeproxy.config.anonymous import Anonymous
from edgeproxy.config.authorization import AuthorizationForm
from edgeproxy.config.balancing import Balance, Eject, HealthCheck
from edgeproxy.config.clientcerts import AskedValue, ClientCertificate
from edgeproxy.config.cors import CorsValue
from edgeproxy.config.edgetoken import EdgeTokenValue, Told
from edgeproxy.config.fields import (
    Authority,
    DottedPath,
    Duration,
    FieldName,
    FieldValue,
    Group,
    HostName,
    LimitName,
    ListenAddress,
    Name,
    Network,
    RateValue,
    Scope,
    SecretValue,
    Server,
    SettableName,
    Size,
    Url,
    WrittenPath,
    bytes_,
    one_or_more,
    seconds,
)
from edgeproxy.config.filters import Filters
from edgeproxy.config.guessing import Guessing, GuessingValue
from edgeproxy.config.hsts import HstsValue
from edgeproxy.config.jwt import JwtForm
from edgeproxy.config.keys import Keys, KeysValue
from edgeproxy.config.lookups import IntrospectionForm, SessionForm
from edgeproxy.config.model import (
    Auth,
    Certs,
    Control,
    FieldRules,
    Frozen,
    Heads,
    Listen,
    Target,
    Timeouts,
)
from edgeproxy.config.units import shown

Names = Annotated[tuple[str, ...], one_or_more(str)]


def _short(key: str, form: Any) -> BeforeValidator:
    """A bare value is the long form with only `key`."""

    def lengthen(value: Any) -> Any:
        return value if isinstance(value, dict | BaseModel) else {key: value}

    return BeforeValidator(lengthen, json_schema_input_type=form)


class AskedOf(Frozen):
    """Which credentials callers are asked for."""

    any: Names | None = Field(default=None, description="One of these, as a bare list says too.")
    # Envoy requires_all, Kong: several plugins on a route
    all: Names | None = Field(
        default=None, description="Each of these; the first says who is calling."
    )

    @model_validator(mode="after")
    def _one(self) -> "AskedOf":
        if self.any is not None and self.all is not None:
            raise ValueError("`any` and `all` stand here; one of the two is right")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return self.any or self.all or ()


AuthValue = Annotated[AskedOf, _short("any", Names | AskedOf)]


class TimeoutsForm(Frozen):
    first_byte: Duration | None = Field(
        default=None, description="How long until the upstream's answer begins."
    )
    between_bytes: Duration | None = Field(
        default=None, description="How long between two reads of the upstream's answer."
    )
    tunnel: Duration | None = Field(
        default=None, description="How long a WebSocket or an event stream may be silent."
    )


class UpstreamTimeoutsForm(TimeoutsForm):
    connect: Duration = seconds("3s", "How long until a connection to a target stands.")


def _target(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a URL; write it as http://10.0.0.1:9001")
    if value.startswith("unix:"):
        return Target(scheme="unix", path=Path(grammar.socket_path(value)))
    scheme, host, port = grammar.target_url(value)
    return Target(scheme=scheme, host=host, port=port)


TargetUrl = Annotated[Target, BeforeValidator(_target, json_schema_input_type=Url)]


class TargetForm(Frozen):
    """One target of a service."""

    url: TargetUrl = Field(description="Where it is: http://HOST:PORT.")
    # nginx; the most is HAProxy's
    weight: int = Field(
        default=1, ge=1, le=256, description="Its share of the requests beside the others."
    )

    def target(self) -> Target:
        return self.url.model_copy(update={"weight": self.weight})


TargetValue = Annotated[TargetForm, _short("url", Url | TargetForm)]
BalanceValue = Annotated[
    Balance, _short("method", Literal["round_robin", "least_requests", "hash"] | Balance)
]
HealthValue = Annotated[HealthCheck, _short("path", str | HealthCheck)]


def _strip(value: Any) -> Any:
    if not isinstance(value, bool | str):
        raise ValueError(f"{shown(value)} stands here; true, false or a path would be right")
    return value


class TlsForm(Frozen):
    """How the https:// targets of an upstream are spoken to."""

    # nginx proxy_ssl_trusted_certificate, Envoy trusted_ca
    ca: WrittenPath | None = Field(
        default=None,
        description="File of the authorities that are trusted; absent: those of the system.",
    )
    # nginx proxy_ssl_name, Traefik serverName
    name: HostName | None = Field(
        default=None,
        description="The name asked for, that the certificate has to carry; absent: the URL's.",
    )
    # nginx proxy_ssl_certificate, proxy_ssl_certificate_key
    certificate: WrittenPath | None = Field(
        default=None, description="File of the certificate that we show, with its chain."
    )
    key: WrittenPath | None = Field(
        default=None, description="File of its private key; absent: it stands with it."
    )
    # Envoy and nginx do not by default; Traefik and Caddy do
    verify: bool = Field(
        default=True, description="Whether the service has to prove who it is; false is not safe."
    )


class UpstreamForm(Frozen):
    """A service behind the gateway."""

    targets: Annotated[tuple[TargetValue, ...], one_or_more(TargetValue)] = Field(
        description="Addresses of the service: http://HOST:PORT, https://HOST, unix:PATH."
    )
    host: Authority | None = Field(
        default=None, description="The Host that the service gets; absent: the client's."
    )
    tls: TlsForm | None = Field(default=None, description="How its https:// targets are spoken to.")
    identity: Told = Field(
        default="fields",
        description="How the service learns who is calling: X-Consumer-* fields, X-Edge-Token.",
    )
    set: dict[SettableName, SecretValue] = Field(
        default={}, description="Fields for the service; the place for its secrets."
    )
    # Apache MaxRequestWorkers: what one target takes at once
    connections: int = Field(default=256, ge=1, le=65535, description="Connections per target.")
    # Envoy max_pending_requests
    waiting: int = Field(
        default=1024,
        ge=0,
        le=1_000_000,
        description="Requests that wait for a connection; more are answered 503.",
    )
    # the Retry-After that is answered then
    wait: Duration = seconds("1s", "How long a request waits for a connection.")
    # half of nginx's keepalive_timeout for upstreams, so that we close first
    idle: Duration = seconds("30s", "An unused connection is closed after this.")
    balance: BalanceValue = Field(default=Balance(), description="How targets share the work.")
    health: HealthValue | None = Field(
        default=None, description="What targets are asked from time to time; absent: nothing."
    )
    eject: Eject = Field(default=Eject(), description="When failing requests take a target out.")
    timeouts: UpstreamTimeoutsForm = Field(
        default=UpstreamTimeoutsForm(), description="How long its targets may take."
    )


class LimitForm(Frozen):
    """At most so many requests in any span of time, per caller."""

    rate: RateValue = Field(description="Requests per time: `100/min`, `10/10s`.")
    plans: dict[Name, RateValue] = Field(
        default={}, description="Rates of plans; the plan stands on the key."
    )
    by: Literal["key", "address"] = Field(
        default="key", description="What a caller is: its key, or its address (/64 for IPv6)."
    )
    # nginx: a zone of 10 MB holds 160,000
    table: int = Field(
        default=100_000,
        ge=1,
        le=100_000_000,
        description="Callers that are counted separately.",
    )
    shadow: bool = Field(default=False, description="Only log what would have been refused.")


class DefaultsForm(Frozen):
    """What every route has unless it says otherwise."""

    auth: AuthValue | None = Field(
        default=None, description="Credentials of every route; never one that opens it."
    )
    limit: Names | None = Field(default=None, description="Names of the limits that hold.")
    filters: Filters | None = Field(
        default=None, description="Filters of every route: policy in Python."
    )
    # AWS API Gateway
    body: Size = bytes_("10MiB", "Largest request body.")
    timeouts: TimeoutsForm = Field(
        default=TimeoutsForm(),
        description="How long upstreams may take that do not say so themselves.",
    )
    request: FieldRules = Field(default=FieldRules(), description="Header fields of requests.")
    response: FieldRules = Field(default=FieldRules(), description="Header fields of answers.")
    cors: CorsValue | None = Field(
        default=None, description="Other origins whose pages may call the routes; absent: none."
    )


class RouteForm(Frozen):
    """One route."""

    to: str | None = Field(default=None, description="Name of the upstream.")
    page: bool = Field(default=False, description="The built-in page, in place of an upstream.")
    jwks: bool = Field(
        default=False, description="The keys of X-Edge-Token, in place of an upstream."
    )
    resource: DottedPath | None = Field(
        default=None,
        description="Dotted path of a twisted.web resource, in place of an upstream.",
    )
    options: dict[str, Any] = Field(
        default={}, description="Arguments by name for the resource's class or function."
    )
    auth: AuthValue | None = Field(
        default=None,
        description="Credentials, any of which lets in, or `all: [...]`; `none` opens the route.",
    )
    scopes: Annotated[tuple[Scope, ...], one_or_more(Scope)] = Field(
        default=(), description="Scopes, all of which are needed."
    )
    groups: Annotated[tuple[Group, ...], one_or_more(Group)] = Field(
        default=(), description="Groups, one of which is needed."
    )
    # nginx allow, deny
    allow: Annotated[tuple[Network, ...], one_or_more(Network)] = Field(
        default=(), description="Addresses or networks, the only ones that may come in."
    )
    deny: Annotated[tuple[Network, ...], one_or_more(Network)] = Field(
        default=(), description="Addresses or networks that may not come in; counts before `allow`."
    )
    # Envoy shadow_rules
    shadow: bool = Field(
        default=False,
        description="Only log whom identity, scopes, groups and addresses would have refused.",
    )
    limit: Names | None = Field(
        default=None, description="Limits by name, all of which hold; `none` for no limit."
    )
    filters: Filters | None = Field(
        default=None, description="Filters, asked in this order; `none` for no filter."
    )
    when: dict[FieldName, FieldValue] = Field(
        default={}, description="Only requests whose fields have exactly these values."
    )
    identity: Told | None = Field(
        default=None,
        description="How the service learns who is calling; absent: as the upstream says.",
    )
    strip: Annotated[bool | str, BeforeValidator(_strip)] = Field(
        default=False, description="Take the matched path, or this one, from the front."
    )
    host: Authority | None = Field(
        default=None, description="The Host that the service gets; absent: the upstream's."
    )
    request: FieldRules = Field(default=FieldRules(), description="Header fields of requests.")
    response: FieldRules = Field(default=FieldRules(), description="Header fields of answers.")
    cors: CorsValue | None = Field(
        default=None, description="Other origins whose pages may call it; `none` for none."
    )
    body: Size | None = Field(default=None, description="Largest request body.")
    encoded_slash: Literal["refuse", "keep"] = Field(
        default="refuse", description="What is done with %2f in a path."
    )
    # nginx, where Upgrade has to be passed on by name
    websocket: bool = Field(
        default=False, description="Whether a request for a WebSocket may become one."
    )
    timeouts: TimeoutsForm = Field(
        default=TimeoutsForm(), description="How long the upstream may take."
    )


class AuthForm(Auth):
    """Credentials by name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[
        str,
        ClientCertificate
        | JwtForm
        | IntrospectionForm
        | SessionForm
        | AuthorizationForm
        | Anonymous,
    ] = Field(init=False)


class Settings(Frozen):
    """Everything at the top of a file but upstreams, limits and routes."""

    listen: Annotated[Listen, _short("https", str | Listen)] = Field(
        default=Listen(), description="Where clients are waited for."
    )
    certs: Annotated[Certs, _short("folder", str | Certs)] = Field(
        default=Certs(), description="Folder of certificates and keys."
    )
    keys: KeysValue = Field(default=Keys(), description="File of API keys, hashed.")
    include: Annotated[tuple[str, ...], one_or_more(str)] = Field(
        default=(), description="Files with further upstreams, limits and routes."
    )
    auth: AuthForm = Field(default=AuthForm(), description="Credentials by name.")
    edge_token: EdgeTokenValue | None = Field(
        default=None,
        description="Signed tokens that tell services who is calling; a bare URL is `issuer`.",
    )
    state: WrittenPath | None = Field(
        default=None,
        description="Folder of what the gateway keeps; absent: $STATE_DIRECTORY, or state/.",
    )
    defaults: DefaultsForm = Field(
        default=DefaultsForm(), description="What every route has unless it says otherwise."
    )
    timeouts: Timeouts = Field(default=Timeouts(), description="How long clients may take.")
    heads: Heads = Field(default=Heads(), description="How large heads may be.")
    trusted_proxies: Annotated[tuple[Network, ...], one_or_more(Network)] = Field(
        default=(), description="Networks whose X-Forwarded-For is believed."
    )
    guessing: GuessingValue = Field(
        default=Guessing(), description="How many wrong credentials an address may show, or `off`."
    )
    health: ListenAddress | None = Field(
        default=None,
        description="Address that answers /healthz and /readyz; absent: `listen: http:` does.",
    )
    forwarded: Literal["x-forwarded", "forwarded"] = Field(
        default="x-forwarded", description="The family of fields that tells upstreams the client."
    )
    resolver: Annotated[tuple[Server, ...], one_or_more(Server)] = Field(
        default=(), description="DNS servers for the names of targets; absent: the system's."
    )
    access_log: WrittenPath = Field(
        default=Path("access.log"), description="File, `-` for standard output, or `off`."
    )
    server_header: Literal["hide", "keep"] = Field(
        default="hide", description="What is done with Server and X-Powered-By."
    )
    control: Annotated[Control, _short("path", str | Control)] = Field(
        default=Control(), description="The control socket."
    )


LimitValue = Annotated[LimitForm, _short("rate", RateValue | LimitForm)]
UpstreamValue = Annotated[UpstreamForm, _short("targets", Url | list[TargetValue] | UpstreamForm)]
RouteValue = Annotated[RouteForm, _short("to", str | RouteForm)]


class Included(Frozen):
    """An included file."""

    limits: dict[LimitName, LimitValue] = Field(default={}, description="Limits by name.")
    client_certificates: dict[str, AskedValue] = Field(
        default={},
        description="Host -> the credential whose certificate its clients are asked for.",
    )
    hsts: dict[str, HstsValue] = Field(
        default={}, description="Host -> how long its clients come over TLS alone."
    )
    upstreams: dict[Name, UpstreamValue] = Field(default={}, description="Upstreams by name.")
    routes: dict[str, dict[str, RouteValue | list[RouteValue]]] = Field(
        default={}, description="Host -> `[METHODS ]PATH` -> upstream or route."
    )


class Written(Included, Settings):
    """A whole configuration file."""


class IncludedAlone(Frozen):
    """What is left of an included file without its sections: nothing."""


# The adapters take a bare value for its long form, as the JSON Schema does.
SETTINGS: TypeAdapter[Settings] = TypeAdapter(Settings)
INCLUDED_ALONE: TypeAdapter[IncludedAlone] = TypeAdapter(IncludedAlone)
LIMIT: TypeAdapter[LimitForm] = TypeAdapter(LimitValue)
UPSTREAM: TypeAdapter[UpstreamForm] = TypeAdapter(UpstreamValue)
ROUTE: TypeAdapter[RouteForm] = TypeAdapter(RouteValue)
