"""What is asked on the control socket: some of it is only looked up, the rest is for the core."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING

from entrypoint.core import events as ev
from entrypoint.core import status
from entrypoint.master.log import timestamp, wall_clock
from entrypoint.observer.messages import workers

if TYPE_CHECKING:
    from typing import Any

    from entrypoint.core import actions as act
    from entrypoint.master.loop import Loop

RECENT = 50  # events that the status shows
SIGNALS = ("TERM", "INT", "QUIT", "HUP", "TTIN", "TTOU", "USR1", "USR2")  # counted from the start
STEP = 0.5  # seconds
ENDED = 200  # rollouts whose end is remembered for who asks late


class Waiter:
    """A client that waits for rollouts to end."""

    def __init__(self, rollouts: tuple[tuple[str, int], ...]) -> None:
        self.open = set(rollouts)
        self.results: list[dict[str, Any]] = []


def _oom_kills() -> int | None:
    """As of now: not every process that was killed is a worker, and so looked at."""
    try:
        from entrypoint.config.cgroup import oom_kills

        return oom_kills()
    except (OSError, ValueError):
        return None


class Requests:
    """Answers what can be answered at once, and remembers who waits for what."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.started_at = wall_clock()
        self._zero = self.started_at - time.monotonic()
        self.events: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self.signals: dict[str, int] = dict.fromkeys(SIGNALS, 0)  # received so far
        self._patient: set[int] = set()  # askers that wait for the end of what they began
        self._waiters: dict[int, Waiter] = {}
        self._ended: dict[tuple[str, int], dict[str, Any]] = {}

    def handle(self, asker: int, request: dict[str, Any]) -> None:
        """Carry out one valid request."""
        what = request["ask"]
        core = self.loop.core
        if what == "ping":
            self._say(asker, {"ok": True, "phase": status.phase(core)})
        elif what == "status":
            found = self.status()
            now = found.pop("time")
            for name, pool in found["pools"].items():
                pool["workers"] = workers(name, pool["workers"], now)
            self._say(asker, {"ok": True, "status": found})
        elif what in ("ready", "startup"):
            ok, reason = status.readiness(core) if what == "ready" else status.startup(core)
            self._say(asker, {"ok": ok, "reason": reason})
        else:
            if request.get("wait"):
                self._patient.add(asker)
            number = request.get("count") if what == "scale" else request.get("signal")
            self.loop.tell(ev.Asked(asker, what, request.get("pool") or "", number, request.get("slot")))

    def answer(self, order: act.Answer) -> None:
        """The core's answer."""
        patient = order.asker in self._patient
        self._patient.discard(order.asker)
        if order.error:
            self._say(order.asker, {"ok": False, "error": order.error})
            return
        rollouts = [{"pool": pool, "generation": generation} for pool, generation in order.rollouts]
        self._say(order.asker, {"ok": True, "rollouts": rollouts}, last=not patient)
        if patient:
            self._waiters[order.asker] = Waiter(order.rollouts)
            for rollout in order.rollouts:
                if rollout in self._ended:
                    self._tick_off(order.asker, rollout)
            self._tick_off(order.asker, None)

    def rollout_ended(self, order: act.RolloutEnded) -> None:
        """Tell everybody who waits for it."""
        rollout = order.pool, order.generation
        self._ended[rollout] = {
            "pool": order.pool, "generation": order.generation, "result": order.result, "reason": order.reason,
        }  # fmt: skip
        if len(self._ended) > ENDED:
            del self._ended[next(iter(self._ended))]
        for asker in list(self._waiters):
            self._tick_off(asker, rollout)

    def _tick_off(self, asker: int, rollout: tuple[str, int] | None) -> None:
        waiter = self._waiters.get(asker)
        if waiter is None:
            return
        if rollout in waiter.open:
            waiter.open.discard(rollout)
            waiter.results.append(self._ended[rollout])
        if not waiter.open:
            del self._waiters[asker]
            self._say(asker, {"done": True, "results": waiter.results})

    def _say(self, asker: int, line: dict[str, Any], *, last: bool = True) -> None:
        if self.loop.control is not None:
            self.loop.control.answer(asker, line, last=last)

    def note(self, event: str, fields: dict[str, Any]) -> None:
        """Remember an event for the status."""
        self.events.append({"time": wall_clock(), "event": event, **fields})

    def snapshot(self) -> dict[str, Any]:
        """The status, with its workers as rows, and what metrics are made of beside it."""
        loop = self.loop
        core, now = loop.core, time.monotonic()
        found = self.status()
        for name, shown in found["pools"].items():
            shown.update(status.counters(core.pools[name], now))
        reloader = loop.reloader
        return {
            **found,
            "ready": status.readiness(core),
            "startup": status.startup(core),
            "master": {
                "start_time_seconds": round(self.started_at, 3),
                "draining": status.phase(core) in ("draining", "stopping"),
                "loop_lag_seconds": round(loop.lag.peak(now), 6),
                "orphans_reaped": loop.children.orphans,
                "log_lines_dropped": loop.log.dropped,
                "notify_rejected": loop.children.rejected,
                "signals": dict(self.signals),
                "config_reload_ok": not reloader.error,
                "config_reload_time": round(reloader.loaded_at, 3),
                "oom_kills": _oom_kills(),
            },
        }

    def status(self) -> dict[str, Any]:
        """Everything that can be known about the master, see docs/CONTROL.md; workers as rows, their time beside."""
        from entrypoint import __version__

        loop = self.loop
        now = time.monotonic()
        zero = wall_clock() - now
        if abs(zero - self._zero) > STEP:  # somebody has set the clock; else a start is always told as the same time
            self._zero = zero
        pids = {serial: process.pid for serial, process in loop.children.by_serial.items() if process.alive}
        reloader = loop.reloader
        return {
            "time": self._zero + now,
            "version": __version__,
            "pid": os.getpid(),
            "phase": status.phase(loop.core),
            "started_at": timestamp(self.started_at),
            "config": {
                "path": reloader.source.path,
                "sha256": reloader.sha256,
                "loaded_at": timestamp(reloader.loaded_at),
                "error": reloader.error,
            },
            "pools": status.pools(loop.core, now, self._zero, pids),
            "sockets": loop.sockets.describe() if loop.sockets is not None else {},
            "events": [{**event, "time": timestamp(event["time"])} for event in self.events],
        }
