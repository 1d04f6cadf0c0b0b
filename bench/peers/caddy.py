"""Caddy from the Python package `caddyserver`: keys in a map; it has no limits of its own."""

import re
from collections.abc import Mapping

from bench import job
from bench.peers.base import Peer, output_of

_CONFIG = """\
{{
    admin off
    auto_https off
    persist_config off
    servers {{
        protocols h1 h2
    }}
    log {{
        output file {folder}/caddy.log
        level ERROR
    }}
}}
https://{host}:{port} {{
    bind 127.0.0.1
    tls {certificate.chain} {certificate.key}
    log {{
        output file {folder}/access.log {{
            roll_disabled
        }}
        format json
    }}
    map {{header.X-API-Key}} {{consumer}} {{consumer_name}} {{consumer_group}} {{
{keys}
        default "" "" ""
    }}
    @unknown vars {{consumer}} ""
    header @unknown WWW-Authenticate Bearer
    respond @unknown 401
    reverse_proxy 127.0.0.1:{origin} {{
        header_up X-Consumer-Id {{consumer}}
        header_up X-Consumer-Name {{consumer_name}}
        header_up X-Consumer-Groups {{consumer_group}}
        header_up -X-API-Key
        header_up X-Request-Id {{http.request.uuid}}
        header_up X-Forwarded-Port {port}
        transport http {{
            keepalive_idle_conns_per_host 256
            compression off
        }}
    }}
}}
"""


class Caddy(Peer):
    """One processor for the Go runtime."""

    name = "Caddy"
    program = "caddy"
    policy = "keys in a map, identity fields; no limits without a plugin"
    limits = False
    http2 = True

    @classmethod
    def version(cls) -> str:
        program = cls.found() or "caddy"
        version = re.search(r"v?(\d[\d.]+)", output_of(program, "version"))
        go = re.search(r"go([\d.]+)", output_of(program, "build-info"))
        return f"{version[1] if version else 'unknown'}, Go {go[1] if go else 'unknown'}"

    def prepare(self) -> None:
        (self.folder / "Caddyfile").write_text(
            _CONFIG.format(
                folder=self.folder,
                host=job.HOST,
                port=self.port,
                certificate=self.setting.certificate,
                origin=self.setting.origin,
                keys="\n".join(
                    f'        {key.credential} {key.id} "{key.name}" {key.group}'
                    for key in self.setting.job.keys
                ),
            )
        )

    def command(self) -> list[str]:
        config = str(self.folder / "Caddyfile")
        return [self.found() or "caddy", "run", "--config", config, "--adapter", "caddyfile"]

    def environment(self) -> Mapping[str, str]:
        return {"GOMAXPROCS": "1", "HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}
