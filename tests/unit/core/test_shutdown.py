"""How the master ends: order, deadlines, and the exit code."""

from __future__ import annotations

import pytest

from entrypoint.config.spec import Socket
from entrypoint.core import status
from entrypoint.core.events import Outcome, Started, Ticked
from tests.unit.core.harness import Machine, init, pool, running, starting

INT, QUIT, KILL, TERM, TTOU = 2, 3, 9, 15, 22


# -- the exit code, row by row -------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [TERM, INT, QUIT])
def test_0_for_a_requested_stop_when_all_workers_drained(signum: int) -> None:
    k = running(web=2, cron=1)
    k.signal(signum)
    assert k.signals == [("web/0", TERM), ("web/1", TERM), ("cron/0", TERM)]
    assert (k.code, k.exited_at) == (0, 0)


def test_0_also_when_the_workers_end_by_the_stop_signal_or_with_an_error() -> None:
    k = running(pool("web", signal=QUIT))
    k.on_stop = Outcome(signal=QUIT)
    k.signal(TERM)
    assert k.signals == [("web/0", QUIT)]
    assert k.code == 0


@pytest.mark.parametrize("policy", ["never", "on-failure"])
def test_0_when_every_critical_pool_completed_and_the_rest_is_stopped(policy: str) -> None:
    k = running(pool("job", 2, policy=policy), pool("helper", critical=False), drain_delay=30)
    k.finish("job/0")
    assert k.exit is None
    k.finish("job/1")
    assert k.signals == [("helper/0", TERM)]
    assert (k.code, k.exited_at) == (0, 0)
    assert k.reason == "all pools completed"


def test_completion_waits_for_every_critical_pool() -> None:
    k = running(pool("job", policy="never"), web=1)
    k.finish("job/0")
    k.advance(1000)
    assert k.exit is None
    assert k.alive == ["web/0"]
    k.signal(TERM)
    assert k.code == 0


def test_without_critical_pools_all_must_complete() -> None:
    k = running(pool("a", policy="never", critical=False), pool("b", policy="never", critical=False))
    k.finish("a/0", 3)
    assert k.exit is None
    k.finish("b/0")
    assert k.code == 0  # what is not critical does not affect the exit


def test_the_first_non_zero_code_of_a_job_that_completed_with_failures() -> None:
    k = running(pool("job", 4, policy="never"))
    k.finish("job/0")
    k.finish("job/1", 7)
    k.crash("job/2", signal=11)
    assert k.exit is None
    k.finish("job/3")
    assert k.code == 7
    assert k.fields == {"pool": "job", "slot": 1, "code": 7}


def test_128_and_the_signal_that_ended_a_job() -> None:
    k = running(pool("job", policy="never"))
    k.crash("job/0", signal=11)
    assert k.code == 139


ERROR = {"code": 3}
KILLED = {"signal": 9}


@pytest.mark.parametrize(("how", "code"), [(ERROR, 3), (KILLED, 137)], ids=["error", "signal"])
def test_what_comes_after_a_critical_pool_that_failed_never_starts(how: dict[str, int], code: int) -> None:
    k = starting(pool("migrate", policy="never"), pool("web", after=("migrate",)), pool("last", after=("web",)))
    k.advance(1)
    k.crash("migrate/0", **how)
    assert k.spawns == [(0, "migrate/0")]
    assert k.code == code
    ended = " ".join(f"{'exit code' if kind == 'code' else kind} {n}" for kind, n in how.items())
    assert k.reason == f"pool migrate failed: migrate/0 ended by {ended}"
    assert k.fields == {"pool": "migrate", "slot": 0, **how}
    assert not k.reports("pool_completed")
    assert not k.reports("pool_ready")


def test_a_boot_timeout_of_what_is_not_retried_is_a_failure() -> None:
    k = starting(
        pool("migrate", policy="never", when="notify", boot_timeout=5, abort_grace=1), pool("web", after=("migrate",))
    )
    k.on_stop = Outcome(code=0)  # it ends well when it is aborted, and has hung all the same
    k.advance(5)
    assert k.spawns == [(0, "migrate/0")]
    assert k.code == 137
    assert k.reason == "pool migrate failed: migrate/0 hung: boot_timeout"


