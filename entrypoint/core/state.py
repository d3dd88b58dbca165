"""The state of the core: the master, its books, and the one heap of deadlines.

A thing that waits (worker, pool, master) stores one deadline; arming again overwrites it, and what is stale in the heap
is skipped when it comes up. So nothing ever needs to be cancelled, and no event costs more than O(log n).

What changes for a worker changes its place in its pool's census and marks the pool as touched; the pool is settled at
the end of the step. What a pool has to tell the master is a note.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from entrypoint.core.actions import Report
from entrypoint.core.model import Worker
from entrypoint.core.terms import (
    BACKOFF,
    HANDED_OVER,
    HELD,
    NEVER,
    PHASE_STARTING,
    READY,
    SPAWNING,
    STALL,
    STARTING,
    Generation,
    Wish,
    address,
)

if TYPE_CHECKING:
    from typing import Any

    from entrypoint.config import spec
    from entrypoint.core.actions import Action
    from entrypoint.core.model import Heartbeats, Note, Pool, Roster


class Master:
    """Everything the core knows."""

    __slots__ = (
        "actions",
        "asked_at",
        "deadline",
        "deadlines",
        "drain_delay",
        "ends_by",
        "exit_code",
        "exit_fields",
        "exit_reason",
        "exit_serial",
        "first_error",
        "forward_all",
        "heartbeats",
        "held_signals",
        "held_sockets",
        "held_until",
        "helpers",
        "init",
        "interrupted",
        "killed",
        "name",
        "notes",
        "phase",
        "pools",
        "refusals",
        "requested",
        "resumed_at",
        "sequence",
        "serial",
        "signals",
        "sockets",
        "sockets_unused",
        "spec",
        "stall",
        "sweeps",
        "touched",
        "unheeded",
        "workers",
    )

    def __init__(self, config: spec.Spec) -> None:
        self.name = "master"
        self.spec = config
        self.phase = PHASE_STARTING
        self.deadline = NEVER
        self.deadlines: list[tuple[float, int, Worker | Pool | Heartbeats | Master]] = []
        self.sequence = 0
        self.serial = 0
        self.actions: list[Action] = []
        self.workers: dict[int, Worker] = {}
        self.touched: dict[Pool, None] = {}  # pools to be settled, in order
        self.notes: deque[Note] = deque()  # what pools have to tell
        self.heartbeats: dict[float, Heartbeats] = {}  # by timeout
        self.pools: dict[str, Pool] = {}
        self.init: list[Pool] = []  # one-shot commands still to run or running
        self.helpers: dict[str, Pool] = {}  # processes of the master's own
        self.signals = dict(config.signals)
        self.drain_delay = config.shutdown.drain_delay
        self.sockets = {s.name: s for s in config.sockets}
        self.held_sockets = {address(s): s for s in config.sockets}  # that the shell has open
        self.sockets_unused = False  # some of them may be
        self.refusals = 0  # spawns of workers in a row that the kernel refused
        self.held_until = 0.0  # no spawn of a worker before this
        self.stall = STALL  # seconds that deadlines may be late before the master itself is to blame
        self.resumed_at = -NEVER  # when the master last ran again after a stall: before that nobody could be heard
        self.requested = False  # somebody asked for the stop
        self.interrupted = False  # by INT, once
        self.asked_at = NEVER  # the first TERM or INT
        self.ends_by = NEVER  # when the last worker has to be gone, whatever it asks for
        self.killed = False  # a worker was SIGKILLed at its stop deadline
        self.first_error = 0  # first non-zero status of a worker of a critical pool that runs to completion
        self.exit_code = 0  # decided by a failure; 0: decided at the end
        self.exit_reason = ""
        self.exit_fields: dict[str, Any] = {}
        self.exit_serial = 0  # of the worker that decided it
        self.forward_all = any(p.foreground for p in config.pools)  # init mode
        self.held_signals: list[int] = []  # to forward once the worker exists
        self.sweeps = 0
        self.unheeded: set[int] = set()  # signals that mean nothing, and came

    # -- deadlines -------------------------------------------------------------------------------------------

    def arm(self, target: Worker | Pool | Heartbeats | Master, when: float) -> None:
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

    def take_due(self, now: float) -> Worker | Pool | Heartbeats | Master | None:
        """Take the next thing whose deadline has passed."""
        if self.next_deadline() > now:
            return None
        target = heappop(self.deadlines)[2]
        target.deadline = NEVER
        return target

    # -- workers ---------------------------------------------------------------------------------------------

    def add_worker(self, pool: Pool, when: float, generation: Generation, restarts: int = 0) -> Worker:
        """Take the lowest free slot for a worker to be spawned at `when`."""
        if pool.free:
            slot = heappop(pool.free)
        else:
            slot = pool.slots
            pool.slots += 1
        self.serial += 1
        worker = Worker(pool, slot, self.serial, generation)
        worker.restarts = restarts
        self.workers[worker.serial] = pool.workers[worker.serial] = worker
        pool.counts[BACKOFF] += 1
        self.enroll(worker)
        self.arm(worker, when)
        return worker

    def remove_worker(self, worker: Worker) -> None:
        """Free the worker's slot."""
        pool = worker.pool
        del self.workers[worker.serial], pool.workers[worker.serial]
        if worker.template.heartbeat in self.heartbeats:
            self.heartbeats[worker.template.heartbeat].workers.pop(worker.serial, None)
        pool.counts[worker.state] -= 1
        pool.queue.discard(worker)
        pool.wishes.pop(worker, None)
        self._move(worker, None)
        worker.deadline = NEVER
        heappush(pool.free, worker.slot)
        self.touch(pool)

    def vacate(self, worker: Worker, chance: float) -> None:
        """Nothing is left of a worker; its pool is to find out what that means. `chance` is for the jitter."""
        self.remove_worker(worker)
        worker.pool.ended.append((worker, chance))

    def enter(self, worker: Worker, state: str) -> None:
        """Move the worker to another state."""
        counts = worker.pool.counts
        counts[worker.state] -= 1
        counts[state] += 1
        worker.state = state
        self.enroll(worker)

    def ask_to_go(self, worker: Worker, reason: str) -> None:
        """Count the worker as one that leaves, unless it has left: somebody else's matter, unlike a `cause`."""
        if not worker.reason and worker.outcome is None:
            worker.reason = reason
            worker.pool.wishes.pop(worker, None)
            self.enroll(worker)

    def wish(self, worker: Worker, wish: Wish) -> None:
        """Have the worker go, when its pool finds that it can."""
        worker.pool.wishes[worker] = wish
        self.enroll(worker)
        self.touch(worker.pool)

    def watch_uptime(self, worker: Worker) -> None:
        """Remember a life as one that may reach min_uptime, and so end a row of failures."""
        pool = worker.pool
        if pool.spec.restart.min_uptime > 0:
            pool.young.append(worker)
            if pool.failures:
                self.touch(pool)

    # -- the census of a pool --------------------------------------------------------------------------------

    def touch(self, pool: Pool) -> None:
        """Have the pool settled at the end of the step."""
        self.touched[pool] = None

    def note(self, note: Note) -> None:
        """Tell the master something about a pool."""
        self.notes.append(note)

    def enroll(self, worker: Worker) -> None:
        """Count the worker where it belongs now."""
        pool = worker.pool
        roster: Roster | None
        if worker.reason:
            roster = {HELD: pool.kept.ending, HANDED_OVER: pool.handed_over}.get(worker.place)
        else:
            side = pool.wished if worker in pool.wishes or pool.is_stale(worker) else pool.kept
            if worker.state == READY:
                roster = side.ready
            elif worker.state in (SPAWNING, STARTING):
                roster = side.booting
            else:
                roster = side.waiting if worker.state == BACKOFF else side.ending
        if roster is not worker.roster:
            self._move(worker, roster)
            self.touch(pool)

    def enroll_all(self, pool: Pool) -> None:
        """Count every worker of the pool again: another generation is wanted."""
        for worker in pool.workers.values():
            self.enroll(worker)
        pool.ripening = dict(sorted(pool.ripening.items(), key=lambda item: item[1].ready_since))
        self.touch(pool)

    def _move(self, worker: Worker, roster: Roster | None) -> None:
        pool = worker.pool
        if worker.roster is not None:
            worker.roster.discard(worker)
            if worker.roster is pool.kept.ready:
                pool.ripening.pop(worker.serial, None)
        worker.roster = roster
        if roster is not None:
            roster.add(worker)
            if roster is pool.kept.ready:
                pool.ripening[worker.serial] = worker

    # -- orders ----------------------------------------------------------------------------------------------

    def order(self, action: Action) -> None:
        """Give the shell an order; orders are carried out in the order they were given."""
        self.actions.append(action)

    def report(self, level: str, event: str, about: Worker | Pool | None = None, **fields: Any) -> None:
        """Give the shell a line for the log."""
        pool = about.pool if isinstance(about, Worker) else about
        if pool is not None and pool.is_helper and level == "info":
            level = "debug"
        if isinstance(about, Worker):
            self.order(Report(level, event, about.pool.name, about.slot, about.serial, fields))
        else:
            self.order(Report(level, event, about.name if about is not None else "", None, 0, fields))
