"""One address of a service: what a connection is made to."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any, NamedTuple


class Address(NamedTuple):
    """``at`` is what ``socket.connect`` takes for ``family``. As text it is what logs show:
    ``10.0.0.1:9001``, ``[::1]:9001``, ``unix:/run/app.sock``."""

    family: socket.AddressFamily
    at: Any

    def __str__(self) -> str:
        if self.family == socket.AF_UNIX:
            return f"unix:{self.at}"
        host, port = self.at
        return f"[{host}]:{port}" if self.family == socket.AF_INET6 else f"{host}:{port}"


def on_port(host: str, port: int) -> Address:
    """The address of a port at an IP address, which is given as text."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Address(family, (host, port))


def is_ip(host: str) -> bool:
    """Whether a host is an IP address, which needs no look-up."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
