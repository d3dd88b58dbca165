"""Readiness, heartbeats, hung workers, lifecycle commands."""

from __future__ import annotations

import pytest

from entrypoint.config import spec
from entrypoint.core import actions as act
from entrypoint.core import events as ev
from tests.unit.core.harness import Machine, pool, running, starting

ABRT, KILL, TERM = 6, 9, 15


def notify(name: str = "web", workers: int = 1, **settings: object) -> spec.Pool:
    return pool(name, workers, when="notify", **{"boot_timeout": 30.0, **settings})


def serving(*pools: spec.Pool, **options: object) -> Machine:
    """Everybody has said READY=1 long ago."""
    k = starting(*pools, **options)
    for name in k.alive:
        k.say(name, ready=True)
    for _ in range(20):
        k.advance(1)
        k.beat()
    k.zero = k.clock
    k.forget()
    return k


# -- readiness -----------------------------------------------------------------------------------------------


def test_a_worker_is_ready_when_it_says_so() -> None:
    k = starting(notify())
    k.advance(20)
    assert k.states("web") == ["starting"]
    k.say("web/0", ready=True)
    assert k.states("web") == ["ready"]
    assert k.m.phase == "running"


def test_ready_counts_even_if_it_comes_before_the_news_of_the_exec() -> None:
    k = Machine(notify())
    k.slow_exec.add("web")
    k.start()
    k.say("web/0", ready=True)
    assert k.states("web") == ["starting"]
    k.tell(ev.Executed(k.process("web/0").serial))
    assert k.states("web") == ["ready"]


def test_a_message_does_not_make_a_worker_ready_that_is_ready_by_age() -> None:
    k = starting(pool("web", ready_after=10.0))
    k.say("web/0", ready=True)
    assert k.states("web") == ["starting"]
    k.advance(10)
    assert k.states("web") == ["ready"]


@pytest.mark.parametrize("when", ["accepting", "probe"])
def test_a_worker_is_ready_when_it_is_seen_to_work(when: str) -> None:
    k = starting(pool("web", when=when))
    assert k.orders == ["spawn web/0", "inspect web/0 ready"]
    k.tell(ev.Proved(k.process("web/0").serial))
    assert k.states("web") == ["ready"]


def test_a_worker_that_cannot_be_seen_is_ready_by_age() -> None:
    k = starting(pool("web", when="accepting"))
    k.tell(ev.NotVisible(k.process("web/0").serial, "cannot look into /proc/7"))
    assert k.states("web") == ["starting"]
    assert k.reports("worker_not_visible")
    k.advance(10)
    assert k.states("web") == ["ready"]


def test_a_worker_stuck_in_boot_is_aborted_then_killed_and_that_is_a_failed_boot() -> None:
    k = Machine(notify(boot_timeout=30.0, abort_grace=5.0, give_up_after=2, min_uptime=10.0))
    k.stubborn.add("web")
    k.start()
    k.advance(36)
    assert k.signals_at[:2] == [(30, "web/0", ABRT), (35, "web/0", KILL)]
    assert k.reports("worker_exited")[0]["reason"] == "boot_timeout"
    k.advance(40)
    assert k.code == 137  # the second one in a row, though each lived for longer than min_uptime


def test_no_boot_timeout_is_no_boot_timeout() -> None:
    k = starting(notify(boot_timeout=0.0))
    k.advance(1e5)
    assert k.alive == ["web/0"]
    assert k.signals == []


def test_a_boot_may_ask_for_more_time() -> None:
    k = starting(notify(boot_timeout=30.0))
    k.advance(25)
    k.say("web/0", extend=20.0)
    k.advance(19)
    assert k.signals == []
    k.advance(1.5)
    assert k.signals == [("web/0", ABRT)]


# -- heartbeats ----------------------------------------------------------------------------------------------


def test_a_silent_worker_gets_the_abort_signal_and_all_of_its_grace_before_sigkill() -> None:
    k = serving(notify(workers=2, heartbeat=30.0, abort_grace=5.0))
    k.stubborn.add("web/1")
    for _ in range(45):
        k.beat("web/0")
        k.advance(1)
    assert k.signals_at == [(30, "web/1", ABRT), (35, "web/1", KILL)]
    assert k.reports("worker_exited") == [{"reason": "heartbeat_timeout", "signal": KILL, "uptime": 55.0}]
    assert k.alive == ["web/0", "web/1"]


def test_each_hung_worker_has_a_deadline_of_its_own() -> None:
    k = serving(notify(workers=2, heartbeat=30.0, abort_grace=5.0))
    k.stubborn.add("web")
    k.advance(2)
    k.beat("web/1")
    k.advance(38)
    assert k.signals_at == [(30, "web/0", ABRT), (32, "web/1", ABRT), (35, "web/0", KILL), (37, "web/1", KILL)]


