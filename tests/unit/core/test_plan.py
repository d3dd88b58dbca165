"""The one plan for everybody who comes and goes: pure, so that it is tried without a machine around it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.config import spec
from entrypoint.core import pool as pools
from entrypoint.core import status
from entrypoint.core.events import Outcome, Ticked
from entrypoint.core.model import Pool, Worker
from entrypoint.core.plan import Limit, Plan, Situation, plan
from entrypoint.core.terms import GIVEN_UP, HANDED_OVER, HELD, Template, Wish
from entrypoint.reasons import REASONS
from tests.unit.core.harness import PROGRAM, Machine, pool, running

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

    from entrypoint.core.model import Census
    from entrypoint.core.state import Master

POOL = Pool(spec.Pool("web", PROGRAM), Template(PROGRAM))
WAITING, BOOTING, READY, ENDING = "waiting", "booting", "ready", "ending"


def web(kept: Sequence[str] = (), wished: Sequence[tuple[str, Wish | None]] = (), **more: object) -> Situation:
    """Workers in order of birth: first those that are to stay, then those that are wished away (None: by a rollout)."""
    p = Pool(POOL.spec, POOL.current.template)
    for serial, standing in enumerate(kept, 1):
        getattr(p.kept, standing).add(Worker(p, serial, serial, p.current))
    for serial, (standing, wish) in enumerate(wished, len(kept) + 1):
        w = Worker(p, serial, serial, p.current)
        getattr(p.wished, standing).add(w)
        if wish is not None:
            p.wishes[w] = wish
    settled: dict[str, object] = {"size": len(kept), "available": len(p.kept.ready), "handed_over": 0, **more}
    return Situation(kept=p.kept, wished=p.wished, wishes=p.wishes, **settled)  # type: ignore[arg-type] # keywords are the test's


def said(made: Plan) -> tuple[int, list[tuple[int, str, str]]]:
    """How many come, and who goes why, and what becomes of the place."""
    return made.add, [(leave.worker.serial, leave.reason, leave.place) for leave in made.leaves]


def old(*standings: str) -> list[tuple[str, Wish | None]]:
    """Workers of another generation."""
    return [(standing, None) for standing in standings]


# -- one thing at a time -------------------------------------------------------------------------------------


def test_nothing_is_done_where_everything_is_as_it_should_be() -> None:
    assert said(plan(web([READY, READY, BOOTING, WAITING, ENDING]))) == (0, [])


def test_what_is_missing_comes_and_what_is_too_much_goes_first_who_has_no_process_then_the_oldest() -> None:
    assert said(plan(web([READY], size=4))) == (3, [])
    made = plan(web([READY, BOOTING, READY, WAITING], size=1))
    assert said(made) == (0, [(4, "scale_down", GIVEN_UP), (1, "scale_down", GIVEN_UP), (2, "scale_down", GIVEN_UP)])
    assert said(plan(web([READY], size=0))) == (0, [(1, "requested", GIVEN_UP)])


def test_who_is_on_its_way_out_in_its_place_is_neither_missing_nor_too_much() -> None:
    assert said(plan(web([READY, ENDING], size=2))) == (0, [])
    assert said(plan(web([READY, ENDING], size=1))) == (0, [])


def test_a_wish_waits_for_a_ready_successor() -> None:
    assert said(plan(web([], old(READY, READY), size=2))) == (1, [])
    assert said(plan(web([BOOTING], old(READY, READY), size=2))) == (0, [])
    assert said(plan(web([READY], old(READY, READY), size=2))) == (0, [(2, "rollout", HANDED_OVER)])
    assert said(plan(web([READY], old(READY), size=2, handed_over=1))) == (0, [])  # the surge is taken


def test_who_still_boots_stays_while_no_successor_is_ready_for_it_might_be_ready_first() -> None:
    assert said(plan(web([BOOTING], old(BOOTING, BOOTING), size=2))) == (0, [])
    assert said(plan(web([READY], old(BOOTING, BOOTING), size=2))) == (0, [(2, "rollout", HANDED_OVER)])


def test_one_that_fails_meanwhile_leaves_no_room_for_another_to_go() -> None:
    made = plan(web([], old(READY, READY, ENDING), size=3, surge=0, unavailable=1))
    assert said(made) == (0, [])


def test_those_that_make_way_count_as_long_as_they_are_there_also_when_the_pool_grows() -> None:
    assert said(plan(web([READY], size=2, handed_over=1))) == (1, [])
    assert said(plan(web([READY], size=2, handed_over=2))) == (0, [])


def test_without_surge_the_place_is_held_until_the_old_one_is_gone() -> None:
    made = plan(web([], old(READY, READY), size=2, surge=0, unavailable=1))
    assert said(made) == (0, [(1, "rollout", HELD)])
    assert said(plan(web([ENDING], old(READY), size=2, surge=0, unavailable=1))) == (0, [])


def test_who_does_not_serve_goes_before_who_serves() -> None:
    made = plan(web([READY, READY, READY], old(READY, BOOTING, READY, WAITING), size=3))
    assert [leave.worker.serial for leave in made.leaves] == [7, 5, 4, 6]


def test_a_wish_without_a_successor_is_carried_out_at_once_and_its_place_is_held() -> None:
    by_hand = Wish("requested", first=False)
    made = plan(web([READY], [(READY, by_hand), (BOOTING, by_hand)], size=3))
    assert said(made) == (0, [(2, "requested", HELD), (3, "requested", HELD)])


def test_who_has_left_by_itself_meanwhile_is_not_asked_again() -> None:
    assert said(plan(web([READY], [(ENDING, Wish("requested", first=False))], size=2))) == (1, [])


def test_nobody_goes_from_a_frozen_pool_and_what_is_missing_comes() -> None:
    assert said(plan(web([READY, READY, READY], size=2, frozen=True))) == (0, [])
    assert said(plan(web([READY], size=2, frozen=True))) == (1, [])


def test_it_says_what_it_waits_for() -> None:
    assert plan(web([READY])).waits_for == ""
    assert plan(web([], old(READY, READY), size=2)).waits_for == "surge"
    assert plan(web([BOOTING], old(READY), size=1)).waits_for == "ready"


# -- what is not there yet -----------------------------------------------------------------------------------


def test_a_reason_and_a_limit_that_nobody_has_thought_of_need_no_change_of_the_plan() -> None:
    bored, boring = Wish("boredom", urgency=1), Wish("boredom", urgency=2)
    moon = Limit("the moon", room=1, until=77.0)
    made = plan(web([READY] * 3, [(READY, bored), (READY, boring)], size=4, surge=2))
    assert said(made) == (1, [(5, "boredom", HANDED_OVER)])  # the more urgent one, though it is younger
    made = plan(web([WAITING] * 3, size=3, limits=(moon, Limit("the sun", room=5))))
    assert (made.may_start, made.waits_for, made.at) == (1, "the moon", 77.0)
    assert plan(web([READY] * 3, limits=(moon,))).waits_for == ""  # nobody wants to start


def starts(most: int) -> Callable[[Master, Pool, float], Limit]:
    return lambda _m, p, _now: Limit("max_starting", most - p.counts["spawning"] - p.counts["starting"])


def test_a_limit_of_starts_holds_for_start_and_crashes_and_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LIMITS", [starts(2)])
    k = Machine(pool("web", 7, ready_after=5.0, min_uptime=1.0)).start()
    for second in (0, 5, 10):
        assert len(k.alive) == second / 5 * 2 + 2
        assert k.m.pools["web"].waits_for == "max_starting"
        assert status.counters(k.m.pools["web"], k.clock)["backoff_seconds"] == 0
        k.advance(5)
    k.advance(5)
    assert len(k.alive) == 7
    assert k.m.pools["web"].waits_for == ""
    for slot in range(5):
        k.crash(f"web/{slot}")
    assert len(k.alive) == 4
    k.advance(15)
    assert len(k.alive) == 7
    k.ask("scale", "web", 12)
    assert len(k.alive) == 9
    k.advance(10)
    assert len(k.alive) == 12
    k.check()


def test_a_worker_is_wished_away_for_its_age_in_the_whole_core() -> None:
    k = running(pool("web", 3, when="notify"))
    for who in list(k.alive):
        k.say(who, ready=True)
    k.forget()
    k.m.wish(k.worker("web/1"), Wish("max_lifetime"))
    k.run_due()
    assert k.orders == []  # settled with the next fact
    k.beat("web/0")
    k.run_due()
    assert k.alive == ["web/0", "web/1", "web/2", "web/3"]
    k.check()
    k.say("web/3", ready=True)
    assert k.alive == ["web/0", "web/2", "web/3"]
    assert k.reports("worker_exited")[0]["reason"] == "max_lifetime"
    assert k.m.pools["web"].restarts == 0
    assert k.m.pools["web"].counters.exits["max_lifetime"] == 1


def test_a_successor_that_fails_is_tried_again_with_pauses_and_the_old_one_serves_on() -> None:
    k = running(pool("web", 2, give_up_after=0))
    k.doomed["web"] = Outcome(code=1)
    k.m.wish(k.worker("web/0"), Wish("max_memory"))
    k.tell(Ticked())
    k.run_due()
    k.advance(60)
    assert k.alive == ["web/0", "web/1"]
    assert len(k.spawns) < 10
    k.doomed.clear()
    k.advance(60)
    assert k.alive == ["web/1", "web/2"]
    k.check()


# -- whatever happens ----------------------------------------------------------------------------------------


WISHES = st.sampled_from(
    [None, None, Wish("max_lifetime"), Wish("max_memory", urgency=3), Wish("requested", first=False)]
)


class Crew:
    """A pool that does what the plan says, and to which things happen. Fast: there is no core around it."""

    def __init__(self, size: int, surge: int, unavailable: int) -> None:
        self.size, self.surge, self.unavailable = size, surge, unavailable
        self.pool = Pool(POOL.spec, POOL.current.template)
        self.serial = 0
        self.leaving: list[tuple[Worker, str]] = []  # and what becomes of the place

    def add(self, standing: str = WAITING) -> None:
        self.serial += 1
        w = Worker(self.pool, self.serial, self.serial, self.pool.current)
        getattr(self.pool.kept, standing).add(w)

    def rosters(self) -> list[tuple[Census, str]]:
        return [
            (side, standing) for side in (self.pool.kept, self.pool.wished) for standing in (WAITING, BOOTING, READY)
        ]

    def everybody(self) -> list[tuple[Worker, Census, str]]:
        return [(w, side, name) for side, name in self.rosters() for w in getattr(side, name)]

    def wish(self, w: Worker, standing: str, wish: Wish | None) -> None:
        getattr(self.pool.kept, standing).discard(w)
        getattr(self.pool.wished, standing).add(w)
        if wish is not None:
            self.pool.wishes[w] = wish

    def drop(self, w: Worker) -> None:
        for side, name in self.rosters():
            getattr(side, name).discard(w)
        self.pool.kept.ending.discard(w)
        self.pool.wished.ending.discard(w)
        self.pool.wishes.pop(w, None)

    def happens(self, what: str, number: int, wish: Wish | None) -> None:
        """Something, to the pool or to one of those to whom it can."""
        kept = [(w, name) for w, side, name in self.everybody() if side is self.pool.kept]
        if what == "resize":
            self.size = number % 7
        elif what == "roll":
            for w, name in kept:
                self.wish(w, name, None)
        elif what == "wish" and kept:
            self.wish(*kept[number % len(kept)], wish)
        elif what == "over":
            asked = [w for w, _ in self.leaving]
            for w in [w for side in (self.pool.kept, self.pool.wished) for w in side.ending if w not in asked]:
                self.drop(w)
        elif what == "gone" and self.leaving:
            self.pool.kept.ending.discard(self.leaving.pop(number % len(self.leaving))[0])
        else:
            self.happens_to_one(what, number)

    def happens_to_one(self, what: str, number: int) -> None:
        """Something in a worker's own life."""
        of = {"boots": (WAITING,), "ready": (BOOTING,), "dies": (WAITING, BOOTING, READY), "fails": (BOOTING, READY)}
        chosen = [each for each in self.everybody() if each[2] in of.get(what, ())]
        if not chosen:
            return
        w, side, _ = chosen[number % len(chosen)]
        wish = self.pool.wishes.get(w)
        self.drop(w)
        if what != "dies":
            getattr(side, {"boots": BOOTING, "ready": READY, "fails": ENDING}[what]).add(w)
            if wish is not None:
                self.pool.wishes[w] = wish

    def settle(self) -> int:
        """Carry out plans until there is nothing to do; returns how many that took."""
        for number in range(1, 50):
            p = self.pool
            handed_over = sum(place == HANDED_OVER for _, place in self.leaving)
            s = Situation(self.size, p.kept, p.wished, p.available, p.wishes, handed_over, self.surge, self.unavailable)
            before = [w for w, _, name in self.everybody() if name == READY]
            places = len(p.kept) + len(p.wished) + handed_over
            at_once = {w for w, wish in p.wishes.items() if not wish.first}
            made = plan(s)
            self.check(made, before, places, at_once)
            for leave in made.leaves:
                waited = leave.worker in p.kept.waiting or leave.worker in p.wished.waiting
                self.drop(leave.worker)
                if not waited:
                    self.leaving.append((leave.worker, leave.place))
                    if leave.place == HELD:
                        p.kept.ending.add(leave.worker)
            for _ in range(made.add):
                self.add()
            if not (made.add or made.leaves):
                return number
        raise AssertionError("the plan does not come to rest")

    def check(self, made: Plan, ready: list[Worker], places: int, at_once: set[Worker]) -> None:
        """The budget: what a wish may cost, and what successors may."""
        gone = {leave.worker for leave in made.leaves if leave.place != GIVEN_UP} - at_once
        if gone & set(ready):
            left = [w for w in ready if w not in gone and w not in at_once]
            assert len(left) >= self.size - self.unavailable, "a wish took a worker that is needed"
        if made.add:
            assert places + made.add <= self.size + self.surge, "more successors than the surge allows"
        assert len({leave.worker for leave in made.leaves}) == len(made.leaves), "somebody is asked twice"
        assert all(leave.reason in REASONS for leave in made.leaves)


@settings(max_examples=60, deadline=None, database=None, derandomize=bool(os.environ.get("CI")))
@given(
    size=st.integers(0, 6),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    events=st.lists(
        st.tuples(
            st.sampled_from(
                ["boots", "ready", "ready", "dies", "fails", "over", "gone", "gone", "wish", "roll", "resize"]
            ),
            st.integers(0, 30),
            WISHES,
        ),
        min_size=20,
        max_size=80,
    ),
)
def test_the_budget_holds_whatever_happens_and_the_plan_comes_to_rest(
    size: int, surge: int, unavailable: int, events: list[tuple[str, int, Wish | None]]
) -> None:
    crew = Crew(size, surge or (0 if unavailable else 1), unavailable)
    crew.settle()
    for what, number, wish in events:
        crew.happens(what, number, wish)
        crew.settle()
    # In the end nothing is in the way of anybody: everybody boots, and who was asked to go does.
    for _ in range(30):
        for w, side, name in crew.everybody():
            getattr(side, name).discard(w)
            getattr(side, READY).add(w)
        crew.leaving.clear()
        crew.happens("over", 0, None)
        crew.settle()
    assert len(crew.pool.kept.ready) == crew.size
    assert len(crew.pool.wished) == 0
