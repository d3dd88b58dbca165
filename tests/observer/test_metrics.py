"""The metrics: names, types, labels and values, by the parsers that scrapers use."""

from __future__ import annotations

import gzip
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from entrypoint.observer.exposition import Exposition
from entrypoint.observer.metrics import Metrics
from entrypoint.observer.proc import Usage
from tests.observer.harness import Observer, histogram, pool, snapshot, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.metrics_core import Metric

# As Prometheus 3 sends it.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
UNASKED = ["completed", "error", "signal", "oom", "boot_timeout", "heartbeat_timeout", "liveness"]
REASONS = [
    *UNASKED, "max_lifetime", "max_memory", "max_requests", "memory_guard", "rollout", "scale_down", "shutdown",
    "requested",
]  # fmt: skip
WORKER_GAUGES = [
    f"entrypoint_worker_{name}"
    for name in ("start_time_seconds", "age_seconds", "heartbeat_age_seconds", "resident_memory_bytes", "generation")
]

TYPES = {
    "gauge": """
        build_info config_info master_start_time_seconds master_draining master_loop_lag_seconds
        master_resident_memory_bytes config_last_reload_successful config_last_reload_success_timestamp_seconds
        pool_workers pool_workers_desired pool_generation pool_backoff_seconds pool_failed pool_rollout_in_progress
        worker_start_time_seconds worker_age_seconds worker_heartbeat_age_seconds worker_resident_memory_bytes
        worker_generation socket_backlog_connections socket_backlog_limit_connections
    """,
    "counter": """
        worker_cpu_seconds worker_spawns worker_exits worker_restarts worker_timeouts rollouts scale_events
        orphans_reaped log_lines_dropped notify_rejected signals_received cgroup_oom_kills
    """,
    "histogram": "worker_boot_duration_seconds worker_lifetime_seconds worker_stop_duration_seconds",
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def families(observer: Observer, accept: str = OPENMETRICS) -> dict[str, Metric]:
    reply = observer.get("/metrics", Accept=accept)
    parse: Callable[[str], Iterable[Metric]] = parse_text
    if reply.headers["content-type"].startswith("application/openmetrics-text"):
        parse = parse_openmetrics
    return {family.name: family for family in parse(reply.text)}


def samples(observer: Observer, accept: str = OPENMETRICS) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(observer, accept).values()
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"entrypoint_{name}", frozenset(labels.items())))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        ('application/openmetrics-text; version="1.0.0"', "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text; version=x", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=2.0.0", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; q=0", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; q=0.1, text/plain; q=0.5", "text/plain; version=0.0.4"),
        (";=,;;=version", "text/plain; version=0.0.4"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(shared: Observer, accept: str, kind: str) -> None:
    reply = shared.get("/metrics", Accept=accept)
    assert reply.status == 200
    assert reply.headers["content-type"].startswith(kind)
    assert reply.body.endswith(b"# EOF\n") == ("openmetrics" in kind)
    assert "Accept" in reply.headers["vary"].split(", ")


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS, PROMETHEUS])
def test_every_family_is_there_with_its_type_and_a_help_text(shared: Observer, accept: str) -> None:
    found = families(shared, accept)
    wanted = {f"entrypoint_{name}": kind for kind, names in TYPES.items() for name in names.split()}
    assert {name: family.type for name, family in found.items()} == wanted
    assert all(family.documentation.endswith(".") for family in found.values())


def test_promtool_has_nothing_to_say(shared: Observer) -> None:
    text = shared.get("/metrics").body
    check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")


def test_both_formats_say_the_same(shared: Observer) -> None:
    changing = ("cpu_seconds", "resident_memory")
    one, other = (
        {key: value for key, value in samples(shared, accept).items() if not any(c in key[0] for c in changing)}
        for accept in ("text/plain", OPENMETRICS)
    )
    assert one == other


def test_compressed_metrics_are_the_same(shared: Observer) -> None:
    reply = shared.get("/metrics", Accept=OPENMETRICS, Accept_Encoding="gzip")
    assert reply.headers["content-encoding"] == "gzip"
    told = gzip.decompress(reply.body).decode()
    assert told.endswith("# EOF\n")
    assert told.count("# TYPE ") == len(families(shared))


