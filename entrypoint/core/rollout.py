"""Replacing a pool's workers by those of another generation: a small Deployment, make before break.

New workers come as `max_surge` allows, old ones go, the oldest first, as long as `max_unavailable` allows. What counts
as available is what has been ready for `min_ready`. Everything is a function of who is there now, looked at again
after each change, so a crash, another size, or a stop in the middle are nothing special.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

from entrypoint.core import reload, worker
from entrypoint.core.actions import RolloutEnded
from entrypoint.core.model import BACKOFF, NEVER, READY, STARTING, WAITING, Rollout

if TYPE_CHECKING:
    from entrypoint.core.model import Master, Pool, Template, Worker


def start(m: Master, pool: Pool, template: Template, now: float) -> int:
    """Begin to replace every worker of the pool; returns the new generation's number. Ends a rollout under way."""
    if pool.rollout is not None and not pool.rollout.back:
        end(m, pool, "aborted", "superseded by another rollout")
    pool.wanted = template
    pool.revision += 1
    if pool.status == WAITING or pool.runs_to_completion:  # nothing to replace, or nothing that may be
        pool.generation, pool.template, pool.rollout = pool.revision, template, None
        if pool.status != WAITING:
            m.report("info", "rollout_skipped", pool, reason="it runs to completion: new lives only")
        m.order(RolloutEnded(pool.name, pool.revision, "completed"))
        return pool.revision
    _begin(m, pool, Rollout(pool, pool.revision, template, now), now)
    drop_waiting(m, pool, now)
    m.report("info", "rollout_started", pool, generation=pool.revision, workers=len(pool.workers))
    advance(m, pool, now)
    return pool.revision


def _begin(m: Master, pool: Pool, rollout: Rollout, now: float) -> None:
    if pool.rollout is not None:
        m.arm(pool.rollout, NEVER)
    pool.rollout = rollout
    deadline = pool.spec.rollout.deadline
    rollout.progress_by = now + deadline if deadline and not rollout.back else NEVER


def roll_back(m: Master, pool: Pool, now: float, why: str) -> None:
    """Bring the pool back to its last good generation, as gently."""
    back = Rollout(pool, pool.generation, pool.template, now, back=True)
    back.reason = why
    _begin(m, pool, back, now)
    advance(m, pool, now)


def advance(m: Master, pool: Pool, now: float) -> None:
    """Take every step that is possible now."""
    rollout = pool.rollout
    if rollout is None:
        return
    size = pool.size
    surge, unavailable = limits(pool)
    for _ in range(min(size - len(rollout.fresh), size + surge - len(pool.workers))):
        m.add_worker(pool, now, fresh=True)
    least = max(0, size - unavailable)
    _drain_old(m, pool, rollout, least, now)
    _drain_surplus(m, rollout, size, now)
    look_again(m, pool, now)


def drop_waiting(m: Master, pool: Pool, now: float) -> None:
    """Old workers that have no process give up their places at once: the next life is to be a new one."""
    if pool.rollout is not None and pool.counts[BACKOFF]:
        for w in [w for w in pool.rollout.old.values() if w.state == BACKOFF]:
            worker.happen(m, w, worker.DRAIN, now, "rollout")


def limits(pool: Pool) -> tuple[int, int]:
    """How many workers more, and how many fewer, than its size the pool may have; as in Kubernetes, one of them is."""
    size, up, down = pool.size, pool.spec.rollout.max_surge, pool.spec.rollout.max_unavailable
    surge = ceil(up.value * size / 100) if up.percent else int(up.value)
    unavailable = floor(down.value * size / 100) if down.percent else int(down.value)
    return surge if surge or unavailable else 1, min(unavailable, size)


def _drain_old(m: Master, pool: Pool, rollout: Rollout, least: int, now: float) -> None:
    """Ask old workers to go, as far as `least` available ones remain."""
    excess = len(rollout.old) - max(0, least - rollout.available)
    old_ready = pool.counts[READY] - rollout.ready
    spare = old_ready + rollout.available - least
    if excess <= 0 or (spare <= 0 and len(rollout.old) == old_ready):
        return
    # Those that do not serve anyway, then the oldest.
    order = [w for w in rollout.old.values() if w.state in (BACKOFF, STARTING)]
    for w in rollout.old.values():
        if len(order) >= excess or spare <= 0:
            break
        if w.state == READY:
            order.append(w)
            spare -= 1
    for w in order[:excess]:
        worker.happen(m, w, worker.DRAIN, now, "rollout")


