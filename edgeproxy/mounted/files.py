"""What ``twisted.web.static.File`` trusts its callers with, looked at before it is asked.

It opens what it finds in the reactor's thread, and takes any Range for its word: some of what a
client may write there, or into a path, ends in a traceback for each request.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.web.http_headers import Headers
from twisted.web.static import File

#: The first byte and the last, or how many of the last ones; more digits no file has.
_ONE_RANGE = re.compile(rb"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))\Z")


def one_range(fields: Headers) -> None:
    """Leave one range of bytes in a request's head, and remove any other Range.

    RFC 9110 14.2 lets a server ignore it, and the whole is answered then. Of several ranges (a
    thousand fit into a head) Twisted's producer fails over two already, when the boundary between
    them falls on the end of its buffer; what it cannot read it logs.
    """
    values = fields.getRawHeaders(b"Range")
    if values is not None and (len(values) > 1 or not _readable(values[0])):
        fields.removeHeader(b"Range")


def _readable(value: bytes) -> bool:
    match = _ONE_RANGE.match(value)
    return match is not None and (not match[2] or int(match[1]) <= int(match[2]))


def looked_at(resource: Any, request: Any) -> Any:
    """The resource that may render ``request``: itself, or "not there" for a ``File`` that is
    neither a file nor a folder: opening a FIFO waits for its other end, and a device never ends."""
    file = getattr(resource, "original", resource)  # within twisted.web's EncodingResourceWrapper
    if not isinstance(file, File):
        return resource
    file.restat(False)
    if not file.exists() or file.isdir():
        return resource
    if not file.isfile():
        return file.childNotFound
    value = request.requestHeaders.getRawHeaders(b"Range", [b""])[0]
    if value.startswith(b"bytes=-") and int(value[7:]) > file.getsize():
        # RFC 9110 14.1.2: the whole; Twisted would look before the file's beginning.
        request.requestHeaders.removeHeader(b"Range")
    return resource


def has_child(resource: Any, segment: bytes) -> bool:
    """Whether it makes sense to ask for a child: a ``File`` logs a traceback for a name that is
    not UTF-8, and finds nothing."""
    if not isinstance(resource, File):
        return True
    try:
        segment.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
