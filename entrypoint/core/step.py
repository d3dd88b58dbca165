"""The one way into the core: a fact goes in, orders come out.

First the fact itself: the row of a worker, a signal, a request. Then what was touched by it is settled.
"""

# Rows first, then one plan. A row that called its pool, which called the rollout, which made things happen to other
# workers in the middle of the first one's row, could only be understood with eight files in mind; and each reason to
# leave would have added calls in all of them.

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.config.spec import Backoff, Ready, Restart, Stop
from entrypoint.config.spec import Pool as PoolSpec
from entrypoint.core import asked, health, phases, reload, shutdown, worker
from entrypoint.core.actions import Reload, Signal
from entrypoint.core.events import (
    Asked,
    Beats,
    Childless,
    Event,
    HelperWanted,
    LimitsRead,
    SignalReceived,
    SpecChanged,
    SpecRejected,
    Stalled,
    Started,
    Ticked,
)
from entrypoint.core.model import Heartbeats, Pool, Worker
from entrypoint.core.settle import settle
from entrypoint.core.state import Master
from entrypoint.core.terms import (
    AT_WORK,
    BACKOFF,
    HUP,
    INT,
    NEVER,
    PHASE_DRAINING,
    PHASE_STOPPING,
    QUIT,
    SPAWNING,
    TERM,
    TTIN,
    TTOU,
    USR1,
    USR2,
    Template,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from entrypoint.config.spec import Init, Process, Spec
    from entrypoint.core.actions import Action

INIT_STOP_TIMEOUT = 10.0  # what an init command gets between TERM and SIGKILL

SIGNALS = {  # what the master does about a signal that the configuration does not map
    TERM: "shutdown",
    INT: "interrupt",
    QUIT: "quit",
    HUP: "restart",
    TTIN: "scale_up",
    TTOU: "scale_down",
    USR1: "forward",
    USR2: "forward",
}


CLAIM_PAUSE = 0.1  # seconds after a refusal in which workers have their turn all the same
HELPER_BACKOFF = Backoff(initial=0.1, max=1.0)  # for one that does not live for `max`; others are started at once


def new_master(spec: Spec) -> Master:
    """The state before anything has happened."""
    m = Master(spec)
    for p in spec.pools:
        m.pools[p.name] = Pool(p, reload.template(m, p))
    reload.link(m)
    m.init = [init_pool(i) for i in spec.init]
    return m


def init_pool(init: Init) -> Pool:
    """An init command is a pool of one worker that runs once; its time to get ready is its timeout."""
    return Pool(
        PoolSpec(
            name=f"init:{init.name}",
            process=init.process,
            ready=Ready(when="exit"),
            boot_timeout=init.timeout,
            restart=Restart(policy="never", min_uptime=0.0, backoff=Backoff()),
            stop=Stop(timeout=INIT_STOP_TIMEOUT),
        ),
        Template(init.process),
        is_init=True,
    )


def helper_pool(name: str, process: Process, stop_timeout: float) -> Pool:
    """A process of the master's own is a pool of one worker that decides nothing and stops last."""
    return Pool(
        PoolSpec(
            name=name,
            process=process,
            critical=False,
            ready=Ready(after=0.0),
            boot_timeout=0.0,
            restart=Restart(min_uptime=0.0, give_up_after=0, backoff=HELPER_BACKOFF),
            stop=Stop(timeout=stop_timeout),
        ),
        Template(process),
        is_helper=True,
    )


def step(m: Master, event: Event, now: float) -> list[Action]:
    """Tell the core a fact. `now` is monotonic time in seconds, never less than before.

    Returns the orders that follow from it, to be carried out in this order.
    """
    about = getattr(event, "serial", None)
    if about is None:
        _WHOLE[type(event)](m, event, now)
    elif about in m.workers:  # else: told about one that is gone, or was given up as unkillable
        worker.dispatch(m, m.workers[about], type(event), now, event)
    settle(m, now)
    actions, m.actions = m.actions, []
    return actions


def helper_wanted(m: Master, event: HelperWanted, _now: float) -> None:
    """Start a process of the master's own, unless it is there or not worth it any more."""
    if event.name not in m.helpers and m.phase in AT_WORK:
        m.helpers[event.name] = helper_pool(event.name, event.process, event.stop_timeout)
        phases.start(m, m.helpers[event.name])


def tick(m: Master, _event: Ticked, now: float) -> None:
    """Handle what is due, up to one spawn: a spawn takes the shell a millisecond, and a TERM must not wait."""
    while (target := claim(m, now) or m.take_due(now)) is not None:
        if isinstance(target, Worker):
            worker.dispatch(m, target, worker.DUE, now)
            if target.state == SPAWNING:
                return
        elif isinstance(target, Pool):
            m.touch(target)
        elif isinstance(target, Heartbeats):
            for w in health.take_silent(m, target, now):
                worker.dispatch(m, w, worker.SILENT, now)
        else:
            shutdown.next_pass(m, now)


def claim(m: Master, now: float) -> Worker | None:
    """Take the process of the master's own that goes before the worker whose turn to be spawned it is, if one does.

    One that the kernel has refused need not wait for its own turn: what a worker could have is the helper's.
    """
    waiting = [w for pool in m.helpers.values() if pool.counts[BACKOFF] for w in pool.workers.values()]
    if not waiting or m.next_deadline() > now:
        return None
    upcoming = m.deadlines[0][2]
    if not isinstance(upcoming, Worker) or upcoming.state != BACKOFF or now < m.held_until:
        return None
    for helper in waiting:
        if helper.deadline <= now or (helper.pool.refused and now >= helper.pool.refused_at + CLAIM_PAUSE):
            m.arm(helper, NEVER)
            return helper
    return None


def limits_read(m: Master, event: LimitsRead, _now: float) -> None:
    """The container's limits may ask for another size."""
    pool = m.pools.get(event.pool)
    if pool is not None:
        pool.limits_allow = event.workers
        m.touch(pool)


def stalled(m: Master, event: Stalled, now: float) -> None:
    """Nobody could have been heard, or seen to be late, while the master itself did not run."""
    m.resumed_at = now
    m.report("warning", "master_stalled", seconds=round(event.seconds, 3))


def received(m: Master, event: SignalReceived, now: float) -> None:
    """The master got a signal."""
    signum = event.signum
    what = "forward" if m.forward_all else m.signals.get(signum) or SIGNALS.get(signum, "")
    if not what and not event.of_terminal and signum not in m.unheeded:
        m.unheeded.add(signum)
        m.report("warning", "signal_ignored", signal=signum)
    if what == "forward":
        forward(m, signum)
    elif what == "shutdown":
        shutdown.request(m, now, "SIGTERM" if signum == TERM else f"signal {signum}", delay=True)
    elif what == "interrupt":
        if m.interrupted and m.phase in (PHASE_DRAINING, PHASE_STOPPING):
            shutdown.quit_now(m, now)
        else:
            m.interrupted = True
            shutdown.request(m, now, "SIGINT", delay=False)
    elif what == "quit":
        shutdown.quit_now(m, now)
    elif what in ("scale_up", "scale_down"):
        first = next(iter(m.pools.values()))
        first.pin = max(1, first.desired.workers + (1 if what == "scale_up" else -1))
        m.touch(first)
    elif what in ("restart", "reload") and m.phase in AT_WORK:
        m.order(Reload(roll_all=what == "restart"))


def forward(m: Master, signum: int) -> None:
    """Pass a signal on to the main process of every worker."""
    told = False
    for w in m.workers.values():
        if not w.pool.is_helper and w.born != NEVER and w.outcome is None:
            m.order(Signal(w.serial, signum))
            told = True
    if not told and m.forward_all:
        m.held_signals.append(signum)


_WHOLE: dict[type, Callable[[Master, Any, float], None]] = {
    Started: lambda m, _event, _now: phases.start_next(m),
    HelperWanted: helper_wanted,
    Ticked: tick,
    SignalReceived: received,
    Beats: health.beaten,
    Stalled: stalled,
    SpecChanged: reload.changed,
    SpecRejected: lambda m, event, _now: reload.rejected(m, event),
    Asked: asked.asked,
    LimitsRead: limits_read,
    Childless: lambda m, _event, _now: shutdown.childless(m),
}
