"""The configuration as the rest of edgeproxy sees it: frozen, complete, in seconds and bytes.

Each default names the precedent that it follows. What a file may say, with its short forms, is in
`written`; `load` makes a `Config` of it.
"""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretBytes, SecretStr, model_validator

from edgeproxy.config import grammar
from edgeproxy.config.balancing import Balance, Eject, HealthCheck
from edgeproxy.config.clientcerts import Asked, ClientCertificate
from edgeproxy.config.cors import Cors
from edgeproxy.config.edgetoken import EdgeToken, Told
from edgeproxy.config.fields import (
    Duration,
    FieldName,
    FieldValue,
    HostName,
    KeyFieldName,
    ListenAddress,
    Network,
    QueryName,
    Rate,
    RateValue,
    Size,
    Speed,
    WrittenPath,
    bytes_,
    one_or_more,
    seconds,
)
from edgeproxy.config.filters import FilterUse
from edgeproxy.config.frozen import Frozen, NamedCredential
from edgeproxy.config.guessing import Guessing
from edgeproxy.config.hsts import Hsts
from edgeproxy.config.keys import Keys

__all__ = ["Frozen", "Rate"]


class Listen(Frozen):
    """Where clients are waited for."""

    # Tomcat and Kubernetes: no root is needed for it
    https: ListenAddress = Field(
        default=":8443",
        description="Address for TLS: `:8443`, `127.0.0.1:8443`, `[::1]:8443`, `systemd:https`.",
    )
    http: ListenAddress | None = Field(
        default=None,
        description="Address for plain HTTP, which only redirects to https; absent: none.",
    )
    # nginx
    backlog: int = Field(
        default=511,
        ge=1,
        le=65535,
        description="Connections that the kernel holds until they are accepted.",
    )
    # C10k: 22 KiB each make 220 MiB
    connections: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Open connections per listener; beyond them accepting pauses.",
    )

    # nginx, HAProxy: none unless it is said
    proxy_protocol: Annotated[tuple[Network, ...], one_or_more(Network)] = Field(
        default=(),
        description="Networks of proxies whose connections begin with a PROXY head (v1 or v2).",
    )
    # Mozilla: "for almost all systems"
    tls: Literal["intermediate", "modern"] = Field(
        default="intermediate",
        description="Mozilla's guidelines: `intermediate`, or `modern`, which is TLS 1.3 alone.",
    )

    @model_validator(mode="after")
    def _two_addresses(self) -> "Listen":
        if self.http == self.https and not self.https.endswith(":0"):
            raise ValueError("`http` and `https` are the same address; give each its own port")
        return self


class Certs(Frozen):
    """Where certificates and their private keys lie."""

    folder: WrittenPath = Field(
        default=Path("certs/"), description="Folder that is searched for certificates and keys."
    )
    default: HostName | None = Field(
        default=None,
        description="Name whose certificate answers clients that name none, or one not served.",
    )


class Control(Frozen):
    """The control socket."""

    path: WrittenPath = Field(
        default=Path("edgeproxy.sock"), description="Where `edgeproxy status` and others find it."
    )
    # redis unixsocketperm: the user alone
    group: bool = Field(
        default=False, description="Whether the members of its group may use it too (0660)."
    )


class ApiKey(Frozen):
    """The credential that is there by itself."""

    # Kong key_names, Apache APISIX header: apikey
    header: KeyFieldName | None = Field(
        default=None,
        description="Field that may carry the key, beside X-API-Key; absent: none.",
    )
    query: QueryName | None = Field(
        default=None,
        description="Query parameter that may carry the key; absent: none may.",
    )


class Auth(Frozen):
    """Credentials by name; those that are not there by themselves are `Config.credentials`."""

    api_key: ApiKey = Field(default=ApiKey(), description="API keys from the key file.")


