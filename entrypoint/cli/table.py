"""The status as text for people. Pure: the same status, width and time make the same text."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from entrypoint.cli.common import cut, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

POOLS = ("POOL", "STATE", "READY", "PINNED", "GENERATION", "RESTARTS", "ROLLOUT", "LAST ERROR")
POOLS_ALIGN = ("left", "left", "right", "left", "right", "right", "left", "left")
WORKERS = ("WORKER", "PID", "STATE", "GENERATION", "AGE", "RESTARTS", "HEARTBEAT", "MEMORY", "STATUS")
WORKERS_ALIGN = ("left", "right", "left", "right", "right", "right", "right", "right", "left")
MIB = 1 << 20


def render(status: dict[str, Any], width: int, now: float) -> str:
    """Header, pools, workers; every line at most `width` columns wide (0: any), each with its end.

    `now` is the time of day in seconds since 1970.
    """
    pools = status["pools"]
    workers = [worker for pool in pools.values() for worker in pool["workers"]]
    lines = _header(status, now)
    lines += ["", *_table(POOLS, POOLS_ALIGN, [_pool(name, pool) for name, pool in pools.items()])]
    if workers:
        lines += ["", *_table(WORKERS, WORKERS_ALIGN, [_worker(worker) for worker in workers])]
    return "".join(f"{cut(line.rstrip(), width)}\n" for line in lines)


def _header(status: dict[str, Any], now: float) -> list[str]:
    config = status.get("config") or {}
    parts = [f"entrypoint {status.get('version')}", str(status.get("phase")), f"pid {status.get('pid')}"]
    up = _uptime(status.get("started_at"), now)
    if up is not None:
        parts.append(f"up {duration(up)}")
    if config.get("path"):
        parts.append(str(config["path"]))
    lines = [", ".join(parts)]
    if config.get("error"):
        lines.append("the last reload was rejected:")
        lines += [f"  {line}" for line in str(config["error"]).splitlines()]
    return [printable(line) for line in lines]


def _uptime(started_at: object, now: float) -> float | None:
    try:
        return max(0.0, now - datetime.fromisoformat(str(started_at)).timestamp())
    except ValueError:
        return None


def _table(headers: Sequence[str], align: Sequence[str], rows: list[list[str]]) -> list[str]:
    # As a row like the others: the library's own headers make every column two wider.
    cells = [[printable(cell) for cell in row] for row in (headers, *rows)]
    return tabulate(cells, tablefmt="plain", colalign=align, disable_numparse=True).splitlines()


def _pool(name: str, pool: dict[str, Any]) -> list[str]:
    pinned = pool.get("pinned")
    return [
        name,
        _text(pool.get("state")),
        f"{_text(pool.get('ready'))}/{_text(pool.get('desired'))}",
        "no" if pinned is None or pinned is False else "yes",
        _text(pool.get("generation")),
        _text(pool.get("restarts")),
        rollout(pool.get("rollout")),
        _text(pool.get("last_error")),
    ]


def _worker(worker: dict[str, Any]) -> list[str]:
    memory = worker.get("resident_memory_bytes")
    return [
        _text(worker.get("id")),
        _text(worker.get("pid")),
        _text(worker.get("state")),
        _text(worker.get("generation")),
        duration(worker.get("age_seconds")),
        _text(worker.get("restarts")),
        duration(worker.get("heartbeat_age_seconds")),
        f"{memory / MIB:.1f} MiB" if isinstance(memory, int) else "-",
        _text(worker.get("status")),
    ]


def _text(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def rollout(state: dict[str, Any] | None) -> str:
    """A pool's rollout in words."""
    if not state:
        return "-"
    words = (
        f"{state.get('phase')} {state.get('replaced')}/{state.get('total')} for {duration(state.get('since_seconds'))}"
    )
    return f"{words}: {state['reason']}" if state.get("reason") else words


def duration(seconds: object) -> str:
    """`3d 4h`, `4h 12m`, `1m 30s`, `12s`, `0.4s`: as exact as one needs it."""
    if not isinstance(seconds, (int, float)):
        return "-"
    if seconds < 10:
        return f"{max(0, int(seconds * 10)) / 10:g}s"
    whole = int(seconds)
    for size, unit, small, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // small}{small_unit}"
    return f"{whole}s"
