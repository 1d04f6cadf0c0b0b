"""The small languages of a configuration: hosts, route keys, paths, field names, addresses.

Each function takes text, returns it in the form in which it is compared, and raises `ValueError`
whose text says what is wrong and what would be right.
"""

import ipaddress
import re
import warnings
from keyword import iskeyword
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

import idna

from edgeproxy.config.units import shown

Kind = Literal["exact", "prefix", "regex"]

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
#: Names of limits stand in `RateLimit-Policy` and in metrics: lower case, no surprises.
LIMIT_NAME_PATTERN = r"^[a-z0-9_-]{1,64}$"
QUERY_NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
SCOPE_PATTERN = r"^[!#-\[\]-~]{1,200}$"
_NAME = re.compile(NAME_PATTERN, re.ASCII)
_SCOPE = re.compile(SCOPE_PATTERN, re.ASCII)
_LIMIT_NAME = re.compile(LIMIT_NAME_PATTERN, re.ASCII)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)  # RFC 9110 5.6.2
_VALUE = re.compile(r"[\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?", re.ASCII)  # RFC 9110 5.5
_SOCKET_NAME = re.compile(r"[!-9;-~]{1,255}", re.ASCII)  # systemd.socket(5) FileDescriptorName
_QUERY_NAME = re.compile(QUERY_NAME_PATTERN, re.ASCII)
_SERVER = re.compile(
    r"\[([0-9a-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9a-f:.]+)",
    re.ASCII | re.IGNORECASE,
)
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}", re.ASCII)
#: What cannot be meant, or matches no request that is let in, and what would be right.
_NO_PATHS = (
    (re.compile(r"[?#]"), "holds a query or fragment; routes see the path only"),
    (
        re.compile(r"[{}<>]|/:"),
        "holds a placeholder; use a shorter prefix, or regex: for a pattern",
    ),
    (
        re.compile(r"\*"),
        "holds a *; a path holds for all that lies under it, and regex: is for patterns",
    ),
    (re.compile("%"), "is percent-encoded; write it decoded"),
    (re.compile("//"), "holds //, which no request that is let in has; write /"),
    (
        re.compile(r"/(\.{1,2}(/|\Z)|\.{0,2};)"),
        "holds a dot segment; write the path that it leads to",
    ),
)
_WORDS = re.compile(r"[a-z0-9_/-]{1,50}", re.ASCII)
_LONGEST_VALUE = 8192
_LONGEST_PATH = 2048
_LONGEST_REGEX = 1000


class RouteKey(NamedTuple):
    """What a key such as `GET|HEAD exact:/users` says."""

    methods: tuple[str, ...]
    kind: Kind
    path: str


def name(value: str) -> str:
    """The name of an upstream, plan, scope or group."""
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{shown(value)} is not a name; letters, digits, '_', '-' and '.' are right, up to 64"
        )
    return value


def scope(value: str) -> str:
    """A scope as a route asks for it (RFC 6749 3.3): issuers of tokens have `orders:read`."""
    if not _SCOPE.fullmatch(value):
        raise ValueError(
            f"{shown(value)} is not a scope; printable ASCII without spaces and quotes is right, "
            "up to 200"
        )
    return value


def group(value: str) -> str:
    """A group as a route asks for it: issuers of tokens have `/shop/Staff`."""
    if not value.isprintable() or not 0 < len(value) <= 200 or value != value.strip():
        raise ValueError(f"{shown(value)} is not a group; up to 200 printable letters are right")
    return value


def limit_name(value: str) -> str:
    """The name of a limit; it stands in the `RateLimit-Policy` field."""
    if not _LIMIT_NAME.fullmatch(value):
        raise ValueError(
            f"{shown(value)} is not a name for a limit; a-z, 0-9, '_' and '-' are right, up to 64"
        )
    if value == "none":
        raise ValueError("'none' on a route means that no limit applies; choose another name")
    return value


def host(value: str) -> str:
    """A host of `routes`: a name as A-labels in lower case, `*.` before a name, `*`, or an IP.

    IPv6 addresses come out in brackets, as they stand in `Host`.
    """
    if value == "*":
        return value
    if "://" in value or "/" in value:
        raise ValueError(f"{shown(value)} is not a host; leave out the scheme and the path")
    address = value.removeprefix("[").removesuffix("]")
    if ":" in address:
        try:
            return f"[{ipaddress.IPv6Address(address)}]"
        except ValueError:
            raise ValueError(
                f"{shown(value)} has a port; leave it out, a route holds on every port"
            ) from None
    star, rest = ("*.", value[2:]) if value.startswith("*.") else ("", value)
    if "*" in rest:
        raise ValueError(
            f"{shown(value)} has a * elsewhere than in front; write '*.example.com' or '*'"
        )
    return star + domain(rest)


