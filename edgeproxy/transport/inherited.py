"""Listening sockets that systemd hands over (socket activation, sd_listen_fds(3)).

``listen: { https: systemd:NAME }`` takes all sockets of the name, which is what
``FileDescriptorName=`` of their socket unit says. systemd goes on holding them: connections that
come while no gateway runs wait for the next one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

from twisted.python.systemd import ListenFDs

from edgeproxy.transport.port import PortError

_SCHEME = "systemd:"


def name_of(address: str) -> str | None:
    """The name in ``systemd:NAME``; ``None`` for an address of another form."""
    return address.removeprefix(_SCHEME) if address.startswith(_SCHEME) else None


class Inherited:
    """The descriptors that were passed, by name, each to be taken once.

    ``environ`` loses what it says of them, and children do not inherit them.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        # ListenFDs keeps only one descriptor of each name, so the names are read here.
        names = environ.get("LISTEN_FDNAMES", "").split(":")
        if environ.get("LISTEN_FDS") != str(len(names)):
            environ.pop("LISTEN_FDS", None)  # or ListenFDs counts up to whatever stands there
        passed = ListenFDs.fromEnvironment(environ)
        for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            environ.pop(variable, None)
        self._left: dict[str, list[int]] = {}
        for name, descriptor in zip(names, passed.inheritedDescriptors(), strict=False):
            with suppress(OSError):  # it is not open: told when it is taken
                os.set_inheritable(descriptor, False)
            self._left.setdefault(name, []).append(descriptor)
        self._names = sorted(self._left)

    @property
    def unused(self) -> list[str]:
        """The names that nobody has taken."""
        return sorted(self._left)

    def take(self, name: str) -> list[socket.socket]:
        """The listening sockets of a name, IPv4 and IPv6 for instance.

        :raises PortError: there is none, or it is not one to accept TCP connections from.
        """
        descriptors = self._left.pop(name, None)
        if descriptors is None:
            there = f"it passed {', '.join(self._names)}" if self._names else "it passed none"
            raise PortError(
                f"systemd:{name}: systemd passed no socket of that name, {there}; start the "
                f"socket unit with FileDescriptorName={name}, or name another"
            )
        sockets: list[socket.socket] = []
        try:
            for descriptor in descriptors:
                sockets.append(_adopted(name, descriptor))
        except PortError:
            for each in sockets:
                each.close()
            raise
        return sockets


def _adopted(name: str, descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        raise PortError(f"systemd:{name}: that is no socket; use ListenStream=") from None
    why = _unfit(sock)
    if why:
        sock.close()
        raise PortError(f"systemd:{name}: {why}")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def _unfit(sock: socket.socket) -> str:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "that is no TCP socket; use ListenStream= with a port"
    if sock.type != socket.SOCK_STREAM:
        return "that is a datagram socket; use ListenStream= in place of ListenDatagram="
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "that socket does not listen; use ListenStream=, without Accept=yes"
    return ""
