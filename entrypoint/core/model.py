"""The state of the core: the master, its pools, their workers, and the one heap of deadlines.

A thing that waits (worker, pool, rollout, master) stores one deadline; arming again overwrites it, and what is stale
in the heap is skipped when it comes up. So nothing ever needs to be cancelled, and no event costs more than
O(log n).
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from entrypoint.core.actions import Report
from entrypoint.core.counters import Counters
from entrypoint.record import Record

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


def address(socket: spec.Socket) -> tuple[object, ...]:
    """What makes a socket the one it is; its backlog, mode and owner can change."""
    # Any free port: every name gets one of its own.
    port = socket.port or (socket.name if socket.kind == "tcp" else 0)
    return (socket.kind, socket.host, port, socket.path, socket.fd, socket.reuse_port)


class Worker:
    """One occupant of a slot, through one life. All times are seconds of one monotonic clock."""

    __slots__ = (
        "available",
        "beat_at",
        "beats",
        "boot_deadline",
        "born",
        "cause",
        "chosen",
        "deadline",
        "ended",
        "ended_by",
        "executed",
        "generation",
        "hook",
        "killed",
        "outcome",
        "pool",
        "proven",
        "quiet_at",
        "ready_at",
        "ready_since",
        "reason",
        "restarts",
        "serial",
        "signalled",
        "slot",
        "state",
        "status",
        "stop_began",
        "stop_deadline",
        "template",
    )

    def __init__(self, pool: Pool, slot: int, serial: int, generation: int, template: Template) -> None:
        self.pool = pool
        self.slot = slot
        self.serial = serial
        self.generation = generation
        self.template = template
        self.state = BACKOFF
        self.restarts = 0  # lives before this one that nobody had asked to end
        self.deadline = NEVER
        self.born = NEVER
        self.ended = NEVER
        self.boot_deadline = NEVER
        self.ready_at = NEVER  # when being alive is proof enough
        self.ready_since = NEVER  # NEVER: it has not been ready
        self.stop_deadline = NEVER
        self.quiet_at = 0.0  # when its sockets have had time to fall silent
        self.stop_began = NEVER
        self.ended_by = ""  # the reason that its end is counted under
        self.reason = ""  # why it was asked to go; empty: nobody asked
        self.cause = ""  # what it did wrong, so that it has to go; counts as a death of its own
        self.outcome: Outcome | None = None  # set when the main process is gone and its group is not
        self.executed = False  # its program runs
        self.proven = False  # it has shown what its pool's readiness asks for
        self.available = False  # ready for so long that a rollout relies on it
        self.hook = ""  # the lifecycle command that runs beside it
        self.signalled = False  # the stop signal was sent
        self.killed = False  # SIGKILL was sent at a deadline
        self.chosen = False  # the kernel may choose its own sockets
        self.beats = False  # heartbeats are expected
        self.beat_at = NEVER  # the latest one; NEVER: none since it is ready
        self.status = ""  # what it says about itself


class Heartbeats:
    """Workers that owe a heartbeat within the same time, in the order of their last ones.

    So one deadline does for all of them, and a beat costs the same however many there are.
    """

    __slots__ = ("deadline", "name", "timeout", "workers")

    def __init__(self, timeout: float) -> None:
        self.name = "heartbeats"
        self.timeout = timeout
        self.workers: dict[int, Worker] = {}  # by serial
        self.deadline = NEVER  # not after the first one's


class Rollout:
    """The replacement of a pool's workers by those of another generation."""

    __slots__ = (
        "available",
        "back",
        "began",
        "deadline",
        "fresh",
        "generation",
        "name",
        "old",
        "pool",
        "progress_by",
        "ready",
        "reason",
        "ripening",
        "template",
        "total",
    )

    def __init__(self, pool: Pool, generation: int, template: Template, now: float, *, back: bool = False) -> None:
        self.name = pool.name
        self.pool = pool
        self.generation = generation
        self.template = template
        self.back = back  # to the last good generation, after a failure; cannot fail itself
        self.reason = ""  # why it goes back
        self.began = now
        self.deadline = NEVER
        self.progress_by = NEVER
        staying = [w for w in pool.workers.values() if not w.reason]
        self.old = {w.serial: w for w in staying if w.generation != generation}  # by birth
        self.fresh = {w.serial: w for w in staying if w.generation == generation}
        self.ready = self.available = sum(w.state == READY for w in self.fresh.values())
        for w in staying:
            w.available = w.state == READY and w.generation == generation
        self.ripening: deque[Worker] = deque()  # ready, and not yet for long enough
        self.total = len(self.old)


