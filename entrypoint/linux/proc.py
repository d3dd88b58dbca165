"""Processes, as /proc shows them. See proc(5)."""

# At the end the master signals its descendants one by one, each known by its pid and its start time, so that a number
# that is used again is not hit; `kill(-1)` would reach the processes of `docker exec` as well. What came of it is
# judged by wait(2) alone: a master without children has no descendants.

from __future__ import annotations

import os

from entrypoint.linux import kernel
from entrypoint.linux.signals import signal

# Places in what `stat` returns; proc_pid_stat(5) counts from 1, and these from its third field.
STATE, PARENT, GROUP, USER_TIME, CHILDREN_SYSTEM_TIME, START_TIME, RESIDENT = 0, 1, 2, 11, 14, 19, 21
FIELDS = 22  # that are split off


def read(path: str) -> bytes:
    """A whole file of /proc. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def stat(pid: int) -> list[bytes] | None:
    """What /proc/PID/stat tells, from the state on; None when the process is gone, or hidden from us."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fields = os.read(fd, 4096).rpartition(b")")[2].split(None, FIELDS)  # the name before it may hold anything
    except OSError:
        return None
    finally:
        os.close(fd)
    return fields if len(fields) >= FIELDS else None


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with the pid, a name that is never used again."""
    fields = stat(pid)
    return None if fields is None else int(fields[START_TIME])


def is_since(pid: int, started: int) -> bool:
    """Whether the process, living or dead, began no earlier than then, in the unit of `start_time`."""
    began = start_time(pid)
    return began is not None and began >= started


def is_busy(pid: int) -> bool:
    """Whether the main thread of the process runs, or would if it could; False where that is not to be seen."""
    fields = stat(pid)
    return fields is not None and fields[STATE] in (b"R", b"D")


def is_dead(pid: int) -> bool:
    """Whether the process is a zombie, or gone."""
    fields = stat(pid)
    return fields is None or fields[STATE] in (b"Z", b"X")


def tasks(pid: int) -> list[str]:
    """The folders of its threads; none when it is gone."""
    try:
        return [f"/proc/{pid}/task/{name}" for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def children(pid: int) -> list[int]:
    """The living and dead children of a process; empty when it is gone."""
    found: list[int] = []
    for task in tasks(pid):
        try:
            found.extend(int(word) for word in read(f"{task}/children").split())
        except FileNotFoundError:
            if os.path.exists(task):  # a kernel without CONFIG_PROC_CHILDREN
                return _children_by_scan(pid)
        except OSError:
            continue
    return found


def _children_by_scan(parent: int) -> list[int]:
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [pid for pid in pids if (fields := stat(pid)) is not None and int(fields[PARENT]) == parent]


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
                kernel.send_awake(pid, signum)
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
