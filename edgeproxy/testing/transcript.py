"""Conversations as people read them, and answers taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from edgeproxy.http1.framing import Chunked, Decoder, Length, UntilClose

#: Longer lines are shortened; bodies of tests are rarely worth reading.
_LONGEST = 400
_VARYING = (
    (re.compile(r"(?i)^(x-request-id: )[0-9a-f]{32}$"), r"\1{id}"),
    (re.compile(r'("request_id": ")[0-9a-f]{32}'), r"\1{id}"),
    (re.compile(r"(?i)^(traceparent: 00-)[0-9a-f]{32}-[0-9a-f]{16}"), r"\1{trace}"),
)


def shown(mark: str, data: bytes) -> str:
    """``data`` as lines that begin with ``mark``; ids that differ each time have a name."""
    lines = data.decode("latin-1").split("\n")
    if not lines[-1]:
        lines.pop()
    return "".join(f"{mark} {_plain(line.removesuffix(chr(13)))}".rstrip() + "\n" for line in lines)


def _plain(line: str) -> str:
    for pattern, name in _VARYING:
        line = pattern.sub(name, line)
    if len(line) > _LONGEST:
        return f"{line[:40]}... {len(line)} bytes"
    return line


class Answer(NamedTuple):
    """One answer: fields in their order, names as they were spelled; the body without framing."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    trailers: tuple[str, ...] = ()

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        return [value for each, value in self.fields if each.lower() == name.lower()]

    def field(self, name: str) -> str | None:
        """The value of a field that must not come twice; ``None`` when it is not there."""
        values = self.all(name)
        if len(values) > 1:
            raise ValueError(f"{name} is there {len(values)} times")
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def read_answers(data: bytes, methods: Sequence[str], *, ended: bool) -> list[Answer]:
    """Take a row of answers apart; 1xx ones are in the row, and use up no method.

    ``ended`` tells that the stream has ended in order.

    :raises ValueError: the last answer is not whole, or one is malformed.
    """
    left = list(methods)
    answers = []
    while data:
        status, fields, data = _head(data)
        method = "GET" if status < 200 or not left else left.pop(0)
        answer = Answer(status, fields, b"")
        decoder = _decoder(answer, method)
        body, rest = decoder.feed(data)
        if rest is None:
            if not isinstance(decoder, UntilClose) or not ended:
                raise ValueError(f"the answer's body is not whole: {body!r}")
            rest = b""
        trailers = tuple(line.decode("latin-1") for line in decoder.trailers)
        answers.append(answer._replace(body=body, trailers=trailers))
        data = rest
    return answers


_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9][0-9]) [^\r\n]*\Z")


def _head(data: bytes) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    head, end, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    match = _STATUS_LINE.match(first)
    if match is None or not end:
        raise ValueError(f"no whole head: {data!r}")
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return int(match.group(1)), tuple((name, value.strip()) for name, _, value in pairs), rest


def _decoder(answer: Answer, method: str) -> Decoder:
    length = answer.field("content-length")
    if answer.status < 200 or answer.status in (204, 304) or method == "HEAD":
        return Length(0)
    if answer.field("transfer-encoding") is not None:
        return Chunked()
    return UntilClose() if length is None else Length(int(length))
