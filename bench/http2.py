"""The load over HTTP/2: h2load, which varies the path but sends one key and no bodies."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import job
from bench.peers.base import Peer
from bench.process import BenchError, pinned

CONNECTIONS = 8
STREAMS = 16
_HOP = ("host", "connection")  # said by :authority, or not at all (RFC 9113 section 8.2.2)


@contextmanager
def running(folder: Path, peer: Peer, seconds: float, on: int) -> Iterator[Callable[[], None]]:
    """h2load for so many seconds; what is given waits for its end and checks its answers."""
    heads = peer.setting.job.requests(count=1000)
    lines = [head.decode().split("\r\n") for head in heads]
    targets = folder / "targets.txt"
    targets.write_text(
        "".join(f"https://{job.HOST}:{peer.port}{line[0].split()[1]}\n" for line in lines)
    )
    fields = [field for field in lines[0][1:-2] if field.partition(":")[0].lower() not in _HOP]
    child = subprocess.Popen(
        [
            *("h2load", "-t1", f"-c{CONNECTIONS}", f"-m{STREAMS}", f"-D{seconds * 1000:.0f}ms"),
            *(f"--connect-to=127.0.0.1:{peer.port}", "--npn-list=h2", f"--input-file={targets}"),
            *(f"--header={field}" for field in [f":authority: {job.HOST}", *fields]),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=pinned(on),
    )

    def finish() -> None:
        try:
            output, _ = child.communicate(timeout=seconds + 20)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"h2load against {peer.name} does not end") from error
        codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
        lost = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", output)
        if codes is None or lost is None or "Application protocol: h2" not in output:
            raise BenchError(f"h2load against {peer.name} failed:\n{output[-1500:]}")
        wrong = [int(number) for number in (*codes.groups()[1:], *lost.groups())]
        if not int(codes[1]) or any(wrong):
            raise BenchError(f"{peer.name} over HTTP/2: {codes[0]}; {lost[0]}")

    try:
        yield finish
    finally:
        child.kill()
        child.wait()
