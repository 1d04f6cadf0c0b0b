"""Routes that lead to resources, in a gateway that is itself a resource of a stock site."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_site import Client, Mounted, get
from twisted.logger import LogLevel, capturedLogs
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.static import File

from edgeproxy.exchange import Outcome


class Held(Resource):
    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.ends: list[Any] = []

    def render(self, request: Any) -> Any:
        self.requests.append(request)
        request.notifyFinish().addBoth(self.ends.append)
        return NOT_DONE_YET


class Told(Resource):
    isLeaf = True

    def render(self, request: Any) -> bytes:
        told = (request.prepath, request.postpath, request.prePathURL(), request.content.read())
        return repr((*told, request.getCookie(b"a"))).encode()


class Fails(Resource):
    isLeaf = True

    def render(self, request: Any) -> bytes:
        raise ValueError("<b>secret</b>")


class MountedTwice(Mounted):
    """The gateway lies below /api of the site."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__()

    def root(self) -> Resource:
        root = Resource()
        root.putChild(b"api", super().root())
        return root

    def _configuration(self) -> str:
        return f"""
access_log: "off"
routes:
  "*":
    /api/told: {{ resource: test_mounted_site.Told, auth: none }}
    /api/held: {{ resource: test_mounted_site.Held, auth: none }}
    /api/fails: {{ resource: test_mounted_site.Fails, auth: none }}
    /api/files: {{ resource: twisted.web.static.File, auth: none,
                   options: {{ path: {self._folder} }} }}
    /api/closed: {{ resource: test_mounted_site.Told }}
"""

    @property
    def held(self) -> Any:
        (found,) = [
            rule.action.mounted.site.resource
            for rule in self.gateway.snapshot().router.ordered
            if rule.action.mounted is not None and rule.action.label.endswith("held")
        ]
        return found

    def asked(self, path: bytes, fields: bytes = b"") -> tuple[Client, Any]:
        client = self.client(get(path, fields))
        self.until(lambda: self.held.requests)
        return client, self.held.requests[-1]


@pytest.fixture
def twice(tmp_path: Path) -> Iterator[MountedTwice]:
    made = MountedTwice(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_what_it_is_given(twice: MountedTwice, size: int) -> None:
    fields = b"Cookie: a=b\r\nContent-Length: %d\r\n" % size
    answer = twice.client(get(b"/api/told/x/y", fields, b"POST") + bytes(size)).answer("POST")
    prepath, postpath, url, body, cookie = ast.literal_eval(answer.body.decode())
    assert (prepath, postpath) == ([b"api", b"told"], [b"x", b"y"])
    assert url == b"http://site.example/api/told"
    assert (body, cookie) == (bytes(size), b"b")
    assert [each.outcome for each in twice.finished] == [Outcome.OK]


def test_files(twice: MountedTwice, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "big").write_bytes(bytes(500_000))
    assert File(str(tmp_path)).exists()
    assert twice.client(get(b"/api/files/big")).answer().body == bytes(500_000)
    part = twice.client(get(b"/api/files/big", b"Range: bytes=1-3\r\n")).answer()
    assert (part.status, part.body) == (206, bytes(3))
    head = twice.client(get(b"/api/files/big", method=b"HEAD")).answer("HEAD")
    assert (head.status, head.field("content-length")) == (200, "500000")
    assert twice.client(get(b"/api/files/sub")).answer().field("location") == "/api/files/sub/"
    assert twice.client(get(b"/api/files/none")).answer().status == 404
    assert twice.client(get(b"/api/closed")).answer().status == 401


def test_a_slow_client_pauses_a_file(twice: MountedTwice, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(30_000_000))
    client = twice.client(get(b"/api/files/big"))
    for _ in range(500):
        twice.reactor.iterate(0)
    assert twice.finished == []
    twice.until(lambda: len(client.read()) > 30_000_000)
    twice.until(lambda: twice.finished)
    assert [each.sent for each in twice.finished] == [30_000_000]


def test_a_failing_resource(twice: MountedTwice) -> None:
    with capturedLogs() as logs:
        answer = twice.client(get(b"/api/fails")).answer()
    assert answer.status == 500
    assert answer.json["request_id"] == twice.finished[0].id.decode()
    assert b"secret" not in answer.body
    assert len([each for each in logs if each["log_level"] is LogLevel.critical]) == 1


def test_streaming_and_a_client_that_goes(twice: MountedTwice) -> None:
    client, request = twice.asked(b"/api/held")
    request.write(b"abc")
    twice.until(lambda: b"abc" in client.read())
    client.close()
    twice.until(lambda: twice.held.ends)
    request.write(b"late")
    request.finish()
    assert [each.outcome for each in twice.finished] == [Outcome.CLIENT_GONE]


def test_an_answer_that_is_too_short_is_cut(twice: MountedTwice) -> None:
    client, request = twice.asked(b"/api/held")
    request.setHeader("Content-Length", "10")
    request.write(b"abc")
    twice.until(lambda: b"abc" in client.read())
    request.finish()
    twice.until(lambda: client.read() and client.gone)
    assert [each.outcome for each in twice.finished] == [Outcome.ERROR]


def test_a_chunked_answer(twice: MountedTwice) -> None:
    client, request = twice.asked(b"/api/held")
    request.write(b"abc")
    request.write(b"def")
    request.finish()
    assert client.answer().body == b"abcdef"
    assert twice.held.ends == [None]
