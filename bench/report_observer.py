"""Tables and targets of the part about metrics and output."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from .output import LINES
from .report import OURS, Target, grid, median, ms, number, verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .output import Output
    from .scrapes import Scrapes

P99_MS = {100: 20.0, 1000: 150.0}
MASTER_MS = 5.0
PSS_MB = 32.0  # with 100 workers
LINES_PER_SECOND = 200_000  # on one core


class Results(NamedTuple):
    """Everything that was measured in this part."""

    scrapes: Sequence[Scrapes]
    outputs: Sequence[Output]

    @property
    def failures(self) -> list[str]:
        """What could not be measured, and why."""
        return [item.failure for part in self for item in part if item.failure]


def targets(results: Results) -> list[Target]:
    """Every number that this project promises here."""
    found = []
    for workers, group in _by_workers(results.scrapes).items():
        what = f"{workers:,} workers"
        if workers in P99_MS:
            p99 = median(percentile(s.took_ms, 0.99) for s in group)
            found.append(Target(f"a scrape, 99th percentile, {what}", ms(p99), "", p99, P99_MS[workers], "ms"))
        busy = median(s.master_ms for s in group)
        found.append(Target(f"CPU of the master for a scrape, {what}", ms(busy), "", busy, MASTER_MS, "ms"))
        memory = median(s.pss_kb / 1000 if s.pss_kb else None for s in group)
        if workers == min(P99_MS):
            said = f"{number(memory)} MB"
            found.append(Target(f"memory of master and observer, {what}", said, "", memory, PSS_MB, "MB"))
    for (system, kind), outputs in _by_kind(results.outputs).items():
        if system != OURS:
            continue
        rate = median(_rate(o.cpu_ms) for o in outputs)
        theirs = median(_rate(o.cpu_ms) for o in results.outputs if (o.system, o.kind) == ("supervisord", kind))
        said = "-" if rate is None else f"{rate:,.0f} /s"
        against = "" if theirs is None else f"supervisord, not framed: {theirs:,.0f} /s"
        if kind == "text":  # JSON has to be understood first, which takes most of the time
            value = LINES_PER_SECOND / rate if rate else None
            found.append(Target(f"lines framed by one core, for {LINES_PER_SECOND:,} /s", said, against, value, 1))
        lost = max((o.lost for o in outputs if o.lost is not None), default=None)
        found.append(Target(f"{kind} lines lost", str(lost), f"{LINES:,} lines", lost, 0, "lines"))
    return found


def markdown(results: Results) -> str:
    """The results as tables, in Markdown that is aligned for reading in a terminal too."""
    parts = []
    if results.scrapes:
        head = ["workers", "median ms", "p99 ms", "CPU: observer ms", "CPU: master ms", "bytes (gzip)", "PSS MB, both"]
        rows = [
            [
                f"{workers:,}",
                number(median(value for s in group for value in s.took_ms)),
                number(median(percentile(s.took_ms, 0.99) for s in group)),
                number(median(s.observer_ms for s in group)),
                number(median(s.master_ms for s in group)),
                f"{max(s.bytes for s in group):,}",
                number(median(s.pss_kb / 1000 if s.pss_kb else None for s in group)),
            ]
            for workers, group in _by_workers(results.scrapes).items()
        ]
        parts.append(grid(head, rows))
    if results.outputs:
        head = ["system", "lines of", "lines/s, everything together", "lines/s of one core", "CPU: master ms", "lost"]
        rows = [
            [
                system,
                kind,
                _thousands(median(LINES / o.seconds if o.seconds else None for o in group)),
                _thousands(median(_rate(o.cpu_ms) for o in group)),
                number(median(o.master_ms for o in group)),
                str(max((o.lost for o in group if o.lost is not None), default="-")),
            ]
            for (system, kind), group in _by_kind(results.outputs).items()
        ]
        parts.append(grid(head, rows))
    parts.append(verdicts(targets(results)))
    return "\n\n".join(parts)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that so many are not above; None of none."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else None


def _rate(cpu_ms: float | None) -> float | None:
    return LINES / cpu_ms * 1000 if cpu_ms else None


def _thousands(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _by_workers(scrapes: Sequence[Scrapes]) -> dict[int, list[Scrapes]]:
    groups: dict[int, list[Scrapes]] = {}
    for item in scrapes:
        groups.setdefault(item.workers, []).append(item)
    return groups


def _by_kind(outputs: Sequence[Output]) -> dict[tuple[str, str], list[Output]]:
    groups: dict[tuple[str, str], list[Output]] = {}
    for item in outputs:
        groups.setdefault((item.system, item.kind), []).append(item)
    return groups
