"""How many workers a pool is to have, and who decided that."""

# Who decided is said with the size: `removed`, `halted` (stopped by hand), a `person` (pinned), the container's
# `limits`, or the `configuration`. Once the master is asked to end, and for pools that run to completion, it stays.

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core.terms import AT_WORK, Size

if TYPE_CHECKING:
    from entrypoint.core.model import Pool
    from entrypoint.core.state import Master


def desired(m: Master, pool: Pool) -> Size:
    """What the configuration, the container's limits or a person want it to have, as long as it runs."""
    if m.phase not in AT_WORK or pool.runs_to_completion:  # it stays what it is
        return pool.desired
    if pool.pin is not None:
        return Size(pool.pin, "person")
    if pool.limits_allow is not None:
        return Size(pool.limits_allow, "limits")
    return Size(pool.spec.workers, "configuration")


def size(pool: Pool) -> Size:
    """What it is to have now."""
    if pool.removed:
        return Size(0, "removed")
    if pool.halted:
        return Size(0, "halted")
    return Size(left_to_do(pool), pool.desired.by)


def left_to_do(pool: Pool) -> int:
    """How many of its places have not done their work for good."""
    return max(0, pool.desired.workers - pool.finished)


def resize(m: Master, pool: Pool) -> None:
    """Take up what has been decided about its size."""
    before, pool.desired = pool.desired, desired(m, pool)
    if pool.desired.workers != before.workers:
        m.report("info", "pool_resized", pool, workers=pool.desired.workers, before=before.workers)
        pool.counters.scalings["up" if pool.desired.workers > before.workers else "down"] += 1
    pool.sized = size(pool)
