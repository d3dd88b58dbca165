"""What a worker says about itself, and what is done about one that falls silent."""

# A hung worker is aborted, an unhealthy one is stopped. One that is silent cannot be asked for anything but where it
# is; one that fails a probe may still finish its work.

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import ending
from entrypoint.core.actions import Signal
from entrypoint.core.model import Heartbeats
from entrypoint.core.terms import ABORTING, NEVER
from entrypoint.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from entrypoint.core.events import Beats, Notified, NotLive
    from entrypoint.core.model import Worker
    from entrypoint.core.state import Master


def keep_status(w: Worker, event: Notified) -> None:
    """Keep what is only shown."""
    if event.status is not None:
        w.status = event.status


def expect_beats(m: Master, w: Worker, now: float) -> None:
    """From now on it owes heartbeats."""
    timeout = w.template.heartbeat
    owed = m.heartbeats.get(timeout)
    if owed is None:
        owed = m.heartbeats[timeout] = Heartbeats(timeout)
    w.beat_at = now
    owed.workers[w.serial] = w
    m.arm(owed, min(owed.deadline, now + timeout))


def beat(m: Master, w: Worker, now: float) -> None:
    """It gives a sign of life. The deadline is looked at again when it has come."""
    if w.beat_at != NEVER:
        w.beat_at = now
        workers = m.heartbeats[w.template.heartbeat].workers
        workers[w.serial] = workers.pop(w.serial)


def beaten(m: Master, event: Beats, now: float) -> None:
    """Many give a sign of life at once."""
    for serial in event.serials:
        w = m.workers.get(serial)
        if w is not None:
            beat(m, w, now)


def take_silent(m: Master, owed: Heartbeats, now: float) -> Iterator[Worker]:
    """Take out those who have been silent for too long, unless the master has a reason; wait for the next one."""
    while owed.workers:
        w = next(iter(owed.workers.values()))
        limit = max(w.beat_at, m.resumed_at) + owed.timeout
        if w.beat_at != NEVER and now < limit:
            m.arm(owed, limit)
            return
        del owed.workers[w.serial]
        if w.beat_at != NEVER:
            yield w


def silent(m: Master, w: Worker, now: float, _: None) -> None:
    """Its heartbeat is overdue."""
    abort(m, w, now, "heartbeat_timeout", w.template.heartbeat)


def heard_ready(m: Master, w: Worker, now: float, event: Notified) -> None:
    """It beats, shows what it does, calls itself hung, or says that it stops."""
    if event.beat:
        beat(m, w, now)
    keep_status(w, event)
    if event.hung:
        abort(m, w, now, "heartbeat_timeout", 0.0)
    elif event.stopping:
        ending.leaves_by_itself(m, w, now)
        ending.extend(m, w, now, event)


def heard_late(_m: Master, w: Worker, _now: float, event: Notified) -> None:
    """Nothing that it says keeps it alive."""
    keep_status(w, event)


def not_live(m: Master, w: Worker, now: float, event: NotLive) -> None:
    """Its liveness probe gives it up: it is stopped like any other, and replaced."""
    m.report("error", "worker_not_live", w, error=event.error)
    ending.fault(m, w, now, "liveness", event.error)


def abort(m: Master, w: Worker, now: float, cause: str, timeout: float) -> None:
    """It hangs: the abort signal, so that it can say where, and all of its grace before SIGKILL."""
    heartbeat = w.pool.spec.heartbeat
    m.report("error", "worker_hung", w, reason=cause, timeout=timeout, signal=heartbeat.abort_signal)
    w.pool.last_error = f"{w.pool.name}/{w.slot} hung: {cause}"
    w.pool.counters.timeouts[REASONS[cause].timeout] += 1
    w.cause = cause
    w.beat_at = NEVER
    ending.unchoose(m, w)
    ending.end_hook(m, w)
    m.enter(w, ABORTING)
    w.stop_deadline = NEVER
    m.order(Signal(w.serial, heartbeat.abort_signal, wake=True))
    m.arm(w, now + heartbeat.abort_grace)
