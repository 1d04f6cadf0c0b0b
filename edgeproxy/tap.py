"""``twistd edgeproxy``: options, and the service that they describe.

Everything that can fail on the way to a listening gateway fails here, before twistd goes into the
background: one line for each reason on standard error, exit status 1, no traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from edgeproxy.config import Config, ConfigError, load, parse

SYSTEM = Path("/etc/edgeproxy/edgeproxy.yaml")


class Options(usage.Options):
    """What may stand after ``edgeproxy`` on twistd's command line."""

    synopsis = "[options]"
    longdesc = (
        "Runs the gateway described by --config FILE, else by ./edgeproxy.yaml, else by "
        f"{SYSTEM}. With --to URL no file is needed: a development certificate and one API key "
        "are made, and a curl line that works is printed. "
        "Example: twistd -n edgeproxy --to http://127.0.0.1:9001"
    )
    optParameters = [
        ["config", "c", None, "the configuration file"],
        ["to", None, None, "relay everything to this URL, without a configuration file"],
        ["https", None, ":8443", "with --to: the address to listen on"],
    ]

    def postOptions(self) -> None:
        if self["config"] is not None and self["to"] is not None:
            raise usage.UsageError("--config and --to exclude each other")

    def parseArgs(self, *args: str) -> None:
        if args:
            raise usage.UsageError(f"no argument is expected, but {args[0]!r} was given")


def find_config(given: str | None) -> Path | None:
    """The configuration file to use; ``None`` when none was named and none is there."""
    if given is not None:
        return Path(given)
    for path in (Path("edgeproxy.yaml"), SYSTEM):
        if path.exists():
            return path
    return None


def makeService(options: Options) -> IService:
    """Build the gateway and bind its ports."""
    if sys.platform == "win32":
        _fail("edgeproxy runs on Linux and macOS; Windows is not supported")
    reactor = _reactor()
    from edgeproxy.service import Gateway, StartError

    note = ""
    try:
        if options["to"] is not None:
            config, note = _without_file(options["to"], options["https"])
        else:
            config = _from_file(options["config"])
        gateway = Gateway(reactor, config)
        gateway.prepare()
    except (ConfigError, StartError) as error:
        _fail(str(error))
    if note:
        print(note, flush=True)
    return gateway  # type: ignore[return-value]


def _from_file(given: str | None) -> Config:
    path = find_config(given)
    if path is None:
        _fail(
            f"no configuration: there is neither ./edgeproxy.yaml nor {SYSTEM}; "
            "`edgeproxy init` writes one, --config FILE names one, --to URL needs none"
        )
    return load(path)


def _without_file(to: str, https: str) -> tuple[Config, str]:
    from edgeproxy import quickstart

    folder = quickstart.state_folder()
    config = parse(quickstart.relay_to(to, https), "--to", folder)
    return config, quickstart.prepare(config, folder)


def _reactor() -> Any:
    """The reactor: ours, unless twistd was told another or one is there already."""
    if "twisted.internet.reactor" not in sys.modules:
        try:
            from edgeproxy.transport.reactor import install
        except ImportError:
            pass  # no epoll on this system: Twisted chooses
        else:
            install()
    from twisted.internet import reactor

    return reactor


def _fail(message: str) -> NoReturn:
    for line in message.splitlines():
        print(f"edgeproxy: {line}", file=sys.stderr)
    raise SystemExit(1)
