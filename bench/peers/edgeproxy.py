"""edgeproxy itself, started as its README says."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import job, tokens
from bench.peers.base import Peer, output_of
from bench.peers.stock import twisted_versions
from edgeproxy.identity import apikey, keyfile


class Edgeproxy(Peer):
    """One process, from a configuration file, as `twistd -n edgeproxy` runs it."""

    name = "edgeproxy"
    program = "twistd"
    remedy = "twistd --help does not list it"
    policy = "hashed keys, sliding window, identity and rate fields, JSON log"
    #: The class in FILTERS that stands before every route.
    filter = ""

    @classmethod
    def found(cls) -> str | None:
        twistd = Path(sys.executable).with_name("twistd")
        return str(twistd) if " edgeproxy " in output_of(str(twistd), "--help") else None

    @classmethod
    def version(cls) -> str:
        code = "from importlib.metadata import version; print(version('edgeproxy'))"
        return f"{output_of(sys.executable, '-c', code).strip()}, Twisted {twisted_versions()}"

    def prepare(self) -> None:
        config: dict[str, Any] = {
            "listen": {"https": f"127.0.0.1:{self.port}", "backlog": 4096, "connections": 16384},
            "certs": str(self.setting.certificate.chain.parent),
            "keys": "keys.jsonl",
            "limits": {"default": {"rate": f"{job.RATE}/{job.WINDOW}s"}},
            "defaults": {"auth": "api_key", "limit": "default"},
            "upstreams": {"origin": f"http://127.0.0.1:{self.setting.origin}"},
            "routes": {job.HOST: dict.fromkeys(self.setting.job.prefixes, "origin")},
            "timeouts": {"keep_alive": "300s", "requests_per_connection": 100_000_000},
            "access_log": "access.log",
        }
        config |= self.identity()
        if self.filter:
            config["defaults"] |= {"filters": f"benched.{self.filter}"}
            (self.folder / "benched.py").write_text(FILTERS)
        # YAML 1.2 holds JSON.
        (self.folder / "edgeproxy.yaml").write_text(json.dumps(config, indent=1))
        keys = self.folder / "keys.jsonl"
        keys.write_bytes(b"".join(self.records()))
        keys.chmod(0o600)

    def identity(self) -> dict[str, Any]:
        """What the configuration says of callers, beside their keys."""
        return {}

    def records(self) -> Iterable[bytes]:
        """The lines of the key file."""
        return (_record(key) for key in self.setting.job.keys)

    def command(self) -> list[str]:
        config = str(self.folder / "edgeproxy.yaml")
        return [self.found() or "twistd", "-n", "--pidfile=", "edgeproxy", "--config", config]


FILTERS = """
from edgeproxy.filters import Filter

class Empty(Filter):
    def on_request(self, request):
        pass

class Tenant(Filter):
    sets = ["X-Tenant"]

    def on_request(self, request):
        name = request.principal.name
        if request.headers.get("X-Blocked") is None:
            request.headers["X-Tenant"] = name

    def on_response(self, request, response):
        response.headers["X-Frame-Options"] = "DENY"
"""


class EmptyFilter(Edgeproxy):
    """With one filter that does nothing."""

    filter = "Empty"


class TenantFilter(Edgeproxy):
    """With one filter that reads a field, and sets one in each direction."""

    filter = "Tenant"


class Tokens(Edgeproxy):
    """Callers show JSON Web Tokens."""

    def identity(self) -> dict[str, Any]:
        entry = {"jwt": tokens.ISSUER, "audience": "shop", "groups": "groups"}
        return {
            "auth": {"partner": entry | {"jwks": tokens.key_set()}},
            "defaults": {"auth": "partner", "limit": "default"},
        }

    def records(self) -> Iterable[bytes]:
        return ()


def _record(key: job.Key) -> bytes:
    """One line of the key file: the digest of the whole credential, never the credential."""
    digest = apikey.digest(key.credential.encode()).hex()
    record = {"id": key.id, "name": key.name, "digest": digest, "groups": [key.group]}
    return keyfile.line_of(record)
