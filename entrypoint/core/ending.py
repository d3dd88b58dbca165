"""From the wish that a worker goes to the moment when nothing of it is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core.actions import CheckQueue, KillHook, KillTree, RunHook, Select, Signal
from entrypoint.core.terms import CLOSING, KILLED, LINGERING, NEVER, QUIESCING, STOPPING
from entrypoint.reasons import REASONS

if TYPE_CHECKING:
    from typing import Any

    from entrypoint.core.events import Exited, GroupGone, HookEnded, Notified, Outcome, QueueChecked
    from entrypoint.core.model import Worker
    from entrypoint.core.state import Master

GROUP_GRACE = 1.0  # what a dead worker left in its process group gets between TERM and KILL
QUIT_GRACE = 1.0  # between the stop signal and SIGKILL when the master quits
QUEUE_INTERVAL = 0.05  # between two looks at the queue of a worker that is to stop
BUSY_PATIENCE = 3.0  # what a worker that never rests gets to read what it has accepted; a full queue takes about that
HELPER_GRACE = 0.8  # what the master's own processes get of the margin of a grace period
LAST_CALL = 1.0  # what pre_stop leaves to the stop signal at least
KILL_INTERVAL = 5.0  # between two SIGKILLs of a process that does not go (uninterruptible sleep)
HELPER_BOOT = 60.0  # seconds in which a helper that says why it cannot run has not run, be the machine ever so slow
KILL_PATIENCE = 1.0  # while its pool closes: after that, an unkillable process is left to the kernel
DAEMON = "ended with 0 and left processes: keep it in the foreground"
LEADER = "the main process did not wait for its children: a shell is to start the program with exec"


# -- asking --------------------------------------------------------------------------------------------------


def drop(m: Master, w: Worker, _now: float, _: object) -> None:
    """It has no process: the slot is free at once."""
    m.remove_worker(w)


def drain_unborn(m: Master, w: Worker, _now: float, reason: str) -> None:
    """It goes as soon as it has a process."""
    m.ask_to_go(w, reason)


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
    w.stop_deadline = min(w.stop_deadline, NEVER if stop.timeout is None else now + stop.timeout)
    if pool.is_helper:
        w.stop_deadline = min(w.stop_deadline, max(now, m.ends_by) + HELPER_GRACE)
    w.beat_at = NEVER
    end_hook(m, w)
    if w.chosen and pool.status != CLOSING and pool.size:  # of a whole pool nobody is left to be chosen instead
        unchoose(m, w)
        w.quiet_at = now + stop.quiesce
    if pool.spec.lifecycle.pre_stop is not None and w.executed:
        w.hook = "pre_stop"
        m.order(RunHook(w.serial, "pre_stop", pool.spec.lifecycle.pre_stop))
    if w.hook or w.quiet_at > now:
        m.enter(w, QUIESCING)
        m.arm(w, min(w.quiet_at if w.quiet_at > now else last_call(w), w.stop_deadline))
    else:
        send_stop(m, w)


def send_stop(m: Master, w: Worker) -> None:
    """Send the stop signal; what is left of the stop deadline is for the worker."""
    end_hook(m, w)
    m.enter(w, STOPPING)
    m.order(Signal(w.serial, w.pool.spec.stop.signal, wake=True))
    m.arm(w, w.stop_deadline)
    m.report("info", "worker_stopping", w, reason=w.reason or w.cause)


def leaves_by_itself(m: Master, w: Worker, now: float) -> None:
    """It says that it stops: it owes no heartbeat any more, has the time of a stop, and needs no stop signal."""
    timeout = w.pool.spec.stop.timeout
    w.stop_began = now
    w.beat_at = NEVER
    w.stop_deadline = NEVER if timeout is None else now + timeout
    m.enter(w, STOPPING)
    unchoose(m, w)
    m.arm(w, w.stop_deadline)
    m.report("info", "worker_stopping", w, reason="its own decision")


def drain_again(m: Master, w: Worker, _now: float, reason: str) -> None:
    """One stop signal, never a second; but from now on it is gone for somebody's reason, and not replaced."""
    m.ask_to_go(w, reason)
    if w.stop_deadline > m.ends_by:  # it asked for more time when there was no end in sight
        w.stop_deadline = m.ends_by
        m.arm(w, min(w.deadline, w.stop_deadline if w.state == STOPPING else last_call(w)))


