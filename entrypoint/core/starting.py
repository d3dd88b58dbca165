"""From a free slot to a worker that is able to work."""

# A refused fork is a fact, `SpawnRefused`: no failed boot, and no worker at all for the backoff. The master's own
# processes do not wait for that. They go before the next worker whose turn it is (`claim` in `step`): nobody could say
# what is the matter without them, and a kubelet would restart a container that works as well as it can.

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import ending, health
from entrypoint.core.actions import Inspect, RunHook, Select, Signal, Spawn
from entrypoint.core.terms import BACKOFF, HELD, NEVER, READY, SPAWNING, STARTING

if TYPE_CHECKING:
    from entrypoint.core.events import Executed, HookEnded, Notified, NotVisible, Proved, Spawned, SpawnRefused
    from entrypoint.core.model import Worker
    from entrypoint.core.state import Master


def spawn(m: Master, w: Worker, now: float, _: None) -> None:
    """Its backoff is over."""
    pool = w.pool
    if not pool.is_helper and now < (until := held_until(m)):
        m.arm(w, until)
        return
    if pool.may_start < 1:  # too many start already: its pool says when
        pool.queue.add(w)
        m.touch(pool)
        return
    m.enter(w, SPAWNING)
    m.order(Spawn(w.serial, pool.name, w.slot, w.generation.number, w.template))


def held_until(m: Master) -> float:
    """No worker is spawned before: the kernel refused one a moment ago, so it is asked again only then.

    Meanwhile a helper may have ended. What it has left free is for its successor, whose own pause is short.
    """
    until = m.held_until
    if m.refusals:
        for pool in m.helpers.values():
            if pool.counts[BACKOFF] and not pool.refused:
                until = max(until, *(w.deadline for w in pool.workers.values()))
    return until


def spawned(m: Master, w: Worker, now: float, _: Spawned) -> None:
    """It has a process, and so much time to get ready."""
    pool = w.pool
    w.born = pool.born_last = now
    pool.counters.spawns += 1
    pool.refused = ""
    if not pool.is_helper:
        m.refusals = 0
    m.enter(w, STARTING)
    timeout = pool.spec.boot_timeout
    w.boot_deadline = now + timeout if timeout else NEVER
    m.arm(w, w.boot_deadline)
    if pool.spec.ready.when == "alive":
        m.watch_uptime(w)
    for signum in m.held_signals:
        m.order(Signal(w.serial, signum))
    m.held_signals.clear()
    m.report("info", "worker_started", w)
    if w.reason:  # it was asked to go meanwhile
        ending.begin_stop(m, w, now)


def refused(m: Master, w: Worker, now: float, event: SpawnRefused) -> None:
    """The kernel made no process: no failed boot, but all workers wait; helpers do not wait for workers."""
    pool = w.pool
    backoff = pool.spec.restart.backoff
    level = "error"
    if pool.is_helper:
        delay = backoff.max
        level = "debug" if pool.refused == event.error else level  # told once
    else:
        m.refusals += 1
        delay = min(backoff.max, backoff.initial * backoff.factor ** min(m.refusals - 1, 64))
        m.held_until = now + delay
    pool.last_error = pool.refused = event.error
    pool.refused_at = now
    m.report(level, "spawn_refused", w, error=event.error, retry_in=round(delay, 3))
    m.enter(w, BACKOFF)
    if w.reason:
        m.remove_worker(w)
    else:
        m.arm(w, now + delay)


def executed(m: Master, w: Worker, now: float, _: Executed) -> None:
    """Its program runs; now it has to show that it can work."""
    spec = w.pool.spec
    w.executed = w.pool.executed = True
    if spec.lifecycle.post_start is not None:
        w.hook = "post_start"
        m.order(RunHook(w.serial, "post_start", spec.lifecycle.post_start))
    if spec.ready.when == "alive":
        choose(m, w)
        w.ready_at = w.born + spec.ready.after
        starting_due(m, w, now, None)
        return
    if spec.ready.when in ("accepting", "probe"):
        m.order(Inspect(w.serial, "ready", spec.ready.probe))
    try_ready(m, w, now)


