"""A real browser: pages of two origins call a third, with and without credentials.

The browser itself decides what a page may read. Each page tells what came of its calls by a POST to
the service behind the gateway on its own origin; what the service has seen is looked at too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from real_support import Start
from running_support import Child, wait_for

from edgeproxy.certs.development import make as make_certificate

pytestmark = [pytest.mark.debian("chromium"), pytest.mark.timeout(180)]

PAGE = """<!doctype html><title>test</title><script>
const OTHER = location.href.replace('good', 'bad');
const api = 'https://api.localhost:' + location.port;
async function call(path, options) {
  try {
    const answer = await fetch(api + path, options);
    const text = (await answer.text()).slice(0, 40);
    return [answer.status, text, answer.headers.get('X-Served') !== null];
  } catch (error) {
    return 'refused';
  }
}
const key = {'X-API-Key': 'KEY'};
async function all() {
  const found = {};
  found.plain = await call('/plain/a');
  found.keyed = await call('/keyed/a', {headers: key});
  found.again = await call('/keyed/a', {headers: key});
  found.put = await call('/keyed/a', {method: 'PUT', headers: key, body: 'x'});
  found.unauthorized = await call('/keyed/b', {headers: {'X-API-Key': 'edge_wrong'}});
  found.other_field = await call('/keyed/c', {headers: {...key, 'X-Other': 'x'}});
  found.other_method = await call('/only/a', {method: 'DELETE', headers: key});
  found.cookie = await call('/cookie/a', {credentials: 'include'});
  found.cookie_where_none = await call('/plain/b', {credentials: 'include'});
  found.none = await call('/none/a');
  found.any = await call('/any/a');
  found.any_with_cookie = await call('/any/b', {credentials: 'include'});
  return found;
}
all().catch(error => ({error: String(error)}))
  .then(found => fetch('/result', {method: 'POST', body: JSON.stringify(found)}))
  .then(() => { if (location.host[0] == 'g') location = OTHER; });
</script>"""


class Service(ThreadingHTTPServer):
    """``results`` are what pages have reported, by their host; ``asked`` what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.page = ""
        self.results: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, str]] = []
        Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def log_message(self, *arguments: object) -> None:
        """Nobody reads it."""

    def answer(self, text: str, kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        # A service that lets in everybody: on routes with `cors` that is not passed on.
        self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin") or "*")
        self.send_header("Access-Control-Allow-Credentials", "true")
        self.send_header("X-Served", "yes")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def ask(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/":
            self.answer(self.server.page, "text/html")
        elif self.path == "/result":
            self.server.results[self.headers["X-Forwarded-Host"]] = json.loads(body)
            self.answer("thanks")
        else:
            self.server.asked.append((self.command, self.path, self.headers.get("Origin") or ""))
            self.answer("read")

    do_GET = do_PUT = do_POST = do_DELETE = do_OPTIONS = ask


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.shutdown()
    made.server_close()


def test_two_origins(
    gateway: Start, service: Service, browse: Callable[[str], Child], tmp_path: Path, free_port: int
) -> None:
    good, bad = (f"https://{name}.localhost:{free_port}" for name in ("good", "bad"))
    web = {"to": "web", "auth": "none"}
    certs = tmp_path / "gateway" / "certs"
    certs.mkdir(parents=True)
    names = ["api.localhost", "good.localhost", "bad.localhost"]
    made = make_certificate(names, datetime.now(UTC))
    (certs / "all.pem").write_bytes(made.chain_pem + made.key_pem)
    running = gateway(
        {
            "listen": {"https": f"127.0.0.1:{free_port}"},
            "defaults": {"cors": good},
            "upstreams": {"web": f"http://127.0.0.1:{service.server_port}"},
            "routes": {
                "*.localhost": {"/": {**web, "cors": "none"}},
                "api.localhost": {
                    "/plain": {**web, "cors": {"origins": good, "expose": "X-Served"}},
                    "/keyed": "web",
                    "/only": {"to": "web", "cors": {"origins": good, "methods": "GET"}},
                    "/cookie": {**web, "cors": {"origins": good, "credentials": True}},
                    "/none": {
                        **web,
                        "cors": "none",
                        "response": {"remove": ["Access-Control-Allow-Origin"]},
                    },
                    "/any": {**web, "cors": "*"},
                },
            },
        }
    )
    service.page = PAGE.replace("KEY", running.development.credential)
    browser = browse(f"{good}/")
    wait_for(lambda: len(service.results) == 2 or not browser.running, 120, "both results")
    assert len(service.results) == 2, browser.said()
    found = {host.partition(".")[0]: each for host, each in service.results.items()}
    read, refused = [200, "read", False], "refused"
    assert found["good"] == {
        "plain": [200, "read", True],
        "keyed": read,
        "again": read,
        "put": read,
        "unauthorized": [401, found["good"]["unauthorized"][1], False],
        "other_field": refused,
        "other_method": refused,
        "cookie": read,
        "cookie_where_none": refused,
        "none": refused,
        "any": read,
        "any_with_cookie": refused,
    }
    assert found["good"]["unauthorized"][1].startswith('{"type": "about:blank"')
    assert found["bad"] == dict.fromkeys(found["good"], refused) | {"any": read}
    # What was announced and refused never came; what a form could send did.
    came = {(method, path) for method, path, origin in service.asked if origin == bad}
    assert came == {
        ("GET", f"/{path}")
        for path in ("plain/a", "cookie/a", "plain/b", "none/a", "any/a", "any/b")
    }
    assert not [each for each in service.asked if each[0] in ("OPTIONS", "DELETE")]
    # One preflight for both GETs, another for PUT.
    path = running.folder / "access.log"
    text = wait_for(lambda: path.read_text() if path.read_text().count("/result") == 2 else "")
    log = [json.loads(line) for line in text.splitlines()]
    preflights = [
        line for line in log if line["method"] == "OPTIONS" and line["path"] == "/keyed/a"
    ]
    allowed = [line for line in preflights if "reason" not in line]
    assert (len(allowed), {line["status"] for line in preflights}) == (2, {204})
    assert {line.get("reason") for line in preflights} == {None, "cors: the origin is not allowed"}
