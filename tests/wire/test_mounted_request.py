"""What people write resources with: Klein, and the examples of docs/resources.md."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from docs_support import of
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from wire_support import get, post

from edgeproxy.config import parse
from edgeproxy.mounted.loading import problems
from edgeproxy.testing import MemoryGateway

Make = Callable[..., MemoryGateway]


@pytest.fixture
def shop() -> Iterator[Any]:
    """A module of the name `shop`, to be filled by the test."""
    module: Any = ModuleType("shop")
    sys.modules["shop"] = module
    yield module
    del sys.modules["shop"]


def test_a_klein_application(make: Make, shop: Any) -> None:
    app = shop.app = Klein()
    waiting: list[Deferred[bytes]] = []

    @app.route("/hello/<name>")
    def hello(request: Any, name: str) -> str:
        return f"hello {name}, from {request.principal.name}"

    @app.route("/form", methods=["POST"])
    def form(request: Any) -> bytes:
        found: bytes = request.args[b"a"][0]
        return found

    @app.route("/later")
    def later(request: Any) -> Deferred[bytes]:
        waiting.append(Deferred())
        return waiting[-1]

    @app.route("/fails")
    def fails(request: Any) -> None:
        raise ValueError("<b>secret</b>")

    @app.route("/files/", branch=True)
    def files(request: Any) -> Any:
        from twisted.web.static import File

        return File(str(Path(__file__).parent))

    gateway = make("routes: { api.example.com: { /k: { resource: shop.app.resource } } }")
    key = b"X-API-Key: %b\r\n" % gateway.key("ada").encode()
    client = gateway.client()
    client.send(get("/k/hello/you", key))
    fields = b"Content-Type: application/x-www-form-urlencoded\r\n" + key
    client.send(post(b"a=1", "/k/form", fields))
    client.send(get("/k/later", key))
    waiting[0].callback(b"late")
    gateway.reactor.settle()
    client.send(get("/k/none", key) + get(f"/k/files/{Path(__file__).name}", key))
    with capturedLogs() as logs:
        client.send(get("/k/fails", key))
    found = client.answers("GET", "POST")
    assert [each.status for each in found] == [200, 200, 200, 404, 200, 500]
    assert [each.body for each in found[:3]] == [b"hello you, from ada", b"1", b"late"]
    assert found[4].body == Path(__file__).read_bytes()
    assert b"secret" not in client.received.rpartition(b"HTTP/1.1 500")[2]
    assert len([e for e in logs if e["log_level"] is LogLevel.critical]) == 1
    client.send(get("/k/later", key))
    client.reset()
    with capturedLogs() as logs:
        waiting[1].callback(b"too late")
        gateway.reactor.settle()
    assert [e for e in logs if e["log_level"] >= LogLevel.error] == []


def test_the_examples_of_the_documentation(quick: Make, shop: Any, tmp_path: Path) -> None:
    status, test = of("docs/resources.md", "python")
    configuration, wsgi = of("docs/resources.md", "yaml")
    exec(compile(status, "shop.py", "exec"), shop.__dict__)
    space: dict[str, Any] = {}
    exec(compile(test, "docs/resources.md", "exec"), space)
    space["test_status"]()
    assert problems(parse(configuration)) == []
    shop.__path__ = []
    sys.modules["shop.wsgi"] = ModuleType("shop.wsgi")
    (missing,) = problems(parse(wsgi))
    assert "shop.wsgi has no 'application'" in missing.message
    vars(sys.modules["shop.wsgi"])["application"] = len
    assert problems(parse(wsgi)) == []
    del sys.modules["shop.wsgi"]
    gateway = quick(configuration)
    client = gateway.client(name="localhost")
    client.send(get("/status"))
    assert client.answers()[0].body == b"hello, world\n"
    (tmp_path / "shop.py").write_text(status)
    wrong = parse(configuration.replace("shop.Status", "shop.Staus"), folder=tmp_path)
    (told,) = of("docs/resources.md", "text")
    shop.__file__ = "/srv/gateway/shop.py"
    assert str(problems(wrong)[0]) == told.strip()