def hurry_unborn(m: Master, w: Worker, now: float, _: None) -> None:
    """The master quits before it has a process."""
    m.ask_to_go(w, "shutdown")
    w.stop_deadline = now + QUIT_GRACE


def hurry(m: Master, w: Worker, now: float, _: None) -> None:
    """The master quits: the stop signal now, SIGKILL soon."""
    m.ask_to_go(w, "shutdown")
    w.beat_at = NEVER
    w.stop_deadline = min(w.stop_deadline, now + QUIT_GRACE)
    send_stop(m, w)


def hurry_stop(m: Master, w: Worker, now: float, _: None) -> None:
    """The master quits, and it has its stop signal: SIGKILL soon."""
    m.ask_to_go(w, "shutdown")
    w.stop_deadline = min(w.stop_deadline, now + QUIT_GRACE)
    m.arm(w, w.stop_deadline)


# -- quiescing -----------------------------------------------------------------------------------------------


def quiesce_due(m: Master, w: Worker, now: float, _: None) -> None:
    """Its sockets had time to fall silent, or its last call has come."""
    if now >= last_call(w):
        send_stop(m, w)
        return
    m.arm(w, last_call(w))  # also if nobody can count
    if not w.hook:
        m.order(CheckQueue(w.serial))


def queue_checked(m: Master, w: Worker, now: float, event: QueueChecked) -> None:
    """Stop it when nobody waits on its sockets and it has rested, or when half of its time is gone."""
    if w.hook:
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
    if now < w.quiet_at:
        m.arm(w, min(w.quiet_at, w.stop_deadline))
    elif w.quiet_at:
        m.arm(w, last_call(w))
        m.order(CheckQueue(w.serial))
    else:
        send_stop(m, w)


def heard_stopping(m: Master, w: Worker, now: float, event: Notified) -> None:
    """It may ask for more time."""
    if event.status is not None:
        w.status = event.status
    extend(m, w, now, event)


def extend(m: Master, w: Worker, now: float, event: Notified) -> None:
    """Move the deadline of its stop if it asks for that, though not beyond the master's own."""
    if event.extend and w.stop_deadline != NEVER:
        w.stop_deadline = max(w.stop_deadline, min(now + event.extend, m.ends_by))
        if w.state == STOPPING:
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


def unchoose(m: Master, w: Worker) -> None:
    """Take its own sockets out of the kernel's choice."""
    if w.chosen:
        w.chosen = False
        m.order(Select(w.serial, chosen=False))


# -- killing -------------------------------------------------------------------------------------------------


def stop_due(m: Master, w: Worker, now: float, _: None) -> None:
    """It did not go in time."""
    w.pool.counters.timeouts["stop"] += 1
    m.report("warning", "worker_killed", w, reason="stop deadline", timeout=w.pool.spec.stop.timeout)
    if w.reason == "shutdown" and w.pool.spec.critical:
        m.killed = True
    kill(m, w, now)


def abort_due(m: Master, w: Worker, now: float, _: None) -> None:
    """It used up the grace of its abort."""
    m.report("warning", "worker_killed", w, reason=w.cause, timeout=w.pool.spec.heartbeat.abort_grace)
    kill(m, w, now)


def linger_due(m: Master, w: Worker, now: float, _: None) -> None:
    """What it left in its group has had its time."""
    m.report("warning", "worker_killed", w, reason="left processes")
    kill(m, w, now)


def kill(m: Master, w: Worker, now: float) -> None:
    """SIGKILL it and all that is left of it."""
    m.enter(w, KILLED)
    end_hook(m, w)
    m.order(KillTree(w.serial))
    m.arm(w, now + (KILL_PATIENCE if w.pool.status == CLOSING else KILL_INTERVAL))


