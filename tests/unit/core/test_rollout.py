"""Rollouts: make before break, stopped by failure, superseded, and in nobody's way."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.config import spec
from entrypoint.core import actions as act
from entrypoint.core import events as ev
from tests.unit.core.harness import Machine, pool, running, starting

HUP, KILL, TERM = 1, 9, 15
FAST: dict[str, Any] = {"when": "notify", "min_uptime": 10.0, "boot_timeout": 30.0}


def web(program: str, workers: int = 4, **settings: Any) -> spec.Pool:
    return pool("web", workers, program=program, **{**FAST, **settings})


def serving(workers: int = 4, *more: spec.Pool, **settings: Any) -> Machine:
    """Workers of `v1` serve; `v1`, `v2` and `v3` say READY=1 as soon as they run; `bad` exits at once."""
    k = Machine(web("v1", workers, **settings), *more)
    k.quick = {"v1", "v2", "v3"}
    k.doomed["bad"] = ev.Outcome(code=1)
    k.start()
    k.advance(20)
    k.zero = k.clock
    k.forget()
    return k


# -- how it goes ---------------------------------------------------------------------------------------------


def test_new_workers_come_before_old_ones_go_the_oldest_first() -> None:
    k = serving(2)
    k.reload(web("v2", 2))
    assert k.orders == [
        "spawn web/2", f"signal web/0 {TERM}", "spawn web/0", f"signal web/1 {TERM}",
    ]  # fmt: skip
    assert k.programs == ["v2", "v2"]
    k.advance(10)
    assert k.orders[-1] == "rollout web 2 completed"
    assert k.m.pools["web"].current.number == 2


def test_there_are_never_more_workers_than_size_and_surge_not_even_while_old_ones_take_their_time() -> None:
    k = serving(4, max_surge=2, timeout=5.0)
    k.stubborn.add("web")
    k.reload(web("v2", 4, max_surge=2, timeout=5.0))
    seen = set()
    for _ in range(300):
        seen.add(len(k.alive))
        k.check()
        k.advance(0.1)
    assert (min(seen), max(seen)) == (4, 6)
    assert k.programs == ["v2"] * 4


def test_old_workers_wait_until_new_ones_are_ready() -> None:
    k = serving(2)
    k.reload(web("slow", 2))
    k.advance(25)
    assert k.programs == ["slow", "v1", "v1"]
    k.say("web/2", ready=True)
    assert k.programs == ["slow", "slow", "v1"]


def test_without_surge_an_old_worker_goes_first() -> None:
    k = serving(3, max_surge=0, max_unavailable=1)
    k.reload(web("slow", 3, max_surge=0, max_unavailable=1))
    assert k.programs == ["slow", "v1", "v1"]
    k.say("web/0", ready=True)
    assert k.programs == ["slow", "slow", "v1"]


@pytest.mark.parametrize(
    ("share", "surge"), [(spec.Share(50, percent=True), 2), (spec.Share(30, percent=True), 2), (spec.Share(3), 3)]
)
def test_surge_as_a_percentage_is_rounded_up(share: spec.Share, surge: int) -> None:
    k = serving(4)
    k.reload(web("slow", 4)._replace(rollout=spec.Rollout(max_surge=share)))
    assert k.programs.count("slow") == surge


def test_min_ready_delays_what_a_new_worker_counts_for() -> None:
    k = serving(2)
    k.reload(web("v2", 2, min_ready=5.0))
    k.advance(4.9)
    assert k.programs == ["v1", "v1", "v2"]
    k.advance(0.2)
    assert k.programs == ["v1", "v2", "v2"]
    k.advance(5)
    assert k.programs == ["v2", "v2"]


def test_hup_reads_the_configuration_and_rolls_every_pool() -> None:
    k = serving(1, pool("other", **FAST, program="v1"))
    k.signal(HUP)
    assert k.orders == ["reload all"]
    k.reload(roll_all=True)
    assert sorted(k.programs) == ["v1", "v1"]
    k.advance(10)
    assert [o for o in k.orders if o.startswith("rollout")] == ["rollout web 2 completed", "rollout other 2 completed"]


def test_a_pool_that_runs_to_completion_is_not_rolled() -> None:
    k = serving(1, pool("job", policy="never", program="v1"))
    k.reload(pool("job", policy="never", program="v2"), roll_all=True)
    assert not any("job" in o for o in k.orders if o.startswith(("spawn", "signal")))


# -- what fails ----------------------------------------------------------------------------------------------


def test_a_new_worker_that_ends_before_it_is_ready_stops_the_rollout_and_the_old_ones_serve_on() -> None:
    k = serving(4)
    k.reload(web("bad"))
    assert k.programs == ["v1"] * 4
    assert k.orders == ["spawn web/4", "rollout web 2 failed"]
    assert "ended before it was ready" in k.m.pools["web"].last_error
    k.advance(1000)
    assert k.programs == ["v1"] * 4
    assert k.m.pools["web"].current.number == 1
    assert k.m.pools["web"].failures == 0


def test_after_a_failed_rollout_crash_replacements_keep_the_good_generation() -> None:
    k = serving(2)
    k.reload(web("bad", 2))
    k.crash("web/1")
    assert k.programs == ["v1", "v1"]
    k.ask("scale", "web", 3)
    assert k.programs == ["v1", "v1", "v1"]


def test_during_a_rollout_too() -> None:
    k = serving(2)
    k.reload(web("slow", 2))
    k.crash("web/1")
    assert k.programs == ["slow", "v1", "v1"]


def test_a_new_worker_that_dies_within_min_uptime_brings_back_what_was_replaced() -> None:
    k = serving(3)
    k.reload(web("v2", 3))
    k.advance(5)
    assert k.programs == ["v2"] * 3
    k.crash("web/3")
    assert k.orders[-1] != "rollout web 2 completed"
    k.advance(1)
    assert k.programs == ["v1"] * 3
    assert k.reports("rolled_back")
    assert k.m.pools["web"].current.number == 1
    k.check()


def test_coming_back_is_as_gentle_as_going() -> None:
    k = serving(4)
    k.reload(web("v2"))
    k.advance(1)
    k.quick = set()  # now v1 takes its time
    k.crash("web/0")
    assert sorted(k.programs) == ["v1", "v1", "v2", "v2", "v2"]
    k.say("web/0", ready=True)
    assert len([p for p in k.programs if p == "v2"]) == 3


def test_a_new_worker_that_never_gets_ready_fails_the_rollout_by_its_boot_timeout() -> None:
    k = serving(2)
    k.reload(web("slow", 2, boot_timeout=30.0))
    k.advance(31)
    assert k.programs == ["v1", "v1"]
    assert "rollout web 2 failed" in k.orders


def test_a_rollout_without_progress_fails_at_its_deadline() -> None:
    k = serving(2)
    k.reload(web("slow", 2, boot_timeout=0.0, deadline=60.0))
    k.advance(59)
    assert k.programs == ["slow", "v1", "v1"]
    k.advance(1)
    assert k.programs == ["v1", "v1"]
    assert "no progress for 60 s" in k.m.pools["web"].last_error


def test_the_deadline_is_about_progress_not_about_the_whole() -> None:
    k = serving(4)
    k.reload(web("slow", 4, boot_timeout=0.0, deadline=60.0))
    for _ in range(4):
        k.advance(50)
        k.say(next(p.id for p in k.processes.values() if k.worker(p.id).state == "starting"), ready=True)
    assert k.programs == ["slow"] * 4
    k.advance(100)
    assert "rollout web 2 completed" in k.orders


def test_a_spawn_that_the_kernel_refuses_does_not_fail_a_rollout() -> None:
    k = serving(2)
    k.refuse = "no memory"
    k.reload(web("v2", 2))
    k.advance(5)
    k.refuse = ""
    k.advance(60)
    assert k.programs == ["v2", "v2"]
    assert "rollout web 2 completed" in k.orders


def test_a_new_generation_that_cannot_be_executed_harms_nobody() -> None:
    k = serving(2)
    k.exec_errors["web"] = 127
    k.reload(web("gone", 2))
    assert k.programs == ["v1", "v1"]
    assert "cannot execute web" in k.m.pools["web"].last_error
    k.advance(100)
    assert k.exit is None


def test_a_fix_replaces_a_generation_that_crashes_in_a_loop() -> None:
    k = Machine(web("bad", 2, give_up_after=0))
    k.quick = {"v2"}
    k.doomed["bad"] = ev.Outcome(code=1)
    k.start()
    k.advance(50)
    k.reload(web("v2", 2, give_up_after=0))
    assert k.programs == ["v2", "v2"]
    k.advance(20)
    assert k.m.pools["web"].current.number == 2


def test_places_where_nobody_serves_are_filled_by_the_new_generation_at_once() -> None:
    k = Machine(web("bad", 3, give_up_after=0))
    k.doomed["bad"] = ev.Outcome(code=1)
    k.start()
    k.advance(50)
    assert k.states("web") == ["backoff"] * 3
    k.reload(web("slow", 3, give_up_after=0))
    assert k.programs == ["slow"] * 3


def test_after_a_failure_new_ones_that_still_boot_go_even_if_old_ones_are_missing() -> None:
    k = serving(2, max_surge=2)
    k.reload(web("slow", 2, max_surge=2))
    k.quick = set()  # now v1 takes its time
    k.crash("web/0")
    assert k.programs == ["slow", "slow", "v1", "v1"]
    k.crash("web/2")
    assert k.programs == ["v1", "v1"]
    assert sorted(k.states("web")) == ["ready", "starting"]


def test_a_good_generation_that_fails_by_now_is_not_respawned_without_delay() -> None:
    k = serving(1)
    k.reload(web("slow", 1))
    k.say("web/1", ready=True)
    k.doomed["v1"] = ev.Outcome(code=1)
    k.crash("web/1")
    k.advance(60)
    assert len(k.spawns) < 12
    k.check()


def test_a_pool_does_not_give_up_while_a_fix_is_on_its_way() -> None:
    k = Machine(web("bad", 1, give_up_after=3))
    k.doomed["bad"] = ev.Outcome(code=1)
    k.start()
    k.reload(web("slow", 1, give_up_after=3))
    k.advance(29)
    assert k.exit is None
    assert k.programs == ["slow"]


# -- what happens in the middle ------------------------------------------------------------------------------


def test_term_in_the_middle_of_a_rollout_is_no_later_than_without_one() -> None:
    k = serving(3, timeout=5.0)
    k.reload(web("slow", 3, timeout=5.0))
    k.stubborn.add("web")
    k.forget()
    k.signal(TERM)
    assert len(k.signals) == 4
    k.advance(5)
    assert k.code == 137
    assert "rollout web 2 aborted" in k.orders


def test_a_rollout_is_frozen_while_the_master_drains() -> None:
    k = Machine(web("v1", 2), drain_delay=10)
    k.quick = {"v1"}
    k.start()
    k.reload(web("slow", 2))
    k.forget()
    k.signal(TERM)
    k.say("web/2", ready=True)
    k.advance(9)
    assert k.signals == []
    assert len(k.alive) == 3
    k.advance(1)
    assert k.code == 0


def test_a_crash_while_the_master_drains_with_a_surge_is_not_replaced_beyond_the_size() -> None:
    k = Machine(web("v1", 2), drain_delay=10)
    k.quick = {"v1"}
    k.start()
    k.reload(web("slow", 2))
    k.signal(TERM)
    k.crash("web/0")
    assert len(k.alive) == 2
    k.crash("web/1")
    k.advance(2)
    assert len(k.alive) == 2


def test_a_second_rollout_supersedes_the_first() -> None:
    k = serving(2)
    k.reload(web("slow", 2))
    k.reload(web("v3", 2))
    assert "rollout web 2 aborted" in k.orders
    assert k.programs == ["v3", "v3"]
    k.advance(10)
    assert "rollout web 3 completed" in k.orders


def test_a_second_rollout_that_fails_leaves_what_serves() -> None:
    k = serving(3)
    k.reload(web("v2", 3))
    k.advance(1)
    assert k.programs == ["v2"] * 3
    k.reload(web("bad", 3))  # v2 is not yet known to be good
    k.advance(60)
    assert k.programs == ["v1"] * 3
    assert k.m.pools["web"].current.number == 1


def test_a_change_that_is_taken_back_is_rolled_back() -> None:
    k = serving(4)
    k.reload(web("slow"))
    k.say("web/4", ready=True)
    assert sorted(k.programs) == ["slow", "slow", "v1", "v1", "v1"]
    k.reload(web("v1"))
    k.advance(1)
    assert k.programs == ["v1"] * 4
    assert k.m.pools["web"].current.number == 1


def test_the_same_configuration_again_does_not_repeat_a_failed_rollout_but_hup_does() -> None:
    k = serving(1)
    k.reload(web("bad", 1))
    k.forget()
    k.reload(web("bad", 1))
    assert k.orders == []
    k.reload(web("bad", 1), roll_all=True)
    assert k.orders == ["spawn web/1", "rollout web 3 failed"]


def test_scaling_in_the_middle_of_a_rollout() -> None:
    k = serving(2)
    k.reload(web("slow", 2))
    k.ask("scale", "web", 4)
    assert sorted(k.programs) == ["slow"] * 3 + ["v1"] * 2
    k.check()
    k.ask("scale", "web", 1)
    k.check()
    for _ in range(3):
        for name in k.alive:
            if k.worker(name).state == "starting":
                k.say(name, ready=True)
    k.advance(20)
    assert k.programs == ["slow"]
    assert "rollout web 2 completed" in k.orders


def test_a_hung_old_worker_in_the_middle_of_a_rollout_is_replaced() -> None:
    k = serving(2, heartbeat=100.0)
    k.reload(web("slow", 2, heartbeat=100.0))
    k.say("web/0", hung=True)
    assert k.programs == ["slow", "v1", "v1"]


def test_another_kind_of_output_takes_new_workers() -> None:
    k = serving(2)
    k.reload(web("v1", 2, output="json"))
    k.advance(20)
    assert "rollout web 2 completed" in k.orders
    assert {w.template.output for w in k.m.workers.values()} == {"json"}


def test_restart_replaces_every_worker_by_the_same_program() -> None:
    k = serving(2)
    before = {p.serial for p in k.processes.values()}
    assert k.ask("restart", "web") == ""
    k.advance(20)
    assert k.programs == ["v1", "v1"]
    assert before.isdisjoint(p.serial for p in k.processes.values())


def test_a_restart_after_a_failed_rollout_tries_it_again() -> None:
    k = serving(1)
    k.reload(web("bad", 1))
    del k.doomed["bad"]
    k.quick.add("bad")
    k.ask("restart", "web")
    k.advance(20)
    assert k.programs == ["bad"]
    assert k.m.pools["web"].current.number == 3


def test_a_rollout_of_a_pool_without_workers_is_completed_at_once() -> None:
    k = serving(2)
    k.ask("scale", "web", 0)
    k.forget()
    k.ask("restart", "web")
    assert k.orders == ["rollout web 2 completed", "answer"]


def test_a_rollout_of_a_thousand_workers_costs_each_event_little() -> None:
    k = serving(1000, max_surge=50)
    k.reload(web("v2", 1000, max_surge=50))
    assert k.programs == ["v2"] * 1000


# -- live configuration --------------------------------------------------------------------------------------


def test_a_change_of_the_count_alone_restarts_nobody() -> None:
    k = serving(2)
    k.reload(web("v1", 4))
    assert k.orders == ["spawn web/2", "spawn web/3"]
    k.forget()
    k.reload(web("v1", 3))
    assert k.orders == [f"signal web/0 {TERM}"]


def test_what_only_the_master_uses_changes_without_a_restart() -> None:
    k = serving(1, timeout=5.0)
    k.reload(web("v1", 1, timeout=50.0))
    assert k.orders == []
    k.stubborn.add("web")
    k.signal(TERM)
    k.advance(49)
    assert k.signals == [("web/0", TERM)]


def test_only_pools_whose_configuration_changed_are_touched() -> None:
    k = serving(1, pool("other", **FAST, program="v1"))
    k.reload(web("v2", 1))
    assert not any("other" in o for o in k.orders)


def test_pools_appear_and_disappear() -> None:
    k = serving(1)
    k.reload(pool("more", **FAST, program="v1", after=("web",)))
    assert k.alive == ["more/0", "web/0"]
    k.spec = k.spec._replace(pools=k.spec.pools[:1])
    k.reload()
    assert k.alive == ["web/0"]
    assert list(k.m.pools) == ["web"]
    assert k.reports("worker_exited")[-1]["reason"] == "requested"


def test_a_pool_that_disappears_before_it_was_ready_is_never_said_to_be() -> None:
    k = serving(1, pool("other", **FAST, program="slow", timeout=5.0))
    k.stubborn.add("other")
    k.spec = k.spec._replace(pools=k.spec.pools[:1])
    k.forget()
    k.reload()
    k.advance(10)
    assert list(k.m.pools) == ["web"]
    assert k.reports("pool_ready") == []


def test_a_pool_that_comes_back_while_its_workers_go() -> None:
    k = serving(1, pool("other", **FAST, program="v1", timeout=5.0))
    k.stubborn.add("other")
    both = k.spec.pools
    k.spec = k.spec._replace(pools=both[:1])
    k.reload()
    k.advance(1)
    k.reload(*both)
    assert k.alive == ["other/0", "other/1", "web/0"]
    k.advance(20)
    assert k.alive == ["other/1", "web/0"]


def test_a_pool_that_waits_for_one_that_is_new() -> None:
    k = serving(1)
    k.reload(pool("b", **FAST, program="v1", after=("a",)), pool("a", **FAST, program="slow"))
    assert k.alive == ["a/0", "web/0"]
    k.say("a/0", ready=True)
    assert k.alive == ["a/0", "b/0", "web/0"]


def test_a_pool_that_is_added_during_the_start() -> None:
    k = Machine(web("slow", 1), pool("late", **FAST, program="v1", after=("web",)))
    k.quick = {"v1"}
    k.start()
    k.reload(pool("more", **FAST, program="v1"))
    assert k.alive == ["more/0", "web/0"]
    k.spec = k.spec._replace(pools=(k.spec.pools[0], k.spec.pools[2]))
    k.reload()
    assert k.m.phase == "running"


def test_a_pool_that_need_not_wait_any_more_is_started() -> None:
    k = Machine(web("slow", 1), pool("late", **FAST, program="v1", after=("web",)))
    k.quick = {"v1"}
    k.start()
    assert k.alive == ["web/0"]
    k.reload(pool("late", **FAST, program="v1"))
    assert k.alive == ["late/0", "web/0"]


def test_another_liveness_probe_looks_at_the_living() -> None:
    k = serving(1)
    k.reload(web("v1", 1, liveness=spec.Probe(tcp="127.0.0.1:1")))
    assert k.orders == ["inspect web/0 live"]


def test_a_new_socket_is_closed_at_the_stop_although_its_rollout_was_not_over() -> None:
    k = Machine(web("v1", 1, sockets=("http",)), sockets=[socket("http", 80)])
    k.quick = {"v1"}
    k.start()
    k.advance(20)
    k.reload(web("slow", 1, sockets=("http",)), sockets=(socket("http", 81),))
    k.forget()
    k.signal(TERM)
    assert "close http http" in k.orders


def test_a_key_that_cannot_change_is_reported_and_does_not_change() -> None:
    k = serving(1)
    k.reload(shutdown=spec.Shutdown(drain_delay=77.0), log=spec.Log(format="json"))
    assert [r["key"] for r in k.reports("reload_incomplete")] == ["shutdown", "log.format"]
    k.forget()
    k.reload(shutdown=spec.Shutdown(), log=spec.Log())  # taken back: nothing is left to say
    assert k.reports("reload_incomplete") == []
    k.signal(TERM)
    assert k.code == 0


def test_a_rejected_configuration_changes_nothing() -> None:
    k = serving(1)
    k.tell(ev.SpecRejected(("cannot load config.yaml:3: no such key",)))
    assert k.orders == []
    assert k.reports("reload_failed")


def test_a_reload_while_the_master_stops_is_refused() -> None:
    k = Machine(web("v1", 1), drain_delay=10)
    k.quick = {"v1"}
    k.start()
    k.signal(TERM)
    k.forget()
    k.signal(HUP)
    assert k.orders == []
    k.reload(web("v2", 1))
    assert k.programs == ["v1"]


def socket(name: str, port: int) -> spec.Socket:
    return spec.Socket(name, "tcp", port=port)


def test_a_socket_that_changes_is_held_until_no_generation_needs_it() -> None:
    old, new = socket("http", 80), socket("http", 81)
    k = Machine(web("v1", 1, sockets=("http",)), sockets=[old])
    k.quick = {"v1", "v2"}
    k.start()
    k.advance(20)
    k.forget()
    k.reload(web("slow", 1, sockets=("http",)), sockets=(new,))
    assert k.orders == ["spawn web/1"]
    k.say("web/1", ready=True)
    k.advance(10)
    assert k.orders[-2:] == ["rollout web 2 completed", "forget http"]
    closed = k.of(act.CloseSockets)[0].order
    assert isinstance(closed, act.CloseSockets)
    assert closed.sockets == (old,)


def test_a_socket_of_a_removed_pool_is_closed_before_its_workers_are_stopped() -> None:
    k = Machine(web("v1", 1, sockets=("http",)), pool("other", **FAST, program="v1"), sockets=[socket("http", 80)])
    k.quick = {"v1"}
    k.start()
    k.forget()
    k.spec = k.spec._replace(pools=k.spec.pools[1:])
    k.reload(sockets=())
    assert "forget http" in k.orders
    assert k.alive == ["other/0"]


# -- by hand -------------------------------------------------------------------------------------------------


def test_a_pinned_size_lasts_until_its_configuration_changes() -> None:
    k = serving(2)
    k.ask("scale", "web", 3)
    k.tell(ev.LimitsRead("web", 1))
    assert len(k.alive) == 3
    k.reload(web("v2", 2))
    assert k.m.pools["web"].size == 3
    k.reload(web("v2", 4))
    assert k.m.pools["web"].size == 4
    assert k.m.pools["web"].pin is None


def test_scale_reset_follows_the_limits_again() -> None:
    k = serving(2)
    k.ask("scale", "web", 5)
    k.tell(ev.LimitsRead("web", 3))
    k.ask("scale", "web")
    assert len(k.alive) == 3
    k.tell(ev.LimitsRead("web", 1))
    assert len(k.alive) == 1


def test_a_pool_is_stopped_and_started_by_hand() -> None:
    k = serving(2)
    k.ask("stop", "web")
    assert k.alive == []
    k.advance(100)
    assert k.alive == []
    k.ask("start", "web")
    assert len(k.alive) == 2


@pytest.mark.parametrize(
    ("what", "pool_name", "error"),
    [
        ("scale", "nobody", "cannot scale nobody: no such pool; there is web, job"),
        ("scale", "job", "cannot scale job: it runs to completion"),
        ("restart", "job", "cannot restart job: it runs to completion"),
        ("signal", "web", "cannot signal web: no such worker"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(what: str, pool_name: str, error: str) -> None:
    k = serving(1, pool("job", policy="never", program="v1"))
    assert k.ask(what, pool_name, 10, 77) == error


def test_nothing_can_be_asked_of_a_master_that_stops() -> None:
    k = Machine(web("v1", 1), drain_delay=10)
    k.start()
    k.signal(TERM)
    assert k.ask("restart") == "cannot restart: the master is stopping"


def test_a_signal_by_hand_reaches_one_worker_or_all() -> None:
    k = serving(2)
    k.ask("signal", "web", 10, 1)
    assert k.signals == [("web/1", 10)]
    k.ask("signal", "web", 12)
    assert k.signals[1:] == [("web/0", 12), ("web/1", 12)]


def test_the_stop_signal_by_hand_is_a_stop_in_good_order_and_the_worker_is_replaced() -> None:
    k = serving(2, timeout=5.0)
    k.stubborn.add("web/1")
    k.ask("signal", "web", TERM, 1)
    k.advance(5)
    assert k.signals == [("web/1", TERM), ("web/1", KILL)]
    assert k.alive == ["web/0", "web/1"]
    assert k.m.pools["web"].restarts == 0
    assert k.reports("worker_exited")[0]["reason"] == "requested"


def test_a_mapped_signal_does_what_the_map_says() -> None:
    k = running(pool("web", 2), signals=[(HUP, "forward"), (10, "reload"), (12, "scale_up")])
    k.signal(HUP)
    assert k.signals == [("web/0", HUP), ("web/1", HUP)]
    k.signal(10)
    assert k.orders[-1] == "reload"
    k.signal(12)
    assert k.orders[-1] == "spawn web/2"


def test_alive_is_enough_for_a_rollout_of_a_program_that_knows_nothing() -> None:
    k = starting(pool("web", 2, ready_after=10.0, program="v1"))
    k.advance(20)
    k.reload(pool("web", 2, ready_after=10.0, program="v2"))
    k.advance(9)
    assert k.programs == ["v1", "v1", "v2"]
    k.advance(1)
    assert k.programs == ["v1", "v2", "v2"]
    k.advance(10)
    assert k.programs == ["v2", "v2"]
