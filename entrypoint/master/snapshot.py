"""How things are: what the control socket shows as the status, and what the observer makes metrics and a page of."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING

from entrypoint.core import status
from entrypoint.master.log import timestamp, wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from entrypoint.core.model import Master

    Figures = Callable[[], dict[str, Any]]

RECENT = 50  # events that the status shows
SIGNALS = ("TERM", "INT", "QUIT", "HUP", "TTIN", "TTOU", "USR1", "USR2")  # counted from the start
STEP = 0.5  # seconds


class Snapshot:
    """Made when somebody asks, of what each part knows. All that is kept is what has happened: events and signals."""

    def __init__(
        self,
        core: Master,
        *,
        pids: Callable[[], Mapping[int, int]],
        config: Figures,
        sockets: Figures,
        master: Figures,
    ) -> None:
        """`pids` of the workers that live, by serial; `config`, `sockets` and `master` as they are to be shown."""
        self._core = core
        self._pids = pids
        self._config = config
        self._sockets = sockets
        self._master = master
        self._events: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._signals: dict[str, int] = dict.fromkeys(SIGNALS, 0)  # received so far
        self._started_at = wall_clock()
        self._zero = self._started_at - time.monotonic()

    def note(self, event: str, fields: dict[str, Any]) -> None:
        """Remember an event for the status."""
        self._events.append({"time": wall_clock(), "event": event, **fields})

    def note_signal(self, name: str) -> None:
        """Count a signal that the master got."""
        self._signals[name] = self._signals.get(name, 0) + 1

    def health(self) -> dict[str, Any]:
        """What probes want to know."""
        core = self._core
        return {"phase": status.phase(core), "ready": status.readiness(core), "startup": status.startup(core)}

    def metrics(self) -> dict[str, Any]:
        """The status, with its workers as rows, and what metrics are made of beside it."""
        core, now = self._core, time.monotonic()
        found = self.status()
        for name, shown in found["pools"].items():
            shown.update(status.counters(core.pools[name], now))
        return {
            **found,
            "ready": status.readiness(core),
            "startup": status.startup(core),
            "master": {
                "start_time_seconds": round(self._started_at, 3),
                "draining": status.phase(core) in ("draining", "stopping"),
                "signals": dict(self._signals),
                "oom_kills": _oom_kills(),
                **self._master(),
            },
        }

    def status(self) -> dict[str, Any]:
        """Everything that can be known about the master, see docs/CONTROL.md; workers as rows, their time beside."""
        from entrypoint import __version__

        now = time.monotonic()
        zero = wall_clock() - now
        if abs(zero - self._zero) > STEP:  # somebody has set the clock; else a start is always told as the same time
            self._zero = zero
        return {
            "time": self._zero + now,
            "version": __version__,
            "pid": os.getpid(),
            "phase": status.phase(self._core),
            "started_at": timestamp(self._started_at),
            "config": self._config(),
            "pools": status.pools(self._core, now, self._zero, self._pids()),
            "sockets": self._sockets(),
            "events": [{**event, "time": timestamp(event["time"])} for event in self._events],
        }


def _oom_kills() -> int | None:
    """As of now: not every process that was killed is a worker, and so looked at."""
    try:
        from entrypoint.linux.cgroup import oom_kills

        return oom_kills()
    except (OSError, ValueError):
        return None
