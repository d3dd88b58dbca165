"""How many workers a pool is to have, and who decided that."""

from __future__ import annotations

import pytest

from entrypoint.core import pool as pools
from entrypoint.core.events import LimitsRead
from entrypoint.core.terms import Size
from tests.unit.core.harness import Machine, pool, running

TERM, TTIN = 15, 21


def size(k: Machine, name: str = "web") -> Size:
    return k.m.pools[name].sized


def test_a_person_goes_before_the_limits_and_the_limits_before_the_configuration() -> None:
    k = running(web=2)
    assert size(k) == Size(2, "configuration")
    k.tell(LimitsRead("web", 3))
    assert size(k) == Size(3, "limits")
    k.ask("scale", "web", 4)
    assert size(k) == Size(4, "person")
    k.tell(LimitsRead("web", 5))
    assert size(k) == Size(4, "person")
    k.ask("scale", "web")
    assert size(k) == Size(5, "limits")
    k.reload(pool("web", 6))
    assert size(k) == Size(6, "configuration")


def test_a_pool_that_was_stopped_by_hand_has_none_and_the_size_that_it_had_when_it_is_started() -> None:
    k = running(web=2)
    k.ask("stop", "web")
    k.ask("scale", "web", 3)
    assert size(k) == Size(0, "halted")
    assert k.reports("pool_resized") == [{"workers": 3, "before": 2}]
    k.ask("start", "web")
    assert size(k) == Size(3, "person")


def test_a_pool_that_is_no_longer_configured_has_none() -> None:
    k = running(web=2, other=1)
    k.stubborn.add("web")
    k.spec = k.spec._replace(pools=k.spec.pools[1:])
    k.reload()
    assert size(k) == Size(0, "removed")


def test_nobody_decides_once_the_master_is_asked_to_end() -> None:
    k = running(web=2, drain_delay=5)
    k.signal(TERM)
    k.signal(TTIN)
    k.tell(LimitsRead("web", 9))
    assert size(k) == Size(2, "configuration")


def test_a_pool_that_runs_to_completion_has_as_many_as_are_not_done() -> None:
    k = running(pool("job", 3, policy="never"))
    k.finish("job/0")
    k.tell(LimitsRead("job", 9))
    assert size(k, "job") == Size(2, "configuration")


def test_a_pool_of_which_those_that_remain_are_ready_is_ready() -> None:
    k = Machine(pool("job", 2, policy="never", when="notify"), pool("web", after=("job",))).start()
    k.say("job/0", ready=True)
    assert "web/0" not in k.alive
    k.finish("job/1")
    assert "web/0" in k.alive


def test_what_does_not_come_to_rest_is_a_bug_and_the_master_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    k = running(web=1)
    monkeypatch.setattr(pools, "fill", lambda m, p, now: m.touch(p) or now + 1.0)
    with pytest.raises(AssertionError, match="does not come to rest"):  # the harness takes no report of a bug
        k.crash("web/0")
    assert not k.m.touched


def test_hundreds_of_pools_come_to_rest() -> None:
    k = running(**{f"pool-{number}": 1 for number in range(300)})
    k.signal(TERM)
    assert k.code == 0
