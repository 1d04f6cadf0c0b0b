"""A first start without any preparation: a development certificate, a key, a configuration.

Used by ``edgeproxy init``, by ``twistd edgeproxy --to URL`` and by the demonstration.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeproxy.certs.development import DEFAULT_NAMES, make
from edgeproxy.certs.names import NameMap
from edgeproxy.certs.scan import scan
from edgeproxy.config import Config, ConfigError, Problem, parse
from edgeproxy.config.keys import Keys
from edgeproxy.config.model import Control
from edgeproxy.identity import keyadmin
from edgeproxy.identity.apikey import RANDOM_BYTES

if TYPE_CHECKING:
    from edgeproxy.service import Gateway

#: A development certificate is made anew when less than this is left of it.
_FRESH = timedelta(days=7)


class FirstKey(NamedTuple):
    """A key just made; its credential is in no file."""

    id: str
    credential: str


class Quick(NamedTuple):
    """A gateway that is ready to be started, and the line that proves it."""

    gateway: Gateway
    curl: str
    port: int


# -- files -------------------------------------------------------------------------------------


def certificate(folder: Path) -> Path:
    """A development certificate for this machine in ``folder``, kept while it is good.

    :return: its path, for ``curl --cacert``.
    :raises OSError: it cannot be written.
    """
    chain, key = folder / "localhost.pem", folder / "localhost-key.pem"
    if _lasts(chain, key):
        return chain
    folder.mkdir(parents=True, exist_ok=True)
    made = make(DEFAULT_NAMES, datetime.now(UTC))
    write_private(key, made.key_pem)
    chain.write_bytes(made.chain_pem)
    return chain


def _lasts(chain: Path, key: Path) -> bool:
    """Whether both are there, belong together and will do for some days."""
    try:
        files = {"chain": chain.read_bytes(), "key": key.read_bytes()}
    except OSError:
        return False
    now = datetime.now(UTC)
    return any(
        found.not_after - now > _FRESH and set(DEFAULT_NAMES) <= set(found.names)
        for found in scan(files, now).chains
    )


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


def _private_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def state_folder() -> Path:
    """Where a start without a file keeps its certificate (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "edgeproxy"


# -- what the person at the terminal gets ---------------------------------------------------------


def curl(port: int, cacert: Path, credential: str, path: str = "/") -> str:
    """A command line that works as pasted, in any folder."""
    trusted = shlex.quote(os.path.abspath(cacert))
    return f"curl --cacert {trusted} -H 'X-API-Key: {credential}' https://localhost:{port}{path}"


def trusted(names: NameMap, folder: Path, own: Path, beside: Path) -> Path:
    """The file by which a client verifies what answers for ``localhost``.

    That is ``own``, the development certificate, unless one that was put there by somebody else
    answers: then a file ``beside`` with what it sends. (A client that is given a certificate to
    trust trusts that one; it need not be a root.)
    """
    entry = names.choose("localhost")
    if entry is None or all(_same(folder / file, own) for c in entry.chains for file in c.files):
        return own
    if any(_same(folder / file, own) for chain in entry.chains for file in chain.files):
        return own
    beside.write_bytes(b"".join(chain.chain_pem for chain in entry.chains))
    return beside


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


# -- a whole gateway without a configuration file ----------------------------------------------


def relay_to(url: str, https: str) -> str:
    """A configuration that relays everything to one service, callers with a key only.

    The path of a socket is relative to where the command was given.
    """
    kind, colon, path = url.partition(":")
    if kind == "unix" and path and not path.startswith(("/", "@")):
        url = kind + colon + os.path.abspath(path)
    return json.dumps(
        {
            "listen": {"https": https},
            "certs": "certs",
            "access_log": "off",
            "upstreams": {"service": url},
            "routes": {"*": {"/": "service"}},
        }
    )


def gateway(
    reactor: Any,
    url: str,
    https: str,
    folder: Path,
    prepare: Callable[[Path], object] = lambda certs: None,
) -> Quick:
    """A gateway that relays everything to ``url``; its state is kept in ``folder``.

    The port is taken first: when it is in use nothing is written. Each port has its own keys and
    control socket, so that one start does not make another's key worthless; the certificate is
    shared. ``prepare`` may put more into the folder of certificates.

    :raises ConfigError: ``url`` or ``https`` is wrong.
    :raises StartError: the gateway cannot start, the port is in use for instance.
    :raises OSError: ``folder`` cannot be written.
    """
    from edgeproxy.service import Gateway
    from edgeproxy.starting import bind_all

    config = _configuration(url, https, folder)
    bound = bind_all(config)
    port: int = bound[0].socket.getsockname()[1]
    own = folder / str(port)
    _private_folder(folder)
    _private_folder(own)
    config = config.model_copy(
        update={
            "keys": Keys(file=own / "keys.jsonl"),
            "state": own,
            "control": Control(path=own / "edgeproxy.sock"),
            "access_log": own / "access.log",
        }
    )
    config.keys.file.unlink(missing_ok=True)
    chain = certificate(config.certs.folder)
    prepare(config.certs.folder)
    made = key(config.keys.file, "quickstart")
    ready = Gateway(reactor, config)
    ready.prepare(bound)
    cacert = trusted(ready.tls.names, config.certs.folder, chain, own / "trusted.pem")
    return Quick(ready, curl(port, cacert, made.credential), port)


def _configuration(url: str, https: str, folder: Path) -> Config:
    """Parse what was given on the command line; problems name the option, not a place."""
    try:
        parse(json.dumps({"listen": {"https": https}, "routes": {"*": {"/": {"page": True}}}}))
    except ConfigError as error:
        raise _of_option("--https", error) from None
    try:
        return parse(relay_to(url, https), "--to", folder)
    except ConfigError as error:
        raise _of_option("--to", error) from None


class OptionError(ConfigError):
    """A wrong value on the command line."""

    def __str__(self) -> str:
        return "; ".join(f"{problem.file}: {problem.message}" for problem in self.problems)


def _of_option(option: str, error: ConfigError) -> OptionError:
    return OptionError(Problem(option, 1, 1, each.message) for each in error.problems)