def domain(value: str) -> str:
    """A host name or IPv4 address as A-labels in lower case, without the trailing dot."""
    text = value.removesuffix(".")
    try:
        if not text.isascii():
            text = idna.encode(text, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError, ValueError, IndexError):
        raise ValueError(
            f"{shown(value)} is not a name that IDNA allows; write its xn-- form"
        ) from None
    text = text.lower()
    labels = text.split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{shown(value)} is not a host name; write it as api.example.com")
    if labels[-1].isdigit():
        _address(text, value)
    return text


def authority(value: str) -> str:
    """What may stand in `Host`: a name or IP, with a port or not."""
    text, colon, port = value.rpartition(":")
    if not colon or value.endswith("]"):
        text, port = value, "1"
    if not (port.isascii() and port.isdigit()) or not 0 < int(port[:9]) <= 65535:
        raise ValueError(f"{shown(value)} is not a host; write it as example.com or [::1]:8080")
    name = host(text)
    if "*" in name:
        raise ValueError(f"{shown(value)} holds a *; write one whole name")
    return f"{name}:{port}" if text != value else name


def query_name(value: str) -> str:
    """The name of a query parameter, of characters that are never percent-encoded."""
    if not _QUERY_NAME.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a name for a parameter; write it as api_key")
    return value


def _address(text: str, value: str) -> None:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        raise ValueError(f"{shown(value)} is neither a name nor an IPv4 address") from None


def route_key(value: str) -> RouteKey:
    """`[METHODS ](PATH | exact:PATH | regex:PATTERN)`."""
    before, space, rest = value.partition(" ")
    if space and not before.startswith(("/", "exact:", "regex:")):
        methods = _methods(before)
    else:
        methods, rest = (), value
    rest = rest.strip(" ")
    if rest.startswith("regex:"):
        return RouteKey(methods, "regex", regex(rest.removeprefix("regex:")))
    if rest.startswith("exact:"):
        return RouteKey(methods, "exact", path(rest.removeprefix("exact:")))
    return RouteKey(methods, "prefix", path(rest))


def method(value: str) -> str:
    """One method, in capitals."""
    if "|" in value:
        raise ValueError(f"{shown(value)} is several methods; write them as a list")
    return _methods(value)[0]


def _methods(text: str) -> tuple[str, ...]:
    found = text.split("|")
    for method in found:
        if _METHOD.fullmatch(method.upper()) and method != method.upper():
            raise ValueError(f"methods are written in capitals; did you mean '{method.upper()}'?")
        if not _METHOD.fullmatch(method):
            raise ValueError(f"{shown(text)} is not a method; write it as GET or GET|HEAD")
        if method in ("TRACE", "CONNECT"):
            raise ValueError(f"{method} is never relayed; remove it")
    if len(set(found)) < len(found):
        raise ValueError(f"{shown(text)} names a method twice; once is right")
    return tuple(found)


def path(value: str) -> str:
    """A path as routing sees it: absolute, decoded, without dot segments or empty segments."""
    if not value.startswith("/"):
        near = f"'/{value}'" if _WORDS.fullmatch(value) else "/, /orders or exact:/orders"
        raise ValueError(f"{shown(value)} is not a path; it begins with /, as in {near}")
    if len(value) > _LONGEST_PATH:
        raise ValueError(f"{shown(value)} is longer than {_LONGEST_PATH} characters")
    for pattern, what in _NO_PATHS:
        if pattern.search(value):
            raise ValueError(f"{shown(value)} {what}")
    if not value.isprintable() or "\\" in value:
        raise ValueError(f"{shown(value)} holds a character that no path can hold")
    return value


