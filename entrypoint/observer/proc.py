"""What /proc tells of a process: see proc(5)."""

from __future__ import annotations

import os
from typing import NamedTuple

from entrypoint.linux.proc import CHILDREN_SYSTEM_TIME, RESIDENT, USER_TIME, stat

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """What a process uses."""

    resident: int  # bytes
    cpu: float  # seconds, with those of the children that it has waited for


def usage(pid: int | None) -> Usage | None:
    """What a process uses; None when it has gone, is hidden from us, or there is none."""
    fields = stat(pid) if pid is not None else None
    if fields is None:
        return None
    cpu = sum(map(int, fields[USER_TIME : CHILDREN_SYSTEM_TIME + 1])) / TICK
    return Usage(int(fields[RESIDENT]) * PAGE, cpu)