class Pool:
    """The workers of one pool, and what its restarts depend on."""

    __slots__ = (
        "after",
        "completed",
        "counters",
        "counts",
        "deadline",
        "dependents",
        "desired",
        "executed",
        "failure",
        "failures",
        "finished",
        "free",
        "gave_up",
        "generation",
        "halted",
        "is_helper",
        "is_init",
        "last_error",
        "leaving",
        "limit",
        "live",
        "name",
        "pinned",
        "refused",
        "refused_at",
        "removed",
        "restarts",
        "revision",
        "rollout",
        "slots",
        "spec",
        "status",
        "stop_at",
        "template",
        "wanted",
        "was_ready",
        "workers",
        "young",
    )

    def __init__(self, pool: spec.Pool, template: Template, *, is_init: bool = False, is_helper: bool = False) -> None:
        self.spec = pool  # how its workers are treated, of whatever generation
        self.name = pool.name
        self.is_init = is_init
        self.is_helper = is_helper  # a process of the master's own; stops last, and decides nothing
        self.status = WAITING
        self.generation = 1  # the last good one, of `template`
        self.template = template
        self.wanted = template  # the one that was asked for last, whatever became of it
        self.revision = 1  # the latest number given to a generation
        self.rollout: Rollout | None = None
        self.desired = pool.workers
        self.limit = pool.workers  # what the configuration and the container's limits ask for
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
        self.failure = ""  # why it can never be ready any more; only of one that is critical
        self.gave_up = False  # no worker is started any more
        self.completed = False  # every worker it should run has ended for good
        self.pinned = False  # sized by hand, not by limits
        self.halted = False  # stopped by hand
        self.removed = False  # no longer configured
        self.last_error = ""
        self.refused = ""  # why the kernel made no process for it the last time; empty: it did
        self.refused_at = -NEVER
        self.restarts = 0
        self.counters = Counters()
        self.stop_at = NEVER  # end of its drain delay

    @property
    def size(self) -> int:
        """How many workers it is to have now."""
        return 0 if self.halted or self.removed else self.desired

    @property
    def is_ready(self) -> bool:
        """All its desired workers are ready, or it has completed."""
        return self.status == ACTIVE and not self.failed and self.counts[READY] >= self.size

    @property
    def failed(self) -> bool:
        """It is critical, and gave up or had a worker that ended for good with an error."""
        return bool(self.failure)

    @property
    def lets_start(self) -> bool:
        """What comes after it may start, as far as it is concerned."""
        return self.was_ready and not self.failed

    @property
    def is_hopeless(self) -> bool:
        """It waits for what has failed, so it will never start."""
        return self.status == WAITING and any(p.failed or p.is_hopeless for p in self.after)

    @property
    def runs_to_completion(self) -> bool:
        """Its workers end for good, so that none is replaced for another reason."""
        return self.spec.restart.policy != "always"


