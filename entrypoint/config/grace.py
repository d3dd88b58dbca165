"""The order of pools, and whether stopping them fits into what the platform gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from entrypoint.config.spec import Pool

SWEEP = 1.0  # what is left of the workers gets TERM and, this much later, KILL
MARGIN = 1.0
LEAST = 0.1  # a stop is never shortened below this


class Budget(Record):
    """The longest that a shutdown can take, in seconds."""

    total: float
    drain: float  # before the first stop of the longest chain
    chain: tuple[str, ...]  # the pools that stop one after the other


def find_cycle(after: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Pools that wait for each other, the first repeated at the end; () without a cycle."""
    order = _start_order(after)
    stuck = [name for name in after if name not in order]
    if not stuck:
        return ()
    path = [stuck[0]]
    while True:
        following = next(name for name in after[path[-1]] if name in after and name not in order)
        if following in path:
            return (*path[path.index(following) :], following)
        path.append(following)


def budget(pools: tuple[Pool, ...], drain_delay: float) -> Budget:
    """How long stopping takes when every stop needs its whole timeout: later pools first, along `after`."""
    by_name = {pool.name: pool for pool in pools}
    order = _start_order({pool.name: pool.after for pool in pools})
    begin = {pool.name: drain_delay if pool.stop.delay is None else pool.stop.delay for pool in pools}
    before: dict[str, str] = {}  # the pool whose end this one waits for
    longest = Budget(0.0, drain_delay, ())
    for name in reversed(order):
        end = begin[name] + (by_name[name].stop.timeout or 0.0)
        for other in by_name[name].after:
            if other in begin and end > begin[other]:
                begin[other], before[other] = end, name
        if end > longest.total or not longest.chain:
            chain = [name]
            while chain[0] in before:
                chain.insert(0, before[chain[0]])
            first = by_name[chain[0]]
            longest = Budget(end, drain_delay if first.stop.delay is None else first.stop.delay, tuple(chain))
    return longest._replace(total=longest.total + SWEEP + MARGIN)


def shorten(pools: tuple[Pool, ...], drain_delay: float, grace_period: float) -> tuple[tuple[Pool, ...], float]:
    """Stops cut in proportion, so that the whole fits; the delay only when the stops alone cannot make it fit."""
    if budget(_scaled(pools, 0.0, drain_delay), drain_delay).total > grace_period:
        room = budget(_scaled(pools, 0.0, 0.0), 0.0).total
        drain_delay = min(drain_delay, max(0.0, grace_period - room))
        delays_cut = tuple(
            pool._replace(stop=pool.stop._replace(delay=min(pool.stop.delay, drain_delay)))
            if pool.stop.delay is not None
            else pool
            for pool in pools
        )
        return _scaled(delays_cut, 0.0, drain_delay), drain_delay
    # Delays of single pools make the sum piecewise linear, so the factor is searched for, not computed.
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if budget(_scaled(pools, middle, drain_delay), drain_delay).total <= grace_period:
            low = middle
        else:
            high = middle
    return _scaled(pools, low, drain_delay), drain_delay


def _scaled(pools: tuple[Pool, ...], factor: float, most_delay: float) -> tuple[Pool, ...]:
    scaled = []
    for pool in pools:
        whole = pool.stop.timeout or LEAST
        timeout = min(whole, max(LEAST, int(whole * factor * 1000) / 1000))
        delay = pool.stop.delay if pool.stop.delay is None or most_delay > 0 else 0.0
        quiesce = pool.stop.quiesce if timeout == whole else min(pool.stop.quiesce, timeout / 2)
        stop = pool.stop._replace(timeout=timeout, quiesce=quiesce, delay=delay)
        scaled.append(pool._replace(stop=stop))
    return tuple(scaled)


def _start_order(after: Mapping[str, tuple[str, ...]]) -> dict[str, None]:
    """Names, each after what it waits for; those in a cycle, or behind one, are left out."""
    waiting = {name: sum(other in after for other in set(others)) for name, others in after.items()}
    behind: dict[str, list[str]] = {name: [] for name in after}
    for name, others in after.items():
        for other in set(others):
            if other in behind:
                behind[other].append(name)
    order: dict[str, None] = {}
    ready = [name for name in after if not waiting[name]]
    while ready:
        name = ready.pop()
        order[name] = None
        for other in behind[name]:
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return order