def test_one_of_several_workers_that_failed_is_a_failure_of_the_pool_and_the_others_finish() -> None:
    k = starting(pool("migrate", 3, policy="never", ready_after=5), pool("web", after=("migrate",)))
    k.advance(1)
    k.finish("migrate/1", 3)
    k.advance(60)
    assert k.alive == ["migrate/0", "migrate/2"]
    for name in ("migrate/0", "migrate/2"):
        assert k.exit is None
        k.finish(name)
    assert len(k.spawns) == 3
    assert k.code == 3


def test_a_failed_pool_is_said_to_have_failed() -> None:
    k = starting(pool("a", policy="never"), pool("b", policy="never"), pool("web", after=("a",)))
    k.advance(1)
    k.finish("a/0", 3)
    failed = "a: failed: a/0 ended by exit code 3"
    assert status.readiness(k.m) == (False, f"{failed}; b: 0 of 1 ready; web: waits for a")
    assert status.startup(k.m) == (False, failed)
    assert status.state(k.m.pools["a"]) == "failed"
    assert status.counters(k.m.pools["a"], k.clock)["failed"] is True
    assert k.reports("pool_failed") == [{"error": "a/0 ended by exit code 3"}]
    assert k.exit is None  # b can complete


def test_a_failed_job_lets_the_other_jobs_finish_and_then_ends_what_serves() -> None:
    k = running(pool("a", policy="never"), pool("b", policy="never"), pool("c", after=("b",), policy="never"),
                pool("d", after=("a",), policy="never"), pool("web"), drain_delay=5)  # fmt: skip
    k.finish("a/0", 3)
    k.advance(60)
    assert k.exit is None
    k.finish("b/0")
    k.finish("c/0")
    assert k.exit is None
    assert k.alive == ["d/0", "web/0"]  # that was there before
    k.finish("d/0")
    assert k.m.phase == "draining"
    k.advance(5)
    assert (k.code, k.signals) == (3, [("web/0", TERM)])


def test_a_job_that_waits_for_a_failed_one_in_vain_holds_up_nothing() -> None:
    k = starting(pool("a", policy="never"), pool("b", after=("a",), policy="never"),
                 pool("c", after=("b",), policy="never"), pool("web"))  # fmt: skip
    k.advance(1)
    k.finish("a/0", 3)
    assert k.code == 3


def test_a_pool_that_needs_two_is_not_started_when_the_one_that_was_ready_fails() -> None:
    k = starting(pool("a", policy="never", ready_after=1), pool("slow", ready_after=10),
                 pool("b", policy="never"), pool("web", after=("a", "slow")))  # fmt: skip
    k.advance(5)
    k.finish("a/0", 3)
    k.advance(60)
    assert "web/0" not in k.alive
    assert status.readiness(k.m)[1] == "a: failed: a/0 ended by exit code 3; web: waits for a"


def test_a_failure_of_what_is_not_critical_changes_nothing() -> None:
    k = starting(pool("seed", policy="never", critical=False), pool("web", after=("seed",), ready_after=0))
    k.advance(1)
    k.finish("seed/0", 3)
    assert k.alive == ["web/0"]
    assert (status.readiness(k.m), status.startup(k.m)) == ((True, ""), (True, ""))
    assert status.state(k.m.pools["seed"]) == "completed"
    assert k.m.pools["seed"].last_error == "seed/0 ended by exit code 3"
    k.signal(TERM)
    assert k.code == 0


def test_on_failure_retries_until_it_works() -> None:
    k = running(pool("job", policy="on-failure"))
    k.finish("job/0", 1)
    assert k.alive == ["job/0"]
    k.finish("job/0", 0)
    assert k.code == 0


def test_on_failure_gives_up_like_others() -> None:
    k = Machine(pool("job", policy="on-failure", give_up_after=3))
    k.doomed["job"] = Outcome(code=9)
    k.start()
    k.advance(60)
    assert len(k.spawns) == 3
    assert k.code == 9


