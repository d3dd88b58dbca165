"""What is shown of the state: derived when somebody asks, never stored."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from entrypoint.core.model import (
    ACTIVE,
    BACKOFF,
    NEVER,
    PHASE_EXITED,
    PHASE_RUNNING,
    PHASE_STARTING,
    PHASE_STOPPING,
    PHASE_SWEEPING,
    READY,
    STOPPING,
    WAITING,
)

if TYPE_CHECKING:
    from typing import Any

    from entrypoint.core.model import Master, Pool, Rollout, Worker


def phase(m: Master) -> str:
    """Where the master is in its life, in four words."""
    return PHASE_STOPPING if m.phase in (PHASE_SWEEPING, PHASE_EXITED) else m.phase


def readiness(m: Master) -> tuple[bool, str]:
    """Whether the whole can take work, and why not."""
    if m.phase not in (PHASE_STARTING, PHASE_RUNNING):
        return False, "stopping"
    if m.phase == PHASE_STARTING and m.init:
        return False, f"{m.init[0].name} is running"
    reasons = [why for p in m.pools.values() if p.spec.critical and (why := lacks(p))]
    return not reasons, "; ".join(reasons)


def lacks(pool: Pool) -> str:
    """What a pool has too little of; empty when it is ready."""
    if pool.completed or pool.removed:
        return ""
    if pool.status == WAITING:
        return f"{pool.name}: waits for {', '.join(p.name for p in pool.after if not p.was_ready) or 'init'}"
    least = enough(pool)
    ready = pool.counts[READY]
    return "" if ready >= least else f"{pool.name}: {ready} of {least} ready"


def startup(m: Master) -> tuple[bool, str]:
    """Whether every critical pool has had all its workers ready once, and which have not."""
    waiting = [p.name for p in m.pools.values() if p.spec.critical and not (p.was_ready or p.completed or p.removed)]
    return not waiting, f"not all ready yet: {', '.join(waiting)}" if waiting else ""


def pools(m: Master, now: float) -> dict[str, Any]:
    """Every pool and its workers, by name."""
    return {pool.name: _pool(pool, now) for pool in m.pools.values()}


def counters(pool: Pool, now: float) -> dict[str, Any]:
    """What has happened in a pool, and the rest of what metrics are made of."""
    waiting = [w.deadline - now for w in pool.workers.values() if w.state == BACKOFF] if pool.counts[BACKOFF] else []
    return {
        **pool.counters.snapshot(),
        "backoff_seconds": round(max(0.0, *waiting), 3) if waiting else 0.0,
        "failed": pool.failed,
        "critical": pool.spec.critical,
        "min_ready": enough(pool),
    }


def enough(pool: Pool) -> int:
    """As many ready workers make the pool ready."""
    share = pool.spec.min_ready_workers
    return min(ceil(share.value * pool.size / 100) if share.percent else int(share.value), pool.size)


def _pool(pool: Pool, now: float) -> dict[str, Any]:
    return {
        "desired": pool.size,
        "pinned": pool.pinned,
        "ready": pool.counts[READY],
        "generation": pool.generation,
        "state": state(pool),
        "restarts": pool.restarts,
        "last_error": pool.last_error,
        "rollout": _rollout(pool, pool.rollout, now),
        "workers": [_worker(w, now) for w in sorted(pool.workers.values(), key=lambda w: w.slot)],
    }


def state(pool: Pool) -> str:
    """A pool's state in one word."""
    if pool.failed:
        return "failed"
    if pool.completed:
        return "completed"
    if pool.status == WAITING:
        return "waiting"
    if pool.removed or pool.status != ACTIVE:
        return STOPPING
    if pool.halted:
        return "stopped"
    if pool.counts[BACKOFF] and pool.failures > 1:
        return "backoff"
    return "running" if pool.is_ready else "starting"


def _rollout(pool: Pool, rollout: Rollout | None, now: float) -> dict[str, Any] | None:
    if rollout is None:
        return None
    name = "replacing" if rollout.old or rollout.available < pool.size else "watching"
    return {
        "generation": rollout.generation,
        "phase": "rolling back" if rollout.back else name,
        "since_seconds": round(now - rollout.began, 3),
        "replaced": rollout.available,
        "total": pool.size,
        "reason": rollout.reason,
    }


def _worker(w: Worker, now: float) -> dict[str, Any]:
    lives = w.born != NEVER
    return {
        "id": f"{w.pool.name}/{w.slot}",
        "serial": w.serial,  # for the shell, which knows the pid
        "slot": w.slot,
        "state": w.state,
        "generation": w.generation,
        "age_seconds": round(now - w.born, 3) if lives else None,
        "restarts": w.restarts,
        "heartbeat_age_seconds": round(now - w.beat_at, 3) if w.beats else None,
        "resident_memory_bytes": None,  # read by whoever shows it, not by the master
        "status": w.status,
    }
