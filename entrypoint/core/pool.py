"""A pool is settled: what has ended is counted, what is decided about it is taken up, and who can come or go does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import ends, rollout, sizing, worker
from entrypoint.core.model import POOL_EMPTY, POOL_READY, Note
from entrypoint.core.plan import Situation, plan, share
from entrypoint.core.terms import ACTIVE, AT_WORK, CLOSED, CLOSING, NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.core.model import Pool
    from entrypoint.core.plan import Limit
    from entrypoint.core.state import Master

# What lets only so many workers of a pool start at a time: one line for each. The master's own processes wait for none.
LIMITS: list[Callable[[Master, Pool, float], Limit]] = []


def settle(m: Master, pool: Pool, now: float) -> None:
    """Do all that follows from what has changed in the pool; with what changes by that it is settled again."""
    ends.recover(m, pool, now)  # who reached min_uptime before a failure ends the row before it, not after
    sizing.resize(m, pool)
    ended, pool.ended = pool.ended, []
    for w, chance in ended:
        ends.account(m, w, chance, now)
    if not pool.workers and pool.status != CLOSED and (pool.status == CLOSING or pool.removed):
        m.note(Note(POOL_EMPTY, pool))
    if m.notes:  # the master hears of it before anybody new comes
        m.touch(pool)
        return
    if pool.status != ACTIVE:
        m.arm(pool, NEVER)
        return
    progress = rollout.ripen(pool, now)
    at = NEVER if pool.gave_up else fill(m, pool, now)
    if not (pool.was_ready or pool.is_init) and pool.is_ready:
        pool.was_ready = True
        m.report("info", "pool_ready", pool)
        m.note(Note(POOL_READY, pool))
    at = min(at, rollout.review(m, pool, now, progress=progress), ends.recover(m, pool, now))
    if pool.ripening:
        at = min(at, next(iter(pool.ripening.values())).ready_since + pool.spec.rollout.min_ready)
    m.arm(pool, at)


def fill(m: Master, pool: Pool, now: float) -> float:
    """Carry out the plan for the pool; returns when it is to be looked at again."""
    surge, unavailable = share(pool.spec.rollout, pool.size)
    made = plan(
        Situation(
            pool.size,
            pool.kept,
            pool.wished,
            pool.available,
            pool.wishes,
            len(pool.handed_over),
            surge,
            unavailable,
            () if pool.is_helper else tuple(limit(m, pool, now) for limit in LIMITS),
            m.phase not in AT_WORK,
        )
    )
    for leave in made.leaves:
        leave.worker.place = leave.place
        worker.dispatch(m, leave.worker, worker.DRAIN, now, leave.reason)
    for _ in range(made.add):
        m.add_worker(pool, now, pool.target)
    pool.waits_for, pool.may_start = made.waits_for, made.may_start
    if len(pool.queue) and made.may_start >= 1:
        for w, _ in zip(tuple(pool.queue), range(int(min(made.may_start, len(pool.queue)))), strict=False):
            pool.queue.discard(w)
            m.arm(w, now)
    return made.at
