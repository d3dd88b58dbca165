"""A new configuration takes effect: only what it changes is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import pool as pools
from entrypoint.core import rollout
from entrypoint.core.actions import Answer, CloseSockets, Inspect
from entrypoint.core.events import SpecRejected
from entrypoint.core.model import ACTIVE, PHASE_RUNNING, PHASE_STARTING, READY, STALL, WAITING, Pool, Template, address

if TYPE_CHECKING:
    from entrypoint.config import spec
    from entrypoint.core.events import SpecChanged
    from entrypoint.core.model import Master

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
    if m.phase not in (PHASE_STARTING, PHASE_RUNNING):
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
        pools.remove(m, pool, now)
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
        pools.start_waiting(m, m.pools.values(), now)
        pools.all_started(m)
    release_sockets(m)
    if event.asker:
        m.order(Answer(event.asker, rollouts=tuple(rollouts)))


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
        pool.limit = new.workers
        pool.pinned = False
        pools.resize(m, pool, new.workers, now)
    if pool.status not in (ACTIVE, WAITING) or pool.gave_up:
        return 0
    if old.liveness != new.liveness:
        for w in pool.workers.values():
            if w.state == READY:
                m.order(Inspect(w.serial, "live", new.liveness))
    wanted = template(m, new)
    if pool.status == WAITING and not roll:
        pool.template = pool.wanted = wanted
    elif roll or not wanted.same(pool.wanted):
        return roll_to(m, pool, wanted, now, again=roll)
    pools.reconcile(m, pool, now)
    return 0


def roll_to(m: Master, pool: Pool, wanted: Template, now: float, *, again: bool) -> int:
    """Roll the pool to a template; to the one that it has only if that is asked for."""
    if again or not wanted.same(pool.template):
        return rollout.start(m, pool, wanted, now)
    # The change that is being rolled out, or has failed, was taken back.
    pool.wanted = wanted
    if pool.rollout is not None and not pool.rollout.back:
        rollout.end(m, pool, "aborted", "the change was taken back")
        rollout.roll_back(m, pool, now, "the change was taken back")
    return 0


def release_sockets(m: Master) -> None:
    """Close what is configured no longer and what no pool, whatever its generation, would hand to a worker."""
    used = {address(s) for s in m.sockets.values()}
    for pool in m.pools.values():
        if not pool.removed:
            used.update(address(s) for s in pool.template.sockets)
            if pool.rollout is not None:
                used.update(address(s) for s in pool.rollout.template.sockets)
    unused = tuple(s for key, s in m.held_sockets.items() if key not in used)
    if unused and m.phase in (PHASE_STARTING, PHASE_RUNNING):
        for socket in unused:
            del m.held_sockets[address(socket)]
        m.order(CloseSockets(unused, forget=True))
