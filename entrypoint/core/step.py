"""The one way into the core: a fact goes in, orders come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.config.spec import Backoff, Ready, Restart, Stop
from entrypoint.config.spec import Pool as PoolSpec
from entrypoint.core import pool as pools
from entrypoint.core import shutdown, worker
from entrypoint.core.actions import Signal
from entrypoint.core.events import (
    Childless,
    Event,
    Resized,
    SignalReceived,
    Started,
    Ticked,
)
from entrypoint.core.model import (
    HUP,
    INT,
    NEVER,
    PHASE_DRAINING,
    PHASE_STOPPING,
    QUIT,
    STARTING,
    TERM,
    TTIN,
    TTOU,
    USR1,
    USR2,
    Master,
    Pool,
    Worker,
)

if TYPE_CHECKING:
    from entrypoint.config.spec import Init, Spec
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


def new_master(spec: Spec) -> Master:
    """The state before anything has happened."""
    m = Master(spec)
    for p in spec.pools:
        m.pools[p.name] = Pool(p)
    for pool in m.pools.values():
        for name in pool.spec.after:
            pool.after.append(m.pools[name])
            m.pools[name].dependents.append(pool)
    m.init = [init_pool(i) for i in spec.init]
    return m


def init_pool(init: Init) -> Pool:
    """An init command is a pool of one worker that runs once; its time to get ready is its timeout."""
    return Pool(
        PoolSpec(
            name=f"init:{init.name}",
            process=init.process,
            ready=Ready(after=init.timeout or NEVER),
            restart=Restart(policy="never", min_uptime=0.0, backoff=Backoff()),
            stop=Stop(timeout=INIT_STOP_TIMEOUT),
        ),
        is_init=True,
    )


def step(m: Master, event: Event, now: float) -> list[Action]:
    """Tell the core a fact. `now` is monotonic time in seconds, never less than before.

    Returns the orders that follow from it, to be carried out in this order.
    """
    if isinstance(event, Ticked):
        tick(m, now)
    elif isinstance(event, SignalReceived):
        received(m, event.signum, now)
    elif isinstance(event, Started):
        pools.start_next(m, now)
    elif isinstance(event, Childless):
        shutdown.childless(m)
    elif isinstance(event, Resized):
        pool = m.pools.get(event.pool)
        if pool is not None and not pool.pinned:
            pools.resize(m, pool, event.workers, now)
    else:
        about = m.workers.get(event.serial)
        if about is not None:  # else: told about a worker that was given up as unkillable
            worker.happen(m, about, type(event), now, event)
    actions, m.actions = m.actions, []
    return actions


def tick(m: Master, now: float) -> None:
    """Handle what is due, up to one spawn: a spawn takes the shell a millisecond, and a TERM must not wait."""
    while (target := m.due(now)) is not None:
        if isinstance(target, Worker):
            worker.happen(m, target, worker.DUE, now)
            if target.state == STARTING:
                return
        elif isinstance(target, Pool):
            pools.uptime_due(m, target, now)
        else:
            shutdown.due(m, now)


def received(m: Master, signum: int, now: float) -> None:
    """The master got a signal."""
    what = "forward" if m.forward_all else m.signals.get(signum) or SIGNALS.get(signum, "ignore")
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
        first.pinned = True
        pools.resize(m, first, max(1, first.desired + (1 if what == "scale_up" else -1)), now)
    elif what == "restart":
        m.report("warning", "signal_ignored", signal=signum, reason="restart by signal is not supported yet")


def forward(m: Master, signum: int) -> None:
    """Pass a signal on to the main process of every worker."""
    told = False
    for w in m.workers.values():
        if w.born != NEVER and w.outcome is None:
            m.order(Signal(w.serial, signum))
            told = True
    if not told and m.forward_all:
        m.held_signals.append(signum)
