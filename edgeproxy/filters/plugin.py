"""Filters as drop-ins: a package that is installed offers them by name, through Twisted's plugins.

In ``twisted/plugins/shop_filters.py`` of the package, a folder without ``__init__.py``::

    from edgeproxy.filters.plugin import FilterPlugin

    hours = FilterPlugin("hours", "shop.policy.Hours")
"""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface, implementer


class IFilterPlugin(Interface):  # type: ignore[misc]  # zope.interface says no types
    """A filter that routes may name."""

    name = Attribute("The name, without a dot.")
    filter = Attribute("The class, or its dotted path, so that it is imported only where used.")


@implementer(IPlugin, IFilterPlugin)
class FilterPlugin:
    """Offers ``filter``, a class or the dotted path of one, as ``name``."""

    def __init__(self, name: str, filter: type | str) -> None:
        self.name = name
        self.filter = filter

    def __repr__(self) -> str:
        return f"<FilterPlugin {self.name}>"
