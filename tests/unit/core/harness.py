"""A fake machine around the core: a clock that jumps, and a kernel that obeys or misbehaves, as the story asks.

    k = running(web=2)
    k.crash("web/1")
    k.advance(1)
    assert k.alive == ["web/0", "web/1"]

Orders are carried out as the shell does it: a spawn and a look at a queue are answered at once; that a program
runs, and that a process ends, is told after the orders of the current event. The kernel itself checks what must hold
in every story: nothing that is gone is signalled, no slot has two processes, the core never reports a bug.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from entrypoint.config import spec
from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.core.plan import share
from entrypoint.core.step import new_master, step
from entrypoint.core.terms import (
    ACTIVE,
    AT_WORK,
    GIVEN_UP,
    HANDED_OVER,
    HELD,
    KILL,
    READY,
    SHOWN,
    SPAWNING,
    STARTING,
    STATES,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from entrypoint.core.model import Pool, Worker

MOST_TICKS = 10_000  # at one moment; more is a core that spins
PASSED_ON = {1, 10, 12, 28}  # signals that programs here survive
PROGRAM = spec.Process(("program",), "program")


class Process:
    """A worker's main process and what is left of its group."""

    def __init__(self, order: act.Spawn, born: float) -> None:
        self.serial = order.serial
        self.pool = order.pool
        self.id = f"{order.pool}/{order.slot}"
        self.program = order.template.process.argv[0]
        self.generation = order.generation
        self.born = born
        self.hook = ""  # the lifecycle command beside it
        self.alive = True
        self.dying = False  # its end is to be told
        self.lingering = False  # the main process is gone, others of its group are not


class Record(NamedTuple):
    """An order, and when and about whom it was given."""

    at: float  # seconds since the start
    order: act.Action
    id: str = ""


def pool(name: str, workers: int = 1, **settings: Any) -> spec.Pool:
    """A pool of the configuration; fields of `stop`, `restart`, `rollout` and the like are given by their own names."""
    backoff = {k: settings.pop(k) for k in ("initial", "max", "factor", "jitter") if k in settings}
    restart = {k: settings.pop(k) for k in ("policy", "min_uptime", "give_up_after") if k in settings}
    stop = {k: settings.pop(k) for k in ("signal", "timeout", "quiesce", "delay") if k in settings}
    beat = {k: settings.pop(k) for k in ("abort_signal", "abort_grace") if k in settings}
    roll = {k: settings.pop(k) for k in ("max_surge", "max_unavailable", "min_ready", "deadline") if k in settings}
    for key in ("max_surge", "max_unavailable"):
        if isinstance(roll.get(key), int):
            roll[key] = spec.Share(roll[key])
    if "ready_after" in settings:
        settings["ready"] = spec.Ready(after=settings.pop("ready_after"))
    if "when" in settings:
        settings["ready"] = spec.Ready(when=settings.pop("when"))
    hooks = {k: spec.Command((k,), k) for k in ("pre_stop", "post_start") if settings.pop(k, False)}
    return spec.Pool(
        name,
        spec.Process((settings.pop("program", "program"),), "program"),
        workers,
        heartbeat=spec.Heartbeat(settings.pop("heartbeat", 0.0), **beat),
        rollout=spec.Rollout(**roll),
        lifecycle=spec.Lifecycle(**hooks),
        stop=spec.Stop(**stop),
        restart=spec.Restart(backoff=spec.Backoff(**backoff), **restart),
        **settings,
    )


def init(name: str, timeout: float = 0.0) -> spec.Init:
    """A one-shot command of the configuration."""
    return spec.Init(name, PROGRAM, timeout)


