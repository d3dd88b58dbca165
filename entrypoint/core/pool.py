"""A pool: its size, what it does about deaths, and when it gives up or completes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import rollout, shutdown, worker
from entrypoint.core.model import (
    ACTIVE,
    BACKOFF,
    CLOSED,
    DRAINING,
    KILL,
    NEVER,
    PHASE_DRAINING,
    PHASE_RUNNING,
    PHASE_STARTING,
    READY,
    STARTING,
    STOPPING,
    WAITING,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from entrypoint.core.events import Exited, Outcome
    from entrypoint.core.model import Master, Pool, Worker


DAEMON = "ended with 0 and left processes: keep it in the foreground"
LEADER = "the main process did not wait for its children: a shell is to start the program with exec"
FAILED_BOOTS = ("boot_timeout", "error")  # causes that make the end of a worker a failed boot, however long it took
HELPER_BOOT = 60.0  # seconds in which a helper that says why it cannot run has not run, be the machine ever so slow


# -- size ----------------------------------------------------------------------------------------------------


def start(m: Master, pool: Pool, now: float) -> None:
    """Give the pool its workers."""
    pool.status = ACTIVE
    reconcile(m, pool, now)


def reconcile(m: Master, pool: Pool, now: float) -> None:
    """Bring the number of workers that stay to the desired one; the oldest go first."""
    if pool.status != ACTIVE or pool.gave_up:
        return
    if pool.rollout is not None:
        rollout.advance(m, pool, now)
        return
    staying = len(pool.workers) - pool.leaving
    for _ in range(pool.size - staying):
        m.add_worker(pool, now)
    surplus = staying - pool.size
    if surplus <= 0 or m.phase == PHASE_DRAINING:  # everything keeps serving then
        return
    reason = "scale_down" if pool.size else "requested"
    workers = pool.workers.values()
    surplus -= sum(bool(w.outcome is not None or w.cause) and not w.reason for w in workers)  # they go anyway
    candidates = [w for w in workers if w.state == BACKOFF] + [w for w in workers if w.state in (STARTING, READY)]
    for w in candidates[: max(0, surplus)]:
        worker.happen(m, w, worker.DRAIN, now, reason)


def resize(m: Master, pool: Pool, count: int, now: float) -> None:
    """Give the pool another size, unless the master is on its way out or the pool runs to completion."""
    if m.phase not in (PHASE_STARTING, PHASE_RUNNING) or pool.runs_to_completion or count == pool.desired:
        return
    m.report("info", "pool_resized", pool, workers=count, before=pool.desired)
    pool.counters.scalings["up" if count > pool.desired else "down"] += 1
    pool.desired = count
    reconcile(m, pool, now)
    became_ready(m, pool, now)  # those that stay may all be


def halt(m: Master, pool: Pool, now: float, *, halted: bool) -> None:
    """Stop all its workers until further notice, or start them again."""
    pool.halted = halted
    m.report("info", "pool_halted" if halted else "pool_resumed", pool)
    if not halted:
        pool.failures = 0
    reconcile(m, pool, now)
    became_ready(m, pool, now)


def remove(m: Master, pool: Pool, now: float) -> None:
    """It is no longer configured: its workers go, then the pool."""
    pool.removed = True
    m.report("info", "pool_removed", pool)
    if pool.rollout is not None:
        rollout.end(m, pool, "aborted", "the pool was removed")
    for w in list(pool.workers.values()):
        worker.happen(m, w, worker.DRAIN, now, "requested")
    forget_if_gone(m, pool)


def forget_if_gone(m: Master, pool: Pool) -> bool:
    """Drop a removed pool without workers."""
    if not pool.removed or pool.workers:
        return False
    m.pools.pop(pool.name, None)
    m.arm(pool, NEVER)
    pool.status = CLOSED
    return True


# -- readiness -----------------------------------------------------------------------------------------------


def one_is_ready(m: Master, w: Worker, now: float) -> None:
    """One of its workers has become ready."""
    rollout.ready(w, now)
    if w.pool.spec.ready.when != "alive" and w.pool.spec.restart.min_uptime > 0:
        watch_uptime(m, w, now)
    became_ready(m, w.pool, now)
    if w.pool.rollout is not None:
        reconcile(m, w.pool, now)


def became_ready(m: Master, pool: Pool, now: float) -> None:
    """One more of its workers is ready, or it completed: pools that come after it may start."""
    if pool.was_ready or not pool.is_ready:
        return
    pool.was_ready = True
    m.report("info", "pool_ready", pool)
    if m.phase not in (PHASE_STARTING, PHASE_RUNNING):
        return
    start_waiting(m, pool.dependents, now)
    all_started(m)


def start_waiting(m: Master, pools: Iterable[Pool], now: float) -> None:
    """Start those of the pools that need not wait any more."""
    for pool in list(pools):
        if pool.status == WAITING and all(p.lets_start for p in pool.after):
            start(m, pool, now)


def all_started(m: Master) -> None:
    """Starting is over when no pool waits for others any more."""
    if m.phase == PHASE_STARTING and not any(p.status == WAITING for p in m.pools.values()):
        m.phase = PHASE_RUNNING


def watch_uptime(m: Master, w: Worker, now: float) -> None:
    """Remember a life as one that may reach min_uptime and so end a row of failures; one that boots never does."""
    w.pool.young.append(w)
    uptime_due(m, w.pool, now)


def uptime_due(m: Master, pool: Pool, now: float) -> None:
    """End the row of failures if a worker has reached min_uptime since the last one; else wait for one that may."""
    limit = pool.spec.restart.min_uptime
    young = pool.young
    while young and (young[0].outcome is not None or young[0].born + limit <= now):
        w = young.popleft()
        if w.outcome is None and pool.failures:
            pool.failures = 0
            m.report("info", "pool_recovered", pool, slot=w.slot)
    m.arm(pool, young[0].born + limit if young and pool.failures else NEVER)


# -- ends ----------------------------------------------------------------------------------------------------


def reason_of(outcome: Outcome) -> str:
    """Why a worker ended that nobody asked to."""
    if outcome.signal is not None:
        return "signal"
    return "error" if outcome.code else "completed"


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """The exit code or the signal, for a log line."""
    return {"signal": outcome.signal} if outcome.signal is not None else {"code": outcome.code}


def report_exit(m: Master, w: Worker, now: float, event: Exited) -> None:
    """Log the end of a worker's main process."""
    known = w.pool.last_error
    reason = w.ended_by = w.cause or w.reason or ("oom" if event.oom else reason_of(event.outcome))
    count_exit(w, now, event)
    level = "info" if w.reason or reason == "completed" else "warning"
    fields: dict[str, Any] = {"reason": reason, **outcome_fields(event.outcome), "uptime": round(now - w.born, 3)}
    if event.error:
        level, fields["error"] = "error", event.error
        w.pool.last_error = event.error
    elif not w.reason and not w.cause and reason != "completed":
        killer = " of the OOM killer" if reason == "oom" else ""
        w.pool.last_error = f"{w.pool.name}/{w.slot} ended by {event.outcome.text}{killer}"
    if w.pool.is_helper and event.error:
        w.cause = "error"
        if now - w.born >= HELPER_BOOT:
            w.pool.failures = 0
        elif w.pool.failures and event.error == known:
            level = "debug"  # it was told when it happened first
    if not event.alone or event.daemon:
        fields["left_processes"] = True
        young = now - w.born < w.pool.spec.restart.min_uptime
        if reason == "completed" and young and not w.pool.runs_to_completion:
            level, fields["error"] = "warning", DAEMON
            w.pool.last_error = f"{w.pool.name}/{w.slot} {DAEMON}"
        elif w.state == DRAINING:
            fields["hint"] = LEADER
    m.report(level, "worker_exited", w, **fields)


