"""`python -m bench`: see `--help`."""

import argparse
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import certificate, cpu, job, origin, probe, table
from bench.peers import ALL, Peer, Setting
from bench.peers.base import STATE
from bench.process import BenchError
from bench.rows import ROWS, Bench

QUICK = {"only": "nginx,edgeproxy", "row": "requests", "rounds": 3, "seconds": 2.5}
FULL = {"only": "", "row": "", "rounds": 3, "seconds": 4.0}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="One job, every proxy here.")
    parser.add_argument("--quick", action="store_true", help="nginx and edgeproxy, requests, 30 s")
    parser.add_argument("--only", help="peers, separated by commas (default: all found)")
    parser.add_argument("--row", help=f"rows, separated by commas: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help="rounds over the peers (3)")
    parser.add_argument("--seconds", type=float, help="span of one measurement (4)")
    chosen = parser.parse_args()
    for name, value in (QUICK if chosen.quick else FULL).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    return chosen


def pick(known: list[str], text: str, what: str) -> list[str]:
    """The names in `text`, or all that are known if it is empty. Raises BenchError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise BenchError(f"no {what} {name!r}; there are {', '.join(known)}")
    return names or known


def main() -> int:
    chosen = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run(chosen)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbench: stopped, nothing is left running", file=sys.stderr)
        return 130


def run(chosen: argparse.Namespace) -> int:
    peers = pick([peer.name for peer in ALL], chosen.only, "peer")
    rows = {name: table.Row(name, *ROWS[name][:2]) for name in pick(list(ROWS), chosen.row, "row")}
    cpus = sorted(os.sched_getaffinity(0))
    print(f"{cpu.model()}; load average {os.getloadavg()[0]:.1f}")
    os.sched_setaffinity(0, {cpus[-1]})
    STATE.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=STATE, prefix="run-")))
        service = stack.enter_context(origin.running(folder, cpus[-1]))
        setting = Setting(
            folder, certificate.make(folder / "certs", job.HOST), job.make(), service.port, cpus[0]
        )
        started: list[Peer] = []
        for kind in ALL:
            if kind.name not in peers:
                continue
            if kind.found() is None:
                print(f"{kind.name}: not on this machine (make bench-peers)")
                continue
            peer = kind(setting)
            stack.enter_context(peer.start())
            probe.check(peer)
            started.append(peer)
            print(f"{peer.name} {peer.version()}: {peer.policy}")
        bench = Bench(folder, service, cpus[-1], chosen.seconds)
        for number in range(chosen.rounds):
            for name, row in rows.items():
                for peer in started:
                    figure = ROWS[name][2](bench, peer)
                    row.add(peer.name, figure)
                    print(f"round {number + 1}  {name}  {peer.name}  {figure:.1f}", flush=True)
        print()
        print(table.text(list(rows.values()), [peer.name for peer in started], ALL[0].name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