@pytest.mark.parametrize("policy", ["never", "on-failure"])
@pytest.mark.parametrize("signum", [TERM, INT, QUIT])
def test_143_when_a_requested_stop_interrupts_a_job(signum: int, policy: str) -> None:
    k = running(pool("job", policy=policy), web=1)
    k.signal(signum)
    assert k.code == 143


def test_a_job_that_is_not_critical_may_be_interrupted() -> None:
    k = running(pool("job", policy="never", critical=False), web=1)
    k.signal(TERM)
    assert k.code == 0


def test_137_when_a_requested_stop_had_to_kill() -> None:
    k = running(pool("web", 2, timeout=20))
    k.stubborn.add("web/1")
    k.signal(TERM)
    k.advance(19.9)
    assert k.alive == ["web/1"]
    k.advance(0.1)
    assert k.signals_at == [(0, "web/0", TERM), (0, "web/1", TERM), (20, "web/1", KILL)]
    assert (k.code, k.exited_at) == (137, 20)


def test_137_goes_before_143() -> None:
    k = running(pool("job", policy="never", timeout=3))
    k.stubborn.add("job")
    k.signal(TERM)
    k.advance(3)
    assert k.code == 137


def test_killing_a_worker_that_is_not_critical_is_no_137() -> None:
    k = running(pool("web"), pool("extra", critical=False, timeout=3))
    k.stubborn.add("extra")
    k.signal(TERM)
    k.advance(3)
    assert (k.code, k.exited_at) == (0, 3)


def test_swept_leftovers_are_no_137() -> None:
    k = running(web=1)
    k.leftovers = {"polite", "stubborn"}
    k.signal(TERM)
    assert k.orders[-1] == f"sweep {TERM}"
    k.advance(1)
    assert k.orders[-2:] == [f"sweep {KILL}", "exit 0"]
    assert k.exited_at == 1


def test_what_a_worker_left_in_its_group_is_no_137() -> None:
    k = running(pool("web", timeout=20))
    k.litter.add("web")
    k.signal(TERM)
    k.advance(19.9)
    assert k.exit is None
    k.advance(0.1)
    assert k.signals_at[1:] == [(20, "web/0", KILL)]  # while stopping: at the stop deadline
    assert (k.code, k.exited_at) == (0, 20)


def test_a_failure_decides_the_code_even_if_a_stop_is_requested_afterwards() -> None:
    k = running(pool("web", timeout=20), pool("x", give_up_after=1, min_uptime=1e6))
    k.stubborn.add("web")
    k.crash("x/0", code=5)
    k.advance(2)
    k.signal(TERM)
    k.advance(20)
    assert k.code == 5


def test_a_job_that_fails_while_a_failure_stops_the_master_does_not_change_what_decided() -> None:
    k = running(pool("web"), pool("x", give_up_after=1, min_uptime=1e6), pool("job", policy="never"), drain_delay=9)
    k.crash("x/0", code=5)
    k.finish("job/0", 4)
    k.advance(9)
    assert (k.code, k.fields["pool"]) == (5, "x")
    assert k.reason.startswith("pool x gave up")


def test_a_job_that_fails_during_the_drain_has_failed() -> None:
    k = running(pool("job", policy="never"), web=1, drain_delay=10)
    k.signal(TERM)
    k.advance(3)
    k.finish("job/0", 4)
    k.advance(7)
    assert k.code == 4


def test_a_job_that_completes_during_the_drain_is_done_and_ends_it() -> None:
    k = running(pool("job", policy="never"), pool("helper", critical=False), drain_delay=10)
    k.signal(TERM)
    k.advance(3)
    k.finish("job/0")
    assert k.signals == [("helper/0", TERM)]
    assert (k.code, k.exited_at) == (0, 3)


def test_the_reason_is_told() -> None:
    for signum, name in ((TERM, "SIGTERM"), (INT, "SIGINT"), (QUIT, "SIGQUIT")):
        k = running(web=1)
        k.signal(signum)
        assert k.reason == f"requested by {name}"


# -- drain delay ---------------------------------------------------------------------------------------------