class Machine:
    """The core, and a kernel that carries out its orders."""

    def __init__(
        self,
        *pools: spec.Pool,
        init: Iterable[spec.Init] = (),
        sockets: Iterable[spec.Socket] = (),
        drain_delay: float = 0.0,
        signals: Iterable[tuple[int, str]] = (),
        helpers: tuple[tuple[str, spec.Process], ...] = (),
        **counts: int,
    ) -> None:
        every = (*pools, *(pool(name, workers) for name, workers in counts.items()))
        self.spec = spec.Spec(
            every, tuple(init), tuple(sockets), spec.Shutdown(drain_delay=drain_delay), signals=tuple(signals)
        )
        self.m = new_master(self.spec)
        self.helpers = helpers
        self.zero = self.clock = 1000.0
        self.records: list[Record] = []
        self.processes: dict[int, Process] = {}  # main processes and groups that are there
        self.exit: act.Exit | None = None
        self.exited_at = float("inf")
        self.ticks = 0
        # How it misbehaves. Names are pools, workers ("web/1"), or "" for everybody.
        self.refuse = ""  # why no process can be made
        self.room = float("inf")  # as many can be made; more are refused as well
        self.grudge = ""  # a pool that never gets one
        self.exec_errors: dict[str, int] = {}  # programs that cannot be executed -> exit code
        self.slow_fork: set[str] = set()  # whose process takes until `fork`
        self.slow_exec: set[str] = set()  # programs whose exec takes for ever
        self.doomed: dict[str, ev.Outcome] = {}  # programs that end as soon as they run
        self.stubborn: set[str] = set()  # ignore every signal but KILL
        self.unkillable: set[str] = set()  # ignore KILL, too
        self.litter: set[str] = set()  # leave processes in their group that ignore TERM
        self.daemons: set[str] = set()  # leave a process outside of their group
        self.on_stop = ev.Outcome(code=0)  # how the others end when told to
        self.queues: dict[str, deque[int]] = {}  # answers to CheckQueue; then 0
        self.busy: set[str] = set()  # workers that do not rest
        self.mute = False  # queues cannot be counted: there is no answer
        self.hooks: dict[str, str | None] = {}  # how lifecycle commands end, by name; None: not by themselves
        self.quick: set[str] = set()  # programs that say READY=1 as soon as they run
        self.leftovers: set[str] = set()  # descendants without a parent: "polite", "stubborn", "unkillable"
        self.chance = 0.5
        self.forks: list[act.Spawn] = []  # that were ordered and are not answered
        self._facts: deque[Callable[[], None]] = deque()
        self._depth = 0
        self._most: dict[str, int] = {}  # processes of a pool after the latest spawn

    # -- what happens ----------------------------------------------------------------------------------------

    def start(self) -> Machine:
        """The master is able to spawn."""
        self.tell(ev.Started())
        for name, process in self.helpers:
            self.tell(ev.HelperWanted(name, process))
        self.run_due()
        return self

    def tell(self, event: ev.Event) -> None:
        """Tell the core a fact, and carry out its orders."""
        self._depth += 1
        for order in step(self.m, event, self.clock):
            self._carry_out(order)
        while self._depth == 1 and self._facts and self.exit is None:  # facts that bring facts are no recursion
            self._facts.popleft()()
        self._depth -= 1

    def advance(self, seconds: float) -> None:
        """Let time pass; what is due happens when it is due."""
        end = self.clock + seconds
        while self.exit is None and (deadline := self.m.next_deadline()) <= end:
            self.clock = max(self.clock, deadline)
            self.run_due()
        self.clock = max(self.clock, end)

    def run_due(self) -> None:
        """Handle what is due now."""
        for _ in range(MOST_TICKS):
            if self.exit is not None or self.m.next_deadline() > self.clock:
                return
            self.ticks += 1
            self.tell(ev.Ticked())
        raise AssertionError("the core spins: its next deadline never lies in the future")

    def signal(self, signum: int) -> None:
        """The master gets a signal."""
        self.tell(ev.SignalReceived(signum))
        self.run_due()

    def crash(self, who: str, code: int | None = None, signal: int | None = None) -> None:
        """A worker's main process ends by itself: by KILL unless told otherwise."""
        if code is None and signal is None:
            signal = KILL
        process = self.process(who)
        process.dying = True
        self._end(process, ev.Outcome(code, signal), alone=not self._is(process, self.litter))
        self.run_due()

    def finish(self, who: str, code: int = 0) -> None:
        """A worker's main process exits by itself."""
        self.crash(who, code=code)

    def say(self, who: str, **words: Any) -> None:
        """A worker says something about itself: `k.say("web/0", ready=True)`."""
        self.tell(ev.Notified(self.process(who).serial, **words))
        self.run_due()

    def beat(self, *names: str) -> None:
        """Those workers, or all, give a sign of life."""
        for process in list(self.processes.values()):
            if process.alive and (not names or self._is(process, names)):
                self.tell(ev.Notified(process.serial, beat=True))

    def end_hook(self, who: str, error: str = "") -> None:
        """A worker's lifecycle command ends."""
        process = self.process(who)
        hook, process.hook = process.hook, ""
        assert hook, f"no command runs beside {who}"
        self.tell(ev.HookEnded(process.serial, hook, error))
        self.run_due()

    def reload(self, *pools: spec.Pool, roll_all: bool = False, **changes: Any) -> None:
        """The configuration is read again, with these pools in place of those of the same name."""
        new = {p.name: p for p in (*self.spec.pools, *pools)}
        self.spec = self.spec._replace(pools=tuple(new.values()), **changes)
        self.tell(ev.SpecChanged(self.spec, roll_all))
        self.run_due()

    def ask(self, what: str, pool: str = "", number: int | None = None, slot: int | None = None) -> str:
        """Somebody asks for something; returns the error."""
        workers, signum = (None, number or 0) if what == "signal" else (number, 0)
        self.tell(ev.Asked(1, what, pool, slot, workers, signum))
        answers = [r.order for r in self.records if isinstance(r.order, act.Answer)]
        self.run_due()
        return answers[-1].error

    def fork(self) -> None:
        """The processes that were ordered and took their time are there, or are refused."""
        while self.forks:
            self._fork(self.forks.pop(0))
        self.tell(ev.Ticked())
        self.run_due()

    def clean_up(self, who: str) -> None:
        """What was left of a worker's process group ends by itself."""
        self._group_ends(self.process(who, lingering=True))
        self.run_due()

    # -- what is seen ----------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return round(self.clock - self.zero, 6)

    @property
    def alive(self) -> list[str]:
        """The workers that have a main process."""
        return sorted(p.id for p in self.processes.values() if p.alive)

    @property
    def programs(self) -> list[str]:
        """What the living workers run."""
        return sorted(p.program for p in self.processes.values() if p.alive)

    def states(self, name: str) -> list[str]:
        """The states of a pool's workers, by slot."""
        return [SHOWN[w.state] for w in sorted(self.m.pools[name].workers.values(), key=lambda w: w.slot)]

    def worker(self, who: str) -> Worker:
        """The core's view of a worker."""
        return self.m.workers[self.process(who).serial]

    def process(self, who: str, *, lingering: bool = False) -> Process:
        """The process of a worker."""
        for process in self.processes.values():
            if process.id == who and (process.lingering if lingering else process.alive):
                return process
        raise AssertionError(f"there is no process {who}, only {self.alive}")

    def of(self, *kinds: type[act.Action]) -> list[Record]:
        """The orders of some kinds."""
        return [r for r in self.records if isinstance(r.order, kinds)]

    @property
    def orders(self) -> list[str]:
        """All orders but the lines for the log, in short: `spawn web/0`, `signal web/0 15`."""
        return [_short(r) for r in self.records if not isinstance(r.order, act.Report)]

    @property
    def spawns(self) -> list[tuple[float, str]]:
        """When which worker was spawned."""
        return [(r.at, r.id) for r in self.of(act.Spawn)]

    @property
    def signals(self) -> list[tuple[str, int]]:
        """Which worker got which signal; a tree killed counts as 9."""
        return [
            (r.id, r.order.signum if isinstance(r.order, act.Signal) else KILL)
            for r in self.of(act.Signal, act.KillTree)
        ]

    @property
    def signals_at(self) -> list[tuple[float, str, int]]:
        """The same with times."""
        return [(r.at, *s) for r, s in zip(self.of(act.Signal, act.KillTree), self.signals, strict=True)]

    def reports(self, event: str) -> list[dict[str, Any]]:
        """The fields of the log lines about an event."""
        return [r.order.fields for r in self.records if isinstance(r.order, act.Report) and r.order.event == event]

    def forget(self) -> None:
        """Begin a new page of the story."""
        self.records.clear()

    @property
    def code(self) -> int:
        """The exit code."""
        assert self.exit is not None, f"it has not exited; phase {self.m.phase}, alive {self.alive}"
        return self.exit.code

    @property
    def reason(self) -> str:
        """Why it exited."""
        assert self.exit is not None, f"it has not exited; phase {self.m.phase}, alive {self.alive}"
        return self.exit.reason

    @property
    def fields(self) -> dict[str, Any]:
        """Which worker decided the exit."""
        assert self.exit is not None, f"it has not exited; phase {self.m.phase}, alive {self.alive}"
        return self.exit.fields

    # -- what must hold in every story -----------------------------------------------------------------------

    def check(self) -> None:
        """The core's books agree with each other and with the kernel."""
        m = self.m
        in_pools: dict[int, Worker] = {}
        for p in [*m.init, *m.pools.values(), *m.helpers.values()]:
            in_pools.update(p.workers)
            workers = list(p.workers.values())
            assert p.counts == {s: sum(w.state == s for w in workers) for s in STATES}
            staying = sum(not w.reason and w.state in ("backoff", SPAWNING, STARTING, READY) for w in workers)
            if p.rollout is None and not p.wishes and m.phase in AT_WORK:
                assert staying <= p.size or p.status != ACTIVE, f"too many workers of {p.name}"
            self._check_census(p)
            slots = [w.slot for w in workers]
            assert len(slots) == len(set(slots)), f"slots of {p.name} are shared: {slots}"
            assert sorted(slots + p.free) == list(range(p.slots)), "a slot is lost"
            assert all(w.pool is p for w in workers)
        assert {s: w for s, w in m.workers.items() if not w.pool.is_init} == {
            s: w for s, w in in_pools.items() if not w.pool.is_init
        }
        ids = [p.id for p in self.processes.values()]
        if self.m.phase in ("starting", "running", "draining"):
            assert len(ids) == len(set(ids)), f"two processes in one slot: {ids}"
        if self.exit is None:
            assert m.next_deadline() > self.clock

    def _check_census(self, p: Pool) -> None:
        """Everybody is counted once, and where they belong."""
        stays = [w for w in p.workers.values() if not w.reason]
        for census, whom in (
            (p.wished, [w for w in stays if w in p.wishes or p.is_stale(w)]),
            (p.kept, [w for w in stays if not (w in p.wishes or p.is_stale(w))]),
        ):
            assert list(census.waiting) == [w for w in whom if w.state == "backoff"]
            assert list(census.booting) == [w for w in whom if w.state in (SPAWNING, STARTING)]
            assert list(census.ready) == [w for w in whom if w.state == READY]
            held = [w for w in p.workers.values() if w.reason and w.place == HELD] if census is p.kept else []
            ending = [w for w in whom if w.state not in ("backoff", SPAWNING, STARTING, READY)]
            assert sorted(w.serial for w in census.ending) == sorted(w.serial for w in (*ending, *held))
        assert list(p.handed_over) == [w for w in p.workers.values() if w.reason and w.place == HANDED_OVER]
        assert all(w in p.kept.ready for w in p.ripening.values())
        assert [*p.ended, *self.m.touched, *self.m.notes] == [], "it is not settled"

    # -- the kernel ------------------------------------------------------------------------------------------

    def _is(self, process: Process, names: Iterable[str]) -> bool:
        return bool({"", process.pool, process.id} & set(names))

    def _get(self, process: Process, table: dict[str, Any]) -> Any:
        return table.get(process.id, table.get(process.pool, table.get("")))

    def _later(self, fact: Callable[[], None]) -> None:
        self._facts.append(fact)

    def _carry_out(self, order: act.Action) -> None:
        assert self.exit is None, f"an order after the exit: {order}"
        about = self.processes.get(getattr(order, "serial", 0))
        who = about.id if about is not None else ""
        if isinstance(order, act.Report):
            assert order.event != "bug", order.fields
        if isinstance(order, act.Spawn):
            who = f"{order.pool}/{order.slot}"
        self.records.append(Record(self.now, order, who))
        match order:
            case act.Spawn():
                self._spawn(order)
            case act.Signal():
                assert about is not None, f"a signal to nobody: {order}"
                assert about.alive, f"{about.id} was reaped before {order}"
                self._signalled(about, order.signum)
            case act.KillTree():
                assert about is not None, f"nothing is left of {order}"
                self._killed(about)
            case act.CheckQueue():
                if not self.mute:
                    answers = self.queues.get(who)
                    waiting = answers.popleft() if answers else 0
                    self.tell(ev.QueueChecked(order.serial, waiting, busy=who in self.busy))
            case act.RunHook() | act.KillHook():
                self._hook(order, about)
            case act.Sweep():
                self._swept(order.signum)
            case act.Exit():
                self.exit, self.exited_at = order, self.now

    def _spawn(self, order: act.Spawn) -> None:
        assert order.serial not in self.processes
        if {order.pool, ""} & self.slow_fork:
            self.forks.append(order)
        else:
            self._fork(order)

    def _fork(self, order: act.Spawn) -> None:
        if self.refuse or len(self.processes) >= self.room or order.pool == self.grudge:
            self.tell(ev.SpawnRefused(order.serial, self.refuse or f"cannot spawn {order.pool}: no room"))
            return
        process = self.processes[order.serial] = Process(order, self.clock)
        self._check_surge(order.pool)
        self.tell(ev.Spawned(order.serial))
        if not self._is(process, self.slow_exec):
            self._later(lambda: self._exec(process))

    def _exec(self, process: Process) -> None:
        if process.dying:
            return
        code = self._get(process, self.exec_errors)
        if code is not None:
            process.dying = True
            self._end(process, ev.Outcome(code=code), error=f"cannot execute {process.pool}")
            return
        self.tell(ev.Executed(process.serial))
        if process.program in self.quick and not process.dying:
            self.tell(ev.Notified(process.serial, ready=True))
        outcome = self._get(process, self.doomed) or self.doomed.get(process.program)
        if outcome is not None and not process.dying:
            self._die(process, outcome)

    def _check_surge(self, name: str) -> None:
        """A rollout never makes more processes than size and surge, unless there were as many before."""
        p = self.m.pools.get(name)
        if p is None or p.rollout is None:
            return
        workers = [self.m.workers[process.serial] for process in self.processes.values() if process.pool == name]
        count = sum(not w.reason or w.place != GIVEN_UP for w in workers)
        if count > self._most.get(name, 0):
            assert count <= p.size + share(p.spec.rollout, p.size)[0], f"{count} processes of {name}"
        self._most[name] = count

    def _hook(self, order: act.RunHook | act.KillHook, about: Process | None) -> None:
        if isinstance(order, act.KillHook):
            if about is not None:
                about.hook = ""
            return
        assert about is not None
        assert about.alive
        assert not about.hook, f"two commands beside {about.id}"
        about.hook = order.hook
        ending = self.hooks.get(order.hook, "")
        if ending is not None:
            self._later(lambda: self._hook_ends(about, order.hook, ending))

    def _hook_ends(self, process: Process, hook: str, error: str) -> None:
        if process.hook == hook and process.alive:
            process.hook = ""
            self.tell(ev.HookEnded(process.serial, hook, error))

    def _signalled(self, process: Process, signum: int) -> None:
        if signum == KILL:
            self._killed(process)
        elif signum not in PASSED_ON and not self._is(process, self.stubborn | self.unkillable):
            self._die(process, self.on_stop)

    def _killed(self, process: Process) -> None:
        if self._is(process, self.unkillable):
            return
        if process.alive:
            self._die(process, ev.Outcome(signal=KILL), alone=True)
        elif process.lingering:
            self._later(lambda: self._group_ends(process))

    def _die(self, process: Process, outcome: ev.Outcome, *, alone: bool | None = None) -> None:
        if process.dying:
            return
        process.dying = True
        if alone is None:
            alone = not self._is(process, self.litter)
        self._later(lambda: self._end(process, outcome, alone=alone))

    def _end(self, process: Process, outcome: ev.Outcome, *, alone: bool = True, error: str = "") -> None:
        process.alive, process.lingering = False, not alone
        if alone:
            del self.processes[process.serial]
        daemon = self._is(process, self.daemons)
        self.tell(ev.Exited(process.serial, outcome, alone, error, self.chance, daemon=daemon))
        self._childless()

    def _group_ends(self, process: Process) -> None:
        if self.processes.pop(process.serial, None) is not None:
            self.tell(ev.GroupGone(process.serial, self.chance))
            self._childless()

    def _swept(self, signum: int) -> None:
        self.leftovers -= {"polite"} if signum != KILL else {"polite", "stubborn"}
        self._later(self._childless)

    def _childless(self) -> None:
        if not self.processes and not self.leftovers and self.exit is None:
            self.tell(ev.Childless())


