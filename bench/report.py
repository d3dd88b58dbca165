"""From raw results to medians, the table of numbers and the table of targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .measure import Brief, Session, Storm

OURS = "entrypoint"
PYTHON_PEERS = ("gunicorn", "supervisord", "circus")
_INITS = ("entrypoint (init)", "entrypoint (pool)")
_BARE = "python"


class Figures(NamedTuple):
    """The medians of one system with one number of workers; None: not measured."""

    first_ms: float | None
    all_ms: float | None
    respawn_ms: float | None
    stop_ms: float | None
    pss_kb: float | None
    master_kb: float | None
    wakeups_per_s: float | None
    cpu_percent: float | None


class StormFigures(NamedTuple):
    """The medians of one init; zombies are the worst of all runs."""

    elapsed_ms: float | None
    max_zombies: int | None
    left: int | None
    cpu_ms: float | None


class Target(NamedTuple):
    """One number that must be reached: `value` at most `limit`; None: something was not measured."""

    what: str
    ours: str
    against: str
    value: float | None
    limit: float
    unit: str = "x"  # x: a ratio

    @property
    def verdict(self) -> str:
        """ok, MISS, or - if not measured."""
        return "-" if self.value is None else "ok" if self.value <= self.limit else "MISS"


Table = dict[tuple[str, int], Figures]
StormTable = dict[str, StormFigures]
BriefTable = dict[str, float | None]  # ms
Field = Callable[[Figures], float | None]


def median(values: Iterable[float | None]) -> float | None:
    """Of what was measured."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def summarise(sessions: Sequence[Session]) -> Table:
    """Medians by (system, workers), in the order of the first measurement."""
    groups: dict[tuple[str, int], list[Session]] = {}
    for session in sessions:
        groups.setdefault((session.system, session.workers), []).append(session)
    return {key: _figures(group) for key, group in groups.items()}


def _figures(group: Sequence[Session]) -> Figures:
    idle = [session for session in group if session.idle_seconds]
    return Figures(
        first_ms=median(session.first_ms for session in group),
        all_ms=median(session.all_ms for session in group),
        respawn_ms=median(value for session in group for value in session.respawn_ms),
        stop_ms=median(session.stop_ms for session in group),
        pss_kb=median(session.pss_kb for session in group),
        master_kb=median(session.master_kb for session in group),
        wakeups_per_s=median((session.wakeups or 0) / (session.idle_seconds or 1) for session in idle),
        cpu_percent=median((session.cpu_ms or 0) / 10 / (session.idle_seconds or 1) for session in idle),
    )


def summarise_storms(storms: Sequence[Storm]) -> StormTable:
    """Medians by init, in the order of the first measurement."""
    groups: dict[str, list[Storm]] = {}
    for storm in storms:
        groups.setdefault(storm.system, []).append(storm)
    return {
        name: StormFigures(
            elapsed_ms=median(storm.elapsed_ms for storm in group),
            max_zombies=max((storm.max_zombies for storm in group if storm.max_zombies is not None), default=None),
            left=max((storm.left for storm in group if storm.left is not None), default=None),
            cpu_ms=median(storm.cpu_ms for storm in group),
        )
        for name, group in groups.items()
    }


def summarise_briefs(briefs: Sequence[Brief]) -> BriefTable:
    """Medians by init, in the order of the first measurement."""
    names = dict.fromkeys(brief.system for brief in briefs)
    return {name: median(brief.ms for brief in briefs if brief.system == name) for name in names}


def targets(table: Table, storms: StormTable, briefs: BriefTable) -> list[Target]:
    """Every number that this project promises, compared with what was measured in the same run."""
    counts = sorted({workers for _, workers in table})
    result: list[Target] = []

    def ratio(
        what: str, field: Callable[[Figures], float | None], count: int, peers: Sequence[str], limit: float
    ) -> None:
        ours = _get(table, OURS, count, field)
        candidates = [(value, peer) for peer in peers if (value := _get(table, peer, count, field)) is not None]
        best, peer = min(candidates) if candidates else (None, peers[0])
        value = ours / best if ours is not None and best else None
        against = f"{peer} {ms(best)}" if best is not None else peer
        result.append(Target(f"{what}, {count:,} workers", ms(ours), against, value, limit))

    for count in counts:
        ratio("exec to the first worker", lambda f: f.first_ms, count, ["gunicorn"], 0.25)
        ratio("exec to the first worker", lambda f: f.first_ms, count, ["circus"], 0.4)
    large = [count for count in counts if count >= 100]
    for count in large:
        ratio("all workers running", lambda f: f.all_ms, count, PYTHON_PEERS, 0.6)
        ratio("all workers running", lambda f: f.all_ms, count, ["s6-svscan"], 0.8)
    for count in counts:
        ratio("SIGKILL to the successor", lambda f: f.respawn_ms, count, ["gunicorn"], 0.45)
        ratio("SIGKILL to the successor", lambda f: f.respawn_ms, count, ["runsvdir"], 1.0)
    if len(counts) > 1:
        result.append(_flat(table, counts))
    for count in large:
        ratio("TERM to everything gone", lambda f: f.stop_ms, count, ["gunicorn"], 0.1)
        ratio("TERM to everything gone", lambda f: f.stop_ms, count, ["s6-svscan"], 1.5)
    result.extend(_memory(table, counts))
    for count in counts:
        wakeups = _get(table, OURS, count, lambda f: f.wakeups_per_s)
        cpu = _get(table, OURS, count, lambda f: f.cpu_percent)
        if wakeups is not None and cpu is not None:
            what = f"idle, {count:,} workers"
            result.append(Target(f"wake-ups, {what}", f"{wakeups:.2f} /s", "", wakeups, 0.0, "/s"))
            result.append(Target(f"CPU, {what}", f"{cpu:.3f} %", "", cpu, 0.0, "%"))
    result.extend(_reaping(storms))
    ours, bare = briefs.get(_INITS[0]), briefs.get(_BARE)
    if ours and bare:
        result.append(Target(f"`true`, {_INITS[0]}", ms(ours), f"{_BARE} {ms(bare)}", ours / bare, 2.4))
    return result


