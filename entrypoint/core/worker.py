"""The life of a worker: every state crossed with everything that can happen to it.

`TABLE` is total: each pair is written down, also those that change nothing and those that cannot be. A pair that
cannot be leaves the worker untouched and is reported as a bug; the master goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import pool as pools
from entrypoint.core.actions import CheckQueue, KillTree, Select, Signal, Spawn
from entrypoint.core.events import Executed, Exited, GroupGone, QueueChecked, Spawned, SpawnRefused
from entrypoint.core.model import (
    BACKOFF,
    DRAINING,
    KILLING,
    NEVER,
    READY,
    STARTING,
    STOPPING,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from entrypoint.core.model import Master, Worker

    Handler = Callable[[Master, Worker, float, Any], None]

GROUP_GRACE = 1.0  # what a dead worker left in its process group gets between TERM and KILL
QUIT_GRACE = 1.0  # between the stop signal and SIGKILL when the master quits
QUEUE_INTERVAL = 0.05  # between two looks at the queue of a worker that is to stop
KILL_INTERVAL = 5.0  # between two SIGKILLs of a process that does not go (uninterruptible sleep)
KILL_PATIENCE = 1.0  # while stopping: after that, an unkillable process is left to the kernel

# What can happen to a worker besides the events that name it.
DUE = "due"  # its deadline passed
DRAIN = "drain"  # it is asked to go; the argument is the reason
HURRY = "hurry"  # the master quits


# -- spawning ------------------------------------------------------------------------------------------------


def spawn(m: Master, w: Worker, now: float, _: None) -> None:
    """Its backoff is over."""
    if now < m.held_until:  # the kernel refused a spawn a moment ago; ask again only then
        m.arm(w, m.held_until)
        return
    m.enter(w, STARTING)
    m.order(Spawn(w.serial, w.pool.name, w.slot, w.generation))


def spawned(m: Master, w: Worker, now: float, _: Spawned) -> None:
    """It has a process."""
    w.born = now
    w.pool.live += 1
    m.refusals = 0
    if w.pool.spec.restart.min_uptime > 0:
        pools.watch_uptime(m, w, now)
    for signum in m.held_signals:
        m.order(Signal(w.serial, signum))
    m.held_signals.clear()
    m.report("info", "worker_started", w)


def refused(m: Master, w: Worker, now: float, event: SpawnRefused) -> None:
    """The kernel made no process: no failed boot, but all spawns wait."""
    m.refusals += 1
    backoff = w.pool.spec.restart.backoff
    delay = min(backoff.max, backoff.initial * backoff.factor ** min(m.refusals - 1, 64))
    m.held_until = now + delay
    m.enter(w, BACKOFF)
    m.arm(w, m.held_until)
    w.pool.last_error = event.error
    m.report("error", "spawn_refused", w, error=event.error, retry_in=round(delay, 3))


def executed(m: Master, w: Worker, now: float, _: Executed) -> None:
    """Its program runs; it is ready when it has lived long enough."""
    pool = w.pool
    pool.executed = True
    if any(m.sockets[name].reuse_port for name in pool.spec.sockets):
        w.chosen = True
        m.order(Select(w.serial, chosen=True))
    ready_at = w.born + pool.spec.ready.after
    if now >= ready_at and not pool.is_init:
        ready(m, w, now, None)
    else:
        m.arm(w, ready_at)


def executed_late(_m: Master, w: Worker, _now: float, _: Executed) -> None:
    """Its program runs, but it was asked to go already."""
    w.pool.executed = True


def ready(m: Master, w: Worker, now: float, _: None) -> None:
    """It proved able to work. For an init command this is its timeout."""
    if w.pool.is_init:
        m.report("error", "init_timeout", w, timeout=w.pool.spec.ready.after)
        drain(m, w, now, "boot_timeout")
        return
    m.enter(w, READY)
    m.report("info", "worker_ready", w, duration=round(now - w.born, 3))
    pools.became_ready(m, w.pool, now)


# -- stopping ------------------------------------------------------------------------------------------------


def drop(m: Master, w: Worker, _now: float, _: object) -> None:
    """It has no process: the slot is free at once."""
    m.remove_worker(w)


def drain(m: Master, w: Worker, now: float, reason: str) -> None:
    """Ask it to go, once, with a deadline."""
    pool, stop = w.pool, w.pool.spec.stop
    w.reason = reason
    pool.leaving += 1
    w.stop_deadline = NEVER if stop.timeout is None else now + stop.timeout
    m.enter(w, DRAINING)
    if w.chosen and pool.status != STOPPING:  # of a whole pool nobody is left to be chosen instead
        unchoose(m, w)
        m.arm(w, min(now + stop.quiesce, w.stop_deadline))
    else:
        send_stop(m, w)


def send_stop(m: Master, w: Worker) -> None:
    """Send the stop signal; what is left of the stop deadline is for the worker."""
    w.signalled = True
    m.order(Signal(w.serial, w.pool.spec.stop.signal))
    m.arm(w, w.stop_deadline)
    m.report("info", "worker_stopping", w, reason=w.reason)


def drain_due(m: Master, w: Worker, now: float, _: None) -> None:
    """Either its sockets had time to fall silent, or it did not go in time."""
    if not w.signalled:
        if now >= half_time(w):
            send_stop(m, w)
        else:
            m.arm(w, half_time(w))  # also if nobody can count
            m.order(CheckQueue(w.serial))
        return
    m.report("warning", "worker_killed", w, reason="stop deadline", timeout=w.pool.spec.stop.timeout)
    if w.reason == "shutdown" and w.pool.spec.critical:
        m.killed = True
    kill(m, w, now)


def queue_checked(m: Master, w: Worker, now: float, event: QueueChecked) -> None:
    """Stop it when nobody waits on its sockets, or when half of its time is gone."""
    if w.signalled:
        return
    if event.waiting == 0:
        send_stop(m, w)
    else:
        m.arm(w, min(now + QUEUE_INTERVAL, half_time(w)))


def half_time(w: Worker) -> float:
    """When a worker that is to stop has used up half of its time; the other half is for the stop signal."""
    return w.stop_deadline - (w.pool.spec.stop.timeout or 0.0) / 2


def kill(m: Master, w: Worker, now: float) -> None:
    """SIGKILL it and all that is left of it."""
    if w.state != KILLING:
        m.enter(w, KILLING)
    w.killed = True
    m.order(KillTree(w.serial))
    m.arm(w, now + (KILL_PATIENCE if w.pool.status == STOPPING else KILL_INTERVAL))


def kill_due(m: Master, w: Worker, now: float, _: None) -> None:
    """Its group outlived its grace, or it outlived SIGKILL."""
    if not w.killed:
        kill(m, w, now)
        return
    m.report("error", "worker_unkillable", w, error="cannot end the process: it is still there after SIGKILL")
    if w.pool.status == STOPPING:
        pools.vacated(m, w, now, 0.5)
    else:
        kill(m, w, now)


def kill_drain(m: Master, w: Worker, now: float, reason: str) -> None:
    """It is on its way out already; while the master stops, its time is the stop's."""
    if w.outcome is None and not w.reason:
        w.reason = reason
        w.pool.leaving += 1
    elif w.killed:
        m.arm(w, now + KILL_PATIENCE)


