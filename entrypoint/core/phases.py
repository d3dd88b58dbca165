"""The phases of the master: what starts after what, and what ends it. It hears of pools by their notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import shutdown
from entrypoint.core.actions import CloseSockets
from entrypoint.core.ending import outcome_fields
from entrypoint.core.model import INIT_TIMED_OUT, POOL_COMPLETED, POOL_EMPTY, POOL_FAILED, POOL_GAVE_UP, POOL_READY
from entrypoint.core.terms import (
    ACTIVE,
    AT_WORK,
    CLOSED,
    CLOSING,
    NEVER,
    PHASE_DRAINING,
    PHASE_RUNNING,
    PHASE_STARTING,
    READY,
    WAITING,
    address,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from entrypoint.core.model import Note, Pool, Worker
    from entrypoint.core.state import Master


def hear(m: Master, note: Note, now: float) -> None:
    """Do what follows from a note of a pool."""
    _HEAR[note.what](m, note, now)


# -- starting ------------------------------------------------------------------------------------------------


def start(m: Master, pool: Pool) -> None:
    """Give the pool its workers."""
    pool.status = ACTIVE
    m.touch(pool)


def start_next(m: Master) -> None:
    """Run the next init command, or start the pools that wait for nothing."""
    if m.init:
        start(m, m.init[0])
    else:
        start_waiting(m, m.pools.values())


def start_waiting(m: Master, pools: Iterable[Pool]) -> None:
    """Start those of the pools that need not wait any more. Starting is over when none waits."""
    for pool in pools:
        if pool.status == WAITING and all(p.lets_start for p in pool.after):
            start(m, pool)
    if m.phase == PHASE_STARTING and not any(p.status == WAITING for p in m.pools.values()):
        m.phase = PHASE_RUNNING


def pool_ready(m: Master, note: Note, _now: float) -> None:
    """All workers of a pool have been ready once, or it has done its work: what comes after it may start."""
    if m.phase in AT_WORK:
        start_waiting(m, note.pool.dependents)


# -- ends ----------------------------------------------------------------------------------------------------


def pool_completed(m: Master, note: Note, now: float) -> None:
    """Every worker of a pool has ended for good."""
    if not note.pool.is_init:
        conclude(m, now)
    elif note.status:
        end_for(m, note, f"init command {note.pool.name} failed", now)
    elif m.phase == PHASE_STARTING:
        m.init.pop(0)
        start_next(m)


def pool_failed(m: Master, note: Note, _now: float) -> None:
    """A worker that is not replaced ended with an error: its pool cannot succeed any more, nor what waits for it."""
    if not (m.first_error or m.exit_code):
        m.first_error = note.status
        decided_by(m, note.worker)


def conclude(m: Master, now: float) -> None:
    """End when the critical pools have completed; when one has failed, as soon as no other can complete any more."""
    critical = [p for p in m.pools.values() if p.spec.critical] or list(m.pools.values())
    done = all(p.completed for p in critical)
    to_do = [p for p in critical if p.runs_to_completion and not p.completed and not p.is_hopeless]
    if not done and (to_do or not m.first_error):
        return
    if m.phase in AT_WORK:
        m.exit_code = m.first_error
        failed = m.pools.get(m.exit_fields.get("pool", ""))
        reason = f"pool {failed.name} failed: {failed.failure}" if failed else "all pools completed"
        serving = not done and any(p.counts[READY] for p in m.pools.values())
        shutdown.begin(m, now, reason, delay=serving)
    elif m.phase == PHASE_DRAINING and done:
        shutdown.end_drain(m, now)


def pool_gave_up(m: Master, note: Note, now: float) -> None:
    """A critical pool cannot work. A stop that was asked for keeps its exit code."""
    if m.phase in AT_WORK:
        end_for(m, note, f"pool {note.pool.name} gave up: {note.why}", now)


def init_timed_out(m: Master, note: Note, now: float) -> None:
    """An init command took too long."""
    end_for(m, note, f"init command {note.pool.name} timed out", now)


def end_for(m: Master, note: Note, reason: str, now: float) -> None:
    """Stop everything with the code of the worker that decided it."""
    m.exit_code = note.status or 1
    decided_by(m, note.worker)
    error = {"error": note.pool.last_error} if note.pool.last_error else {}
    m.exit_fields |= error
    # In init mode the line about the exit has said it all, as far as there is anything to say.
    level = "debug" if m.forward_all else "error"
    m.report(level, "giving_up", note.worker, reason=reason, exit_code=m.exit_code, **error)
    serving = any(p.counts[READY] for p in m.pools.values())
    shutdown.begin(m, now, reason, delay=serving)


def decided_by(m: Master, w: Worker | None) -> None:
    """Remember which worker decided how the master ends."""
    if w is not None:
        m.exit_serial = w.serial
        m.exit_fields = {"pool": w.pool.name, "slot": w.slot, **outcome_fields(w.outcome)}


def pool_empty(m: Master, note: Note, now: float) -> None:
    """No worker of a pool is left that was to have none."""
    pool = note.pool
    if pool.status == CLOSING:
        shutdown.pool_closed(m, pool, now)
    else:
        forget(m, pool)


def forget(m: Master, pool: Pool) -> None:
    """Drop a pool that is configured no longer, if no worker of it is left."""
    if pool.removed and pool.status != CLOSED and not pool.workers:
        m.pools.pop(pool.name, None)
        m.arm(pool, NEVER)
        pool.status = CLOSED


# -- sockets -------------------------------------------------------------------------------------------------


def release_sockets(m: Master) -> None:
    """Close what is configured no longer and what no pool, whatever its generation, would hand to a worker."""
    if m.phase not in AT_WORK:
        return
    used = {address(s) for s in m.sockets.values()}
    for pool in m.pools.values():
        if not pool.removed:
            for generation in (pool.current, pool.target):
                used.update(address(s) for s in generation.template.sockets)
    unused = tuple(s for key, s in m.held_sockets.items() if key not in used)
    if unused:
        for socket in unused:
            del m.held_sockets[address(socket)]
        m.order(CloseSockets(unused, forget=True))


_HEAR: dict[str, Callable[[Master, Note, float], None]] = {
    POOL_READY: pool_ready,
    POOL_COMPLETED: pool_completed,
    POOL_FAILED: pool_failed,
    POOL_GAVE_UP: pool_gave_up,
    POOL_EMPTY: pool_empty,
    INIT_TIMED_OUT: init_timed_out,
}
