"""Every proxy that can do the job, in the order of the table."""

from bench.peers.base import Peer, Setting
from bench.peers.nginx import Nginx, NginxLua

ALL: tuple[type[Peer], ...] = (Nginx, NginxLua)
"""The first is what the others are compared with."""

__all__ = ["ALL", "Peer", "Setting"]
