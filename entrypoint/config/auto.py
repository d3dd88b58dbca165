"""The number of workers that `workers: auto` means under the container's limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from entrypoint.config.spec import Auto
    from entrypoint.linux.cgroup import Limits


def auto_workers(auto: Auto, limits: Limits, environ: Mapping[str, str]) -> tuple[int, str | None]:
    """The count that `workers: auto` means under these limits, and a warning if it had to be guessed.

    CPUs: the limit, else $ENTRYPOINT_CPUS, never more than the affinity allows and never the node's cores.
    """
    warning = None
    cpus = limits.cpu
    if cpus is None:
        text = environ.get("ENTRYPOINT_CPUS", "")
        cpus = _quantity(text)
        if cpus is None:
            cpus = 1.0
            if text:
                warning = "auto is 1 per CPU of 1: no CPU limit, and ENTRYPOINT_CPUS is not a number of CPUs"
            else:
                warning = "auto is 1 per CPU of 1: no CPU limit, and ENTRYPOINT_CPUS is not set"
    # Rounded first: 0.1 x 3 CPUs must not become one worker more by a bit of the last place.
    count = math.ceil(round(min(cpus, limits.affinity) * auto.per_cpu, 6))
    if auto.memory and limits.memory is not None:
        fitting = limits.memory // auto.memory
        count = min(count, fitting)
        if fitting < auto.min:
            warning = f"{auto.min} workers of {auto.memory} bytes do not fit the memory limit of {limits.memory} bytes"
    count = max(count, auto.min, 1)
    return min(count, auto.max) if auto.max else count, warning


def _quantity(text: str) -> float | None:
    """CPUs of `2`, `0.5` or `500m`."""
    scale = 1.0
    if text.endswith("m"):
        text, scale = text[:-1], 1000.0
    try:
        cpus = float(text) / scale
    except ValueError:
        return None
    return cpus if 0 < cpus < 1e6 else None
