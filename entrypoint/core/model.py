"""Whom the core knows: workers, and pools that keep their workers told apart, so that nobody has to count them."""

# A census instead of counting: a death, a beat, a ready in a pool of 10,000 costs what it costs in one of ten. Only the
# beginning and the end of a rollout look at everybody.

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from entrypoint.core.counters import Counters
from entrypoint.core.terms import (
    ACTIVE,
    BACKOFF,
    GIVEN_UP,
    NEVER,
    READY,
    STATES,
    WAITING,
    Generation,
    Size,
    Template,
    Wish,
)
from entrypoint.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from entrypoint.config import spec
    from entrypoint.core.events import Outcome


class Worker:
    """One occupant of a slot, through one life. All times are seconds of one monotonic clock."""

    __slots__ = (
        "beat_at",
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
        "outcome",
        "place",
        "pool",
        "proven",
        "quiet_at",
        "ready_at",
        "ready_since",
        "reason",
        "restarts",
        "roster",
        "serial",
        "slot",
        "state",
        "status",
        "stop_began",
        "stop_deadline",
    )

    def __init__(self, pool: Pool, slot: int, serial: int, generation: Generation) -> None:
        self.pool = pool
        self.slot = slot
        self.serial = serial
        self.generation = generation
        self.state = BACKOFF
        self.roster: Roster | None = None  # where its pool counts it
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
        self.place = GIVEN_UP  # what becomes of its place then
        self.cause = ""  # what it did wrong, so that it has to go; counts as a death of its own
        self.outcome: Outcome | None = None  # set when the main process is gone
        self.executed = False  # its program runs
        self.proven = False  # it has shown what its pool's readiness asks for
        self.hook = ""  # the lifecycle command that runs beside it
        self.chosen = False  # the kernel may choose its own sockets
        self.beat_at = NEVER  # the latest heartbeat, or when it got ready; NEVER: it owes none
        self.status = ""  # what it says about itself

    @property
    def template(self) -> Template:
        """What it was born with."""
        return self.generation.template


class Roster:
    """A set of workers, in order of birth for whoever looks. Adding and discarding cost the same however many."""

    __slots__ = ("_latest", "_sorted", "_workers")

    def __init__(self) -> None:
        self._workers: dict[int, Worker] = {}
        self._latest = 0
        self._sorted = True

    def add(self, w: Worker) -> None:
        """Put it in; one that comes out of order is sorted in when somebody looks."""
        if w.serial >= self._latest:
            self._latest = w.serial
        elif self._workers:
            self._sorted = False
        self._workers[w.serial] = w

    def discard(self, w: Worker) -> None:
        """Take it out, if it is in."""
        self._workers.pop(w.serial, None)

    def __contains__(self, w: Worker) -> bool:
        return w.serial in self._workers

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        if not self._sorted:
            self._workers = dict(sorted(self._workers.items()))
            self._sorted = True
        return iter(self._workers.values())


class Census:
    """Those of whom the same is wished: that they stay, or that they go."""

    __slots__ = ("booting", "ending", "ready", "waiting")

    def __init__(self) -> None:
        self.waiting = Roster()  # for a process
        self.booting = Roster()
        self.ready = Roster()
        self.ending = Roster()  # on their way out, and to be replaced in their places

    def __len__(self) -> int:
        return len(self.waiting) + len(self.booting) + len(self.ready) + len(self.ending)


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
    """A pool's way to another generation: workers of all others are wished away."""

    __slots__ = ("back", "began", "generation", "progress_by", "reason")

    def __init__(self, generation: Generation, now: float, *, back: str = "") -> None:
        self.generation = generation
        self.back = bool(back)  # to the last good generation, after a failure; cannot fail itself
        self.reason = back  # why it goes back
        self.began = now
        self.progress_by = NEVER  # it has failed if nothing has moved until then


