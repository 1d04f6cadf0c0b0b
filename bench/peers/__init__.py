"""Every proxy that can do the job, in the order of the table."""

from bench.peers.base import Peer, Setting
from bench.peers.caddy import Caddy
from bench.peers.edgeproxy import Edgeproxy
from bench.peers.envoy import Envoy
from bench.peers.haproxy import HAProxy
from bench.peers.nginx import Nginx, NginxLua
from bench.peers.stock import Stock

ALL: tuple[type[Peer], ...] = (Nginx, NginxLua, HAProxy, Envoy, Caddy, Stock, Edgeproxy)
"""The first is what the others are compared with."""

__all__ = ["ALL", "Edgeproxy", "Peer", "Setting"]