def count_exit(w: Worker, now: float, event: Exited) -> None:
    """Count the end of a worker's main process."""
    counters = w.pool.counters
    counters.exits[w.ended_by] += 1
    counters.cpu_seconds += event.cpu
    counters.lifetime.observe(now - w.born)
    if w.stop_began != NEVER:
        counters.stop.observe(now - w.stop_began)


def vacated(m: Master, w: Worker, now: float, chance: float) -> None:
    """Nothing is left of a worker: settle what its end means, and fill its slot."""
    pool = w.pool
    m.remove_worker(w)
    if pool.is_helper:
        helper_ended(m, w, now)
    elif not w.reason:
        settle(m, w, now, chance)
    elif pool.is_init and w.cause == "boot_timeout":
        fail(m, w, w.outcome.status if w.outcome else 0, f"init command {pool.name} timed out", now)
    if pool.status == STOPPING:
        if not pool.workers:
            shutdown.pool_closed(m, pool, now)
    elif not forget_if_gone(m, pool):
        reconcile(m, pool, now)


def helper_ended(m: Master, w: Worker, now: float) -> None:
    """A process of the master's own ended: it is started again, for ever, and never decides anything."""
    pool = w.pool
    if pool.status == ACTIVE and not w.reason:
        backoff = pool.spec.restart.backoff
        pool.failures = pool.failures + 1 if w.cause in FAILED_BOOTS or w.ended - w.born < backoff.max else 0
        delay = backoff.initial * backoff.factor ** min(pool.failures - 1, 64) if pool.failures else 0.0
        m.add_worker(pool, now + min(delay, backoff.max))


def settle(m: Master, w: Worker, now: float, chance: float) -> None:
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
        finish(m, w, status, now)
        return
    pool.restarts += 1
    pool.counters.restarts[w.ended_by or "signal"] += 1
    delay = 0.0
    if w.ended - w.born >= restart.min_uptime and w.cause not in FAILED_BOOTS:  # the end of its group is no uptime
        pool.failures = 0
    else:
        uptime_due(m, pool, now)  # who reached min_uptime before this failure ends the row before it, not after
        pool.failures += 1
        delay = failure_delay(pool, chance)
        exhausted = 0 < restart.give_up_after <= pool.failures
        on_its_way = pool.rollout is not None and not pool.rollout.back  # what may help
        if exhausted and pool.spec.critical and not pool.counts[READY] and not on_its_way:
            give_up(m, w, status, f"{pool.failures} failed boots in a row", now)
            return
        uptime_due(m, pool, now)
    replace(m, w, now, delay)


