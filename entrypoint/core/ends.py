"""What the end of a worker means for its pool: a replacement, a pause, a completion, or that it gives up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import rollout, sizing, worker
from entrypoint.core.model import INIT_TIMED_OUT, POOL_COMPLETED, POOL_FAILED, POOL_GAVE_UP, Note
from entrypoint.core.terms import ACTIVE, BACKOFF, KILL, NEVER, READY
from entrypoint.reasons import REASONS

if TYPE_CHECKING:
    from entrypoint.core.model import Pool, Worker
    from entrypoint.core.state import Master


def account(m: Master, w: Worker, chance: float, now: float) -> None:
    """Nothing is left of the worker. `chance` in [0, 1) spreads pauses."""
    pool = w.pool
    if pool.is_helper:
        helper_ended(m, w, now)
    elif pool.is_init and w.cause == "boot_timeout":
        m.note(Note(INIT_TIMED_OUT, pool, w, w.outcome.status if w.outcome is not None else 0))
    elif not (w.reason or pool.removed):
        died(m, w, chance, now)


def helper_ended(m: Master, w: Worker, now: float) -> None:
    """A process of the master's own ended: it is started again, for ever, and never decides anything."""
    pool = w.pool
    if pool.status == ACTIVE and not w.reason:
        backoff = pool.spec.restart.backoff
        failed = w.ended - w.born < backoff.max or (w.cause != "" and REASONS[w.cause].fails_boot)
        pool.failures = pool.failures + 1 if failed else 0
        delay = backoff.initial * backoff.factor ** min(pool.failures - 1, 64) if pool.failures else 0.0
        m.add_worker(pool, now + min(delay, backoff.max), pool.current)


def died(m: Master, w: Worker, chance: float, now: float) -> None:
    """A worker ended that nobody had asked to go."""
    pool, restart = w.pool, w.pool.spec.restart
    why = rollout.failed_by(w)
    if why:
        rollout.fail(m, pool, why, now)
        return
    status = w.outcome.status if w.outcome is not None else 0
    if w.cause and not status:
        status = 128 + KILL
    never_ran = not pool.executed
    if never_ran and pool.spec.critical and not pool.is_init:
        give_up(m, w, status, "its command cannot be executed", now)
        return
    if restart.policy == "never" or (restart.policy == "on-failure" and status == 0):
        finish(m, w, status)
        return
    pool.restarts += 1
    pool.counters.restarts[w.ended_by or "signal"] += 1
    delay = 0.0
    if not is_failed_boot(w):
        pool.failures = 0
    else:
        pool.failures += 1
        delay = failure_delay(pool, chance)
        exhausted = 0 < restart.give_up_after <= pool.failures
        on_its_way = pool.rollout is not None and not pool.rollout.back  # what may help
        if exhausted and pool.spec.critical and not pool.counts[READY] and not on_its_way:
            give_up(m, w, status, f"{pool.failures} failed boots in a row", now)
            return
    replace(m, w, now, delay)


def is_failed_boot(w: Worker) -> bool:
    """Whether the worker ended too early, or for what only happens to one that boots."""
    young = w.ended - w.born < w.pool.spec.restart.min_uptime  # the end of its group is no uptime
    return young or (w.cause != "" and REASONS[w.cause].fails_boot)


def replace(m: Master, w: Worker, now: float, delay: float) -> None:
    """Give a worker that ended by itself its successor, unless there is no place for one."""
    pool = w.pool
    if pool.status != ACTIVE or pool.gave_up:
        return
    if pool.is_stale(w):  # where an old one keeps failing, the rollout fills the place
        generation, vacant = pool.current, 0 if delay else 1
    else:
        generation, vacant = pool.target, pool.size - len(pool.kept)
    if vacant <= 0:
        return
    m.add_worker(pool, now + delay, generation, w.restarts + 1)
    if delay:
        m.report("warning", "pool_backoff", pool, slot=w.slot, failures=pool.failures, retry_in=round(delay, 3))


def failure_delay(pool: Pool, chance: float) -> float:
    """Seconds before the replacement after the latest failure in a row; `chance` in [0, 1) spreads it."""
    backoff, limit = pool.spec.restart.backoff, pool.spec.restart.give_up_after
    if pool.failures <= 1 and limit != 1:
        return 0.0
    if 0 < limit <= pool.failures:
        delay = backoff.max
    else:
        delay = min(backoff.max, backoff.initial * backoff.factor ** min(pool.failures - 2, 64))
    return delay * (1 + backoff.jitter * (2 * chance - 1))


def recover(m: Master, pool: Pool, now: float) -> float:
    """End the row of failures if a worker has reached min_uptime since the last; returns when one may."""
    limit = pool.spec.restart.min_uptime
    young = pool.young
    while young and (young[0].outcome is not None or young[0].born + limit <= now):
        w = young.popleft()
        if w.outcome is None and pool.failures:
            pool.failures = 0
            m.report("info", "pool_recovered", pool, slot=w.slot)
    return young[0].born + limit if young and pool.failures else NEVER


def finish(m: Master, w: Worker, status: int) -> None:
    """A worker ended for good."""
    pool = w.pool
    pool.finished += 1
    sizing.resize(m, pool)
    if status and pool.spec.critical and not pool.is_init:
        if not pool.failed:
            pool.failure = pool.last_error or f"exit code {status}"
            m.report("debug" if m.forward_all else "error", "pool_failed", pool, error=pool.failure)
        m.note(Note(POOL_FAILED, pool, w, status))
    if sizing.left_to_do(pool) or pool.workers:
        return
    pool.completed = True
    if not pool.failed:
        m.report("info", "pool_completed", pool)
    m.note(Note(POOL_COMPLETED, pool, w, status))


def give_up(m: Master, w: Worker, status: int, why: str, now: float) -> None:
    """A critical pool cannot work: nothing is started in it any more."""
    pool = w.pool
    pool.gave_up = True
    pool.failure = pool.last_error or why
    for other in [o for o in pool.workers.values() if o.state == BACKOFF]:
        worker.dispatch(m, other, worker.DRAIN, now, "shutdown")
    m.note(Note(POOL_GAVE_UP, pool, w, status, why))
