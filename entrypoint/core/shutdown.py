"""How the master ends: drain delay, pools in reverse order, a sweep of what is left, the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import rollout, worker
from entrypoint.core.actions import CloseSockets, Exit, Sweep
from entrypoint.core.terms import (
    ACTIVE,
    CLOSED,
    CLOSING,
    KILL,
    NEVER,
    PHASE_DRAINING,
    PHASE_EXITED,
    PHASE_STOPPING,
    PHASE_SWEEPING,
    TERM,
    WAITING,
    address,
)

if TYPE_CHECKING:
    from entrypoint.core.model import Pool
    from entrypoint.core.state import Master

SECOND_TERM_AFTER = 1.0  # a TERM this much later ends the drain delay; an earlier one is the same request
SWEEP_GRACE = 1.0  # what is left at the end gets between TERM and KILL
SWEEP_INTERVAL = 0.1  # between passes of KILL
SWEEP_PASSES = 6  # TERM, then at most 0.5 s of KILL
MARGIN = 1.0  # what the platform's grace period is to have left at the end


def request(m: Master, now: float, name: str, *, delay: bool) -> None:
    """Somebody asked the master to stop: TERM (with the drain delay) or INT (without)."""
    if m.phase in (PHASE_SWEEPING, PHASE_EXITED):
        return
    first = m.asked_at
    m.asked_at = min(first, now)
    if not m.requested and not m.exit_code:
        m.requested = True
    if m.phase not in (PHASE_DRAINING, PHASE_STOPPING):
        begin(m, now, f"requested by {name}", delay=delay)
    elif m.phase == PHASE_DRAINING and (not delay or first == NEVER or now - first > SECOND_TERM_AFTER):
        m.report("info", "drain_ended", reason=f"requested by {name}")
        end_drain(m, now)


def begin(m: Master, now: float, reason: str, *, delay: bool) -> None:
    """Leave the running phase; each pool stops when its drain delay is over and no pool needs it."""
    if m.phase in (PHASE_DRAINING, PHASE_STOPPING, PHASE_SWEEPING, PHASE_EXITED):
        return
    m.exit_reason = reason
    m.phase = PHASE_DRAINING
    grace = m.spec.shutdown.grace_period
    m.ends_by = now + grace - SWEEP_GRACE - MARGIN if grace else NEVER
    freeze_all(m)
    for pool in [*m.init, *m.pools.values()]:
        own = pool.spec.stop.delay
        serves = delay and pool.status == ACTIVE and not pool.is_init  # else there is nothing to drain
        pool.stop_at = now + ((m.drain_delay if own is None else own) if serves else 0.0)
    last = max(pool.stop_at for pool in m.pools.values())
    m.report("info", "shutdown", reason=reason, drain_delay=round(last - now, 3))
    stop_pools(m, now)


def freeze_all(m: Master) -> None:
    """From now on everybody serves on, until all are stopped: nobody goes for another reason."""
    for pool in m.pools.values():
        rollout.freeze(m, pool)


def end_drain(m: Master, now: float) -> None:
    """Stop waiting; the order of pools stays."""
    for pool in m.pools.values():
        pool.stop_at = min(pool.stop_at, now)
    stop_pools(m, now)


def quit_now(m: Master, now: float) -> None:
    """QUIT: every pool at once, whatever the order, and SIGKILL after a second."""
    if m.phase in (PHASE_SWEEPING, PHASE_EXITED):
        return
    if not m.exit_code:
        m.requested = True
    m.asked_at = now
    if m.phase not in (PHASE_DRAINING, PHASE_STOPPING):
        m.exit_reason = "requested by SIGQUIT"
    m.report("info", "quitting")
    m.phase = PHASE_STOPPING
    everything = [*m.init, *m.pools.values()]
    for pool in everything:
        if pool.status not in (CLOSING, CLOSED):
            close_sockets(m, pool)
            pool.status = CLOSING
    freeze_all(m)
    for w in list(m.workers.values()):
        if not w.pool.is_helper:
            worker.dispatch(m, w, worker.HURRY, now)
    for pool in everything:
        if pool.status == CLOSING and not pool.workers:
            pool.status = CLOSED
    stop_pools(m, now)


def stop_pools(m: Master, now: float) -> None:
    """Stop every pool whose time has come; with none left, sweep."""
    pools = [*m.init, *m.pools.values()]
    progress = True
    while progress:
        progress = False
        for pool in pools:
            if pool.status in (CLOSING, CLOSED) or pool.stop_at > now:
                continue
            if pool.status == WAITING or all(p.status == CLOSED for p in pool.dependents):
                stop_pool(m, pool, now)
                progress = pool.status == CLOSED or progress
    if all(p.status == CLOSED for p in pools):
        if stop_helpers(m, now):
            sweep(m, now)
        return
    upcoming = [p.stop_at for p in pools if p.status not in (CLOSING, CLOSED) and p.stop_at > now]
    if not upcoming:
        m.phase = PHASE_STOPPING
    m.arm(m, min(upcoming, default=NEVER))


def stop_helpers(m: Master, now: float) -> bool:
    """The master's own processes stop when no worker needs them any more; whether they are gone."""
    m.phase = PHASE_STOPPING if m.phase == PHASE_DRAINING else m.phase
    for pool in m.helpers.values():
        if pool.status not in (CLOSING, CLOSED):
            stop_pool(m, pool, now)
    return all(p.status == CLOSED for p in m.helpers.values())


