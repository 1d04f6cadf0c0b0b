"""What a process tree used, from /proc: CPU seconds, memory, and what the machine is."""

import os
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """The process `root` and all that descend from it, in no order; gone ones are left out."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        try:
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            children = [(task / "children").read_text().split() for task in tasks]
        except OSError:
            continue
        found.append(pid)
        todo.extend(int(child) for line in children for child in line)
    return found


def seconds(root: int) -> float:
    """User and system time of the tree below `root`, waited-for children included (proc(5))."""
    total = 0
    for pid in tree(root):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        # The command's name is in parentheses and may hold anything, so count from the last ')':
        # utime, stime, cutime and cstime are fields 14 to 17, the state after the name is field 3.
        fields = stat.rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])
    return total * TICK


def kibibytes(root: int) -> int:
    """Proportional set size of the tree below `root`: shared pages are counted once, in parts."""
    total = 0
    for pid in tree(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def model() -> str:
    """The processor's name as the kernel tells it, with the number of CPUs we may use."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    usable = len(os.sched_getaffinity(0))
    return f"{names[0] if names else os.uname().machine}, {usable} CPUs"
