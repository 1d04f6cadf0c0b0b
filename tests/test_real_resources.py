"""Resources behind a gateway that twistd has started: real sockets, TLS, threads and files."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running_support import BIN, Answer, RunningGateway, edgeproxy, wait_for, write_config

Start = Callable[..., RunningGateway]

SHOP = '''
import hashlib
import threading
from wsgiref.simple_server import demo_app

from klein import Klein
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.wsgi import WSGIResource

print("imported once", flush=True)


def digest(environ, start_response):
    """Reads its input, and streams what it found."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    size, sha = 0, hashlib.sha256()
    while data := environ["wsgi.input"].read(65536):
        size += len(data)
        sha.update(data)
    yield b"%d " % size
    yield sha.hexdigest().encode()
    yield f" {environ['SCRIPT_NAME']} {environ['PATH_INFO']} {environ['CONTENT_LENGTH']}".encode()
    yield f" {environ['wsgi.url_scheme']} {environ.get('HTTP_X_CONSUMER_NAME')}".encode()


class Endlessly:
    def __iter__(self):
        while True:
            yield b"x" * 1000

    def close(self):
        print("closed by its server", flush=True)


def endless(environ, start_response):
    start_response("200 OK", [])
    return Endlessly()


def fails(environ, start_response):
    raise ValueError("<b>secret</b>")


def exits(environ, start_response):
    raise SystemExit("<b>secret</b>")


def gives_nothing(environ, start_response):
    start_response("200 OK", [])


def never_starts(environ, start_response):
    return [b"secret"]


def starts_wrongly(environ, start_response):
    start_response("200", [])
    return [b"secret"]


def not_latin(environ, start_response):
    start_response("200 OK", [("X-Name", "\u20ac")])
    return [b"secret"]


def gives_text(environ, start_response):
    start_response("200 OK", [])
    return ["secret"]


