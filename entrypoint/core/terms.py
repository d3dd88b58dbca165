"""The words of the core: states, statuses, phases, and the small records that several parts speak in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.record import Record

if TYPE_CHECKING:
    from entrypoint.config import spec

NEVER = float("inf")

# States of a worker; in all but the first it has a process, or what that left behind.
BACKOFF = "backoff"  # a slot that waits for its next life
SPAWNING = "spawning"  # a process was ordered
STARTING = "starting"  # it boots
READY = "ready"
QUIESCING = "quiescing"  # it is to stop: no new connections, pre_stop, what it has accepted
STOPPING = "stopping"  # it got its stop signal, or said that it stops
ABORTING = "aborting"  # it hangs, and got its abort signal
KILLED = "killed"  # SIGKILL was sent to it and all that is left of it
LINGERING = "lingering"  # its main process is gone, others of its group are not
STATES = (BACKOFF, SPAWNING, STARTING, READY, QUIESCING, STOPPING, ABORTING, KILLED, LINGERING)

# The same in five words, for people and metrics.
SHOWN = {
    BACKOFF: "backoff",
    SPAWNING: "starting",
    STARTING: "starting",
    READY: "ready",
    QUIESCING: "draining",
    STOPPING: "draining",
    ABORTING: "killing",
    KILLED: "killing",
    LINGERING: "killing",
}

# What becomes of the place of a worker that was asked to go.
GIVEN_UP = "given up"  # there are too many
HANDED_OVER = "handed over"  # its successor is there
HELD = "held"  # for the successor that comes when it is gone

# Statuses of a pool. `waiting`: for the pools it comes after; `closing`: asked to stop; `closed`: no worker is left.
WAITING, ACTIVE, CLOSING, CLOSED = "waiting", "active", "closing", "closed"

# Phases of the master; `sweeping` is shown as part of `stopping`.
PHASE_STARTING, PHASE_RUNNING, PHASE_DRAINING = "starting", "running", "draining"
PHASE_STOPPING, PHASE_SWEEPING, PHASE_EXITED = "stopping", "sweeping", "exited"
AT_WORK = (PHASE_STARTING, PHASE_RUNNING)  # nobody has asked the master to end

HUP, INT, QUIT, KILL, USR1, USR2, TERM = 1, 2, 3, 9, 10, 12, 15
CHLD, TTIN, TTOU, WINCH = 17, 21, 22, 28

STALL = 5.0  # seconds; a loop that is so late was not running, whatever the heartbeats are


class Template(Record):
    """What a worker's process is born with. Another template takes another process: a rollout."""

    process: spec.Process
    sockets: tuple[spec.Socket, ...] = ()
    heartbeat: float = 0.0  # the timeout, which the worker is told
    foreground: bool = False
    output: str = "inherit"

    def same(self, other: Template) -> bool:
        """Whether a process of one is as good as one of the other."""
        mine, its = (tuple((s.name, address(s)) for s in t.sockets) for t in (self, other))
        return mine == its and self._replace(sockets=()) == other._replace(sockets=())


class Generation(Record):
    """A revision of what a pool's workers are born with."""

    number: int
    template: Template


class Wish(Record):
    """That one worker goes, for the reason of that name."""

    reason: str
    first: bool = True  # a ready successor comes first; False: it goes at once, and is replaced when it is gone
    urgency: int = 0  # of those that cannot all go, who has most of it goes first


class Size(Record):
    """How many workers a pool is to have, and who decided that."""

    workers: int
    by: str  # configuration | person | limits | halted | removed


def address(socket: spec.Socket) -> tuple[object, ...]:
    """What makes a socket the one it is; its backlog, mode and owner can change."""
    # Any free port: every name gets one of its own.
    port = socket.port or (socket.name if socket.kind == "tcp" else 0)
    return (socket.kind, socket.host, port, socket.path, socket.fd, socket.reuse_port)