def replace(m: Master, w: Worker, now: float, delay: float) -> None:
    """Give a worker that ended by itself its successor, unless there is no place for one."""
    pool = w.pool
    if pool.status != ACTIVE or pool.gave_up:
        return
    current = pool.rollout
    fresh = current is not None and w.generation == current.generation
    if current is None:
        vacant = pool.size - (len(pool.workers) - pool.leaving)
    elif fresh:
        vacant = pool.size - len(current.fresh)
    else:
        vacant = 0 if delay else 1  # where an old one keeps failing, the rollout fills the place
    if vacant <= 0:
        return
    m.add_worker(pool, now + delay, fresh=fresh, restarts=w.restarts + 1)
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


def finish(m: Master, w: Worker, status: int, now: float) -> None:
    """A worker ended for good."""
    pool = w.pool
    pool.finished += 1
    pool.desired = max(0, pool.desired - 1)
    if status and pool.spec.critical and not pool.is_init:
        failed_for_good(m, w, status)
    if pool.desired or pool.workers:
        return
    pool.completed = True
    if not pool.failed:
        m.report("info", "pool_completed", pool)
    if pool.is_init:
        init_finished(m, w, status, now)
        return
    became_ready(m, pool, now)
    conclude(m, now)


def failed_for_good(m: Master, w: Worker, status: int) -> None:
    """A worker that is not replaced ended with an error: its pool cannot succeed any more, nor what waits for it."""
    pool = w.pool
    if not pool.failed:
        pool.failure = pool.last_error or f"exit code {status}"
        m.report("debug" if m.forward_all else "error", "pool_failed", pool, error=pool.failure)
    if not (m.first_error or m.exit_code):
        m.first_error, m.exit_serial = status, w.serial
        m.exit_fields = {"pool": pool.name, "slot": w.slot, **(outcome_fields(w.outcome) if w.outcome else {})}


def conclude(m: Master, now: float) -> None:
    """End when the critical pools have completed; when one has failed, as soon as no other can complete any more."""
    critical = [p for p in m.pools.values() if p.spec.critical] or list(m.pools.values())
    done = all(p.completed for p in critical)
    to_do = [p for p in critical if p.runs_to_completion and not p.completed and not p.is_hopeless]
    if not done and (to_do or not m.first_error):
        return
    if m.phase in (PHASE_STARTING, PHASE_RUNNING):
        m.exit_code = m.first_error
        failed = m.pools.get(m.exit_fields.get("pool", ""))
        reason = f"pool {failed.name} failed: {failed.failure}" if failed else "all pools completed"
        serving = not done and any(p.counts[READY] for p in m.pools.values())
        shutdown.begin(m, now, reason, delay=serving)
    elif m.phase == PHASE_DRAINING and done:
        shutdown.end_drain(m, now)


def give_up(m: Master, w: Worker, status: int, why: str, now: float) -> None:
    """A critical pool cannot work: nothing is started in it any more."""
    pool = w.pool
    pool.gave_up = True
    pool.failure = pool.last_error or why
    for other in [o for o in pool.workers.values() if o.state == BACKOFF]:
        worker.happen(m, other, worker.DRAIN, now, "shutdown")
    if m.phase not in (PHASE_STARTING, PHASE_RUNNING):  # a requested stop is on its way; leave it its exit code
        return
    fail(m, w, status, f"pool {pool.name} gave up: {why}", now)


def fail(m: Master, w: Worker, status: int, reason: str, now: float) -> None:
    """Stop everything with the code of the worker that decided it."""
    m.exit_code, m.exit_serial = status or 1, w.serial
    m.exit_fields = {"pool": w.pool.name, "slot": w.slot, **(outcome_fields(w.outcome) if w.outcome else {})}
    if w.pool.last_error:
        m.exit_fields["error"] = w.pool.last_error
    # In init mode the line about the exit has said it all, as far as there is anything to say.
    error = {"error": w.pool.last_error} if w.pool.last_error else {}
    m.report("debug" if m.forward_all else "error", "giving_up", w, reason=reason, exit_code=m.exit_code, **error)
    serving = any(p.counts[READY] for p in m.pools.values())
    shutdown.begin(m, now, reason, delay=serving)


# -- init commands -------------------------------------------------------------------------------------------


def start_next(m: Master, now: float) -> None:
    """Run the next init command, or start the pools that wait for nothing."""
    if m.init:
        start(m, m.init[0], now)
        return
    for pool in m.pools.values():
        if pool.status == WAITING and not pool.after:
            start(m, pool, now)
    all_started(m)


def init_finished(m: Master, w: Worker, status: int, now: float) -> None:
    """An init command ended by itself."""
    if status:
        fail(m, w, status, f"init command {w.pool.name} failed", now)
    elif m.phase == PHASE_STARTING:
        m.init.pop(0)
        start_next(m, now)
