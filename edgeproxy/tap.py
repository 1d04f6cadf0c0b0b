"""``twistd edgeproxy``: options, and the service that they describe.

Everything that can fail on the way to a listening gateway fails here, before twistd goes into the
background: one line for each reason on standard error, exit status 1, no traceback.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from edgeproxy.config import ConfigError, load
from edgeproxy.search import NOT_FOUND, SYSTEM, find_config


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

    def parseOptions(self, options: Any = None) -> None:
        """As Twisted's, but a mistake is one line on standard error, without all the help."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            _fail(f"{error}; `twistd edgeproxy --help` tells what there is")

    def postOptions(self) -> None:
        if self["config"] is not None and self["to"] is not None:
            raise usage.UsageError("--config and --to exclude each other")

    def parseArgs(self, *args: str) -> None:
        if args:
            raise usage.UsageError(f"no argument is expected, but {args[0]!r} was given")


def makeService(options: Options) -> IService:
    """Build the gateway and bind its ports."""
    if sys.platform == "win32":
        _fail("edgeproxy runs on Linux and macOS; Windows is not supported")
    reactor = chosen_reactor()
    from edgeproxy.notify import Notify
    from edgeproxy.service import Gateway
    from edgeproxy.starting import StartError, bind_all, let_go_of_threads
    from edgeproxy.transport.inherited import Inherited

    let_go_of_threads(reactor)
    try:
        if options["to"] is not None:
            return _without_file(reactor, options["to"], options["https"])
        path = find_config(options["config"])
        if path is None:
            _fail(f"{NOT_FOUND}, --to URL needs none")
        config = load(path)
        gateway = Gateway(reactor, config, notify=Notify(reactor, os.environ))
        gateway.prepare(bind_all(config, Inherited(os.environ)))
    except (ConfigError, StartError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return gateway  # type: ignore[return-value]


def _without_file(reactor: Any, to: str, https: str) -> IService:
    from edgeproxy import quickstart

    quick = quickstart.gateway(reactor, to, https, quickstart.state_folder())
    print(quick.curl, flush=True)
    return quick.gateway  # type: ignore[return-value]


def chosen_reactor() -> Any:
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
