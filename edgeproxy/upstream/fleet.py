"""All targets of the process: made for a configuration, kept over a reload that names them too."""

from __future__ import annotations

from typing import Any

from edgeproxy.config.model import Config
from edgeproxy.config.model import Upstream as UpstreamConfig
from edgeproxy.http1.fields import response_fields
from edgeproxy.transport.connect import TCP, Network
from edgeproxy.transport.deadlines import Deadlines
from edgeproxy.upstream.resolve import Resolver
from edgeproxy.upstream.target import Connects, Target, TargetOptions
from edgeproxy.upstream.upstream import Upstream

_Key = tuple[object, ...]


class Fleet:
    """See the module's text. A target whose address and options stay the same keeps its pool."""

    def __init__(
        self, reactor: Any, deadlines: Deadlines, relay: Connects, network: Network = TCP
    ) -> None:
        self._reactor = reactor
        self._network = network
        self._deadlines = deadlines
        self._relay = relay
        self._targets: dict[_Key, Target] = {}
        self.resolver = Resolver(reactor)
        self.upstreams: dict[str, Upstream] = {}
        self.deadline = 0.0
        self._ticked = 0.0

    def build(self, config: Config) -> tuple[dict[str, Upstream], dict[_Key, Target]]:
        """The upstreams of a configuration; nothing changes until :meth:`use`."""
        targets: dict[_Key, Target] = {}
        upstreams: dict[str, Upstream] = {}
        for name, upstream in config.upstreams.items():
            members = [
                self._target(config, upstream, index, targets)
                for index in range(len(upstream.targets))
            ]
            upstreams[name] = Upstream(name, members)
        return upstreams, targets

    def _target(
        self, config: Config, upstream: UpstreamConfig, index: int, targets: dict[_Key, Target]
    ) -> Target:
        address = upstream.targets[index]
        self.resolver.know(address.host)
        hide = config.server_header == "hide"
        numbers = (
            config.heads.response,
            upstream.connections,
            upstream.waiting,
            upstream.wait,
            upstream.idle,
            upstream.timeouts.connect,
            upstream.skip,
        )
        key = (upstream.name, index, address.host, address.port, hide, *numbers)
        target = self._targets.get(key)
        if target is None:
            target = Target(
                self._reactor,
                self._deadlines,
                self._relay,
                address.host,
                address.port,
                TargetOptions(response_fields(hide_software=hide), *numbers),
                self.resolver,
                self._network,
            )
        targets[key] = target
        return target

    def use(self, upstreams: dict[str, Upstream], targets: dict[_Key, Target]) -> None:
        """These are in force from now on; targets that are no longer named are retired."""
        old, self._targets = self._targets, targets
        self.upstreams = upstreams
        for key, target in old.items():
            if key not in targets:
                target.retire()

    @property
    def targets(self) -> list[Target]:
        return list(self._targets.values())

    def expired(self, now: float) -> None:
        """Called at each sweep of the deadlines: close idle connections, move the budgets."""
        for target in self._targets.values():
            target.sweep(now)
        if now - self._ticked >= 1.0:
            self._ticked = now
            for upstream in self.upstreams.values():
                upstream.budget.tick(now)

    def stop(self) -> None:
        for target in self._targets.values():
            target.retire()
            for client in tuple(target.clients):
                client.retire()
