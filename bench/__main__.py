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
from typing import TYPE_CHECKING, Any, NamedTuple

from . import beats, image, namespace, output, report, report_observer, report_rollouts, rollouts, scrapes
from .measure import Brief, Session, Storm, brief, measure, storm
from .namespace import BenchError
from .servers import (
    Granian,
    Managed,
    ManagedGunicorn,
    ManagedGunicornReusePort,
    ManagedServer,
    ManagedUvicorn,
    Server,
    Uvicorn,
)
from .servers import Gunicorn as GunicornServer
from .systems import (
    HERE,
    S6,
    Bare,
    Catatonit,
    Circus,
    DumbInit,
    Entrypoint,
    EntrypointInit,
    EntrypointPool,
    Gunicorn,
    Init,
    Program,
    Runsvdir,
    Supervisord,
    System,
    Tini,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE = HERE.parent / "docs/BENCHMARKS.md"
_RESULTS = HERE / "results"
_SLOW_RESPAWN_MS = 500.0
_PARTS = ("masters", "rollouts", "observer")
_MORE = ("image",)  # needs a Docker engine and the image, so only when it is asked for
_QUICK_TIMES, _QUICK_WORKERS, _QUICK_SCRAPES = 2, 100, 20
_SCRAPED = (100, 1000)  # workers
_WATCH = 10.0  # seconds that the CPU of beats is measured
_VICTIMS = 20  # workers that hang


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure entrypoint beside its peers.")
    parser.add_argument(
        "--parts", default=",".join(_PARTS), metavar="NAMES", help="these parts of the whole (default: %(default)s)"
    )
    parser.add_argument("--only", default="", metavar="NAMES", help="these systems, as 'entrypoint,s6-svscan,tini'")
    parser.add_argument("--workers", default="10,100,1000", metavar="COUNTS", help="default: %(default)s")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="sessions of each system (default: 3)")
    parser.add_argument("--kills", type=int, default=7, metavar="N", help="workers killed per session (default: 7)")
    parser.add_argument("--idle", type=float, default=10.0, metavar="S", help="watch the idle master; 0: not at all")
    parser.add_argument("--idle-workers", type=int, default=100, metavar="N", help="and with so many (default: 100)")
    parser.add_argument("--orphans", type=int, default=20_000, metavar="N", help="0: no storm (default: 20000)")
    parser.add_argument("--briefs", type=int, default=20, metavar="N", help="of `true` under each init (default: 20)")
    parser.add_argument("--rollouts", type=int, default=10, metavar="N", help="of each kind under load (default: 10)")
    parser.add_argument("--reloads", type=int, default=5, metavar="N", help="of each server (default: 5)")
    parser.add_argument("--beating", type=int, default=1000, metavar="N", help="workers that beat (default: 1000)")
    parser.add_argument("--scrapes", type=int, default=100, metavar="N", help="of each size (default: 100)")
    parser.add_argument("--image", default="entrypoint", metavar="NAME", help="of the part image (default: entrypoint)")
    parser.add_argument("--starts", type=int, default=15, metavar="N", help="of each container (default: %(default)s)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="10 and 100 workers, once, 2,000 orphans, 2 s idle, 2 rollouts, 100 beats, 20 scrapes",
    )
    parser.add_argument("--entrypoint", default="", metavar="COMMAND", help="how to start ours, if not `entrypoint`")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where to put the raw figures and bench.png (default: bench/results, with the tables in "
        "docs/BENCHMARKS.md, but only of parts that were measured whole: without --only, --workers and --quick)",
    )
    options = parser.parse_args(argv)
    options.whole = not (options.only or options.quick or options.workers != parser.get_default("workers"))
    try:
        options.counts = sorted({int(word) for word in options.workers.split(",")})
    except ValueError:
        parser.error(f"--workers: not a list of counts: {options.workers}")
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - {*_PARTS, *_MORE}:
        parser.error(f"--parts: no such part: {', '.join(sorted(unknown))}")
    if options.quick:
        options.counts, options.repeat, options.orphans = [10, 100], 1, 2_000
        options.idle = min(options.idle, 2.0)
        options.rollouts = options.reloads = _QUICK_TIMES
        options.beating = _QUICK_WORKERS
        options.scrapes, options.starts, options.briefs = _QUICK_SCRAPES, _QUICK_TIMES, 5
    return options


class Selection(NamedTuple):
    """What to measure."""

    systems: list[System]
    inits: list[Init]
    managed: list[Managed]
    servers: list[Server]
    beats: list[beats.Master]
    observed: list[scrapes.Observed]
    captors: list[output.Captor]

    @property
    def programs(self) -> list[Program]:
        """All that has to be installed."""
        workers = [item.worker for item in [*self.managed, *self.servers] if isinstance(item, Managed) and item.worker]
        return [
            *self.systems,
            *self.inits,
            *self.managed,
            *self.servers,
            *self.beats,
            *workers,
            *self.observed,
            *self.captors,
        ]


