"""Strict-Transport-Security on answers over TLS (RFC 6797)."""

from __future__ import annotations

from edgeproxy.config.hsts import Hsts

_NAME = b"strict-transport-security:"
_SIZE = len(_NAME)


class StrictTransport:
    """The field of one host. A service or route that says something itself is not contradicted,
    unless ``replace`` asks for it: browsers heed the first field alone (RFC 6797 8.1)."""

    __slots__ = ("_line", "_replace")

    def __init__(self, config: Hsts) -> None:
        line = b"Strict-Transport-Security: max-age=%d" % config.max_age
        if config.subdomains:
            line += b"; includeSubDomains"
        if config.preload:
            line += b"; preload"
        self._line = line
        self._replace = config.replace

    def apply(self, lines: list[bytes]) -> list[bytes]:
        """The lines of an answer's head, without CRLF, with the field among them."""
        others = [line for line in lines if line[:_SIZE].lower() != _NAME]
        if len(others) != len(lines) and not self._replace:
            return lines
        return [*others, self._line]
