"""Slots, what a dead worker leaves in them, and sockets of a worker's own."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from entrypoint.config.spec import Socket
from entrypoint.core.actions import Signal
from entrypoint.core.events import SignalReceived
from tests.unit.core.harness import Machine, pool, running

QUIT, KILL, TERM, TTIN, TTOU = 3, 9, 15, 21, 22


def test_slots_are_numbered_from_0_and_pools_share_none() -> None:
    k = Machine(web=3, cron=2).start()
    assert k.spawns == [(0, f"web/{n}") for n in range(3)] + [(0, f"cron/{n}") for n in range(2)]
    assert list(k.m.workers) == [1, 2, 3, 4, 5]  # serial numbers are the master's


def test_the_replacement_of_a_crashed_worker_takes_its_slot_with_a_new_serial() -> None:
    k = running(web=3)
    before = k.worker("web/1").serial
    k.crash("web/1")
    assert k.spawns == [(0, "web/1")]
    assert k.worker("web/1").serial > before


def test_a_new_worker_takes_the_lowest_free_slot() -> None:
    k = running(web=4)
    k.signal(TTOU)  # the oldest: slot 0
    k.signal(TTOU)  # slot 1
    assert k.alive == ["web/2", "web/3"]
    k.signal(TTIN)
    k.signal(TTIN)
    k.signal(TTIN)
    assert [who for _, who in k.spawns] == ["web/0", "web/1", "web/4"]


def test_a_worker_that_overlaps_its_predecessor_gets_another_slot() -> None:
    k = running(pool("web", 2, timeout=20))
    k.stubborn.add("web/0")
    k.signal(TTOU)
    k.signal(TTIN)
    assert k.spawns == [(0, "web/2")]
    k.advance(20)
    k.signal(TTIN)
    assert k.spawns[1:] == [(20, "web/0")]


def test_a_slot_is_free_when_the_group_of_its_worker_is_gone() -> None:
    k = running(web=1)
    k.litter.add("web/0")
    k.crash("web/0")
    k.advance(0.4)
    assert k.spawns == []
    k.clean_up("web/0")
    assert k.spawns == [(0.4, "web/0")]


def test_a_group_that_does_not_go_is_killed_after_a_second() -> None:
    k = running(web=1)
    k.litter.add("web/0")
    k.crash("web/0")
    k.advance(1)
    assert k.signals_at == [(1, "web/0", KILL)]
    assert k.spawns == [(1, "web/0")]


def test_what_is_left_of_a_worker_that_was_to_stop_has_the_rest_of_its_time() -> None:
    k = running(pool("web", timeout=20))
    k.litter.add("web/0")
    k.ask("restart", "web")
    k.advance(10)  # the new one is ready, the old one gets its stop signal
    k.ask("signal", "web", TERM, 1)
    assert k.signals_at == [(10, "web/0", TERM), (10, "web/1", TERM)]
    k.advance(19.9)
    k.clean_up("web/0")
    assert k.signals_at[2:] == []
    [hint] = [str(e["hint"]) for e in k.reports("worker_exited") if "left_processes" in e]
    assert "exec" in hint


def test_what_is_left_of_a_stopped_worker_is_killed_at_its_deadline() -> None:
    k = running(pool("web", timeout=20))
    k.litter.add("web/0")
    k.ask("signal", "web", TERM)
    k.advance(20)
    assert k.signals_at == [(0, "web/0", TERM), (20, "web/0", KILL)]
    assert k.reports("worker_killed") == [{"reason": "left processes"}]
    assert k.spawns == [(20, "web/0")]


def test_a_shutdown_gives_what_is_left_no_more_time_than_a_stop_has() -> None:
    k = running(pool("web", timeout=20))
    k.litter.add("web/0")
    k.say("web/0", stopping=True, extend=500.0)
    k.finish("web/0")
    k.advance(3)
    k.signal(TERM)
    k.advance(20)
    assert k.signals_at == [(23, "web/0", KILL)]
    assert k.exited_at == 23


def test_a_stop_and_an_abort_are_seen_by_a_worker_that_is_stopped_and_what_is_passed_on_need_not_be() -> None:
    k = running(pool("web", 3, when="notify", heartbeat=2.0, abort_signal=6))
    k.tell(SignalReceived(10))
    k.ask("signal", "web", 12, 0)
    k.say("web/0", ready=True)
    k.say("web/0", hung=True)
    k.say("web/1", ready=True)
    k.ask("signal", "web", TERM, 1)
    orders = [(r.id, r.order.signum, r.order.wake) for r in k.of(Signal) if isinstance(r.order, Signal)]
    passed_on = [("web/0", 10, False), ("web/1", 10, False), ("web/2", 10, False), ("web/0", 12, False)]
    assert orders == [*passed_on, ("web/0", 6, True), ("web/1", TERM, True)]


def test_the_time_a_group_takes_does_not_make_a_failed_boot_a_good_one() -> None:
    k = running(pool("web", min_uptime=10))
    for _ in range(2):
        k.crash("web/0")
    k.litter.add("web/0")
    k.advance(9.5)
    k.crash("web/0")  # 9.5 s old; its group will be gone when it would be 10.5 s old
    k.advance(1)
    assert k.m.pools["web"].failures == 2


# -- one SO_REUSEPORT socket a worker ------------------------------------------------------------------------

OWN = Socket("http", "tcp", reuse_port=True)


def served(**settings: Any) -> Machine:
    return running(pool("web", 2, sockets=("http",), **settings), sockets=[OWN])


def test_a_worker_is_chosen_when_its_program_runs_and_no_longer_when_it_is_gone() -> None:
    k = Machine(pool("web", sockets=("http",)), sockets=[OWN]).start()
    assert k.orders == ["spawn web/0", "select web/0"]
    k.crash("web/0")
    assert k.orders[2:] == ["unselect ", "spawn web/0", "select web/0"]


def test_a_shared_socket_needs_no_choice() -> None:
    k = running(pool("web", 2, sockets=("http",)), sockets=[Socket("http", "tcp")])
    k.signal(TTOU)
    assert k.orders == [f"signal web/0 {TERM}"]


def test_a_worker_is_stopped_when_its_queue_is_empty_and_quiesce_has_passed() -> None:
    k = served(quiesce=0.2)
    k.queues["web/0"] = deque([3, 1])
    k.signal(TTOU)
    assert k.orders == ["unselect web/0"]
    k.advance(0.1)
    assert k.orders == ["unselect web/0"]
    k.advance(0.5)
    assert k.orders[1:] == ["check web/0"] * 3 + [f"signal web/0 {TERM}"]
    assert k.signals_at == [(0.3, "web/0", TERM)]


def test_a_worker_gets_to_read_what_it_has_accepted() -> None:
    k = served(quiesce=0.2)
    k.busy.add("web/0")
    k.signal(TTOU)
    k.advance(1)
    assert k.signals == []
    k.busy.clear()
    k.advance(1)
    [(when, *signal)] = k.signals_at
    assert signal == ["web/0", TERM]
    assert when == pytest.approx(1, abs=0.06)


def test_a_worker_that_never_rests_gets_three_seconds_after_its_queue_is_empty() -> None:
    k = served(quiesce=0.2, timeout=20)
    k.queues["web/0"] = deque([1] * 20)
    k.busy.add("web/0")
    k.signal(TTOU)
    k.advance(10)
    [(when, *signal)] = k.signals_at
    assert signal == ["web/0", TERM]
    assert when == pytest.approx(0.2 + 19 * 0.05 + 3, abs=0.06)


def test_a_queue_that_never_empties_gets_half_of_the_time() -> None:
    k = served(quiesce=0.2, timeout=10)
    k.queues["web/0"] = deque([1] * 1000)
    k.stubborn.add("web/0")
    k.signal(TTOU)
    k.advance(20)
    assert k.signals_at == [(5, "web/0", TERM), (10, "web/0", KILL)]


def test_a_queue_that_cannot_be_counted_holds_up_nothing() -> None:
    k = served(quiesce=0.2, timeout=10)
    k.mute = True
    k.stubborn.add("web/0")
    k.signal(TTOU)
    k.advance(20)
    assert k.signals_at == [(5, "web/0", TERM), (10, "web/0", KILL)]


def test_a_worker_that_dies_while_it_falls_silent_is_not_signalled() -> None:
    k = served()
    k.queues["web/0"] = deque([1] * 1000)
    k.signal(TTOU)
    k.advance(1)
    k.crash("web/0")
    k.advance(30)
    assert k.signals == []
    assert k.alive == ["web/1"]


def test_quit_does_not_wait_for_a_queue() -> None:
    k = served(timeout=10)
    k.queues["web/0"] = deque([1] * 1000)
    k.signal(TTOU)
    k.advance(1)
    k.signal(QUIT)
    assert k.signals_at == [(1, "web/0", TERM), (1, "web/1", TERM)]
    assert k.code == 0


def test_a_stop_while_a_worker_falls_silent_sends_one_stop_signal() -> None:
    k = served(timeout=10, quiesce=0.5)
    k.signal(TTOU)
    k.signal(TERM)
    k.advance(0.5)
    assert k.signals_at == [(0, "web/1", TERM), (0.5, "web/0", TERM)]
    assert (k.code, k.exited_at) == (0, 0.5)
