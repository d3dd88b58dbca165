"""The metrics: what the master told, as families of samples.

Labels that count something are there from the first scrape on, at 0; what describes a worker is there while it lives.
No label has a value that grows with restarts.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from prometheus_client.metrics_core import Metric

    from entrypoint.observer.proc import Usage

    Snapshot = Mapping[str, Any]
    Samples = Iterable[
        tuple[tuple[str, ...], float | None]
    ]  # values of the labels, and of the sample: None is left out

STATES = ("backoff", "starting", "ready", "draining", "killing")
UNASKED = ("completed", "error", "signal", "oom", "boot_timeout", "heartbeat_timeout", "liveness")
REASONS = (*UNASKED, "max_lifetime", "max_memory", "max_requests", "rollout", "scale_down", "shutdown", "requested")
TIMEOUTS = ("boot", "heartbeat", "stop")
RESULTS = ("completed", "failed", "aborted")
DIRECTIONS = ("up", "down")
SIGNALS = ("TERM", "INT", "QUIT", "HUP", "TTIN", "TTOU", "USR1", "USR2")


class Metrics:
    """The families of one snapshot, for an encoder."""

    def __init__(self, snapshot: Snapshot, usages: Mapping[int, Usage], cpu: Mapping[str, float]) -> None:
        """`usages` by pid, for as many as could be seen; `cpu` in seconds of all lives, by pool."""
        self._snapshot = snapshot
        self._pools: dict[str, Snapshot] = snapshot["pools"]
        self._usages = usages
        self._cpu = cpu

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self._master()
        yield from self._pool_gauges()
        yield from self._worker_gauges()
        yield from self._counters()
        yield from self._histograms()
        yield from self._sockets()

    def _master(self) -> Iterator[Metric]:
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

    def _pool_gauges(self) -> Iterator[Metric]:
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

    def _worker_gauges(self) -> Iterator[Metric]:
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
            ("worker_start_time_seconds", "Unix time when it started.", lambda w: w["started_at"]),
            ("worker_age_seconds", "Since it started.", lambda w: w["age_seconds"]),
            ("worker_heartbeat_age_seconds", "Since its last heartbeat.", lambda w: w["heartbeat_age_seconds"]),
            ("worker_resident_memory_bytes", "Memory of its main process.", resident),
            ("worker_generation", "Generation that it was born under.", lambda w: w["generation"]),
        ):
            yield _gauge(name, text, ("pool", "slot"), [(labels, value(worker)) for labels, worker in alive])

    def _counters(self) -> Iterator[Metric]:
        cpu: Samples = [((name,), seconds) for name, seconds in self._cpu.items()]
        yield _counter("worker_cpu_seconds", "CPU time of all workers that ever lived.", ("pool",), cpu)
        spawns = [((name,), pool["spawns"]) for name, pool in self._pools.items()]
        yield _counter("worker_spawns", "Workers started.", ("pool",), spawns)
        for name, text, label, key, known in (
            ("worker_exits", "Workers that ended.", "reason", "exits", REASONS),
            ("worker_restarts", "Workers replaced that nobody asked to go.", "reason", "restarts_by", UNASKED),
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

    def _histograms(self) -> Iterator[Metric]:
        for name, text, key in (
            ("worker_boot_duration_seconds", "From start to ready.", "boot"),
            ("worker_lifetime_seconds", "From start to end.", "lifetime"),
            ("worker_stop_duration_seconds", "From the order to stop to the end.", "stop"),
        ):
            family = HistogramMetricFamily(f"entrypoint_{name}", text, labels=("pool",), unit="seconds")
            for pool_name, pool in self._pools.items():
                told = pool[key]
                buckets = [(str(float(bound)), count) for bound, count in told["buckets"]]
                family.add_metric((pool_name,), [*buckets, ("+Inf", told["count"])], told["sum"])
            yield family

    def _sockets(self) -> Iterator[Metric]:
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


def _unit(name: str) -> str:
    return next((unit for unit in ("seconds", "bytes") if name.endswith(f"_{unit}")), "")


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    return _filled(GaugeMetricFamily(f"entrypoint_{name}", text, labels=labels, unit=_unit(name)), samples)


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    return _filled(CounterMetricFamily(f"entrypoint_{name}", text, labels=labels, unit=_unit(name)), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Metric:
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, value)
    return family
