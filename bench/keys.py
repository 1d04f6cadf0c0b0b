"""`python -m bench.keys [--keys N] [--pepper]`: what a key file of N keys costs to load.

A process of its own loads the file as the gateway does, in slices, and once more as after a change.
It prints the processor time, the memory, and the longest slice, in which no request moves.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgeproxy.identity.keyindex import slices
from edgeproxy.identity.keystore import KeyStore
from edgeproxy.identity.pepper import Pepper

PEPPER = Pepper(b"0123456789abcdef" * 4)


def write(path: Path, count: int, *, peppered: bool) -> None:
    """A file of keys as `edgeproxy keys add` makes them, but for their digests, which are of no
    key."""
    more = f', "pepper": "{PEPPER.fingerprint}"' if peppered else ""
    with path.open("w") as file:
        for number in range(count):
            file.write(
                f'{{"id": "key{number:09d}", "name": "Customer {number}", '
                f'"digest": "{sha256(b"%d" % number).hexdigest()}"{more}, '
                '"created": "2026-01-01T00:00:00Z", "expires": "2030-01-01T00:00:00Z", '
                '"plan": "gold", "scopes": ["read", "pay"], "groups": ["partners"]}\n'
            )


def measure(path: Path, *, peppered: bool) -> dict[str, Any]:
    """Load a file in this process. Times in seconds, memory in bytes."""
    pepper = PEPPER if peppered else None
    gc.collect()
    gc.freeze()
    before = _memory()
    store = KeyStore(_NoTimers(), path, lambda index: None, pepper)
    longest, cpu = _drive(store.opening())
    found = {"keys": len(store.index), "cpu": cpu, "longest_slice": longest}
    found["memory"] = _memory()
    found["per_key"] = (_memory() - before) / max(1, len(store.index))
    with path.open("rb") as file:
        pieces = iter(lambda: file.read(64 * 1024), b"")
        longest, cpu = _drive(slices(pieces, pepper=pepper, last=store.index.last))
    found["again"] = {"cpu": cpu, "longest_slice": longest}
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def _drive(work: Any) -> tuple[float, float]:
    """(the longest step, all of them), in processor time: others are at work on the machine."""
    longest = 0.0
    begun = last = time.process_time()
    for _ in work:
        now = time.process_time()
        longest = max(longest, now - last)
        last = now
    now = time.process_time()  # to the end, where what was needed on the way is freed
    return max(longest, now - last), now - begun


class _NoTimers:
    def callLater(self, delay: float, callable: Any, /) -> None:
        """Nothing is watched here."""


def _memory() -> int:
    """Bytes that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run(count: int, *, peppered: bool) -> dict[str, Any]:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.jsonl"
        write(path, count, peppered=peppered)
        command = [sys.executable, "-m", "bench.keys", "--load", str(path)]
        command += ["--pepper"] if peppered else []
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m bench.keys", description="A large key file.")
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many (1000000)")
    parser.add_argument("--pepper", action="store_true", help="keys with a pepper")
    parser.add_argument("--load", type=Path, metavar="FILE", help="measure here, and print JSON")
    chosen = parser.parse_args()
    if chosen.load is not None:
        print(json.dumps(measure(chosen.load, peppered=chosen.pepper)))
        return
    found = run(chosen.keys, peppered=chosen.pepper)
    again = found["again"]
    print(
        f"{found['keys']} keys: {found['cpu']:.1f} s, {found['memory'] / 1e6:.0f} MB "
        f"({found['per_key']:.0f} bytes a key), longest slice {found['longest_slice'] * 1e3:.1f} ms"
    )
    print(
        f"again beside them: {again['cpu']:.1f} s, longest slice "
        f"{again['longest_slice'] * 1e3:.1f} ms, at the peak {found['peak'] / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
