"""Waiting for a worker that accepts connections, by looking at it every now and then."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from entrypoint.monitor.proc import look

if TYPE_CHECKING:
    from entrypoint.monitor.messages import Watch
    from entrypoint.monitor.probes import Tell
    from entrypoint.monitor.timing import Timing

GROWTH = 1.5  # of the interval, from look to look
IDLE = 9  # seconds of rest for each second of looking, for all workers together: at most a tenth of a core


async def accepting(watch: Watch, turn: asyncio.Lock, timing: Timing, tell: Tell) -> None:
    """Look until the worker accepts connections, is gone, or has hidden for too long whether it does.

    `turn` is held by whoever looks or has just looked.
    """
    await asyncio.sleep(watch.after)
    inodes = frozenset(watch.inodes)
    interval = timing.look_first
    doubtful_since: float | None = None
    while True:
        async with turn:
            began = time.thread_time()
            try:
                view = look(watch.pid, inodes)
            except ProcessLookupError:
                return
            if view.accepts:
                tell("ready", serial=watch.serial)
            await asyncio.sleep(IDLE * (time.thread_time() - began))
        if view.accepts:
            return
        now = time.monotonic()
        if not view.refused and not view.unsure:
            doubtful_since = None
        elif doubtful_since is None:
            doubtful_since = now
        elif now - doubtful_since >= (timing.refused if view.refused else timing.unsure):
            reason = view.refused or f"cannot see whether {watch.pid} accepts connections: its system calls are hidden"
            tell("blind", serial=watch.serial, reason=reason)
            return
        await asyncio.sleep(interval)
        interval = min(interval * GROWTH, timing.look_last)
