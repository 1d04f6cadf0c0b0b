"""A thousand silent clients must leave descriptors for the services."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import globalLogPublisher

from edgeproxy.config import Config, parse
from edgeproxy.starting import allow_descriptors

CONFIG = """
listen: {{ https: ":8443", http: ":8080", connections: {connections} }}
upstreams:
  one: {{ targets: [http://10.0.0.1:1, http://10.0.0.2:1], connections: 10 }}
routes: {{ a.example.com: {{ /: one }} }}
"""
NEEDED = 2 * 400 + 2 * 10 + 64


@pytest.fixture
def hard() -> Iterator[int]:
    """The limit is 256 meanwhile; the hard one, which stands."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < NEEDED:
        pytest.skip("the system lets this process open too few files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    heard: list[str] = []

    def hear(event: Any) -> None:
        if event["log_namespace"] == "edgeproxy.starting":
            heard.append(f"{event['soft']} of {event['needed']}")

    observer: Any = hear
    globalLogPublisher.addObserver(observer)
    yield heard
    globalLogPublisher.removeObserver(observer)


def config(connections: int = 400) -> Config:
    return parse(CONFIG.format(connections=connections))


def limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_the_process_allows_itself_what_it_may_need(hard: int, warnings: list[str]) -> None:
    allow_descriptors(object(), config())
    assert limit() == NEEDED
    assert warnings == []


def test_a_higher_limit_stays(hard: int, warnings: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (NEEDED + 1, hard))
    allow_descriptors(object(), config())
    assert limit() == NEEDED + 1


def test_select_cannot_have_more(hard: int, warnings: list[str]) -> None:
    allow_descriptors(SelectReactor.__new__(SelectReactor), config())
    assert limit() == 256
    assert warnings == [f"256 of {NEEDED}"]


def test_a_hard_limit_that_is_too_low_is_told(hard: int, warnings: list[str]) -> None:
    most = 1_000_000  # connections that a configuration may allow
    if hard == resource.RLIM_INFINITY or hard > most:
        pytest.skip("the hard limit is higher than what can be asked for")
    allow_descriptors(object(), config(most))
    assert limit() == hard
    assert warnings == [f"{hard} of {2 * most + 84}"]
