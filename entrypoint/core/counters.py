"""What has happened in a pool so far, for whoever counts. Nothing is ever decided by it."""

# They are plain numbers, and histograms of a few buckets, in the core: so they are exact, agree with the log, and
# survive the observer. Only memory and CPU of the living are read from /proc, by the observer.

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from entrypoint.reasons import REASONS, RESTARTS, TIMEOUTS

if TYPE_CHECKING:
    from typing import Any

BOOT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)  # seconds
STOP_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
LIFETIME_BUCKETS = (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0, 604800.0)


class Histogram:
    """Durations in seconds, by upper bounds."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds

    def snapshot(self) -> dict[str, Any]:
        """Cumulative counts by bound, without the last bound, which is infinite; the number and the sum of all."""
        buckets, count = [], 0
        for bound, number in zip(self._bounds, self._counts, strict=False):
            count += number
            buckets.append([bound, count])
        return {"buckets": buckets, "count": count + self._counts[-1], "sum": round(self.total, 6)}


class Counters:
    """The counters of one pool; all of them are there from the start."""

    __slots__ = ("boot", "cpu_seconds", "exits", "lifetime", "restarts", "rollouts", "scalings", "spawns", "stop",
                 "timeouts")  # fmt: skip

    def __init__(self) -> None:
        self.spawns = 0
        self.exits = dict.fromkeys(REASONS, 0)
        self.restarts = dict.fromkeys(RESTARTS, 0)
        self.timeouts = dict.fromkeys(TIMEOUTS, 0)
        self.rollouts = dict.fromkeys(("completed", "failed", "aborted"), 0)
        self.scalings = dict.fromkeys(("up", "down"), 0)
        self.cpu_seconds = 0.0  # of lives that have ended
        self.boot = Histogram(BOOT_BUCKETS)
        self.lifetime = Histogram(LIFETIME_BUCKETS)
        self.stop = Histogram(STOP_BUCKETS)

    def snapshot(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "spawns": self.spawns,
            "exits": dict(self.exits),
            "restarts_by": dict(self.restarts),
            "timeouts": dict(self.timeouts),
            "rollouts": dict(self.rollouts),
            "scale_events": dict(self.scalings),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "boot": self.boot.snapshot(),
            "lifetime": self.lifetime.snapshot(),
            "stop": self.stop.snapshot(),
        }
