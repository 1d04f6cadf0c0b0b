"""The life of filters: made, started, kept over a reload, stopped when nobody needs them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import globalLogPublisher

import twisted.plugins
from edgeproxy.config import ConfigError, parse
from edgeproxy.filters import Filter, Request
from edgeproxy.filters.inforce import problems
from edgeproxy.reloading import Staged
from edgeproxy.testing import MemoryGateway

events: list[str] = []


class Living(Filter):
    class Options(BaseModel):
        name: str
        fails: str = ""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        events.append(f"made {options.name}")

    def start(self) -> None:
        if self.options.fails:
            raise OSError(self.options.fails)
        events.append(f"start {self.options.name}")

    def stop(self) -> None:
        events.append(f"stop {self.options.name}")

    def on_request(self, request: Request) -> None:
        request.state["name"] = self.options.name

    def on_log(self, request: Request, entry: Any) -> None:
        entry["by"] = self.options.name


def configuration(*names: str) -> str:
    uses = ", ".join(f"{{ use: living, options: {{ name: {name}}} }}" for name in names)
    return (
        "upstreams: { a: http://10.0.0.1:80 }\n"
        f"defaults: {{ filters: [{uses}] }}\n"
        "routes: { '*': { /: { to: a, auth: none }, /b: { to: a, auth: none } } }\n"
    )


@pytest.fixture
def gateway() -> Iterator[MemoryGateway]:
    events.clear()
    gateway = MemoryGateway(configuration("one", "two"), filters={"living": Living})
    gateway.gateway.deadlines.waiting.add(gateway.gateway._upkeep)  # as the service's start does
    yield gateway


def reload(gateway: MemoryGateway, text: str) -> None:
    whole = gateway.gateway
    built = whole.build(parse(text))
    whole.filters.make(built.filters)
    whole.use(built, Staged())
    gateway.gateway.resource.snapshot.finished = gateway._record


def ask(gateway: MemoryGateway) -> Any:
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\n\r\n")
    return client


def answer(gateway: MemoryGateway) -> None:
    service = gateway.service("a").connections[-1]
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    gateway.gateway.log.flush()
    gateway.finished.clear()
    gateway.wait(40)  # a pooled connection remembers the route that it was used for
    gateway.wait(1)


def test_one_is_made_for_all_routes_that_say_the_same(gateway: MemoryGateway) -> None:
    assert events == ["made one", "start one", "made two", "start two"]


def test_a_reload_keeps_what_is_the_same_and_stops_the_rest(gateway: MemoryGateway) -> None:
    events.clear()
    reload(gateway, configuration("two", "three"))
    gateway.wait(1)
    assert events == ["made three", "start three", "stop one"]


def test_a_filter_is_stopped_after_its_last_request(gateway: MemoryGateway) -> None:
    client = ask(gateway)
    events.clear()
    reload(gateway, configuration("three"))
    gateway.wait(1)
    assert events == ["made three", "start three"]
    answer(gateway)
    assert client.answers("GET")[0].status == 200
    assert sorted(events[2:]) == ["stop one", "stop two"]
    assert gateway.log[0]["by"] == "one"


def test_a_filter_that_does_not_start_refuses_the_reload(gateway: MemoryGateway) -> None:
    events.clear()
    built = gateway.gateway.build(
        parse(
            configuration("four").replace(
                "name: four} }",
                "name: four} }, { use: living, options: { name: five, fails: no } }",
            ),
            "e.yaml",
        )
    )
    with pytest.raises(ConfigError) as caught:
        gateway.gateway.filters.make(built.filters)
    assert "e.yaml:2:" in str(caught.value)
    assert "starting 'living' failed: OSError: no (" in str(caught.value)
    assert events == ["made four", "start four", "made five", "stop four"]


@pytest.mark.parametrize("given", ["fails", "waits", "fired", "coroutine"])
def test_a_start_that_takes_its_time_is_refused(given: str, log: list[Any]) -> None:
    """Whether it has worked would be known too late."""
    cancelled: list[Any] = []

    class Later(Filter):
        def start(self) -> Any:
            if given == "coroutine":
                return self.begin()
            if given == "waits":
                return Deferred(cancelled.append)
            return fail(OSError("no")) if given == "fails" else succeed(None)

        async def begin(self) -> None:
            raise OSError("no")

        def on_request(self, request: Request) -> None:
            pass

    text = (
        "upstreams: { a: http://10.0.0.1:80 }\nroutes: { '*': { /: { to: a, filters: later } } }\n"
    )
    with pytest.raises(ConfigError) as caught:
        MemoryGateway(text, filters={"later": Later})
    assert "starting 'later' failed: TypeError: start() is a plain method" in str(caught.value)
    assert len(cancelled) == (given == "waits")
    gc.collect()
    assert log == []


@pytest.fixture
def log() -> Iterator[list[Any]]:
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def test_all_are_stopped_at_the_end(gateway: MemoryGateway) -> None:
    client = ask(gateway)
    reload(gateway, configuration("three"))
    events.clear()
    gateway.gateway.filters.stop()
    assert sorted(events) == ["stop one", "stop three", "stop two"]
    client.reset()
    gateway.wait(1)
    assert len(events) == 3


def test_another_secret_makes_another_filter() -> None:
    made: list[str] = []

    class Secretive(Filter):
        class Options(BaseModel):
            secret: SecretStr

        def __init__(self, options: Any) -> None:
            made.append(options.secret.get_secret_value())

        def on_request(self, request: Request) -> None:
            pass

    text = (
        "upstreams: { a: http://10.0.0.1:80 }\n"
        "routes: { '*': { /: { to: a, filters: { use: s, options: { secret: '${env:S}' } } } } }\n"
    )
    gateway = MemoryGateway(text, environ={"S": "one"}, filters={"s": Secretive}).gateway
    for secret in ("one", "two"):
        built = gateway.build(parse(text, environ={"S": secret}))
        gateway.filters.make(built.filters)
        gateway.use(built, Staged())
    assert made == ["one", "two"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path, modules, plugins = list(sys.path), set(sys.modules), list(twisted.plugins.__path__)
    yield tmp_path
    sys.path[:] = path
    twisted.plugins.__path__[:] = plugins
    for name in set(sys.modules) - modules:
        if name.startswith(("dropped", "twisted.plugins.")):
            del sys.modules[name]


def test_drop_ins_are_found_by_name(folder: Path) -> None:
    (folder / "dropped.py").write_text(
        "class Empty:\n    def on_request(self, request): pass\n", "utf-8"
    )
    plugins = folder / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "dropped_plugin.py").write_text(
        "from edgeproxy.filters.plugin import FilterPlugin\n"
        "empty = FilterPlugin('empty', 'dropped.Empty')\n",
        "utf-8",
    )
    assert problems(parse(DROPPED % "empty", folder=folder)) == []
    (wrong,) = problems(parse(DROPPED % "emty", folder=folder))
    assert "there is no drop-in 'emty' under twisted/plugins; did you mean 'empty'?" in str(wrong)


DROPPED = "upstreams: { a: http://127.0.0.1:1 }\nroutes: { '*': { /: { to: a, filters: %s } } }\n"
OFFERED = (
    "from edgeproxy.filters.plugin import FilterPlugin\n"
    "from edgeproxy.filters import Filter\n"
    "class Empty(Filter):\n"
    "    def on_request(self, request): pass\n"
    "empty = FilterPlugin('empty', Empty)\n"
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import dropped_nowhere", "ModuleNotFoundError: No module named 'dropped_nowhere' ("),
        ("\ndef :", "SyntaxError: invalid syntax ("),
        ("import sys; sys.exit(3)", "SystemExit: 3 ("),
        ("raise KeyError('no')", "KeyError: 'no' ("),
    ],
)
def test_a_drop_in_that_cannot_be_imported_is_told_in_one_line(
    folder: Path, log: list[Any], text: str, told: str
) -> None:
    """Where its name is asked for; others work beside it."""
    plugins = folder / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "dropped_broken.py").write_text(text, "utf-8")
    (plugins / "dropped_fine.py").write_text(OFFERED, "utf-8")
    (wrong,) = problems(parse(DROPPED % "hours", "e.yaml", folder=folder))
    assert str(wrong).startswith(
        "e.yaml:2:39: there is no drop-in 'hours' under twisted/plugins; there is: empty; "
        f"importing twisted.plugins.dropped_broken failed: {told}{plugins / 'dropped_broken.py'}:"
    )
    assert problems(parse(DROPPED % "empty", folder=folder)) == []
    assert log == []


@pytest.mark.parametrize("open_to_all", ["", "twisted", "twisted/plugins"])
def test_nothing_is_loaded_from_a_folder_that_all_may_write_to(
    folder: Path, open_to_all: str
) -> None:
    plugins = folder / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "dropped_evil.py").write_text(OFFERED, "utf-8")
    (folder / open_to_all).chmod(0o777)
    (wrong,) = problems(parse(DROPPED % "empty", folder=folder))
    assert (
        f"there is no drop-in 'empty' under twisted/plugins; nothing is imported from {plugins}, "
        f"since everybody may write to {folder / open_to_all}: `chmod o-w` it"
    ) in str(wrong)
    assert "twisted.plugins.dropped_evil" not in sys.modules
