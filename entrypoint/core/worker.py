"""The life of a worker: every state crossed with everything that can happen to it.

`TABLE` is total: each pair is written down, also those that change nothing and those that cannot be. A pair that
cannot be leaves the worker untouched and is reported as a bug; the master goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core.ending import (
    drain,
    drain_again,
    drain_due,
    drop,
    exited,
    group_gone,
    heard_draining,
    hurry,
    kill_drain,
    kill_due,
    kill_hurry,
    queue_checked,
    stop_hook_ended,
)
from entrypoint.core.events import (
    Executed,
    Exited,
    GroupGone,
    Hidden,
    HookEnded,
    Notified,
    NotLive,
    Proved,
    QueueChecked,
    Spawned,
    SpawnRefused,
)
from entrypoint.core.health import heard_late, heard_ready, not_live, ready_due
from entrypoint.core.model import BACKOFF, DRAINING, KILLING, READY, STARTING
from entrypoint.core.starting import (
    executed,
    executed_late,
    heard_starting,
    hidden,
    proved,
    refused,
    spawn,
    spawned,
    started_hook_ended,
    starting_due,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from entrypoint.core.model import Master, Worker

    Handler = Callable[[Master, Worker, float, Any], None]

# What can happen to a worker besides the events that name it.
DUE = "due"  # its deadline passed
DRAIN = "drain"  # it is asked to go; the argument is the reason
HURRY = "hurry"  # the master quits


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
    (BACKOFF, Notified): impossible,
    (BACKOFF, Proved): ignore,
    (BACKOFF, Hidden): ignore,
    (BACKOFF, NotLive): ignore,
    (BACKOFF, HookEnded): impossible,
    (BACKOFF, Exited): impossible,
    (BACKOFF, GroupGone): impossible,
    (BACKOFF, QueueChecked): impossible,
    (BACKOFF, DRAIN): drop,
    (BACKOFF, HURRY): drop,
    (STARTING, DUE): starting_due,
    (STARTING, Spawned): spawned,
    (STARTING, SpawnRefused): refused,
    (STARTING, Executed): executed,
    (STARTING, Notified): heard_starting,
    (STARTING, Proved): proved,
    (STARTING, Hidden): hidden,
    (STARTING, NotLive): ignore,
    (STARTING, HookEnded): started_hook_ended,
    (STARTING, Exited): exited,
    (STARTING, GroupGone): impossible,
    (STARTING, QueueChecked): ignore,
    (STARTING, DRAIN): drain,
    (STARTING, HURRY): hurry,
    (READY, DUE): ready_due,
    (READY, Spawned): impossible,
    (READY, SpawnRefused): impossible,
    (READY, Executed): impossible,
    (READY, Notified): heard_ready,
    (READY, Proved): ignore,
    (READY, Hidden): ignore,
    (READY, NotLive): not_live,
    (READY, HookEnded): ignore,
    (READY, Exited): exited,
    (READY, GroupGone): impossible,
    (READY, QueueChecked): ignore,
    (READY, DRAIN): drain,
    (READY, HURRY): hurry,
    (DRAINING, DUE): drain_due,
    (DRAINING, Spawned): impossible,
    (DRAINING, SpawnRefused): impossible,
    (DRAINING, Executed): executed_late,
    (DRAINING, Notified): heard_draining,
    (DRAINING, Proved): ignore,
    (DRAINING, Hidden): ignore,
    (DRAINING, NotLive): ignore,
    (DRAINING, HookEnded): stop_hook_ended,
    (DRAINING, Exited): exited,
    (DRAINING, GroupGone): impossible,
    (DRAINING, QueueChecked): queue_checked,
    (DRAINING, DRAIN): drain_again,
    (DRAINING, HURRY): hurry,
    (KILLING, DUE): kill_due,
    (KILLING, Spawned): impossible,
    (KILLING, SpawnRefused): impossible,
    (KILLING, Executed): executed_late,
    (KILLING, Notified): heard_late,
    (KILLING, Proved): ignore,
    (KILLING, Hidden): ignore,
    (KILLING, NotLive): ignore,
    (KILLING, HookEnded): ignore,
    (KILLING, Exited): exited,
    (KILLING, GroupGone): group_gone,
    (KILLING, QueueChecked): ignore,
    (KILLING, DRAIN): kill_drain,
    (KILLING, HURRY): kill_hurry,
}


def happen(m: Master, w: Worker, what: object, now: float, event: object = None) -> None:
    """Look up and carry out the row for `what` in the worker's state."""
    TABLE[w.state, what](m, w, now, event)