def test_everything_keeps_serving_during_the_drain_delay() -> None:
    k = running(web=2, drain_delay=5)
    k.signal(TERM)
    assert k.m.phase == "draining"
    k.advance(2)
    k.crash("web/0")
    assert k.spawns == [(2, "web/0")]  # dead workers are still replaced
    k.advance(2.9)
    assert k.signals == []
    k.advance(0.1)
    assert k.signals_at == [(5, "web/1", TERM), (5, "web/0", TERM)]
    assert k.code == 0


def test_int_has_no_drain_delay() -> None:
    k = running(pool("web", timeout=10), drain_delay=5)
    k.stubborn.add("web")
    k.signal(INT)
    assert k.signals == [("web/0", TERM)]
    assert k.m.phase == "stopping"


def test_a_second_term_ends_the_drain_delay_only_more_than_a_second_later() -> None:
    k = running(web=1, drain_delay=60)
    k.signal(TERM)
    k.signal(TERM)
    k.advance(1)
    k.signal(TERM)
    assert k.signals == []
    k.advance(0.1)
    k.signal(TERM)  # more than a second after the first
    assert (k.code, k.exited_at) == (0, 1.1)


def test_int_after_term_ends_the_drain_delay_at_once() -> None:
    k = running(web=1, drain_delay=60)
    k.signal(TERM)
    k.signal(INT)
    assert (k.code, k.exited_at) == (0, 0)


def test_workers_get_their_stop_signal_once() -> None:
    k = running(pool("web", timeout=20), drain_delay=5)
    k.stubborn.add("web")
    for _ in range(9):
        k.signal(TERM)
        k.advance(2)
    assert k.signals_at == [(2, "web/0", TERM)]
    k.advance(5)
    assert k.signals_at == [(2, "web/0", TERM), (22, "web/0", KILL)]


def test_a_pool_can_be_exempt_from_the_drain_delay() -> None:
    k = running(pool("queue", delay=0.0), pool("slow", delay=9.0), web=1, drain_delay=5)
    k.signal(TERM)
    k.advance(9)
    assert k.signals_at == [(0, "queue/0", TERM), (5, "web/0", TERM), (9, "slow/0", TERM)]
    assert k.code == 0


def test_the_order_of_pools_goes_before_an_exemption() -> None:
    k = running(pool("queue", delay=0.0), pool("web", after=("queue",)), drain_delay=5)
    k.signal(TERM)
    k.advance(5)
    assert k.signals_at == [(5, "web/0", TERM), (5, "queue/0", TERM)]


def test_a_worker_that_was_stopped_early_is_not_replaced() -> None:
    k = running(pool("queue", delay=0.0), web=1, drain_delay=5)
    k.signal(TERM)
    k.advance(4)
    assert k.alive == ["web/0"]


# -- order ---------------------------------------------------------------------------------------------------


def test_pools_stop_in_reverse_order() -> None:
    k = running(pool("db"), pool("cache", after=("db",)), pool("web", after=("cache", "db")), pool("cron"))
    k.stubborn = {"web", "cache"}
    k.signal(TERM)
    k.advance(100)
    assert k.signals_at == [
        (0, "web/0", TERM),
        (0, "cron/0", TERM),
        (20, "web/0", KILL),
        (20, "cache/0", TERM),
        (40, "cache/0", KILL),
        (40, "db/0", TERM),
    ]
    assert (k.code, k.exited_at) == (137, 40)


def test_pools_start_when_those_before_them_are_ready() -> None:
    k = starting(
        pool("web", after=("db", "cache"), ready_after=1),
        pool("db", 2, ready_after=10),
        pool("cache", ready_after=5),
        pool("last", after=("web",)),
    )
    k.advance(60)
    assert k.spawns == [(0, "db/0"), (0, "db/1"), (0, "cache/0"), (10, "web/0"), (11, "last/0")]
    assert k.m.phase == "running"


def test_a_completed_pool_counts_as_ready() -> None:
    k = starting(pool("setup", 2, policy="never"), pool("web", after=("setup",)))
    k.advance(1)
    k.finish("setup/0")
    assert "web/0" not in k.alive
    k.finish("setup/1")
    assert k.spawns[-1] == (1, "web/0")


