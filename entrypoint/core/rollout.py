"""A pool's way to another generation, and the way back.

A rollout is a wish: that everybody of another generation goes. What can be done about it is the plan's business
(`plan`); here is when it begins, when it has failed, and when it is complete.
"""

# It is complete at `min_uptime` of the youngest: before that a death still says that the new generation is no good. One
# that fails never ends the master, however often its workers failed: there was a generation that worked.

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core.actions import RolloutEnded
from entrypoint.core.model import Rollout
from entrypoint.core.terms import NEVER, WAITING, Generation, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable

    from entrypoint.core.model import Pool, Worker
    from entrypoint.core.state import Master
    from entrypoint.core.terms import Template

AT_ONCE = Wish("rollout", first=False)


def start(m: Master, pool: Pool, template: Template, now: float) -> int:
    """Begin to replace every worker of the pool; returns the new generation's number. Ends a rollout under way."""
    if pool.rollout is not None and not pool.rollout.back:
        end(m, pool, "aborted", "superseded by another rollout")
    pool.wanted = template
    pool.revision += 1
    new = Generation(pool.revision, template)
    if pool.status == WAITING or pool.runs_to_completion:  # nothing to replace, or nothing that may be
        pool.current, pool.rollout = new, None
        if pool.status != WAITING:
            m.report("info", "rollout_skipped", pool, reason="it runs to completion: new lives only")
        m.order(RolloutEnded(pool.name, new.number, "completed"))
        return new.number
    m.report("info", "rollout_started", pool, generation=new.number, workers=len(pool.workers))
    _go(m, pool, Rollout(new, now), now)
    _drop(m, pool.wished.waiting)  # the next life in their places is to be a new one
    return new.number


def roll_back(m: Master, pool: Pool, now: float, why: str) -> None:
    """Bring the pool back to its last good generation, as gently."""
    _go(m, pool, Rollout(pool.current, now, back=why), now)


def _go(m: Master, pool: Pool, rollout: Rollout, now: float) -> None:
    deadline = pool.spec.rollout.deadline
    rollout.progress_by = now + deadline if deadline and not rollout.back else NEVER
    pool.rollout = rollout
    m.enroll_all(pool)


def _drop(m: Master, workers: Iterable[Worker]) -> None:
    """Have workers go that do not serve, and whose places are to be free."""
    for w in tuple(workers):
        m.wish(w, AT_ONCE)


def ripen(pool: Pool, now: float) -> bool:
    """Rely on workers that have been ready for `min_ready`; whether there was one."""
    progress = False
    wait = pool.spec.rollout.min_ready
    while pool.ripening:
        serial, w = next(iter(pool.ripening.items()))
        if w.ready_since + wait > now:
            break
        del pool.ripening[serial]
        progress = True
    return progress


def review(m: Master, pool: Pool, now: float, *, progress: bool) -> float:
    """Complete the rollout, or fail it for want of progress; returns when to look again."""
    rollout = pool.rollout
    if rollout is None:
        return NEVER
    deadline = pool.spec.rollout.deadline
    replaced = is_replaced(pool)
    if (progress or replaced) and rollout.progress_by != NEVER:
        rollout.progress_by = now + deadline
    if replaced:  # they may still turn out to have failed
        when = pool.born_last + pool.spec.restart.min_uptime
        if rollout.back or not len(pool.kept) or now >= when:
            end(m, pool, "completed")
            return NEVER
        return when
    if now >= rollout.progress_by:
        fail(m, pool, f"no progress for {deadline:g} s", now)
        return NEVER
    return rollout.progress_by


def is_replaced(pool: Pool) -> bool:
    """Whether only workers of the new generation are left, and all of them serve."""
    return not len(pool.wished) and len(pool.kept) == pool.size and pool.available >= pool.size


def failed_by(w: Worker) -> str:
    """Why the end of this worker fails its rollout; empty when it does not."""
    pool, rollout = w.pool, w.pool.rollout
    if rollout is None or rollout.back or pool.is_stale(w):
        return ""
    uptime = w.ended - w.born
    if w.ready_since == NEVER:
        return f"{pool.name}/{w.slot} ended before it was ready"
    if uptime < pool.spec.restart.min_uptime:
        return f"{pool.name}/{w.slot} ended {uptime:.3g} s after its start"
    return ""


def fail(m: Master, pool: Pool, why: str, now: float) -> None:
    """Stop the rollout: the new workers go, the old ones go on serving."""
    rollout = pool.rollout
    if rollout is None:
        return
    if pool.last_error and pool.last_error not in why:
        why = f"{why}: {pool.last_error}"
    pool.last_error = f"rollout to generation {rollout.generation.number} failed: {why}"
    starting = (*pool.kept.waiting, *pool.kept.booting)
    end(m, pool, "failed", why)
    roll_back(m, pool, now, pool.last_error)
    _drop(m, starting)


def end(m: Master, pool: Pool, result: str, reason: str = "") -> None:
    """Leave the rollout behind."""
    rollout = pool.rollout
    if rollout is None:
        return
    pool.rollout = None
    if len(pool.wished):
        m.enroll_all(pool)
    if rollout.back:
        m.report("info", "rolled_back", pool, generation=pool.current.number)
        return
    if result == "completed":
        pool.current = rollout.generation
        pool.last_error = ""
    pool.counters.rollouts[result] += 1
    level = {"completed": "info", "aborted": "warning"}.get(result, "error")
    fields = {"reason": reason} if reason else {}
    m.report(level, f"rollout_{result}", pool, generation=rollout.generation.number, **fields)
    m.order(RolloutEnded(pool.name, rollout.generation.number, result, reason))
    m.sockets_unused = True


def freeze(m: Master, pool: Pool) -> None:
    """The master is on its way out: who is there stays, until all are stopped."""
    if pool.rollout is not None and pool.rollout.back:
        pool.rollout = None
    else:
        end(m, pool, "aborted", "the master is stopping")
    pool.wishes.clear()
    if len(pool.wished):
        m.enroll_all(pool)
