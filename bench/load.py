"""What drives a proxy: wrk for keep-alive requests, our own client where each answer is looked at.

The requests were made once by `job` and are sent as they are.
"""

import json
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench import job
from bench.process import BenchError, pinned

_SCRIPT = """\
-- The name in the certificate leads to 127.0.0.1, whatever the resolver says.
local lookup = wrk.lookup
function wrk.lookup(host, service) return lookup("127.0.0.1", service) end

local requests, position = {}, 0
local file = assert(io.open("%(requests)s", "rb"))
for request in (file:read("*a")):gmatch("([^%%z]+)%%z") do requests[#requests + 1] = request end
file:close()

function request()
    position = position %% #requests + 1
    return requests[position]
end

function done(summary)
    local e = summary.errors
    io.write(string.format("\\nsummary " ..
        '{"requests":%%d,"bytes":%%d,"connect":%%d,"read":%%d,"write":%%d,"status":%%d,"timeout":%%d}'
        .. "\\n", summary.requests, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout))
end
"""


class Wrk:
    """A run of wrk that goes on until it is asked for its summary."""

    def __init__(self, child: subprocess.Popen[str], name: str) -> None:
        self._child = child
        self._name = name

    def finish(self, relayed: Callable[[], int]) -> int:
        """End the run; give the number of answers. Raises BenchError unless all were 200.

        wrk tells failures of connections and status codes from 400 on apart. That the others were
        answers of the origin, which knows 200 only, `relayed` shows: what the origin counted;
        and the length shows that none came back empty.
        """
        self._child.send_signal(signal.SIGINT)
        try:
            output, _ = self._child.communicate(timeout=10)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"wrk against {self._name} does not end") from error
        line = next((line for line in output.splitlines() if line.startswith("summary ")), None)
        if line is None:
            raise BenchError(f"wrk against {self._name} failed:\n{output}")
        summary: dict[str, int] = json.loads(line.removeprefix("summary "))
        answers = summary["requests"]
        wrong = {kind: summary[kind] for kind in ("status", "connect", "read", "write", "timeout")}
        if not answers or any(wrong.values()):
            raise BenchError(f"{self._name}: {answers} answers, of these wrong: {wrong}")
        if not answers <= relayed() <= answers + 2 * job.CONNECTIONS:
            raise BenchError(f"{self._name}: {answers} answers, but the origin gave {relayed}")
        if summary["bytes"] < answers * job.BODY:
            raise BenchError(f"{self._name}: answers of {summary['bytes'] // answers} bytes")
        return answers


@contextmanager
def wrk(folder: Path, requests: Sequence[bytes], port: int, on: int, name: str) -> Iterator[Wrk]:
    """wrk with `requests` on 32 connections, five minutes at most; killed on the way out."""
    raw = folder / "requests.bin"
    raw.write_bytes(b"".join(request + b"\0" for request in requests))
    script = folder / "load.lua"
    script.write_text(_SCRIPT % {"requests": raw})
    options = ["-t1", f"-c{job.CONNECTIONS}", "-d300", "--timeout", "5s", "-s", str(script)]
    child = subprocess.Popen(
        ["wrk", *options, f"https://{job.HOST}:{port}/"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is ours to pass on
        preexec_fn=pinned(on),
    )
    try:
        yield Wrk(child, name)
    finally:
        child.kill()
        child.wait()


def client_context() -> ssl.SSLContext:
    """TLS 1.3 only; the certificate is the bench's own, so it is not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def connect(
    context: ssl.SSLContext, port: int, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    """A connection with a full handshake, unless a session is given to be resumed."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname=job.HOST, session=session)
    except BaseException:
        plain.close()
        raise


def new_connections(
    port: int,
    requests: Sequence[bytes],
    seconds: float,
    at_once: int = 8,
    sessions: Sequence[ssl.SSLSession | None] = (None,) * 8,
    context: ssl.SSLContext | None = None,
) -> int:
    """Connections made in so many seconds, each with one request that asks for the close.

    Each is a full handshake; or, with `sessions`, one for each of those `at_once`, a resumed one,
    with the ticket that the one before was given (RFC 8446 appendix C.4: each is used once).
    Raises BenchError if one was not, was not TLS 1.3, or was not answered by 200.
    """
    trusting = context or client_context()
    end = time.monotonic() + seconds

    def one_after_another(first: int) -> int:
        count = 0
        session = sessions[first]
        while time.monotonic() < end:
            request = requests[(first + count * at_once) % len(requests)]
            with connect(trusting, port, session) as connection:
                reused = bool(connection.session_reused)
                if reused != (session is not None) or connection.version() != "TLSv1.3":
                    raise BenchError(f"not TLS 1.3, or {'' if reused else 'not '}resumed")
                last = _asked(connection, request)
            session = session and last
            count += 1
        return count

    with ThreadPoolExecutor(at_once) as threads:
        return sum(threads.map(one_after_another, range(at_once)))


def new_sessions(
    port: int, requests: Sequence[bytes], context: ssl.SSLContext, count: int = 8
) -> list[ssl.SSLSession]:
    """Sessions of so many full handshakes, each to be resumed once. Raises BenchError."""
    found: list[ssl.SSLSession] = []
    for request in requests[:count]:
        with connect(context, port) as connection:
            found.append(_asked(connection, request))
    return found


def _asked(connection: ssl.SSLSocket, request: bytes) -> ssl.SSLSession:
    """Ask once and read to the end: the session then holds the ticket that came behind."""
    answer = ask(connection, request)
    if answer.status != 200:
        raise BenchError(f"an answer is {answer.status}")
    while connection.recv(65536):
        pass
    session = connection.session
    if session is None:
        raise BenchError("there is no session")
    return session


def download(connection: ssl.SSLSocket, request: bytes) -> int:
    """Ask for a large body and throw it away; give its length in bytes. Raises BenchError."""
    connection.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head:
        more = connection.recv(16384)
        if not more:
            raise BenchError(f"the answer breaks off: {head[:200]!r}")
        head += more
    head, _, body = head.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    if head[9:12] != b"200" or length is None or int(length[1]) != job.DOWNLOAD:
        raise BenchError(f"not the download: {head!r}")
    left = job.DOWNLOAD - len(body)
    buffer = bytearray(65536)
    while left > 0:
        count = connection.recv_into(buffer, min(left, len(buffer)))
        if not count:
            raise BenchError(f"the download breaks off, {left} bytes are missing")
        left -= count
    return job.DOWNLOAD


class Answer(bytes):
    """A whole answer as it came; `status` and `body` as far as the bench needs them."""

    @property
    def status(self) -> int:
        return int(self[9:12])

    @property
    def head(self) -> str:
        return self.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def body(self) -> bytes:
        """The content; of a chunked answer the chunks put together (RFC 9112 section 7.1)."""
        head, _, rest = self.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" not in head.lower():
            return rest
        content = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            content, rest = content + rest[:length], rest[length + 2 :]
        return content

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")


def ask(connection: ssl.SSLSocket, request: bytes) -> Answer:
    """Send one request and read its answer to the end. Raises BenchError if it breaks off."""
    connection.sendall(request)
    data = b""
    while not _complete(data):
        more = connection.recv(65536)
        if not more:
            raise BenchError(f"the answer breaks off after {len(data)} bytes: {data[:200]!r}")
        data += more
    return Answer(data)


def _complete(data: bytes) -> bool:
    head, gap, body = data.partition(b"\r\n\r\n")
    if not gap:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line[15:])
        if line.startswith(b"transfer-encoding:"):
            return body.endswith(b"0\r\n\r\n")
    raise BenchError(f"an answer without a length: {data[:200]!r}")