def test_a_worker_that_obeys_the_abort_signal_is_replaced_at_once_and_counted() -> None:
    k = serving(notify(heartbeat=2.0))
    k.advance(2)
    assert k.signals == [("web/0", ABRT)]
    assert k.alive == ["web/0"]
    assert k.m.pools["web"].restarts == 1


def test_beats_count_from_ready_on() -> None:
    k = starting(notify(heartbeat=2.0, boot_timeout=0.0))
    k.advance(100)
    assert k.signals == []
    k.say("web/0", ready=True)
    k.advance(2)
    assert k.signals == [("web/0", ABRT)]


def test_beats_are_not_asked_for_after_the_stop_signal() -> None:
    k = serving(notify(heartbeat=2.0, timeout=20.0))
    k.stubborn.add("web")
    k.signal(TERM)
    k.advance(19)
    assert k.signals == [("web/0", TERM)]


def test_a_worker_can_call_itself_hung() -> None:
    k = serving(notify(heartbeat=30.0))
    k.say("web/0", hung=True)
    assert k.signals == [("web/0", ABRT)]


def test_a_worker_can_call_itself_hung_before_it_is_ready() -> None:
    k = starting(notify())
    k.say("web/0", hung=True)
    assert k.signals == [("web/0", ABRT)]


def test_a_worker_on_its_way_out_owes_no_beat_and_has_the_time_of_a_stop() -> None:
    k = serving(notify(heartbeat=2.0, timeout=20.0))
    k.stubborn.add("web")
    k.say("web/0", stopping=True)
    k.advance(19)
    assert k.signals == []
    assert len(k.m.pools["web"].workers) == 1
    k.advance(1)
    assert k.signals == [("web/0", KILL)]


def test_a_worker_on_its_way_out_gets_no_stop_signal() -> None:
    k = serving(notify(timeout=20.0))
    k.stubborn.add("web")
    k.say("web/0", stopping=True)
    k.signal(TERM)
    k.advance(20)
    assert k.signals == [("web/0", KILL)]
    assert k.code == 137


def test_a_worker_on_its_way_out_may_ask_for_more_time() -> None:
    k = serving(notify(timeout=20.0))
    k.stubborn.add("web")
    k.say("web/0", stopping=True, extend=30.0)
    k.advance(25)
    k.say("web/0", extend=30.0)
    k.advance(40)
    assert k.signals_at == [(55, "web/0", KILL)]


@pytest.mark.parametrize(("pre_stop", "asked"), [(False, 0), (True, 37)])
def test_more_time_does_not_outlast_the_grace_period_of_a_stop_that_comes_later(*, pre_stop: bool, asked: int) -> None:
    k = serving(notify(timeout=5.0, pre_stop=pre_stop))
    k.hooks["pre_stop"] = None
    k.m.spec = k.m.spec._replace(shutdown=spec.Shutdown(grace_period=30.0))
    k.stubborn.add("web")
    assert k.ask("scale", "web", 0) == ""
    k.say("web/0", extend=3600.0)
    k.advance(10)
    k.signal(TERM)
    k.advance(60)
    assert k.signals_at == [(asked, "web/0", TERM), (38, "web/0", KILL)]


def test_nor_does_that_of_a_worker_on_its_way_out() -> None:
    k = serving(notify(timeout=5.0))
    k.m.spec = k.m.spec._replace(shutdown=spec.Shutdown(grace_period=30.0))
    k.stubborn.add("web")
    k.say("web/0", stopping=True, extend=3600.0)
    k.advance(10)
    k.signal(TERM)
    k.advance(60)
    assert k.signals_at == [(38, "web/0", KILL)]


def test_a_master_that_was_stopped_for_three_timeouts_kills_nobody() -> None:
    k = serving(notify(workers=3, heartbeat=10.0))
    k.clock += 30
    k.tell(ev.Stalled(20.0))
    k.run_due()
    assert k.signals == []
    k.advance(9)
    k.beat("web/0")
    k.advance(2)
    assert sorted(k.signals) == [("web/1", ABRT), ("web/2", ABRT)]


def test_a_master_that_was_stopped_ends_no_boot() -> None:
    k = starting(notify(boot_timeout=10.0))
    k.clock += 30
    k.tell(ev.Stalled(20.0))
    k.run_due()
    assert k.signals == []
    k.advance(10)
    assert k.signals == [("web/0", ABRT)]


def test_beats_that_are_told_in_bulk_are_those_of_each() -> None:
    k = serving(notify(workers=3, heartbeat=10.0))
    gone = 999
    k.advance(8)
    k.tell(ev.Beats((k.worker("web/0").serial, gone, k.worker("web/2").serial)))
    k.advance(4)
    assert k.signals == [("web/1", ABRT)]
    k.advance(6.1)
    assert k.signals == [("web/1", ABRT), ("web/0", ABRT), ("web/2", ABRT)]