def executed_late(_m: Master, w: Worker, _now: float, _: Executed) -> None:
    """Its program runs, but it was asked to go already."""
    w.executed = w.pool.executed = True


def proved(m: Master, w: Worker, now: float, _: Proved) -> None:
    """Seen from outside, it is able to work."""
    w.proven = True
    try_ready(m, w, now)


def not_visible(m: Master, w: Worker, now: float, event: NotVisible) -> None:
    """It cannot be seen from outside: being alive for a while has to do."""
    after = w.pool.spec.ready.after
    m.report("warning", "worker_not_visible", w, error=event.error, ready_after=after)
    w.ready_at = w.born + after
    starting_due(m, w, now, None)


def heard_starting(m: Master, w: Worker, now: float, event: Notified) -> None:
    """It speaks before it is ready."""
    health.keep_status(w, event)
    if event.extend:
        w.boot_deadline = min(max(w.boot_deadline, now + event.extend), m.ends_by)
    if event.ready and w.pool.spec.ready.when == "notify":
        w.proven = True
        if try_ready(m, w, now):
            if event.hung or event.stopping:
                health.heard_ready(m, w, now, event._replace(ready=False))
            return
    if event.hung:
        health.abort(m, w, now, "heartbeat_timeout", 0.0)
    else:
        wait(m, w)


def started_hook_ended(m: Master, w: Worker, now: float, event: HookEnded) -> None:
    """Its post_start command is done, or has failed, and the boot with it."""
    if event.hook != w.hook:
        return
    w.hook = ""
    if event.error:
        m.report("error", "hook_failed", w, hook=event.hook, error=event.error)
        ending.fault(m, w, now, "error", event.error)
    else:
        try_ready(m, w, now)


def starting_due(m: Master, w: Worker, now: float, _: None) -> None:
    """It has been alive for long enough, or has not got ready in time."""
    if now >= w.ready_at:
        w.proven = True
        if try_ready(m, w, now):
            return
    timeout = w.pool.spec.boot_timeout
    if now < max(w.boot_deadline, m.resumed_at + timeout):
        w.boot_deadline = max(w.boot_deadline, m.resumed_at + timeout)
        wait(m, w)
    elif w.pool.is_init:
        m.report("error", "init_timeout", w, timeout=timeout)
        w.cause, w.place = "boot_timeout", HELD
        ending.drain(m, w, now, "boot_timeout")
    else:
        health.abort(m, w, now, "boot_timeout", timeout)


def wait(m: Master, w: Worker) -> None:
    """Look again when being alive is proof enough, or the boot is over."""
    m.arm(w, w.boot_deadline if w.proven else min(w.ready_at, w.boot_deadline))


def try_ready(m: Master, w: Worker, now: float) -> bool:
    """It is ready once its program runs, has proved able to work, and no post_start command is busy."""
    if not (w.proven and w.executed) or w.hook:
        return False
    spec, template = w.pool.spec, w.template
    w.ready_since = now
    m.enter(w, READY)
    w.pool.counters.boot.observe(now - w.born)
    m.arm(w, NEVER)
    choose(m, w)
    if template.heartbeat:
        health.expect_beats(m, w, now)
    if spec.liveness is not None:
        m.order(Inspect(w.serial, "live", spec.liveness))
    m.report("info", "worker_ready", w, duration=round(now - w.born, 3))
    if spec.ready.when != "alive":
        m.watch_uptime(w)
    return True


def choose(m: Master, w: Worker) -> None:
    """Let the kernel choose its own sockets for new connections, if it has any."""
    if not w.chosen and any(s.reuse_port for s in w.template.sockets):
        w.chosen = True
        m.order(Select(w.serial, chosen=True))