# -- INT and QUIT --------------------------------------------------------------------------------------------


def test_quit_stops_every_pool_at_once_and_kills_after_a_second() -> None:
    k = running(pool("db"), pool("web", after=("db",)), drain_delay=9)
    k.stubborn = {"web"}
    k.signal(QUIT)
    assert set(k.signals) == {("db/0", TERM), ("web/0", TERM)}
    k.advance(1)
    assert k.signals_at[2:] == [(1, "web/0", KILL)]
    assert (k.code, k.exited_at) == (137, 1)


@pytest.mark.parametrize("before", [TERM, INT])
def test_quit_hurries_a_stop_that_is_under_way(before: int) -> None:
    k = running(pool("web", timeout=30))
    k.stubborn = {"web"}
    k.signal(before)
    k.advance(4)
    k.signal(QUIT)
    k.advance(0.5)
    k.signal(QUIT)  # no second chance
    k.advance(30)
    assert k.signals_at == [(0, "web/0", TERM), (5, "web/0", KILL)]


def test_a_second_int_is_quit() -> None:
    k = running(pool("web", timeout=30), drain_delay=30)
    k.stubborn = {"web"}
    k.signal(INT)
    k.advance(5)
    k.signal(INT)
    k.advance(1)
    assert k.signals_at == [(0, "web/0", TERM), (6, "web/0", KILL)]
    assert k.code == 137


def test_a_second_int_is_quit_also_when_a_failure_stops_the_master() -> None:
    k = running(pool("web", timeout=30), pool("x", give_up_after=1, min_uptime=1e6))
    k.stubborn = {"web"}
    k.crash("x/0", code=5)
    k.advance(2)
    k.signal(INT)
    k.advance(1)
    k.signal(INT)
    k.advance(1)
    assert (k.code, k.exited_at) == (5, 4)


def test_quit_when_there_is_nothing_to_stop() -> None:
    k = running(pool("web", min_uptime=1e6))
    k.crash("web/0")
    k.crash("web/0")
    assert k.alive == []
    k.signal(QUIT)
    assert k.code == 0


def test_quit_does_not_extend_a_deadline() -> None:
    k = running(pool("web", timeout=2))
    k.stubborn = {"web"}
    k.signal(TERM)
    k.advance(1.5)
    k.signal(QUIT)
    k.advance(0.5)
    assert k.exited_at == 2


# -- a TERM at any time --------------------------------------------------------------------------------------


def test_term_during_an_init_command_stops_it_and_starts_nothing() -> None:
    k = starting(pool("web"), init=[init("migrate"), init("seed")], drain_delay=30)
    assert k.alive == ["init:migrate/0"]
    k.advance(3)
    k.signal(TERM)
    assert k.orders == ["spawn init:migrate/0", f"signal init:migrate/0 {TERM}", f"sweep {TERM}", "exit 0"]
    assert k.exited_at == 3  # nothing serves, so there is nothing to drain


def test_a_stubborn_init_command_is_killed() -> None:
    k = starting(pool("web"), init=[init("migrate")])
    k.stubborn.add("init:migrate")
    k.signal(TERM)
    k.advance(10)
    assert k.signals_at == [(0, "init:migrate/0", TERM), (10, "init:migrate/0", KILL)]
    assert k.code == 137


@pytest.mark.parametrize("slow", [False, True])
def test_term_while_workers_boot(slow: bool) -> None:  # noqa: FBT001 - a parameter of the test
    k = Machine(pool("web", 3), pool("late", after=("web",)))
    k.slow_exec = {"web"} if slow else set()
    k.start()
    k.signal(TERM)
    assert k.signals == [("web/0", TERM), ("web/1", TERM), ("web/2", TERM)]
    assert (k.code, k.exited_at) == (0, 0)


def test_term_before_the_first_spawn() -> None:
    k = Machine(web=3)
    k.signal(TERM)
    assert k.code == 0
    assert k.spawns == []


