"""What the master does about signals other than those that end it."""

from __future__ import annotations

import pytest

from entrypoint.core.events import Resized, SignalReceived
from tests.unit.core.harness import Machine, init, pool, running, starting

HUP, INT, QUIT, USR1, USR2, TERM, TTIN, TTOU, WINCH = 1, 2, 3, 10, 12, 15, 21, 22, 28


@pytest.mark.parametrize("signum", [USR1, USR2])
def test_user_signals_are_forwarded_to_every_worker(signum: int) -> None:
    k = running(web=2, cron=1)
    k.signal(signum)
    assert k.signals == [("web/0", signum), ("web/1", signum), ("cron/0", signum)]


def test_nothing_is_forwarded_to_a_slot_without_a_process() -> None:
    k = running(pool("web", 2, min_uptime=1e6))
    k.crash("web/1")
    k.crash("web/1")
    k.litter.add("web/0")
    k.crash("web/0")
    k.forget()
    k.signal(USR1)
    assert k.signals == []


def test_a_pool_s_next_worker_does_not_get_an_old_signal() -> None:
    k = Machine(web=1)
    k.signal(USR1)
    k.start()
    assert k.signals == []


def test_a_signal_that_is_mapped_does_that() -> None:
    k = running(web=1, signals=[(WINCH, "forward"), (USR1, "shutdown"), (HUP, "ignore")])
    k.signal(WINCH)
    k.signal(HUP)
    assert k.signals == [("web/0", WINCH)]
    k.signal(USR1)
    assert k.code == 0


def test_others_are_ignored_and_that_is_said_once_each() -> None:
    k = running(web=1, signals=[(40, "ignore")])
    k.tell(SignalReceived(WINCH, of_terminal=True))
    assert k.records == []
    for signum in (WINCH, 44, 40, 44, WINCH):
        k.signal(signum)
    assert k.orders == []
    assert k.reports("signal_ignored") == [{"signal": WINCH}, {"signal": 44}]


# -- size ----------------------------------------------------------------------------------------------------


def test_ttin_adds_a_worker_to_the_first_pool() -> None:
    k = running(web=1, cron=1)
    k.signal(TTIN)
    assert k.spawns == [(0, "web/1")]
    assert k.m.pools["web"].pinned


def test_ttou_stops_the_oldest_worker_of_the_first_pool() -> None:
    k = running(web=3, cron=3)
    k.crash("web/0")  # so web/1 is the oldest
    k.forget()
    k.signal(TTOU)
    assert k.signals == [("web/1", TERM)]
    assert k.reports("worker_exited") == [{"reason": "scale_down", "code": 0, "uptime": 45}]
    k.advance(100)
    assert k.alive == ["cron/0", "cron/1", "cron/2", "web/0", "web/2"]


def test_ttou_never_goes_below_one() -> None:
    k = running(web=2)
    for _ in range(5):
        k.signal(TTOU)
        k.advance(1)
    assert k.alive == ["web/1"]
    k.signal(TTIN)
    assert k.alive == ["web/0", "web/1"]


def test_ttou_takes_a_slot_in_backoff_first() -> None:
    k = running(pool("web", 2, min_uptime=1e6))
    k.crash("web/1")
    k.crash("web/1")
    k.forget()
    k.signal(TTOU)
    assert k.signals == []
    k.advance(100)
    assert k.alive == ["web/0"]


def test_ttou_does_not_stop_a_healthy_worker_for_one_that_has_just_died() -> None:
    k = running(web=2)
    k.litter.add("web/1")
    k.crash("web/1")  # what it left behind still occupies its slot
    k.forget()
    k.signal(TTOU)
    assert k.signals == []
    k.advance(100)
    assert k.alive == ["web/0"]
    k.check()