def _get(table: Table, system: str, count: int, field: Field) -> float | None:
    figures = table.get((system, count))
    return field(figures) if figures else None


def _flat(table: Table, counts: Sequence[int]) -> Target:
    few, many = (_get(table, OURS, count, lambda f: f.respawn_ms) for count in (counts[0], counts[-1]))
    value = many / few if few and many else None
    what = f"SIGKILL to the successor, {counts[-1]:,} to {counts[0]:,} workers"
    return Target(what, ms(many), f"{OURS} {ms(few)}", value, 1.5)


def _memory(table: Table, counts: Sequence[int]) -> list[Target]:
    result = []
    for count in counts:
        kilobytes = _get(table, OURS, count, lambda f: f.master_kb)
        megabytes = kilobytes / 1000 if kilobytes is not None else None
        limit = 12 + 3 * count / 1000
        result.append(
            Target(
                f"memory of the master, {count:,} workers",
                _mb(kilobytes),
                "12 MB + 3 kB a worker",
                megabytes,
                limit,
                "MB",
            )
        )
    return result


def _reaping(storms: StormTable) -> list[Target]:
    result = []
    tini = storms["tini"].elapsed_ms if "tini" in storms else None
    for name in _INITS:
        if name not in storms:
            continue
        ours = storms[name]
        value = ours.elapsed_ms / tini if ours.elapsed_ms is not None and tini else None
        result.append(Target(f"orphans, {name}", ms(ours.elapsed_ms), f"tini {ms(tini)}", value, 1.1))
        left = ours.left
        result.append(Target(f"zombies left, {name}", _count(left), "", left, 0, "zombies"))
    return result


def number(value: float | None) -> str:
    """With as many digits as mean something."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def ms(value: float | None) -> str:
    """Milliseconds."""
    return "-" if value is None else f"{number(value)} ms"


def _mb(kilobytes: float | None) -> str:
    return "-" if kilobytes is None else f"{kilobytes / 1000:.1f} MB"


def markdown(table: Table, storms: StormTable, briefs: BriefTable) -> str:
    """The results as tables, in Markdown that is aligned for reading in a terminal too."""
    parts = []
    if table:
        head = [
            "workers",
            "system",
            "first ms",
            "all ms",
            "respawn ms",
            "stop ms",
            "PSS MB",
            "of the master",
            "wake-ups/s",
            "CPU %",
        ]
        rows = [
            [
                f"{count:,}",
                system,
                *map(number, [figures.first_ms, figures.all_ms, figures.respawn_ms, figures.stop_ms]),
                *("-" if kb is None else f"{kb / 1000:.1f}" for kb in (figures.pss_kb, figures.master_kb)),
                "-" if figures.wakeups_per_s is None else f"{figures.wakeups_per_s:.1f}",
                "-" if figures.cpu_percent is None else f"{figures.cpu_percent:.2f}",
            ]
            for (system, count), figures in sorted(table.items(), key=lambda item: item[0][1])
        ]
        parts.append(grid(head, rows))
    if storms:
        head = ["init", "orphans reaped in ms", "zombies at most", "zombies left", "CPU of the init ms"]
        rows = [
            [
                name,
                number(f.elapsed_ms),
                *("-" if n is None else str(n) for n in (f.max_zombies, f.left)),
                number(f.cpu_ms),
            ]
            for name, f in storms.items()
        ]
        parts.append(grid(head, rows))
    if briefs:
        parts.append(grid(["init", "`true` in ms"], [[name, number(value)] for name, value in briefs.items()]))
    parts.append(verdicts(targets(table, storms, briefs)))
    return "\n\n".join(parts)


def verdicts(found: Sequence[Target]) -> str:
    """The table of targets."""
    rows = [
        [
            target.what,
            target.ours,
            target.against,
            "-" if target.value is None else f"{target.value:.2f} {target.unit}",
            f"{target.limit:g} {target.unit}",
            target.verdict,
        ]
        for target in found
    ]
    return grid(["number", OURS, "against", "value", "at most", "verdict"], rows)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
