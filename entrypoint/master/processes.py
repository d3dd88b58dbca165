"""Descendants, as /proc shows them. See proc(5)."""

from __future__ import annotations

import os

from entrypoint.config.signals import signal
from entrypoint.master import kernel


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with the pid, a name that is never used again."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def is_busy(pid: int) -> bool:
    """Whether the main thread of the process runs, or would if it could; False where that is not to be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split(None, 1)[0] in (b"R", b"D")
    except (OSError, IndexError):
        return False


def children(pid: int) -> list[int]:
    """The living and dead children of a process; empty when it is gone."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found.extend(int(word) for word in file.read().split())
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{task}"):  # a kernel without CONFIG_PROC_CHILDREN
                return _children_by_scan(pid)
        except OSError:
            continue
    return found


def _children_by_scan(parent: int) -> list[int]:
    found = []
    try:
        names = [n for n in os.listdir("/proc") if n.isdigit()]
    except OSError:
        return []
    for name in names:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == parent:
                    found.append(int(name))
        except (OSError, IndexError, ValueError):
            continue
    return found


def descendants(pid: int) -> list[tuple[int, int]]:
    """Every process below `pid`, each with its start time."""
    found: list[tuple[int, int]] = []
    seen = {pid}
    level = [pid]
    while level:
        below = []
        for parent in level:
            for child in children(parent):
                started = start_time(child)
                if child not in seen and started is not None:
                    seen.add(child)
                    below.append(child)
                    found.append((child, started))
        level = below
    return found


def signal_each(processes: list[tuple[int, int]], signum: int) -> int:
    """Signal those of the processes that still are the ones that were found; returns how many may not be signalled."""
    refused = 0
    for pid, started in processes:
        if start_time(pid) == started:
            try:
                kernel.send(pid, signum)
            except PermissionError:
                refused += 1
    return refused


def kill_tree(pid: int, *, alive: bool) -> None:
    """SIGKILL a worker's process group and, while its main process is there to find them by, all its descendants."""
    strays = descendants(pid) if alive else []
    kernel.send_group(pid, signal.SIGKILL)
    if alive:
        try:
            kernel.send(pid, signal.SIGKILL)
        except PermissionError:
            pass
    signal_each(strays, signal.SIGKILL)
