"""Processes of the master's own among workers: who goes first, and what is said when there is no process to be had."""

from __future__ import annotations

from typing import Any

from entrypoint.config import spec
from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.core import status
from tests.unit.core.harness import Machine, pool

OBSERVER = (("observer", spec.Process(("observer",), "observer")),)
PATIENT = spec.Restart(backoff=spec.Backoff(initial=1.0, max=8.0, jitter=0.0))


def with_observer(workers: int, room: float = float("inf"), **settings: Any) -> Machine:
    """One that is told of its observer after its first worker, as the loop does."""
    k = Machine(pool("web", workers, **settings)._replace(restart=PATIENT))
    k.room = room
    k.tell(ev.Started())
    k.tell(ev.Ticked())
    k.tell(ev.HelperWanted(*OBSERVER[0]))
    k.run_due()
    return k


def levels_of(k: Machine, event: str) -> list[str]:
    return [r.order.level for r in k.records if isinstance(r.order, act.Report) and r.order.event == event]


def test_a_helper_goes_before_the_workers_that_are_still_to_be_spawned() -> None:
    k = with_observer(4)
    assert [who for _, who in k.spawns] == ["web/0", "observer/0", "web/1", "web/2", "web/3"]


def test_a_helper_that_ended_goes_before_workers_that_have_waited_for_longer() -> None:
    k = with_observer(4, room=3)
    assert k.alive == ["observer/0", "web/0", "web/1"]
    k.advance(5)
    k.crash("observer/0")
    assert k.alive == ["observer/0", "web/0", "web/1"]
    k.check()


def test_what_a_helper_leaves_free_is_for_its_successor_although_that_has_to_pause() -> None:
    k = with_observer(4, room=3)
    k.advance(1.1)  # workers have waited, and would have their turn soon
    k.m.held_until = k.clock
    k.crash("observer/0")
    k.crash("observer/0")  # it has not lived for long
    assert k.alive == ["web/0", "web/1"]
    k.advance(0.1)
    assert k.alive == ["observer/0", "web/0", "web/1"]
    k.check()


def test_a_refused_worker_holds_no_helper_back() -> None:
    k = with_observer(2, room=1)
    assert k.alive == ["web/0"]
    k.m.held_until = k.clock + 1000  # of workers
    k.room = 2
    k.advance(1)
    assert k.alive == ["observer/0", "web/0"]


def test_a_refused_helper_has_the_first_process_that_is_free() -> None:
    k = with_observer(3, room=1)
    k.advance(0.5)  # its next turn of its own has not come
    k.m.held_until = k.clock
    k.forget()
    k.crash("web/0")
    assert next(who for _, who in k.spawns) == "observer/0"
    assert k.alive == ["observer/0"]
    k.check()


def test_a_helper_that_is_always_refused_keeps_no_worker_from_its_turn() -> None:
    """Whatever it is that the kernel does not give to helpers alone."""
    k = with_observer(3)
    k.grudge = "observer"
    k.crash("observer/0")
    for slot in range(3):
        k.crash(f"web/{slot}")
    k.advance(10)
    assert k.alive == ["web/0", "web/1", "web/2"]
    k.check()


def test_what_a_helper_is_refused_is_told_once() -> None:
    k = with_observer(1, room=1)
    k.advance(20)
    levels = levels_of(k, "spawn_refused")
    assert levels[0] == "error"
    assert len(levels) > 10
    assert set(levels[1:]) == {"debug"}


def test_why_a_helper_cannot_run_is_told_once_and_again_after_it_ran() -> None:
    k = with_observer(1)
    k.exec_errors["observer"] = 70
    k.advance(5)
    for _ in range(2):
        k.forget()
        k.crash("observer/0", code=1)  # it was able to run
        k.advance(10)
        levels = levels_of(k, "worker_exited")
        assert levels.count("error") == 1
        assert levels.count("debug") > 5
        k.exec_errors.clear()
        k.advance(10)
        k.exec_errors["observer"] = 70


def test_readiness_and_startup_say_what_the_kernel_refuses() -> None:
    k = with_observer(2, room=2, min_ready_workers=spec.Share(2.0))
    k.advance(15)
    why = "cannot spawn web: no room"
    assert status.readiness(k.m) == (False, f"web: 1 of 2 ready ({why})")
    assert status.startup(k.m) == (False, f"not all ready yet: web ({why})")
    k.room = 3
    k.advance(60)
    assert status.readiness(k.m) == (True, "")
    assert status.startup(k.m) == (True, "")


def test_readiness_says_that_an_init_command_has_no_process() -> None:
    k = Machine(pool("web", 1), init=[spec.Init("migrate", spec.Process(("migrate",), "migrate"))])
    k.room = 0
    k.start()
    assert status.readiness(k.m) == (False, "cannot spawn init:migrate: no room")


def test_a_helper_that_takes_long_to_fail_is_told_once_and_not_started_again_without_a_pause() -> None:
    k = with_observer(1)
    k.advance(100)
    k.forget()
    for _ in range(6):
        k.advance(3)
        k._end(k.process("observer/0"), ev.Outcome(code=70), error="no module")
        k.run_due()
    assert levels_of(k, "worker_exited") == ["error", *["debug"] * 5]
    assert "observer/0" not in k.alive