def regex(value: str) -> str:
    """A regular expression that Python compiles; the whole path has to match it.

    It is compiled for bytes, as routing does: paths are bytes, in which `\\u` means nothing.
    """
    if not value or len(value) > _LONGEST_REGEX:
        raise ValueError(f"a regular expression has between 1 and {_LONGEST_REGEX} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(value.encode())
    except re.error as error:
        where = f" at character {error.pos + 1}" if error.pos is not None else ""
        raise ValueError(
            f"{shown(value)} is not a regular expression: {error.msg}{where}"
        ) from None
    except (RecursionError, OverflowError, ValueError):
        raise ValueError(f"{shown(value)} is too complex a regular expression") from None
    return value


def dotted_path(value: str) -> str:
    """The name of a Python object within a module: `shop.status.Status`."""
    parts = value.split(".")
    if len(parts) > 1 and all(part.isidentifier() and not iskeyword(part) for part in parts):
        return value
    near = value.replace(":", ".").replace("/", ".").replace(".py.", ".")
    hint = ""
    if near != value and all(part.isidentifier() for part in near.split(".")):
        hint = f"; did you mean {shown(near)}?"
    raise ValueError(
        f"{shown(value)} is not a dotted path{hint or '; write it as package.module.Name'}"
    )


def field_name(value: str) -> str:
    """The name of a header field (a token)."""
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a field name; write it as X-Name")
    return value


def field_value(value: str, *, secret: bool = False) -> str:
    """The value of a header field: printable ASCII without space at its ends. A secret one is
    never shown."""
    if len(value) > _LONGEST_VALUE:
        raise ValueError(f"the value is longer than {_LONGEST_VALUE} characters")
    if not _VALUE.fullmatch(value):
        what = "the value" if secret else shown(value)
        raise ValueError(
            f"{what} cannot stand in a header field; printable ASCII on one line, "
            "without space at its ends, is right"
        )
    return value


def listening(value: str) -> str:
    """An address to listen on: `:8443`, `127.0.0.1:8443`, `[::1]:8443` (port 0: any free one), or
    `systemd:NAME`, the sockets that systemd passes by that name."""
    if value.startswith("systemd:"):
        if not _SOCKET_NAME.fullmatch(value.removeprefix("systemd:")):
            raise ValueError(
                f"{shown(value)} names no socket; write systemd:https, after the "
                "FileDescriptorName= of the socket unit"
            )
        return value
    split_address(value)
    return value


def split_address(value: str) -> tuple[str, int]:
    """(interface, port) of an address to listen on; the interface is `""` for all of them."""
    interface, colon, port = value.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        raise ValueError(
            f"{shown(value)} is not an address to listen on; "
            "write :8443, 127.0.0.1:8443 or [::1]:8443"
        )
    bare = interface.removeprefix("[").removesuffix("]")
    if interface and (":" in bare) != (interface != bare):
        raise ValueError(f"{shown(value)}: an IPv6 address stands in brackets, as in [::1]:8443")
    try:
        return str(ipaddress.ip_address(bare)) if interface else "", int(port)
    except ValueError:
        raise ValueError(
            f"{shown(value)}: {shown(interface)} is not an IP address; write 127.0.0.1, [::1], "
            "or only the port"
        ) from None


def server(value: str) -> str:
    """The address of a DNS server, with a port or not."""
    split_server(value)
    return value


def split_server(value: str) -> tuple[str, int]:
    """(IP address, port) of a DNS server; 53 where no port is named."""
    found = _SERVER.fullmatch(value)
    try:
        if found is None:
            raise ValueError
        bracketed, port6, plain, port4, bare = found.groups()
        address = ipaddress.ip_address(bracketed or plain or bare)
        port = int(port6 or port4 or 53)
        if address.version != (4 if plain else 6) or not 0 < port <= 65535:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{shown(value)} is not the address of a DNS server; "
            "write 10.0.0.2, 10.0.0.2:5353 or [fd00::2]:53"
        ) from None
    return str(address), port


#: What a socket's path may hold: it stands in logs as it is.
_PATH = re.compile(r"[\x20-\x7e]+", re.ASCII)
_LONGEST_SOCKET = 107  # bytes of `sun_path` without the NUL behind it (unix(7))


def socket_path(value: str) -> str:
    """The path in `unix:PATH`."""
    path = value.removeprefix("unix:")
    if path.startswith("//"):
        raise ValueError(f"{shown(value)} holds //; write unix:{'/' + path.lstrip('/')}")
    if path.startswith("@"):
        raise ValueError(f"{shown(value)}: only sockets in the file system are reached")
    if not path or path.endswith("/"):
        raise ValueError(f"{shown(value)} names no socket; write it as unix:/run/app.sock")
    return path


def whole_socket_path(path: str) -> str:
    """The path, made absolute, as it is shown and given to the system."""
    if not _PATH.fullmatch(path) or '"' in path or "\\" in path:
        raise ValueError(f"{shown(path)} holds characters that no socket's path here may have")
    if len(path) > _LONGEST_SOCKET:
        raise ValueError(f"{shown(path)} is too long; a socket's path has {_LONGEST_SOCKET} bytes")
    return path


def target_url(value: str) -> tuple[Literal["http", "https"], str, int]:
    """(scheme, host, port) of a target. What stands before an @ is never shown."""
    safe = shown(value) if "@" not in value else "this URL"
    try:
        parts: SplitResult = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(f"{safe} is not a URL; write it as http://10.0.0.1:9001") from None
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    if parts.scheme != scheme or not parts.hostname or not value.isprintable() or " " in value:
        raise ValueError(f"{safe} is not a URL; write it as http://10.0.0.1:9001")
    if "@" in parts.netloc:
        raise ValueError(
            "a target holds no user and password; use `set` for an Authorization field"
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment or value.endswith(("?", "#")):
        raise ValueError(
            f"{safe} holds more than host and port; leave the rest out (`strip` shortens paths)"
        )
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError(f"{safe} has no port that can be reached; write 1 to 65535")
    name = parts.hostname
    if "[" in parts.netloc and ":" not in name:
        raise ValueError(f"{safe} is not a URL; only IPv6 addresses stand in brackets")
    if ":" in name and "%" in name:
        raise ValueError(f"{safe} names an interface; write an IPv6 address that needs none")
    host = str(ipaddress.ip_address(name)) if ":" in name else domain(name)
    return scheme, host, port or (443 if scheme == "https" else 80)
