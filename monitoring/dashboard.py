"""The dashboard for Grafana: rows of panels, laid out one after the other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

TARGET = 'namespace=~"$namespace",pod=~"$pod"'
POOL = f'{TARGET},pool=~"$pool"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8  # of a row of panels, in the units of Grafana's grid


class Panel(NamedTuple):
    """A picture of some expressions, each with the name of its series."""

    title: str
    unit: str  # as Grafana calls it
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    about: str = ""
    stacked: bool = False


def total(metric: str, by: str, more: str = "") -> str:
    """What a counter of pools grew by, in the time of a point."""
    return f"sum by ({by}) (increase(entrypoint_{metric}_total{{{POOL}{more}}}[$__rate_interval]))"


def workers(state: str) -> str:
    """So many workers in a state, of all pools."""
    return f'sum(entrypoint_pool_workers{{{POOL},state="{state}"}})'


def quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    """Median and tail of a histogram, by pool: of the last hour, since these things do not happen all the time."""
    rate = f"sum by (le, pool) (rate(entrypoint_{metric}_bucket{{{POOL}}}[1h]))"
    return tuple((f"histogram_quantile({q}, {rate})", f"{{{{pool}}}} p{q * 100:g}") for q in (0.5, 0.95))


ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel("Masters", "short", ((f"count(entrypoint_build_info{{{TARGET}}})", ""),), "stat"),
        Panel("Workers ready", "short", ((workers("ready"), ""),), "stat"),
        Panel("Workers desired", "short", ((f"sum(entrypoint_pool_workers_desired{{{POOL}}})", ""),), "stat"),
        Panel("Pools failed", "short", ((f"sum(entrypoint_pool_failed{{{POOL}}})", ""),), "stat"),
        Panel(
            "Rejected configurations",
            "short",
            ((f"sum(1 - entrypoint_config_last_reload_successful{{{TARGET}}})", ""),),
            "stat",
        ),
        Panel("Masters that stop", "short", ((f"sum(entrypoint_master_draining{{{TARGET}}})", ""),), "stat"),
    ),
    "Workers": (
        Panel(
            "Workers by state",
            "short",
            ((f"sum by (state) (entrypoint_pool_workers{{{POOL}}})", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Ready and desired",
            "short",
            (
                (f'sum by (pool) (entrypoint_pool_workers{{{POOL},state="ready"}})', "{{pool}} ready"),
                (f"sum by (pool) (entrypoint_pool_workers_desired{{{POOL}}})", "{{pool}} desired"),
            ),
        ),
        Panel(
            "Restarts by reason",
            "short",
            ((total("worker_restarts", "pool, reason"), "{{pool}} {{reason}}"),),
            about="Replacements of workers that nobody had asked to go.",
            stacked=True,
        ),
        Panel("Ends by reason", "short", ((total("worker_exits", "reason"), "{{reason}}"),), stacked=True),
        Panel(
            "Timeouts by phase",
            "short",
            ((total("worker_timeouts", "pool, phase"), "{{pool}} {{phase}}"),),
            stacked=True,
        ),
        Panel(
            "Longest backoff",
            "s",
            ((f"max by (pool) (entrypoint_pool_backoff_seconds{{{POOL}}})", "{{pool}}"),),
            about="The pause before the next start of a worker that has failed.",
        ),
    ),
    "Ages": (
        Panel(
            "Worker age",
            "s",
            (
                (f"max by (pool) (entrypoint_worker_age_seconds{{{POOL}}})", "{{pool}} oldest"),
                (f"min by (pool) (entrypoint_worker_age_seconds{{{POOL}}})", "{{pool}} youngest"),
            ),
        ),
        Panel(
            "Lifetimes",
            "s",
            (
                (
                    f"sum by (le) (increase(entrypoint_worker_lifetime_seconds_bucket{{{POOL}}}[$__rate_interval]))",
                    "{{le}}",
                ),
            ),
            "heatmap",
            about="Of the workers that ended.",
        ),
        Panel(
            "Longest heartbeat age",
            "s",
            ((f"max by (pool) (entrypoint_worker_heartbeat_age_seconds{{{POOL}}})", "{{pool}}"),),
            about="How near workers come to heartbeat.timeout.",
        ),
        Panel("From start to ready", "s", quantiles("worker_boot_duration_seconds")),
        Panel("From the order to stop to the end", "s", quantiles("worker_stop_duration_seconds")),
        Panel(
            "Generations",
            "short",
            (
                (f"max by (pool) (entrypoint_pool_generation{{{POOL}}})", "{{pool}} in force"),
                (f"min by (pool) (entrypoint_worker_generation{{{POOL}}})", "{{pool}} oldest worker"),
            ),
        ),
    ),
    "Resources": (
        Panel(
            "Memory by slot",
            "bytes",
            ((f"entrypoint_worker_resident_memory_bytes{{{POOL}}}", "{{pod}} {{pool}}/{{slot}}"),),
            about="Resident memory of each worker's main process.",
        ),
        Panel(
            "CPU of workers",
            "short",
            ((f"sum by (pool) (rate(entrypoint_worker_cpu_seconds_total{{{POOL}}}[$__rate_interval]))", "{{pool}}"),),
            about="Cores in use.",
        ),
        Panel(
            "OOM kills",
            "short",
            ((f"increase(entrypoint_cgroup_oom_kills_total{{{TARGET}}}[$__rate_interval])", "{{pod}}"),),
            about="Processes of the container that the kernel killed for lack of memory.",
        ),
        Panel(
            "Socket backlog",
            "short",
            (
                (f"max by (socket) (entrypoint_socket_backlog_connections{{{TARGET}}})", "{{socket}}"),
                (f"min by (socket) (entrypoint_socket_backlog_limit_connections{{{TARGET}}})", "{{socket}} limit"),
            ),
            about="Connections that wait to be accepted: the longest queue of all masters.",
        ),
    ),
    "Changes": (
        Panel("Rollouts by result", "short", ((total("rollouts", "pool, result"), "{{pool}} {{result}}"),)),
        Panel(
            "Rollouts in progress",
            "short",
            ((f"sum by (pool) (entrypoint_pool_rollout_in_progress{{{POOL}}})", "{{pool}}"),),
        ),
        Panel("Changes of size", "short", ((total("scale_events", "pool, direction"), "{{pool}} {{direction}}"),)),
        Panel(
            "Time since the last good reload",
            "s",
            ((f"time() - entrypoint_config_last_reload_success_timestamp_seconds{{{TARGET}}}", "{{pod}}"),),
        ),
        Panel(
            "Last reload",
            "short",
            ((f"entrypoint_config_last_reload_successful{{{TARGET}}}", "{{pod}}"),),
            about="0: the configuration was rejected, the one before is in force.",
        ),
        Panel(
            "Configurations in force",
            "short",
            ((f"count by (sha256) (entrypoint_config_info{{{TARGET}}})", "{{sha256}}"),),
            about="Masters by the hash of their configuration: one, unless a change is on its way.",
            stacked=True,
        ),
    ),
    "Masters": (
        Panel(
            "Loop lag",
            "s",
            ((f"entrypoint_master_loop_lag_seconds{{{TARGET}}}", "{{pod}}"),),
            about="How late the master's loop was: it gets too little CPU.",
        ),
        Panel("Memory", "bytes", ((f"entrypoint_master_resident_memory_bytes{{{TARGET}}}", "{{pod}}"),)),
        Panel("Uptime", "s", ((f"time() - entrypoint_master_start_time_seconds{{{TARGET}}}", "{{pod}}"),)),
        Panel(
            "Log lines dropped",
            "short",
            ((f"increase(entrypoint_log_lines_dropped_total{{{TARGET}}}[$__rate_interval])", "{{pod}}"),),
        ),
        Panel(
            "Messages refused",
            "short",
            ((f"increase(entrypoint_notify_rejected_total{{{TARGET}}}[$__rate_interval])", "{{pod}}"),),
            about="sd_notify messages of processes that are no workers, or too long.",
        ),
        Panel(
            "Orphans reaped, signals received",
            "short",
            (
                (f"increase(entrypoint_orphans_reaped_total{{{TARGET}}}[$__rate_interval])", "{{pod}} orphans"),
                (
                    f"sum by (signal) (increase(entrypoint_signals_received_total{{{TARGET}}}[$__rate_interval]))",
                    "{{signal}}",
                ),
            ),
        ),
    ),
}


def model() -> str:
    """helm/entrypoint/files/dashboard.json."""
    dashboard = {
        "uid": "entrypoint",
        "title": "entrypoint",
        "description": "Masters and their pools of workers. Generated by `python -m monitoring`.",
        "tags": ["entrypoint"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": list(_variables())},
        "annotations": {"list": []},
        "links": [],
        "panels": list(_panels()),
    }
    return json.dumps(dashboard, indent=2) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
    for name, query in (
        ("namespace", "label_values(entrypoint_build_info, namespace)"),
        ("pod", 'label_values(entrypoint_build_info{namespace=~"$namespace"}, pod)'),
        ("pool", f"label_values(entrypoint_pool_workers_desired{{{TARGET}}}, pool)"),
    ):
        yield {
            "name": name,
            "type": "query",
            "datasource": DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            "refresh": 2,  # whenever the time range changes
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",  # fits where there is no such label, too
            "current": {"text": ["All"], "value": ["$__all"]},
        }


def _panels() -> Iterator[dict[str, Any]]:
    top = number = 0
    for title, panels in ROWS.items():
        number += 1
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": place}
        top += 1
        stats = panels[0].kind == "stat"
        columns, height = (len(panels), HEIGHT // 2) if stats else (2 if len(panels) == 4 else 3, HEIGHT)
        width = WIDTH // columns
        for index, panel in enumerate(panels):
            number += 1
            row, column = divmod(index, columns)
            place = {"x": column * width, "y": top + row * height, "w": width, "h": height}
            yield {"id": number, **_panel(panel), "gridPos": place}
        top += height * -(-len(panels) // columns)


def _panel(panel: Panel) -> dict[str, Any]:
    custom = {"fillOpacity": 10, "showPoints": "never", "stacking": {"mode": "normal" if panel.stacked else "none"}}
    options: dict[str, Any] = {
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none"},
        "heatmap": {
            "calculate": False,
            "yAxis": {"unit": panel.unit},
            "color": {"scheme": "Oranges", "mode": "scheme"},
        },
    }
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": expression,
            "legendFormat": legend,
            "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": custom if panel.kind == "timeseries" else {}},
            "overrides": [],
        },
        "options": options[panel.kind],
    }
