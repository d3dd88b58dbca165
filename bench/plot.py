"""The results as one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from .report import Figures, StormTable, Table

_OURS, _OTHERS = "#1f6feb", ["#8c959f", "#afb8c1", "#d0a215", "#bc4c00", "#1a7f37", "#8250df"]
_PANELS: list[tuple[str, str, Callable[[Figures], float | None]]] = [
    ("start to the first worker", "ms", lambda f: f.first_ms),
    ("start to all workers", "ms", lambda f: f.all_ms),
    ("SIGKILL of a worker to its successor", "ms", lambda f: f.respawn_ms),
    ("stop signal to everything gone", "ms", lambda f: f.stop_ms),
    ("memory (PSS) of everything but the workers", "MB", lambda f: None if f.pss_kb is None else f.pss_kb / 1000),
]


def draw(table: Table, storms: StormTable, path: Path) -> None:
    """Write a PNG: a panel of bars for each measurement, by number of workers (logarithmic), and one for orphans."""
    systems = list(dict.fromkeys(system for system, _ in table))
    counts = sorted({workers for _, workers in table})
    colours = {name: _OURS if name.startswith("entrypoint") else "" for name in [*systems, *storms]}
    others = iter(_OTHERS * 3)
    colours = {name: colour or next(others) for name, colour in colours.items()}

    figure = Figure(figsize=(13, 13), layout="constrained")  # without pyplot: no display, no global state
    panels = list(figure.subplots(3, 2).flat)
    for axis, (title, unit, field) in zip(panels, _PANELS, strict=False):
        _bars(axis, table=table, systems=systems, counts=counts, colours=colours, field=field)
        axis.set_title(f"{title} ({unit})", fontsize=11)
    _storm(panels[len(_PANELS)], storms, colours)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=max(1, len(labels)), frameon=False)
    figure.savefig(path, dpi=90)


def _bars(
    axis: Axes,
    *,
    table: Table,
    systems: Sequence[str],
    counts: Sequence[int],
    colours: dict[str, str],
    field: Callable[[Figures], float | None],
) -> None:
    width = 0.84 / max(1, len(systems))
    for index, system in enumerate(systems):
        figures = [table.get((system, count)) for count in counts]
        values = [(field(item) if item else None) or 0.0 for item in figures]
        places = [group + (index - (len(systems) - 1) / 2) * width for group in range(len(counts))]
        bars = axis.bar(places, values, width * 0.92, label=system, color=colours[system])
        axis.bar_label(bars, [_label(value) for value in values], fontsize=7, rotation=90, padding=3)
    axis.set_yscale("log")
    axis.margins(y=0.22)
    axis.set_xticks(range(len(counts)), [f"{count:,} workers" for count in counts])
    _clean(axis)


def _storm(axis: Axes, storms: StormTable, colours: dict[str, str]) -> None:
    names = list(storms)
    values = [(storms[name].elapsed_ms or 0.0) / 1000 for name in names]
    bars = axis.bar(range(len(names)), values, 0.6, color=[colours[name] for name in names])
    axis.bar_label(bars, [_label(value) for value in values], fontsize=8, padding=3)
    axis.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    axis.margins(y=0.15)
    axis.set_title("orphans reaped (s)", fontsize=11)
    _clean(axis)


def _label(value: float) -> str:
    if value <= 0:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _clean(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", labelsize=8)
