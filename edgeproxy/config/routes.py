"""The routes of all files: keys taken apart, names looked up, defaults filled in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeproxy.config import grammar
from edgeproxy.config.clientcerts import Asked, ClientCertificate, unreachable
from edgeproxy.config.cors import Cors, own_fields
from edgeproxy.config.filters import FilterUse, take_filters
from edgeproxy.config.frozen import NamedCredential
from edgeproxy.config.model import Defaults, Route, RouteTimeouts, Upstream
from edgeproxy.config.nodes import Node
from edgeproxy.config.policy import OPENERS, guest_among, wrong_auth, wrong_policy
from edgeproxy.config.reading import Location, Reader, locate
from edgeproxy.config.reserved import IDENTITY
from edgeproxy.config.rules import merged, wrong_rules
from edgeproxy.config.units import shown
from edgeproxy.config.written import ROUTE, DefaultsForm, RouteForm

NO_EDGE_TOKEN = (
    "nothing says who issues the tokens; add `edge_token: https://edge.example.com` at the top"
)


@dataclass(frozen=True)
class Names:
    """What the configuration declares anywhere, for looking names up."""

    upstreams: frozenset[str]
    limits: frozenset[str]
    credentials: frozenset[str]
    edge_token: bool
    complete: bool  # whether every file could be read

    def upstream(self, reader: Reader, node: Node, location: Location, name: str) -> None:
        if name.startswith(("http://", "https://")):
            reader.at(
                node,
                location,
                "a URL stands here; give it a name under `upstreams`, and write that name",
            )
        elif name not in self.upstreams and self.complete:
            hint = reader.suggestions.unknown(name, self.upstreams)
            reader.at(node, location, f"there is no upstream {shown(name)}{hint}")

    def limit(self, reader: Reader, node: Node, location: Location, name: str) -> None:
        if name not in self.limits and self.complete:
            hint = reader.suggestions.unknown(name, self.limits)
            reader.at(node, location, f"there is no limit {shown(name)}{hint}")

    def credential(
        self, reader: Reader, node: Node, location: Location, name: str, *, openers: bool
    ) -> None:
        if name not in self.credentials:
            known = (*self.credentials, *(OPENERS if openers else ()))
            hint = reader.suggestions.unknown(name, known)
            reader.at(node, location, f"there is no credential {shown(name)}{hint}")


class RouteReader:
    """Takes the `routes` of each file in turn; `routes` has them in that order."""

    def __init__(
        self,
        names: Names,
        form: DefaultsForm,
        defaults: Defaults,
        upstreams: Mapping[str, Upstream],
        credentials: Mapping[str, NamedCredential],
        asking: Mapping[str, Asked],
    ) -> None:
        self.routes: list[Route] = []
        self._names = names
        self._form = form
        self._defaults = defaults
        self._upstreams = upstreams
        self._credentials = credentials
        self._certificates = [
            name for name, each in credentials.items() if isinstance(each, ClientCertificate)
        ]
        self._credentials = credentials
        self._reserved = {
            _folded(field) for each in credentials.values() for field in each.reserved
        }
        self._asking = asking
        #: What tells routes apart -> the methods already taken, and where.
        self._taken: dict[tuple[Any, ...], list[tuple[frozenset[str], str]]] = {}

    def take(self, reader: Reader, section: Node | None) -> None:
        """Adds the routes of one file."""
        hosts = reader.mapping(section)
        for written, place, value in hosts.entries() if hosts else ():
            host = reader.checked(place, grammar.host, written)
            paths = reader.mapping(value)
            for text, key_place, routes in paths.entries() if paths else ():
                key = reader.checked(key_place, grammar.route_key, text)
                several = [routes] if routes.items is None else routes.items
                if not several:
                    reader.add(routes, "an empty list is no route; write the name of an upstream")
                for node in several:
                    self._one(reader, host, key, key_place if routes.items is None else node, node)

    def _one(
        self,
        reader: Reader,
        host: str | None,
        key: grammar.RouteKey | None,
        place: Node,
        node: Node,
    ) -> None:
        form = reader.model(RouteForm, node, ROUTE)
        if form is None:
            return
        self._check_names(reader, form, node)
        self._check_sense(reader, form, node, key)
        if host is None or key is None:
            return
        named = locate(node, ("resource",))
        at = (0, 0) if form.resource is None else (named.line, named.column)
        filters = take_filters(reader, node, form.filters)
        route = self._route(form, host, key, f"{reader.file}", place.line, at, filters)
        self._check_taken(reader, route, place)
        self._check_asked(reader, route, place)
        if self._certificates and self._names.complete:
            wrong = unreachable(route, self._certificates, self._asking)
            if wrong is not None:
                reader.add(place, wrong)
        self.routes.append(route)

    def _check_names(self, reader: Reader, form: RouteForm, node: Node) -> None:
        if form.to is not None:
            self._names.upstream(reader, node, ("to",), form.to)
        auth = form.auth
        for index, name in enumerate(auth.names if auth else ()):
            if name not in OPENERS:
                place = ("auth", "all" if auth and auth.all else "any", index)
                self._names.credential(reader, node, place, name, openers=True)
        for index, name in enumerate(form.limit or ()):
            if name != "none":
                self._names.limit(reader, node, ("limit", index), name)

    def _check_sense(
        self, reader: Reader, form: RouteForm, node: Node, key: grammar.RouteKey | None
    ) -> None:
        self._check_end(reader, form, node)
        self._check_websocket(reader, form, node, key)
        wrong = [*wrong_auth(node, form.auth), *wrong_policy(form, self._credentials)]
        for location, message in wrong:
            reader.at(node, location, message)
        limit = form.limit or ()
        if "none" in limit and len(limit) > 1:
            reader.at(node, ("limit",), "'none' stands alone; remove it, or the other limits")
        self._check_when(reader, form, node)
        self._check_cors(reader, form, node, key)
        self._check_identity(reader, form, node)
        self._check_strip(reader, form, node, key)
        for direction in ("request", "response"):
            rules = getattr(form, direction)
            for location, message in wrong_rules(rules, request=direction == "request"):
                reader.at(node, (direction, *location), message)

    def _check_end(self, reader: Reader, form: RouteForm, node: Node) -> None:
        """A route leads to one thing."""
        ends = [name for name in ("to", "page", "jwks", "resource") if getattr(form, name)]
        if not ends and node.get("resource") is None:
            reader.add(node, "this route leads nowhere; add `to:` with the name of an upstream")
        for other in ends[1:]:
            reader.at(node, (other,), f"a route has `{ends[0]}` or `{other}`, not both; remove one")
        if form.resource is None:
            if form.options and node.get("resource") is None:
                reader.at(node, ("options",), "`options` are for a `resource`; remove them")
            return
        if form.host is not None:
            reader.at(
                node, ("host",), "a resource gets the Host that the client sent; remove `host`"
            )
        for name, value in form.options.items():
            place = ("options", name)
            if not name.isidentifier():
                message = f"{shown(name)} cannot be an argument's name; letters, digits and _ can"
                reader.at(node, (*place, "[key]"), message)
            if "${" in str(value):
                message = (
                    "references are put in only under an upstream's `set`; "
                    "let the resource read its environment or file itself"
                )
                reader.at(node, place, message)

    def _check_websocket(
        self, reader: Reader, form: RouteForm, node: Node, key: grammar.RouteKey | None
    ) -> None:
        if not form.websocket:
            return
        if form.to is None:
            reader.at(
                node,
                ("websocket",),
                "only a service behind, named by `to`, can speak it; remove it",
            )
        if key is not None and key.methods and "GET" not in key.methods:
            message = "a WebSocket begins with GET, which this route does not take; add GET"
            reader.at(node, ("websocket",), message)

    def _check_when(self, reader: Reader, form: RouteForm, node: Node) -> None:
        seen: set[str] = set()
        for name in form.when:
            folded = _folded(name)
            place = ("when", name, "[key]")
            if folded in IDENTITY | self._reserved or folded.startswith("x-consumer-"):
                reader.at(node, place, f"{name} is removed from what clients send; remove it")
            elif folded == "host":
                reader.at(node, place, "hosts stand above the paths; move the route to its host")
            if name.lower() in seen:
                reader.at(node, place, f"{name} stands here twice; once is right")
            seen.add(name.lower())

    def _check_identity(self, reader: Reader, form: RouteForm, node: Node) -> None:
        if form.identity is not None and form.to is None:
            message = "only a service behind, named by `to`, is told who is calling; remove it"
            reader.at(node, ("identity",), message)
        for what, asked in (
            ("identity", form.identity not in (None, "fields")),
            ("jwks", form.jwks),
        ):
            if asked and not self._names.edge_token:
                reader.at(node, (what,), NO_EDGE_TOKEN)

    def _check_cors(
        self, reader: Reader, form: RouteForm, node: Node, key: grammar.RouteKey | None
    ) -> None:
        if form.cors is None:
            return
        methods = () if key is None else key.methods
        for index, method in enumerate(form.cors.methods):
            taken = method in methods or (method == "HEAD" and "GET" in methods)
            if methods and not taken:
                message = f"this route does not take {method}; remove it here, or add it there"
                reader.at(node, ("cors", "methods", index), message)
        if form.cors.origins:
            rules = form.response
            for name in own_fields([*rules.set, *rules.add]):
                place = ("response", "set" if name in rules.set else "add", name, "[key]")
                reader.at(node, place, f"{name} is written by `cors` here; remove it")

    def _check_strip(
        self, reader: Reader, form: RouteForm, node: Node, key: grammar.RouteKey | None
    ) -> None:
        if form.strip is False or key is None:
            return
        if form.strip is True:
            if key.kind == "regex":
                message = "a regular expression has no fixed front; write the path to take away"
                reader.at(node, ("strip",), message)
            return
        path = reader.checked(node.get("strip") or node, grammar.path, form.strip)
        if path is None or key.kind == "regex":
            return
        if not (key.path + "/").startswith(path.rstrip("/") + "/"):
            reader.at(
                node,
                ("strip",),
                f"{shown(path)} is not the front of {shown(key.path)}; only that can be taken away",
            )

    def _check_asked(self, reader: Reader, route: Route, place: Node) -> None:
        """A credential that is asked about every request stands alone; nobody else sets what it
        sets."""
        upstream = self._upstreams.get(route.to or "")
        said = (*route.request.set, *route.request.add, *(upstream.set if upstream else ()))
        setting = dict.fromkeys(map(_folded, said), "this route or its upstream")
        for name in route.auth:
            credential = self._credentials.get(name)
            if credential is None:
                continue
            if credential.alone and len(route.auth) > 1 and not route.every:
                message = f"{shown(name)} is asked about every request, so nothing can stand beside"
                reader.add(place, f"{message} it; write `auth: {name}`, or leave it out")
            for field in credential.reserved:
                other = setting.setdefault(_folded(field), shown(name))
                if other != shown(name):
                    reader.add(
                        place, f"{field} is set by {shown(name)} and by {other}; set it once"
                    )

    def _check_taken(self, reader: Reader, route: Route, place: Node) -> None:
        """Two routes that can never be told apart: same host, path and conditions, and a method
        that both answer. GET answers HEAD too, as in routing."""
        sort = (route.host, route.kind, route.path, frozenset(route.when.items()))
        where = f"{reader.file}:{place.line}"
        others = self._taken.setdefault(sort, [])
        answered = frozenset(route.methods) | ({"HEAD"} if "GET" in route.methods else set())
        for methods, other in others:
            same = methods & answered
            if same or not (methods or answered):
                which = f"{', '.join(sorted(same))} " if same else ""
                message = f"{other} has a route for the same {which}requests"
                reader.add(place, f"{message}; change one, or tell them apart by `when`")
                break
        others.append((answered, where))

    def _route(
        self,
        form: RouteForm,
        host: str,
        key: grammar.RouteKey,
        file: str,
        line: int,
        resource_at: tuple[int, int],
        filters: tuple[FilterUse, ...] | None,
    ) -> Route:
        upstream = self._upstreams.get(form.to or "")
        own = form.timeouts
        behind = upstream.timeouts if upstream else self._defaults.timeouts
        limit = self._defaults.limit if form.limit is None else form.limit
        auth, every = self._defaults.auth, self._defaults.every
        if form.auth is not None and form.auth.names:
            auth, every = form.auth.names, form.auth.all is not None
        return Route.model_construct(
            host=host,
            methods=key.methods,
            kind=key.kind,
            path=key.path,
            to=form.to,
            page=form.page,
            jwks=form.jwks,
            resource=form.resource,
            options=form.options,
            resource_at=resource_at,
            auth=auth,
            every=every,
            guest=guest_among(auth, self._credentials),
            allow=form.allow,
            deny=form.deny,
            shadow=form.shadow,
            scopes=form.scopes,
            groups=form.groups,
            limit=() if limit == ("none",) else limit,
            filters=self._defaults.filters if filters is None else filters,
            when={name.lower(): value for name, value in form.when.items()},
            identity=form.identity or (upstream.identity if upstream else "fields"),
            strip=form.strip,
            host_header=form.host or (upstream.host if upstream else None),
            request=merged(self._defaults.request, form.request),
            response=merged(self._defaults.response, form.response),
            cors=self._cors(form),
            body=self._form.body if form.body is None else form.body,
            encoded_slash=form.encoded_slash,
            websocket=form.websocket,
            timeouts=RouteTimeouts.model_construct(
                first_byte=own.first_byte or behind.first_byte,
                between_bytes=own.between_bytes or behind.between_bytes,
                tunnel=own.tunnel or behind.tunnel,
            ),
            file=file,
            line=line,
        )

    def _cors(self, form: RouteForm) -> Cors | None:
        found = self._defaults.cors if form.cors is None else form.cors
        return found if found is not None and found.origins else None


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")
