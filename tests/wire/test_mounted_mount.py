"""A route's resource over the life of a gateway: made once, kept, replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mounted_shop import CONFIGURATION, files
from wire_support import get

from edgeproxy.config import ConfigError, parse
from edgeproxy.reloading import Staged
from edgeproxy.testing import MemoryGateway

Make = Callable[..., MemoryGateway]

HELD = "/held: { resource: mounted_shop.Held, auth: none }"


def resources(gateway: MemoryGateway) -> dict[str, Any]:
    return {
        rule.action.label: rule.action.mounted.site.resource
        for rule in gateway.gateway.snapshot().router.ordered
        if rule.action.mounted is not None
    }


def reload(gateway: MemoryGateway, text: str) -> None:
    built = gateway.gateway.build(parse(text))
    gateway.gateway.mounts.make(built.mounts)
    gateway.gateway.use(built, Staged())


def configuration(*routes: str) -> str:
    return "routes:\n  api.example.com:\n" + "".join(f"    {route}\n" for route in routes)


def test_a_reload_keeps_what_did_not_change(quick: Make) -> None:
    gateway = quick(configuration(HELD, "/b: { resource: mounted_shop.Told }"))
    before = resources(gateway)
    reload(
        gateway,
        configuration(
            "/a: { page: true }",
            HELD.replace("auth: none", "auth: none, body: 1KiB"),
            "/c: { resource: mounted_shop.Told }",
        ),
    )
    after = resources(gateway)
    assert after["api.example.com /held"] is before["api.example.com /held"]
    assert set(after) == {"api.example.com /held", "api.example.com /c"}


def test_other_options_are_another_resource(quick: Make, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("of a file")
    text = "/f: { resource: mounted_shop.files, auth: none, options: { path: %s } }"
    gateway = quick(configuration(text % "/nowhere"))
    client = gateway.client()
    client.send(get("/f/a"))
    reload(gateway, configuration(text % tmp_path))
    client.send(get("/f/a"))
    assert [answer.status for answer in client.answers()] == [404, 200]


def test_a_request_goes_on_with_the_resource_that_it_began_with(quick: Make) -> None:
    gateway = quick(configuration(HELD))
    client = gateway.client()
    client.send(get("/held"))
    old = resources(gateway)["api.example.com /held"]
    reload(gateway, configuration("/held: { resource: mounted_shop.tree, auth: none }"))
    old.requests[0].write(b"old")
    old.requests[0].finish()
    client.send(get("/held/data"))
    assert [answer.body for answer in client.answers()] == [b"old", b"some data"]


@pytest.mark.parametrize("path", ["mounted_shop.absent", "mounted_shop.gives_nothing"])
def test_what_cannot_be_made_changes_nothing(quick: Make, path: str) -> None:
    gateway = quick(configuration(HELD))
    before = resources(gateway)
    with pytest.raises(ConfigError) as caught:
        reload(gateway, configuration(f"/held: {{ resource: {path} }}"))
    assert str(caught.value).startswith("edgeproxy.yaml:3:24: ")
    assert resources(gateway) == before
    with pytest.raises(ConfigError):
        MemoryGateway(configuration(f"/held: {{ resource: {path} }}"))


def test_each_route_has_its_own(quick: Make) -> None:
    gateway = quick(configuration(HELD, HELD.replace("/held", "/other")))
    one, two = resources(gateway).values()
    assert one is not two


# -- sessions --------------------------------------------------------------------------------------


@pytest.fixture
def visit(quick: Make) -> Iterator[Callable[..., bytes]]:
    gateway = quick(CONFIGURATION)

    def send(cookie: bytes = b"") -> bytes:
        client = gateway.client()
        client.send(get("/session", b"Cookie: %b\r\n" % cookie if cookie else b""))
        return client.take()

    send.gateway = gateway  # type: ignore[attr-defined]
    yield send


def test_a_session_and_its_cookie(visit: Callable[..., bytes]) -> None:
    first = visit()
    (line,) = [each for each in first.split(b"\r\n") if each.startswith(b"Set-Cookie: ")]
    cookie, *attributes = line.removeprefix(b"Set-Cookie: ").split(b"; ")
    assert cookie.startswith(b"TWISTED_SECURE_SESSION_api_example_com_session=")
    assert attributes == [b"Path=/", b"Secure", b"HttpOnly", b"SameSite=lax"]
    assert visit(cookie).endswith(b"\r\n\r\n2")
    assert visit(b"TWISTED_SECURE_SESSION_api_example_com_session=0").endswith(b"\r\n\r\n1")
    gateway: MemoryGateway = visit.gateway  # type: ignore[attr-defined]
    gateway.wait(901)
    assert visit(cookie).endswith(b"\r\n\r\n1")


def test_sessions_are_bounded_and_end_with_the_route(
    visit: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.mounted.request._MOST_SESSIONS", 3)
    gateway: MemoryGateway = visit.gateway  # type: ignore[attr-defined]
    (site,) = [
        rule.action.mounted.site
        for rule in gateway.gateway.snapshot().router.ordered
        if rule.action.mounted is not None and rule.action.label.endswith("/session")
    ]
    for _ in range(5):
        visit()
    assert len(site.sessions) == 3
    reload(gateway, "routes: { api.example.com: { /: { page: true } } }")
    assert site.sessions == {}


def test_files(quick: Make, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_bytes(bytes(range(100)))
    text = "/f: {{ resource: mounted_shop.files, auth: none, options: {{ path: {} }} }}"
    gateway = quick(configuration(text.format(tmp_path)))
    assert files(str(tmp_path)).exists()
    client = gateway.client()
    for path in ("/f/folder", "/f/../secret", "/f/%2e%2e/secret", "/f/..%2fsecret", "/f/none"):
        other = gateway.client()
        other.send(get(path))
        (found,) = other.answers()
        assert found.status == {"/f/folder": 302, "/f/none": 404}.get(path, 400)
        if found.status == 302:
            assert b"Location: /f/folder/\r\n" in other.received
    client.send(get("/f/folder/a.txt"))
    whole = client.answers()[-1]
    assert whole.body == bytes(range(100))
    modified = (whole.field("Last-Modified") or "").encode()
    client.send(get("/f/folder/a.txt", b"If-Modified-Since: %b\r\n" % modified))
    client.send(get("/f/folder/a.txt", b"Range: bytes=10-19\r\n"))
    client.send(get("/f/folder/a.txt", b"Range: bytes=500-\r\n"))
    client.send(get("/f/folder/a.txt", b"Range: bytes=0-1,5-6\r\n"))
    _, unchanged, part, beyond, parts = client.answers()
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert (part.status, part.body) == (206, bytes(range(10, 20)))
    assert beyond.status == 416
    assert (parts.status, parts.body) == (200, whole.body), "one range, or the whole"
