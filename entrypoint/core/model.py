"""The state of the core: the master, its pools, their workers, and the one heap of deadlines.

A thing that waits (worker, pool, master) stores one deadline; arming again overwrites it, and what is stale in
the heap is skipped when it comes up. So nothing ever needs to be cancelled, and no event costs more than
O(log n).
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from entrypoint.core.actions import Report

if TYPE_CHECKING:
    from typing import Any

    from entrypoint.config import spec
    from entrypoint.core.actions import Action
    from entrypoint.core.events import Outcome

NEVER = float("inf")

# States of a worker. `backoff`: a slot that waits for its next life; the others have a process.
BACKOFF, STARTING, READY, DRAINING, KILLING = "backoff", "starting", "ready", "draining", "killing"
STATES = (BACKOFF, STARTING, READY, DRAINING, KILLING)

# Statuses of a pool. `waiting`: for the pools it comes after; `closed`: stopped with no worker left.
WAITING, ACTIVE, STOPPING, CLOSED = "waiting", "active", "stopping", "closed"

# Phases of the master; `sweeping` is shown as part of `stopping`.
PHASE_STARTING, PHASE_RUNNING, PHASE_DRAINING = "starting", "running", "draining"
PHASE_STOPPING, PHASE_SWEEPING, PHASE_EXITED = "stopping", "sweeping", "exited"

HUP, INT, QUIT, KILL, USR1, USR2, TERM = 1, 2, 3, 9, 10, 12, 15
CHLD, TTIN, TTOU, WINCH = 17, 21, 22, 28


class Worker:
    """One occupant of a slot, through one life. All times are seconds of one monotonic clock."""

    __slots__ = (
        "born",
        "chosen",
        "deadline",
        "ended",
        "generation",
        "killed",
        "outcome",
        "pool",
        "reason",
        "serial",
        "signalled",
        "slot",
        "state",
        "stop_deadline",
    )

    def __init__(self, pool: Pool, slot: int, serial: int) -> None:
        self.pool = pool
        self.slot = slot
        self.serial = serial
        self.generation = pool.generation
        self.state = BACKOFF
        self.deadline = NEVER
        self.born = NEVER
        self.ended = NEVER
        self.stop_deadline = NEVER
        self.reason = ""  # why it was asked to go; empty: nobody asked
        self.outcome: Outcome | None = None  # set when the main process is gone and its group is not
        self.signalled = False  # the stop signal was sent
        self.killed = False  # SIGKILL was sent at a deadline
        self.chosen = False  # the kernel may choose its own sockets


class Pool:
    """The workers of one pool, and what its restarts depend on."""

    __slots__ = (
        "after",
        "completed",
        "counts",
        "deadline",
        "dependents",
        "desired",
        "executed",
        "failed",
        "failures",
        "finished",
        "free",
        "generation",
        "is_init",
        "last_error",
        "leaving",
        "live",
        "name",
        "pinned",
        "restarts",
        "slots",
        "spec",
        "status",
        "stop_at",
        "was_ready",
        "workers",
        "young",
    )

    def __init__(self, pool: spec.Pool, *, is_init: bool = False) -> None:
        self.spec = pool
        self.name = pool.name
        self.is_init = is_init
        self.status = WAITING
        self.generation = 1
        self.desired = pool.workers
        self.workers: dict[int, Worker] = {}  # by serial, so in order of birth
        self.counts = dict.fromkeys(STATES, 0)
        self.leaving = 0  # workers that were asked to go
        self.live = 0  # workers that have a process
        self.free: list[int] = []  # heap of free slots below `slots`
        self.slots = 0  # slots ever used
        self.after: list[Pool] = []
        self.dependents: list[Pool] = []  # pools that come after this one
        self.failures = 0  # failed boots in a row
        self.young: deque[Worker] = deque()  # in order of birth; may reach min_uptime and end the row
        self.deadline = NEVER  # when the first of `young` reaches min_uptime
        self.executed = False  # its program has been executed once
        self.was_ready = False  # all desired workers were ready once
        self.finished = 0  # slots completed (restart policy never, on-failure)
        self.failed = False  # gave up
        self.completed = False  # every worker it should run has ended for good
        self.pinned = False  # sized by hand, not by limits
        self.last_error = ""
        self.restarts = 0
        self.stop_at = NEVER  # end of its drain delay

    @property
    def is_ready(self) -> bool:
        """All its desired workers are ready, or it has completed."""
        return self.status == ACTIVE and self.counts[READY] >= self.desired


class Master:
    """Everything the core knows."""

    __slots__ = (
        "actions",
        "asked_at",
        "deadline",
        "deadlines",
        "drain_delay",
        "exit_code",
        "exit_fields",
        "exit_reason",
        "first_error",
        "forward_all",
        "held_signals",
        "held_until",
        "init",
        "interrupted",
        "killed",
        "name",
        "phase",
        "pools",
        "refusals",
        "requested",
        "sequence",
        "serial",
        "signals",
        "sockets",
        "sweeps",
        "workers",
    )

    def __init__(self, config: spec.Spec) -> None:
        self.name = "master"
        self.phase = PHASE_STARTING
        self.deadline = NEVER
        self.deadlines: list[tuple[float, int, Worker | Pool | Master]] = []
        self.sequence = 0
        self.serial = 0
        self.actions: list[Action] = []
        self.workers: dict[int, Worker] = {}
        self.pools: dict[str, Pool] = {}
        self.init: list[Pool] = []  # one-shot commands still to run or running
        self.signals = dict(config.signals)
        self.drain_delay = config.shutdown.drain_delay
        self.sockets = {s.name: s for s in config.sockets}
        self.refusals = 0  # spawns in a row that the kernel refused
        self.held_until = 0.0  # no spawn before this
        self.requested = False  # somebody asked for the stop
        self.interrupted = False  # by INT, once
        self.asked_at = NEVER  # the first TERM or INT
        self.killed = False  # a worker was SIGKILLed at its stop deadline
        self.first_error = 0  # first non-zero status of a worker of a critical pool that runs to completion
        self.exit_code = 0  # decided by a failure; 0: decided at the end
        self.exit_reason = ""
        self.exit_fields: dict[str, Any] = {}
        self.forward_all = any(p.foreground for p in config.pools)  # init mode
        self.held_signals: list[int] = []  # to forward once the worker exists
        self.sweeps = 0

    # -- deadlines -------------------------------------------------------------------------------------------

    def arm(self, target: Worker | Pool | Master, when: float) -> None:
        """Give `target` its one deadline."""
        if when == target.deadline:
            return
        target.deadline = when
        if when != NEVER:
            self.sequence += 1
            heappush(self.deadlines, (when, self.sequence, target))

    def next_deadline(self) -> float:
        """The earliest deadline, or `NEVER`."""
        heap = self.deadlines
        while heap and heap[0][2].deadline != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else NEVER

    def due(self, now: float) -> Worker | Pool | Master | None:
        """Take the next thing whose deadline has passed."""
        if self.next_deadline() > now:
            return None
        target = heappop(self.deadlines)[2]
        target.deadline = NEVER
        return target

    # -- workers ---------------------------------------------------------------------------------------------

    def add_worker(self, pool: Pool, when: float) -> Worker:
        """Take the lowest free slot of `pool` for a worker to be spawned at `when`."""
        if pool.free:
            slot = heappop(pool.free)
        else:
            slot = pool.slots
            pool.slots += 1
        self.serial += 1
        worker = Worker(pool, slot, self.serial)
        self.workers[worker.serial] = pool.workers[worker.serial] = worker
        pool.counts[BACKOFF] += 1
        self.arm(worker, when)
        return worker

    def remove_worker(self, worker: Worker) -> None:
        """Free the worker's slot."""
        pool = worker.pool
        del self.workers[worker.serial], pool.workers[worker.serial]
        pool.counts[worker.state] -= 1
        if worker.reason:
            pool.leaving -= 1
        worker.deadline = NEVER
        heappush(pool.free, worker.slot)

    def enter(self, worker: Worker, state: str) -> None:
        """Move the worker to another state."""
        counts = worker.pool.counts
        counts[worker.state] -= 1
        counts[state] += 1
        worker.state = state

    # -- orders ----------------------------------------------------------------------------------------------

    def order(self, action: Action) -> None:
        """Give the shell an order; orders are carried out in the order they were given."""
        self.actions.append(action)

    def report(self, level: str, event: str, about: Worker | Pool | None = None, **fields: Any) -> None:
        """Give the shell a line for the log."""
        if isinstance(about, Worker):
            self.order(Report(level, event, about.pool.name, about.slot, about.serial, fields))
        else:
            self.order(Report(level, event, about.name if about is not None else "", None, 0, fields))
