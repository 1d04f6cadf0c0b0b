"""From the trees of all files to one `Config`: names that must exist, defaults that are inherited.

Each entry is read by itself, so that what is wrong with one hides nothing of another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproxy.config import grammar
from edgeproxy.config.credentials import (
    asked,
    check_asked,
    check_hosts,
    check_key_field,
    kind_of,
    take_credentials,
)
from edgeproxy.config.filters import take_filters
from edgeproxy.config.frozen import NamedCredential
from edgeproxy.config.hsts import hsts
from edgeproxy.config.model import (
    Auth,
    Certs,
    Config,
    Control,
    Defaults,
    Limit,
    Route,
    RouteTimeouts,
    Target,
    Upstream,
    UpstreamTimeouts,
)
from edgeproxy.config.nodes import Node
from edgeproxy.config.policy import OPENERS, wrong_auth, wrong_defaults
from edgeproxy.config.reading import Reader
from edgeproxy.config.routes import NO_EDGE_TOKEN, Names, RouteReader
from edgeproxy.config.rules import wrong_rules
from edgeproxy.config.tls import upstream_tls
from edgeproxy.config.units import shown
from edgeproxy.config.written import (
    INCLUDED_ALONE,
    LIMIT,
    SETTINGS,
    UPSTREAM,
    DefaultsForm,
    Included,
    IncludedAlone,
    LimitForm,
    Settings,
    TimeoutsForm,
    UpstreamForm,
    Written,
)

_SHARED = tuple(Included.model_fields)  # the sections that included files may have too


@dataclass
class Source:
    """One file that was read; `reader` holds its problems."""

    file: str
    root: Node
    reader: Reader


def assemble(
    sources: Sequence[Source], folder: Path, source: Path | None, complete: bool
) -> Config:
    """The configuration of the main file (first) and the included ones.

    Problems are left in the readers; the result is of use only when there are none. Not
    `complete`: a file could not be read, so unknown names are not reported.
    """
    main = sources[0]
    declared = _declared(main)
    certificates = _certificates(main)
    credentials = take_credentials(main.reader, main.root.get("auth"), folder)
    form = _settings(main)
    for each in sources[1:]:
        _only_shared(each)
    edge_token = main.root.get("edge_token") is not None
    limits = _entries(sources, "limits", grammar.limit_name, _limit)
    upstreams = _entries(
        sources, "upstreams", grammar.name, _UpstreamReader(form.defaults, edge_token)
    )
    names = Names(
        upstreams=frozenset(_written(sources, "upstreams")),
        limits=frozenset(_written(sources, "limits")),
        credentials=frozenset({"api_key", *declared}),
        edge_token=edge_token,
        complete=complete,
    )
    defaults = _defaults(main, form.defaults, names, credentials)
    asking = _entries(sources, "client_certificates", grammar.host, asked)
    routes = RouteReader(names, form.defaults, defaults, upstreams, credentials, asking)
    for each in sources:
        routes.take(each.reader, each.root.get("routes"))
    check_asked(_places(sources, "client_certificates"), asking, certificates)
    strict = _entries(sources, "hsts", grammar.host, hsts)
    if complete:
        for section in ("client_certificates", "hsts"):
            check_hosts(_places(sources, section), routes.routes)
    _something_routed(main)
    _own_address(main, form)
    check_key_field(main.reader, main.root, form.auth, credentials)
    if complete:
        _keys_published(main, form, routes.routes)
    return Config.model_construct(
        source=source,
        folder=folder,
        listen=form.listen,
        certs=Certs(folder=folder / form.certs.folder, default=form.certs.default),
        keys=form.keys.within(folder),
        auth=form.auth,
        credentials=credentials,
        client_certificates=asking,
        hsts=strict,
        limits=limits,
        guessing=form.guessing,
        edge_token=form.edge_token,
        state=None if form.state is None else folder / form.state,
        defaults=defaults,
        upstreams=upstreams,
        routes=tuple(routes.routes),
        timeouts=form.timeouts,
        heads=form.heads,
        health=form.health,
        trusted_proxies=form.trusted_proxies,
        forwarded=form.forwarded,
        resolver=form.resolver,
        access_log=_log(form.access_log, folder),
        server_header=form.server_header,
        control=Control(path=folder / form.control.path, group=form.control.group),
    )


def _log(written: Path, folder: Path) -> Path | str:
    return str(written) if str(written) in ("-", "off") else folder / written


def _without(node: Node, keys: Sequence[str]) -> Node:
    pairs = {key: pair for key, pair in (node.pairs or {}).items() if key not in keys}
    return Node(node.line, node.column, pairs=pairs)


def _settings(main: Source) -> Settings:
    if main.reader.mapping(main.root) is None:
        return Settings()
    rest = _without(main.root, _SHARED)
    return main.reader.model(Settings, rest, SETTINGS, known=Written) or Settings()


def _only_shared(source: Source) -> None:
    """An included file holds no settings: one look at the main file shows them all."""
    if source.reader.mapping(source.root) is None:
        return
    for key, place, _ in source.root.entries():
        if key in Settings.model_fields:
            source.reader.add(place, f"'{key}' stands in the main file only; move it there")
    rest = _without(source.root, (*_SHARED, *Settings.model_fields))
    source.reader.model(IncludedAlone, rest, INCLUDED_ALONE, known=Included)


def _something_routed(main: Source) -> None:
    if main.root.get("routes") is None and main.root.get("include") is None:
        main.reader.add(
            Node(1, 1), "nothing is routed; add `routes:`, as in `routes: {'*': {/: my-upstream}}`"
        )


def _own_address(main: Source, form: Settings) -> None:
    listen = form.listen
    if form.health in (listen.https, listen.http) and not (form.health or ":0").endswith(":0"):
        main.reader.at(
            main.root,
            ("health",),
            f"{shown(form.health)} is an address of `listen` already; give `health` its own port",
        )


def _keys_published(main: Source, form: Settings, routes: Sequence[Route]) -> None:
    """Tokens are of no use to a service that cannot fetch the keys."""
    told = any(route.identity != "fields" for route in routes)
    here = form.health or form.listen.http or any(route.jwks for route in routes)
    if form.edge_token is not None and told and not here:
        main.reader.at(
            main.root,
            ("edge_token",),
            "nothing publishes the keys that services verify the tokens with; add an address for "
            "it, as in `health: 127.0.0.1:9000`, or a route with `jwks: true`",
        )


def _written(sources: Sequence[Source], section: str) -> list[str]:
    return [
        key for each in sources for key, _, _ in (each.root.get(section) or Node(0, 0)).entries()
    ]


def _declared(main: Source) -> list[str]:
    return [key for key, _, _ in (main.root.get("auth") or Node(0, 0)).entries()]


def _certificates(main: Source) -> list[str]:
    """Credentials that are meant to be certificates, also those that something is wrong with."""
    entries = (main.root.get("auth") or Node(0, 0)).entries()
    return [
        name
        for name, _, node in entries
        if name not in (*Auth.model_fields, *OPENERS)
        and kind_of(node) in (None, "client_certificate")
    ]


def _places(sources: Sequence[Source], section: str) -> dict[str, tuple[Reader, Node, Node]]:
    """Reader, key and value of each entry of a section of hosts, but for what is no host."""
    found = {}
    for each in reversed(sources):
        for written, key, node in (each.root.get(section) or Node(0, 0)).entries():
            try:
                found[grammar.host(written)] = each.reader, key, node
            except ValueError:
                continue  # reported by those who made the entries
    return found


def _entries(
    sources: Sequence[Source],
    section: str,
    check: Callable[[str], Any],
    make: Callable[[Reader, str, Node], Any],
) -> dict[str, Any]:
    """The named entries of one section of all files, by what `check` makes of their names; the
    same one twice is an error."""
    found: dict[str, Any] = {}
    first: dict[str, str] = {}
    for source in sources:
        reader = source.reader
        node = reader.mapping(source.root.get(section))
        for written, place, value in node.entries() if node else ():
            name = reader.checked(place, check, written) or written
            if name in first:
                reader.add(place, f"{shown(name)} stands in {first[name]} already; rename one")
                continue
            first[name] = f"{source.file}:{place.line}"
            made = make(reader, name, value)
            if made is not None:
                found[name] = made
    return found


def _limit(reader: Reader, name: str, node: Node) -> Limit | None:
    form = reader.model(LimitForm, node, LIMIT)
    return None if form is None else Limit.model_construct(name=name, **form.__dict__)


class _UpstreamReader:
    """Makes upstreams; those that do not say their timeouts have those of `defaults`."""

    def __init__(self, defaults: DefaultsForm, edge_token: bool) -> None:
        self._defaults = defaults.timeouts
        self._edge_token = edge_token

    def __call__(self, reader: Reader, name: str, node: Node) -> Upstream | None:
        form = reader.model(UpstreamForm, node, UPSTREAM)
        if form is None:
            return None
        values: dict[str, Any] = dict(form.__dict__)
        values["targets"] = targets = tuple(
            self._target(reader, node, index, each.target())
            for index, each in enumerate(form.targets)
        )
        self._check(reader, form, targets, node)
        values["tls"] = upstream_tls(reader, node, form)
        own = form.timeouts
        values["timeouts"] = UpstreamTimeouts.model_construct(
            connect=own.connect, **chosen(own, self._defaults)
        )
        return Upstream.model_construct(name=name, **values)

    def _target(self, reader: Reader, node: Node, index: int, target: Target) -> Target:
        """The target, with the path of a socket made absolute."""
        if target.path is None:
            return target
        path = reader.folder.absolute() / target.path
        try:
            grammar.whole_socket_path(str(path))
        except ValueError as error:
            reader.at(node, ("targets", index), str(error))
        return target.model_copy(update={"path": path})

    def _check(
        self, reader: Reader, form: UpstreamForm, targets: tuple[Target, ...], node: Node
    ) -> None:
        if form.identity != "fields" and not self._edge_token:
            reader.at(node, ("identity",), NO_EDGE_TOKEN)
        seen: set[str] = set()
        for index, target in enumerate(targets):
            if str(target) in seen:
                message = f"{target} stands here twice; once is right"
                reader.at(node, ("targets", index), message)
            seen.add(str(target))
        fields: set[str] = set()
        for field in form.set:
            if field.lower() in fields:
                reader.at(
                    node, ("set", field, "[key]"), f"{field} stands here twice; once is right"
                )
            fields.add(field.lower())


def chosen(*forms: TimeoutsForm) -> dict[str, Any]:
    """Each time of the first form that says it; else its default."""
    result: dict[str, Any] = {}
    for name, field in RouteTimeouts.model_fields.items():
        said = (getattr(form, name) for form in forms)
        result[name] = next((value for value in said if value is not None), field.default)
    return result


def _defaults(
    main: Source, form: DefaultsForm, names: Names, credentials: Mapping[str, NamedCredential]
) -> Defaults:
    reader, node = main.reader, main.root.get("defaults") or Node(1, 1)
    wrong = [*wrong_auth(node, form.auth), *wrong_defaults(form.auth, credentials)]
    for location, message in wrong:
        reader.at(node, location, message)
    auth = form.auth
    for index, name in enumerate(auth.names if auth else ()):
        if name not in OPENERS:
            place = ("auth", "all" if auth and auth.all else "any", index)
            names.credential(reader, node, place, name, openers=False)
    for index, name in enumerate(form.limit or ()):
        names.limit(reader, node, ("limit", index), name)
    for direction in ("request", "response"):
        rules = getattr(form, direction)
        for location, message in wrong_rules(rules, request=direction == "request"):
            reader.at(node, (direction, *location), message)
    return Defaults(
        auth=auth.names if auth and auth.names else ("api_key",),
        every=auth is not None and auth.all is not None,
        limit=form.limit or (),
        filters=take_filters(reader, node, form.filters) or (),
        body=form.body,
        timeouts=RouteTimeouts(**chosen(form.timeouts)),
        request=form.request,
        response=form.response,
        cors=form.cors,
    )
