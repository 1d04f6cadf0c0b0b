"""curl in front and nginx behind: large bodies, slow ends, early refusals.

What a body costs is read off the process: 100 MB pass through a gateway that grows by less than
8 MiB, however slow the other end is.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_support import Memory, MiB, Start, calling, curl, curl_command, random_file, sha256
from running_support import Child, Nginx, RunningGateway, wait_for

pytestmark = pytest.mark.debian("nginx", "curl")

SIZE = 100 * 1000 * 1000
GROWTH = 8 * 1024
"""KiB that a gateway may grow by, whatever it passes on."""
SERVER = "location /dav { dav_methods PUT; create_full_put_path on; }"

StartChild = Callable[..., Child]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """100 MB, and their SHA-256."""
    path = tmp_path_factory.mktemp("large") / "large"
    yield path, random_file(path, SIZE)
    path.unlink()


class Slow:
    """A service that takes a request's body only when it is told to."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.go = threading.Event()
        self.received = 0
        self.digest = ""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.go.set()
        self.listening.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self._thread.join(10)
        self.listening.close()

    def _serve(self) -> None:
        try:
            sock, _ = self.listening.accept()
        except OSError:
            return
        with sock:
            sock.settimeout(60)
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(1024)
            head, _, data = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length is not None
            self.go.wait(60)
            digest = hashlib.sha256(data)
            self.received = len(data)
            while self.received < int(length[1]):
                piece = sock.recv(1 << 18)
                digest.update(piece)
                self.received += len(piece)
            self.digest = digest.hexdigest()
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.close()


@pytest.fixture
def origin(nginx: Callable[..., Nginx]) -> Nginx:
    started = nginx(SERVER)
    (started.folder / "html" / "small").write_bytes(b"small")
    return started


@pytest.fixture
def running(gateway: Start, origin: Nginx, slow: Slow) -> RunningGateway:
    started = gateway(
        {
            "upstreams": {"web": origin.url, "slow": f"http://127.0.0.1:{slow.port}"},
            "routes": {
                "*": {
                    "/": "web",
                    "/dav": {"to": "web", "body": "200MB"},
                    "/dav/bound": {"to": "web", "body": "1MB"},
                    "/slow": {"to": "slow", "body": "200MB"},
                }
            },
        }
    )
    # What is made once for the first bodies is not counted.
    for _ in range(20):
        assert started.ask("/dav/warm", "PUT", body=b"w" * MiB).status in (201, 204)
        assert started.ask("/dav/warm").status == 200
    return started


class Growth:
    """What a gateway has grown by, at its highest."""

    def __init__(self, running: RunningGateway) -> None:
        self._memory = Memory(running.child.process.pid)
        self._memory.forget_peak()
        self._before = self._memory.now

    @property
    def kib(self) -> int:
        return self._memory.peak - self._before


def sent(running: RunningGateway, path: str) -> dict[str, object]:
    """The line of the access log for a path, once it is there."""

    def line() -> dict[str, object] | None:
        return next((each for each in running.log_lines() if each["path"] == path), None)

    return wait_for(line)


def test_a_download_of_100_mb(
    running: RunningGateway, origin: Nginx, large: tuple[Path, str], tmp_path: Path
) -> None:
    path, digest = large
    (origin.folder / "html" / "large").hardlink_to(path)
    growth = Growth(running)
    got = curl(running, "/large", "-o", tmp_path / "got")
    assert (got.code, got.status, got.size) == (0, 200, SIZE)
    assert sha256(tmp_path / "got") == digest
    assert growth.kib <= GROWTH
    print(f"download: {SIZE / got.took / 1e6:.0f} MB/s, {growth.kib} KiB more")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upload_of_100_mb(
    running: RunningGateway, origin: Nginx, large: tuple[Path, str], framing: str, tmp_path: Path
) -> None:
    path, digest = large
    fields = ["-H", "Transfer-Encoding: chunked"] if framing == "chunked" else []
    growth = Growth(running)
    put = curl(running, f"/dav/{framing}", "-v", "-T", path, "-o", tmp_path / "answer", *fields)
    assert (put.code, put.status) == (0, 201)
    assert "HTTP/1.1 100 Continue" in put.said, "curl waits for it, for a second"
    assert sha256(origin.folder / "html" / "dav" / framing) == digest
    assert growth.kib <= GROWTH
    print(f"upload, {framing}: {SIZE / put.took / 1e6:.0f} MB/s, {growth.kib} KiB more")


