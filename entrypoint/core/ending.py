"""From the wish that a worker goes to the moment when nothing of it is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import pool as pools
from entrypoint.core.actions import CheckQueue, KillHook, KillTree, RunHook, Select, Signal
from entrypoint.core.model import DRAINING, KILLING, NEVER, READY, STARTING, STOPPING

if TYPE_CHECKING:
    from entrypoint.core.events import Exited, GroupGone, HookEnded, Notified, QueueChecked
    from entrypoint.core.model import Master, Worker

GROUP_GRACE = 1.0  # what a dead worker left in its process group gets between TERM and KILL
QUIT_GRACE = 1.0  # between the stop signal and SIGKILL when the master quits
QUEUE_INTERVAL = 0.05  # between two looks at the queue of a worker that is to stop
BUSY_PATIENCE = 3.0  # what a worker that never rests gets to read what it has accepted; a full queue takes about that
HELPER_GRACE = 0.8  # what the master's own processes get of the margin of a grace period
LAST_CALL = 1.0  # what pre_stop leaves to the stop signal at least
KILL_INTERVAL = 5.0  # between two SIGKILLs of a process that does not go (uninterruptible sleep)
KILL_PATIENCE = 1.0  # while stopping: after that, an unkillable process is left to the kernel


# -- asking --------------------------------------------------------------------------------------------------


def drop(m: Master, w: Worker, _now: float, _: object) -> None:
    """It has no process: the slot is free at once."""
    m.remove_worker(w)


def drain(m: Master, w: Worker, now: float, reason: str) -> None:
    """Ask it to go, once, with a deadline."""
    m.ask_to_go(w, reason)
    begin_stop(m, w, now)


def fault(m: Master, w: Worker, now: float, cause: str, error: str) -> None:
    """It has to go for what it did or failed to do: stopped as if asked to, replaced as if it had died."""
    w.cause = cause
    w.pool.last_error = f"{w.pool.name}/{w.slot}: {error}"
    begin_stop(m, w, now)


def begin_stop(m: Master, w: Worker, now: float) -> None:
    """Out of the kernel's choice, then pre_stop, then the stop signal."""
    pool, stop = w.pool, w.pool.spec.stop
    w.stop_began = now
    w.stop_deadline = NEVER if stop.timeout is None else now + stop.timeout
    if pool.is_helper:
        w.stop_deadline = min(w.stop_deadline, max(now, m.ends_by) + HELPER_GRACE)
    w.beats = False
    end_hook(m, w)
    m.enter(w, DRAINING)
    if w.chosen and pool.status != STOPPING and pool.size:  # of a whole pool nobody is left to be chosen instead
        unchoose(m, w)
        w.quiet_at = now + stop.quiesce
    if pool.spec.lifecycle.pre_stop is not None and w.executed:
        w.hook = "pre_stop"
        m.order(RunHook(w.serial, "pre_stop", pool.spec.lifecycle.pre_stop))
    if w.hook or w.quiet_at > now:
        m.arm(w, min(w.quiet_at if w.quiet_at > now else last_call(w), w.stop_deadline))
    else:
        send_stop(m, w)


def send_stop(m: Master, w: Worker) -> None:
    """Send the stop signal; what is left of the stop deadline is for the worker."""
    end_hook(m, w)
    w.signalled = True
    m.order(Signal(w.serial, w.pool.spec.stop.signal, wake=True))
    m.arm(w, w.stop_deadline)
    m.report("info", "worker_stopping", w, reason=w.reason or w.cause)


def leaves_by_itself(m: Master, w: Worker, now: float) -> None:
    """It says that it stops: it owes no heartbeat any more, has the time of a stop, and needs no stop signal."""
    timeout = w.pool.spec.stop.timeout
    w.stop_began = now
    w.beats = False
    w.signalled = True
    w.stop_deadline = NEVER if timeout is None else now + timeout
    m.enter(w, DRAINING)
    unchoose(m, w)
    m.arm(w, w.stop_deadline)
    m.report("info", "worker_stopping", w, reason="its own decision")


def drain_again(m: Master, w: Worker, _now: float, reason: str) -> None:
    """One stop signal, never a second; but from now on it is gone for somebody's reason, and not replaced."""
    if not w.reason and w.outcome is None:
        m.ask_to_go(w, reason)
    if w.stop_deadline > m.ends_by:  # it asked for more time when there was no end in sight
        w.stop_deadline = m.ends_by
        m.arm(w, min(w.deadline, w.stop_deadline if w.signalled else last_call(w)))


def hurry(m: Master, w: Worker, now: float, _: None) -> None:
    """The master quits: the stop signal now, SIGKILL soon."""
    if not w.reason:
        m.ask_to_go(w, "shutdown")
    if w.state in (STARTING, READY):
        w.beats = False
        m.enter(w, DRAINING)
    w.stop_deadline = min(w.stop_deadline, now + QUIT_GRACE)
    if w.signalled:
        m.arm(w, w.stop_deadline)
    else:
        send_stop(m, w)


# -- waiting -------------------------------------------------------------------------------------------------


def drain_due(m: Master, w: Worker, now: float, _: None) -> None:
    """Its sockets had time to fall silent, or its last call has come, or it did not go in time."""
    if w.signalled:
        overdue(m, w, now)
    elif now >= last_call(w):
        send_stop(m, w)
    elif w.hook:
        m.arm(w, last_call(w))
    else:
        m.arm(w, last_call(w))  # also if nobody can count
        m.order(CheckQueue(w.serial))