def test_a_worker_that_falls_silent_among_others_has_its_own_deadline_whatever_the_order_of_beats() -> None:
    k = serving(notify(workers=4, heartbeat=10.0))
    for second in range(1, 13):
        k.advance(1)
        k.beat(*(f"web/{slot}" for slot in (3, 1, 0, 2) if slot != 1 or second <= 5))
    assert k.signals_at == []
    k.advance(5)
    assert k.signals_at == [(15, "web/1", ABRT)]


def test_who_is_gone_is_watched_no_more() -> None:
    k = serving(notify(workers=3, heartbeat=10.0))
    k.crash("web/1")
    assert len(k.m.heartbeats[10.0].workers) == 2
    k.signal(TERM)
    assert k.m.heartbeats[10.0].workers == {}


def test_a_beat_gives_no_order_and_arms_nothing() -> None:
    k = serving(notify(workers=50, heartbeat=30.0))
    before = k.m.next_deadline(), len(k.m.deadlines)
    for _ in range(100):
        k.beat()
    assert (k.m.next_deadline(), len(k.m.deadlines)) == before
    assert k.orders == []


def test_a_hung_worker_at_the_stop_is_killed_no_later_than_its_stop_timeout() -> None:
    k = serving(notify(heartbeat=2.0, abort_grace=50.0, timeout=3.0))
    k.stubborn.add("web")
    k.advance(2)
    k.signal(TERM)
    k.advance(3)
    assert k.signals == [("web/0", ABRT), ("web/0", KILL)]
    assert k.exit is not None or not k.alive


# -- liveness ------------------------------------------------------------------------------------------------


def test_a_worker_that_is_not_live_is_stopped_in_good_order_and_replaced() -> None:
    k = starting(pool("web", 2, ready_after=1.0, liveness=spec.Probe(tcp="127.0.0.1:1"), timeout=5.0))
    k.advance(1)
    assert k.orders[-2:] == ["inspect web/0 live", "inspect web/1 live"]
    k.stubborn.add("web/1")
    k.tell(ev.NotLive(k.process("web/1").serial, "refused"))
    k.advance(5)
    assert k.signals == [("web/1", TERM), ("web/1", KILL)]
    assert k.reports("worker_exited")[0]["reason"] == "liveness"
    assert k.alive == ["web/0", "web/1"]
    assert k.m.pools["web"].restarts == 1


def test_a_probe_that_speaks_late_changes_nothing() -> None:
    k = serving(notify())
    serial = k.process("web/0").serial
    k.signal(TERM)
    k.tell(ev.NotLive(serial, "refused"))
    assert k.code == 0


# -- lifecycle -----------------------------------------------------------------------------------------------


def test_a_worker_is_not_ready_before_post_start_is_done() -> None:
    k = Machine(notify(post_start=True))
    k.hooks["post_start"] = None
    k.start()
    k.say("web/0", ready=True)
    assert k.states("web") == ["starting"]
    k.end_hook("web/0")
    assert k.states("web") == ["ready"]


def test_a_post_start_that_fails_is_a_failed_boot() -> None:
    k = Machine(notify(post_start=True, give_up_after=2))
    k.hooks["post_start"] = "exit code 3"
    k.start()
    k.advance(10)
    assert k.signals == [("web/0", TERM), ("web/0", TERM)]
    assert "failed boots" in k.reason
    assert k.code == 137  # they ended with 0 when told to, and failed all the same


def test_a_post_start_that_hangs_is_ended_by_the_boot_timeout() -> None:
    k = Machine(notify(post_start=True, boot_timeout=5.0))
    k.hooks["post_start"] = None
    k.start()
    k.say("web/0", ready=True)
    k.advance(5)
    assert k.orders[2:4] == ["kill hook of web/0", f"signal web/0 {ABRT}"]


def test_pre_stop_comes_before_the_stop_signal() -> None:
    k = serving(notify(pre_stop=True, timeout=20.0))
    k.hooks["pre_stop"] = None
    k.signal(TERM)
    k.advance(7)
    assert k.orders == ["run web/0 pre_stop"]
    k.end_hook("web/0")
    assert k.signals_at == [(7, "web/0", TERM)]
    assert k.code == 0


@pytest.mark.parametrize(("timeout", "left"), [(20.0, 1.0), (1.0, 0.5)])
def test_a_pre_stop_that_hangs_leaves_time_for_the_stop_signal(timeout: float, left: float) -> None:
    k = serving(notify(pre_stop=True, timeout=timeout))
    k.hooks["pre_stop"] = None
    k.stubborn.add("web")
    k.signal(TERM)
    k.advance(timeout)
    assert k.signals_at == [(timeout - left, "web/0", TERM), (timeout, "web/0", KILL)]
    assert "kill hook of web/0" in k.orders


