"""Load on a server, and what came of every request: `load.c` makes it, this reads it.

Times are in seconds on CLOCK_MONOTONIC where nothing else is said.
"""

from __future__ import annotations

import signal
import struct
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HOST = "127.0.0.1"
OUTCOMES = ("ok", "refused", "reset", "closed", "timeout", "bad", "error", "idle")  # as in load.c
_RECORD = struct.Struct("=qqiHBB")
_END = 20.0  # seconds; more than the patience of load.c


class Plan(NamedTuple):
    """What load to make; see load.c."""

    rate: float = 0.0  # new connections a second; 0: as many as possible
    oneshot: int = 64  # at most so many of them at a time
    keep: int = 16  # connections that are kept alive
    think_ms: float = 20.0  # their pause between a response and the next request
    processes: int = 1  # each with this load


class Request(NamedTuple):
    """What came of one request."""

    due: float
    took: float
    pid: int  # who answered
    keep: bool
    outcome: str


class Traffic:
    """All requests of a run."""

    def __init__(self, requests: list[Request], told: str) -> None:
        self.told = told  # about the first failures
        self.retried = sum(r.outcome == "idle" for r in requests)  # closed while idle: made again, so counted again
        self.requests = [r for r in requests if r.outcome != "idle"]
        self.connections = sum(not r.keep for r in self.requests)
        self.failures = Counter(r.outcome for r in self.requests if r.outcome != "ok")

    def p99_ms(self, spans: Sequence[tuple[float, float]], *, outside: bool = False) -> float | None:
        """The 99th percentile of the time from when a request was due to its response, for those due in the spans."""
        took = sorted(r.took for r in self.requests if any(begin <= r.due < end for begin, end in spans) is not outside)
        return took[len(took) * 99 // 100] * 1000 if took else None

    def pids(self, begin: float, end: float) -> dict[int, float]:
        """Who answered the requests that were due in that time, and when first."""
        first: dict[int, float] = {}
        for r in self.requests:
            if begin <= r.due < end and r.pid:
                first[r.pid] = min(first.get(r.pid, r.due + r.took), r.due + r.took)
        return first


class Load:
    """Load on a port of this machine, until it is ended."""

    def __init__(self, program: Path, directory: Path, port: int, plan: Plan) -> None:
        self._directory = directory
        self._began = time.monotonic()
        words = [str(program), HOST, *(str(word) for word in (port, plan.rate, plan.oneshot, plan.keep, plan.think_ms))]
        self._processes = []
        for number in range(plan.processes):
            with (directory / f"load{number}.log").open("wb") as log:
                self._processes.append(subprocess.Popen([*words, str(directory / f"load{number}")], stderr=log))

    @property
    def pids(self) -> set[int]:
        """The processes that make it."""
        return {process.pid for process in self._processes}

    def end(self) -> Traffic:
        """Make no more requests, and wait for what is under way. Raises TimeoutError, RuntimeError."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        requests: list[Request] = []
        told = ""
        for number, process in enumerate(self._processes):
            try:
                status = process.wait(_END)
            except subprocess.TimeoutExpired:
                raise TimeoutError("the load does not end") from None
            if status:
                raise RuntimeError(f"cannot make load: exit code {status}")
            data = (self._directory / f"load{number}").read_bytes()
            for due, took, pid, _port, keep, outcome in _RECORD.iter_unpack(data):
                requests.append(Request(due / 1e9, took / 1e9, pid, bool(keep), OUTCOMES[outcome]))
            told += (self._directory / f"load{number}.log").read_text(errors="replace")
        return Traffic(requests, told)

    def kill(self) -> None:
        """End it whatever it is doing."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()
