"""The container's limits, which Kubernetes may change in place, for pools that follow them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from entrypoint.core import events as ev
from entrypoint.master.reactor import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from entrypoint.config.spec import Auto, Spec
    from entrypoint.master.part import Tell
    from entrypoint.master.reactor import Reactor

INTERVAL = 10.0  # seconds between two looks; there is nothing to wait for


class Limits:
    """Looked at only while a pool depends on them."""

    def __init__(self, reactor: Reactor, tell: Tell, environ: Mapping[str, str]) -> None:
        self._tell = tell
        self._environ = environ
        self._timer = reactor.timer(self._read)
        self._autos: dict[str, Auto] = {}

    def follow(self, spec: Spec) -> None:
        """Look for the pools of this configuration from now on."""
        self._autos = {p.name: p.auto for p in spec.pools if p.auto is not None}
        self._timer.arm(time.monotonic() + INTERVAL if self._autos else NEVER)

    def _read(self) -> None:
        from entrypoint.config.auto import auto_workers
        from entrypoint.linux.cgroup import limits

        self._timer.arm(time.monotonic() + INTERVAL)
        found = limits()
        for name, auto in self._autos.items():
            count, _ = auto_workers(auto, found, self._environ)
            self._tell(ev.Resized(name, count))
