"""The metrics: what the master told, as families of samples. An encoder makes text of them.

Labels that count something are there from the first scrape on, at 0; what describes a worker is there while it lives.
No label has a value that grows with restarts.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, NamedTuple

from entrypoint.reasons import REASONS, RESTARTS, TIMEOUTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from entrypoint.observer.proc import Usage

    Snapshot = Mapping[str, Any]
    Samples = Sequence[tuple[tuple[str, ...], Any]]

STATES = ("backoff", "starting", "ready", "draining", "killing")
RESULTS = ("completed", "failed", "aborted")
DIRECTIONS = ("up", "down")
SIGNALS = ("TERM", "INT", "QUIT", "HUP", "TTIN", "TTOU", "USR1", "USR2")


class Family(NamedTuple):
    """The samples of one name. Equal families have equal texts."""

    type: str  # gauge, counter, histogram
    name: str  # without _total
    text: str
    labels: tuple[str, ...]
    samples: Samples  # values of the labels, and of the sample: None is left out

    @property
    def unit(self) -> str:
        """The end of the name, if that is one."""
        return next((unit for unit in ("seconds", "bytes") if self.name.endswith(f"_{unit}")), "")


class Metrics:
    """The families of one snapshot."""

    def __init__(self, snapshot: Snapshot, usages: Mapping[int, Usage], cpu: Mapping[str, float]) -> None:
        """`usages` by pid, for as many as could be seen; `cpu` in seconds of all lives, by pool."""
        self._snapshot = snapshot
        self._pools: dict[str, Snapshot] = snapshot["pools"]
        self._usages = usages
        self._cpu = cpu

    def collect(self) -> Iterator[Family]:
        """All of them."""
        yield from self._master()
        yield from self._pool_gauges()
        yield from self._worker_gauges()
        yield from self._counters()
        yield from self._histograms()
        yield from self._sockets()

    def _master(self) -> Iterator[Family]:
        master, config = self._snapshot["master"], self._snapshot["config"]
        usage = self._usages.get(self._snapshot["pid"])
        version = self._snapshot["version"], platform.python_version()
        yield _gauge("build_info", "What runs here; the value is 1.", ("version", "python"), [(version, 1)])
        sha256 = config["sha256"] or ""
        yield _gauge("config_info", "The configuration in force; the value is 1.", ("sha256",), [((sha256,), 1)])
        for name, text, value in (
            ("master_start_time_seconds", "Unix time when the master started.", master["start_time_seconds"]),
            ("master_draining", "1 from the first request to stop on, else 0.", master["draining"]),
            ("master_loop_lag_seconds", "How late the master's loop last was.", master["loop_lag_seconds"]),
            ("master_resident_memory_bytes", "Memory of the master.", usage.resident if usage else None),
            ("config_last_reload_successful", "0 when the last reload was rejected.", master["config_reload_ok"]),
            (
                "config_last_reload_success_timestamp_seconds",
                "Unix time when the configuration in force was read.",
                master["config_reload_time"],
            ),
        ):
            yield _gauge(name, text, (), [((), value)])
        for name, text, value in (
            ("orphans_reaped", "Processes of others that the master waited for.", master["orphans_reaped"]),
            ("log_lines_dropped", "Lines of the log that nobody took.", master["log_lines_dropped"]),
            ("notify_rejected", "Messages to workers' notify sockets that were refused.", master["notify_rejected"]),
            ("cgroup_oom_kills", "Processes that the kernel killed for lack of memory.", master["oom_kills"]),
        ):
            yield _counter(name, text, (), [((), value)])
        signals = {**dict.fromkeys(SIGNALS, 0), **master["signals"]}
        samples = [((name,), count) for name, count in signals.items()]
        yield _counter("signals_received", "Signals to the master; equal ones merge.", ("signal",), samples)

    def _pool_gauges(self) -> Iterator[Family]:
        samples = [
            ((name, state), count)
            for name, pool in self._pools.items()
            for state, count in _tally(worker["state"] for worker in pool["workers"]).items()
        ]
        yield _gauge("pool_workers", "Workers by state.", ("pool", "state"), samples)
        for name, text, value in (
            ("pool_workers_desired", "Workers that the pool shall have.", lambda p: p["desired"]),
            ("pool_generation", "Generation of the configuration in force.", lambda p: p["generation"]),
            ("pool_backoff_seconds", "Pause before the next start; 0 if none.", lambda p: p["backoff_seconds"]),
            ("pool_failed", "1 when the master has given up on the pool.", lambda p: p["failed"]),
            ("pool_rollout_in_progress", "1 during a rollout.", lambda p: p["rollout"] is not None),
        ):
            yield _gauge(name, text, ("pool",), [((key,), value(pool)) for key, pool in self._pools.items()])

    def _worker_gauges(self) -> Iterator[Family]:
        alive = [
            ((name, str(worker["slot"])), worker)
            for name, pool in self._pools.items()
            for worker in pool["workers"]
            if worker["pid"] is not None
        ]

        def resident(worker: Snapshot) -> float | None:
            usage = self._usages.get(worker["pid"])
            return usage.resident if usage else None

        for name, text, value in (
            ("worker_start_time_seconds", "Unix time when it started.", lambda w: w["start_time_seconds"]),
            ("worker_age_seconds", "Since it started.", lambda w: w["age_seconds"]),
            ("worker_heartbeat_age_seconds", "Since its last heartbeat.", lambda w: w["heartbeat_age_seconds"]),
            ("worker_resident_memory_bytes", "Memory of its main process.", resident),
            ("worker_generation", "Generation that it was born under.", lambda w: w["generation"]),
        ):
            yield _gauge(name, text, ("pool", "slot"), [(labels, value(worker)) for labels, worker in alive])

    def _counters(self) -> Iterator[Family]:
        cpu: Samples = [((name,), seconds) for name, seconds in self._cpu.items()]
        yield _counter("worker_cpu_seconds", "CPU time of all workers that ever lived.", ("pool",), cpu)
        spawns = [((name,), pool["spawns"]) for name, pool in self._pools.items()]
        yield _counter("worker_spawns", "Workers started.", ("pool",), spawns)
        for name, text, label, key, known in (
            ("worker_exits", "Workers that ended.", "reason", "exits", REASONS),
            ("worker_restarts", "Workers replaced that nobody asked to go.", "reason", "restarts_by", RESTARTS),
            ("worker_timeouts", "Deadlines that workers missed.", "phase", "timeouts", TIMEOUTS),
            ("rollouts", "Rollouts that ended.", "result", "rollouts", RESULTS),
            ("scale_events", "Changes of a pool's size.", "direction", "scale_events", DIRECTIONS),
        ):
            samples = [
                ((pool_name, value), count)
                for pool_name, pool in self._pools.items()
                for value, count in {**dict.fromkeys(known, 0), **pool[key]}.items()
            ]
            yield _counter(name, text, ("pool", label), samples)

    def _histograms(self) -> Iterator[Family]:
        for name, text, key in (
            ("worker_boot_duration_seconds", "From start to ready.", "boot"),
            ("worker_lifetime_seconds", "From start to end.", "lifetime"),
            ("worker_stop_duration_seconds", "From the order to stop to the end.", "stop"),
        ):
            samples = [((pool_name,), _histogram(pool[key])) for pool_name, pool in self._pools.items()]
            yield Family("histogram", f"entrypoint_{name}", text, ("pool",), samples)

    def _sockets(self) -> Iterator[Family]:
        for name, text, key in (
            ("socket_backlog_connections", "Connections that wait to be accepted.", "queued"),
            ("socket_backlog_limit_connections", "Connections that may wait to be accepted.", "backlog"),
        ):
            samples = [((socket,), told[key]) for socket, told in self._snapshot["sockets"].items()]
            yield _gauge(name, text, ("socket",), samples)


def _tally(states: Iterable[str]) -> dict[str, int]:
    tally = dict.fromkeys(STATES, 0)
    for state in states:
        tally[state] = tally.get(state, 0) + 1
    return tally


def _histogram(told: Snapshot) -> tuple[list[tuple[str, int]], float]:
    """Cumulative buckets by their upper bounds, and the sum."""
    buckets = [(str(float(bound)), count) for bound, count in told["buckets"]]
    return [*buckets, ("+Inf", told["count"])], told["sum"]


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Family:
    return Family("gauge", f"entrypoint_{name}", text, labels, samples)


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Family:
    return Family("counter", f"entrypoint_{name}", text, labels, samples)
