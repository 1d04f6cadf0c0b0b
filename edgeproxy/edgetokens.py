"""The keys of X-Edge-Token, kept in their file and renewed in time, and the audiences.

All processes that share the file look at it once in a while; whoever first sees that a key should
be added does so, under the file's lock. Until :meth:`SigningKeys.open` there is no file, and the
keys live as long as the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from edgeproxy.identity.edgekeys import (
    CACHE,
    Key,
    Unusable,
    arranged,
    published,
    read,
    signing,
    written,
)
from edgeproxy.identity.edgetoken import Audience
from edgeproxy.state import StateFile

if TYPE_CHECKING:
    from edgeproxy.config.edgetoken import EdgeToken
    from edgeproxy.config.model import Config
    from edgeproxy.config.model import Route as RouteConfig
    from edgeproxy.exchange import Exchange
    from edgeproxy.routing import Rule
    from edgeproxy.snapshot import Route
    from edgeproxy.transport.deadlines import Clock

_log = Logger()

NAME = "edge-token-keys.json"
PATH = b"/.well-known/edge-jwks.json"
"""Where the keys are published on the listener of `health:`, or the plain one."""

INTERVAL = 60.0
"""Seconds between two looks at the file and the clock. A key is known for an hour before it signs,
so none comes too late."""

_PATIENCE = 5.0  # seconds at the start, or in the thread of a reload

_FIELDS = (b"Content-Type: application/jwk-set+json", b"Cache-Control: public, max-age=%d" % CACHE)


class SigningKeys:
    """The keys of one file. `trouble` says what keeps it from being read or written; "" else."""

    def __init__(
        self, reactor: Any, now: Callable[[], float], path: Path, settings: EdgeToken
    ) -> None:
        self.path = path
        self.keys: tuple[Key, ...] = ()
        self.published = b""
        self.trouble = ""
        self.rotate = settings.rotate
        self.lifetime = settings.lifetime
        self._now = now
        self._file: StateFile | None = None
        self._stamp: object = None
        self._loop = LoopingCall(self.look)
        self._loop.clock = reactor

    def signing(self, now: float) -> Key:
        """The key that signs at a time (unix seconds)."""
        if not self.keys:
            self._use(arranged((), now, self.rotate, self.lifetime))
        return signing(self.keys, now)

    def use(self, settings: EdgeToken) -> None:
        """These settings are in force."""
        self.rotate = settings.rotate
        self.lifetime = max(self.lifetime, settings.lifetime)  # of tokens that are still about
        self.signing(self._now())

    def open(self) -> None:
        """Read the file, or make it, unless that is done.

        :raises OSError: it can be neither.
        """
        if self._file is None:
            file = StateFile(self.path)
            self._renew(file, _PATIENCE)
            self._file = file

    def start(self) -> None:
        if not self._loop.running:
            self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def look(self) -> None:
        """Take over what another process has written; add a key when it is time. Never raises:
        what cannot be written is tried again, and the keys that there are go on."""
        now, file = self._now(), self._file
        if file is None:
            self._use(arranged(self.keys, now, self.rotate, self.lifetime))
            return
        try:
            wanted = arranged(self.keys, now, self.rotate, self.lifetime)
            if wanted != self.keys or file.stamp() != self._stamp:
                self._renew(file)
            self.trouble = ""
        except OSError as error:
            trouble = f"{self.path}: {error.strerror}; the keys in use stay"
            if trouble != self.trouble:
                self.trouble = trouble
                _log.warn("{trouble}", trouble=trouble)
        except Exception:
            # A fault of ours must not end the looks that follow.
            _log.failure("{path}: renewing the keys failed", path=str(self.path))

    def _renew(self, file: StateFile, patience: float = 0.0) -> None:
        now = self._now()
        with file.locked(patience):
            kept = self._read(file)
            if kept is None:  # at the start what is in memory has signed nothing yet
                ours = () if self._stamp is None else self.keys
                keys = arranged(ours, now, self.rotate, self.lifetime)
            else:
                keys = arranged(kept, now, self.rotate, self.lifetime)
            if keys != kept:
                file.write(written(keys))
            self._stamp = file.stamp()
        self._use(keys)

    def _read(self, file: StateFile) -> tuple[Key, ...] | None:
        """What the file holds; ``None`` where that is nothing of use."""
        text = file.read()
        if text is None:
            if self._stamp is not None:
                _log.warn("{path} is gone: it is written anew", path=str(self.path))
            return None
        try:
            found = read(text)
        except Unusable as error:
            file.set_aside()
            _log.warn(
                "{path}: {why}; it is kept as {path}.broken, and another takes its place",
                path=str(self.path),
                why=str(error),
            )
            return None
        if file.shared():
            _log.warn("{path}: others could read it; it is 0600 again", path=str(self.path))
            file.write(text)
        return found

    def _use(self, keys: tuple[Key, ...]) -> None:
        if keys != self.keys:
            self.keys = keys
            self.published = published(keys)


class EdgeTokens:
    """The tokens of one configuration: an audience for each upstream that is sent them."""

    def __init__(self, settings: EdgeToken, keys: SigningKeys) -> None:
        self.settings = settings
        self.keys = keys
        self.audiences: dict[tuple[tuple[str, ...], bool], Audience] = {}

    def audience(self, upstream: str, *, fields: bool) -> Audience:
        """What requests to an upstream carry; with ``fields``, X-Consumer-* too."""
        settings = self.settings
        audience = settings.audience or (upstream,)
        key = audience, fields
        if key not in self.audiences:
            self.audiences[key] = Audience(
                settings.issuer,
                audience,
                settings.lifetime,
                self.keys.signing,
                token_urlsafe,
                fields=fields,
            )
        return self.audiences[key]

    def furnish(self, rules: Iterable[Rule[Route]], routes: Sequence[RouteConfig]) -> None:
        """Tell compiled routes what they send, or that the keys answer there."""
        for rule in rules:
            config, route = routes[rule.order], rule.action
            if config.jwks:
                route.jwks = self
            elif config.to is not None and config.identity != "fields":
                route.edge = self.audience(config.to, fields=config.identity == "both")

    def publish(self, exchange: Exchange) -> None:
        """Answer with the keys."""
        body = self.keys.published
        exchange.give([*_FIELDS, b"Content-Length: %d" % len(body)], body)

    def status(self) -> dict[str, Any]:
        """What `edgeproxy status --json` says of them."""
        keys, now = self.keys.keys, self.keys._now()
        return {
            "key": signing(keys, now).id if keys else None,
            "published": len(keys),
            "next": next((key.since for key in keys if key.since > now), None),
            "signed": sum(each.signed for each in list(self.audiences.values())),
            "trouble": self.keys.trouble,
        }


class Issuing:
    """What makes tokens, over reloads: the file's keys stay while it is the same file, and tokens
    that are about stay while the settings are the same."""

    def __init__(self, reactor: Any, clock: Clock) -> None:
        self._reactor = reactor
        self._clock = clock
        self._running = False
        self.tokens: EdgeTokens | None = None

    def build(self, config: Config, folder: Path) -> EdgeTokens | None:
        """For a configuration that is not in force yet; may run in a thread."""
        if config.edge_token is None:
            return None
        path, before = folder / NAME, self.tokens
        if before is None or before.keys.path != path:
            return EdgeTokens(
                config.edge_token, SigningKeys(self._reactor, self._now, path, config.edge_token)
            )
        if before.settings != config.edge_token:
            return EdgeTokens(config.edge_token, before.keys)
        return before

    def use(self, tokens: EdgeTokens | None) -> None:
        """Put what was built into force."""
        before, self.tokens = self.tokens, tokens
        if before is not None and (tokens is None or tokens.keys is not before.keys):
            before.keys.stop()
        if tokens is not None:
            tokens.keys.use(tokens.settings)
            if self._running:
                tokens.keys.start()

    def start(self) -> None:
        self._running = True
        if self.tokens is not None:
            self.tokens.keys.start()

    def stop(self) -> None:
        self._running = False
        if self.tokens is not None:
            self.tokens.keys.stop()

    def _now(self) -> float:
        return self._clock.now() + self._clock.epoch
