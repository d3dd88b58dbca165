"""The workers' sockets while workers come and go: which of them the kernel chooses, what waits on them, their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.linux import proc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from entrypoint.config.spec import Socket
    from entrypoint.master.log import Log
    from entrypoint.master.part import Orders, Tell
    from entrypoint.master.running import Running
    from entrypoint.master.sockets.held import Sockets


class Serving:
    """`held` is None as long as no configuration has any socket."""

    def __init__(self, held: Sockets | None, log: Log, tell: Tell, workers: Mapping[int, Running]) -> None:
        """`workers` are those that run, by serial."""
        self.orders: Orders = {act.Select: self.select, act.CheckQueue: self.check_queue, act.CloseSockets: self.close}
        self.held = held
        self._log = log
        self._tell = tell
        self._workers = workers
        self._changed = False  # the kernel is still to be told

    def bind(self, sockets: tuple[Socket, ...]) -> str:
        """Bind what a new configuration adds; returns why that is not possible, and then nothing has changed."""
        if not sockets and self.held is None:
            return ""
        from entrypoint.master.sockets.held import SocketError, Sockets

        held = self.held if self.held is not None else Sockets()
        try:
            held.prepare(sockets)
        except (SocketError, OSError) as error:
            return str(error)
        self.held = held
        return ""

    def of_worker(self, order: act.Spawn) -> list[tuple[str, int]]:
        """(name, descriptor) of each socket that a worker is to inherit. Raises OSError."""
        if self.held is None or not order.template.sockets:
            return []
        return self.held.of_worker(order.template.sockets, order.slot)

    def inodes(self, running: Running) -> tuple[int, ...]:
        """Of the sockets that a worker has inherited, as /proc shows them."""
        if self.held is None or not running.template.sockets:
            return ()
        return self.held.inodes(running.template.sockets, running.slot)

    def describe(self) -> dict[str, dict[str, str | int]]:
        """The configured sockets by name."""
        return self.held.describe() if self.held is not None else {}

    def select(self, order: act.Select) -> None:
        """Have the kernel choose a worker's own sockets, or no longer."""
        running = self._workers.get(order.serial)
        if self.held is None or running is None:
            return
        self.held.select(running.template.sockets, running.slot, chosen=order.chosen)
        self._changed = True
        if not order.chosen:  # a stop signal may follow: the kernel must know first
            self.apply()

    def apply(self) -> None:
        """Tell the kernel what has changed; for those that are chosen, once for many."""
        if not self._changed:
            return
        self._changed = False
        for message in self.held.apply() if self.held is not None else ():
            self._log.emit("warning", "selector_refused", error=message)

    def check_queue(self, order: act.CheckQueue) -> None:
        """See what waits on a worker's own sockets, and whether it rests."""
        running = self._workers.get(order.serial)
        waiting, busy = 0, False
        if self.held is not None and running is not None and running.alive:
            waiting = self.held.waiting(running.template.sockets, running.slot)
            busy = proc.is_busy(running.pid)
        self._tell(ev.QueueChecked(order.serial, waiting, busy))

    def close(self, order: act.CloseSockets) -> None:
        """Close the master's copies."""
        if self.held is None:
            return
        closed = self.held.forget(order.sockets) if order.forget else self.held.close(order.sockets)
        for name, queued in closed.items():
            self._log.emit("warning" if queued else "debug", "socket_closed", socket=name, queued=queued)