def test_term_between_two_spawns() -> None:
    k = Machine(web=100)
    k.tell(Started())
    k.tell(Ticked())
    k.tell(Ticked())
    assert len(k.spawns) == 2  # a spawn at a time, so that a signal need not wait for all
    k.signal(TERM)
    assert len(k.spawns) == 2
    assert k.code == 0


def test_term_while_a_pool_waits_in_backoff() -> None:
    k = running(pool("web", min_uptime=1e6))
    k.crash("web/0")
    k.crash("web/0")
    k.signal(TERM)
    assert (k.code, k.exited_at) == (0, 0)


def test_term_while_spawns_are_refused() -> None:
    k = Machine(web=3)
    k.refuse = "no"
    k.start()
    k.advance(10)
    k.signal(TERM)
    assert k.code == 0


def test_term_while_a_group_outlives_its_worker() -> None:
    k = running(pool("web", timeout=30))
    k.litter.add("web")
    k.crash("web/0")
    k.signal(TERM)
    assert k.exit is None
    k.advance(1)
    assert k.signals_at == [(1, "web/0", KILL)]
    assert (k.code, k.exited_at) == (0, 1)


def test_term_during_the_sweep_changes_nothing() -> None:
    k = running(web=1)
    k.leftovers = {"stubborn"}
    k.signal(TERM)
    for signum in (TERM, INT, INT, QUIT):
        k.signal(signum)
    k.advance(1)
    assert k.orders == [f"signal web/0 {TERM}", f"sweep {TERM}", f"sweep {KILL}", "exit 0"]


# -- init commands -------------------------------------------------------------------------------------------


def test_init_commands_run_one_after_the_other_before_any_pool() -> None:
    k = starting(pool("web"), init=[init("migrate"), init("seed")])
    k.advance(100)
    assert k.alive == ["init:migrate/0"]
    k.finish("init:migrate/0")
    assert k.alive == ["init:seed/0"]
    k.finish("init:seed/0")
    assert k.spawns == [(0, "init:migrate/0"), (100, "init:seed/0"), (100, "web/0")]
    k.advance(1000)
    k.signal(TERM)
    assert k.code == 0


@pytest.mark.parametrize(("outcome", "code"), [(Outcome(code=4), 4), (Outcome(signal=6), 134)])
def test_an_init_command_that_fails_ends_the_master_with_its_code(outcome: Outcome, code: int) -> None:
    k = Machine(pool("web"), init=[init("migrate"), init("seed")])
    k.doomed["init:migrate"] = outcome
    k.start()
    assert k.spawns == [(0, "init:migrate/0")]
    assert k.code == code


@pytest.mark.parametrize("code", [126, 127])
def test_an_init_command_that_cannot_be_executed(code: int) -> None:
    k = Machine(pool("web"), init=[init("migrate")])
    k.exec_errors["init:migrate"] = code
    k.start()
    assert k.code == code


def test_an_init_command_has_its_timeout() -> None:
    k = starting(pool("web"), init=[init("migrate", timeout=60)])
    k.stubborn.add("init:migrate")
    k.advance(100)
    assert k.signals_at == [(60, "init:migrate/0", TERM), (70, "init:migrate/0", KILL)]
    assert k.code == 137
    assert "timed out" in k.reason


def test_an_init_command_that_times_out_and_then_exits_with_0_has_failed() -> None:
    k = starting(pool("web"), init=[init("migrate", timeout=60)])
    k.advance(60)
    assert k.code == 1


def test_the_next_command_waits_for_what_an_init_command_left_behind() -> None:
    k = starting(pool("web"), init=[init("migrate")])
    k.litter.add("init:migrate")
    k.finish("init:migrate/0")
    assert k.alive == []
    k.advance(1)
    assert k.alive == ["web/0"]


# -- leftovers -----------------------------------------------------------------------------------------------


def test_the_sweep_ends_even_if_something_cannot_be_ended() -> None:
    k = running(web=1)
    k.leftovers = {"unkillable"}
    k.signal(TERM)
    k.advance(2)
    assert k.reports("sweep_failed")
    assert (k.code, k.exited_at) == (0, 1.5)


