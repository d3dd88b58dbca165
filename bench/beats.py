"""Heartbeats, and rollouts of many workers: how soon, how much CPU, how long.

Times are in milliseconds on CLOCK_MONOTONIC.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import namespace
from .measure import Reports, activity, environment, tail, workspace
from .systems import Ours

if TYPE_CHECKING:
    from pathlib import Path

HEARTBEAT_MS = 3000
BOOT_MS = 300
STOP_MS = 300
ROLLOUT_WORKERS, SURGE = 100, 10
_START = 120.0
_END = 60.0


@dataclass
class Hangs:
    """What beats cost, and how late hangs were noticed: from the deadline to the abort signal at the worker."""

    workers: int
    cpu_percent: float | None = None
    late_ms: list[float] = field(default_factory=list)
    failure: str = ""


@dataclass
class BigRollout:
    """How long it took to replace many workers, and to stop in the middle of that and without."""

    rollout_ms: list[float] = field(default_factory=list)
    stop_ms: list[float] = field(default_factory=list)
    stop_amid_ms: list[float] = field(default_factory=list)
    failure: str = ""


class Master(Ours):
    """This project with a pool of workers that beat."""

    name = "entrypoint"

    def command(self, path: Path, beater: Path, workers: int, *, boot_ms: int = 0, stop_ms: int = 0) -> list[str]:
        """Write the configuration; return the command."""
        pool: dict[str, Any] = {
            "command": [str(beater), str(boot_ms), str(stop_ms)],
            "workers": workers,
            "ready": {"when": "notify"},
            "heartbeat": {"timeout": f"{HEARTBEAT_MS}ms"},
            "restart": {"min_uptime": "0s"},
            "rollout": {"max_surge": SURGE},
        }
        config = {"control": {"socket": str(path / "control")}, "observer": {"enabled": False}, "pools": {"web": pool}}
        (path / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        return [*self.executable(), "run", "-c", str(path / "config.yaml")]


def _started(master: Master, path: Path, beater: Path, workers: int, **more: int) -> tuple[int, Reports, list[int]]:
    """Start the master; returns its pid, and those of its workers when all are ready. Raises TimeoutError."""
    reports = Reports(path / "fifo")
    pid = namespace.spawn(
        master.command(path, beater, workers, **more), environment(BENCH_FIFO=str(path / "fifo")), path / "log"
    )
    deadline = time.monotonic() + _START
    ready: list[int] = []
    while len(ready) < workers:
        ready += [worker for worker, _ in reports.read(deadline)]
    return pid, reports, ready


def hangs(master: Master, beater: Path, workers: int, seconds: float, victims: int) -> Hangs:
    """Watch the master for so many seconds while all its workers beat; then let some hang, one after the other."""
    result = Hangs(workers)
    with workspace() as path:
        try:
            pid, reports, ready = _started(master, path, beater, workers)
            time.sleep(2.0)  # until every worker has beaten once
            before, began = activity({pid})[1], time.monotonic()
            time.sleep(seconds)
            result.cpu_percent = (activity({pid})[1] - before) / 1e7 / (time.monotonic() - began)
            chosen = ready[:: max(1, len(ready) // victims)][:victims]
            for victim in chosen:
                os.kill(victim, signal.SIGUSR1)
                time.sleep(0.1)
            waiting = set(chosen)
            deadline = time.monotonic() + HEARTBEAT_MS / 1000 + 10.0
            while waiting:  # the successors report as well
                for worker, value in reports.read(deadline):
                    if worker in waiting:
                        waiting.discard(worker)
                        result.late_ms.append(value / 1e6 - HEARTBEAT_MS)
            reports.close()
        except TimeoutError:
            result.failure = f"not all workers were heard of: {tail(path / 'log')}"
    return result


def big_rollout(master: Master, beater: Path) -> BigRollout:
    """One rollout, one stop at rest, one stop in the middle of a rollout."""
    result = BigRollout()
    try:
        result.rollout_ms.append(_rollout(master, beater))
        result.stop_ms.append(_stop(master, beater, amid=False))
        result.stop_amid_ms.append(_stop(master, beater, amid=True))
    except TimeoutError as error:
        result.failure = str(error)
    return result


def _rollout(master: Master, beater: Path) -> float:
    """How long it takes from HUP until the last old worker is gone. Raises TimeoutError."""
    with workspace() as path:
        pid, reports, ready = _started(master, path, beater, ROLLOUT_WORKERS, boot_ms=BOOT_MS)
        began = time.monotonic()
        os.kill(pid, signal.SIGHUP)
        old = set(ready)
        while old & namespace.processes():
            if time.monotonic() - began > _END:
                raise TimeoutError(f"the rollout did not end: {tail(path / 'log')}")
            time.sleep(0.005)
        took = time.monotonic() - began
        reports.close()
    return took * 1000


def _stop(master: Master, beater: Path, *, amid: bool) -> float:
    """How long it takes from TERM, `amid` a rollout or at rest, until everything is gone. Raises TimeoutError."""
    with workspace() as path:
        pid, reports, _ = _started(master, path, beater, ROLLOUT_WORKERS, boot_ms=BOOT_MS, stop_ms=STOP_MS)
        if amid:
            os.kill(pid, signal.SIGHUP)
            new = 0
            while new < ROLLOUT_WORKERS // 3:
                new += len(reports.read(time.monotonic() + _END))
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        if not namespace.wait_until_empty(_END):
            raise TimeoutError(f"the stop did not end: {tail(path / 'log')}")
        took = time.monotonic() - began
        reports.close()
    return took * 1000
