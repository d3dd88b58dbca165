"""Whether a shutdown fits into the grace period, and what happens if not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.config.grace import LEAST, budget, find_cycle, shorten
from entrypoint.config.spec import Pool, Process, Stop

if TYPE_CHECKING:
    from tests.unit.config.conftest import Errors, Load

CHAIN = """
pools:
  web: {command: [a], after: [cache], stop: {timeout: 20s}}
  cache: {command: [a], stop: {timeout: 5s}}
  other: {command: [a], stop: {timeout: 22s}}
shutdown: {drain_delay: 5s, grace_period: GRACE}
"""
NUMBERS = "stopping can take 32s (drain delay 5s + web 20s + cache 5s + 2s)"


def pool(name: str, timeout: float, after: tuple[str, ...] = (), delay: float | None = None) -> Pool:
    return Pool(name, Process(("x",), "x"), after=after, stop=Stop(timeout=timeout, delay=delay))


def test_it_fits_exactly(config: Load) -> None:
    loaded = config(CHAIN.replace("GRACE", "32s"), strict_grace=True)
    assert loaded.warnings == ()
    assert [pool.stop.timeout for pool in loaded.spec.pools] == [20.0, 5.0, 22.0]


def test_check_refuses_what_does_not_fit(errors: Errors) -> None:
    (line,) = errors(CHAIN.replace("GRACE", "31s"), strict_grace=True)
    assert line == f"config.yaml:6: shutdown.grace_period: {NUMBERS}, more than the grace period of 31s"


def test_check_can_be_told_the_grace_period(config: Load, errors: Errors) -> None:
    text = CHAIN.replace("GRACE", "31s")
    (line,) = errors(text, strict_grace=True, grace_period=30.0)
    assert line == f"--grace-period: shutdown.grace_period: {NUMBERS}, more than the grace period of 30s"
    loaded = config(text, strict_grace=True, grace_period=40.0)
    assert loaded.spec.shutdown.grace_period == 40.0
    assert loaded.resolved["shutdown"]["grace_period"] == "40s"


def test_run_warns_and_shortens(config: Load) -> None:
    loaded = config(CHAIN.replace("GRACE", "17s"))
    (warning,) = loaded.warnings
    assert warning == f"{NUMBERS}, more than the grace period of 17s; stops are shortened: web 8s, cache 2s"
    assert [pool.stop.timeout for pool in loaded.spec.pools] == pytest.approx([8.0, 2.0, 8.8], abs=0.01)
    assert loaded.spec.shutdown.drain_delay == 5.0


def test_a_drain_delay_that_alone_is_too_long_is_cut(config: Load) -> None:
    spec = config(CHAIN.replace("GRACE", "5s")).spec
    assert [pool.stop.timeout for pool in spec.pools] == [LEAST, LEAST, LEAST]
    assert spec.shutdown.drain_delay == pytest.approx(5 - 2 - 2 * LEAST)
    assert all(pool.stop.quiesce < LEAST for pool in spec.pools)


def test_an_unknown_grace_period_shortens_nothing(config: Load) -> None:
    loaded = config(CHAIN.replace("GRACE", "0s"))
    assert loaded.warnings == ()
    assert loaded.spec.pools[0].stop.timeout == 20.0
    (warning,) = config(CHAIN.replace("GRACE", "0s"), strict_grace=True).warnings
    assert warning == f"{NUMBERS}, more than the 30s that Kubernetes gives by default"


def test_drain_delay_auto(config: Load) -> None:
    text = "pools: {web: {command: [a]}}"
    inside = config(text, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert (inside.spec.shutdown.drain_delay, inside.resolved["shutdown"]["drain_delay"]) == (5.0, "5s")
    outside = config(text)
    assert (outside.spec.shutdown.drain_delay, outside.resolved["shutdown"]["drain_delay"]) == (0.0, "0s")


def test_a_pool_exempt_from_the_drain_delay() -> None:
    need = budget((pool("web", 10), pool("queue", 25, delay=0.0)), 15.0)
    assert need.chain in (("web",), ("queue",))
    assert need.total == 27.0


def test_a_diamond_counts_its_longer_side() -> None:
    pools = (pool("a", 1, ("b", "c")), pool("b", 2, ("d",)), pool("c", 5, ("d",)), pool("d", 3))
    need = budget(pools, 0.0)
    assert (need.total, need.chain) == (11.0, ("a", "c", "d"))


def test_no_cycle() -> None:
    assert find_cycle({"a": ("b",), "b": ("c",), "c": ()}) == ()
    assert find_cycle({"a": ("unknown",)}) == ()


@pytest.mark.parametrize("length", [1, 2, 5000])
def test_cycle(length: int) -> None:
    after = {str(number): (str((number + 1) % length),) for number in range(length)}
    assert len(find_cycle({"behind": ("0",), **after})) == length + 1


NAMES = ["a", "b", "c", "d", "e"]


@given(
    st.lists(
        st.tuples(st.floats(0.1, 100), st.none() | st.floats(0, 30), st.sets(st.integers(0, 4))), min_size=1, max_size=5
    ),
    st.floats(0, 60),
    st.floats(0.1, 300),
)
def test_what_was_shortened_fits(
    drawn: list[tuple[float, float | None, set[int]]], drain_delay: float, grace_period: float
) -> None:
    pools = tuple(
        pool(NAMES[at], timeout, tuple(NAMES[other] for other in after if other < at), delay)
        for at, (timeout, delay, after) in enumerate(drawn)
    )
    if budget(pools, drain_delay).total <= grace_period:
        return
    shorter, delay = shorten(pools, drain_delay, grace_period)
    least = budget(tuple(one._replace(stop=one.stop._replace(timeout=LEAST, delay=0.0)) for one in pools), 0.0).total
    assert budget(shorter, delay).total <= max(grace_period, least) + 1e-6
    assert all(
        LEAST <= (new.stop.timeout or 0) <= (old.stop.timeout or 0) for new, old in zip(shorter, pools, strict=True)
    )
    assert delay <= drain_delay