def hurry(m: Master, w: Worker, now: float, _: None) -> None:
    """The master quits: the stop signal now, SIGKILL soon."""
    if w.state in (STARTING, READY):
        w.reason = "shutdown"
        w.pool.leaving += 1
        m.enter(w, DRAINING)
    w.stop_deadline = min(w.stop_deadline, now + QUIT_GRACE)
    if w.signalled:
        m.arm(w, w.stop_deadline)
    else:
        send_stop(m, w)


def kill_hurry(m: Master, w: Worker, now: float, _: None) -> None:
    """It is being killed already; do not wait longer than the others get."""
    m.arm(w, min(w.deadline, now + QUIT_GRACE))


# -- ending --------------------------------------------------------------------------------------------------


def exited(m: Master, w: Worker, now: float, event: Exited) -> None:
    """Its main process is gone; its slot is free when its process group is, too."""
    w.outcome = event.outcome
    w.ended = now
    w.pool.live -= 1
    unchoose(m, w)
    pools.report_exit(m, w, now, event)
    if event.alone:
        pools.vacated(m, w, now, event.chance)
        return
    stopping = w.state == DRAINING
    if w.state != KILLING:
        m.enter(w, KILLING)
    w.killed = False
    m.arm(w, w.stop_deadline if stopping and w.pool.status == STOPPING else now + GROUP_GRACE)


