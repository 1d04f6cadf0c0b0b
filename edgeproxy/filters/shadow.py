"""A filter that is tried out: what it is given, so that nothing it does has an effect.

What its hooks give is looked at in :mod:`edgeproxy.filters.judging`, and goes no further there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeproxy.filters.request import Apart, Request

if TYPE_CHECKING:
    from edgeproxy.filters.headers import Guard


def apart(guard: Guard, hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, called with copies of what it would be given; ``guard`` says what may be written
    there."""

    def called(request: Request, *others: Any) -> Any:
        return hook(Apart(request, guard), *(each.copied(guard) for each in others))

    return called
