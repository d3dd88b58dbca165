"""Lifecycle commands, which run beside their workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.linux import kernel
from entrypoint.linux.signals import signal
from entrypoint.master.processes.spawn import Child, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from entrypoint.master.part import Orders, Tell
    from entrypoint.master.processes.launcher import Launcher
    from entrypoint.master.processes.reaper import Reaper
    from entrypoint.master.processes.spawn import Child
    from entrypoint.master.running import Running


class Hook:
    """The process of one."""

    __slots__ = ("child", "name", "pid", "worker")

    def __init__(self, name: str, worker: Running, child: Child) -> None:
        self.name = name
        self.worker: Running | None = worker  # None: nobody wants to know how it ends
        self.pid = child.pid
        self.child = child


class Hooks:
    """One at a time beside a worker."""

    def __init__(
        self,
        launcher: Launcher,
        reaper: Reaper,
        tell: Tell,
        workers: Mapping[int, Running],
    ) -> None:
        """`workers` are those that run, by serial."""
        self.orders: Orders = {act.RunHook: self.run, act.KillHook: self.kill}
        self._launcher = launcher
        self._reaper = reaper
        self._tell = tell
        self._workers = workers
        self._hooks: dict[int, Hook] = {}  # by the serial of the worker that it runs beside

    def run(self, order: act.RunHook) -> None:
        """Run a command beside a worker, as if it were the worker."""
        running = self._workers.get(order.serial)
        if running is None or not running.alive:
            return
        process = running.template.process._replace(argv=order.command.argv, display=order.command.display)
        try:
            child = self._launcher.start(Task(process, running.identity, [], main_pid=running.pid))
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
            self._tell(ev.HookEnded(order.serial, order.hook, f"cannot run {order.command.display}: {reason}"))
            return
        hook = self._hooks[order.serial] = Hook(order.hook, running, child)
        self._reaper.expect(child.pid, lambda outcome: self._ended(hook, outcome))

    def kill(self, order: act.KillHook) -> None:
        """End a worker's lifecycle command, whose end then concerns nobody."""
        hook = self._hooks.pop(order.serial, None)
        if hook is None:
            return
        hook.worker = None
        kernel.send_group(hook.pid, signal.SIGKILL)
        try:
            kernel.send(hook.pid, signal.SIGKILL)
        except PermissionError:  # it has become another user's
            pass

    def _ended(self, hook: Hook, outcome: ev.Outcome) -> None:
        kernel.reap(hook.pid)
        error, child = "", hook.child
        if child.status >= 0:
            error = self._launcher.outcome(child, os.read(child.status, 4096))  # its writer is gone: this cannot block
            os.close(child.status)
        if hook.worker is None:
            return
        serial = hook.worker.serial
        if self._hooks.get(serial) is hook:
            del self._hooks[serial]
        if outcome.status and not error:
            error = f"ended by {outcome.text}"
        self._tell(ev.HookEnded(serial, hook.name, error))
