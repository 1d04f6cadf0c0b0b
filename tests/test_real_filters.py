"""Filters in a gateway that twistd has started: a service that is asked, reloads, refusals."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from docs_support import of
from running_support import RunningGateway, wait_for, write_config

Start = Callable[..., RunningGateway]

(FLAG,) = [text for text in of("docs/filters.md", "python") if "class Flag(" in text]
SHOP = (
    FLAG
    + """

class Living(Filter):
    class Options(BaseModel):
        name: str
        fails: bool = False

    def start(self):
        if self.options.fails:
            raise OSError(5, "no luck")
        print("started", self.options.name, flush=True)

    def stop(self):
        print("stopped", self.options.name, flush=True)

    def on_response(self, request, response):
        response.headers["X-By"] = self.options.name
        if request.path == "/fails":
            raise KeyError("a secret of the filter's")
"""
)


class Flags(BaseHTTPRequestHandler):
    """A service of flags: who has which."""

    has: ClassVar[dict[str, Any]] = {}
    status = 200
    silent = threading.Event()

    def do_GET(self) -> None:
        (caller,) = parse_qs(urlsplit(self.path).query)["caller"]
        if self.silent.is_set():
            self.rfile.read(1)  # until the other side has gone
            return
        body = json.dumps(self.has.get(caller, {})).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def flags() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Flags)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Flags.has, Flags.status = {}, 200
    Flags.silent.clear()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def configuration(filters: Any) -> dict[str, Any]:
    return {"defaults": {"filters": filters}, "routes": {"*": {"/": {"page": True}}}}


def started(start: Start, filters: Any, name: str = "filtering") -> RunningGateway:
    gateway = start(configuration("none"), name)
    (gateway.folder / "filtershop.py").write_text(SHOP)
    write_config(gateway.folder, configuration(filters))
    assert gateway.command("reload").returncode == 0
    return gateway


def test_a_service_that_is_asked_by_treq(gateway: Start, flags: int) -> None:
    use = {
        "use": "filtershop.Flag",
        "options": {"url": f"http://127.0.0.1:{flags}/flags", "flag": "orders"},
        "timeout": "1s",
    }
    running = started(gateway, use)
    refused = running.ask("/")
    assert (refused.status, refused.json()["detail"]) == (403, "This is not for you yet.")
    Flags.has = {running.development.key_id: {"orders": True}}
    assert running.ask("/").status == 200
    Flags.status = 500
    assert running.ask("/").status == 503
    Flags.status = 200
    Flags.silent.set()
    late = running.ask("/")
    assert (late.status, late.fields["Retry-After"]) == (503, "1")
    lines = wait_for(lambda: (found := running.log_lines()) and len(found) == 4 and found)
    assert [line["status"] for line in lines] == [403, 200, 503, 503]
    assert lines[0]["reason"] == "filter filtershop.Flag: without orders"
    counts = running.control("counters")["counters"]["filters"]["filtershop.Flag"]
    assert (counts["calls"], counts["refused"], counts["timeouts"]) == (4, 2, 1)
    assert "Traceback" not in running.child.said()


def living(name: str, **more: Any) -> dict[str, Any]:
    return {"use": "filtershop.Living", "options": {"name": name, **more}}


def test_filters_over_reloads(gateway: Start) -> None:
    running = started(gateway, living("one"))
    assert running.ask("/").fields["X-By"] == "one"
    for wrong, told in [
        (living("two", fails=True), "starting 'filtershop.Living' failed: OSError: [Errno 5]"),
        (living("two", fials=True), "'fials' is not a setting here; did you mean 'fails'?"),
        ({"use": "filtershop.Livign"}, "has no 'Livign'; did you mean 'Living'?"),
    ]:
        write_config(running.folder, configuration(wrong))
        refused = running.command("reload")
        assert refused.returncode == 1
        (line,) = [each for each in (refused.stdout + refused.stderr).splitlines() if told in each]
        assert "edgeproxy.yaml:" in line
        assert running.ask("/").fields["X-By"] == "one"
    write_config(running.folder, configuration([living("one"), living("three")]))
    assert running.command("reload").returncode == 0
    assert running.ask("/").fields["X-By"] == "one"
    write_config(running.folder, configuration(living("three")))
    assert running.command("reload").returncode == 0
    assert running.ask("/").fields["X-By"] == "three"
    running.child.wait_until_said("stopped one")
    said = running.child.said()
    assert said.count("started one") == said.count("started three") == 1
    assert "stopped three" not in said and "stopped two" not in said
    failed = running.ask("/fails")
    assert failed.status == 500
    assert b"secret" not in failed.body
    running.child.wait_until_said("the filter filtershop.Living failed at request")
    assert "a secret of the filter's" in running.child.said()
    told = " ".join(running.command("status").stdout.split())
    assert "filter filtershop.Living: 8 calls, " in told and " µs each, errors 1 " in told
    running.stop()
    assert "stopped three" in running.child.said()


def test_a_filter_that_does_not_start_keeps_the_gateway_from_starting(
    gateway: Start, child: Callable[..., Any]
) -> None:
    running = started(gateway, living("one"))
    running.stop()
    write_config(running.folder, configuration(living("two", fails=True)))
    again = child(running.child.process.args, cwd=running.folder)
    assert again.wait() == 1
    said = again.said().strip().splitlines()
    assert len(said) == 1, said
    assert "edgeproxy.yaml:" in said[0] and "starting 'filtershop.Living' failed" in said[0]
