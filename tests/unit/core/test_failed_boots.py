"""Failed boots, backoff and giving up."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.core.actions import Report
from entrypoint.core.events import Outcome
from tests.unit.core.harness import Machine, pool, running, starting

ERROR = Outcome(code=3)


def lives(k: Machine, who: str = "web/0") -> list[float]:
    """When a worker was spawned."""
    return [at for at, name in k.spawns if name == who]


def failing(**settings: Any) -> Machine:
    """A pool whose program ends as soon as it runs."""
    k = Machine(pool("web", **settings))
    k.doomed["web"] = ERROR
    return k.start()


# -- daemons -------------------------------------------------------------------------------------------------

FOREGROUND = "ended with 0 and left processes: keep it in the foreground"


@pytest.mark.parametrize("where", ["litter", "daemons"])
def test_a_program_that_turns_itself_into_a_daemon_is_told_to_stay_in_the_foreground(where: str) -> None:
    k = Machine(pool("cache", give_up_after=2))
    getattr(k, where).add("cache")
    k.doomed["cache"] = Outcome(code=0)
    k.start()
    k.advance(10)
    for line in k.reports("worker_exited"):
        assert (line["error"], line["left_processes"]) == (FOREGROUND, True)
    assert k.code == 1
    assert k.reports("giving_up")[0]["error"] == k.fields["error"] == f"cache/0 {FOREGROUND}"


def test_a_job_may_leave_processes_and_so_may_a_worker_that_has_lived_for_long() -> None:
    k = running(pool("job", policy="on-failure"), pool("web"))
    k.litter = {"job", "web"}
    k.finish("job/0")
    k.finish("web/0")
    assert ["error" in line for line in k.reports("worker_exited")] == [False, False]


# -- replacement ---------------------------------------------------------------------------------------------


def test_a_worker_that_dies_after_min_uptime_is_replaced_at_once() -> None:
    k = running(web=2)
    k.crash("web/1")
    assert k.spawns == [(0, "web/1")]
    assert k.alive == ["web/0", "web/1"]


def test_a_worker_that_exits_with_0_is_replaced_too() -> None:
    k = running(web=1)
    k.finish("web/0")
    assert k.alive == ["web/0"]


def test_dying_after_min_uptime_is_no_failure_however_often() -> None:
    k = running(web=1)
    for _ in range(20):
        k.advance(10)
        k.crash("web/0")
    assert lives(k) == [10.0 * n for n in range(1, 21)]
    assert not k.reports("pool_backoff")


def test_min_uptime_is_the_border_of_a_failed_boot() -> None:
    k = starting(pool("web", min_uptime=4))
    k.advance(3.9)
    k.crash("web/0")  # a failed boot
    k.advance(4)
    k.crash("web/0")  # not one
    k.advance(3.9)
    k.crash("web/0")  # the first of a new row
    assert lives(k) == [0, 3.9, 7.9, 11.8]


def test_the_first_replacement_is_immediate_then_the_backoff_grows() -> None:
    k = failing(give_up_after=0)
    k.advance(100)
    assert lives(k) == [0, 0, 1, 3, 7, 15, 31, 61, 91]


def test_the_backoff_follows_its_settings() -> None:
    k = failing(give_up_after=0, initial=0.5, factor=3, max=6)
    k.advance(20)
    assert lives(k) == [0, 0, 0.5, 2, 6.5, 12.5, 18.5]


@pytest.mark.parametrize(("chance", "delay"), [(0.0, 0.75), (0.5, 1.0), (0.999999, 1.25)])
def test_jitter_spreads_the_delay_to_both_sides(chance: float, delay: float) -> None:
    k = Machine(pool("web", jitter=0.25))
    k.doomed["web"], k.chance = ERROR, chance
    k.start()
    k.advance(1.5)
    assert lives(k)[2] == pytest.approx(delay, abs=1e-5)


def test_a_very_long_row_of_failures_is_no_overflow() -> None:
    k = failing(give_up_after=0, initial=0.001, factor=1000, max=1)
    k.advance(500)
    assert 480 < len(lives(k)) < 520


def test_failures_are_counted_by_pool_not_by_slot() -> None:
    k = starting(web=4)
    for slot in range(4):
        k.crash(f"web/{slot}")
    assert k.alive == ["web/0"]  # only the first replacement of the row is immediate
    k.advance(1)
    assert k.alive == ["web/0", "web/1"]
    k.advance(3)
    assert k.alive == ["web/0", "web/1", "web/2", "web/3"]
    k.crash("web/0")
    assert "5 failed boots in a row" in k.reason


def test_a_worker_that_reaches_min_uptime_ends_the_row() -> None:
    k = starting(pool("web", 2, min_uptime=10))
    k.advance(5)
    k.crash("web/1")
    k.crash("web/1")
    k.advance(5)  # web/0 is 10 s old
    assert k.reports("pool_recovered")
    k.forget()
    k.crash("web/1")
    assert k.spawns == [(10, "web/1")]  # at once: the first of a new row


def test_a_worker_that_reached_min_uptime_before_the_failure_ends_nothing() -> None:
    k = starting(pool("web", 2, min_uptime=10))
    k.advance(5)
    k.crash("web/1")
    k.advance(7)  # web/0 reached min_uptime meanwhile, web/1 is 7 s old
    k.forget()
    k.crash("web/1")
    k.crash("web/1")
    k.advance(0.9)
    assert k.spawns == [(12, "web/1")]  # the second of the row waits
    assert not k.reports("pool_recovered")
    k.advance(0.1)
    assert k.spawns == [(12, "web/1"), (13, "web/1")]


def test_a_master_that_was_held_up_still_sees_who_reached_min_uptime() -> None:
    k = starting(pool("web", 2, min_uptime=10))
    k.advance(8.9)
    k.crash("web/1")
    k.crash("web/1")  # due at 9.9, before web/0 is 10 s old
    k.clock += 3
    k.run_due()
    assert k.reports("pool_recovered")
    assert k.m.pools["web"].failures == 0


# -- giving up -----------------------------------------------------------------------------------------------


def test_a_pool_gives_up_after_so_many_lives() -> None:
    k = failing(give_up_after=5)
    k.advance(60)
    assert len(lives(k)) == 5
    assert k.exited_at == 7  # 0 + 0 + 1 + 2 + 4
    assert k.code == 3
    assert k.fields == {"pool": "web", "slot": 0, "code": 3, "error": "web/0 ended by exit code 3"}
    assert k.reports("giving_up")
    [serial] = [r.order.serial for r in k.records if isinstance(r.order, Report) and r.order.event == "giving_up"]
    assert k.exit is not None
    assert k.exit.serial == serial != 0  # of the worker that decided it


def test_giving_up_after_one_life_means_no_replacement() -> None:
    k = failing(give_up_after=1)
    assert lives(k) == [0]
    assert k.code == 3


@pytest.mark.parametrize(("outcome", "code"), [(Outcome(code=0), 1), (Outcome(signal=11), 139), (Outcome(code=7), 7)])
def test_the_last_outcome_is_the_exit_code_of_giving_up(outcome: Outcome, code: int) -> None:
    k = Machine(web=1)
    k.doomed["web"] = outcome
    k.start()
    k.advance(60)
    assert k.code == code


def test_0_never_gives_up() -> None:
    k = failing(give_up_after=0)
    k.advance(10_000)
    assert k.exit is None


def test_a_pool_with_a_ready_worker_goes_on_at_the_longest_backoff() -> None:
    k = running(web=2)
    k.doomed["web/1"] = ERROR
    k.crash("web/1")
    k.advance(8)
    assert lives(k, "web/1") == [0, 0, 1, 3, 7]
    k.advance(61)
    assert lives(k, "web/1")[5:] == [37, 67]
    assert k.exit is None


def test_it_gives_up_as_soon_as_none_is_ready() -> None:
    k = running(web=2)
    k.doomed["web"] = ERROR
    k.crash("web/1")
    k.advance(30)
    k.crash("web/0")  # no failed boot itself: it lived long, and so ends the row
    assert k.exit is None
    k.advance(100)
    assert k.code == 3


def test_a_pool_that_is_not_critical_is_retried_for_ever() -> None:
    k = Machine(pool("web"), pool("extra", critical=False))
    k.doomed["extra"] = ERROR
    k.start()
    k.advance(1000)
    assert k.exit is None
    gaps = [b - a for a, b in zip(lives(k, "extra/0"), lives(k, "extra/0")[1:], strict=False)]
    assert gaps[:5] == [0, 1, 2, 4, 30]
    assert set(gaps[5:]) == {30}


def test_giving_up_stops_the_other_pools_in_order() -> None:
    k = running(pool("web", after=("db",)), pool("db"), pool("x", give_up_after=1), drain_delay=5)
    k.doomed["x"] = ERROR
    k.crash("x/0")
    assert k.m.phase == "draining"  # the others serve, so they get the drain delay
    k.advance(5)
    assert k.signals_at == [(5, "web/0", 15), (5, "db/0", 15)]
    assert k.code == 3


def test_a_pool_that_gave_up_is_left_alone_while_the_others_drain() -> None:
    k = running(pool("web"), pool("x", give_up_after=3, min_uptime=1e6), drain_delay=5)
    k.doomed["x"] = ERROR
    k.crash("x/0")
    k.advance(1)
    assert k.m.phase == "draining"
    k.forget()
    k.advance(4.9)
    assert k.spawns == []
    k.advance(0.1)
    assert k.code == 3


def test_what_waits_in_backoff_is_not_spawned_after_its_pool_gave_up() -> None:
    k = running(pool("web"), pool("x", 3, give_up_after=6, min_uptime=1e6), drain_delay=50)
    for slot in (0, 1, 2, 0):  # the second and third wait for 1 and 2 s, the last for 4 s
        k.crash(f"x/{slot}")
    assert k.states("x") == ["backoff"] * 3
    k.doomed["x"] = ERROR
    k.advance(2)
    assert k.m.phase == "draining"
    k.forget()
    k.advance(49)
    assert k.spawns == []


# -- programs that cannot be executed ------------------------------------------------------------------------


@pytest.mark.parametrize("code", [126, 127])
def test_a_command_that_cannot_be_executed_gives_up_at_once(code: int) -> None:
    k = Machine(web=3)
    k.exec_errors["web"] = code
    k.start()
    assert k.now == 0
    assert k.code == code
    assert "cannot be executed" in k.reason
    assert k.fields["error"] == "cannot execute web"


def test_a_command_that_vanished_later_is_a_failed_boot_like_others() -> None:
    k = running(web=1)
    k.exec_errors["web"] = 127
    k.crash("web/0")
    k.advance(60)
    assert len(lives(k)) == 5
    assert k.code == 127


def test_a_command_of_a_pool_that_is_not_critical_is_retried() -> None:
    k = Machine(pool("web"), pool("extra", critical=False))
    k.exec_errors["extra"] = 127
    k.start()
    k.advance(40)
    assert lives(k, "extra/0") == [0, 0, 1, 3, 7, 37]
    assert k.exit is None


def test_a_command_that_cannot_be_executed_during_the_drain_is_not_tried_again_and_again() -> None:
    k = Machine(pool("web"), pool("late", after=("web",)), drain_delay=5)
    k.exec_errors["late"] = 127
    k.slow_exec.add("late")
    k.start()
    k.advance(10)
    k.signal(15)
    k.slow_exec.clear()
    k._exec(k.process("late/0"))
    k.forget()
    k.run_due()
    k.advance(4)
    assert k.spawns == []
    k.advance(1)
    assert k.code == 0


def test_a_pool_that_uses_up_its_lives_during_the_drain_leaves_the_exit_code_alone() -> None:
    k = running(pool("web", give_up_after=3), drain_delay=100)
    k.doomed["web"] = ERROR
    k.signal(15)
    k.crash("web/0")
    k.advance(50)
    assert len(k.spawns) == 3
    k.advance(50)
    assert k.code == 0


# -- spawns that the kernel refuses --------------------------------------------------------------------------


def test_a_refused_spawn_is_no_failed_boot_and_retried_with_backoff() -> None:
    k = Machine(web=1)
    k.refuse = "cannot fork: resource temporarily unavailable"
    k.start()
    k.advance(200)
    assert k.exit is None
    assert lives(k) == [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]
    assert k.reports("spawn_refused")[0] == {"error": k.refuse, "retry_in": 1}
    assert k.m.pools["web"].failures == 0
    k.refuse = ""
    k.advance(30)
    assert k.alive == ["web/0"]


def test_one_refusal_holds_every_spawn() -> None:
    k = Machine(web=50, cron=50)
    k.refuse = "no"
    k.start()
    assert len(k.spawns) == 1  # one answer is enough to know
    k.refuse = ""
    k.advance(1)
    assert len(k.alive) == 100


def test_a_spawn_that_works_ends_the_row_of_refusals() -> None:
    k = Machine(web=1)
    k.refuse = "no"
    k.start()
    k.advance(10)
    k.refuse = ""
    k.advance(60)
    k.refuse = "no"
    k.forget()
    k.crash("web/0")
    k.advance(1)
    assert lives(k) == [0 + k.now - 1, k.now]


def test_a_refusal_does_not_lose_the_row_of_failures() -> None:
    k = failing(give_up_after=3)
    assert lives(k) == [0, 0]
    k.refuse = "no"
    k.advance(10)
    assert k.exit is None
    k.refuse = ""
    k.advance(10)
    assert k.code == 3