def test_a_pre_stop_that_fails_stops_nothing_from_stopping() -> None:
    k = serving(notify(pre_stop=True))
    k.hooks["pre_stop"] = "exit code 1"
    k.signal(TERM)
    assert k.reports("hook_failed")
    assert k.code == 0


def test_quiesce_and_pre_stop_run_side_by_side() -> None:
    sockets = [spec.Socket("http", "tcp", port=80, reuse_port=True)]
    k = serving(notify(workers=2, pre_stop=True, quiesce=0.2, sockets=("http",)), sockets=sockets)
    k.hooks["pre_stop"] = None
    assert k.ask("signal", "web", TERM, 1) == ""
    k.advance(3)
    assert k.orders == ["unselect web/1", "run web/1 pre_stop", "answer"]
    k.end_hook("web/1")
    assert k.signals_at == [(3, "web/1", TERM)]


def test_a_second_stop_does_not_wait_for_pre_stop() -> None:
    k = serving(notify(pre_stop=True, timeout=20.0))
    k.hooks["pre_stop"] = None
    k.signal(TERM)
    k.signal(3)
    assert k.orders == ["run web/0 pre_stop", "kill hook of web/0", f"signal web/0 {TERM}", "sweep 15", "exit 0"]


def test_a_stop_deadline_can_be_extended_but_not_beyond_the_grace_period() -> None:
    k = Machine(notify(timeout=5.0))
    k.spec = k.spec._replace(shutdown=spec.Shutdown(grace_period=30.0))
    k.m.spec = k.spec
    k.stubborn.add("web")
    k.start()
    k.say("web/0", ready=True)
    k.zero = k.clock
    k.signal(TERM)
    k.say("web/0", extend=1000.0)
    k.advance(40)
    assert k.signals_at == [(0, "web/0", TERM), (28, "web/0", KILL)]


# -- helpers -------------------------------------------------------------------------------------------------


def with_helper(*pools: spec.Pool) -> Machine:
    k = Machine(*pools, helpers=(("monitor", spec.Process(("monitor",), "monitor")),))
    return k.start()


def test_a_helper_is_started_again_for_ever_and_counts_nowhere() -> None:
    k = with_helper(notify())
    k.say("web/0", ready=True)
    for _ in range(50):
        k.crash("monitor/0")
        k.advance(1.0)
        assert k.alive == ["monitor/0", "web/0"]
    assert k.m.phase == "running"


def test_a_helper_stops_last() -> None:
    k = with_helper(notify(timeout=5.0))
    k.stubborn.add("web")
    k.signal(TERM)
    k.advance(4)
    assert "monitor/0" in k.alive
    k.advance(1)
    assert k.signals == [("web/0", TERM), ("web/0", KILL), ("monitor/0", TERM)]
    assert k.code == 137


def test_a_stubborn_helper_delays_the_end_by_a_moment_at_most() -> None:
    k = with_helper(notify())
    k.stubborn.add("monitor")
    k.signal(TERM)
    k.advance(0.3)
    assert k.code == 0


@pytest.mark.parametrize(("grace", "seconds"), [(0.0, 5.0), (30.0, 5.0), (2.5, 1.3)])
def test_a_helper_that_asks_for_much_time_gets_no_more_than_a_grace_period_has(grace: float, seconds: float) -> None:
    k = Machine(notify())
    k.m.spec = k.m.spec._replace(shutdown=spec.Shutdown(grace_period=grace))
    k.start()
    k.tell(ev.HelperWanted("logger", spec.Process(("logger",), "logger"), 5.0))
    k.run_due()
    k.stubborn.add("logger")
    k.signal(TERM)
    k.advance(seconds - 0.1)
    assert "logger/0" in k.alive
    k.advance(0.1)
    assert "logger/0" not in k.alive
    assert k.code == 0


def test_signals_are_not_forwarded_to_helpers() -> None:
    k = with_helper(notify())
    k.signal(10)
    assert k.signals == [("web/0", 10)]


def test_quit_takes_helpers_along() -> None:
    k = with_helper(notify())
    k.signal(3)
    k.advance(1)
    assert k.code == 0
    assert isinstance(k.records[-1].order, act.Exit)
    assert not k.alive


def test_the_master_gives_up_with_a_helper_running() -> None:
    k = Machine(pool("web", give_up_after=1), helpers=(("monitor", spec.Process(("monitor",), "monitor")),))
    k.doomed["web"] = ev.Outcome(code=4)
    k.start()
    k.advance(2)
    assert k.code == 4


def test_nobody_is_asked_twice_to_go() -> None:
    k = running(web=3)
    k.stubborn.add("web")
    k.ask("scale", "web", 1)
    k.signal(TERM)
    assert sorted(k.signals) == [("web/0", TERM), ("web/1", TERM), ("web/2", TERM)]
