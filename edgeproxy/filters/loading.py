"""From what a route names to a filter: the class imported, its declarations and options checked.

Whatever a module does while it is imported, or a class while it is made, becomes one line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from twisted.internet.defer import Deferred

from edgeproxy.config import Config, Problem
from edgeproxy.config.filters import FilterUse
from edgeproxy.config.problems import Suggestions
from edgeproxy.config.reading import Reader
from edgeproxy.config.reserved import reserved
from edgeproxy.config.units import shown
from edgeproxy.filters.contract import HOOKS, field_line
from edgeproxy.http1.fields import folded
from edgeproxy.mounted.loading import LoadError, told
from edgeproxy.mounted.loading import find as find_object

#: What clients have to be able to send, on any route: a filter may change it on its own.
_CLIENTS = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "authorization",
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-location",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "from",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "referer",
        "user-agent",
        "x-api-key",
    }
)


def find(use: str, folder: Path | None, dropin: Callable[[str], Any]) -> type:
    """The class that ``use`` names: a dotted path, or a drop-in's name, which ``dropin`` knows.

    :raises LoadError: there is none, or it is no filter.
    """
    found: Any = use if "." in use else dropin(use)
    path = found if isinstance(found, str) else use
    if isinstance(found, str):
        found = find_object(found, folder)
    check_class(found, path)
    kind: type = found
    return kind


def check_class(found: Any, path: str) -> None:
    """
    :raises LoadError: ``found`` is no class of filters.
    """
    if not isinstance(found, type):
        raise LoadError(f"{shown(path)} is not a class; a class with {_any(HOOKS)} would be right")
    hooks = [name for name in dir(found) if name.startswith("on_")]
    unknown = next((name for name in hooks if name not in HOOKS), None)
    if unknown is not None:
        near = Suggestions().unknown(unknown, HOOKS)
        raise LoadError(f"{shown(path)} has {shown(unknown)}, which is no hook{near}")
    if not hooks:
        raise LoadError(f"{shown(path)} is no filter; a class with {_any(HOOKS)} would be right")
    for name in hooks:
        _check_hook(getattr(found, name), path, name)
    model = getattr(found, "Options", None)
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise LoadError(f"{path}.Options is no pydantic model; derive it from pydantic.BaseModel")
    _check_fields(found, path)


def _any(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"


def _check_hook(hook: Any, path: str, name: str) -> None:
    try:
        inspect.signature(hook).bind(None, *HOOKS[name])
    except (TypeError, ValueError):
        wanted = ", ".join(("self", *HOOKS[name]))
        raise LoadError(f"{path}.{name} is to be called as {name}({wanted})") from None


def _check_fields(found: type, path: str) -> None:
    for which in ("sets", "changes"):
        names = getattr(found, which, ())
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise LoadError(f'{path}.{which} is no list of fields; write it as ["X-Tenant"]')
        for name in names:
            try:
                field_line(name, "")
            except ValueError as error:
                raise LoadError(f"{path}.{which}: {error}") from None
            why = reserved(name, request=True)
            if why:
                raise LoadError(f"{path}.{which}: {name} {why}")
            if which == "sets" and folded(name).decode("ascii") in _CLIENTS:
                raise LoadError(
                    f"{path}.sets: {name} would be taken out of every client's requests; "
                    "name it in `changes`"
                )


def options_of(kind: type, use: FilterUse, folder: Path) -> tuple[Any, list[Problem]]:
    """The options as the class's own model has them, and what is wrong with them, at its place.

    :raises LoadError: the model itself is wrong.
    """
    model: type[BaseModel] | None = getattr(kind, "Options", None)
    place = use.place
    reader = Reader(place.file, Suggestions(), folder=folder)
    if model is None:
        if use.options:
            reader.add(place.options, f"{use.use} takes no options; remove them")
        return None, reader.problems
    node = reader.mapping(place.options)
    if node is None:
        return None, reader.problems
    if model.model_config.get("extra") is None:
        # By itself pydantic would pass over what is misspelt.
        model = type(
            model.__name__,
            (model,),
            {"model_config": {"extra": "forbid"}, "__module__": model.__module__},
        )
    try:
        found = reader.model(model, node, TypeAdapter(model))
    except Exception as error:  # a validator of the model's may raise anything
        raise LoadError(f"{use.use}.Options failed: {told(error)}") from error
    return found, reader.problems


def make(kind: type, path: str, options: Any) -> Any:
    """The filter.

    :raises LoadError: making it failed.
    """
    try:
        return kind() if options is None else kind(options)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LoadError(f"making {shown(path)} failed: {told(error)}") from error


def start(made: Any, path: str) -> None:
    """
    :raises LoadError: its ``start`` failed.
    """
    begin = getattr(made, "start", None)
    if begin is None:
        return
    try:
        result = begin()
        if isinstance(result, Deferred):
            result.addErrback(lambda failure: None)
            result.cancel()
        elif inspect.iscoroutine(result):
            result.close()
        else:
            return
        raise TypeError("start() is a plain method; what it begins may take its time")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LoadError(f"starting {shown(path)} failed: {told(error)}") from error


def problem(use: FilterUse, error: LoadError) -> Problem:
    """What is wrong, at the place where the filter is named."""
    return Problem(use.place.file, use.place.node.line, use.place.node.column, str(error))


def conditions(config: Config, sets: Mapping[str, str]) -> list[Problem]:
    """Routes that tell requests apart by a field that no client can send; ``sets`` are those
    fields, folded, with the filter of each."""
    return [
        Problem(
            route.file,
            route.line,
            1,
            f"`when` names {name}, which the filter {sets[key]} sets: "
            "it is removed from what clients send",
        )
        for route in config.routes
        for name in route.when
        if (key := folded(name).decode("ascii")) in sets
    ]
