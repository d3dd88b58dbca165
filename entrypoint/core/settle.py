"""The second half of every step: what was touched is settled, the pools and then the master, until nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import phases
from entrypoint.core import pool as pools

if TYPE_CHECKING:
    from entrypoint.core.state import Master

MOST_PASSES = 50  # for each pool; a handful would do


def settle(m: Master, now: float) -> None:
    """Bring pools and master to rest. What does not come to rest is a bug, and is left as it is."""
    for _ in range(MOST_PASSES * (1 + len(m.init) + len(m.pools) + len(m.helpers))):
        if m.notes:
            phases.hear(m, m.notes.popleft(), now)
        elif m.touched:
            pool = next(iter(m.touched))
            del m.touched[pool]
            pools.settle(m, pool, now)
        elif m.sockets_unused:
            m.sockets_unused = False
            phases.release_sockets(m)
        else:
            return
    names = ", ".join(pool.name for pool in m.touched)
    m.touched.clear()
    m.notes.clear()
    m.report("error", "bug", error=f"cannot settle {names}: it does not come to rest: this is a bug")
