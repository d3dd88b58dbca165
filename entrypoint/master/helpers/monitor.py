"""The line to the monitor, the process that looks at workers and files from outside on the master's behalf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.master.helpers.helper import Helper
from entrypoint.monitor.messages import Follow, Forget, Loaded, Watch, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from entrypoint.config.spec import Pool, Spec
    from entrypoint.master.helpers.helper import Spawn
    from entrypoint.master.log import Log
    from entrypoint.master.part import Orders, Tell
    from entrypoint.master.reactor import Reactor
    from entrypoint.master.running import Running


def needed(spec: Spec) -> bool:
    """Whether anything has to be looked at."""
    return spec.reload.watch or any(_looks_at(pool) for pool in spec.pools)


def _looks_at(pool: Pool) -> bool:
    return pool.liveness is not None or pool.ready.when in ("accepting", "probe")


class Monitor(Helper):
    """What it is to look at; a new one is told everything again."""

    name = "monitor"

    def __init__(
        self,
        reactor: Reactor,
        tell: Tell,
        spawn: Spawn,
        log: Log,
        *,
        workers: Mapping[int, Running],
        inodes: Callable[[Running], tuple[int, ...]],
        file_changed: Callable[[], None],
    ) -> None:
        """`workers` are those that run, by serial; `inodes` those of the sockets that one has inherited.

        `file_changed` is called when the configuration file has another content.
        """
        super().__init__(reactor, tell, spawn, log)
        self.orders: Orders = {act.Inspect: self.inspect}
        self._workers = workers
        self._inodes = inodes
        self._file_changed = file_changed
        self._follow: Follow | None = None
        self._watches: dict[tuple[int, str], Watch] = {}

    def begin(self) -> None:
        """Tell a new one all that it is to look at."""
        if self._follow is not None:
            self.send(encode(self._follow))
        for watch in self._watches.values():
            self.send(encode(watch))

    def ended(self, running: Running) -> None:
        """A worker that has ended need not be looked at any more."""
        super().ended(running)
        for kind in ("ready", "live"):
            if (running.serial, kind) in self._watches:
                self._forget(running.serial, kind)

    def follow(self, path: str, sha256: str) -> None:
        """Have the configuration file followed; it was read with this content."""
        if self._follow is None:
            self._follow = Follow(path, sha256)
            self.send(encode(self._follow))
        else:
            self._follow = self._follow._replace(sha256=sha256)
            self.send(encode(Loaded(sha256)))

    def inspect(self, order: act.Inspect) -> None:
        """Have a worker looked at, or no longer."""
        running = self._workers.get(order.serial)
        if running is None or not running.alive:
            return
        if order.kind == "live" and order.probe is None:
            self._forget(running.serial, order.kind)
            return
        process = running.template.process
        watch = Watch(
            running.serial, running.pid, order.kind, order.probe, self._inodes(running), 0.0, process, running.identity
        )
        self._watches[running.serial, order.kind] = watch
        self.send(encode(watch))

    def _forget(self, serial: int, kind: str) -> None:
        self._watches.pop((serial, kind), None)
        self.send(encode(Forget(serial, kind)))

    def told(self, line: bytes) -> None:
        """It saw something; it speaks with strangers, so nothing that it says is taken for granted."""
        import json

        try:
            fact: dict[str, Any] = json.loads(line)
            saw, serial, reason = fact["saw"], int(fact.get("serial", 0)), str(fact.get("reason", ""))[:256]
            kind = str(fact.get("kind", ""))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if saw == "config":
            self._file_changed()
        elif saw == "ready" and self._watches.pop((serial, "ready"), None):
            self._tell(ev.Proved(serial))
        elif saw == "blind" and self._watches.pop((serial, "ready"), None):
            self._tell(ev.Hidden(serial, reason))
        elif saw == "not_live" and self._watches.pop((serial, "live"), None):
            self._tell(ev.NotLive(serial, reason))
        elif saw == "failing" and (serial, kind) in self._watches:
            running = self._workers.get(serial)
            if running is not None:
                self._log.emit("warning", "probe_failing", **running.fields, kind=kind, error=reason)