def stops_midway(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    yield b"some"
    raise ValueError("<b>secret</b>")


def hangs(environ, start_response):
    print("hanging", flush=True)
    threading.Event().wait()


def wsgi(name):
    return WSGIResource(reactor, reactor.getThreadPool(), globals()[name])


app = Klein()


@app.route("/<name>")
def hello(request, name):
    return f"hello {name}"


class Producing(Resource):
    """Streams until its client goes."""

    isLeaf = True

    def render_GET(self, request):
        request.registerProducer(Endless(request), True)
        return NOT_DONE_YET


class Endless:
    def __init__(self, request):
        self.request = request
        self.sent = 0
        self.call = reactor.callLater(0, self.go)
        request.notifyFinish().addErrback(self.gone)

    def go(self):
        self.call = reactor.callLater(0, self.go)
        self.sent += 65536
        self.request.write(b"y" * 65536)

    def pauseProducing(self):
        self.call.cancel()
        print("paused after", self.sent, flush=True)

    def resumeProducing(self):
        self.call = reactor.callLater(0, self.go)

    def stopProducing(self):
        if self.call.active():
            self.call.cancel()

    def gone(self, reason):
        print("told of the end:", reason.type.__name__, flush=True)
'''


FAILING = {
    "fails": "ValueError: <b>secret</b>",
    "exits": "SystemExit: <b>secret</b>",
    "gives_nothing": "TypeError: 'NoneType' object is not iterable",
    "never_starts": "RuntimeError: the application did not call start_response",
    "starts_wrongly": "ValueError: '200' is no status; '200 OK' would be right",
    "not_latin": "UnicodeEncodeError: ",
    "gives_text": "TypeError: the application gave 'secret'; bytes would be right",
}


def config(folder: Path) -> dict[str, Any]:
    def wsgi(name: str, **more: Any) -> dict[str, Any]:
        return {
            "resource": "edgeproxy.wsgi.WSGI",
            "options": {"application": f"realshop.{name}"},
            **more,
        }

    return {
        "routes": {
            "*": {
                "/files": {
                    "resource": "twisted.web.static.File",
                    "options": {"path": str(folder / "files")},
                },
                "/demo": wsgi("demo_app"),
                "/twisteds": {"resource": "realshop.wsgi", "options": {"name": "digest"}},
                "/digest": wsgi("digest", body="20MiB"),
                "/endless": wsgi("endless"),
                **{f"/{name}": wsgi(name) for name in FAILING},
                "/stops_midway": wsgi("stops_midway"),
                "/hangs": wsgi("hangs", auth="none"),
                "/hello": {"resource": "realshop.app.resource"},
                "/producing": {"resource": "realshop.Producing", "auth": "none"},
            }
        }
    }


@pytest.fixture
def running(tmp_path: Path, gateway: Start) -> RunningGateway:
    folder = tmp_path / "gateway"
    (folder / "files" / "sub").mkdir(parents=True)
    (folder / "realshop.py").write_text(SHOP)
    return gateway(config(folder))


def resident(running: RunningGateway) -> int:
    """Most memory that the process has ever had, in bytes."""
    status = Path(f"/proc/{running.child.process.pid}/status").read_text()
    (line,) = [each for each in status.splitlines() if each.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def processor_time(running: RunningGateway) -> float:
    """Seconds of CPU."""
    fields = Path(f"/proc/{running.child.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_it_rests(running: RunningGateway) -> None:
    """Until it has used next to no CPU for half a second."""
    seen = [(time.monotonic(), processor_time(running))]

    def rests() -> bool:
        now, used = time.monotonic(), processor_time(running)
        if used - seen[-1][1] > 0.05:
            seen.append((now, used))
        return now - seen[-1][0] > 0.5

    wait_for(rests)


def test_a_file_of_100_megabytes_needs_no_memory(running: RunningGateway) -> None:
    piece = os.urandom(1 << 20)
    with (running.folder / "files" / "big").open("wb") as file:
        for _ in range(100):
            file.write(piece)
    running.ask("/files/big", "HEAD")
    before = resident(running)
    connection = running.connect()
    connection.request("GET", "/files/big", headers={"X-API-Key": running.development.credential})
    answer = connection.getresponse()
    assert answer.headers["Content-Length"] == str(100 << 20)
    found = hashlib.sha256()
    while data := answer.read(1 << 20):
        found.update(data)
    connection.close()
    assert found.digest() == hashlib.sha256(piece * 100).digest()
    assert resident(running) - before < 8 << 20


def test_files(running: RunningGateway) -> None:
    (running.folder / "files" / "a.txt").write_bytes(b"0123456789")
    whole = running.ask("/files/a.txt")
    assert (whole.status, whole.body) == (200, b"0123456789")
    assert whole.fields["Content-Type"] == "text/plain"
    assert "Server" not in whole.fields
    head = running.ask("/files/a.txt", "HEAD")
    assert (head.status, head.body, head.fields["Content-Length"]) == (200, b"", "10")
    part = running.ask("/files/a.txt", fields={"Range": "bytes=2-4"})
    assert (part.status, part.body) == (206, b"234")
    since = {"If-Modified-Since": whole.fields["Last-Modified"]}
    assert running.ask("/files/a.txt", fields=since).status == 304
    assert running.ask("/files/sub").fields["Location"] == "/files/sub/"
    assert running.ask("/files/%2e%2e/realshop.py").status == 400
    assert running.ask("/files/a.txt", key=None).status == 401


@pytest.mark.parametrize(
    "value",
    [
        "bytes=" + ",".join(f"{n}-{n}" for n in range(1500)),
        "bytes=0-65400,0-10",  # the boundary falls on the end of Twisted's buffer
        "bytes=5-2",
        "bytes=--5",
        "bytes=-99999999",
        "bytes=x-y\xff",
        "bytes=0-" + "9" * 5000,
        "lines=1-2",
    ],
)
def test_a_range_that_twisted_fails_over_is_ignored(running: RunningGateway, value: str) -> None:
    """RFC 9110 14.2; and no client can write into the log."""
    content = os.urandom(100_000)
    (running.folder / "files" / "a").write_bytes(content)
    before = running.child.said()
    whole = running.ask("/files/a", fields={"Range": value})
    assert (whole.status, whole.body) == (200, content)
    part = running.ask("/files/a", fields={"Range": "bytes=-99999"})
    assert (part.status, part.body) == (206, content[1:])
    assert running.child.said() == before


def test_files_that_are_none(running: RunningGateway) -> None:
    """Opening a FIFO would hold up the whole gateway; a name that is not UTF-8 names nothing."""
    os.mkfifo(running.folder / "files" / "fifo")
    (running.folder / "files" / "link").symlink_to("fifo")
    (running.folder / "files" / "null").symlink_to("/dev/zero")
    before = running.child.said()
    for name in ("fifo", "link", "null", "%ff", "sub/%ff", "x" * 300):
        for method in ("GET", "HEAD"):
            assert running.ask(f"/files/{name}", method).status == 404, name
    assert running.child.said() == before


def test_wsgi(running: RunningGateway) -> None:
    demo = running.ask("/demo/x?y=z")
    assert demo.status == 200
    text = demo.body.decode()
    for line in (
        "SCRIPT_NAME = '/demo'",
        "PATH_INFO = '/x'",
        "QUERY_STRING = 'y=z'",
        f"SERVER_PORT = '{running.port}'",
        "SERVER_NAME = 'localhost'",
        "wsgi.url_scheme = 'https'",
        "REMOTE_ADDR = '127.0.0.1'",
    ):
        assert line in text
    assert running.development.credential not in text
    assert running.ask("/twisteds", "POST", body=b"abc").body.startswith(b"3 ba7816bf")


@pytest.mark.parametrize("name", FAILING)
def test_a_wsgi_application_that_fails(running: RunningGateway, name: str) -> None:
    """A problem document for the client, one traceback for its author."""
    failed = running.ask(f"/{name}")
    assert failed.status == 500
    assert failed.fields["Content-Type"] == "application/problem+json"
    assert b"secret" not in failed.body
    said = running.child.said()
    assert said.count("Traceback") == 1
    assert FAILING[name] in said
    assert failed.json()["request_id"] in said
    assert running.ask("/demo").status == 200


def test_a_wsgi_application_that_fails_midway(running: RunningGateway) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionError, ssl.SSLError)):
        running.ask("/stops_midway")
    running.child.wait_until_said("ValueError: <b>secret</b>")
    assert running.child.said().count("Traceback") == 1
    assert running.ask("/demo").status == 200


def test_an_upload_of_10_megabytes(running: RunningGateway) -> None:
    body = os.urandom(10 << 20)
    sha = hashlib.sha256(body).hexdigest()
    before = resident(running)
    answer = running.ask("/digest/a", "POST", body=body)
    told = answer.body.decode().split()
    assert told[:5] == [str(len(body)), sha, "/digest", "/a", str(len(body))]
    assert told[5] == "https"
    assert told[6] != "None"
    assert resident(running) - before < 8 << 20
    assert running.ask("/digest", "POST", body=bytes(21 << 20)).status == 413
    folder = Path(f"/proc/{running.child.process.pid}/fd")
    wait_for(lambda: not [f for f in folder.iterdir() if "(deleted)" in _target(f)])


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def test_klein(running: RunningGateway) -> None:
    connection = running.connect()
    for name in ("ada", "bob"):
        answer = running.ask(f"/hello/{name}", connection=connection)
        assert (answer.status, answer.body) == (200, f"hello {name}".encode())
    connection.close()


def test_two_at_once(running: RunningGateway) -> None:
    found: list[Answer] = []
    body = os.urandom(3 << 20)
    threads = [
        threading.Thread(target=lambda: found.append(running.ask("/digest", "POST", body=body)))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    sha = hashlib.sha256(body).hexdigest()
    assert [each.body.decode().split()[1] for each in found] == [sha] * 4


def test_a_slow_client_that_is_killed(running: RunningGateway) -> None:
    before = resident(running)
    raw = socket.create_connection(("127.0.0.1", running.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client = running.development.trust.wrap_socket(raw, server_hostname="localhost")
    client.sendall(b"GET /producing HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    running.child.wait_until_said("paused after")
    assert resident(running) - before < 8 << 20
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    running.child.wait_until_said("told of the end: ConnectionLost")
    assert running.ask("/hello/you").status == 200
    assert "Traceback" not in running.child.said()


def test_a_wsgi_application_whose_client_goes(running: RunningGateway) -> None:
    before = resident(running)
    clients = [running.connect() for _ in range(10)]  # as many as there are threads
    for client in clients:
        client.request("GET", "/endless", headers={"X-API-Key": running.development.credential})
        assert client.getresponse().read(5000) == b"x" * 5000
    wait_until_it_rests(running)
    for client in clients:
        client.sock.shutdown(socket.SHUT_RDWR)
        client.close()
    assert running.ask("/demo").status == 200
    wait_for(lambda: running.child.said().count("closed by its server") == 10)
    wait_for(lambda: [e["outcome"] for e in running.log_lines()].count("client_gone") == 10)
    assert "Traceback" not in running.child.said()
    assert resident(running) - before < 32 << 20


def test_a_slow_client_holds_a_wsgi_application_back(running: RunningGateway) -> None:
    running.ask("/demo")
    before = resident(running)
    raw = socket.create_connection(("127.0.0.1", running.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client = running.development.trust.wrap_socket(raw, server_hostname="localhost")
    line = f"X-API-Key: {running.development.credential}\r\n"
    client.sendall(f"GET /endless HTTP/1.1\r\nHost: localhost\r\n{line}\r\n".encode())
    assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    wait_until_it_rests(running)
    assert resident(running) - before < 8 << 20
    read = 0
    while read < 5 << 20:
        read += len(client.recv(1 << 20))
    client.close()
    running.child.wait_until_said("closed by its server")


def test_http_1_0(running: RunningGateway) -> None:
    raw = socket.create_connection(("127.0.0.1", running.port))
    with running.development.trust.wrap_socket(raw, server_hostname="localhost") as client:
        line = f"X-API-Key: {running.development.credential}\r\n"
        client.sendall(f"GET /demo HTTP/1.0\r\nHost: localhost\r\n{line}\r\n".encode())
        data = b""
        while piece := client.recv(65536):
            data += piece
    assert b"chunked" not in data.partition(b"\r\n\r\n")[0]
    assert b"Hello world!" in data


def test_check_start_and_reload_say_what_is_wrong(running: RunningGateway, tmp_path: Path) -> None:
    """One line, no traceback, and what was there goes on."""
    wrong = {"routes": {"*": {"/": {"resource": "realshop.Absent"}}}}
    write_config(running.folder, wrong)
    told = running.command("reload")
    assert told.returncode == 1
    line = f"realshop ({running.folder}/realshop.py) has no 'Absent'"
    assert line in told.stdout + told.stderr
    assert "Traceback" not in running.child.said()
    assert running.ask("/hello/you").status == 200

    checked = edgeproxy("check", running.config)
    assert checked.returncode == 1
    (first,) = [each for each in checked.stdout.splitlines() if line in each]
    assert first.startswith(f"{running.config}:")

    command = [BIN / "twistd", "-n", "--pidfile=", "edgeproxy", "-c", running.config]
    started = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert started.returncode == 1
    assert line in started.stderr
    assert len(started.stderr.splitlines()) == 1

    right = config(running.folder)
    right["routes"]["*"]["/more"] = {"resource": "realshop.app.resource"}
    write_config(running.folder, right)
    assert "route added: * /more" in running.command("reload").stdout
    assert running.ask("/more/ada").body == b"hello ada"
    assert running.child.said().count("imported once") == 1


@pytest.mark.parametrize("how", ["signal", "command"])
def test_an_application_that_hangs_does_not_hold_up_the_end(
    running: RunningGateway, how: str
) -> None:
    connection = running.connect()
    connection.request("GET", "/hangs")
    running.child.wait_until_said(r"\bhanging$")
    connection.close()
    if how == "signal":
        assert running.stop() == -signal.SIGTERM
    else:
        running.command("drain")
        assert running.child.wait() == 0
    assert "is still at work, and is left behind" in running.child.said()
