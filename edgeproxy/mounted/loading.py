"""From a dotted path to a resource: importing what a route names, and making it.

Whatever a module does while it is imported, or a class while it is made, becomes one line.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import stat
import sys
import traceback
from copy import deepcopy
from inspect import isawaitable
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.resource import IResource

from edgeproxy.config import Config, Problem, Route
from edgeproxy.config.problems import Suggestions
from edgeproxy.config.units import shown


class LoadError(Exception):
    """What a route names cannot be had; ``str()`` says why, in one line."""


def make_importable(folder: Path) -> bool:
    """Let Python find modules beside the configuration, after all others: nothing that lies
    there can stand in for a module of Python's or of a package.

    :return: ``False``, and nothing is changed, for a folder that everybody may write to: what
        lies there would run with the gateway's rights.
    """
    if not is_trusted(folder):
        return False
    whole = folder.resolve()
    if str(whole) not in sys.path:
        sys.path.append(str(whole))
    importlib.invalidate_caches()
    return True


def is_trusted(folder: Path) -> bool:
    """Whether it is there, and not everybody may write to it."""
    try:
        return not folder.resolve().stat().st_mode & stat.S_IWOTH
    except OSError:
        return False


def find(path: str, folder: Path | None = None) -> Any:
    """Import what ``path`` names; ``folder`` is made importable before, where it is given.

    :raises LoadError: it is not there, or its module cannot be imported.
    """
    importable = folder is None or make_importable(folder)
    first, *rest = path.split(".")
    found = _imported(first)
    if found is None:
        raise LoadError(_no_module(first, folder, importable))
    name = first
    for part in rest:
        inner = getattr(found, part, None)
        if inner is None and hasattr(found, "__path__"):
            inner = _imported(f"{name}.{part}")
        if inner is None:
            raise LoadError(_no_attribute(found, name, part))
        found, name = inner, f"{name}.{part}"
    return found


def make(found: Any, path: str, options: dict[str, Any]) -> Any:
    """The resource: ``found`` itself, or what the class or function gives for ``options``.

    :raises LoadError: it is none, or making it failed.
    """
    is_class = isinstance(found, type)
    if not is_class and IResource.providedBy(found):
        if options:
            raise LoadError(f"{shown(path)} is there already and takes no options; remove them")
        return found
    if isinstance(found, ModuleType):
        raise LoadError(
            f"{shown(path)} is a module; name what is in it, as {path}.Status{_resources_in(found)}"
        )
    if is_class and not IResource.implementedBy(found):
        raise LoadError(f"{shown(path)} is not a class of resources; {_DERIVE}")
    if not callable(found):
        raise LoadError(f"{shown(path)} is {_kind(found)}, not a resource; {_DERIVE}")
    try:
        made = found(**deepcopy(options))
    except LoadError:
        raise
    except BaseException as error:
        raise LoadError(f"making {shown(path)} failed: {told(error)}") from error
    if not is_class and not IResource.providedBy(made):
        if isawaitable(made) and not isinstance(made, Deferred):
            made.close()  # type: ignore[attr-defined]
        raise LoadError(f"{shown(path)} gave {_kind(made)}, not a resource; {_DERIVE}")
    return made


def problem(route: Route, error: LoadError) -> Problem:
    """What is wrong, at the place where the route names its resource."""
    return Problem(route.file, *route.resource_at, str(error))


def problems(config: Config) -> list[Problem]:
    """What is wrong with any route's resource, after making each of them."""
    wrong = []
    for route in config.routes:
        if route.resource is not None:
            try:
                make(find(route.resource, config.folder), route.resource, route.options)
            except LoadError as error:
                wrong.append(problem(route, error))
    return wrong


_DERIVE = (
    "a class derived from twisted.web.resource.Resource, an instance of it, "
    "or a function that returns one, would be right"
)


def _imported(name: str) -> Any:
    """The module, or ``None`` when there is none of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise LoadError(f"importing {name} failed: {told(error)}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may even call sys.exit
        raise LoadError(f"importing {name} failed: {told(error)}") from error


def _no_module(name: str, folder: Path | None, importable: bool) -> str:
    if folder is None:
        return f"there is no module {shown(name)}; install it, or put it beside the configuration"
    if not importable:
        return (
            f"there is no module {shown(name)}; nothing is imported from {folder.resolve()}, "
            "since everybody may write there: `chmod o-w` it"
        )
    beside = [module.name for module in pkgutil.iter_modules([str(folder.resolve())])]
    near = Suggestions().near(name, beside)
    return f"there is no module {shown(name)}" + (
        near or f"; install it, or put {name}.py beside the configuration, in {folder.resolve()}"
    )


def _no_attribute(found: Any, name: str, part: str) -> str:
    names = [each for each in dir(found) if not each.startswith("_")]
    names += [module.name for module in pkgutil.iter_modules(getattr(found, "__path__", []))]
    where = getattr(found, "__file__", None)
    at = f" ({where})" if where else ""
    if where and _stands_in(where, part):
        return (
            f"{name}{at} has no {shown(part)} as it was imported, which stands there by now; "
            "a restart imports it anew"
        )
    return f"{name}{at} has no {shown(part)}{Suggestions().near(part, names)}"


def _stands_in(file: str, name: str) -> bool:
    """Whether a module, as it is written now, has a class or function of that name."""
    try:
        written = ast.parse(Path(file).read_bytes()).body
    except (OSError, ValueError, SyntaxError):
        return False
    return any(getattr(each, "name", None) == name for each in written)


def _resources_in(module: ModuleType) -> str:
    """The resources that a module itself makes."""
    names = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and IResource.implementedBy(value)
        and value.__module__ == module.__name__
    ]
    return f"; there is: {', '.join(names[:20])}" if names else ""


def _kind(value: Any) -> str:
    if value is None:
        return "nothing (None)"
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def told(error: BaseException) -> str:
    """An exception in one line, with the place where it was raised."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, SyntaxError):
        text, place = error.msg, f"{error.filename}:{error.lineno}"
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename != __file__ and not frame.filename.startswith("<frozen")
        ]
        # An importlib of Python's own that is not frozen stands before the module's own lines.
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{': ' + text if text else ''}{f' ({place})' if place else ''}"
