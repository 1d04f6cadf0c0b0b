"""Conversations with a whole gateway in memory, each whole, byte by byte, and over TLS.

After each test its conversations are looked at again by h11, which shares no code with us: what
clients and services got must be HTTP/1.1 without doubt, whatever the test itself looked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
from wire_support import check, standard

from edgeproxy.testing import MemoryGateway, Way


@pytest.fixture(params=list(Way), ids=lambda way: way.name.lower())
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def gateways() -> Iterator[list[MemoryGateway]]:
    made: list[MemoryGateway] = []
    yield made
    for each in made:
        check(each)


@pytest.fixture
def make(way: Way, gateways: list[MemoryGateway]) -> Callable[..., MemoryGateway]:
    """Makes a gateway: ``make()`` the standard one, ``make(yaml)`` another."""
    return functools.partial(_make, way, gateways)


@pytest.fixture
def quick(gateways: list[MemoryGateway]) -> Callable[..., MemoryGateway]:
    """As ``make``, whole only: for what does not depend on how bytes arrive."""
    return functools.partial(_make, Way.WHOLE, gateways)


def _make(
    way: Way, made: list[MemoryGateway], text: str | None = None, **options: object
) -> MemoryGateway:
    gateway = MemoryGateway(standard() if text is None else text, way, **options)  # type: ignore[arg-type]
    made.append(gateway)
    return gateway