def stop_pool(m: Master, pool: Pool, now: float) -> None:
    """Ask all workers of the pool to go."""
    close_sockets(m, pool)
    pool.status = CLOSING
    m.arm(pool, NEVER)
    for w in list(pool.workers.values()):
        worker.dispatch(m, w, worker.DRAIN, now, "shutdown")
    if not pool.workers:
        pool.status = CLOSED


def close_sockets(m: Master, pool: Pool) -> None:
    """Close the master's copies of the sockets that no other pool is going to serve."""
    others = {
        address(s)
        for p in m.pools.values()
        if p is not pool and p.status not in (CLOSING, CLOSED)
        for s in p.current.template.sockets
    }
    mine = [key for key in m.held_sockets if key not in others]
    if mine:
        m.order(CloseSockets(tuple(m.held_sockets.pop(key) for key in mine)))


def pool_closed(m: Master, pool: Pool, now: float) -> None:
    """The last worker of a stopping pool is gone."""
    pool.status = CLOSED
    m.report("debug" if pool.is_helper else "info", "pool_stopped", pool)
    stop_pools(m, now)


def sweep(m: Master, now: float) -> None:
    """All workers are gone; end what they left behind."""
    if m.phase in (PHASE_SWEEPING, PHASE_EXITED):
        return
    m.phase = PHASE_SWEEPING
    m.sweeps = 1
    m.order(Sweep(TERM))
    m.arm(m, now + SWEEP_GRACE)


def next_pass(m: Master, now: float) -> None:
    """The master's own deadline has come: a drain delay is over, or a pass of the sweep."""
    if m.phase != PHASE_SWEEPING:
        stop_pools(m, now)
    elif m.sweeps >= SWEEP_PASSES:
        m.report("error", "sweep_failed", error="cannot end every process: some are still there after SIGKILL")
        leave(m)
    else:
        m.sweeps += 1
        m.order(Sweep(KILL))
        m.arm(m, now + SWEEP_INTERVAL)


def childless(m: Master) -> None:
    """No process is left."""
    if m.phase == PHASE_SWEEPING:
        leave(m)


def leave(m: Master) -> None:
    """Exit with what happened."""
    m.phase = PHASE_EXITED
    m.arm(m, NEVER)
    m.order(Exit(exit_code(m), m.exit_reason, m.exit_fields, m.exit_serial))


def exit_code(m: Master) -> int:
    """The code of a failure if one decided the end, else what a requested stop achieved."""
    if m.exit_code or not m.requested:
        return m.exit_code
    if m.killed:
        return 128 + KILL
    if any(p.spec.critical and p.spec.restart.policy != "always" and not p.completed for p in m.pools.values()):
        return 128 + TERM
    return m.first_error