def test_labels_that_count_are_complete_at_zero_before_anything_has_happened(shared: Observer) -> None:
    found = samples(shared)
    for name, label, known in (
        ("worker_exits_total", "reason", REASONS),
        ("worker_restarts_total", "reason", UNASKED),
        ("worker_timeouts_total", "phase", ["boot", "heartbeat", "stop"]),
        ("rollouts_total", "result", ["completed", "failed", "aborted"]),
        ("scale_events_total", "direction", ["up", "down"]),
        ("signals_received_total", "signal", ["TERM", "INT", "QUIT", "HUP", "TTIN", "TTOU", "USR1", "USR2"]),
    ):
        whose = {} if label == "signal" else {"pool": "web"}
        wanted = {frozenset({label: one, **whose}.items()): 0 for one in known}
        assert {labels: got for (of, labels), got in found.items() if of == f"entrypoint_{name}"} == wanted
    for name in ("worker_boot_duration_seconds", "worker_lifetime_seconds", "worker_stop_duration_seconds"):
        assert value(found, f"{name}_count", pool="web") == 0
        assert value(found, f"{name}_bucket", pool="web", le="+Inf") == 0
    for state in ("backoff", "starting", "draining", "killing"):
        assert value(found, "pool_workers", pool="web", state=state) == 0
    for name in ("orphans_reaped_total", "log_lines_dropped_total", "notify_rejected_total"):
        assert value(found, name) == 0


def test_what_the_master_counts_is_what_is_shown(observer: Observer) -> None:
    observer.master.snapshot = snapshot(
        web=pool(
            worker("web", 0, os.getpid(), state="draining", generation=4, heartbeat_age_seconds=0.25),
            worker("web", 3, None),
            desired=5,
            generation=4,
            spawns=9,
            exits={"signal": 3, "rollout": 2},
            restarts_by={"signal": 3},
            timeouts={"boot": 1, "stop": 2},
            rollouts={"failed": 1},
            scale_events={"up": 6},
            backoff_seconds=1.5,
            failed=True,
            rollout={"generation": 5, "phase": "replacing", "replaced": 1, "total": 5},
            boot=histogram(8),
        ),
    )
    observer.master.snapshot["master"] |= {
        "draining": True, "loop_lag_seconds": 0.125, "config_reload_ok": False, "oom_kills": 4,
        "orphans_reaped": 11, "log_lines_dropped": 12, "notify_rejected": 13,
        "signals": {"HUP": 2, "WINCH": 1},
    }  # fmt: skip
    found = samples(observer)
    wanted: list[tuple[float | None, str, dict[str, str]]] = [
        (1, "build_info", {"version": "1.2.3", "python": found_python(found)}),
        (1, "config_info", {"sha256": "ab" * 32}),
        (1764057600.25, "master_start_time_seconds", {}),
        (1, "master_draining", {}),
        (0.125, "master_loop_lag_seconds", {}),
        (0, "config_last_reload_successful", {}),
        (1764057600.5, "config_last_reload_success_timestamp_seconds", {}),
        (11, "orphans_reaped_total", {}),
        (12, "log_lines_dropped_total", {}),
        (13, "notify_rejected_total", {}),
        (4, "cgroup_oom_kills_total", {}),
        (2, "signals_received_total", {"signal": "HUP"}),
        (1, "signals_received_total", {"signal": "WINCH"}),
        (1, "pool_workers", {"pool": "web", "state": "draining"}),
        (1, "pool_workers", {"pool": "web", "state": "backoff"}),
        (5, "pool_workers_desired", {"pool": "web"}),
        (4, "pool_generation", {"pool": "web"}),
        (1.5, "pool_backoff_seconds", {"pool": "web"}),
        (1, "pool_failed", {"pool": "web"}),
        (1, "pool_rollout_in_progress", {"pool": "web"}),
        (9, "worker_spawns_total", {"pool": "web"}),
        (3, "worker_exits_total", {"pool": "web", "reason": "signal"}),
        (2, "worker_exits_total", {"pool": "web", "reason": "rollout"}),
        (3, "worker_restarts_total", {"pool": "web", "reason": "signal"}),
        (1, "worker_timeouts_total", {"pool": "web", "phase": "boot"}),
        (2, "worker_timeouts_total", {"pool": "web", "phase": "stop"}),
        (1, "rollouts_total", {"pool": "web", "result": "failed"}),
        (6, "scale_events_total", {"pool": "web", "direction": "up"}),
        (8, "worker_boot_duration_seconds_count", {"pool": "web"}),
        (4, "worker_boot_duration_seconds_sum", {"pool": "web"}),
        (0, "worker_boot_duration_seconds_bucket", {"pool": "web", "le": "0.1"}),
        (8, "worker_boot_duration_seconds_bucket", {"pool": "web", "le": "1.0"}),
        (1764057600.5, "worker_start_time_seconds", {"pool": "web", "slot": "0"}),
        (12.5, "worker_age_seconds", {"pool": "web", "slot": "0"}),
        (0.25, "worker_heartbeat_age_seconds", {"pool": "web", "slot": "0"}),
        (4, "worker_generation", {"pool": "web", "slot": "0"}),
        (None, "worker_age_seconds", {"pool": "web", "slot": "3"}),
        (3, "socket_backlog_connections", {"socket": "http"}),
        (2048, "socket_backlog_limit_connections", {"socket": "http"}),
    ]
    for expected, name, labels in wanted:
        assert value(found, name, **labels) == expected, name
    assert (value(found, "worker_resident_memory_bytes", pool="web", slot="0") or 0) > 1 << 20
    assert (value(found, "master_resident_memory_bytes") or 0) > 1 << 20


