"""Tables and targets of the part about replacing workers and about heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .beats import BOOT_MS, HEARTBEAT_MS, ROLLOUT_WORKERS, STOP_MS, SURGE
from .report import OURS, Target, grid, median, ms, number, verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .beats import BigRollout, Hangs
    from .rollouts import Churn, Reload

LATE_MS = 50.0
CPU_PERCENT = 3.0


class Results(NamedTuple):
    """Everything that was measured in this part."""

    churns: Sequence[Churn]
    reloads: Sequence[Reload]
    hangs: Sequence[Hangs]
    rollouts: Sequence[BigRollout]

    @property
    def failures(self) -> list[str]:
        """What could not be measured, and why."""
        return [item.failure for part in self for item in part if item.failure]


def targets(results: Results) -> list[Target]:
    """Every number that this project promises here."""
    found = []
    for c in results.churns:
        failed = None if c.failure else float(sum(c.failures.values()))
        requests = f"{c.connections + c.kept:,} requests"
        found.append(Target(f"failed, {c.system}", _count(failed), requests, failed, 0, "requests"))
    for system, group in _by_system(results.reloads).items():
        if system.startswith(OURS):
            lost = float(sum(sum(r.failures.values()) for r in group))
            requests = f"{sum(r.requests for r in group):,} requests"
            found.append(Target(f"failed during HUP, {system}", _count(lost), requests, lost, 0, "requests"))
    if results.hangs:
        count = f"{results.hangs[0].workers:,} workers beat"
        late = median(max(h.late_ms, default=None) for h in results.hangs)
        found.append(
            Target(f"the latest of {len(results.hangs[0].late_ms)} hangs, {count}", ms(late), "", late, LATE_MS, "ms")
        )
        cpu = median(h.cpu_percent for h in results.hangs)
        said = "-" if cpu is None else f"{cpu:.2f} %"
        found.append(Target(f"CPU, {count} every second", said, "", cpu, CPU_PERCENT, "%"))
    if results.rollouts:
        found += _big(results.rollouts)
    return found


def _big(rollouts: Sequence[BigRollout]) -> list[Target]:
    rollout = median(value for r in rollouts for value in r.rollout_ms)
    stop = median(value for r in rollouts for value in r.stop_ms)
    amid = median(value for r in rollouts for value in r.stop_amid_ms)
    least = ROLLOUT_WORKERS / SURGE * BOOT_MS
    return [
        Target(
            f"rollout of {ROLLOUT_WORKERS}, {SURGE} at a time",
            ms(rollout),
            f"{ROLLOUT_WORKERS // SURGE} boots of {BOOT_MS} ms",
            rollout / least if rollout is not None else None,
            1.1,
        ),
        Target(
            f"TERM amid a rollout of {ROLLOUT_WORKERS}",
            ms(amid),
            f"without: {ms(stop)}",
            amid / stop if amid is not None and stop else None,
            1.05,
        ),
    ]


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _by_system(reloads: Sequence[Reload]) -> dict[str, list[Reload]]:
    groups: dict[str, list[Reload]] = {}
    for r in reloads:
        groups.setdefault(r.system, []).append(r)
    return groups


def _failures(many: Sequence[dict[str, int]]) -> str:
    """As `3 (2 reset, 1 closed)`."""
    total: dict[str, int] = {}
    for one in many:
        for outcome, count in one.items():
            total[outcome] = total.get(outcome, 0) + count
    what = ", ".join(f"{count} {outcome}" for outcome, count in total.items())
    return f"{sum(total.values())} ({what})" if what else "0"


def markdown(results: Results) -> str:
    """The results as tables, in Markdown that is aligned for reading in a terminal too."""
    parts = []
    if results.churns:
        head = ["under load", "rollouts", "resizes", "stops", "new conn.", "per s", "keep-alive", "retried", "failed"]
        parts.append(grid(head, [_churn(c) for c in results.churns]))
    if results.reloads:
        head = ["reload by HUP", "times", "requests", "failed", "retried", "p99 ms", "p99 ms at rest", "reload ms"]
        parts.append(grid(head, [_reload(system, group) for system, group in _by_system(results.reloads).items()]))
    if results.hangs:
        head = ["workers that beat", "CPU %", "hangs", "median late ms", "latest ms", "latest of all ms"]
        late = [value for h in results.hangs for value in h.late_ms]
        row = [
            f"{results.hangs[0].workers:,}, timeout {HEARTBEAT_MS / 1000:g} s",
            number(median(h.cpu_percent for h in results.hangs)),
            str(len(late)),
            number(median(late)),
            number(median(max(h.late_ms, default=None) for h in results.hangs)),
            number(max(late, default=None)),
        ]
        parts.append(grid(head, [row]))
    if results.rollouts:
        head = [f"{ROLLOUT_WORKERS} workers, boot {BOOT_MS} ms, stop {STOP_MS} ms", "median ms", "longest ms"]
        rows = [
            [what, number(median(values)), number(max(values, default=None))]
            for what, values in (
                (f"rollout, surge {SURGE}, they stop at once", [v for r in results.rollouts for v in r.rollout_ms]),
                ("TERM at rest", [v for r in results.rollouts for v in r.stop_ms]),
                ("TERM amid a rollout", [v for r in results.rollouts for v in r.stop_amid_ms]),
            )
        ]
        parts.append(grid(head, rows))
    parts.append(verdicts(targets(results)))
    return "\n\n".join(parts)


def _churn(c: Churn) -> list[str]:
    rate = f"{c.connections / c.seconds:,.0f}" if c.seconds else "-"
    done = [str(c.rollouts), str(c.resizes), str(c.stops)]
    return [c.system, *done, f"{c.connections:,}", rate, f"{c.kept:,}", f"{c.retried:,}", _failures([c.failures])]


def _reload(system: str, group: Sequence[Reload]) -> list[str]:
    return [
        system,
        str(sum(len(r.reload_ms) for r in group)),
        f"{sum(r.requests for r in group):,}",
        _failures([r.failures for r in group]),
        str(sum(r.retried for r in group)),
        number(median(r.p99_ms for r in group)),
        number(median(r.calm_p99_ms for r in group)),
        number(median(value for r in group for value in r.reload_ms)),
    ]