def _selected(options: argparse.Namespace, server: Path = Path("server")) -> Selection:
    """The systems to measure; `server` is the compiled server.c. Raises BenchError for an unknown name."""
    ours = options.entrypoint
    everything = Selection(
        [Entrypoint(ours), Gunicorn(), Supervisord(), Circus(), S6(), Runsvdir()],
        [EntrypointInit(ours), EntrypointPool(ours), Tini(), DumbInit(), Catatonit()],
        [ManagedServer(ours, server), ManagedUvicorn(ours), ManagedGunicorn(ours), ManagedGunicornReusePort(ours)],
        [ManagedUvicorn(ours), ManagedGunicorn(ours), Uvicorn(), GunicornServer(), Granian()],
        [beats.Master(ours)],
        [scrapes.Observed(ours)],
        [output.OursJson(ours), output.SupervisordStdout()],
    )
    names = set(options.only.split(",")) if options.only else set()
    known = {_short(item) for part in everything for item in part}
    if unknown := names - known:
        raise BenchError(f"cannot measure {', '.join(sorted(unknown))}: unknown system")
    if "masters" not in options.parts:
        everything = everything._replace(systems=[], inits=[])
    if "rollouts" not in options.parts:
        everything = everything._replace(managed=[], servers=[], beats=[])
    if "observer" not in options.parts:
        everything = everything._replace(observed=[], captors=[])
    return Selection(*(_those(names, part) for part in everything))  # type: ignore[arg-type] # each keeps its type


def _those(names: set[str], part: Sequence[Program]) -> list[Program]:
    return [item for item in part if not names or _short(item) in names]


def _short(program: Program) -> str:
    return program.name.split()[0]


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


def _supervise(options: argparse.Namespace, systems: Sequence[System], worker: Path, stamp: Path) -> list[Session]:
    """All sessions of all supervisors."""
    for system in systems:  # unrecorded: file caches and compiled modules are warm for all
        measure(system, worker, stamp, 1, kills=0, idle=0)
    sessions: list[Session] = []
    slow: set[tuple[str, int]] = set()  # replaced a killed worker so late that once is enough
    for turn in range(options.repeat):
        for count in options.counts:
            for system in systems:
                if turn > 0 and count >= system.once_from:
                    continue
                idle = options.idle if turn == 0 and count == options.idle_workers else 0.0
                kills = 0 if (system.name, count) in slow else options.kills
                session = measure(system, worker, stamp, count, kills=kills, idle=idle)
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


def _start_inits(options: argparse.Namespace, inits: Sequence[Init], stamp: Path) -> list[Brief]:
    """All starts of `true` under all inits, and of a bare interpreter beside them."""
    briefs: list[Brief] = []
    for turn in range(options.briefs + 1):
        found = [brief(init, stamp) for init in (*inits, Bare())]
        if turn:  # the first of each finds no caches
            briefs += found
    for name in dict.fromkeys(each.system for each in briefs):
        failures = [each.failure for each in briefs if each.system == name and each.failure]
        _say(f"{name}, `true` {options.briefs} times: {failures[0] if failures else 'measured'}")
    return briefs


def _replace(options: argparse.Namespace, selection: Selection, compiled: Sequence[Path]) -> report_rollouts.Results:
    """Rollouts and heartbeats. `compiled`: load.c and beater.c."""
    client, beater = compiled
    churns, reloads, hangs, big = [], [], [], []
    for managed in selection.managed:
        plan = rollouts.FAST if isinstance(managed, ManagedServer) else rollouts.SATURATING
        churns.append(result := rollouts.churn(managed, client, plan, options.rollouts))
        _say(f"{managed.name}, replaced under load: {result.failure or result.told or 'measured'}")
    for turn in range(options.reloads):
        for server in selection.servers:
            reloads.append(reload := rollouts.reload(server, client, rollouts.STEADY, 1))
            outcome = reload.failure or reload.told or "measured"
            _say(f"{turn + 1}/{options.reloads} {server.name}, HUP: {outcome}")
    for master in selection.beats:
        for turn in range(options.repeat):
            hangs.append(beats.hangs(master, beater, options.beating, _WATCH, _VICTIMS))
            outcome = hangs[-1].failure or "measured"
            _say(f"{turn + 1}/{options.repeat} {options.beating:,} workers beat: {outcome}")
            big.append(beats.big_rollout(master, beater))
            _say(f"{turn + 1}/{options.repeat} rollout of many: {big[-1].failure or 'measured'}")
    return report_rollouts.Results(churns, reloads, hangs, big)


def _machine() -> dict[str, object]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def _headed(tables: str) -> str:
    machine = _machine()
    head = f"{machine['cores']} cores, Linux {machine['kernel']}, {machine['machine']}, Python {machine['python']}."
    return f"{head}\n\n{tables}"


