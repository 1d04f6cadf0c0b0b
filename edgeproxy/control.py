"""The control socket: what `edgeproxy status`, `upstreams`, `reload` and `drain` talk to.

One JSON object a line, each way:

    {"command": "status"}  ->  {"ok": true, "command": "status", …}
    {"command": "reload"}  ->  {"ok": true, "changes": […]} or {"ok": false, "error": "…"}
    {"command": "drain"}   ->  {"ok": true, "draining": true, …}, and at the end
                               {"ok": true, "drained": true, "cut": 0}
    {"command": "counters"} -> {"ok": true, "counters": {…}}
    {"command": "upstreams"} -> {"ok": true, "upstreams": {NAME: [{"target": …, "state": …}]}}
    {"command": "drain_target", "upstream": NAME, "target": URL or address, "force": false}
    {"command": "resume_target", "upstream": NAME, "target": URL or address}
                            -> {"ok": true, "targets": […]} or {"ok": false, "error": "…"}

The socket file belongs to the user who runs the gateway, mode 0600 (0660 for its group, where the
configuration says so) from its first moment.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from edgeproxy.observe.status import counters, status, target_status, upstreams
from edgeproxy.starting import StartError
from edgeproxy.transport.port import Port
from edgeproxy.upstream.fleet import DrainError

if TYPE_CHECKING:
    from edgeproxy.service import Gateway

_log = Logger()

LONGEST = 4096  # bytes in one line of a client
CONNECTIONS = 16
SILENCE = 60.0  # seconds after which a connection that asks nothing is closed
_AT_ONCE = 8  # commands of one connection that wait for their answers
_LINGER = 1.0  # seconds that the last answers have to leave when the process ends
_PATH = 104  # bytes in the address of a socket, on the narrowest system (macOS)


class Command(NamedTuple):
    """What runs, and what its arguments are: types by name. All but flags have to be there."""

    run: Callable[..., Any]
    takes: Mapping[str, type] = {}

    def arguments(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Those of a command that was sent.

        :raises ValueError: they are not what it takes; the text says what is.
        """
        given = {name: value for name, value in asked.items() if name != "command"}
        takes = self.takes
        missing = [n for n, kind in takes.items() if kind is not bool and n not in given]
        if missing or any(type(value) is not takes.get(n) for n, value in given.items()):
            wanted = ", ".join(f'"{n}": {_KINDS[kind]}' for n, kind in takes.items())
            raise ValueError(f"the command takes {wanted or 'nothing'}")
        return given


_KINDS = {str: '"…"', bool: "true or false"}


def _reload(gateway: Gateway) -> Deferred[dict[str, Any]]:
    done: Any = gateway.reloader.reload()
    return done.addCallback(  # type: ignore[no-any-return]
        lambda result: (
            {"ok": True, "changes": result.lines}
            if result.done
            else {"ok": False, "error": "\n".join(result.lines)}
        )
    )


def _drain(gateway: Gateway) -> dict[str, Any]:
    if gateway.draining is None:
        gateway.end()
    return {
        "ok": True,
        "draining": True,
        "connections": gateway.connections,
        "seconds": gateway.config.timeouts.drain,
    }


def _counters(gateway: Gateway) -> dict[str, Any]:
    gateway.log.flush()
    return {"ok": True, "counters": counters(gateway)}


def _drain_target(
    gateway: Gateway, *, upstream: str, target: str, force: bool = False, on: bool = True
) -> dict[str, Any]:
    try:
        found = gateway.fleet.drain(upstream, target, on=on, force=force)
    except DrainError as error:
        return {"ok": False, "error": str(error)}
    return {"ok": True, "targets": [target_status(gateway, each) for each in found]}


_TARGET = {"upstream": str, "target": str}

COMMANDS: dict[str, Command] = {
    "status": Command(lambda gateway: {"ok": True, **status(gateway)}),
    "counters": Command(_counters),
    "upstreams": Command(lambda gateway: {"ok": True, "upstreams": upstreams(gateway)}),
    "drain_target": Command(_drain_target, {**_TARGET, "force": bool}),
    "resume_target": Command(partial(_drain_target, on=False), _TARGET),
    "reload": Command(_reload),
    "drain": Command(_drain),
}


