"""All targets of the process: made for a configuration, kept over a reload that names them too.

A target that is configured by name stands for each address that the name leads to, as with nginx
and Envoy (STRICT_DNS); when the name leads elsewhere, its upstream gets another list of targets.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

from OpenSSL import SSL

from edgeproxy.config.balancing import HealthCheck
from edgeproxy.config.model import Config, UpstreamTls
from edgeproxy.config.model import Target as TargetConfig
from edgeproxy.config.model import Upstream as UpstreamConfig
from edgeproxy.http1.fields import response_fields
from edgeproxy.transport.client import ClientTLS
from edgeproxy.transport.connect import TCP, Network
from edgeproxy.transport.deadlines import Deadlines
from edgeproxy.upstream.address import Address, is_ip, on_port
from edgeproxy.upstream.health import Ejection, Health, Thresholds
from edgeproxy.upstream.lookup import LookUp
from edgeproxy.upstream.names import Names
from edgeproxy.upstream.resolve import Name, Resolver
from edgeproxy.upstream.target import Connects, Target, TargetOptions
from edgeproxy.upstream.trust import Unusable, client_context
from edgeproxy.upstream.upstream import Upstream
from edgeproxy.upstream.watch import Check, Watch, load_treq

_Key = tuple[object, ...]


class DrainError(Exception):
    """A target that cannot be drained; the text says why."""


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
    checks: dict[str, Check]

    def led(self, name: str) -> Iterator[tuple[str, Target]]:
        """The targets of an upstream, by each configured URL that leads to them."""
        for member in self.members[name]:
            for address in member.addresses(self.names):
                yield str(member.config), self.targets[name][(*member.key, address)]


class Fleet:
    """See the module's text. A target whose address and options stay the same keeps its pool."""

    def __init__(
        self, reactor: Any, deadlines: Deadlines, relay: Connects, network: Network = TCP
    ) -> None:
        self._reactor = reactor
        self._network = network
        self._deadlines = deadlines
        self._relay = relay
        self._plan = Plan({}, {}, {}, {}, Names(), {}, {})
        self.resolver = Resolver(reactor, deadlines.clock.now, self._moved)
        self._watch = Watch(reactor, deadlines.clock.now)
        #: Targets that nothing leads to any more, as long as requests are under way there.
        self._leaving: list[Target] = []
        #: What was drained, by upstream: targets as configured, or single addresses.
        self._drained: set[tuple[str, str]] = set()
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
        plan = Plan({}, {}, {}, names, look_up, {}, {})
        for name, upstream in config.upstreams.items():
            plan.members[name] = self._members(plan, config, upstream)
            plan.upstreams[name] = Upstream(
                name,
                [str(each) for each in upstream.targets],
                upstream.balance.by,
                _ejection(upstream),
            )
            if upstream.health is not None:
                plan.checks[name] = _check(upstream, upstream.health)
            self._gather(plan, name)
        if plan.checks:
            load_treq()
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
            _ejection(upstream),
        )
        fields = response_fields(hide_software=hide)
        members = []
        for target in upstream.targets:
            key: _Key = (target.scheme, hide, *numbers, target.weight)
            options = TargetOptions(fields, *numbers, target.weight)
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
                    targets[key] = there.get(key) or self._target(name, member, address)
        plan.targets[name] = targets
        plan.upstreams[name].use(targets.values())

    def _target(self, upstream: str, member: Member, address: Address) -> Target:
        url = str(member.config)
        known = self._plan.targets.get(upstream, {}).values()
        health = next((t.health for t in known if (t.url, t.address) == (url, address)), None)
        if health is None:
            health = Health()
            if not self._drained.isdisjoint([(upstream, url), (upstream, str(address))]):
                health.drain(True)
        return Target(
            self._reactor,
            self._deadlines,
            self._relay,
            url,
            address,
            member.options,
            self._network if member.tls is None else member.tls().over(self._network),
            upstream,
            health,
        )

    def use(self, plan: Plan) -> None:
        """This is in force from now on; targets that are no longer named are retired."""
        for name, members in plan.members.items():
            if any(member.config.host in plan.names for member in members):
                self._gather(plan, name)  # a name may have moved since
        old, self._plan = self._plan, plan
        self.resolver.use(plan.names, plan.look_up)
        for name, targets in old.targets.items():
            self._retire(targets, plan.targets.get(name, {}))
        self._look()

    def _look(self) -> None:
        """Targets came, went, were drained, or go by another URL meanwhile."""
        plan = self._plan
        for name in plan.members:
            for url, target in reversed(tuple(plan.led(name))):
                target.url = url  # the first one that leads there
        known = {(t.upstream, word) for t in self.targets for word in (t.url, t.name)}
        known |= {(name, str(m.config)) for name, all_ in plan.members.items() for m in all_}
        self._drained &= known
        for upstream in plan.upstreams.values():
            upstream.look()
        self._watch.use(
            {
                target: plan.checks[name]
                for name, targets in plan.targets.items()
                if name in plan.checks
                for target in targets.values()
            }
        )

    def _moved(self, moved: Name) -> None:
        """A name leads elsewhere."""
        plan = self._plan
        for name, members in plan.members.items():
            if any(member.config.host == moved.host for member in members):
                old = plan.targets[name]
                self._gather(plan, name)
                self._retire(old, plan.targets[name])
        self._look()

    def start(self) -> None:
        """The process runs: targets are looked after from now on."""
        self._deadlines.waiting.add(self)
        self._watch.start()

    def drain(self, upstream: str, word: str, *, on: bool, force: bool = False) -> list[Target]:
        """Keep new requests from a target, or from one address of it, or let them in again.

        :return: the addresses that it stands for.
        :raises DrainError: there is no such target, or no other would be left.
        """
        plan = self._plan
        if upstream not in plan.upstreams:
            near = _near(upstream, plan.upstreams)
            raise DrainError(f"there is no upstream '{upstream}'{near}")
        targets = plan.targets[upstream].values()
        urls = [str(member.config) for member in plan.members[upstream]]
        words = {_bare(each): each for each in urls}
        words |= {each: each for each in (*urls, *(target.name for target in targets))}
        if word not in words:
            raise DrainError(f"'{upstream}' has no target '{word}'{_near(word, words)}")
        name = words[word]
        # An address that is a target's whole name is that target.
        name = next((url for url in urls if _bare(url) == name), name)
        # Two configured targets may lead to one address, which then is one target with one URL.
        led = {target for url, target in plan.led(upstream) if url == name}
        meant = [target for target in targets if target in led or target.name == name]
        left = [t for t in targets if not t.health.draining and t not in meant]
        if on and not left and not force:
            raise DrainError(
                f"{name} is the last target of '{upstream}': without it all its requests are "
                "answered 503; --force drains it all the same"
            )
        if on:
            self._drained.add((upstream, name))
        else:
            self._drained -= {(upstream, each) for t in meant for each in (t.url, t.name)}
            self._drained.discard((upstream, name))
        for target in meant:
            target.drain(on)
        plan.upstreams[upstream].look()
        return meant

    def deserted(self) -> list[str]:
        """A line for each upstream whose targets all are draining, as a reload may leave it."""
        return [
            f"upstream {name} has only targets that are draining: all its requests are answered "
            f"503 until `edgeproxy upstreams resume {name} {upstream.targets[0].url}`"
            for name, upstream in self._plan.upstreams.items()
            if upstream.targets and all(each.health.draining for each in upstream.targets)
        ]

    def _retire(self, old: dict[_Key, Target], new: dict[_Key, Target]) -> None:
        for key, target in old.items():
            if key not in new:
                target.retire()
                self._leaving.append(target)

    def under_way(self, target: Target) -> int:
        """Requests under way at an address of an upstream: those too that began before a reload
        has put this target into another's place."""
        return target.busy + sum(
            each.busy
            for each in self._leaving
            if (each.upstream, each.name) == (target.upstream, target.name)
        )

    @property
    def targets(self) -> list[Target]:
        return [each for targets in self._plan.targets.values() for each in targets.values()]

    def expired(self, now: float) -> None:
        """Called at each sweep of the deadlines: close idle connections, look up names, move the
        budgets."""
        for targets in self._plan.targets.values():
            for target in targets.values():
                target.sweep(now)
        if self._leaving:
            self._leaving = [target for target in self._leaving if target.busy]
        self.resolver.sweep(now)
        if now - self._ticked >= 1.0:
            self._ticked = now
            for upstream in self._plan.upstreams.values():
                upstream.budget.tick(now)

    def stop(self) -> None:
        self._watch.stop()
        for target in self.targets:
            target.retire()
            for client in tuple(target.clients):
                client.retire()


def _ejection(upstream: UpstreamConfig) -> Ejection:
    eject = upstream.eject
    return Ejection(eject.failures, eject.time, eject.max_time, eject.max_ejected)


def _check(upstream: UpstreamConfig, health: HealthCheck) -> Check:
    return Check(
        health.path,
        health.host or upstream.host,
        health.status,
        health.interval,
        health.timeout,
        Thresholds(health.rise, health.fall),
    )


def _bare(url: str) -> str:
    """A target as it is configured, without its scheme."""
    return url.removeprefix("unix:") if url.startswith("unix:") else url.partition("://")[2]


def _near(word: str, known: Iterable[str]) -> str:
    """What may have been meant, or what there is."""
    names = sorted(set(known))
    found = get_close_matches(word, names, 1)
    if found:
        return f"; did you mean '{found[0]}'?"
    return f"; there is: {', '.join(names[:10])}{', …' if len(names) > 10 else ''}" if names else ""
