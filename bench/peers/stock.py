"""Twisted's own `ReverseProxyResource` in a stock `Site` over stock TLS.

Run as a program it is the proxy: `python -m bench.peers.stock PORT ORIGIN CHAIN KEY LOG`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.peers.base import Peer, output_of


class Stock(Peer):
    """What somebody gets from twisted.web today, without a line of their own."""

    name = "twisted.web"
    program = sys.executable
    policy = "no keys, no limits, no pool"
    closed = limits = False
    tells = ()

    @classmethod
    def version(cls) -> str:
        return twisted_versions()

    def prepare(self) -> None:
        """Everything stands on the command line."""

    def command(self) -> list[str]:
        chain, key, _ = self.setting.certificate
        log = self.folder / "access.log"
        numbers = [str(self.port), str(self.setting.origin)]
        return [sys.executable, "-m", "bench.peers.stock", *numbers, str(chain), str(key), str(log)]

    def environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def twisted_versions() -> str:
    """Versions of Twisted, CPython and the OpenSSL that pyOpenSSL carries."""
    code = (
        "import platform, twisted; from OpenSSL import SSL;"
        "print(twisted.__version__ + ', CPython', platform.python_version() + ',',"
        " ' '.join(SSL.OpenSSL_version(0).decode().split()[:2]))"
    )
    return output_of(sys.executable, "-c", code).strip()


def main(port: int, origin: int, chain: str, key: str, log: str) -> None:
    """Serve until a signal comes. Imports here, so that the bench itself needs no reactor."""
    from OpenSSL import SSL
    from twisted.internet import reactor, ssl
    from twisted.web import proxy, server

    stock: Any = SimpleNamespace(reactor=reactor, ssl=ssl, proxy=proxy, server=server)  # untyped
    site = stock.server.Site(
        stock.proxy.ReverseProxyResource("127.0.0.1", origin, b""), logPath=log
    )
    context = stock.ssl.DefaultOpenSSLContextFactory(key, chain, sslmethod=SSL.TLS_SERVER_METHOD)
    stock.reactor.listenSSL(port, site, context, backlog=4096, interface="127.0.0.1")
    stock.reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6])
