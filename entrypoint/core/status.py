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
    from collections.abc import Mapping
    from typing import Any

    from entrypoint.core.model import Master, Pool, Rollout


def phase(m: Master) -> str:
    """Where the master is in its life, in four words."""
    return PHASE_STOPPING if m.phase in (PHASE_SWEEPING, PHASE_EXITED) else m.phase


def readiness(m: Master) -> tuple[bool, str]:
    """Whether the whole can take work, and why not."""
    if m.phase not in (PHASE_STARTING, PHASE_RUNNING):
        return False, "stopping"
    if m.phase == PHASE_STARTING and m.init:
        return False, m.init[0].refused or f"{m.init[0].name} is running"
    reasons = [why for p in m.pools.values() if p.spec.critical and (why := lacks(p))]
    return not reasons, "; ".join(reasons)


def lacks(pool: Pool) -> str:
    """What a pool has too little of; empty when it is ready."""
    if pool.removed:
        return ""
    if pool.failed:
        return f"{pool.name}: failed: {pool.failure}"
    if pool.completed:
        return ""
    if pool.status == WAITING:
        return f"{pool.name}: waits for {', '.join(p.name for p in pool.after if not p.lets_start) or 'init'}"
    least = enough(pool)
    ready = pool.counts[READY]
    return "" if ready >= least else f"{pool.name}: {ready} of {least} ready{_refused(pool)}"


def _refused(pool: Pool) -> str:
    return f" ({pool.refused})" if pool.refused else ""


def startup(m: Master) -> tuple[bool, str]:
    """Whether every critical pool has had all its workers ready once, and which have failed, or have not yet."""
    failed = [lacks(p) for p in m.pools.values() if p.failed and not p.removed]
    if failed:
        return False, "; ".join(failed)
    late = [p for p in m.pools.values() if p.spec.critical and not (p.was_ready or p.completed or p.removed)]
    waiting = ", ".join(p.name + _refused(p) for p in late)
    return not late, f"not all ready yet: {waiting}" if late else ""


def pools(m: Master, now: float, zero: float, pids: Mapping[int, int]) -> dict[str, Any]:
    """Every pool, with its workers as rows in no order, by name; entrypoint.observer.messages makes more of a row.

    `zero` is the Unix time when `now` was 0; `pids` those of the workers that live, by serial.
    """
    return {pool.name: _pool(pool, now, zero, pids) for pool in m.pools.values()}


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


def _pool(pool: Pool, now: float, zero: float, pids: Mapping[int, int]) -> dict[str, Any]:
    # As little as can be for each of a thousand workers: the master has better things to do.
    rows = [
        (
            w.slot,
            pids.get(w.serial),
            w.state,
            w.generation,
            zero + w.born if w.born != NEVER else None,
            w.restarts,
            zero + w.beat_at if w.beats else None,
            w.status,
        )
        for w in pool.workers.values()
    ]
    return {
        "desired": pool.size,
        "pinned": pool.pinned,
        "ready": pool.counts[READY],
        "generation": pool.generation,
        "state": state(pool),
        "restarts": pool.restarts,
        "last_error": pool.last_error,
        "rollout": _rollout(pool, pool.rollout, now),
        "workers": rows,
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
