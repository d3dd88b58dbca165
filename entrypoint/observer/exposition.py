"""Families of samples as text, in the two formats that Prometheus knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics.exposition import ALLOWUTF8, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric

    from entrypoint.observer.metrics import Family

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
END = b"# EOF\n"


class Exposition:
    """The encoder. It remembers the text of each family: from one scrape to the next most of them stay as they are."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Family, bytes]] = {}

    def openmetrics(self, families: Iterable[Family]) -> bytes:
        """OpenMetrics 1.0."""
        known, self._known = self._known, {}
        for family in families:
            before = known.get(family.name)
            same = before is not None and before[0] == family
            self._known[family.name] = before if before is not None and same else (family, encode(family))
        return b"".join([*(text for _, text in self._known.values()), END])

    def plain(self, families: Iterable[Family]) -> bytes:
        """The older text format, 0.0.4: there a counter's name ends in _total everywhere, and there are no units."""
        lines: list[str] = []
        for line in self.openmetrics(families).decode().splitlines():
            if line.startswith("# TYPE ") and line.endswith(" counter"):
                name = line.split()[2]
                lines[-1] = lines[-1].replace(name, f"{name}_total", 1)  # the HELP before it
                lines.append(f"# TYPE {name}_total counter")
            elif not line.startswith(("# UNIT ", "# EOF")):
                lines.append(line)
        return "\n".join([*lines, ""]).encode()


class _Single:
    """A registry of one metric, as the library wants it."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


def encode(family: Family) -> bytes:
    """One family as OpenMetrics, without the end."""
    # Our names need no escaping. With another scheme than this one it looks at every letter, for a third of the time.
    text: bytes = generate_latest(_Single(metric(family)), ALLOWUTF8)  # type: ignore[no-untyped-call] # it has no types
    return text.removesuffix(END)


def metric(family: Family) -> Metric:
    """A family as the library knows it."""
    if family.type == "histogram":
        histogram = HistogramMetricFamily(family.name, family.text, labels=family.labels, unit=family.unit)
        for labels, (buckets, total) in family.samples:
            histogram.add_metric(labels, buckets, total)
        return histogram
    kind = GaugeMetricFamily if family.type == "gauge" else CounterMetricFamily
    made = kind(family.name, family.text, labels=family.labels, unit=family.unit)
    for labels, value in family.samples:
        if value is not None:
            made.add_metric(labels, value)
    return made
