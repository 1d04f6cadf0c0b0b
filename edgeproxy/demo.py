"""``make run``: the gateway before a small service, on this machine, with nothing to prepare.

Everything that it keeps stands in one folder that git ignores: the development certificate stays
from one start to the next, the key is new each time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

PORT = 8443


def main(arguments: list[str] | None = None) -> None:
    """Run until SIGINT or SIGTERM; one line and exit status 1 when it cannot start."""
    options = _options(arguments)
    reactor = _reactor()
    from edgeproxy import quickstart
    from edgeproxy.config import ConfigError
    from edgeproxy.starting import StartError

    service = _service(reactor)
    try:
        quick = quickstart.gateway(
            reactor,
            f"http://127.0.0.1:{service.getHost().port}",
            f":{options.port}",
            options.state,
            lambda certs: _link(certs / "yours", options.certs),
        )
    except StartError as error:
        if error.busy:
            other = 9443 if options.port != 9443 else 10443
            _fail(f"port {options.port} is taken; choose another: make run PORT={other}")
        _fail(str(error))
    except ConfigError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    _run(reactor, quick)


class _Parser(argparse.ArgumentParser):
    """A mistake is one line."""

    def error(self, message: str) -> NoReturn:
        _fail(message)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m edgeproxy.demo", description="The gateway before a demonstration service."
    )
    parser.add_argument("--port", type=_port, default=PORT, help="port for https; 0: any free one")
    parser.add_argument("--state", type=Path, default=Path(".run"), help="folder for what is kept")
    parser.add_argument(
        "--certs", type=Path, default=Path("certs"), help="folder with certificates of your own"
    )
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535 is right")
    return int(text)


def _reactor() -> Any:
    from edgeproxy.tap import chosen_reactor

    return chosen_reactor()


def _service(reactor: Any) -> Any:
    """The demonstration service on a free port of this machine: tells what reached it."""
    from twisted.web.resource import Resource
    from twisted.web.server import Site

    class Told(Resource):
        """Answers any request with its own head, as JSON."""

        isLeaf = True

        def render(self, request: Any) -> bytes:
            body = request.content.read(65536)
            told = {
                "message": "The demonstration service behind edgeproxy got this request.",
                "method": request.method.decode("ascii", "replace"),
                "path": request.uri.decode("ascii", "replace"),
                "fields": [
                    [name.decode("latin-1"), value.decode("latin-1")]
                    for name, values in request.requestHeaders.getAllRawHeaders()
                    for value in values
                ],
                "body_bytes": len(body),
            }
            request.setHeader(b"content-type", b"application/json")
            return json.dumps(told, indent=2).encode("ascii") + b"\n"

    return reactor.listenTCP(0, Site(Told()), interface="127.0.0.1")  # type: ignore[no-untyped-call]


def _link(link: Path, certs: Path) -> None:
    """Let certificates that somebody puts into ``certs`` be found, also while it runs."""
    certs.mkdir(parents=True, exist_ok=True)
    target = os.path.abspath(certs)
    if not (link.is_symlink() and os.readlink(link) == target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _run(reactor: Any, quick: Any) -> None:
    from twisted.logger import (
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        globalLogBeginner,
        textFileLogObserver,
    )

    warnings: Any = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    stderr: Any = textFileLogObserver(sys.stderr)
    observer: Any = FilteringLogObserver(stderr, [warnings])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    print(
        f"edgeproxy on https://localhost:{quick.port} before a demonstration service; "
        f"Ctrl-C ends it.\nIn another terminal:\n\n{quick.curl}\n",
        flush=True,
    )
    reactor.addSystemEventTrigger("before", "shutdown", quick.gateway.stopService)
    quick.gateway.startService()
    reactor.run()


def _fail(message: str) -> NoReturn:
    for line in message.splitlines():
        print(f"edgeproxy: {line}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