def _drain_surplus(m: Master, rollout: Rollout, size: int, now: float) -> None:
    """The pool has become smaller meanwhile."""
    surplus = len(rollout.fresh) - size
    if surplus > 0:
        candidates = [w for w in rollout.fresh.values() if w.state in (BACKOFF, STARTING, READY)]
        for w in candidates[:surplus]:
            worker.happen(m, w, worker.DRAIN, now, "scale_down")


def ready(w: Worker, now: float) -> None:
    """A worker of the pool is ready; a new one counts at once, or after `min_ready`."""
    rollout = w.pool.rollout
    if rollout is not None and w.generation == rollout.generation:
        rollout.ripening.append(w)
        _ripen(w.pool, rollout, now)


def _ripen(pool: Pool, rollout: Rollout, now: float) -> bool:
    """Count the new workers that have been ready for long enough; whether there was one."""
    progress = False
    ripening = rollout.ripening
    wait = pool.spec.rollout.min_ready
    while ripening and (ripening[0].state != READY or ripening[0].ready_since + wait <= now):
        w = ripening.popleft()
        if w.state == READY and not w.available:
            w.available = progress = True
            rollout.available += 1
    if progress and rollout.progress_by != NEVER:
        rollout.progress_by = now + pool.spec.rollout.deadline
    return progress


def look_again(m: Master, pool: Pool, now: float) -> None:
    """Complete the rollout, or wait for what may happen next."""
    rollout = pool.rollout
    if rollout is None:
        return
    when = rollout.progress_by
    if rollout.ripening:
        when = min(when, rollout.ripening[0].ready_since + pool.spec.rollout.min_ready)
    if is_replaced(pool, rollout):
        # They may still turn out to have failed; from here on there is no other deadline.
        when = max((w.born for w in rollout.fresh.values()), default=now) + pool.spec.restart.min_uptime
        if rollout.progress_by != NEVER:
            rollout.progress_by = now + pool.spec.rollout.deadline
        if rollout.back or not rollout.fresh or now >= when:
            end(m, pool, "completed")
            return
    m.arm(rollout, when)


def is_replaced(pool: Pool, rollout: Rollout) -> bool:
    """Whether only workers of the new generation are left, and all of them serve."""
    return not rollout.old and len(rollout.fresh) == pool.size and rollout.available >= pool.size


def due(m: Master, rollout: Rollout, now: float) -> None:
    """Somebody has been ready for long enough, or nothing has moved for too long."""
    pool = rollout.pool
    if pool.rollout is not rollout:
        return
    _ripen(pool, rollout, now)
    if now >= rollout.progress_by and not is_replaced(pool, rollout):
        fail(m, pool, f"no progress for {pool.spec.rollout.deadline:g} s", now)
    else:
        advance(m, pool, now)


def failed_by(w: Worker) -> str:
    """Why the end of this worker fails its rollout; empty when it does not."""
    pool, rollout = w.pool, w.pool.rollout
    if rollout is None or rollout.back or w.generation != rollout.generation:
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
    pool.last_error = f"rollout to generation {rollout.generation} failed: {why}"
    starting = [w for w in rollout.fresh.values() if w.state in (BACKOFF, STARTING)]
    end(m, pool, "failed", why)
    for w in starting:
        worker.happen(m, w, worker.DRAIN, now, "rollout")
    roll_back(m, pool, now, pool.last_error)


def end(m: Master, pool: Pool, result: str, reason: str = "") -> None:
    """Leave the rollout behind."""
    rollout = pool.rollout
    if rollout is None:
        return
    m.arm(rollout, NEVER)
    pool.rollout = None
    if rollout.back:
        m.report("info", "rolled_back", pool, generation=pool.generation)
        return
    if result == "completed":
        pool.generation, pool.template = rollout.generation, rollout.template
        pool.last_error = ""
    pool.counters.rollouts[result] += 1
    level = {"completed": "info", "aborted": "warning"}.get(result, "error")
    fields = {"reason": reason} if reason else {}
    m.report(level, f"rollout_{result}", pool, generation=rollout.generation, **fields)
    m.order(RolloutEnded(pool.name, rollout.generation, result, reason))
    reload.release_sockets(m)


def freeze(m: Master) -> None:
    """The master is on its way out: what is there stays, until it is stopped."""
    for pool in m.pools.values():
        if pool.rollout is not None:
            if pool.rollout.back:
                m.arm(pool.rollout, NEVER)
                pool.rollout = None
            else:
                end(m, pool, "aborted", "the master is stopping")
