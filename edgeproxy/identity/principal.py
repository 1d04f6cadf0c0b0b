"""Who a request is made for, as routes, limits, filters, the log and the upstreams see it."""

from __future__ import annotations

import json
import re

_LONGEST = 1000
"""Characters of an id: it stands in a field, in the log, and in the tables of limits."""

_SAYABLE = re.compile(r"(?! )[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+(?<! )")
_UNSAFE = re.compile(rb"[^\x20-\x7e]|%|^ | $")
_UNSAFE_IN_LIST = re.compile(rb"[^\x21-\x7e]|[%,]")


class Principal:
    """A caller that has proved who it is. Never changed once made; shared by its requests.

    `id` is what limits count by and upstreams store; a rotated key keeps it. `plan` is "" for none.
    `kind` says how it was proved ("api_key", "client_certificate", "jwt"; "anonymous" if not at
    all). `caller` is what limits count by: the id, or "" for the address, where it stands for
    everybody who shows nothing. `fields` are the identity fields for the upstream, ready to send,
    each line with its CRLF; `log` is the id, and the kind after it, as both stand in the log: ready
    JSON.
    """

    __slots__ = ("caller", "fields", "groups", "id", "kind", "log", "name", "plan", "scopes")

    def __init__(
        self,
        id: str,
        name: str,
        groups: tuple[str, ...] = (),
        scopes: frozenset[str] = frozenset(),
        plan: str = "",
        kind: str = "api_key",
    ) -> None:
        self.id = id
        self.name = name
        self.groups = groups
        self.scopes = scopes
        self.plan = plan
        self.kind = kind
        self.fields = identity_fields(id, name, groups)
        self.caller = "" if kind == "anonymous" else id
        self.log = f'{json.dumps(id)},"kind":"{kind}"'

    def __repr__(self) -> str:
        return f"<Principal {self.kind} {self.id} {self.name!r}>"


def is_sayable(value: str) -> bool:
    """Whether what others say can be a caller's id, name or group: of bounded length, no control
    characters, no spaces around, and nothing that is no text."""
    return len(value) <= _LONGEST and _SAYABLE.fullmatch(value) is not None


def identity_fields(id: str, name: str, groups: tuple[str, ...]) -> bytes:
    """X-Consumer-Id, X-Consumer-Name and, if there are groups, X-Consumer-Groups.

    What cannot stand in a field value (RFC 9110 5.5), and the percent sign, is percent-encoded
    from UTF-8; in groups, which are joined by commas, the comma and the space too. So decoding
    gives back exactly what was there, and no name can begin another field.
    """
    lines = b"X-Consumer-Id: %b\r\nX-Consumer-Name: %b\r\n" % (_safe(id), _safe(name))
    if groups:
        lines += b"X-Consumer-Groups: %b\r\n" % b",".join([_safe_in_list(each) for each in groups])
    return lines


def _safe(value: str) -> bytes:
    if _is_plain(value) and value.strip() == value:
        return value.encode()
    return _UNSAFE.sub(_percent, value.encode())


def _safe_in_list(value: str) -> bytes:
    if _is_plain(value) and " " not in value and "," not in value:
        return value.encode()
    return _UNSAFE_IN_LIST.sub(_percent, value.encode())


def _is_plain(value: str) -> bool:
    """Most are: to see that costs a fifth of looking for what is to be replaced."""
    return value.isascii() and value.isprintable() and "%" not in value


def _percent(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % found[0][0]
