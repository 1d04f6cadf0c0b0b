"""A first start without any preparation: a development certificate, a key, a configuration.

Used by ``edgeproxy init``, by ``twistd edgeproxy --to URL`` and by the demonstration.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import NamedTuple

from cryptography import x509

from edgeproxy.certs.development import DEFAULT_NAMES, make
from edgeproxy.config import Config
from edgeproxy.identity import keyadmin
from edgeproxy.identity.apikey import RANDOM_BYTES

#: A development certificate is made anew when less than this is left of it.
_FRESH = timedelta(days=7)


class FirstKey(NamedTuple):
    """A key just made; its credential is in no file."""

    id: str
    credential: str


def certificate(folder: Path) -> Path:
    """A development certificate for this machine in ``folder``, kept while it is valid.

    :return: its path, for ``curl --cacert``.
    """
    chain, key = folder / "localhost.pem", folder / "localhost-key.pem"
    if chain.exists() and key.exists() and _lasts(chain):
        return chain
    folder.mkdir(parents=True, exist_ok=True)
    made = make(DEFAULT_NAMES, datetime.now(UTC))
    write_private(key, made.key_pem)
    chain.write_bytes(made.chain_pem)
    return chain


def _lasts(chain: Path) -> bool:
    try:
        found = x509.load_pem_x509_certificate(chain.read_bytes())
    except (ValueError, OSError):
        return False
    return found.not_valid_after_utc - datetime.now(UTC) > _FRESH


def write_private(path: Path, data: bytes) -> None:
    """Write a file that nobody else may read, from its first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def key(path: Path, name: str) -> FirstKey:
    """Add a key to a key file."""
    made = keyadmin.add(path, name, now=time(), random_bytes=os.urandom(RANDOM_BYTES))
    return FirstKey(made.id, made.credential)


def curl(port: int, cacert: Path, credential: str, path: str = "/") -> str:
    """A command line that works as pasted, in any folder."""
    return (
        f"curl --cacert {_quoted(cacert)} -H 'X-API-Key: {credential}' "
        f"https://localhost:{port}{path}"
    )


def _quoted(path: Path) -> str:
    text = str(path.resolve())
    if all(c.isalnum() or c in "/._-+" for c in text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"


def fresh_folder(folder: Path) -> None:
    """Make a folder for this user alone, empty of keys from before."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / "keys.jsonl").unlink(missing_ok=True)


def state_folder() -> Path:
    """Where a start without a file keeps its certificate (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "edgeproxy"


def relay_to(url: str, https: str) -> str:
    """A configuration that relays everything to one service, callers with a key only."""
    return json.dumps(
        {
            "listen": {"https": https},
            "certs": "certs",
            "keys": "keys.jsonl",
            "access_log": "off",
            "upstreams": {"service": url},
            "routes": {"*": {"/": "service"}},
        }
    )


def prepare(config: Config, folder: Path) -> str:
    """Make what a start without a file needs in ``folder``.

    :return: what to tell the person at the terminal: a curl line that works as pasted.
    """
    fresh_folder(folder)
    chain = certificate(config.certs.folder)
    made = key(config.keys, "quickstart")
    port = int(config.listen.https.rpartition(":")[2])
    return curl(port, chain, made.credential)