def queue_checked(m: Master, w: Worker, now: float, event: QueueChecked) -> None:
    """Stop it when nobody waits on its sockets and it has rested, or when half of its time is gone."""
    if w.signalled or w.hook:
        return
    if event.waiting:
        w.quiet_at = now
    # Under load a server accepts all that waits at once, and reads it later: it has read everything when it rests.
    if event.waiting == 0 and not (event.busy and now < w.quiet_at + BUSY_PATIENCE):
        send_stop(m, w)
    else:
        m.arm(w, min(now + QUEUE_INTERVAL, last_call(w)))


def stop_hook_ended(m: Master, w: Worker, now: float, event: HookEnded) -> None:
    """Its pre_stop command is done, well or not: the stop goes on."""
    if event.hook != w.hook:
        return
    w.hook = ""
    if event.error:
        m.report("warning", "hook_failed", w, hook=event.hook, error=event.error)
    if w.signalled:
        return
    if now < w.quiet_at:
        m.arm(w, min(w.quiet_at, w.stop_deadline))
    elif w.quiet_at:
        m.arm(w, last_call(w))
        m.order(CheckQueue(w.serial))
    else:
        send_stop(m, w)


def heard_draining(m: Master, w: Worker, now: float, event: Notified) -> None:
    """It may ask for more time."""
    if event.status is not None:
        w.status = event.status
    extend(m, w, now, event)


def extend(m: Master, w: Worker, now: float, event: Notified) -> None:
    """Move the deadline of its stop if it asks for that, though not beyond the master's own."""
    if event.extend and w.stop_deadline != NEVER:
        w.stop_deadline = max(w.stop_deadline, min(now + event.extend, m.ends_by))
        if w.signalled:
            m.arm(w, w.stop_deadline)


def last_call(w: Worker) -> float:
    """When a worker that is to stop gets its signal at the latest: half of its time is for it, or all but a second."""
    half = (w.pool.spec.stop.timeout or 0.0) / 2
    return w.stop_deadline - (min(half, LAST_CALL) if w.pool.spec.lifecycle.pre_stop is not None else half)


def end_hook(m: Master, w: Worker) -> None:
    """Its lifecycle command has had its time."""
    if w.hook:
        w.hook = ""
        m.order(KillHook(w.serial))


# -- killing -------------------------------------------------------------------------------------------------


def overdue(m: Master, w: Worker, now: float) -> None:
    """It did not go in time."""
    w.pool.counters.timeouts["stop"] += 1
    m.report("warning", "worker_killed", w, reason="stop deadline", timeout=w.pool.spec.stop.timeout)
    if w.reason == "shutdown" and w.pool.spec.critical:
        m.killed = True
    kill(m, w, now)


def kill(m: Master, w: Worker, now: float) -> None:
    """SIGKILL it and all that is left of it."""
    if w.state != KILLING:
        m.enter(w, KILLING)
    w.killed = True
    end_hook(m, w)
    m.order(KillTree(w.serial))
    m.arm(w, now + (KILL_PATIENCE if w.pool.status == STOPPING else KILL_INTERVAL))


def kill_due(m: Master, w: Worker, now: float, _: None) -> None:
    """It used up the grace of its abort, its group outlived its own, or it outlived SIGKILL."""
    if not w.killed:
        if w.outcome is None:
            m.report("warning", "worker_killed", w, reason=w.cause, timeout=w.pool.spec.heartbeat.abort_grace)
        else:
            m.report("warning", "worker_killed", w, reason="left processes")
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
        m.ask_to_go(w, reason)
    if w.killed:
        m.arm(w, now + KILL_PATIENCE)
    elif w.pool.spec.stop.timeout is not None:
        m.arm(w, min(w.deadline, now + w.pool.spec.stop.timeout))


def kill_hurry(m: Master, w: Worker, now: float, _: None) -> None:
    """It is being killed already; do not wait longer than the others get."""
    m.arm(w, min(w.deadline, now + QUIT_GRACE))


# -- the end -------------------------------------------------------------------------------------------------


def exited(m: Master, w: Worker, now: float, event: Exited) -> None:
    """Its main process is gone; its slot is free when its process group is, too.

    What is left of a worker that was to stop has the rest of its time.
    """
    w.outcome = event.outcome
    w.ended = now
    w.pool.live -= 1
    w.beats = False
    unchoose(m, w)
    end_hook(m, w)
    pools.report_exit(m, w, now, event)
    if event.alone:
        pools.vacated(m, w, now, event.chance)
        return
    stopping = w.state == DRAINING
    if w.state != KILLING:
        m.enter(w, KILLING)
    w.killed = False
    m.arm(w, w.stop_deadline if stopping else now + GROUP_GRACE)


def group_gone(m: Master, w: Worker, now: float, event: GroupGone) -> None:
    """Nothing is left of it."""
    pools.vacated(m, w, now, event.chance)


def unchoose(m: Master, w: Worker) -> None:
    """Take its own sockets out of the kernel's choice."""
    if w.chosen:
        w.chosen = False
        m.order(Select(w.serial, chosen=False))
