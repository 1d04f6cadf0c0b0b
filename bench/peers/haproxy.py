"""HAProxy: keys in a map, a stick table as the window."""

import re

from bench import job
from bench.peers.base import Peer, output_of

_CONFIG = """\
global
    nbthread 1
    maxconn 4096
    log stdout format raw local0 info
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    log global
    timeout client 300s
    timeout server 300s
    timeout connect 3s
    timeout http-request 10s
    timeout http-keep-alive 300s
    option http-keep-alive
    http-reuse always
    log-format '{{"time":"%tr","id":"%ID","client":"%ci","tls":"%sslv","method":"%HM",\
"path":"%HPO","consumer":"%[var(txn.id)]","status":%ST,"received":%U,"sent":%B,\
"upstream":"%si:%sp","total":%Ta,"connect":%Tc,"first_byte":%Tr,"end":"%ts"}}'
    unique-id-format %{{+X}}o%ci%cp%fi%fp%Ts%rt%pid
frontend edge
    bind 127.0.0.1:{port} ssl crt {certificate.both} alpn h2,http/1.1
    stick-table type string len 16 size 100k expire 20s store http_req_rate({window}s)
    http-request set-var(txn.caller) req.hdr(X-API-Key),map_str({folder}/keys.map)
    http-request return status 401 hdr WWW-Authenticate Bearer if !{{ var(txn.caller) -m found }}
    http-request set-var(txn.id) var(txn.caller),field(1,|)
    http-request track-sc0 var(txn.id)
    http-request set-var(txn.used) sc_http_req_rate(0)
    http-request return status 429 hdr Retry-After 1 if {{ var(txn.used) -m int gt {rate} }}
    http-request set-header X-Consumer-Id %[var(txn.id)]
    http-request set-header X-Consumer-Name %[var(txn.caller),field(2,|)]
    http-request set-header X-Consumer-Groups %[var(txn.caller),field(3,|)]
    http-request del-header X-API-Key
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[req.hdr(Host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Request-Id %[unique-id]
    http-response set-header RateLimit-Policy '"default";q={rate};w={window}'
    http-response set-header RateLimit '"default";r=%[int({rate}),sub(txn.used)];t={window}'
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin} pool-max-conn 256
"""


class HAProxy(Peer):
    """One thread; its log goes to a file a line at a time, it has no buffer for that."""

    name = "HAProxy"
    program = "haproxy"
    policy = "keys in a map, request rate in a stick table, identity and rate fields (no reset)"
    http2 = True

    @classmethod
    def version(cls) -> str:
        text = output_of("haproxy", "-vv")
        server = re.search(r"HAProxy version ([\d.]+)", text)
        library = re.search(r"Running on OpenSSL version : OpenSSL ([\w.]+)", text)
        if server is None or library is None:
            return "unknown"
        return f"{server[1]}, OpenSSL {library[1]}"

    def prepare(self) -> None:
        (self.folder / "keys.map").write_text(
            "".join(
                f"{key.credential} {key.id}|{key.name}|{key.group}\n"
                for key in self.setting.job.keys
            )
        )
        (self.folder / "haproxy.cfg").write_text(
            _CONFIG.format(
                folder=self.folder,
                certificate=self.setting.certificate,
                port=self.port,
                origin=self.setting.origin,
                rate=job.RATE,
                window=job.WINDOW,
            )
        )

    def command(self) -> list[str]:
        return ["haproxy", "-db", "-f", str(self.folder / "haproxy.cfg")]
