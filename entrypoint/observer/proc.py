"""What /proc tells of a process: see proc(5)."""

from __future__ import annotations

import os
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """What a process uses."""

    resident: int  # bytes
    cpu: float  # seconds, with those of the children that it has waited for


def usage(pid: int | None) -> Usage | None:
    """What a process uses; None when it has gone, is hidden from us, or there is none."""
    if pid is None:
        return None
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fields = os.read(descriptor, 4096).rpartition(b")")[2].split(None, 22)  # the name before it may hold anything
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if len(fields) < 22:
        return None
    return Usage(int(fields[21]) * PAGE, sum(map(int, fields[11:15])) / TICK)
