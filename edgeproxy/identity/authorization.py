"""What a service that was asked about a request has answered: who is calling, and in which fields
of the request that is to be said."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgeproxy.identity.principal import Principal, is_sayable

LARGEST = 8 << 10
"""Bytes of what is passed on of an answer: half a head of a request."""

KIND = "authorization"

_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
_TARGET = re.compile(rb"[\x21-\x7e]+\Z")
_MOST_GROUPS = 200

#: Every value of a field of the answer.
Values = Callable[[bytes], Sequence[bytes]]


class Allowed(NamedTuple):
    """Who is calling, and the lines, without CRLF, that are set on the request."""

    principal: Principal
    lines: tuple[bytes, ...]


class Read(NamedTuple):
    """The fields of an answer that mean something; ``None`` for none."""

    principal: str | None = None
    name: str | None = None
    groups: str | None = None
    scopes: str | None = None
    plan: str | None = None
    take: tuple[str, ...] = ()


def allowed(credential: str, values: Values, read: Read) -> Allowed:
    """Whom the answer lets in. Where it is not asked to say, all are one: the credential's name.

    Raises `ValueError`: it does not say so that it could be passed on.
    """
    lines = tuple(passed_on(values, [name.encode("ascii") for name in read.take]))
    if read.principal is None:
        return Allowed(Principal(credential, credential, kind=KIND), lines)
    who = _said(values, read.principal)
    if not who:
        raise ValueError(f"it does not say who the caller is ({read.principal})")
    groups = [each.strip() for each in _said(values, read.groups, b",").split(",")]
    scopes = _said(values, read.scopes, b" ").split()
    groups = list(dict.fromkeys(filter(None, groups)))
    if len(groups) > _MOST_GROUPS:
        raise ValueError(f"more than {_MOST_GROUPS} groups")
    found = Principal(
        f"{credential}:{who}",
        _said(values, read.name) or who,
        tuple(groups),
        frozenset(scopes),
        _said(values, read.plan),
        KIND,
    )
    return Allowed(found, lines)


def passed_on(values: Values, names: Sequence[bytes]) -> list[bytes]:
    """Lines of the answer, without CRLF, that go on under the names they have in `names`.

    Raises `ValueError` for what cannot be a field.
    """
    lines = [name + b": " + value for name in names for value in values(name)]
    if not all(_VALUE.match(line) for line in lines):
        raise ValueError("a field that cannot be passed on")
    if sum(map(len, lines)) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes to be passed on")
    return lines


def redirection(values: Values) -> list[bytes]:
    """The lines of an answer that sends the client elsewhere. Raises `ValueError`."""
    targets = values(b"Location")
    if len(targets) != 1 or not _TARGET.match(targets[0]):
        raise ValueError("a redirection that leads nowhere")
    return passed_on(values, [b"Location", b"Set-Cookie"])


def _said(values: Values, name: str | None, between: bytes = b"") -> str:
    """A field's value as text, "" when it is missing; several only where they can be joined."""
    found = [] if name is None else values(name.encode("ascii"))
    if len(found) > 1 and not between:
        raise ValueError(f"{name} is there {len(found)} times")
    try:
        value = between.join(found).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8") from None
    if value and not is_sayable(value) and not between:
        raise ValueError(f"{name} is no name")
    if between and not all(map(is_sayable, filter(None, re.split("[, ]+", value)))):
        raise ValueError(f"{name} is no list of names")
    return value