class Pool:
    """The workers of one pool, and what its restarts depend on."""

    __slots__ = (
        "after",
        "born_last",
        "completed",
        "counters",
        "counts",
        "current",
        "deadline",
        "dependents",
        "desired",
        "ended",
        "executed",
        "failure",
        "failures",
        "finished",
        "free",
        "gave_up",
        "halted",
        "handed_over",
        "is_helper",
        "is_init",
        "kept",
        "last_error",
        "limits_allow",
        "may_start",
        "name",
        "pin",
        "queue",
        "refused",
        "refused_at",
        "removed",
        "restarts",
        "revision",
        "ripening",
        "rollout",
        "sized",
        "slots",
        "spec",
        "status",
        "stop_at",
        "waits_for",
        "wanted",
        "was_ready",
        "wished",
        "wishes",
        "workers",
        "young",
    )

    def __init__(self, pool: spec.Pool, template: Template, *, is_init: bool = False, is_helper: bool = False) -> None:
        self.spec = pool  # how its workers are treated, of whatever generation
        self.name = pool.name
        self.is_init = is_init
        self.is_helper = is_helper  # a process of the master's own; stops last, and decides nothing
        self.status = WAITING
        self.current = Generation(1, template)  # the last good one
        self.wanted = template  # the one that was asked for last, whatever became of it
        self.revision = 1  # the latest number given to a generation
        self.rollout: Rollout | None = None
        # Its size: who decides, and what came of it
        self.limits_allow: int | None = None  # as many as the container's limits come to
        self.pin: int | None = None  # as many as somebody has asked for
        self.halted = False  # stopped by hand
        self.removed = False  # no longer configured
        self.finished = 0  # places whose work is done (restart policy never, on-failure)
        self.desired = self.sized = Size(pool.workers, "configuration")
        # Its workers
        self.workers: dict[int, Worker] = {}  # by serial, so in order of birth
        self.counts = dict.fromkeys(STATES, 0)
        self.kept = Census()  # who is to stay
        self.wished = Census()  # who is to go, and was not asked yet
        self.wishes: dict[Worker, Wish] = {}  # about single workers; all others in `wished` are of another generation
        self.handed_over = Roster()  # asked to go, while their successors are there
        self.ripening: dict[int, Worker] = {}  # kept and ready, but not relied on yet; by serial, as they got ready
        self.queue = Roster()  # whose turn it is to start, but too many start already
        self.may_start = NEVER  # so many more
        self.waits_for = ""  # what is in the way of its plan
        self.ended: list[tuple[Worker, float]] = []  # and not yet counted; with a random number for the jitter
        self.born_last = NEVER  # when its youngest worker was born
        self.free: list[int] = []  # heap of free slots below `slots`
        self.slots = 0  # slots ever used
        self.after: list[Pool] = []
        self.dependents: list[Pool] = []  # pools that come after this one
        # Its failures
        self.failures = 0  # failed boots in a row
        self.young: deque[Worker] = deque()  # in order of birth; may reach min_uptime and end the row
        self.deadline = NEVER  # when it is to be looked at again
        self.executed = False  # its program has been executed once
        self.was_ready = False  # all desired workers were ready once
        self.failure = ""  # why it can never be ready any more; only of one that is critical
        self.gave_up = False  # no worker is started any more
        self.completed = False  # every worker it should run has ended for good
        self.last_error = ""
        self.refused = ""  # why the kernel made no process for it the last time; empty: it did
        self.refused_at = -NEVER
        self.restarts = 0
        self.counters = Counters()
        self.stop_at = NEVER  # end of its drain delay

    @property
    def size(self) -> int:
        """How many workers it is to have now."""
        return self.sized.workers

    @property
    def target(self) -> Generation:
        """What its new workers are born with."""
        return self.current if self.rollout is None else self.rollout.generation

    @property
    def available(self) -> int:
        """How many of those that stay have been ready for so long that others may go."""
        return len(self.kept.ready) - len(self.ripening)

    def is_stale(self, w: Worker) -> bool:
        """Whether a rollout is to replace the worker."""
        return self.rollout is not None and w.generation.number != self.rollout.generation.number

    @property
    def is_ready(self) -> bool:
        """All its desired workers are ready, or it has completed."""
        return self.status == ACTIVE and not (self.failed or self.removed) and self.counts[READY] >= self.size

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


class Note(Record):
    """What a pool has to tell the master."""

    what: str
    pool: Pool
    worker: Worker | None = None  # that decided it
    status: int = 0  # its exit status
    why: str = ""


# Notes of a pool.
POOL_READY, POOL_COMPLETED, POOL_FAILED = "ready", "completed", "failed"
POOL_GAVE_UP, POOL_EMPTY, INIT_TIMED_OUT = "gave up", "empty", "init timed out"