def _short(record: Record) -> str:
    order = record.order
    match order:
        case act.Signal():
            return f"signal {record.id} {order.signum}"
        case act.Select():
            return f"{'select' if order.chosen else 'unselect'} {record.id}"
        case act.CloseSockets():
            return f"{'forget' if order.forget else 'close'} {' '.join(s.name for s in order.sockets)}"
        case act.Sweep():
            return f"sweep {order.signum}"
        case act.Exit():
            return f"exit {order.code}"
        case act.Inspect():
            return f"inspect {record.id} {order.kind}"
        case act.RunHook():
            return f"run {record.id} {order.hook}"
        case act.Reload():
            return "reload all" if order.roll_all else "reload"
        case act.RolloutEnded():
            return f"rollout {order.pool} {order.generation} {order.result}"
        case act.Answer():
            return f"answer {order.error}".strip()
    names = {act.Spawn: "spawn", act.KillTree: "kill", act.CheckQueue: "check", act.KillHook: "kill hook of"}
    return f"{names[type(order)]} {record.id}"


def starting(*pools: spec.Pool, **options: Any) -> Machine:
    """A machine whose master has just started."""
    return Machine(*pools, **options).start()


def running(*pools: spec.Pool, **options: Any) -> Machine:
    """A machine whose workers have all been up for a while; the story begins now, at second 0."""
    k = starting(*pools, **options)
    for _ in range(len(k.m.pools) + 1):
        k.advance(15)
    assert k.m.phase == "running", k.m.phase
    k.check()
    k.zero = k.clock
    k.forget()
    return k
