"""Closed by default: a route is open only where it says so itself, whatever else is missing."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config import Config, ConfigError, parse

OPEN = ("none", "anonymous")
names = st.sampled_from(["api_key", "none", "anonymous", "apikey"])
written = st.one_of(
    st.just(...),
    names,
    st.lists(names, max_size=2),
    st.none(),
    st.booleans(),
    st.just({}),
    st.just("None"),
)


def with_auth(thing: dict[str, Any], auth: Any) -> dict[str, Any]:
    return thing if auth is ... else {**thing, "auth": auth}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    paths = draw(st.lists(st.sampled_from(["/", "/a", "exact:/a", "GET /b"]), unique=True))
    routes = {path: with_auth({"to": "a"}, draw(written)) for path in paths}
    document = {"upstreams": {"a": "http://a"}, "routes": {"*": routes}}
    document["defaults"] = with_auth({}, draw(written))
    top = draw(st.sampled_from([..., {}, {"api_key": {}}, {"api_key": {"query": "k"}}, None]))
    return with_auth(document, top)


def loaded(document: Any) -> Config | None:
    try:
        return parse(yaml.safe_dump(document, sort_keys=False))
    except ConfigError:
        return None


def says_open(document: dict[str, Any], key: str) -> bool:
    auth = document["routes"]["*"][key].get("auth")
    return any(name in OPEN for name in (auth if isinstance(auth, list) else [auth]))


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


def without_auth(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`document` without each choice of its `auth` settings."""
    places = [["auth"], ["defaults", "auth"], ["defaults"]]
    places += [["routes", "*", key, "auth"] for key in document["routes"]["*"]]
    for count in (1, 2, len(places)):
        for chosen in itertools.combinations(places, count):
            smaller = copy.deepcopy(document)
            for *way, last in chosen:
                holder = smaller
                for step in way:
                    holder = holder.get(step, {})
                holder.pop(last, None)
            yield smaller


@settings(deadline=None)
@given(documents())
def test_deleting_auth_opens_nothing(document: dict[str, Any]) -> None:
    config = loaded(document)
    if config is None:
        return
    opened = {key_of(route) for route in config.routes if route.open}
    for smaller in without_auth(document):
        after = loaded(smaller)
        assert after is not None
        assert {key_of(route) for route in after.routes if route.open} <= opened


def test_open_routes_load() -> None:
    """The two tests above look at something."""
    for auth in ("none", "anonymous", ["api_key", "anonymous"]):
        document = {
            "upstreams": {"a": "http://a"},
            "routes": {"*": {"/": {"to": "a", "auth": auth}}},
        }
        config = loaded(document)
        assert config is not None and config.routes[0].open
    for auth in ("none", "anonymous", ["api_key", "none"]):
        assert loaded({"defaults": {"auth": auth}, "routes": {"*": {"/": {"page": True}}}}) is None