def test_an_unkillable_worker_does_not_hold_up_the_exit() -> None:
    k = running(pool("web", 2, timeout=5))
    k.unkillable.add("web/0")
    k.signal(TERM)
    k.advance(10)
    assert k.reports("worker_unkillable")
    assert (k.code, k.exited_at) == (137, 5 + 1 + 1.5)


def test_an_unkillable_group_does_not_hold_up_the_exit() -> None:
    k = running(pool("web", timeout=5))
    k.litter.add("web")
    k.unkillable.add("web")
    k.crash("web/0")
    k.advance(3)
    k.signal(TERM)
    k.advance(10)
    assert k.exited_at <= 3 + 5 + 1 + 1.5


def test_a_worker_that_has_long_been_unkillable_gets_one_more_second() -> None:
    k = running(pool("web", 2, timeout=5))
    k.unkillable.add("web/0")
    k.signal(TTOU)
    k.advance(6)
    k.signal(TERM)
    k.advance(10)
    assert k.exited_at == 6 + 1 + 1.5


def test_quit_does_not_wait_for_what_a_stopped_worker_left_behind() -> None:
    k = running(pool("web", timeout=20))
    k.litter.add("web")
    k.signal(TERM)
    k.advance(3)
    k.signal(QUIT)
    k.advance(1)
    assert k.signals_at[1:] == [(4, "web/0", KILL)]
    assert k.exited_at == 4


def test_an_unkillable_worker_keeps_its_slot_and_is_killed_again_while_the_master_runs() -> None:
    k = running(web=1)
    k.litter.add("web")
    k.unkillable.add("web")
    k.crash("web/0")
    k.advance(12)
    assert [at for at, *_ in k.signals_at] == [1, 6, 11]
    assert k.spawns == []
    k.clean_up("web/0")
    assert k.alive == ["web/0"]


def test_no_worker_at_all_is_no_reason_to_leave() -> None:
    k = running(pool("web", min_uptime=1e6))
    k.crash("web/0")
    k.crash("web/0")  # the kernel tells that no child is left
    assert k.exit is None


# -- sockets -------------------------------------------------------------------------------------------------


def test_a_socket_is_closed_before_the_last_pool_that_uses_it_is_stopped() -> None:
    sockets = [Socket("http", "tcp"), Socket("admin", "tcp")]
    k = running(
        pool("a", sockets=("http", "admin"), delay=0.0), pool("b", sockets=("http",)), sockets=sockets, drain_delay=5
    )
    k.signal(TERM)
    assert k.orders == ["close admin", f"signal a/0 {TERM}"]
    k.advance(5)
    assert k.orders[2:4] == ["close http", f"signal b/0 {TERM}"]


@pytest.mark.parametrize("signum", [TERM, INT, QUIT])
def test_a_shared_socket_is_closed_once_and_before_any_stop_signal_of_its_last_pool(signum: int) -> None:
    k = running(pool("a", sockets=("http",)), pool("b", sockets=("http",)), sockets=[Socket("http", "tcp")])
    k.signal(signum)
    assert k.orders.count("close http") == 1
    assert k.orders.index("close http") < k.orders.index(f"signal b/0 {TERM}")


def test_a_socket_is_kept_for_a_pool_that_stops_later() -> None:
    k = running(pool("a", sockets=("http",)), pool("b", sockets=("http",), after=("a",)), sockets=[Socket("http", "x")])
    k.stubborn.add("b")
    k.signal(TERM)
    assert k.orders == [f"signal b/0 {TERM}"]
    k.advance(20)
    assert k.orders[1:] == ["kill b/0", "close http", f"signal a/0 {TERM}", f"sweep {TERM}", "exit 137"]


def test_at_shutdown_the_workers_own_sockets_are_closed_and_not_quiesced() -> None:
    k = running(pool("web", 2, sockets=("http",)), sockets=[Socket("http", "tcp", reuse_port=True)])
    k.signal(TERM)
    assert k.orders[:3] == ["close http", f"signal web/0 {TERM}", f"signal web/1 {TERM}"]
    assert k.exited_at == 0