def _keep(path: Path, raw: dict[str, Sequence[Any]]) -> None:
    """Write the raw figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {key: [dataclasses.asdict(item) for item in items] for key, items in raw.items()}
    path.write_text(json.dumps({"machine": _machine(), **figures}, indent=1) + "\n")
    _say(f"kept: {path}")


def _refresh(part: str, text: str) -> None:
    """Put the tables of a part into the page, between its two marks."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    before, mark, rest = _PAGE.read_text().partition(begin)
    if not mark:
        raise BenchError(f"cannot refresh {_PAGE}: it has no {begin}")
    _PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def _publish(options: argparse.Namespace, part: str, tables: str, raw: dict[str, Sequence[Any]]) -> None:
    """Print the tables of a part; keep what was measured, and refresh the page, where that was asked for."""
    text = _headed(tables)
    print(f"\n{text}\n")
    if options.out or options.whole:
        _keep((options.out or _RESULTS) / f"{part}.json", raw)
        if not options.out:
            _refresh(part, text)


def _masters(options: argparse.Namespace, selection: Selection, place: Path) -> bool:
    """Measure, print and keep the part about masters and inits; whether all is well."""
    worker, orphans, stamp = (_compile(source, place) for source in ("worker.c", "orphans.c", "stamp.c"))
    sessions = _supervise(options, selection.systems, worker, stamp)
    briefs = _start_inits(options, selection.inits, stamp) if selection.inits else []
    storms = _reap(options, selection.inits, orphans) if options.orphans else []
    table, storm_table = report.summarise(sessions), report.summarise_storms(storms)
    brief_table = report.summarise_briefs(briefs)
    raw: dict[str, Sequence[Any]] = {"sessions": sessions, "storms": storms, "briefs": briefs}
    _publish(options, "masters", report.markdown(table, storm_table, brief_table), raw)
    if options.out or options.whole:
        from . import plot  # matplotlib takes a second to import, and nothing else needs it

        plot.draw(table, storm_table, (options.out or _RESULTS) / "bench.png")
    failed = any(result.failure for results in raw.values() for result in results)
    return not failed and _reached(report.targets(table, storm_table, brief_table))


def _rollouts(options: argparse.Namespace, selection: Selection, place: Path) -> bool:
    """Measure, print and keep the part about rollouts and heartbeats; whether all is well."""
    results = _replace(options, selection, [_compile(source, place) for source in ("load.c", "beater.c")])
    _publish(options, "rollouts", report_rollouts.markdown(results), results._asdict())
    return not results.failures and _reached(report_rollouts.targets(results))


def _observer(options: argparse.Namespace, selection: Selection, place: Path) -> bool:
    """Measure, print and keep the part about metrics and output; whether all is well."""
    worker, lines = (_compile(source, place) for source in ("worker.c", "lines.c"))
    scraped: list[scrapes.Scrapes] = []
    captured: list[output.Output] = []
    counts = options.counts if options.quick else _SCRAPED
    for turn in range(options.repeat):
        for master in selection.observed:
            for count in counts:
                scraped.append(scrapes.scrape(master, worker, count, options.scrapes))
                outcome = scraped[-1].failure or "measured"
                _say(f"{turn + 1}/{options.repeat} {count:,} workers, {options.scrapes} scrapes: {outcome}")
        for kind in output.KINDS:
            for captor in selection.captors:
                captured.append(output.capture(captor, lines, kind))
                outcome = captured[-1].failure or "measured"
                _say(f"{turn + 1}/{options.repeat} {captor.name}, lines of {kind}: {outcome}")
    results = report_observer.Results(scraped, captured)
    _publish(options, "observer", report_observer.markdown(results), results._asdict())
    return not results.failures and _reached(report_observer.targets(results))


def _image(options: argparse.Namespace, _selection: Selection, place: Path) -> bool:
    """Measure, print and keep the part about the image; whether all is well."""
    results = image.measure(options.image, place, options.starts, _say)
    _publish(options, "image", image.markdown(results), results._asdict())
    return not results.failures and _reached(image.targets(results))


def _reached(targets: Sequence[report.Target]) -> bool:
    return not any(target.verdict == "MISS" for target in targets)


def _run(options: argparse.Namespace) -> int:
    """Everything, inside the namespace; 0 if nothing failed and no target was missed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # namespace.wait_until_empty waits for it
    started = time.monotonic()
    place = Path(namespace.scratch())
    server = _compile("server.c", place) if "rollouts" in options.parts else Path()
    selection = _selected(options, server)
    parts = {"masters": _masters, "rollouts": _rollouts, "observer": _observer, "image": _image}
    well = [parts[part](options, selection, place) for part in options.parts]
    _say(f"took {time.monotonic() - started:.0f} s")
    return int(not all(well))


def main(argv: Sequence[str]) -> int:
    """Run the bench; return the exit status: 0, 1 for a missed target or a failed system, 2 if it cannot run."""
    options = _arguments(argv)
    try:
        if namespace.inside():
            return _run(options)
        require(_selected(options).programs)
        return namespace.enter(argv)
    except BenchError as error:
        _say(f"bench: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


sys.exit(main(sys.argv[1:]))