def test_a_stubborn_worker_that_is_scaled_away_is_killed_at_its_deadline() -> None:
    k = running(pool("web", 2, timeout=7))
    k.stubborn.add("web")
    k.signal(TTOU)
    k.advance(6.9)
    assert k.signals == [("web/0", TERM)]
    k.advance(0.1)
    assert k.signals_at[1:] == [(7, "web/0", 9)]
    k.stubborn.clear()
    k.signal(TERM)
    assert k.code == 0  # that kill was not the shutdown's


def test_the_size_can_be_changed_before_the_pool_starts() -> None:
    k = starting(pool("web", 4), init=[init("migrate")])
    k.signal(TTIN)
    k.signal(TTIN)
    k.signal(TTOU)
    k.finish("init:migrate/0")
    assert len(k.alive) == 5


def test_a_smaller_pool_may_be_ready_at_once_and_so_start_those_that_wait_for_it() -> None:
    k = starting(pool("db", 2, min_uptime=1e6), pool("web", after=("db",)))
    k.slow_exec.add("db/1")
    k.crash("db/1")
    k.advance(12)
    k.crash("db/1")
    assert k.states("db") == ["ready", "backoff"]
    assert "web/0" not in k.alive
    k.signal(TTOU)
    assert "web/0" in k.alive


def test_limits_resize_a_pool_that_is_not_pinned() -> None:
    k = running(web=2)
    k.tell(Resized("web", 4))
    k.run_due()
    assert len(k.alive) == 4
    k.tell(Resized("web", 4))
    k.signal(TTOU)
    k.tell(Resized("web", 8))
    k.tell(Resized("nobody", 8))
    k.run_due()
    assert len(k.alive) == 3


def test_a_pool_that_runs_to_completion_is_not_filled_again_by_limits() -> None:
    k = starting(pool("job", 3, policy="never"))
    k.finish("job/0")
    k.tell(Resized("job", 3))
    k.run_due()
    assert k.alive == ["job/1", "job/2"]
    k.signal(TTIN)
    k.signal(TTOU)
    assert k.alive == ["job/1", "job/2"]
    k.finish("job/1")
    k.finish("job/2")
    assert k.code == 0


def test_the_size_is_frozen_while_the_master_drains() -> None:
    k = running(web=2, drain_delay=10)
    k.signal(TERM)
    k.signal(TTIN)
    k.signal(TTOU)
    k.tell(Resized("web", 9))
    k.advance(9)
    assert k.alive == ["web/0", "web/1"]


# -- init mode -----------------------------------------------------------------------------------------------


MAIN = pool("main", policy="never", timeout=None, foreground=True)


@pytest.mark.parametrize("signum", [HUP, INT, QUIT, USR1, USR2, TERM, WINCH, 34])
def test_init_mode_forwards_every_signal_and_does_nothing_else(signum: int) -> None:
    k = running(MAIN)
    k.stubborn.add("main")
    k.signal(signum)
    k.signal(signum)
    k.advance(1000)
    assert k.orders == [f"signal main/0 {signum}"] * 2


def test_init_mode_holds_a_signal_until_its_worker_exists() -> None:
    k = Machine(MAIN)
    k.signal(USR1)
    k.signal(TERM)
    assert k.orders == []
    k.stubborn.add("main")
    k.start()
    k.advance(1)
    assert k.orders == ["spawn main/0", f"signal main/0 {USR1}", f"signal main/0 {TERM}"]


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_of_init_mode_is_the_worker_s(code: int) -> None:
    k = running(MAIN)
    k.finish("main/0", code)
    assert k.code == code


def test_a_signal_that_ends_the_worker_of_init_mode_is_128_and_more() -> None:
    k = running(MAIN)
    k.crash("main/0", signal=11)
    assert k.code == 139


def test_init_mode_ends_what_its_worker_left_in_its_group() -> None:
    k = running(MAIN)
    k.litter.add("main")
    k.finish("main/0", 5)
    assert k.exit is None
    k.advance(1)
    assert k.signals_at == [(1, "main/0", 9)]
    assert k.code == 5
