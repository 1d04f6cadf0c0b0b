"""A real browser in front: it fetches, uploads, follows events and talks WebSocket over TLS.

The page that it opens does all of it, and reports by a POST to the service behind the gateway; no
driver is needed. The service is made of the standard library and of `websockets`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest
from real_support import Start
from running_support import Child, wait_for
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

pytestmark = [pytest.mark.debian("chromium"), pytest.mark.timeout(180)]

UPLOAD = 300_000
MESSAGE = 100_000
PAGE = """<!doctype html><title>test</title><script>
const bytes = size => Uint8Array.from({length: size}, (_, i) => i % 251);
const url = path => `wss://${location.host}${path}`;

function events() {
  return new Promise((done, failed) => {
    const got = [], source = new EventSource('/events');
    source.onmessage = event => {
      got.push(event.data);
      if (got.length == 3) { source.close(); done(got); }
      else fetch('/next', {method: 'POST'});  // the next one comes when this one has been seen
    };
    source.onerror = () => failed('events broke off');
  });
}

function talk(path) {
  return new Promise(done => {
    const got = [], socket = new WebSocket(url(path), ['echo']);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => { socket.send('hello, wörld'); socket.send(bytes(MESSAGE)); };
    socket.onmessage = event => {
      got.push(typeof event.data == 'string' ? event.data : event.data.byteLength);
      if (got.length == 2) socket.close(4001, 'enough');
    };
    socket.onclose = event => done([got, event.code, event.wasClean, socket.protocol]);
  });
}

async function all() {
  const found = {};
  found.fetched = await (await fetch('/hello?a=b')).text();
  found.uploaded = await (await fetch('/upload', {method: 'POST', body: bytes(UPLOAD)})).json();
  found.events = await events();
  found.talk = await talk('/chat');
  found.closed = (await fetch('/closed/hello')).status;
  found.closed_talk = await talk('/closed/chat');
  found.key_talk = await talk('/closed/chat?key=KEY');
  found.plain_talk = await talk('/plain/chat');
  return found;
}
all().catch(error => ({error: String(error)}))
  .then(found => fetch('/result', {method: 'POST', body: JSON.stringify(found)}));
</script>"""


class Service(ThreadingHTTPServer):
    """``result`` is what the page has reported; ``targets`` are those that were asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.result: dict[str, Any] | None = None
        self.page = ""
        self.targets: list[str] = []
        self.seen = [Event(), Event()]
        Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def log_message(self, *arguments: object) -> None:
        """Nobody reads it."""

    def answer(self, text: str, kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.targets.append(self.path)
        path = self.path.partition("?")[0]
        if path.endswith("/chat"):
            self.talk()
        elif path == "/events":
            self.events()
        elif path == "/":
            self.answer(self.server.page, "text/html")
        else:
            self.answer(f"you asked for {self.path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/upload":
            self.answer(json.dumps([len(body), sha256(body).hexdigest()]))
            return
        if self.path == "/result":
            self.server.result = json.loads(body)
        elif self.path == "/next":
            next(each for each in self.server.seen if not each.is_set()).set()
        self.answer("thanks")

    def events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number in range(3):
            if number and not self.server.seen[number - 1].wait(30):
                return
            self.wfile.write(b"data: event %d\n\n" % number)
        self.close_connection = True

    def talk(self) -> None:
        """Say everything back, until the browser closes."""
        self.close_connection = True
        protocol = ServerProtocol(subprotocols=["echo"])  # type: ignore[list-item]
        lines = [self.requestline, *(f"{name}: {value}" for name, value in self.headers.items())]
        protocol.receive_data("\r\n".join([*lines, "", ""]).encode())
        (request,) = protocol.events_received()
        assert isinstance(request, Request)
        response = protocol.accept(request)
        protocol.send_response(response)
        while True:
            for data in protocol.data_to_send():
                self.wfile.write(data)
            if protocol.close_expected() or response.status_code != 101:
                return
            data = self.connection.recv(65536)
            if not data:
                return
            protocol.receive_data(data)
            for frame in protocol.events_received():
                assert isinstance(frame, Frame)
                if frame.opcode is Opcode.TEXT:
                    protocol.send_text(frame.data, frame.fin)
                elif frame.opcode is Opcode.BINARY:
                    protocol.send_binary(frame.data, frame.fin)
                elif frame.opcode is Opcode.CONT:
                    protocol.send_continuation(frame.data, frame.fin)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.shutdown()
    made.server_close()


def test_a_browser(gateway: Start, service: Service, browse: Callable[[str], Child]) -> None:
    running = gateway(
        {
            "auth": {"api_key": {"query": "key"}},
            "upstreams": {"web": f"http://127.0.0.1:{service.server_port}"},
            "routes": {
                "localhost": {
                    "/": {"to": "web", "auth": "none", "websocket": True},
                    "/closed": {"to": "web", "websocket": True},
                    "/plain": {"to": "web", "auth": "none"},
                }
            },
        }
    )
    key = running.development.credential
    service.page = (
        PAGE.replace("UPLOAD", str(UPLOAD)).replace("MESSAGE", str(MESSAGE)).replace("KEY", key)
    )
    browser = browse(f"{running.url}/")
    found = wait_for(
        lambda: service.result or not browser.running and {"error": browser.said()}, 120, "a result"
    )
    echoed = [["hello, wörld", MESSAGE], 4001, True, "echo"]
    refused = [[], 1006, False, ""]
    body = bytes(number % 251 for number in range(UPLOAD))
    assert found == {
        "fetched": "you asked for /hello?a=b",
        "uploaded": [UPLOAD, sha256(body).hexdigest()],
        "events": ["event 0", "event 1", "event 2"],
        "talk": echoed,
        "closed": 401,
        "closed_talk": refused,
        "key_talk": echoed,
        "plain_talk": refused,
    }
    assert "/closed/hello" not in service.targets
    assert [each for each in service.targets if "chat" in each] == [
        "/chat",
        "/closed/chat",
        "/plain/chat",
    ]
    wait_for(lambda: running.command("status", "--json").stdout.count('"tunnels": 0'))
    log = wait_for(lambda: (running.folder / "access.log").read_text())
    assert key not in log
    ended = [json.loads(line) for line in log.splitlines() if '"status":101' in line]
    assert [(line["path"], line["outcome"]) for line in ended] == [
        ("/chat", "ok"),
        ("/closed/chat", "ok"),
    ]
    assert all(line["received"] > MESSAGE < line["sent"] for line in ended)
