"""edgeproxy itself, started as its README says."""

import importlib.util
import json
import sys
from hashlib import sha256
from pathlib import Path

from bench import job
from bench.peers.base import Peer, output_of
from bench.peers.stock import twisted_versions


class Edgeproxy(Peer):
    """One process, from a configuration file, as `twistd -n edgeproxy` runs it."""

    name = "edgeproxy"
    program = "twistd"
    policy = "hashed keys, sliding window, identity and rate fields, JSON log"

    @classmethod
    def found(cls) -> str | None:
        twistd = Path(sys.executable).with_name("twistd")
        # Written while edgeproxy grows: without its service there is nothing to run.
        there = importlib.util.find_spec("edgeproxy.tap") is not None
        return str(twistd) if twistd.exists() and there else None

    @classmethod
    def version(cls) -> str:
        code = "from importlib.metadata import version; print(version('edgeproxy'))"
        return f"{output_of(sys.executable, '-c', code).strip()}, Twisted {twisted_versions()}"

    def prepare(self) -> None:
        config = {
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
        # YAML 1.2 holds JSON.
        (self.folder / "edgeproxy.yaml").write_text(json.dumps(config, indent=1))
        with (self.folder / "keys.jsonl").open("w") as keys:
            keys.writelines(_record(key) + "\n" for key in self.setting.job.keys)
        (self.folder / "keys.jsonl").chmod(0o600)

    def command(self) -> list[str]:
        config = str(self.folder / "edgeproxy.yaml")
        return [self.found() or "twistd", "-n", "--pidfile=", "edgeproxy", "--config", config]


def _record(key: job.Key) -> str:
    """One line of the key file: the digest of the whole credential, never the credential."""
    return json.dumps(
        {
            "id": key.id,
            "name": key.name,
            "digest": sha256(key.credential.encode()).hexdigest(),
            "created": "2026-01-01T00:00:00Z",
            "groups": [key.group],
        }
    )
