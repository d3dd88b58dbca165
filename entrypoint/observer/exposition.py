"""Families of samples as text, in the two formats that Prometheus knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.openmetrics.exposition import generate_latest

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"


def openmetrics(families: Collector) -> bytes:
    """OpenMetrics 1.0."""
    text: bytes = generate_latest(families)  # type: ignore[no-untyped-call] # it has no types
    return text


def plain(families: Collector) -> bytes:
    """The older text format, 0.0.4: there a counter's name ends in _total everywhere, and there are no units."""
    lines: list[str] = []
    for line in openmetrics(families).decode().splitlines():
        if line.startswith("# TYPE ") and line.endswith(" counter"):
            name = line.split()[2]
            lines[-1] = lines[-1].replace(name, f"{name}_total", 1)  # the HELP before it
            lines.append(f"# TYPE {name}_total counter")
        elif not line.startswith(("# UNIT ", "# EOF")):
            lines.append(line)
    return "\n".join([*lines, ""]).encode()
