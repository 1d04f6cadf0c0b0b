"""Named credentials and who is asked for them: read from the files, and held against the routes."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from edgeproxy.config.anonymous import ANONYMOUS, Anonymous
from edgeproxy.config.asking import settle as settle_asking
from edgeproxy.config.asking import wrong_asking
from edgeproxy.config.authorization import AUTHORIZATION, AuthorizationForm
from edgeproxy.config.clientcerts import (
    ASKED,
    CREDENTIAL,
    Asked,
    ClientCertificate,
    wrong_callers,
)
from edgeproxy.config.frozen import NamedCredential
from edgeproxy.config.jwt import JWT, JwtForm, settle, wrong_jwt
from edgeproxy.config.lookups import (
    INTROSPECTION,
    SESSION,
    IntrospectionForm,
    SessionForm,
)
from edgeproxy.config.model import Auth, Route
from edgeproxy.config.nodes import Node
from edgeproxy.config.policy import OPENERS
from edgeproxy.config.reading import Location, Reader
from edgeproxy.config.units import shown
from edgeproxy.http1.fields import folded


class Kind(NamedTuple):
    """One kind of credential: its settings, and what no field can say of them by itself.

    `wrong` gives places within the entry and what is wrong there. `settled`, where files are read,
    gives such places too, or the settings with what the files (below a folder) hold.
    """

    model: type[NamedCredential]
    form: TypeAdapter[Any]
    wrong: Callable[[Any], Iterable[tuple[Location, str]]]
    settled: Callable[[Any, Path], Iterable[tuple[Location, str] | NamedCredential]] | None = None


def _wrong_certificate(form: ClientCertificate) -> Iterator[tuple[Location, str]]:
    for key, message in wrong_callers(form).items():
        yield ("callers", key, "[key]") if key else ("principal",), message


#: The key that tells a kind, in the order in which they are shown.
KINDS: dict[str, Kind] = {
    "client_certificate": Kind(ClientCertificate, CREDENTIAL, _wrong_certificate),
    "jwt": Kind(JwtForm, JWT, wrong_jwt, settle),
    "introspect": Kind(IntrospectionForm, INTROSPECTION, wrong_asking, settle_asking),
    "authorize": Kind(AuthorizationForm, AUTHORIZATION, wrong_asking, settle_asking),
    "cookie": Kind(SessionForm, SESSION, wrong_asking, settle_asking),
    "anonymous": Kind(Anonymous, ANONYMOUS, lambda form: ()),
}


def take_credentials(reader: Reader, auth: Node | None, folder: Path) -> dict[str, NamedCredential]:
    """The named credentials under `auth`, taken out of it; what is left is there by itself."""
    found = {}
    for name, place, node in list(auth.entries()) if auth else ():
        if name in Auth.model_fields:
            continue
        assert auth is not None and auth.pairs is not None
        del auth.pairs[name]
        kind = kind_of(node)
        if name in OPENERS:
            reader.add(place, f"'{name}' has its meaning already; remove it")
        elif kind is None:
            reader.add(
                place,
                f"{shown(name)} does not say what kind of credential it is; "
                f"{', '.join(KINDS)} are known (api_key needs no entry), as in "
                f"`{name}: {{ jwt: https://id.example.com, audience: shop }}`; "
                "name one, or remove it",
            )
        else:
            credential = _credential(reader, node, KINDS[kind], folder)
            if credential is not None:
                found[name] = credential
    return found


def kind_of(node: Node) -> str | None:
    """Which kind of credential an entry is meant to be."""
    return next((kind for kind in KINDS if node.get(kind) is not None), None)


def _credential(reader: Reader, node: Node, kind: Kind, folder: Path) -> NamedCredential | None:
    before = len(reader.problems)
    form = reader.model(kind.model, node, kind.form)
    if form is None or len(reader.problems) > before:
        return None  # what was left out of it would be missed now
    wrong = list(kind.wrong(form))
    found: NamedCredential = form.within(folder)
    if kind.settled is not None and not wrong:
        for each in kind.settled(form, folder):
            if isinstance(each, NamedCredential):
                found = each
            else:
                wrong.append(each)
    for location, message in wrong:
        reader.at(node, location, message)
    return None if wrong else found


def check_key_field(
    reader: Reader, root: Node, auth: Auth, credentials: Mapping[str, NamedCredential]
) -> None:
    """What callers show their key in is nothing that a credential sets."""
    header = auth.api_key.header
    if header is None:
        return
    for name, each in credentials.items():
        if folded(header) in map(folded, each.reserved):
            message = f"{header} is set by {shown(name)}; take another field"
            reader.at(root, ("auth", "api_key", "header"), message)


def asked(reader: Reader, name: str, node: Node) -> Asked | None:
    """One entry of `client_certificates`."""
    return reader.model(Asked, node, ASKED)


def check_asked(
    places: Mapping[str, tuple[Reader, Node, Node]],
    asked: Mapping[str, Asked],
    credentials: Iterable[str],
) -> None:
    """Each entry's credential must exist. `places` has each entry's reader, key and value."""
    known = frozenset(credentials)
    for host, (reader, _, node) in places.items():
        entry = asked.get(host)
        if entry is not None and entry.by not in known:
            hint = reader.suggestions.unknown(entry.by, known)
            reader.at(
                node, ("by",), f"there is no credential {shown(entry.by)} by certificate{hint}"
            )


def check_hosts(places: Mapping[str, tuple[Reader, Node, Node]], routes: Iterable[Route]) -> None:
    """There must be a route for each host of a section.

    A host that is misspelt there would leave the one that was meant without its guard.
    """
    hosts = {route.host for route in routes}
    for host, (reader, key, _) in places.items():
        if not _routed(host, hosts):
            hint = reader.suggestions.unknown(host, hosts)
            reader.add(key, f"no route is for {shown(host)}{hint}")


def _routed(host: str, hosts: Collection[str]) -> bool:
    """Whether a request for (one of) the names that `host` stands for can find a route."""
    if host == "*" or host in hosts or "*" in hosts:
        return True
    if host.startswith("*."):
        return any(other.partition(".")[2] == host[2:] for other in hosts)
    return "*." + host.partition(".")[2] in hosts
