"""Random stories: whatever happens, in whatever order, the books are right, and TERM ends it in time."""

from __future__ import annotations

import os
from collections import deque

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from entrypoint.config import spec
from entrypoint.config.grace import budget
from entrypoint.core import events as ev
from entrypoint.core.step import INIT_STOP_TIMEOUT, step
from entrypoint.core.terms import Wish
from tests.unit.core.harness import Machine, init, pool

TERM = 15
HELPERS = (("monitor", spec.Process(("monitor",), "monitor")),)
NAMES = ("a", "b", "c")
NOBODY = 10**6  # a serial number that no worker has
UNKNOWN: list[ev.Event] = [
    ev.Spawned(NOBODY),
    ev.Executed(NOBODY),
    ev.SpawnRefused(NOBODY, "no"),
    ev.Exited(NOBODY, ev.Outcome(code=1), alone=True),
    ev.Exited(NOBODY, ev.Outcome(signal=9), alone=False),
    ev.GroupGone(NOBODY),
    ev.QueueChecked(NOBODY, 3),
    ev.LimitsRead("nobody", 3),
    ev.Notified(NOBODY, ready=True, beat=True, hung=True, stopping=True, extend=9.0, status="x"),
    ev.Beats((NOBODY,)),
    ev.Proved(NOBODY),
    ev.NotVisible(NOBODY, "no"),
    ev.NotLive(NOBODY, "no"),
    ev.HookEnded(NOBODY, "pre_stop", "no"),
]
OUTCOMES = [ev.Outcome(code=0), ev.Outcome(code=3), ev.Outcome(signal=9)]
WHO = st.sampled_from([*NAMES, *(f"{n}/{slot}" for n in NAMES for slot in (0, 1)), "init:first", ""])


MORE = st.one_of(
    st.fixed_dictionaries({"ready_after": st.sampled_from([0.0, 2.0])}),
    st.fixed_dictionaries(
        {
            "when": st.sampled_from(["notify", "notify", "accepting"]),
            "boot_timeout": st.sampled_from([0.0, 4.0]),
            "heartbeat": st.sampled_from([0.0, 3.0]),
            "abort_grace": st.sampled_from([0.5, 2.0]),
            "liveness": st.sampled_from([None, spec.Probe(tcp="127.0.0.1:1")]),
            "pre_stop": st.booleans(),
            "post_start": st.booleans(),
            "max_surge": st.integers(0, 2),
            "max_unavailable": st.integers(0, 2),
            "min_ready": st.sampled_from([0.0, 1.0]),
            "deadline": st.sampled_from([0.0, 20.0]),
            "program": st.sampled_from(["v1", "v2", "bad", "slow"]),
        }
    ),
)


@st.composite
def pools(draw: st.DrawFn) -> tuple[spec.Pool, ...]:
    made: list[spec.Pool] = []
    for name in NAMES[: draw(st.integers(1, 3))]:
        before = [p.name for p in made]
        made.append(
            pool(
                name,
                draw(st.integers(1, 3)),
                policy=draw(st.sampled_from(["always", "always", "on-failure", "never"])),
                timeout=draw(st.sampled_from([1.0, 3.0])),
                delay=draw(st.sampled_from([None, None, 0.0, 4.0])),
                min_uptime=draw(st.sampled_from([0.5, 2.0])),
                give_up_after=draw(st.sampled_from([0, 1, 4])),
                critical=draw(st.booleans()),
                sockets=draw(st.sampled_from([(), ("own",), ("shared",), ("own", "shared")])),
                after=tuple(draw(st.lists(st.sampled_from(before), unique=True))) if before else (),
                **draw(MORE),
            )
        )
    return tuple(draw(st.permutations(made)))


def alive(machine: Stories) -> bool:
    return machine.k.exit is None


