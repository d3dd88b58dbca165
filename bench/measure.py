"""The measurements: one session of one supervisor, and one storm of orphans under one init.

Times are in milliseconds on CLOCK_MONOTONIC, memory is in kB (1,000 bytes).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import namespace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .systems import Init, System

_RECORD = struct.Struct("=qq")  # pid, CLOCK_MONOTONIC in ns: see worker.c
_SETTLE = 1.2  # seconds from the last worker running to the first look; more than any system's "up too short"
_RESPAWN_BUDGET = 2.0  # seconds: no further worker is killed after that
_RESPAWN_TIMEOUT = 10.0
_STORM_TIMEOUT = 60.0
_BRIEF_TIMEOUT = 30.0


@dataclass
class Session:
    """What was measured of one start-to-stop of a supervisor; None where it was not or could not be."""

    system: str
    workers: int
    first_ms: float | None = None  # exec of the master to the first worker running
    all_ms: float | None = None  # exec of the master to the last worker running
    respawn_ms: list[float] = field(default_factory=list)  # SIGKILL of a worker to its successor running
    stop_ms: float | None = None  # the stop signal to everything gone
    pss_kb: float | None = None  # of every process but the workers
    master_kb: float | None = None  # of the master alone
    idle_seconds: float | None = None
    wakeups: int | None = None  # context switches of every process but the workers, in idle_seconds
    cpu_ms: float | None = None  # likewise
    failure: str = ""


@dataclass
class Brief:
    """How long an init takes for a command that does nothing."""

    system: str
    ms: float | None = None  # exec of the init to the end of its namespace
    failure: str = ""


@dataclass
class Storm:
    """What one storm of orphans did to one init."""

    system: str
    orphans: int
    elapsed_ms: float | None = None
    max_zombies: int | None = None  # as sampled, not a true maximum
    left: int | None = None
    cpu_ms: float | None = None  # of the init
    failure: str = ""


class Reports:
    """The FIFO into which workers report."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # RDWR: never at its end
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def close(self) -> None:
        os.close(self._fd)

    def read(self, deadline: float) -> list[tuple[int, int]]:
        """The next reports (pid, ns), at least one. Raises TimeoutError at the deadline."""
        if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        return list(_RECORD.iter_unpack(os.read(self._fd, 1024 * _RECORD.size)))


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A directory, gone afterwards together with every process that was started meanwhile."""
    with tempfile.TemporaryDirectory(dir=namespace.scratch(), ignore_cleanup_errors=True) as path:
        try:
            yield Path(path)
        finally:
            namespace.clear()


def environment(**more: str) -> dict[str, str]:
    """A small environment, the same for all: what is set around the bench must not change how a system behaves."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/tmp", "LANG": "C.UTF-8", **more}


def tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return " | ".join(line.strip() for line in lines[-3:])


def measure(system: System, worker: Path, stamp: Path, count: int, *, kills: int, idle: float) -> Session:
    """Run `system` with `count` workers once, as PID 1 of a namespace of its own, and measure everything.

    `kills`: how many workers are killed, one after the other, each one old enough not to be called a crash loop.
    `idle`: seconds to watch the idle master; 0 leaves it out.
    A system that fails is no error of the bench: the session says so, with what was measured until then.
    """
    session = Session(system.name, count)
    with workspace() as directory:
        log = directory / "log"
        reports = Reports(directory / "fifo")
        try:
            argv = [*namespace.unshare(), str(stamp), *system.configure(directory, worker, count)]
            outside = namespace.spawn(argv, environment(BENCH_FIFO=str(directory / "fifo")), log)
            reported = _await_start(session, reports, system.start_timeout)
            time.sleep(_SETTLE)
            within = namespace.within(outside)
            master, workers = within[1], [within[pid] for pid in reported]
            own = set(within.values()) - set(workers)
            session.pss_kb, session.master_kb = pss_kb(own), pss_kb({master})
            if idle:
                _watch_idle(session, own, idle)
            _kill_workers(session, reports, workers, kills)
            start = time.monotonic_ns()
            os.kill(master, system.stop_signal)
            ended: dict[int, int] = {}
            if namespace.wait_until_empty(system.stop_timeout, ended):
                session.stop_ms = (time.monotonic_ns() - start) / 1e6
                if ended.get(outside) != system.exit_code:  # a master that crashes would seem to stop fast
                    session.failure = f"ended with {ended.get(outside)} instead of {system.exit_code}: {tail(log)}"
            else:
                session.failure = f"not gone {system.stop_timeout:g} s after the stop signal: {tail(log)}"
        except (TimeoutError, LookupError, ProcessLookupError) as error:
            session.failure = f"{error}: {tail(log)}"
        finally:
            reports.close()
    return session


