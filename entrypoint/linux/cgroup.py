"""Limits of the control group that this process is in, and what came of them. See cgroups(7).

Read again by the running master, so it imports little and keeps nothing.
"""

from __future__ import annotations

import os

from entrypoint.record import Record

TYPE_CHECKING = False  # the running master imports this, and has no use for `typing`
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeVar

    T = TypeVar("T", int, float)

# v1 has no word for "no limit": an unset memory limit is the largest multiple of the page size.
_UNLIMITED = 2**60


class Limits(Record):
    """What the process may use; None: no limit that it can see."""

    cpu: float | None  # CPUs
    memory: int | None  # bytes
    affinity: int  # CPUs that it may be scheduled on


def limits(root: str = "/", affinity: int | None = None) -> Limits:
    """The tightest limits of the process's group and all its visible ancestors, cgroup v1, v2 or both.

    `root` and `affinity` replace the real system in tests. Never raises: what cannot be read is no limit.
    """
    cpu: float | None = None
    memory: int | None = None
    for version, directory in _directories(root):
        cpu = _least(cpu, _cpu_v2(directory) if version == 2 else _cpu_v1(directory))
        memory = _least(memory, _memory(directory, "memory.max" if version == 2 else "memory.limit_in_bytes"))
    return Limits(cpu, memory, affinity or len(os.sched_getaffinity(0)))


def oom_kills(root: str = "/") -> int | None:
    """How many processes of this process's own group the kernel has killed for want of memory; None: it cannot tell."""
    return killed(oom_folder(root))


def oom_folder(root: str = "/") -> tuple[int, str]:
    """(version, directory) of the group that counts those, for `killed`; the directory is empty when none does."""
    return next((found for found in _directories(root) if killed(found) is not None), (0, ""))


def killed(folder: tuple[int, str]) -> int | None:
    """`oom_kills`, for who remembers where that is written: a look that is 0.3 ms shorter."""
    version, directory = folder
    for line in _lines(directory, "memory.events" if version == 2 else "memory.oom_control") if directory else ():
        key, _, count = line.partition(" ")
        if key == "oom_kill" and count.isdigit():
            return int(count)
    return None


def _directories(root: str) -> Iterator[tuple[int, str]]:
    """(version, directory) of every visible group that limits this process, from its own upwards."""
    groups: dict[str, str] = {}  # controller, or "" for v2 -> path
    for line in _lines(root, "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            groups[controller] = path
    for line in _lines(root, "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        if kind[0] == "cgroup2":
            version, paths = 2, {groups[""]} if "" in groups else set()
        else:
            options = kind[2].split(",")
            version, paths = 1, {groups[name] for name in ("cpu", "memory") if name in options and name in groups}
        mount = os.path.join(root, _unescape(fields[4]).lstrip("/"))
        for path in paths:
            for directory in _upwards(mount, _below(path, _unescape(fields[3]))):
                yield version, directory


def _below(path: str, mounted: str) -> list[str]:
    """The names from a mount, which shows the hierarchy from `mounted` on, down to the group at `path`.

    Empty, so the mount point itself, when the group is not below: a mount made in another namespace, or a group
    outside of ours (`/../x`).
    """
    parts, base = _parts(path), _parts(mounted)
    if ".." in parts or ".." in base or parts[: len(base)] != base:
        return []
    return parts[len(base) :]


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _upwards(mount: str, names: list[str]) -> Iterator[str]:
    for length in range(len(names), -1, -1):
        yield os.path.join(mount, *names[:length])


def _cpu_v1(directory: str) -> float | None:
    try:
        quota = int(_read(directory, "cpu.cfs_quota_us"))
        period = int(_read(directory, "cpu.cfs_period_us"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def _cpu_v2(directory: str) -> float | None:
    try:
        quota, period = (int(word) for word in _read(directory, "cpu.max").split())  # "max 100000": no limit
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def _memory(directory: str, name: str) -> int | None:
    try:
        limit = int(_read(directory, name))  # v2: "max" without a limit
    except (OSError, ValueError):
        return None
    return limit if 0 < limit < _UNLIMITED else None


def _least(one: T | None, other: T | None) -> T | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _lines(root: str, name: str) -> list[str]:
    try:
        return _read(root, name).splitlines()
    except OSError:
        return []


def _read(directory: str, name: str) -> str:
    with open(os.path.join(directory, name), encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _unescape(text: str) -> str:
    """Mountinfo writes space, tab, newline and backslash in octal."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