class Stories(RuleBasedStateMachine):
    k: Machine

    @initialize(
        pools=pools(), drain_delay=st.sampled_from([0.0, 0.0, 5.0]), inits=st.integers(0, 2), started=st.booleans()
    )
    def begin(self, pools: tuple[spec.Pool, ...], drain_delay: float, inits: int, *, started: bool) -> None:
        sockets = [spec.Socket("own", "tcp", reuse_port=True), spec.Socket("shared", "tcp")]
        commands = [init(name, timeout=6.0) for name in ("first", "second")[:inits]]
        self.k = Machine(*pools, init=commands, sockets=sockets, drain_delay=drain_delay, helpers=HELPERS)
        self.k.quick = {"v1", "v2"}
        self.k.doomed["bad"] = ev.Outcome(code=1)
        self.k.start()
        if started:
            for _ in range(inits):
                if self.k.alive:
                    self.k.finish(self.k.alive[0])
            self.k.advance(10)

    # -- the world -------------------------------------------------------------------------------------------

    @precondition(alive)
    @rule(seconds=st.sampled_from([0.01, 0.2, 1.0, 1.5, 5.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.k.advance(seconds)

    @precondition(alive)
    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0]))
    def the_master_is_held_up(self, seconds: float) -> None:
        self.k.clock += seconds
        self.k.run_due()

    @precondition(lambda self: alive(self) and self.k.alive)
    @rule(which=st.integers(0, 8), outcome=st.sampled_from(OUTCOMES))
    def a_worker_ends(self, which: int, outcome: ev.Outcome) -> None:
        self.k.crash(self.k.alive[which % len(self.k.alive)], outcome.code, outcome.signal)

    @precondition(lambda self: alive(self) and any(p.lingering for p in self.k.processes.values()))
    @rule()
    def a_group_ends(self) -> None:
        self.k.clean_up(next(p.id for p in self.k.processes.values() if p.lingering))

    @precondition(alive)
    @rule(signum=st.sampled_from([1, 10, 12, 21, 21, 22, 22, 28, 34]))
    def a_signal(self, signum: int) -> None:
        self.k.signal(signum)

    @precondition(alive)
    @rule(signum=st.sampled_from([TERM, TERM, 2, 3]), rarely=st.integers(0, 2))
    def a_signal_to_end(self, signum: int, rarely: int) -> None:
        if not rarely:
            self.k.signal(signum)

    @precondition(alive)
    @rule(name=st.sampled_from(NAMES), workers=st.integers(1, 4))
    def other_limits(self, name: str, workers: int) -> None:
        self.k.tell(ev.LimitsRead(name, workers))
        self.k.run_due()

    @precondition(lambda self: alive(self) and self.k.alive)
    @rule(
        which=st.integers(0, 8),
        words=st.fixed_dictionaries(
            {}, optional={w: st.just(value=True) for w in ("ready", "beat", "hung", "stopping")}
        ),
    )
    def a_worker_speaks(self, which: int, words: dict[str, bool]) -> None:
        self.k.say(self.k.alive[which % len(self.k.alive)], **words)

    @precondition(lambda self: alive(self) and self.k.alive)
    @rule(which=st.integers(0, 8), what=st.sampled_from([ev.Proved, ev.NotVisible, ev.NotLive]))
    def a_worker_is_seen(self, which: int, what: type[ev.Event]) -> None:
        serial = self.k.process(self.k.alive[which % len(self.k.alive)]).serial
        facts: dict[type[ev.Event], ev.Event] = {
            ev.Proved: ev.Proved(serial),
            ev.NotVisible: ev.NotVisible(serial, "why"),
            ev.NotLive: ev.NotLive(serial, "why"),
        }
        self.k.tell(facts[what])
        self.k.run_due()

    @precondition(lambda self: alive(self) and any(p.hook for p in self.k.processes.values() if p.alive))
    @rule(error=st.sampled_from(["", "", "exit code 1"]))
    def a_hook_ends(self, error: str) -> None:
        self.k.end_hook(next(p.id for p in self.k.processes.values() if p.hook and p.alive), error)

    @precondition(alive)
    @rule()
    def everybody_beats(self) -> None:
        self.k.beat()

    @precondition(alive)
    @rule(name=st.sampled_from(NAMES), what=st.sampled_from(["scale", "restart", "start", "stop", "signal"]),
          number=st.sampled_from([None, 0, 1, 3, 10, TERM]))  # fmt: skip
    def somebody_asks(self, name: str, what: str, number: int | None) -> None:
        if what == "signal" and number not in (10, TERM):
            return
        if what == "scale" and number not in (None, 0, 1, 3):
            return
        self.k.ask(what, name, number)

    @precondition(alive)
    @rule(which=st.integers(0, 2), program=st.sampled_from(["v1", "v2", "bad", "slow"]), workers=st.integers(1, 3),
          roll_all=st.booleans())  # fmt: skip
    def the_configuration_changes(self, which: int, program: str, workers: int, *, roll_all: bool) -> None:
        pools = self.k.spec.pools
        old = pools[which % len(pools)]
        self.k.reload(old._replace(process=spec.Process((program,), program), workers=workers), roll_all=roll_all)

    @precondition(lambda self: alive(self) and self.k.spec.pools)
    @rule(which=st.integers(0, 2))
    def a_pool_goes_and_comes_back(self, which: int) -> None:
        pools = self.k.spec.pools
        chosen = pools[which % len(pools)]
        rest = tuple(
            p._replace(after=tuple(a for a in p.after if a != chosen.name)) for p in pools if p.name != chosen.name
        )
        self.k.spec = self.k.spec._replace(pools=())
        self.k.reload(*(rest or (chosen,)))
        if len(self.k.spec.pools) < len(pools) and which:
            self.k.reload(chosen._replace(after=()))

    @precondition(alive)
    @rule(seconds=st.sampled_from([3.0, 20.0]))
    def the_master_is_stopped_for_a_while(self, seconds: float) -> None:
        self.k.clock += seconds
        self.k.tell(ev.Stalled(seconds))
        self.k.run_due()

    # -- misbehaviour ----------------------------------------------------------------------------------------

    @rule(who=WHO)
    def some_are_stubborn(self, who: str) -> None:
        self.k.stubborn.add(who)

    @rule(who=WHO)
    def some_litter(self, who: str) -> None:
        self.k.litter.add(who)

    @rule(who=st.sampled_from(["a/0", "b"]), rarely=st.integers(0, 3))
    def some_cannot_be_killed(self, who: str, rarely: int) -> None:
        if not rarely:
            self.k.unkillable.add(who)

    @rule(refuse=st.sampled_from(["", "no"]))
    def spawns_are_refused(self, refuse: str) -> None:
        self.k.refuse = refuse

    @rule(who=WHO, code=st.sampled_from([None, 126, 127]))
    def programs_vanish(self, who: str, code: int | None) -> None:
        self.k.exec_errors.pop(who, None)
        if code:
            self.k.exec_errors[who] = code

    @rule(who=WHO, outcome=st.sampled_from([None, *OUTCOMES]))
    def programs_fail(self, who: str, outcome: ev.Outcome | None) -> None:
        self.k.doomed.pop(who, None)
        if outcome:
            self.k.doomed[who] = outcome

    @rule(name=st.sampled_from(NAMES))
    def a_fork_takes_its_time(self, name: str) -> None:
        self.k.slow_fork.add(name)

    @precondition(lambda self: alive(self) and self.k.slow_fork)
    @rule()
    def the_forks_are_done(self) -> None:
        self.k.slow_fork.clear()
        self.k.fork()

    @precondition(lambda self: alive(self) and self.k.alive and self.k.m.phase == "running")
    @rule(which=st.integers(0, 8), wish=st.sampled_from([Wish("max_memory"), Wish("memory_guard", first=False)]))
    def somebody_is_wished_away(self, which: int, wish: Wish) -> None:
        w = self.k.worker(self.k.alive[which % len(self.k.alive)])
        if not (w.reason or w.pool.is_helper or w.pool.runs_to_completion):
            self.k.m.wish(w, wish)
            self.k.tell(ev.Ticked())
            self.k.run_due()

    @rule(who=WHO)
    def an_exec_hangs(self, who: str) -> None:
        self.k.slow_exec.symmetric_difference_update({who})

    @rule(who=WHO, waiting=st.lists(st.integers(0, 2), max_size=30), mute=st.booleans())
    def queues_fill(self, who: str, waiting: list[int], *, mute: bool) -> None:
        self.k.queues[who], self.k.mute = deque(waiting), mute

    @rule(who=WHO)
    def it_does_not_rest(self, who: str) -> None:
        self.k.busy.symmetric_difference_update({who})

    @rule(kind=st.sampled_from(["polite", "stubborn", "unkillable"]))
    def something_is_left_over(self, kind: str) -> None:
        self.k.leftovers.add(kind)

    @rule(event=st.sampled_from(UNKNOWN))
    def the_core_is_told_about_nobody(self, event: ev.Event) -> None:
        before = self.k.m.next_deadline()
        assert step(self.k.m, event, self.k.clock) == []
        assert self.k.m.next_deadline() == before

    @precondition(alive)
    @rule()
    def the_clock_is_read_for_nothing(self) -> None:
        assert step(self.k.m, ev.Ticked(), self.k.clock) == []

    # -- what must hold --------------------------------------------------------------------------------------

    @invariant()
    def the_books_are_right(self) -> None:
        self.k.check()

    def teardown(self) -> None:
        k = self.k
        k.slow_fork.clear()
        if alive(self):
            k.fork()
        if alive(self):
            began = k.now
            k.signal(TERM)
            k.advance(1000)
            assert not alive(self), f"TERM did not end it: {k.m.phase}, {k.alive}"
            assert k.exited_at - began <= self.longest() + 1e-6
        assert k.m.phase == "exited"
        assert k.m.workers == {}
        left = [p for p in k.processes.values() if not k._is(p, k.unkillable)]
        assert left == [], "it left a worker behind"

    def longest(self) -> float:
        """What `check` would tell the user, and what is beyond anybody's power."""
        k = self.k
        promised = max(budget(k.spec.pools, k.spec.shutdown.drain_delay).total, INIT_STOP_TIMEOUT + 2)
        return promised + 3 * len(k.spec.pools) * bool(k.unkillable)


Stories.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],  # a busy machine is no failure
)
TestStories = Stories.TestCase
