"""Credentials by JSON Web Token: who issues them, where the keys are, what the claims mean."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
)

from edgeproxy.config.fields import Duration, WrittenPath, one_or_more, outside, seconds
from edgeproxy.config.frozen import NamedCredential
from edgeproxy.config.secrets import expand, read_regular, reason
from edgeproxy.config.units import shown

if TYPE_CHECKING:
    from edgeproxy.identity.jwk import KeySet

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
    "EdDSA", "Ed25519", "Ed448", "HS256", "HS384", "HS512",
]  # fmt: skip

_LONGEST = 1000
_LARGEST = 512 << 10  # bytes of a key set, as when it is fetched
_LEAST_SECRET = 32  # bytes; RFC 7518 3.2 for HS256
_LONGEST_LEEWAY = 300  # s; Microsoft's default, and more would be no leeway
_LOOPBACK = frozenset(["localhost", "127.0.0.1", "::1"])


def _issuer(value: str) -> str:
    if not 0 < len(value) <= _LONGEST or not value.isprintable() or value != value.strip():
        raise ValueError(f"{shown(value)} is not an issuer; write what the tokens say in `iss`")
    return value


def is_url(value: str) -> bool:
    """Whether it is the URL of something, not the name of a file."""
    return value.startswith(("https://", "http://"))


def wrong_url(value: str) -> str:
    """Why nothing is fetched from there; "" when it may be."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if not value.isascii() or not value.isprintable() or " " in value or not parts.hostname:
        return "is not a URL"
    if parts.username is not None or parts.password is not None or parts.fragment or port == 0:
        return "is not a URL of a host, a port and a path alone"
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return ""
    return "is not https://"


def _keys(value: Any) -> Any:
    """A URL, a file, or the set itself."""
    if isinstance(value, dict | Path):
        return value
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(
            f"{shown(value)} stands here; a URL, a file or `{{ keys: [...] }}` is right"
        )
    if not is_url(value):
        if "://" in value:
            raise ValueError(f"{shown(value)} is not https://; only such URLs are fetched")
        return Path(value)
    why = wrong_url(value)
    if why:
        raise ValueError(f"{shown(value)} {why}; write it as https://id.example.com/jwks.json")
    return value


def _secret(value: Any, info: ValidationInfo) -> Any:
    value = outside(value)
    if isinstance(value, SecretStr):
        return value
    text = expand(value, info.context) if callable(info.context) else "?" * _LEAST_SECRET
    if len(text.encode("utf-8", "surrogatepass")) < _LEAST_SECRET:
        raise ValueError(
            f"this secret is too short; {_LEAST_SECRET} random bytes or more are right"
        )
    return SecretStr(text)


def _claim(value: str) -> str:
    if not 0 < len(value) <= _LONGEST or not value.isprintable():
        raise ValueError(
            f"{shown(value)} is not the name of a claim; `sub` or `realm_access.roles` is"
        )
    return value


def _type(value: str) -> str:
    plain = value.lower().removeprefix("application/")
    if not plain or not plain.isascii() or not plain.isprintable() or " " in plain:
        raise ValueError(f"{shown(value)} is not a type; write it as at+jwt")
    return plain


def _leeway(value: float) -> float:
    if value > _LONGEST_LEEWAY:
        raise ValueError(f"{value:g} s is too long; at most {_LONGEST_LEEWAY} s are right")
    return value


def _audience(value: str) -> str:
    if not 0 < len(value) <= _LONGEST or not value.isprintable():
        raise ValueError(f"{shown(value)} is not an audience; write what the tokens say in `aud`")
    return value


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | bool | int):
        raise ValueError(
            f"{shown(value)} stands here; text, a whole number, true or false is right"
        )
    return value


Audience = Annotated[str, AfterValidator(_audience)]
Claim = Annotated[str, AfterValidator(_claim)]
#: What a claim may be held against.
Scalar = Annotated[
    Any, BeforeValidator(_scalar), WithJsonSchema({"type": ["string", "integer", "boolean"]})
]
Keys = Annotated[
    str | Path | dict[str, Any],
    BeforeValidator(_keys),
    WithJsonSchema({"type": ["string", "object"], "minLength": 1}),
]


