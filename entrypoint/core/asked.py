"""What people ask for on the control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import rollout
from entrypoint.core.actions import Answer, Reload, Signal
from entrypoint.core.settle import settle
from entrypoint.core.terms import ACTIVE, AT_WORK, NEVER, READY, STARTING, Wish

if TYPE_CHECKING:
    from entrypoint.core.events import Asked
    from entrypoint.core.model import Pool
    from entrypoint.core.state import Master

MAX_WORKERS = 10_000  # as in the configuration
BY_HAND = Wish("requested", first=False)


class Refused(Exception):  # noqa: N818 - it is an answer, not an error of ours
    """It cannot be done; the message says why."""


def asked(m: Master, event: Asked, now: float) -> None:
    """Do it, or say why not."""
    if event.what == "reload" and m.phase in AT_WORK:
        m.order(Reload(roll_all=False, asker=event.asker))  # the answer comes with the configuration
        return
    try:
        rollouts = obey(m, event, now)
        settle(m, now)  # what it orders comes before the answer
        m.order(Answer(event.asker, rollouts=rollouts))
    except Refused as refused:
        what = f"{event.what} {event.pool}".strip()
        m.order(Answer(event.asker, f"cannot {what}: {refused}"))


def obey(m: Master, event: Asked, now: float) -> tuple[tuple[str, int], ...]:
    """Do what is asked for; returns the rollouts that it began. Raises Refused."""
    if m.phase not in AT_WORK:
        raise Refused("the master is stopping")
    if event.what == "restart":
        return restart(m, event.pool, now)
    ACTIONS[event.what](m, find(m, event.pool), event, now)
    return ()


def find(m: Master, name: str) -> Pool:
    """The pool of that name. Raises Refused."""
    pool = m.pools.get(name)
    if pool is None or pool.removed:
        raise Refused(f"no such pool; there is {', '.join(p.name for p in m.pools.values() if not p.removed)}")
    return pool


def restart(m: Master, name: str, now: float) -> tuple[tuple[str, int], ...]:
    """Replace the workers of one pool, or of all that have any to replace."""
    if name:
        pool = find(m, name)
        if pool.runs_to_completion:
            raise Refused("it runs to completion")
        if pool.halted:
            raise Refused("it is stopped; start it")
        chosen = [pool]
    else:
        chosen = [p for p in m.pools.values() if not (p.removed or p.halted or p.runs_to_completion)]
    return tuple((pool.name, rollout.start(m, pool, pool.wanted, now)) for pool in chosen)


def scale(m: Master, pool: Pool, event: Asked, _now: float) -> None:
    """Pin the size, or give it back to the configuration."""
    if pool.runs_to_completion:
        raise Refused("it runs to completion")
    if event.workers is not None and not 0 <= event.workers <= MAX_WORKERS:
        raise Refused(f"not a count from 0 to {MAX_WORKERS}")
    pool.pin = event.workers
    m.touch(pool)


def start(m: Master, pool: Pool, _event: Asked, _now: float) -> None:
    """Start a pool that was stopped by hand."""
    if pool.completed:
        raise Refused("it has completed")
    if pool.halted:
        pool.halted = False
        pool.failures = 0
        m.report("info", "pool_resumed", pool)
        m.touch(pool)


def stop(m: Master, pool: Pool, _event: Asked, _now: float) -> None:
    """Stop all workers of a pool until it is started again."""
    if pool.completed:
        raise Refused("it has completed")
    if not pool.halted:
        pool.halted = True
        m.report("info", "pool_halted", pool)
        m.touch(pool)


def signal(m: Master, pool: Pool, event: Asked, _now: float) -> None:
    """Signal one worker or all; the pool's stop signal is a stop in good order, and a replacement follows."""
    chosen = [w for w in pool.workers.values() if event.slot in (None, w.slot) and w.born != NEVER and not w.outcome]
    if not chosen:
        raise Refused("no such worker" if event.slot is not None else "it has no worker")
    for w in chosen:
        graceful = event.signal == pool.spec.stop.signal and w.state in (STARTING, READY)
        if graceful and pool.status == ACTIVE and not pool.runs_to_completion:
            m.wish(w, BY_HAND)
        else:
            m.order(Signal(w.serial, event.signal))


ACTIONS = {"scale": scale, "start": start, "stop": stop, "signal": signal}