def test_a_slow_reader_holds_up_nobody_but_itself(
    running: RunningGateway,
    origin: Nginx,
    child: StartChild,
    large: tuple[Path, str],
    tmp_path: Path,
) -> None:
    (origin.folder / "html" / "large").hardlink_to(large[0])
    growth = Growth(running)
    got = tmp_path / "got"
    reader = child(curl_command(running, "/large", "--limit-rate", "1M", "-o", got))
    wait_for(lambda: got.exists() and got.stat().st_size > MiB // 2)
    with calling(running, "/small", count=2) as callers:
        wait_for(lambda: len(callers.ended) > 300 and got.stat().st_size > 1.5 * MiB)
    assert callers.statuses.keys() == {200}
    assert max(each.took for each in callers.ended) < 1.0
    assert reader.running
    assert got.stat().st_size < SIZE // 4, "it was to be slow"
    assert growth.kib <= GROWTH
    # It has had enough: that ends the request, and the connection to the service with it.
    reader.process.kill()
    line = sent(running, "/large")
    assert line["outcome"] == "client_gone"
    assert int(str(line["sent"])) < SIZE // 2


def test_a_slow_writer_holds_up_nobody_but_itself(
    running: RunningGateway, origin: Nginx, child: StartChild, tmp_path: Path
) -> None:
    digest = random_file(tmp_path / "given", 4 * MiB)
    growth = Growth(running)
    command = curl_command(running, "/dav/slowly", "--limit-rate", "2M", "-T", tmp_path / "given")
    writer = child(command)
    with calling(running, "/small", count=2) as callers:
        wait_for(lambda: len(callers.ended) > 300)
        assert writer.running, "it was to be slow"
        assert writer.wait(60) == 0
    assert callers.statuses.keys() == {200}
    assert max(each.took for each in callers.ended) < 1.0
    assert writer.said().split()[-3] == "201"
    assert sha256(origin.folder / "html" / "dav" / "slowly") == digest
    assert growth.kib <= GROWTH


def test_a_slow_service_holds_up_nobody_but_its_own(
    running: RunningGateway, slow: Slow, child: StartChild, large: tuple[Path, str]
) -> None:
    path, digest = large
    growth = Growth(running)
    writer = child(curl_command(running, "/slow/put", "-T", path))
    # The kernel's buffers are full and the gateway rests, until the service reads.
    with calling(running, "/small", count=2) as callers:
        wait_for(lambda: len(callers.ended) > 300)
    assert callers.statuses.keys() == {200}
    assert max(each.took for each in callers.ended) < 1.0
    assert writer.running
    assert growth.kib <= GROWTH, "nothing is kept for the service"
    slow.go.set()
    assert writer.wait(60) == 0
    assert writer.said().split()[-3] == "200"
    assert slow.digest == digest
    assert growth.kib <= GROWTH


class TestRefusals:
    """An upload that is refused: one clean answer, whatever the client is sending meanwhile."""

    def test_no_key(self, running: RunningGateway, large: tuple[Path, str]) -> None:
        refused = curl(running, "/dav/no", "-v", "-T", large[0], "-H", "Expect:", key=False)
        assert (refused.code, refused.status) == (0, 401), refused.said

    def test_no_key_and_asking_first(
        self, running: RunningGateway, large: tuple[Path, str]
    ) -> None:
        """What is refused is not told to go on: nothing of the body is sent."""
        told = ["--write-out", "\n%{http_code} %{size_upload} 0"]
        refused = curl(running, "/dav/no", "-v", "-T", large[0], *told, key=False)
        assert (refused.code, refused.status) == (0, 401), refused.said
        assert "100 Continue" not in refused.said
        assert refused.size == 0

    def test_larger_than_allowed(
        self, running: RunningGateway, origin: Nginx, large: tuple[Path, str]
    ) -> None:
        for fields in (["-H", "Expect:"], []):
            refused = curl(running, "/dav/bound/x", "-v", "-T", large[0], *fields)
            assert (refused.code, refused.status) == (0, 413), refused.said
            assert "100 Continue" not in refused.said
        assert not any("bound" in line for line in origin.log()), "the service never hears of it"

    def test_larger_than_allowed_shows_on_the_way(
        self, running: RunningGateway, origin: Nginx, large: tuple[Path, str]
    ) -> None:
        chunked = ["-H", "Transfer-Encoding: chunked"]
        refused = curl(running, "/dav/bound/x", "-v", "-T", large[0], *chunked)
        assert (refused.code, refused.status) == (0, 413), refused.said
        assert not (origin.folder / "html/dav/bound/x").exists(), "a part is never taken for whole"
