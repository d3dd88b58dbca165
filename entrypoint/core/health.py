"""What a worker says about itself, and what is done about one that falls silent."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from entrypoint.core import ending
from entrypoint.core.actions import Signal
from entrypoint.core.model import KILLING, NEVER, READY

if TYPE_CHECKING:
    from entrypoint.core.events import Beats, Notified, NotLive
    from entrypoint.core.model import Master, Worker

# Seconds. Heartbeats are heard, and missed, at multiples of it only, so that one wake-up does for many workers. A hang
# is noticed so much late twice: the last beat may have been heard so late, and its absence is.
BEAT_GRID = 0.02


def note(w: Worker, event: Notified) -> None:
    """Keep what is only shown."""
    if event.status is not None:
        w.status = event.status


def beaten(m: Master, event: Beats, now: float) -> None:
    """Many at once; only ready workers owe any."""
    for serial in event.serials:
        w = m.workers.get(serial)
        if w is not None and w.state == READY:
            w.beat_at = now


def heard_ready(m: Master, w: Worker, now: float, event: Notified) -> None:
    """A beat only moves a number: its deadline is looked at again when it is due."""
    if event.beat:
        w.beat_at = now
    note(w, event)
    if event.hung:
        abort(m, w, now, "heartbeat_timeout", 0.0)
    elif event.stopping:
        ending.leaves_by_itself(m, w, now)
        ending.extend(m, w, now, event)


def heard_late(_m: Master, w: Worker, _now: float, event: Notified) -> None:
    """Nothing that it says keeps it alive."""
    note(w, event)


def ready_due(m: Master, w: Worker, now: float, _: None) -> None:
    """Its heartbeat is overdue, unless it, or the master, has a reason."""
    if not w.beats:
        return
    timeout = w.template.heartbeat
    limit = max(w.beat_at, m.amnesty_at) + timeout
    if now < limit:
        m.arm(w, max(limit, ceil(limit / BEAT_GRID) * BEAT_GRID))
    else:
        abort(m, w, now, "heartbeat_timeout", timeout)


def not_live(m: Master, w: Worker, now: float, event: NotLive) -> None:
    """Its liveness probe gives it up: it is stopped like any other, and replaced."""
    m.report("error", "worker_not_live", w, error=event.error)
    ending.fault(m, w, now, "liveness", event.error)


def abort(m: Master, w: Worker, now: float, cause: str, timeout: float) -> None:
    """It hangs: the abort signal, so that it can say where, and all of its grace before SIGKILL."""
    heartbeat = w.pool.spec.heartbeat
    m.report("error", "worker_hung", w, reason=cause, timeout=timeout, signal=heartbeat.abort_signal)
    w.pool.last_error = f"{w.pool.name}/{w.slot} hung: {cause}"
    w.pool.counters.timeouts["boot" if cause == "boot_timeout" else "heartbeat"] += 1
    w.cause = cause
    w.beats = False
    ending.unchoose(m, w)
    ending.end_hook(m, w)
    m.enter(w, KILLING)
    w.stop_deadline = NEVER
    m.order(Signal(w.serial, heartbeat.abort_signal))
    m.arm(w, now + heartbeat.abort_grace)