class Master:
    """Everything the core knows."""

    __slots__ = (
        "actions",
        "amnesty_at",
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
        "phase",
        "pools",
        "refusals",
        "requested",
        "sequence",
        "serial",
        "signals",
        "sockets",
        "spec",
        "stall",
        "sweeps",
        "unheeded",
        "workers",
    )

    def __init__(self, config: spec.Spec) -> None:
        self.name = "master"
        self.spec = config
        self.phase = PHASE_STARTING
        self.deadline = NEVER
        self.deadlines: list[tuple[float, int, Worker | Pool | Heartbeats | Rollout | Master]] = []
        self.sequence = 0
        self.serial = 0
        self.actions: list[Action] = []
        self.workers: dict[int, Worker] = {}
        self.heartbeats: dict[float, Heartbeats] = {}  # by timeout
        self.pools: dict[str, Pool] = {}
        self.init: list[Pool] = []  # one-shot commands still to run or running
        self.helpers: dict[str, Pool] = {}  # processes of the master's own
        self.signals = dict(config.signals)
        self.drain_delay = config.shutdown.drain_delay
        self.sockets = {s.name: s for s in config.sockets}
        self.held_sockets = {address(s): s for s in config.sockets}  # that the shell has open
        self.refusals = 0  # spawns of workers in a row that the kernel refused
        self.held_until = 0.0  # no spawn of a worker before this
        self.stall = STALL  # seconds that deadlines may be late before the master itself is to blame
        self.amnesty_at = -NEVER  # until then nobody could have been heard
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

    def arm(self, target: Worker | Pool | Heartbeats | Rollout | Master, when: float) -> None:
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

    def due(self, now: float) -> Worker | Pool | Heartbeats | Rollout | Master | None:
        """Take the next thing whose deadline has passed."""
        if self.next_deadline() > now:
            return None
        target = heappop(self.deadlines)[2]
        target.deadline = NEVER
        return target

    # -- workers ---------------------------------------------------------------------------------------------

    def add_worker(self, pool: Pool, when: float, *, fresh: bool = False, restarts: int = 0) -> Worker:
        """Take the lowest free slot for a worker to be spawned at `when`; `fresh`: of the generation that comes."""
        if pool.free:
            slot = heappop(pool.free)
        else:
            slot = pool.slots
            pool.slots += 1
        self.serial += 1
        rollout = pool.rollout
        if rollout is not None and fresh:
            worker = Worker(pool, slot, self.serial, rollout.generation, rollout.template)
        else:
            worker = Worker(pool, slot, self.serial, pool.generation, pool.template)
        worker.restarts = restarts
        self.workers[worker.serial] = pool.workers[worker.serial] = worker
        pool.counts[BACKOFF] += 1
        if rollout is not None:
            side = rollout.fresh if worker.generation == rollout.generation else rollout.old
            side[worker.serial] = worker
        self.arm(worker, when)
        return worker

    def remove_worker(self, worker: Worker) -> None:
        """Free the worker's slot."""
        pool = worker.pool
        if worker.state == READY:
            self.enter(worker, KILLING)
        del self.workers[worker.serial], pool.workers[worker.serial]
        if worker.template.heartbeat in self.heartbeats:
            self.heartbeats[worker.template.heartbeat].workers.pop(worker.serial, None)
        pool.counts[worker.state] -= 1
        if worker.reason:
            pool.leaving -= 1
        else:
            self._forget(worker)
        worker.deadline = NEVER
        heappush(pool.free, worker.slot)

    def ask_to_go(self, worker: Worker, reason: str) -> None:
        """Count the worker as one that leaves: somebody else's matter, unlike a `cause`."""
        worker.reason = reason
        worker.pool.leaving += 1
        self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        rollout = worker.pool.rollout
        if rollout is not None:
            rollout.old.pop(worker.serial, None)
            rollout.fresh.pop(worker.serial, None)

    def enter(self, worker: Worker, state: str) -> None:
        """Move the worker to another state."""
        counts = worker.pool.counts
        counts[worker.state] -= 1
        counts[state] += 1
        rollout = worker.pool.rollout
        if rollout is not None and worker.generation == rollout.generation and READY in (state, worker.state):
            rollout.ready += 1 if state == READY else -1
            if worker.available and state != READY:
                rollout.available -= 1
        if state != READY:
            worker.available = False
        worker.state = state

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
