"""Who comes to a pool and who goes: one pure function for every reason there may be."""

# It sees who is there (a census of those that are to stay, and one of those that somebody wishes away), the size that
# is wanted, and the limits. A wish is that somebody goes: a reason, an urgency, and whether a ready successor comes
# first. A rollout wishes away everybody of another generation; by hand a single worker is wished away. Too many is what
# the size says. A limit lets only so many start. Two plans would take from the same pool without knowing of each other.
#
# What is done now follows from that alone, and is looked at again after each change: so a crash, another size or a stop
# in the middle are nothing special, and no wish has a list of steps. A new reason to leave is one row in `reasons` and
# one `m.wish(...)`, a new limit one line in `pool.LIMITS`; the plan stays as it is.
#
# The budget is a Deployment's. A worker that is wished away goes when a ready successor has come for it, or as far as
# `unavailable` allows; successors come as far as `surge` allows. So a wish never leaves fewer than size - unavailable
# ready workers, and never makes more than size + surge of those that stay or make way for others.
#
# The place of somebody who was asked to go is given up (there are too many), handed over (its successor is there; it
# counts as surge until it is gone) or held (for the successor that comes when it is gone). One that ends by itself, or
# for a fault, holds its place: its slot is its successor's.

from __future__ import annotations

from heapq import merge
from math import ceil, floor
from typing import TYPE_CHECKING

from entrypoint.core.terms import GIVEN_UP, HANDED_OVER, HELD, NEVER, Wish
from entrypoint.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from entrypoint.config.spec import Rollout
    from entrypoint.core.model import Census, Worker

STALE = Wish("rollout")  # what is wished of all in `wished` that nobody wishes anything special of


class Limit(Record):
    """Something that lets so many more workers start now."""

    name: str
    room: float
    until: float = NEVER  # when to look again


class Situation(Record):
    """All that a plan depends on."""

    size: int
    kept: Census  # who is to stay
    wished: Census  # who is to go, and was not asked yet
    available: int  # of those that stay: so many are relied on
    wishes: Mapping[Worker, Wish]  # about single workers of `wished`
    handed_over: int  # asked to go and still here, with their successors
    surge: int = 1
    unavailable: int = 0
    limits: tuple[Limit, ...] = ()
    frozen: bool = False  # nobody goes


class Leave(Record):
    """Somebody is asked to go."""

    worker: Worker
    reason: str
    place: str  # GIVEN_UP | HANDED_OVER | HELD


class Plan(Record):
    """What is to be done now."""

    add: int  # new workers
    leaves: tuple[Leave, ...]
    may_start: float  # so many of those that wait
    waits_for: str = ""  # a limit's name | surge | ready: what is in the way of more
    at: float = NEVER  # when to look again, if nothing happens before


def plan(s: Situation) -> Plan:
    """Find out who comes and who goes."""
    size, kept, wished = s.size, s.kept, s.wished
    there = len(kept) + len(wished)  # in places of the pool
    handed_over = s.handed_over
    leaves: list[Leave] = []

    def leave(w: Worker, reason: str) -> None:
        nonlocal there, handed_over
        if there > size:
            there -= 1
            handed_over += 1
            leaves.append(Leave(w, reason, HANDED_OVER))
        else:
            leaves.append(Leave(w, reason, HELD))

    single = () if s.frozen else tuple(sorted(s.wishes.items(), key=_urgency))
    for w, wish in single:
        if not wish.first and w not in wished.ending:
            leave(w, wish.reason)
    filled = len(kept) + sum(each.place == HELD for each in leaves)

    add = max(0, min(size - filled, size + s.surge - there - handed_over))
    there += add

    if len(wished) and not s.frozen:
        least = max(0, size - s.unavailable)
        going = len(wished) - len(leaves) - max(0, least - s.available)  # as many as have successors
        spare = len(wished.ready) - sum(each.worker in wished.ready for each in leaves) + s.available - least
        for w, reason, serves in _candidates(wished, single, s.wishes):
            if going <= 0 or (serves and spare <= 0):
                break
            leave(w, reason)
            going -= 1
            spare -= serves

    asked = len(leaves)
    surplus = len(kept) - len(kept.ending) - size
    if surplus > 0 and not s.frozen:
        reason = "scale_down" if size else "requested"
        leaves += [Leave(w, reason, GIVEN_UP) for w, _ in zip(_oldest(kept), range(surplus), strict=False)]

    tightest = min(s.limits, key=lambda limit: limit.room, default=None)
    may_start = NEVER if tightest is None else max(0, tightest.room)
    waits_for, at = "", NEVER
    if tightest is not None and len(kept.waiting) + add > may_start:
        waits_for, at = tightest.name, tightest.until
    elif size - filled > add:
        waits_for = "surge"
    elif len(wished) > asked:
        waits_for = "ready"
    return Plan(add, tuple(leaves), may_start, waits_for, at)


def share(rollout: Rollout, size: int) -> tuple[int, int]:
    """How many workers more, and how many fewer, than its size a pool may have; as in Kubernetes, one of them is."""
    up, down = rollout.max_surge, rollout.max_unavailable
    surge = ceil(up.value * size / 100) if up.percent else int(up.value)
    unavailable = floor(down.value * size / 100) if down.percent else int(down.value)
    return surge if surge or unavailable else 1, min(unavailable, size)


def _candidates(
    wished: Census, single: tuple[tuple[Worker, Wish], ...], wishes: Mapping[Worker, Wish]
) -> Iterator[tuple[Worker, str, bool]]:
    """Those that may go with a successor, and whether they serve: who does not first, then by urgency, then by age."""
    for roster in (wished.waiting, wished.booting):
        for w in roster:
            wish = wishes.get(w, STALE)
            if wish.first:
                yield w, wish.reason, False
    for w, wish in single:
        if wish.first and w in wished.ready:
            yield w, wish.reason, True
    for w in wished.ready:
        if w not in wishes:
            yield w, STALE.reason, True


def _oldest(kept: Census) -> Iterator[Worker]:
    """Who goes when there are too many: slots without a process, then the oldest."""
    yield from kept.waiting
    yield from merge(kept.booting, kept.ready, key=lambda w: w.serial)


def _urgency(item: tuple[Worker, Wish]) -> int:
    return -item[1].urgency
