"""Workers' processes: from the spawn to the last of a process group."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from entrypoint.config.environment import Identity
from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.linux import kernel, proc
from entrypoint.linux.signals import signal, signal_name
from entrypoint.master.processes.pipes import Pipes
from entrypoint.master.processes.spawn import Child, Task
from entrypoint.master.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.master.log import Log
    from entrypoint.master.notify.messages import Messages
    from entrypoint.master.part import Orders, Tell
    from entrypoint.master.processes.launcher import Launcher
    from entrypoint.master.processes.reaper import Reaper
    from entrypoint.master.reactor import Reactor


class Children:
    """Those that run, by serial."""

    def __init__(
        self,
        launcher: Launcher,
        reactor: Reactor,
        reaper: Reaper,
        tell: Tell,
        log: Log,
        *,
        messages: Messages,
        sockets_of: Callable[[act.Spawn], list[tuple[str, int]]],
        workers: dict[int, Running],
    ) -> None:
        """`sockets_of` gives the (name, descriptor)s that a worker is to inherit; it may raise OSError.

        `workers` is where those that run are kept, by serial, for others to look them up.
        """
        self.orders: Orders = {act.Signal: self.signal, act.KillTree: self.kill_tree, act.Sweep: self.sweep}
        self.by_serial = workers
        self.on_captured: Callable[[Running, Pipes], None] = lambda _running, _pipes: None
        self.on_ended: list[Callable[[Running], None]] = []  # called when a main process has been reaped
        self._launcher = launcher
        self._reactor = reactor
        self._reaper = reaper
        self._messages = messages
        self._log = log
        self._tell = tell
        self._sockets_of = sockets_of
        self._forked: dict[int, Child] = {}  # between fork and exec, by serial
        self._uid = os.getuid()
        self._oom_folder = (0, "")  # where that is counted
        self._oom_kills: int | None = None  # of the container, as far as known

    # -- spawning --------------------------------------------------------------------------------------------

    def spawn(self, order: act.Spawn, helper: list[int] | None = None) -> Running | None:
        """Start a worker, or with descriptors a process of the master's own, which gets them as 3, 4 and so on.

        Returns None when the kernel refuses; the core has been told.
        """
        template = order.template
        who = template.process.credentials
        address, pipes = "", None
        try:
            if helper is None and not template.foreground and not order.pool.startswith("init:"):
                address = self._messages.open(order.serial)
            sockets = self._sockets_of(order) if helper is None else [("", fd) for fd in helper]
            if template.output == "json":
                pipes = Pipes(who.uid if who is not None else None)
            task = Task(
                template.process,
                Identity(order.pool, order.slot, order.generation),
                sockets,
                template.foreground,
                address,
                template.heartbeat,
                bare=helper is not None,
                output=pipes.writers if pipes is not None else None,
            )
            child = self._launcher.start(task)
        except (OSError, ValueError) as error:
            self._messages.drop(order.serial)
            for fd in pipes.readers if pipes is not None else ():
                os.close(fd)
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
            self._tell(ev.SpawnRefused(order.serial, f"cannot spawn {order.pool}/{order.slot}: {reason}"))
            return None
        running = Running(order, child.pid, who.uid if who is not None else self._uid)
        self.by_serial[order.serial] = running
        self._reaper.expect(child.pid, lambda outcome: self._ended(running, outcome))
        self._tell(ev.Spawned(order.serial))
        if child.status >= 0:
            self._forked[order.serial] = child
            os.set_blocking(child.status, False)
            self._reactor.watch(child.status, lambda: self._read_status(running), 0)  # only its end matters
        self._messages.listen(running)
        if pipes is not None:
            self.on_captured(running, pipes)
        if child.status < 0:
            self._tell(ev.Executed(order.serial))
        return running

    @property
    def executing(self) -> bool:
        """Whether one is between fork and exec."""
        return bool(self._forked)

    def pids(self) -> dict[int, int]:
        """Of those that live, by serial."""
        return {serial: running.pid for serial, running in self.by_serial.items() if running.alive}

    def _read_status(self, running: Running) -> None:
        """Learn what came of the exec of a forked child."""
        child = self._forked.get(running.serial)
        if child is None:
            return
        try:
            told = os.read(child.status, 4096)
        except BlockingIOError:  # not known yet
            return
        self._reactor.unwatch(child.status)
        os.close(child.status)
        del self._forked[running.serial]
        running.error = self._launcher.outcome(child, told)
        if not running.error:  # else it is told with the exit that follows
            self._tell(ev.Executed(running.serial))

    # -- ending ----------------------------------------------------------------------------------------------

    def signal(self, order: act.Signal) -> None:
        """Signal the main process."""
        running = self.by_serial.get(order.serial)
        if running is None or not running.alive:
            return
        running.asked = running.asked or order.wake
        try:
            (kernel.send_awake if order.wake else kernel.send)(running.pid, order.signum)
        except PermissionError:
            self._log.emit("error", "signal_refused", **running.fields, signal=signal_name(order.signum))

    def kill_tree(self, order: act.KillTree) -> None:
        """SIGKILL a worker and all that belongs to it."""
        running = self.by_serial.get(order.serial)
        if running is None or not (running.alive or running.pid in self._reaper.groups):
            return
        proc.kill_tree(running.pid, alive=running.alive)
        if not running.alive:
            self._reaper.groups.check(running.pid)

    def sweep(self, order: act.Sweep) -> None:
        """Signal whatever is left."""
        left = proc.descendants(os.getpid())
        self._reaper.changed = True
        refused = proc.signal_each(left, order.signum)
        if left:
            name = signal_name(order.signum)
            self._log.emit("info", "sweep", signal=name, processes=len(left), refused=refused)

    def _ended(self, running: Running, outcome: ev.Outcome) -> None:
        self._read_status(running)
        self._messages.hang_up(running)
        born = proc.start_time(running.pid) if outcome.code == 0 and not running.asked else None
        running.alive = False
        cpu = kernel.reap_worker(running.pid)
        oom = outcome.signal == signal.SIGKILL and self.look_for_oom()
        alone = not kernel.group_exists(running.pid)  # while it is there, the number is nobody else's
        if not alone:
            self._reaper.groups.linger(running.pid, lambda: self._group_gone(running))
        daemon = alone and born is not None and self._reaper.groups.has_daemon(born)
        for told in self.on_ended:
            told(running)
        self._tell(ev.Exited(running.serial, outcome, alone, running.error, chance(), cpu, oom, daemon))
        if alone:
            del self.by_serial[running.serial]

    def _group_gone(self, running: Running) -> None:
        del self.by_serial[running.serial]
        self._tell(ev.GroupGone(running.serial, chance()))

    def look_for_oom(self) -> bool:
        """Whether the kernel has killed something for want of memory since the last look."""
        try:
            from entrypoint.linux import cgroup

            count = cgroup.killed(self._oom_folder)
            if count is None:  # the first look, or the group has become another
                self._oom_folder, self._oom_kills = cgroup.oom_folder(), None
                count = cgroup.killed(self._oom_folder)
        except (OSError, ValueError):
            return False
        before, self._oom_kills = self._oom_kills, count
        return count is not None and before is not None and count > before


def chance() -> float:
    """A random number in [0, 1) for jitter; `random` would cost an import, and every fork a reseeding."""
    return int.from_bytes(os.urandom(4), "big") / 2**32
