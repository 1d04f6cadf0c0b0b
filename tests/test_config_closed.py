"""Closed by default: a route is open only where it says so itself, whatever else is missing."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config import Config, ConfigError, parse

SECRET = "0123456789abcdef" * 4
OPENERS = ("none", "anonymous", "guest", "visitor")
#: Credentials of every kind, some right and some not.
ENTRIES: dict[str, list[Any]] = {
    "api_key": [{}, {"query": "k"}],
    "partner": [
        {"jwt": "https://id.example.com", "audience": "shop", "secret": "${env:SECRET}"},
        {"jwt": "https://id.example.com"},
    ],
    "opaque": [{"introspect": "https://id.example.com/i"}, {"introspect": "ftp://id"}],
    "session": [{"cookie": "sid", "at": "https://id.example.com/s"}, {"cookie": "sid"}],
    "asked": [{"authorize": "https://id.example.com/a"}, {"authorize": 1}],
    "staff": [{"client_certificate": "ca.pem"}, {"client_certificate": {}}],
    "guest": [{"anonymous": {}}, {"anonymous": {"plan": "free"}}, {}],
    "visitor": [{"anonymous": {"name": "Visitor"}}, None],
}
names = st.sampled_from([*ENTRIES, "none", "anonymous", "apikey"])
several = st.lists(names, max_size=3, unique=True)
written = st.one_of(
    st.just(...),
    names,
    several,
    st.fixed_dictionaries({"all": several}),
    st.fixed_dictionaries({"any": several}),
    st.fixed_dictionaries({"all": several, "any": several}),
    st.none(),
    st.booleans(),
    st.just({}),
    st.just("None"),
)


closed = st.lists(
    st.sampled_from(["api_key", "partner", "staff", "session", "opaque"]),
    min_size=1,
    max_size=3,
    unique=True,
)
#: What makes sense in `defaults`, and on a route.
careful = st.one_of(
    st.just(...),
    st.just("asked"),
    closed,
    st.fixed_dictionaries({"all": closed}),
    st.fixed_dictionaries({"any": closed}),
)
opening = st.one_of(
    careful,
    st.sampled_from(OPENERS),
    st.tuples(closed, st.sampled_from(OPENERS[1:])).map(lambda drawn: [*drawn[0], drawn[1]]),
)


def with_auth(thing: dict[str, Any], auth: Any) -> dict[str, Any]:
    return thing if auth is ... else {**thing, "auth": auth}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Three of four make sense."""
    sense = draw(st.integers(0, 3)) > 0
    paths = draw(st.lists(st.sampled_from(["/", "/a", "exact:/a", "GET /b"]), unique=True))
    routes = {path: with_auth({"to": "a"}, draw(opening if sense else written)) for path in paths}
    document = {"upstreams": {"a": "http://a"}, "routes": {"*": routes}}
    for entry in routes.values():
        entry.update(draw(st.sampled_from([{}, {}, {}, {"shadow": True}, {"shadow": False}])))
    document["defaults"] = with_auth({}, draw(careful if sense else written))
    document["client_certificates"] = {"*": {"by": "staff", "required": False}}
    if sense:
        return with_auth(document, {name: right for name, (right, *_) in ENTRIES.items()})
    if draw(st.booleans()):
        del document["client_certificates"]
    chosen = draw(st.lists(st.sampled_from([*ENTRIES]), unique=True))
    entries = {name: draw(st.sampled_from(ENTRIES[name])) for name in chosen}
    return with_auth(document, draw(st.sampled_from([..., None, entries])))


def loaded(document: Any) -> Config | None:
    try:
        return parse(yaml.safe_dump(document, sort_keys=False), environ={"SECRET": SECRET})
    except ConfigError:
        return None


def says_open(document: dict[str, Any], key: str) -> bool:
    """Whether the route itself names something that opens it."""
    entry = document["routes"]["*"][key]
    auth = entry.get("auth")
    if entry.get("shadow"):
        return True
    if isinstance(auth, dict):
        auth = [*auth.get("any", ()), *auth.get("all", ())]
    return any(name in OPENERS for name in (auth if isinstance(auth, list) else [auth]))


def key_of(route: Any) -> str:
    kind = "exact:" if route.kind == "exact" else ""
    return " ".join([*route.methods, kind + route.path])


@settings(deadline=None)
@given(documents())
def test_open_exactly_where_the_route_says_so(document: dict[str, Any]) -> None:
    config = loaded(document)
    for route in config.routes if config else ():
        assert route.auth
        assert route.open == says_open(document, key_of(route))
        assert route.shadow or not (route.open and route.every)


def at(document: Any, place: list[str]) -> dict[str, Any]:
    for step in place:
        document = document.get(step, {}) if isinstance(document, dict) else {}
    return document if isinstance(document, dict) else {}


def without_auth(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`document` without each choice of its `auth` settings, wherever they stand."""
    places = [["auth"], ["defaults", "auth"], ["defaults"]]
    for key in document["routes"]["*"]:
        places += [["routes", "*", key, "auth"], ["routes", "*", key, "shadow"]]
    deeper = [[*place, key] for place in places for key in at(document, place)]
    deeper += [
        [*entry, key] for entry in deeper if entry[0] == "auth" for key in at(document, entry)
    ]
    pairs = itertools.combinations(places, 2)
    for chosen in [*pairs, places, *([place] for place in (*places, *deeper))]:
        smaller = copy.deepcopy(document)
        for *way, last in chosen:
            at(smaller, way).pop(last, None)
        yield smaller


@settings(deadline=None, max_examples=50)
@given(documents())
def test_deleting_auth_opens_nothing(document: dict[str, Any]) -> None:
    config = loaded(document)
    if config is None:
        return
    opened = {key_of(route) for route in config.routes if route.open}
    for smaller in without_auth(document):
        after = loaded(smaller)
        # What is missing may be an error now; where it is not, nothing is open that was not.
        if after is not None:
            assert {key_of(route) for route in after.routes if route.open} <= opened


def test_open_routes_load() -> None:
    """The two tests above look at something."""
    entries = {"auth": {name: right for name, (right, *_) in ENTRIES.items()}}
    for auth in ("none", "anonymous", ["api_key", "anonymous"], ["partner", "guest"], "visitor"):
        document = {
            **entries,
            "upstreams": {"a": "http://a"},
            "routes": {"*": {"/": {"to": "a", "auth": auth}}},
        }
        config = loaded(document)
        assert config is not None and config.routes[0].open
    page = {"routes": {"*": {"/": {"page": True}}}}
    for auth in ("none", "anonymous", ["api_key", "none"], "guest", ["api_key", "visitor"]):
        assert loaded({**entries, **page, "defaults": {"auth": auth}}) is None
    closed = loaded({**entries, **page, "defaults": {"auth": {"all": ["api_key", "partner"]}}})
    assert closed is not None and closed.routes[0].every