def group_gone(m: Master, w: Worker, now: float, event: GroupGone) -> None:
    """Nothing is left of it."""
    pools.vacated(m, w, now, event.chance)


def unchoose(m: Master, w: Worker) -> None:
    """Take its own sockets out of the kernel's choice."""
    if w.chosen:
        w.chosen = False
        m.order(Select(w.serial, chosen=False))


# -- the table -----------------------------------------------------------------------------------------------


def ignore(_m: Master, _w: Worker, _now: float, _: object) -> None:
    """It may happen, and changes nothing."""


def impossible(m: Master, w: Worker, _now: float, event: object) -> None:
    """It cannot happen: a bug of ours. The worker stays as it is."""
    m.report("error", "bug", w, error=f"cannot handle {event!r} in state {w.state}: this is a bug")


TABLE: dict[tuple[str, object], Handler] = {
    (BACKOFF, DUE): spawn,
    (BACKOFF, Spawned): impossible,
    (BACKOFF, SpawnRefused): impossible,
    (BACKOFF, Executed): impossible,
    (BACKOFF, Exited): impossible,
    (BACKOFF, GroupGone): impossible,
    (BACKOFF, QueueChecked): impossible,
    (BACKOFF, DRAIN): drop,
    (BACKOFF, HURRY): drop,
    (STARTING, DUE): ready,
    (STARTING, Spawned): spawned,
    (STARTING, SpawnRefused): refused,
    (STARTING, Executed): executed,
    (STARTING, Exited): exited,
    (STARTING, GroupGone): impossible,
    (STARTING, QueueChecked): ignore,
    (STARTING, DRAIN): drain,
    (STARTING, HURRY): hurry,
    (READY, DUE): ignore,
    (READY, Spawned): impossible,
    (READY, SpawnRefused): impossible,
    (READY, Executed): impossible,
    (READY, Exited): exited,
    (READY, GroupGone): impossible,
    (READY, QueueChecked): ignore,
    (READY, DRAIN): drain,
    (READY, HURRY): hurry,
    (DRAINING, DUE): drain_due,
    (DRAINING, Spawned): impossible,
    (DRAINING, SpawnRefused): impossible,
    (DRAINING, Executed): executed_late,
    (DRAINING, Exited): exited,
    (DRAINING, GroupGone): impossible,
    (DRAINING, QueueChecked): queue_checked,
    (DRAINING, DRAIN): ignore,  # one stop signal, never a second
    (DRAINING, HURRY): hurry,
    (KILLING, DUE): kill_due,
    (KILLING, Spawned): impossible,
    (KILLING, SpawnRefused): impossible,
    (KILLING, Executed): executed_late,
    (KILLING, Exited): exited,
    (KILLING, GroupGone): group_gone,
    (KILLING, QueueChecked): ignore,
    (KILLING, DRAIN): kill_drain,
    (KILLING, HURRY): kill_hurry,
}


def happen(m: Master, w: Worker, what: object, now: float, event: object = None) -> None:
    """Look up and carry out the row for `what` in the worker's state."""
    TABLE[w.state, what](m, w, now, event)