class FieldRules(Frozen):
    """What is done to header fields on their way."""

    set: dict[FieldName, FieldValue] = Field(
        default={}, description="Fields that replace all of that name."
    )
    add: dict[FieldName, FieldValue] = Field(
        default={}, description="Fields added beside what is there."
    )
    remove: Annotated[tuple[FieldName, ...], one_or_more(FieldName)] = Field(
        default=(), description="Fields taken out."
    )


class RouteTimeouts(Frozen):
    """How long an upstream may take."""

    # nginx proxy_read_timeout, which is both
    first_byte: Duration = seconds("60s", "How long until the answer begins.")
    between_bytes: Duration = seconds("60s", "How long between two reads of it.")
    # Envoy stream_idle_timeout, for WebSocket too; HAProxy has no default for `timeout tunnel`
    tunnel: Duration = seconds("300s", "How long a WebSocket or an event stream may be silent.")


class UpstreamTimeouts(RouteTimeouts):
    # Linux sends a SYN at 0, 1 and 3 s: two tries
    connect: Duration = seconds("3s", "How long until a connection stands.")


class Target(Frozen):
    """Where a service is: host and port, or, with the scheme ``unix``, the path of a socket."""

    scheme: Literal["http", "https", "unix"] = "http"
    host: str = ""
    port: int = 80
    path: Path | None = None
    weight: int = 1

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class UpstreamTls(Frozen):
    """How ``https`` targets are spoken to: what stood in the files, as PEM.

    ``ca`` is `None` for those that the system trusts, ``name`` for the host in the URL.
    """

    ca: bytes | None = Field(default=None, repr=False)
    name: str | None = None
    certificate: bytes | None = Field(default=None, repr=False)
    key: SecretBytes | None = None
    verify: bool = True


class Upstream(Frozen):
    """A service behind us: its targets, and how they are spoken to."""

    name: str
    targets: tuple[Target, ...]
    host: str | None = None
    tls: UpstreamTls | None = None
    identity: Told = "fields"
    set: dict[str, SecretStr] = {}
    connections: int = 256
    waiting: int = 1024
    wait: float = 1.0
    idle: float = 30.0
    balance: Balance = Balance()
    health: HealthCheck | None = None
    eject: Eject = Eject()
    timeouts: UpstreamTimeouts = UpstreamTimeouts()


class Limit(Frozen):
    """A named window; routes that name the same limit share it."""

    name: str
    rate: RateValue
    plans: dict[str, RateValue] = {}
    by: Literal["key", "address"] = "key"
    table: int = 100_000
    shadow: bool = False


class Route(Frozen):
    """One route, with everything that it inherits filled in."""

    host: str
    methods: tuple[str, ...] = ()
    kind: grammar.Kind = "prefix"
    path: str
    to: str | None = None
    page: bool = False
    jwks: bool = False
    resource: str | None = None
    options: dict[str, Any] = {}
    resource_at: tuple[int, int] = (0, 0)
    auth: tuple[str, ...] = ("api_key",)
    every: bool = False  # of `auth`
    guest: str | None = None  # the one of `auth` that lets in who shows nothing
    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    deny: tuple[IPv4Network | IPv6Network, ...] = ()
    shadow: bool = False
    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    limit: tuple[str, ...] = ()
    filters: tuple[FilterUse, ...] = ()
    when: dict[str, str] = {}
    identity: Told = "fields"
    strip: bool | str = False
    host_header: str | None = None
    request: FieldRules = FieldRules()
    response: FieldRules = FieldRules()
    cors: Cors | None = None
    body: int = 10 << 20
    encoded_slash: Literal["refuse", "keep"] = "refuse"
    websocket: bool = False
    timeouts: RouteTimeouts = RouteTimeouts()
    file: str = ""
    line: int = 0

    @property
    def open(self) -> bool:
        """Whether a caller without any credential gets in."""
        opened = "none" in self.auth or "anonymous" in self.auth
        return opened or self.guest is not None or self.shadow


