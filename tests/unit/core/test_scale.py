"""What an event costs, counted, not timed: nothing grows with the number of workers or with time."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.core.terms import Wish
from tests.unit.core.harness import Machine, pool, running, starting

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from _typeshed import TraceFunction

TERM, INT, TTIN, TTOU = 15, 2, 21, 22


def work(happening: Callable[[], object]) -> int:
    """How many lines of the core are executed, one of a loop as often as it turns."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> TraceFunction | None:
        nonlocal count
        if event == "call" and "/entrypoint/core/" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        happening()
    finally:
        sys.settrace(before)
    return count


def machine(workers: int) -> Machine:
    """So many workers that are ready, and one that boots."""
    k = Machine(pool("web", workers, when="notify", heartbeat=1e6, min_uptime=1.0))
    k.start()
    for process in list(k.processes.values())[:-1]:
        k.tell(ev.Notified(process.serial, ready=True))
    k.advance(10)
    k.m.touch(k.m.pools["web"])  # that all have reached min_uptime is found once, when somebody looks
    k.tell(ev.Ticked())
    k.forget()
    return k


def wish(k: Machine, who: str) -> None:
    k.m.wish(k.worker(who), Wish("max_memory"))
    k.tell(ev.Ticked())


def cost(workers: int, what: str) -> tuple[int, int]:
    """Lines and orders of one happening among so many workers."""
    k = machine(workers)
    last = list(k.processes.values())[-1].id
    happenings: dict[str, Callable[[], object]] = {
        "crash": lambda: k.crash("web/7"),
        "tick": k.run_due,
        "more": lambda: k.signal(TTIN),
        "less": lambda: k.signal(TTOU),
        "advance": lambda: k.advance(40),
        "beat": lambda: k.tell(ev.Notified(k.process("web/7").serial, beat=True)),
        "ready": lambda: k.say(last, ready=True),
        "wish": lambda: wish(k, "web/7"),
        "hung": lambda: k.say("web/7", hung=True),
    }
    number = work(happenings[what])
    return number, len(k.records)


@pytest.mark.parametrize("what", ["crash", "tick", "more", "less", "advance", "beat", "ready", "wish", "hung"])
def test_an_event_costs_the_same_among_ten_and_thousands_of_workers(what: str) -> None:
    few, many = cost(10, what), cost(3000, what)
    assert many[1] == few[1]
    assert 0 < many[0] <= few[0] * 1.1  # the heap has stale entries here and there


def test_a_step_of_a_rollout_costs_the_same_among_ten_and_thousands_of_workers() -> None:
    def step_of(workers: int) -> int:
        k = machine(workers)
        k.say(list(k.processes.values())[-1].id, ready=True)
        k.reload(pool("web", workers, program="v2", when="notify", heartbeat=1e6, min_uptime=1.0))
        costs = []
        for _ in range(5):
            new = next(p.id for p in k.processes.values() if k.worker(p.id).state == "starting")
            costs.append(work(partial(k.say, new, ready=True)))  # an old one goes, a new one comes
        return max(costs)

    assert step_of(2000) <= step_of(10) * 1.1


def test_an_idle_pool_has_no_deadline() -> None:
    k = running(web=3000)
    assert k.m.next_deadline() == float("inf")
    assert k.m.deadlines == []


def test_thousands_start_one_spawn_at_a_time_and_stop_with_one_signal_each() -> None:
    k = starting(web=3000)
    assert k.ticks == 3000  # between two spawns a TERM has its turn
    k.signal(TERM)
    assert len(k.signals) == 3000
    assert k.code == 0


def test_a_crash_loop_of_a_year_leaves_nothing_behind() -> None:
    k = running(pool("web", 3, min_uptime=1))
    for _ in range(2000):
        k.crash("web/1")
        k.advance(40)
    assert len(k.m.deadlines) < 10
    assert len(k.m.pools["web"].young) < 10
    assert len(k.m.workers) == len(k.m.pools["web"].workers) == 3
    assert k.m.pools["web"].slots == 3


def test_a_pool_that_always_fails_beside_one_that_serves_leaves_nothing_behind() -> None:
    k = Machine(pool("web", 2, min_uptime=1e6, give_up_after=0, max=0.5))
    k.start()
    k.advance(10)
    for _ in range(2000):
        if "web/1" in k.alive:
            k.crash("web/1")
        k.advance(0.6)
    assert len(k.m.deadlines) < 200  # of the lives of the last minute, whose boots would be over by then


@pytest.mark.parametrize("signum", [TERM, INT])
def test_a_hail_of_signals_arms_no_more_deadlines(signum: int) -> None:
    k = running(pool("web", 50, timeout=20), drain_delay=5)
    k.stubborn.add("web")
    for _ in range(500):
        k.signal(signum)
    assert len(k.m.deadlines) <= 200
    k.advance(30)
    assert k.code == 137


def test_refusals_of_thousands_of_spawns_ask_the_kernel_once_a_backoff() -> None:
    k = Machine(web=3000)
    k.refuse = "no"
    k.start()
    k.advance(60)
    assert len(k.of(act.Spawn)) < 12
    assert len(k.m.deadlines) <= 3001