@implementer(IPushProducer, IHalfCloseableProtocol)
class Conversation(LineReceiver, TimeoutMixin):
    """One connection to the socket. While a client does not read, nothing is read from it. One
    that has closed its own side (`printf … | nc -N -U`) still gets its answers."""

    delimiter = b"\n"
    MAX_LENGTH = LONGEST

    def __init__(self, server: ControlSocket) -> None:
        self._server = server
        self._waiting = 0
        self._asks_no_more = False
        self.draining = False
        self.transport: Any

    def connectionMade(self) -> None:
        self._server.conversations.add(self)
        self.transport.registerProducer(self, True)
        self.setTimeout(SILENCE)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        self._server.left(self)

    def readConnectionLost(self) -> None:
        self._asks_no_more = True
        self._close_if_over()

    def writeConnectionLost(self) -> None:
        """Never: what we write ends with the connection."""

    def _close_if_over(self) -> None:
        if self._asks_no_more and not self._waiting and not self.draining:
            self.close()

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse(f"a command is at most {LONGEST} bytes")
        self.close()

    def close(self) -> None:
        """Close once everything is sent."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def lineReceived(self, line: bytes) -> None:
        self.resetTimeout()  # type: ignore[no-untyped-call]
        if not line.strip():
            return
        try:
            asked = json.loads(line)
            name = asked["command"]
            command = COMMANDS[name]
        except (ValueError, TypeError, KeyError, RecursionError):
            known = ", ".join(COMMANDS)
            self._refuse(f'not a command; {{"command": NAME}} is one, with {known}')
            return
        try:
            arguments = command.arguments(asked)
        except ValueError as error:
            self._refuse(str(error))
            return
        if self._waiting >= _AT_ONCE:
            self._refuse("too many commands at once")
            return
        self._waiting += 1
        done = maybeDeferred(command.run, self._server.gateway, **arguments)
        done.addErrback(self._failed)
        done.addCallback(self._answer, name)

    def _failed(self, failure: Failure) -> dict[str, Any]:
        _log.failure("A command of the control socket failed", failure)
        return {"ok": False, "error": "the gateway failed to do that; its log says why"}

    def _answer(self, answer: dict[str, Any], name: str) -> None:
        self._waiting -= 1
        self.draining = self.draining or "draining" in answer
        if self.draining:
            self.setTimeout(None)  # type: ignore[no-untyped-call]
        self.tell({"command": name, **answer})
        self._close_if_over()

    def _refuse(self, why: str) -> None:
        self.tell({"ok": False, "error": why})

    def tell(self, answer: dict[str, Any]) -> None:
        """Send one object."""
        if self.connected:
            self.transport.write(json.dumps(answer).encode("ascii") + b"\n")


class ControlSocket:
    """The listening side: a file that only this user may open, gone when the gateway ends."""

    def __init__(self, reactor: Any, path: Path, gateway: Gateway, *, group: bool = False) -> None:
        self.gateway = gateway
        self.path = path
        self._group = group
        self.conversations: set[Conversation] = set()
        self._reactor = reactor
        self._port: Port | None = None
        self._identity: tuple[int, int] | None = None
        self._factory = Factory.forProtocol(lambda: Conversation(self))
        self._factory.noisy = False
        self._ended: Deferred[None] | None = None

    def bind(self) -> None:
        """Take the path, from a process that is no more if need be.

        :raises StartError: another process answers there, or the path cannot be used.
        """
        try:
            _make_way(self.path)
            sock = _listening(self.path, group=self._group)
        except OSError as error:
            raise StartError(f"control socket {self.path}: {_words(error)}") from error
        found = os.stat(self.path)
        self._identity = (found.st_dev, found.st_ino)
        self._port = Port(self._reactor, sock, self._accept, CONNECTIONS)

    def start(self) -> None:
        if self._port is not None:
            self._port.start()

    def stop(self, cut: int) -> Deferred[None]:
        """Tell those who wait for the drain, and take the file away."""
        if self._port is None:
            return succeed(None)
        self._port.stop()
        self._port = None
        self._unlink()
        self._ended = Deferred()
        for each in tuple(self.conversations):
            if each.draining:
                each.tell({"ok": True, "drained": True, "cut": cut})
            each.close()
        late = self._reactor.callLater(_LINGER, self._abort)
        self._ended.addCallback(lambda _: late.cancel() if late.active() else None)
        self._check_ended()
        return self._ended

    def left(self, conversation: Conversation) -> None:
        """A connection has gone."""
        self.conversations.discard(conversation)
        if self._port is not None:
            self._port.left()
        self._check_ended()

    def _abort(self) -> None:
        for each in tuple(self.conversations):
            each.transport.abortConnection()

    def _check_ended(self) -> None:
        if self._ended is not None and not self.conversations and not self._ended.called:
            self._ended.callback(None)

    def _accept(self, sock: socket.socket, address: Any) -> None:
        self._reactor.adoptStreamConnection(sock.fileno(), socket.AF_UNIX, self._factory)
        sock.close()

    def _unlink(self) -> None:
        """Another process may have taken the path by now: its file is left alone."""
        try:
            found = os.stat(self.path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(self.path)
        except OSError:
            pass


def _make_way(path: Path) -> None:
    """Remove what a process that was killed has left.

    :raises StartError: it is no socket, or somebody answers.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(
            f"control socket {path}: something else is there; remove it, or name another path "
            "by `control:`"
        )
    try:
        with connected(path, timeout=2.0):
            pass
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
        return
    except OSError:
        pass  # somebody holds it and is too busy to answer
    raise StartError(
        f"control socket {path}: another gateway answers there; stop it, or name another path "
        "by `control:`"
    )


def _listening(path: Path, *, group: bool = False) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode a new socket file has is what the umask leaves: there is no moment in between.
    before = os.umask(0o117 if group else 0o177)
    try:
        with address_of(path) as address:
            sock.bind(address)
        sock.listen(CONNECTIONS)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """An address for ``path`` that is short enough: a socket's has about a hundred bytes.

    A longer one is reached through its folder's descriptor where there is /proc (Linux).
    """
    whole = os.path.abspath(path)
    if len(os.fsencode(whole)) < _PATH or not os.path.isdir("/proc/self/fd"):
        yield whole
        return
    folder = os.open(os.path.dirname(whole), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(whole)}"
    finally:
        os.close(folder)


@contextmanager
def connected(path: Path, timeout: float | None) -> Iterator[socket.socket]:
    """A connection to a control socket. Blocks for ``timeout`` seconds at most for each step.

    :raises OSError: nobody is there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        with address_of(path) as address:
            sock.connect(address)
        yield sock


def _words(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return "permission denied; name another path by `control:`"
    if error.errno == errno.ENOENT:
        return "there is no such folder; name another path by `control:`"
    return error.strerror or str(error)
