"""A new configuration takes effect: only what it changes is touched."""

# A template is what a worker's process is born with: its `Process`, its sockets, the heartbeat that it is told. How it
# is treated (`ready`, `stop`, `liveness` and so on) is in the spec of its pool, and can change under its feet. So what
# a change of the configuration means for a pool is one comparison: another template takes other processes, a rollout;
# else there is nothing but to go on by the new spec. Each worker keeps the template of its birth, each pool has the
# last good one, the one that was asked for last, and the one of its rollout. Sockets count by name and address: another
# backlog or mode is no other socket.

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import phases, rollout
from entrypoint.core.actions import Answer, Inspect
from entrypoint.core.events import SpecRejected
from entrypoint.core.model import Pool
from entrypoint.core.settle import settle
from entrypoint.core.terms import ACTIVE, AT_WORK, READY, STALL, WAITING, Generation, Template, address

if TYPE_CHECKING:
    from entrypoint.config import spec
    from entrypoint.core.events import SpecChanged
    from entrypoint.core.state import Master

LIVE = ("pools", "sockets", "path", "sha256")  # the rest of a configuration needs a restart of the master


def template(m: Master, pool: spec.Pool) -> Template:
    """What a worker of the pool is born with."""
    sockets = tuple(m.sockets[name] for name in pool.sockets if name in m.sockets)
    return Template(pool.process, sockets, pool.heartbeat.timeout, pool.foreground, pool.output)


def link(m: Master) -> None:
    """Find out again which pools come after which."""
    specs = {p.name: p for p in m.spec.pools}
    for pool in m.pools.values():
        pool.after, pool.dependents = [], []
    for pool in m.pools.values():
        for name in specs.get(pool.name, pool.spec).after:
            if name in m.pools:
                pool.after.append(m.pools[name])
                m.pools[name].dependents.append(pool)
    beats = [p.heartbeat.timeout for p in m.spec.pools if p.heartbeat.timeout]
    m.stall = min(beats) / 2 if beats else STALL


def rejected(m: Master, event: SpecRejected) -> None:
    """Nothing changes."""
    for error in event.errors:
        m.report("error", "reload_failed", error=error)
    if event.asker:
        m.order(Answer(event.asker, "\n".join(event.errors)))


def changed(m: Master, event: SpecChanged, now: float) -> None:
    """Bring pools and sockets to what the new configuration says."""
    if m.phase not in AT_WORK:
        rejected(m, SpecRejected(("cannot reload: the master is stopping",), event.asker))
        return
    new = event.spec
    for key in needs_restart(m.spec, new):
        m.report("warning", "reload_incomplete", key=key, reason="a change of it needs a restart")
    m.spec = in_effect(m.spec, new)
    m.sockets = {s.name: s for s in new.sockets}
    m.held_sockets.update({address(s): s for s in new.sockets})
    m.report("info", "config_reloaded", sha256=new.sha256[:12])
    rollouts = []
    configured = {p.name for p in new.pools}
    for pool in [p for p in m.pools.values() if p.name not in configured and not p.removed]:
        remove(m, pool)
    before = m.pools
    m.pools = {}
    for each in new.pools:
        m.pools[each.name] = before.pop(each.name) if each.name in before else Pool(each, template(m, each))
    m.pools.update(before)  # those on their way out
    link(m)
    for each in new.pools:
        generation = update(m, m.pools[each.name], each, now, roll=event.roll_all)
        if generation:
            rollouts.append((each.name, generation))
    if not m.init:
        phases.start_waiting(m, m.pools.values())
    m.sockets_unused = True
    settle(m, now)  # what it orders comes before the answer
    if event.asker:
        m.order(Answer(event.asker, rollouts=tuple(rollouts)))


def remove(m: Master, pool: Pool) -> None:
    """It is no longer configured: its workers go, then the pool."""
    pool.removed = True
    m.report("info", "pool_removed", pool)
    rollout.end(m, pool, "aborted", "the pool was removed")
    phases.forget(m, pool)
    m.touch(pool)


def needs_restart(old: spec.Spec, new: spec.Spec) -> list[str]:
    """The keys whose change does not take effect now."""
    keys = [key for key in old._fields if key not in (*LIVE, "log") and getattr(old, key) != getattr(new, key)]
    if old.log.format != new.log.format:
        keys.append("log.format")
    return keys


def in_effect(old: spec.Spec, new: spec.Spec) -> spec.Spec:
    """The new configuration, with the old values of what only a restart can change."""
    kept = {key: getattr(old, key) for key in old._fields if key not in LIVE}
    return new._replace(**{**kept, "log": new.log._replace(format=old.log.format)})


def update(m: Master, pool: Pool, new: spec.Pool, now: float, *, roll: bool) -> int:
    """Bring one pool to its new configuration; returns the generation that it is rolled to, or 0."""
    old, pool.spec = pool.spec, new
    if pool.removed:
        pool.removed = False
        pool.was_ready = False
    if (old.workers, old.auto) != (new.workers, new.auto):
        pool.limits_allow = pool.pin = None
    m.touch(pool)
    if pool.status not in (ACTIVE, WAITING) or pool.gave_up:
        return 0
    if old.liveness != new.liveness:
        for w in pool.workers.values():
            if w.state == READY:
                m.order(Inspect(w.serial, "live", new.liveness))
    wanted = template(m, new)
    if pool.status == WAITING and not roll:
        pool.wanted = wanted
        pool.current = Generation(pool.current.number, wanted)
    elif roll or not wanted.same(pool.wanted):
        return roll_to(m, pool, wanted, now, again=roll)
    return 0


def roll_to(m: Master, pool: Pool, wanted: Template, now: float, *, again: bool) -> int:
    """Roll the pool to a template; to the one that it has only if that is asked for."""
    if again or not wanted.same(pool.current.template):
        return rollout.start(m, pool, wanted, now)
    # The change that is being rolled out, or has failed, was taken back.
    pool.wanted = wanted
    if pool.rollout is not None and not pool.rollout.back:
        rollout.end(m, pool, "aborted", "the change was taken back")
        rollout.roll_back(m, pool, now, "the change was taken back")
    return 0
