"""What an event costs, counted, not timed: nothing grows with the number of workers or with time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from entrypoint.core import actions as act
from tests.unit.core.harness import Machine, pool, running, starting

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

TERM, INT, TTIN = 15, 2, 21


def calls(happening: Callable[[], object]) -> int:
    """How many functions of the core are called."""
    count = 0

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call" and "/entrypoint/core/" in frame.f_code.co_filename

    sys.setprofile(profile)
    try:
        happening()
    finally:
        sys.setprofile(None)
    return count


def cost(workers: int, what: str) -> tuple[int, int]:
    """Calls and orders of one happening among so many workers."""
    k = running(web=workers)
    happenings: dict[str, Callable[[], object]] = {
        "crash": lambda: k.crash("web/7"),
        "tick": k.run_due,
        "more": lambda: k.signal(TTIN),
        "advance": lambda: k.advance(100),
    }
    number = calls(happenings[what])
    return number, len(k.records)


@pytest.mark.parametrize("what", ["crash", "tick", "more", "advance"])
def test_an_event_costs_the_same_among_ten_and_thousands_of_workers(what: str) -> None:
    assert cost(3000, what) == cost(10, what)


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
