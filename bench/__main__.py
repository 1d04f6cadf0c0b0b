"""`python -m bench`: see `--help`."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from bench import table
from bench.peers import ALL
from bench.process import BenchError
from bench.rows import ROWS
from bench.run import Plan, Result, run

QUICK = {"only": "nginx,edgeproxy", "row": "requests", "rounds": 3, "seconds": 2.5}
FULL = {"only": "", "row": "", "rounds": 3, "seconds": 4.0}


def arguments() -> argparse.Namespace:
    """The command line, with the defaults of the chosen mode filled in."""
    parser = argparse.ArgumentParser(prog="make bench", description="One job, every proxy here.")
    parser.add_argument("--quick", action="store_true", help="nginx and edgeproxy, requests, 30 s")
    parser.add_argument("--only", help=f"peers: {', '.join(peer.name for peer in ALL)}")
    parser.add_argument("--row", help=f"rows: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help="rounds over the peers (3)")
    parser.add_argument("--seconds", type=float, help="span of one measurement (4)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this page")
    chosen = parser.parse_args()
    for name, value in (QUICK if chosen.quick else FULL).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    return chosen


def pick(known: list[str], names: str, what: str) -> list[str]:
    """The names that `names` lists, or all if it is empty. Raises BenchError for unknown ones."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise BenchError(f"no {what} {name!r}; there are {', '.join(known)}")
    return wanted or known


def show(result: Result, chosen: argparse.Namespace) -> None:
    """Print the result, and write it where it is wanted."""
    rows = result.rows
    if chosen.json:
        values = {"about": result.about, "failed": result.failed, "rows": table.as_json(rows)}
        print(json.dumps(values, indent=1))
    else:
        print(table.text(rows))
    if chosen.write:
        table.write(chosen.write, table.markdown(rows, result.about))
    for failure in result.failed:
        print(f"bench: FAILED: {failure}", file=sys.stderr)


def too_long(*_: object) -> None:
    raise BenchError("the run takes far longer than it should")


def main() -> int:
    """Exit status 0 if every peer that is here did every row, else 1."""
    chosen = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, too_long)
    try:
        peers = pick([peer.name for peer in ALL], chosen.only, "peer")
        rows = pick(list(ROWS), chosen.row, "row")
        plan = Plan([peer for peer in ALL if peer.name in peers], rows, chosen.rounds)
        result = run(plan, chosen.seconds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbench: stopped; nothing is left running", file=sys.stderr)
        return 130
    show(result, chosen)
    return 1 if result.failed else 0


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    sys.exit(main())
