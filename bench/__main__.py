"""`python -m bench`: measure, print, keep.

Systems are interleaved (A B C, A B C): machines drift, and a ratio is only worth something between neighbours.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import namespace, report
from .measure import Session, Storm, measure, storm
from .namespace import BenchError
from .systems import (
    HERE,
    S6,
    Catatonit,
    Circus,
    DumbInit,
    Entrypoint,
    EntrypointInit,
    EntrypointPool,
    Gunicorn,
    Init,
    Runsvdir,
    Supervisord,
    System,
    Tini,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_DOCS = HERE.parent / "docs"
_SLOW_RESPAWN_MS = 500.0
_BEGIN, _END = "<!-- results: begin -->", "<!-- results: end -->"


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure entrypoint beside its peers.")
    parser.add_argument("--only", default="", metavar="NAMES", help="these systems, as 'entrypoint,s6-svscan,tini'")
    parser.add_argument("--workers", default="10,100,1000", metavar="COUNTS", help="default: %(default)s")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="sessions of each system (default: 3)")
    parser.add_argument("--kills", type=int, default=7, metavar="N", help="workers killed per session (default: 7)")
    parser.add_argument("--idle", type=float, default=10.0, metavar="S", help="watch the idle master; 0: not at all")
    parser.add_argument("--idle-workers", type=int, default=100, metavar="N", help="and with so many (default: 100)")
    parser.add_argument("--orphans", type=int, default=20_000, metavar="N", help="0: no storm (default: 20000)")
    parser.add_argument("--quick", action="store_true", help="10 and 100 workers, once, 2,000 orphans, 2 s idle")
    parser.add_argument("--entrypoint", default="", metavar="COMMAND", help="how to start ours, if not `entrypoint`")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where to put bench.json and bench.png (default: docs/, with the tables in docs/BENCHMARKS.md, but only "
        "after a whole run: one without --only, --workers and --quick)",
    )
    options = parser.parse_args(argv)
    options.whole = not (options.only or options.quick or options.workers != parser.get_default("workers"))
    try:
        options.counts = sorted({int(word) for word in options.workers.split(",")})
    except ValueError:
        parser.error(f"--workers: not a list of counts: {options.workers}")
    if options.quick:
        options.counts, options.repeat, options.orphans = [10, 100], 1, 2_000
        options.idle = min(options.idle, 2.0)
    return options


def _selected(options: argparse.Namespace) -> tuple[list[System], list[Init]]:
    """The systems to measure. Raises BenchError for an unknown name."""
    systems: list[System] = [
        Entrypoint(options.entrypoint), Gunicorn(), Supervisord(), Circus(), S6(), Runsvdir()
    ]  # fmt: skip
    inits: list[Init] = [
        EntrypointInit(options.entrypoint), EntrypointPool(options.entrypoint), Tini(), DumbInit(), Catatonit()
    ]  # fmt: skip
    if options.only:
        names = set(options.only.split(","))
        if unknown := names - {item.name.split()[0] for item in [*systems, *inits]}:
            raise BenchError(f"cannot measure {', '.join(sorted(unknown))}: unknown system")
        systems = [system for system in systems if system.name in names]
        inits = [init for init in inits if init.name.split()[0] in names]
    return systems, inits if options.orphans else []


def _compile(source: str, directory: Path) -> Path:
    """Compile one C program of the bench. Raises BenchError if that fails."""
    program = directory / Path(source).stem
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(HERE / source)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BenchError("cannot find cc: apt-get install -y gcc libc6-dev") from error
    except subprocess.CalledProcessError as error:
        raise BenchError(f"cannot compile {source}: {error.stderr.strip()}") from error
    return program


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _supervise(options: argparse.Namespace, systems: Sequence[System], worker: Path) -> list[Session]:
    """All sessions of all supervisors."""
    for system in systems:  # unrecorded: file caches and compiled modules are warm for all
        measure(system, worker, 1, kills=0, idle=0)
    sessions: list[Session] = []
    slow: set[tuple[str, int]] = set()  # replaced a killed worker so late that once is enough
    for turn in range(options.repeat):
        for count in options.counts:
            for system in systems:
                if turn > 0 and count >= system.once_from:
                    continue
                idle = options.idle if turn == 0 and count == options.idle_workers else 0.0
                kills = 0 if (system.name, count) in slow else options.kills
                session = measure(system, worker, count, kills=kills, idle=idle)
                if max(session.respawn_ms, default=0.0) > _SLOW_RESPAWN_MS:
                    slow.add((system.name, count))
                sessions.append(session)
                _say(f"{turn + 1}/{options.repeat} {system.name}, {count:,} workers: {session.failure or 'measured'}")
    return sessions


def _reap(options: argparse.Namespace, inits: Sequence[Init], program: Path) -> list[Storm]:
    """All storms under all inits."""
    storms = []
    for turn in range(options.repeat):
        for init in inits:
            result = storm(init, program, options.orphans)
            storms.append(result)
            outcome = result.failure or "measured"
            _say(f"{turn + 1}/{options.repeat} {init.name}, {options.orphans:,} orphans: {outcome}")
    return storms


def _machine() -> dict[str, object]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def _keep(directory: Path, text: str, sessions: Sequence[Session], storms: Sequence[Storm], page: Path | None) -> None:
    """Write bench.json and bench.png, and refresh the tables in the Markdown file `page`."""
    from . import plot  # matplotlib takes a second to import, and nothing else needs it

    directory.mkdir(parents=True, exist_ok=True)
    raw = {
        "machine": _machine(),
        "sessions": [dataclasses.asdict(session) for session in sessions],
        "storms": [dataclasses.asdict(result) for result in storms],
    }
    (directory / "bench.json").write_text(json.dumps(raw, indent=1) + "\n")
    plot.draw(report.summarise(sessions), report.summarise_storms(storms), directory / "bench.png")
    _say(f"kept: {directory / 'bench.json'}, {directory / 'bench.png'}")
    if page and page.exists():
        before, _, rest = page.read_text().partition(_BEGIN)
        _, _, after = rest.partition(_END)
        page.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")


def _run(options: argparse.Namespace) -> int:
    """Everything, inside the namespace; 0 if nothing failed and no target was missed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # namespace.wait_until_empty waits for it
    started = time.monotonic()
    systems, inits = _selected(options)
    worker, orphans = (_compile(source, Path(namespace.scratch())) for source in ("worker.c", "orphans.c"))
    sessions = _supervise(options, systems, worker)
    storms = _reap(options, inits, orphans)
    table, storm_table = report.summarise(sessions), report.summarise_storms(storms)
    machine = _machine()
    head = f"{machine['cores']} cores, Linux {machine['kernel']}, {machine['machine']}, Python {machine['python']}."
    text = f"{head}\n\n{report.markdown(table, storm_table)}"
    print(f"\n{text}\n")
    _say(f"took {time.monotonic() - started:.0f} s")
    if options.out:
        _keep(options.out, text, sessions, storms, None)
    elif options.whole:
        _keep(_DOCS, text, sessions, storms, _DOCS / "BENCHMARKS.md")
    failed = any(session.failure for session in sessions) or any(result.failure for result in storms)
    return int(failed or any(target.verdict == "MISS" for target in report.targets(table, storm_table)))


def main(argv: Sequence[str]) -> int:
    """Run the bench; return the exit status: 0, 1 for a missed target or a failed system, 2 if it cannot run."""
    options = _arguments(argv)
    try:
        if namespace.inside():
            return _run(options)
        systems, inits = _selected(options)
        require([*systems, *inits])
        return namespace.enter(argv)
    except BenchError as error:
        _say(f"bench: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


sys.exit(main(sys.argv[1:]))