def found_python(found: Samples) -> str:
    return next(dict(labels)["python"] for name, labels in found if name == "entrypoint_build_info")


def test_a_workers_gauges_end_with_it_and_its_pools_counters_stay(observer: Observer) -> None:
    def about(name: str) -> list[dict[str, str]]:
        return [dict(labels) for (of, labels) in samples(observer) if of == name]

    observer.master.snapshot = snapshot(web=pool(worker("web", 0, os.getpid(), heartbeat_age_seconds=1.0)))
    for name in WORKER_GAUGES:
        assert about(name) == [{"pool": "web", "slot": "0"}]
    observer.master.snapshot = snapshot(web=pool(worker("web", 0, None), spawns=1))
    for name in WORKER_GAUGES:
        assert about(name) == []
    assert about("entrypoint_worker_spawns_total") == [{"pool": "web"}]
    observer.master.snapshot = snapshot(other=pool())
    assert about("entrypoint_worker_spawns_total") == [{"pool": "other"}]


def test_restarts_add_no_series_and_there_is_no_pid(observer: Observer) -> None:
    def series() -> set[Any]:
        return set(samples(observer))

    observer.master.snapshot = snapshot(web=pool(worker("web", 0, os.getpid())))
    before = series()
    observer.master.snapshot = snapshot(
        web=pool(worker("web", 0, os.getppid(), restarts=500), spawns=501, exits={"error": 500}, generation=1)
    )
    assert series() == before
    assert not any(dict(labels).keys() & {"pid", "serial", "generation"} for _, labels in before)


def test_the_cpu_time_of_a_pool_never_goes_back(observer: Observer) -> None:
    burner = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        observer.master.snapshot = snapshot(web=pool(worker("web", 0, burner.pid), cpu_seconds=2.0))
        while (spent := value(samples(observer), "worker_cpu_seconds_total", pool="web") or 0) <= 2.0:
            pass
    finally:
        burner.kill()
        burner.wait()
    # It is gone from /proc, and the master has not counted it yet.
    assert value(samples(observer), "worker_cpu_seconds_total", pool="web") >= spent  # type: ignore[operator] # it is there
    observer.master.snapshot = snapshot(web=pool(worker("web", 0, None), cpu_seconds=1000.0))
    assert value(samples(observer), "worker_cpu_seconds_total", pool="web") == 1000.0


def test_what_cannot_be_known_is_absent(observer: Observer) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    observer.master.snapshot = snapshot(web=pool(worker("web", 0, gone.pid)))
    found = samples(observer)
    assert value(found, "worker_resident_memory_bytes", pool="web", slot="0") is None
    assert value(found, "worker_heartbeat_age_seconds", pool="web", slot="0") is None
    assert value(found, "cgroup_oom_kills_total") is None
    assert value(found, "worker_age_seconds", pool="web", slot="0") == 12.5


def test_nothing_of_the_python_client_itself_is_exported(shared: Observer) -> None:
    assert all(name.startswith("entrypoint_") for name in families(shared))


def test_a_thousand_workers_are_all_there(observer: Observer) -> None:
    observer.master.snapshot = snapshot(web=pool(*(worker("web", slot, os.getpid()) for slot in range(1000))))
    found = samples(observer)
    assert sum(name == "entrypoint_worker_resident_memory_bytes" for name, _ in found) == 1000
    assert len(observer.get("/status").json["pools"]["web"]["workers"]) == 1000


def test_what_the_encoder_remembers_is_what_it_would_write_anew() -> None:
    one = snapshot(web=pool(worker("web", 0, 7), worker("web", 1, 8)), jobs=pool(worker("jobs", 0, 9)))
    older = {
        **one,
        "pools": {**one["pools"], "web": pool(worker("web", 0, 7, age_seconds=13.5), worker("web", 1, None))},
    }
    fewer = {**one, "pools": {"web": one["pools"]["web"]}}
    stories = [Metrics(told, {7: Usage(size, 1.0)}, {"web": 2.0}) for told in (one, older, fewer) for size in (1, 2)]
    encoder = Exposition()
    for metrics in [*stories, *stories[::-1]]:
        assert encoder.openmetrics(metrics.collect()) == Exposition().openmetrics(metrics.collect())
        assert encoder.plain(metrics.collect()) == Exposition().plain(metrics.collect())
    assert len({encoder.openmetrics(metrics.collect()) for metrics in stories}) == len(stories)
