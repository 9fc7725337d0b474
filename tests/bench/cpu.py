"""CPU time and memory of processes, from /proc."""

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User plus system time of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def family(pid: int) -> list[int]:
    """The process and all its living descendants (Postgres has a process a connection)."""
    out = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = (task / "children").read_text().split()
        for child in children:
            out += family(int(child))
    return out


def family_cpu_seconds(pid: int) -> float:
    """CPU of a process, its living descendants, and those it has already waited for."""
    total = 0.0
    for member in family(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += sum(int(fields[n]) for n in (11, 12, 13, 14)) / TICK
    return total


def pss_bytes(pid: int) -> int:
    """Proportional set size of one process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Pss of {pid}")


def family_pss_bytes(pid: int) -> int:
    """Proportional set size of a process and its living descendants."""
    total = 0
    for member in family(pid):
        try:
            total += pss_bytes(member)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total