class Timeouts(Frozen):
    """How long a client may take, and what ends a connection."""

    # Go's TLSHandshakeTimeout
    handshake: Duration = seconds("10s", "How long a TLS handshake may take.")
    # haproxy's `timeout http-request 10s`
    head: Duration = seconds("10s", "How long a whole request head may take.")
    # nginx keepalive_timeout; load balancers in front close at 60 s
    keep_alive: Duration = seconds("75s", "How long a connection may idle between requests.")
    # nginx keepalive_requests
    requests_per_connection: int = Field(
        default=1000,
        ge=1,
        le=1_000_000_000,
        description="Requests after which a connection is closed.",
    )
    # nginx send_timeout
    client_write: Duration = seconds("60s", "How long a client may take nothing of an answer.")
    # nginx lingers 5 s, for data; a close_notify is one round trip
    close: Duration = seconds("2s", "How long a close may stay without its answer.")
    # Kubernetes terminationGracePeriodSeconds
    drain: Duration = seconds("30s", "How long open requests may take at the end.")
    # Apache mod_reqtimeout, both: body=20,MinRate=500
    body_rate: Speed = Field(
        default=500,
        description="Bytes per second; slower request bodies are refused.",
        json_schema_extra={"default": "500B/s"},
    )
    body_grace: Duration = seconds("20s", "How long a body may be slow before that counts.")


class Heads(Frozen):
    """How large heads may be."""

    # Node --max-http-header-size
    request: Size = bytes_("16KiB", "Largest request head.")
    # Apache LimitRequestFields
    fields: int = Field(default=100, ge=1, le=10_000, description="Most fields in a request head.")
    # Apache LimitRequestLine, nginx large_client_header_buffers
    target: Size = bytes_("8KiB", "Longest request target.")
    # Envoy has 60 KiB for heads
    response: Size = bytes_("64KiB", "Largest head of an upstream's answer.")

    @model_validator(mode="after")
    def _fit(self) -> "Heads":
        if not 256 <= self.target <= self.request or self.response < 1024:
            raise ValueError(
                "the sizes do not fit: 256B <= target <= request, and response >= 1KiB, is right"
            )
        return self


class Defaults(Frozen):
    """What every route has unless it says otherwise."""

    auth: tuple[str, ...] = ("api_key",)
    every: bool = False
    limit: tuple[str, ...] = ()
    filters: tuple[FilterUse, ...] = ()
    body: int = 10 << 20
    timeouts: RouteTimeouts = RouteTimeouts()
    request: FieldRules = FieldRules()
    response: FieldRules = FieldRules()
    cors: Cors | None = None


class Config(Frozen):
    """One frozen snapshot of the whole configuration."""

    source: Path | None = None
    folder: Path = Path(".")
    listen: Listen = Listen()
    certs: Certs = Certs()
    keys: Keys = Keys()
    auth: Auth = Auth()
    credentials: dict[str, NamedCredential] = {}
    client_certificates: dict[str, Asked] = {}
    hsts: dict[str, Hsts] = {}
    limits: dict[str, Limit] = {}
    guessing: Guessing = Guessing()
    edge_token: EdgeToken | None = None
    # systemd's StateDirectory=, else beside the configuration
    state: Path | None = None
    defaults: Defaults = Defaults()
    upstreams: dict[str, Upstream] = {}
    routes: tuple[Route, ...] = ()
    timeouts: Timeouts = Timeouts()
    heads: Heads = Heads()
    health: str | None = None
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    forwarded: Literal["x-forwarded", "forwarded"] = "x-forwarded"
    # resolv.conf
    resolver: tuple[str, ...] = ()
    access_log: Path | Literal["-", "off"] = Path("access.log")
    server_header: Literal["hide", "keep"] = "hide"
    control: Control = Control()

    @property
    def certificates(self) -> dict[str, ClientCertificate]:
        """The credentials by client certificate."""
        return {
            name: each
            for name, each in self.credentials.items()
            if isinstance(each, ClientCertificate)
        }

    @property
    def reserved(self) -> tuple[str, ...]:
        """Fields of requests that credentials set, and clients may not, on any route."""
        return tuple(name for each in self.credentials.values() for name in each.reserved)