def _await_start(session: Session, reports: Reports, timeout: float) -> list[int]:
    """Wait for all workers; return their pids, as they are in their namespace, in the order of their reports."""
    deadline = time.monotonic() + timeout
    stamps: dict[int, int] = {}
    while len(stamps) < 1 + session.workers:
        try:
            stamps.update(reports.read(deadline))
        except TimeoutError:
            raise TimeoutError(f"{len(stamps) - 1} of {session.workers} workers after {timeout:g} s") from None
    start = stamps.pop(1)  # of PID 1: see stamp.c
    session.first_ms = (min(stamps.values()) - start) / 1e6
    session.all_ms = (max(stamps.values()) - start) / 1e6
    return list(stamps)


def _kill_workers(session: Session, reports: Reports, workers: list[int], kills: int) -> None:
    """Kill workers spread over the pool, one at a time, each once the successor of the one before is running."""
    kills = min(kills, len(workers))
    enough = time.monotonic() + _RESPAWN_BUDGET
    for number in range(kills):
        victim = workers[number * len(workers) // kills]
        start = time.monotonic_ns()
        os.kill(victim, signal.SIGKILL)
        try:
            (_, stamp), *_ = reports.read(time.monotonic() + _RESPAWN_TIMEOUT)
        except TimeoutError:
            raise TimeoutError(f"a killed worker had no successor after {_RESPAWN_TIMEOUT:g} s") from None
        session.respawn_ms.append((stamp - start) / 1e6)
        if time.monotonic() > enough:
            return
        time.sleep(0.05)  # lets the master finish what it does after a spawn: the kills are independent


def pss_kb(pids: Iterable[int]) -> float:
    """The sum of the proportional set sizes of processes, in kB of 1,000 bytes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total * 1.024


def activity(pids: Iterable[int]) -> tuple[int, int]:
    """(context switches, ns of CPU) of all threads of processes so far."""
    switches = nanoseconds = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((task / "schedstat").read_text().split()[0])
            for line in (task / "status").read_text().splitlines():
                if line.startswith(("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")):
                    switches += int(line.split()[1])
    return switches, nanoseconds


def _watch_idle(session: Session, pids: set[int], seconds: float) -> None:
    before = activity(pids)
    time.sleep(seconds)
    after = activity(pids)
    session.idle_seconds = seconds
    session.wakeups = after[0] - before[0]
    session.cpu_ms = (after[1] - before[1]) / 1e6


def brief(init: Init, stamp: Path) -> Brief:
    """Run `true` under `init` as PID 1 of a namespace of its own. A failing init is said in the result."""
    result = Brief(init.name)
    with workspace() as directory:
        log = directory / "log"
        reports = Reports(directory / "fifo")
        try:
            argv = [*namespace.unshare(), str(stamp), *init.command(directory, ["true"])]
            ended: dict[int, int] = {}
            outside = namespace.spawn(argv, environment(BENCH_FIFO=str(directory / "fifo")), log)
            if not namespace.wait_until_empty(_BRIEF_TIMEOUT, ended) or ended.get(outside) != 0:
                result.failure = f"ended with {ended.get(outside)}: {tail(log)}"
            else:
                end = time.monotonic_ns()
                [(_, start)] = reports.read(time.monotonic())
                result.ms = (end - start) / 1e6
        except (TimeoutError, ValueError):
            result.failure = f"was not executed: {tail(log)}"
        finally:
            reports.close()
    return result


def storm(init: Init, program: Path, orphans: int) -> Storm:
    """Run the orphan storm under `init` as PID 1 of a namespace of its own. A failing init is said in the result."""
    result = Storm(init.name, orphans)
    with workspace() as directory:
        answer, log = directory / "answer", directory / "log"
        command = init.command(directory, [str(program), str(orphans), str(answer)])
        namespace.spawn([*namespace.unshare(), *command], environment(), log)
        ended = namespace.wait_until_empty(_STORM_TIMEOUT)
        if not answer.exists() or not (words := answer.read_text().split()):
            result.failure = ("no result" if ended else f"not over after {_STORM_TIMEOUT:g} s") + f": {tail(log)}"
        else:
            result.elapsed_ms = int(words[0]) / 1e6
            result.max_zombies, result.left = int(words[1]), int(words[2])
            result.cpu_ms = int(words[3]) / 1e6
            if not ended:
                result.failure = f"the init did not end: {tail(log)}"
    return result