class JwtForm(NamedCredential):
    """A credential: a JSON Web Token (RFC 7519) of one issuer."""

    jwt: Annotated[str, AfterValidator(_issuer)] = Field(
        description="The issuer, exactly as its tokens say it in `iss`: https://id.example.com."
    )
    # Envoy and Kong demand none; a token for others is none for us (RFC 8725 3.9)
    audience: Annotated[tuple[Audience, ...], one_or_more(Audience)] = Field(
        description="Who tokens must be meant for (`aud`): any of these."
    )
    jwks: Keys | None = Field(
        default=None,
        description="Its keys: a URL, a file, or the set itself; absent: by OpenID discovery.",
    )
    secret: Annotated[
        SecretStr | None,
        BeforeValidator(_secret, json_schema_input_type=str),
    ] = Field(default=None, description="A secret shared with the issuer, for HS256 and the like.")
    algorithms: Annotated[tuple[Algorithm, ...], one_or_more(Algorithm)] = Field(
        default=(), description="Only these; absent: all that the type of a key allows."
    )
    # Kong and Microsoft have 0 and 5 min; Envoy's clock_skew_seconds is 60 s
    leeway: Annotated[Duration, AfterValidator(_leeway)] = seconds(
        "30s", "How far the issuer's clock and ours may be apart."
    )
    type: Annotated[str, AfterValidator(_type)] | None = Field(
        default=None,
        description="The `typ` that tokens must have, as at+jwt; absent: none, JWT or at+jwt.",
    )
    claims: dict[Claim, Annotated[tuple[Scalar, ...], one_or_more(Scalar)]] = Field(
        default={}, description="Claims that must be there, with one of these values."
    )
    # RFC 7519 4.1.2
    principal: Claim = Field(default="sub", description="The claim that says who the caller is.")
    name: Claim | None = Field(
        default=None, description="The claim with the caller's name; absent: as `principal`."
    )
    # RFC 8693 4.2; Microsoft's and Okta's tokens have scp
    scopes: Annotated[tuple[Claim, ...], one_or_more(Claim)] = Field(
        default=("scope", "scp"), description="The claim with scopes; of several, the first there."
    )
    groups: Claim | None = Field(
        default=None, description="The claim with groups: groups, realm_access.roles."
    )
    plan: Claim | None = Field(
        default=None, description="The claim with the plan, which chooses among rates of a limit."
    )
    ca: WrittenPath | None = Field(
        default=None,
        description="File of the authorities for the issuer's certificate; absent: the system's.",
    )
    # as long as a weekend's guard takes to come
    stale: Duration = seconds("24h", "How long keys are good while no newer ones can be had.")


class Jwt(NamedCredential):
    """A credential as it is used: what was written, and what stood in its files.

    `keys` is a key set that needs no fetching, `authorities` are PEM.
    """

    said: JwtForm
    keys: bytes | None = None
    authorities: bytes | None = None

    @property
    def algorithms(self) -> tuple[str, ...]:
        """All that tokens may be signed by."""
        return self.said.algorithms or possible(self.said)


JWT: TypeAdapter[JwtForm] = TypeAdapter(JwtForm)


def possible(form: JwtForm) -> tuple[str, ...]:
    """The algorithms that the kind of keys allows."""
    from edgeproxy.identity.jwk import ASYMMETRIC, symmetric_algorithms

    if form.secret is None:
        return ASYMMETRIC
    return symmetric_algorithms(form.secret.get_secret_value().encode())


def wrong_jwt(form: JwtForm) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong between the settings of one credential."""
    if form.secret is not None:
        for other in ("jwks", "ca"):
            if getattr(form, other) is not None:
                yield (other,), f"`secret` is the key already; remove `{other}` or `secret`"
    elif form.jwks is None and (wrong_url(form.jwt) or "?" in form.jwt):
        yield (
            ("jwt",),
            f"{shown(form.jwt)} is no https:// URL, so its keys cannot be discovered; "
            "add `jwks` or `secret`",
        )
    elif form.ca is not None and form.jwks is not None and not isinstance(form.jwks, str):
        yield ("ca",), "nothing is fetched for this credential; remove `ca`"
    allowed = possible(form)
    for name in form.algorithms:
        if name not in allowed:
            right = ", ".join(allowed)
            why = "needs a `secret`" if form.secret is None else "needs another key than this one"
            yield ("algorithms",), f"{name} {why}; of {right} name some"


def settle(form: JwtForm, folder: Path) -> Iterator[tuple[tuple[str, ...], str] | Jwt]:
    """Reads the files; yields what is wrong with them, or the credential."""
    keys = authorities = None
    if isinstance(form.jwks, dict):
        keys = json.dumps(form.jwks).encode("utf-8", "surrogatepass")
    elif isinstance(form.jwks, Path):
        try:
            keys = read_regular(folder / form.jwks, _LARGEST)
        except (OSError, ValueError) as error:
            yield ("jwks",), f"{shown(str(form.jwks))} cannot be read: {reason(error)}"
            return
    if form.ca is not None:
        try:
            authorities = authorities_of(folder / form.ca)
        except (OSError, ValueError) as error:
            yield ("ca",), f"{shown(str(form.ca))}: {reason(error)}"
            return
    found = Jwt(said=form, keys=keys, authorities=authorities)
    try:
        key_set(found)
    except ValueError as error:
        yield ("jwks",), f"these keys cannot be used: {error}"
        return
    yield found


def key_set(credential: Jwt) -> "KeySet | None":
    """The keys that the configuration itself holds; `None` when they are fetched.

    Raises `ValueError` when none of them is usable.
    """
    from edgeproxy.identity.jwk import read_set, secret_set

    secret = credential.said.secret
    if secret is not None:
        return secret_set(secret.get_secret_value().encode(), credential.algorithms)
    if credential.keys is not None:
        return read_set(credential.keys, credential.algorithms)
    return None


def authorities_of(path: Path) -> bytes:
    """The certificates of a file (PEM). Raises `OSError`, or `ValueError` where there is none."""
    from edgeproxy.certs.pem import read_content

    content = read_content(read_regular(path, 4 << 20))
    if not content.certificates:
        raise ValueError("it holds no certificate; PEM would be right")
    return b"".join(each.pem for each in content.certificates)