def kill_due(m: Master, w: Worker, now: float, _: None) -> None:
    """It outlived SIGKILL."""
    m.report("error", "worker_unkillable", w, error="cannot end the process: it is still there after SIGKILL")
    if w.pool.status == CLOSING:
        m.vacate(w, 0.5)
    else:
        kill(m, w, now)


def shorten(m: Master, w: Worker, now: float, reason: str) -> None:
    """It, or what is left of it, is on its way out already: its time is now that of a stop at most."""
    m.ask_to_go(w, reason)
    if w.pool.spec.stop.timeout is not None:
        m.arm(w, min(w.deadline, now + w.pool.spec.stop.timeout))


def kill_drain(m: Master, w: Worker, now: float, reason: str) -> None:
    """It was killed already; it gets a moment more."""
    m.ask_to_go(w, reason)
    m.arm(w, now + KILL_PATIENCE)


def kill_hurry(m: Master, w: Worker, now: float, _: None) -> None:
    """It is being killed already; do not wait longer than the others get."""
    m.arm(w, min(w.deadline, now + QUIT_GRACE))


# -- the end -------------------------------------------------------------------------------------------------


def exited(m: Master, w: Worker, now: float, event: Exited) -> None:
    """Its main process is gone; its slot is free when its process group is, too.

    What is left of a worker that was to stop has the rest of its time.
    """
    stopping = w.state in (QUIESCING, STOPPING)
    w.outcome = event.outcome
    w.ended = now
    w.beat_at = NEVER
    unchoose(m, w)
    end_hook(m, w)
    count_exit(w, now, event)
    report_exit(m, w, now, event)
    if event.alone:
        m.vacate(w, event.chance)
        return
    m.enter(w, LINGERING)
    m.arm(w, w.stop_deadline if stopping else now + GROUP_GRACE)


def group_gone(m: Master, w: Worker, _now: float, event: GroupGone) -> None:
    """Nothing is left of it."""
    m.vacate(w, event.chance)


def count_exit(w: Worker, now: float, event: Exited) -> None:
    """Count the end of its main process."""
    w.ended_by = w.cause or w.reason or ("oom" if event.oom else reason_of(event.outcome))
    counters = w.pool.counters
    counters.exits[w.ended_by] += 1
    counters.cpu_seconds += event.cpu
    counters.lifetime.observe(now - w.born)
    if w.stop_began != NEVER:
        counters.stop.observe(now - w.stop_began)


def report_exit(m: Master, w: Worker, now: float, event: Exited) -> None:
    """Log the end of its main process."""
    reason, known = REASONS[w.ended_by], w.pool.last_error
    level = "info" if w.reason or reason.success else "warning"
    fields: dict[str, Any] = {"reason": reason.name, **outcome_fields(event.outcome), "uptime": round(now - w.born, 3)}
    if event.error:
        level, fields["error"] = "error", event.error
        w.pool.last_error = event.error
    elif not w.reason and not w.cause and not reason.success:
        killer = " of the OOM killer" if reason.name == "oom" else ""
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
        if reason.success and young and not w.pool.runs_to_completion:
            level, fields["error"] = "warning", DAEMON
            w.pool.last_error = f"{w.pool.name}/{w.slot} {DAEMON}"
        elif w.state in (QUIESCING, STOPPING):
            fields["hint"] = LEADER
    m.report(level, "worker_exited", w, **fields)


def reason_of(outcome: Outcome) -> str:
    """Why a worker ended that nobody asked to."""
    if outcome.signal is not None:
        return "signal"
    return "error" if outcome.code else "completed"


def outcome_fields(outcome: Outcome | None) -> dict[str, Any]:
    """The exit code or the signal, for a log line."""
    if outcome is None:
        return {}
    return {"signal": outcome.signal} if outcome.signal is not None else {"code": outcome.code}
