"""What a filter is, and what it may answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from edgeproxy.config.reserved import reserved

#: The hooks of a filter, in the order in which they run, with the arguments of each.
HOOKS = {
    "on_request": ("request",),
    "on_upstream_request": ("request",),
    "on_response": ("request", "response"),
    "on_log": ("request", "entry"),
}
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}")
#: Statuses of answers without a body (RFC 9110 6.4.1).
BODILESS = (204, 304)

#: Header fields as they are given: a mapping, or pairs where a name stands several times.
Fields = Mapping[str, str] | Iterable[tuple[str, str]]


class Filter:
    """A base for filters; none is needed.

    ``sets`` are fields of requests that the filter sets and services rely on: they are taken out
    of what clients send, on every route. ``changes`` are fields of clients' that it replaces on
    its own routes. ``options`` is an instance of the class's ``Options`` (a ``pydantic``
    model), where it declares one.
    """

    sets: ClassVar[Sequence[str]] = ()
    changes: ClassVar[Sequence[str]] = ()

    def __init__(self, options: Any = None) -> None:
        self.options = options

    def start(self) -> None:
        """It is about to come into force. What it raises refuses the configuration."""

    def stop(self) -> None:
        """No request will reach it any more."""


class FieldError(ValueError):
    """A field that a filter may not write, or a value that cannot stand in one."""


class Answer:
    """An answer in place of the service's.

    ``body`` is bytes, or text, which is sent in UTF-8 and as ``text/plain`` unless ``headers``
    say otherwise. Raises ``ValueError`` for what cannot be answered.
    """

    __slots__ = ("body", "lines", "status")

    def __init__(self, status: int = 200, headers: Fields = (), body: bytes | str = b"") -> None:
        if type(status) is not int or not 200 <= status <= 599:
            raise ValueError(f"{status!r} is not the status of an answer; 200 to 599 is right")
        if not isinstance(body, bytes | str):
            raise TypeError(f"a body is bytes or text, not {type(body).__name__}")
        self.status = status
        self.lines = answer_lines(headers)
        if isinstance(body, str):
            body = body.encode("utf-8")
            if not any(line[:13].lower() == b"content-type:" for line in self.lines):
                self.lines.append(b"Content-Type: text/plain; charset=utf-8")
        if body and status in BODILESS:
            raise ValueError(f"an answer of status {status} has no body")
        self.body = body

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"


class Refuse(Exception):
    """Raised to refuse a request, with a problem document (RFC 9457).

    ``detail`` is for the caller; ``reason`` goes to the access log, and is ``detail`` where it is
    not given. A 401 gets ``WWW-Authenticate: Bearer`` unless ``headers`` have one.
    """

    def __init__(self, status: int, detail: str, *, reason: str = "", headers: Fields = ()) -> None:
        if type(status) is not int or not 400 <= status <= 599:
            raise ValueError(f"{status!r} is not the status of a refusal; 400 to 599 is right")
        super().__init__(status, detail)
        self.status = status
        self.detail = str(detail)
        self.reason = str(reason) or self.detail
        self.lines = answer_lines(headers)
        if status == 401 and not any(
            line[:17].lower() == b"www-authenticate:" for line in self.lines
        ):
            self.lines.append(b"WWW-Authenticate: Bearer")


def field_line(name: str, value: str) -> bytes:
    """A field as it stands on the wire.

    :raises FieldError: that is no field (RFC 9110 5).
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise FieldError(f"{name!r} is not the name of a field")
    if not isinstance(value, str):
        raise FieldError(f"the value of {name} is text, not {type(value).__name__}")
    if not _VALUE.fullmatch(value):
        raise FieldError(f"the value of {name} cannot stand in a field, or is longer than 8 KiB")
    return b"%b: %b" % (name.encode("ascii"), value.strip(" \t").encode("latin-1"))


def answer_lines(headers: Fields) -> list[bytes]:
    """The lines of an answer's head.

    :raises FieldError: there is one that is no field, or the gateway's own.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = []
    for name, value in pairs:
        line = field_line(name, value)
        why = reserved(name, request=False)
        if why:
            raise FieldError(f"{name} {why}")
        lines.append(line)
    return lines
