"""All targets of the process: made for a configuration, kept over a reload that names them too.

A target that is configured by name stands for each address that the name leads to, as with nginx
and Envoy (STRICT_DNS); when the name leads elsewhere, its upstream gets another list of targets.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from OpenSSL import SSL

from edgeproxy.config.model import Config, UpstreamTls
from edgeproxy.config.model import Target as TargetConfig
from edgeproxy.config.model import Upstream as UpstreamConfig
from edgeproxy.http1.fields import response_fields
from edgeproxy.transport.client import ClientTLS
from edgeproxy.transport.connect import TCP, Network
from edgeproxy.transport.deadlines import Deadlines
from edgeproxy.upstream.address import Address, is_ip, on_port
from edgeproxy.upstream.lookup import LookUp
from edgeproxy.upstream.names import Names
from edgeproxy.upstream.resolve import Name, Resolver
from edgeproxy.upstream.target import Connects, Target, TargetOptions
from edgeproxy.upstream.trust import Unusable, client_context
from edgeproxy.upstream.upstream import Upstream

_Key = tuple[object, ...]


class Member(NamedTuple):
    """A target as it is configured; its addresses have one :class:`Target` each, which is kept
    as long as ``key`` and address stay the same."""

    config: TargetConfig
    key: _Key
    options: TargetOptions
    tls: Callable[[], ClientTLS] | None

    def addresses(self, names: dict[str, Name]) -> Iterator[Address]:
        host, port = self.config.host, self.config.port
        if self.config.path is not None:
            yield Address(socket.AF_UNIX, str(self.config.path))
            return
        for each in (host,) if is_ip(host) else names[host].addresses:
            yield on_port(each, port)


class Plan(NamedTuple):
    """The upstreams of a configuration with what belongs to them, each by its name."""

    upstreams: dict[str, Upstream]
    members: dict[str, list[Member]]
    targets: dict[str, dict[_Key, Target]]
    names: dict[str, Name]
    look_up: LookUp
    contexts: dict[str, tuple[UpstreamTls, SSL.Context]]


class Fleet:
    """See the module's text. A target whose address and options stay the same keeps its pool."""

    def __init__(
        self, reactor: Any, deadlines: Deadlines, relay: Connects, network: Network = TCP
    ) -> None:
        self._reactor = reactor
        self._network = network
        self._deadlines = deadlines
        self._relay = relay
        self._plan = Plan({}, {}, {}, {}, Names(), {})
        self.resolver = Resolver(reactor, deadlines.clock.now, self._moved)
        self.deadline = 0.0
        self._ticked = 0.0

    def build(self, config: Config) -> Plan:
        """The upstreams of a configuration; nothing changes until :meth:`use`. May run in a
        thread: it waits for the first look-up of names.

        :raises Unusable: OpenSSL does not take what an upstream's `tls` names.
        """
        hosts = (each.host for upstream in config.upstreams.values() for each in upstream.targets)
        look_up = self._network.look_up or Names(config.resolver)
        names = self.resolver.first((host for host in hosts if host and not is_ip(host)), look_up)
        plan = Plan({}, {}, {}, names, look_up, {})
        for name, upstream in config.upstreams.items():
            plan.members[name] = self._members(plan, config, upstream)
            plan.upstreams[name] = Upstream(name, [str(each) for each in upstream.targets])
            self._gather(plan, name)
        return plan

    def _members(self, plan: Plan, config: Config, upstream: UpstreamConfig) -> list[Member]:
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
        options = TargetOptions(response_fields(hide_software=hide), *numbers)
        members = []
        for target in upstream.targets:
            key: _Key = (target.scheme, hide, *numbers)
            tls = None
            if target.scheme == "https":
                assert upstream.tls is not None
                context = self._context(plan, upstream.name, upstream.tls)
                server = upstream.tls.name or target.host
                tls = partial(ClientTLS, context, server, verify=upstream.tls.verify)
                key = (*key, server, context)
            members.append(Member(target, key, options, tls))
        return members

    def _context(self, plan: Plan, name: str, tls: UpstreamTls) -> SSL.Context:
        """The context for an upstream: the same as before where it says the same."""
        known = plan.contexts.get(name) or self._plan.contexts.get(name)
        if known is None or known[0] != tls:
            try:
                known = (tls, client_context(tls))
            except Unusable as error:
                raise Unusable(f"upstream {name}: tls: {error}") from error
        plan.contexts[name] = known
        return known[1]

    def _gather(self, plan: Plan, name: str) -> None:
        """Give an upstream its targets: those that there are already, and new ones."""
        there = self._plan.targets.get(name, {})
        targets: dict[_Key, Target] = {}
        for member in plan.members[name]:
            for address in member.addresses(plan.names):
                key = (*member.key, address)
                if key not in targets:
                    targets[key] = there.get(key) or self._target(member, address)
        plan.targets[name] = targets
        plan.upstreams[name].use(targets.values())

    def _target(self, member: Member, address: Address) -> Target:
        return Target(
            self._reactor,
            self._deadlines,
            self._relay,
            str(member.config),
            address,
            member.options,
            self._network if member.tls is None else member.tls().over(self._network),
        )

    def use(self, plan: Plan) -> None:
        """This is in force from now on; targets that are no longer named are retired."""
        for name, members in plan.members.items():
            if any(member.config.host in plan.names for member in members):
                self._gather(plan, name)  # a name may have moved since
        old, self._plan = self._plan, plan
        self.resolver.use(plan.names, plan.look_up)
        for name, targets in old.targets.items():
            _retire(targets, plan.targets.get(name, {}))

    def _moved(self, moved: Name) -> None:
        """A name leads elsewhere."""
        plan = self._plan
        for name, members in plan.members.items():
            if any(member.config.host == moved.host for member in members):
                old = plan.targets[name]
                self._gather(plan, name)
                _retire(old, plan.targets[name])

    @property
    def targets(self) -> list[Target]:
        return [each for targets in self._plan.targets.values() for each in targets.values()]

    def expired(self, now: float) -> None:
        """Called at each sweep of the deadlines: close idle connections, look up names, move the
        budgets."""
        for targets in self._plan.targets.values():
            for target in targets.values():
                target.sweep(now)
        self.resolver.sweep(now)
        if now - self._ticked >= 1.0:
            self._ticked = now
            for upstream in self._plan.upstreams.values():
                upstream.budget.tick(now)

    def stop(self) -> None:
        for target in self.targets:
            target.retire()
            for client in tuple(target.clients):
                client.retire()


def _retire(old: dict[_Key, Target], new: dict[_Key, Target]) -> None:
    for key, target in old.items():
        if key not in new:
            target.retire()
