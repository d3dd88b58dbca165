"""The life of a worker: every state crossed with everything that can happen to it.

`TABLE` is total: each pair is written down, also those that change nothing (`ignore`) and those that cannot be (`bug`).
A pair that cannot be leaves the worker untouched and is reported; the master goes on.

A row changes its own worker, gives orders about it, and so marks its pool as touched. It knows of nobody else.
"""

# What is to be waited for is a state. Whether the program runs, has proved itself, or has a command beside it is seen
# in any order, so those are flags: as states they would be a product.

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core.ending import (
    abort_due,
    drain,
    drain_again,
    drain_unborn,
    drop,
    exited,
    group_gone,
    heard_stopping,
    hurry,
    hurry_stop,
    hurry_unborn,
    kill_drain,
    kill_due,
    kill_hurry,
    linger_due,
    queue_checked,
    quiesce_due,
    shorten,
    stop_due,
    stop_hook_ended,
)
from entrypoint.core.events import (
    Executed,
    Exited,
    GroupGone,
    HookEnded,
    Notified,
    NotLive,
    NotVisible,
    Proved,
    QueueChecked,
    Spawned,
    SpawnRefused,
)
from entrypoint.core.health import heard_late, heard_ready, not_live, silent
from entrypoint.core.starting import (
    executed,
    executed_late,
    heard_starting,
    not_visible,
    proved,
    refused,
    spawn,
    spawned,
    started_hook_ended,
    starting_due,
)
from entrypoint.core.terms import STATES

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from entrypoint.core.model import Worker
    from entrypoint.core.state import Master

    Handler = Callable[[Master, Worker, float, Any], None]

# What can happen to a worker besides the events that name it.
DUE = "due"  # its deadline passed
SILENT = "silent"  # its heartbeat is overdue
DRAIN = "drain"  # it is asked to go; the argument is the reason
HURRY = "hurry"  # the master quits


def ignore(_m: Master, _w: Worker, _now: float, _: object) -> None:
    """It may happen, and changes nothing."""


def bug(m: Master, w: Worker, _now: float, event: object) -> None:
    """It cannot happen: a bug of ours. The worker stays as it is."""
    m.report("error", "bug", w, error=f"cannot handle {event!r} in state {w.state}: this is a bug")


# fmt: off
BEFORE: dict[object, tuple[Handler, ...]] = {  # somebody or something wants it to go
    #              backoff  spawning      starting            ready
    DUE:          (spawn,   bug,          starting_due,       bug),
    SILENT:       (bug,     bug,          bug,                silent),
    DRAIN:        (drop,    drain_unborn, drain,              drain),
    HURRY:        (drop,    hurry_unborn, hurry,              hurry),
    Spawned:      (bug,     spawned,      bug,                bug),
    SpawnRefused: (bug,     refused,      bug,                bug),
    Executed:     (bug,     bug,          executed,           bug),
    Notified:     (bug,     bug,          heard_starting,     heard_ready),
    Proved:       (ignore,  ignore,       proved,             ignore),
    NotVisible:   (ignore,  ignore,       not_visible,        ignore),
    NotLive:      (ignore,  ignore,       ignore,             not_live),
    HookEnded:    (bug,     bug,          started_hook_ended, ignore),
    QueueChecked: (bug,     bug,          ignore,             ignore),
    Exited:       (bug,     bug,          exited,             exited),
    GroupGone:    (bug,     bug,          bug,                bug),
}
AFTER: dict[object, tuple[Handler, ...]] = {
    #              quiescing        stopping        aborting       killed         lingering
    DUE:          (quiesce_due,     stop_due,       abort_due,     kill_due,      linger_due),
    SILENT:       (bug,             bug,            bug,           bug,           bug),
    DRAIN:        (drain_again,     drain_again,    shorten,       kill_drain,    shorten),
    HURRY:        (hurry,           hurry_stop,     kill_hurry,    kill_hurry,    kill_hurry),
    Spawned:      (bug,             bug,            bug,           bug,           bug),
    SpawnRefused: (bug,             bug,            bug,           bug,           bug),
    Executed:     (executed_late,   executed_late,  executed_late, executed_late, executed_late),
    Notified:     (heard_stopping,  heard_stopping, heard_late,    heard_late,    heard_late),
    Proved:       (ignore,          ignore,         ignore,        ignore,        ignore),
    NotVisible:   (ignore,          ignore,         ignore,        ignore,        ignore),
    NotLive:      (ignore,          ignore,         ignore,        ignore,        ignore),
    HookEnded:    (stop_hook_ended, ignore,         ignore,        ignore,        ignore),
    QueueChecked: (queue_checked,   ignore,         ignore,        ignore,        ignore),
    Exited:       (exited,          exited,         exited,        exited,        bug),
    GroupGone:    (bug,             bug,            bug,           group_gone,    group_gone),
}
# fmt: on

TABLE: dict[tuple[str, object], Handler] = {
    (state, what): handler
    for what, row in BEFORE.items()
    for state, handler in zip(STATES, (*row, *AFTER[what]), strict=True)
}


def dispatch(m: Master, w: Worker, what: object, now: float, event: object = None) -> None:
    """Look up and carry out the row for `what` in the worker's state."""
    TABLE[w.state, what](m, w, now, event)
