"""Filters by name: what lies under ``twisted/plugins``, in packages and beside the configuration.

Twisted's own ``getPlugins`` writes a traceback into the log for a module that cannot be imported,
and goes on as if it were not there; whoever names a filter of it would not learn why.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import twisted.plugins
from edgeproxy.config.problems import Suggestions
from edgeproxy.config.units import shown
from edgeproxy.filters.plugin import IFilterPlugin
from edgeproxy.mounted.loading import LoadError, find, is_trusted, make_importable


class Dropins:
    """See the module's text. ``named`` are further ones, which stand before them.

    :raises LoadError: two have the same name, or one has none.
    """

    def __init__(self, folder: Path, named: Mapping[str, Any]) -> None:
        self._found: dict[str, Any] = {}
        #: Why there are not more of them.
        self._hidden: list[str] = []
        self._open_beside(folder)
        for module in pkgutil.iter_modules(twisted.plugins.__path__):
            try:
                found = find(f"twisted.plugins.{module.name}")
            except LoadError as error:
                self._hidden.append(str(error))
            else:
                self._take(found)
        self._found.update(named)

    def get(self, name: str) -> Any:
        """A class, or the dotted path of one.

        :raises LoadError: there is none of that name.
        """
        if name in self._found:
            return self._found[name]
        near = Suggestions().unknown(name, self._found)
        if not near and not self._hidden:
            near = "; a filter is named as package.module.Name"
        raise LoadError(
            f"there is no drop-in {shown(name)} under twisted/plugins{near}"
            f"{''.join(f'; {each}' for each in self._hidden)}"
        )

    def _open_beside(self, folder: Path) -> None:
        """Have Twisted's package of plugins look beside the configuration too."""
        beside = folder.resolve() / "twisted" / "plugins"
        if not beside.is_dir():
            return
        for each in (folder.resolve(), beside.parent, beside):
            if not is_trusted(each):
                self._hidden.append(
                    f"nothing is imported from {beside}, since everybody may write to {each}: "
                    "`chmod o-w` it"
                )
                return
        make_importable(folder)
        if str(beside) not in twisted.plugins.__path__:
            twisted.plugins.__path__.append(str(beside))

    def _take(self, module: Any) -> None:
        for each in vars(module).values():
            if not IFilterPlugin.providedBy(each):
                continue
            if not isinstance(getattr(each, "name", None), str) or not hasattr(each, "filter"):
                raise LoadError(f"a drop-in under twisted/plugins has no name and filter: {each!r}")
            if self._found.setdefault(each.name, each.filter) != each.filter:
                raise LoadError(f"two drop-ins under twisted/plugins are called {shown(each.name)}")
