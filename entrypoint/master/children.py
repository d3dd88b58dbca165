"""The master's children: workers, their lifecycle commands, orphans. From the spawn to the last of a process group."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from entrypoint.config.environment import Identity
from entrypoint.config.signals import signal
from entrypoint.core import events as ev
from entrypoint.master import kernel, processes, spawn
from entrypoint.master.beats import Beats
from entrypoint.master.notify import Channel
from entrypoint.master.output import Pipes
from entrypoint.master.programs import Programs

if TYPE_CHECKING:
    from entrypoint.core import actions as act
    from entrypoint.core.model import Template
    from entrypoint.master.loop import Loop
    from entrypoint.master.notify import Read

REAP_BATCH = 200  # children collected before signals and deadlines get a look
LAST_WORDS = 16  # batches of messages that are read of a worker that has ended


class Running:
    """A worker's process."""

    __slots__ = ("alive", "channel", "child", "error", "hook", "order", "pid", "refused", "uid", "warned")

    def __init__(self, order: act.Spawn, child: spawn.Child, channel: Channel | None, uid: int) -> None:
        self.order = order
        self.pid = child.pid
        self.child: spawn.Child | None = child  # until it is known what came of its exec
        self.channel = channel  # what it says about itself
        self.uid = uid
        self.error = ""  # why its program never ran
        self.alive = True  # not reaped: the pid is its own
        self.hook: Hook | None = None  # the lifecycle command that runs beside it
        self.refused = False  # somebody else spoke in its name; told once
        self.warned = False  # it named another main process; told once

    @property
    def serial(self) -> int:
        """Its life's number."""
        return self.order.serial

    @property
    def slot(self) -> int:
        """Its place in the pool."""
        return self.order.slot

    @property
    def template(self) -> Template:
        """What it was born with."""
        return self.order.template

    @property
    def identity(self) -> Identity:
        """What it is told about itself."""
        return Identity(self.order.pool, self.order.slot, self.order.generation)


class Hook:
    """A lifecycle command's process."""

    __slots__ = ("child", "name", "pid", "worker")

    def __init__(self, name: str, worker: Running | None, child: spawn.Child) -> None:
        self.name = name
        self.worker = worker  # None: nobody wants to know how it ends
        self.pid = child.pid
        self.child = child


class Children:
    """Every child that the master has, by what it is."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.beats = Beats(loop)
        self.orphans = 0  # reaped so far
        self.rejected = 0  # messages of strangers
        self.changed = True  # some may have ended
        self.executing = 0  # workers between fork and exec
        self.programs = Programs()
        self.readers: set[int] = set()  # children of ours that read a configuration
        self.by_serial: dict[int, Running] = {}
        self._by_pid: dict[int, Running] = {}
        self._hooks: dict[int, Hook] = {}  # by pid
        self._groups: dict[int, Running] = {}  # groups that outlived their leader, by its pid
        self._token = os.urandom(8).hex()
        self.oom_kills: int | None = None  # of the container, as far as known

    # -- spawning --------------------------------------------------------------------------------------------

    def spawn(self, order: act.Spawn, helper: list[int] | None = None) -> None:
        """Start a worker, or with descriptors a process of the master's own, which gets them as 3, 4 and so on."""
        loop, template = self.loop, order.template
        who = template.process.credentials
        channel = pipes = None
        try:
            if helper is None and not template.foreground and not order.pool.startswith("init:"):
                channel = Channel(self._token, order.serial)
            if template.output == "json":
                pipes = Pipes(who.uid if who is not None else None)
            task = spawn.Task(
                template.process,
                Identity(order.pool, order.slot, order.generation),
                self._sockets(order) if helper is None else [("", fd) for fd in helper],
                template.foreground,
                channel.address if channel is not None else "",
                template.heartbeat,
                bare=helper is not None,
                output=pipes.writers if pipes is not None else None,
            )
            child = spawn.spawn(loop.around, task, self.programs)
        except (OSError, ValueError) as error:
            if channel is not None:
                channel.close()
            if pipes is not None:
                pipes.close(pipes.readers + pipes.writers)
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
            loop.tell(ev.SpawnRefused(order.serial, f"cannot spawn {order.pool}/{order.slot}: {reason}"))
            return
        running = Running(order, child, channel, who.uid if who is not None else loop.uid)
        self.by_serial[order.serial] = self._by_pid[child.pid] = running
        loop.tell(ev.Spawned(order.serial))
        if child.status >= 0:
            self.executing += 1
            os.set_blocking(child.status, False)
            loop.watch(child.status, lambda: self._read_status(running), 0)  # told is everything at its end only
        if channel is not None:
            loop.watch(channel.fd, lambda: self._listen(running))
        if pipes is not None:
            pipes.close(pipes.writers)  # the worker's are the only ones: they end with it
            loop.output.add(running, pipes)
        if child.status < 0:
            running.child = None
            loop.tell(ev.Executed(order.serial))

    def _sockets(self, order: act.Spawn) -> list[tuple[str, int]]:
        sockets = self.loop.sockets
        return sockets.of_worker(order.template.sockets, order.slot) if sockets and order.template.sockets else []

    def _read_status(self, running: Running) -> None:
        """Learn what came of the exec of a forked child."""
        child = running.child
        if child is None:
            return
        try:
            told = os.read(child.status, 4096)
        except BlockingIOError:  # not known yet
            return
        self.loop.unwatch(child.status)
        os.close(child.status)
        running.child = None
        self.executing -= 1
        running.error = spawn.outcome(child, told, self.programs)
        if not running.error:  # else it is told with the exit that follows
            self.loop.tell(ev.Executed(running.serial))

    # -- what workers say ------------------------------------------------------------------------------------

    def _listen(self, running: Running) -> None:
        """Hear a worker; one that beats is heard in bulk with the others from then on."""
        channel = running.channel
        if channel is None:
            return
        read = channel.read(running.pid, running.uid)
        self.heard(running, read)
        if any(said.beat for said in read.messages):
            try:
                self.beats.add(running, channel)
            except OSError:  # no descriptor or memory left: it is heard all the same
                pass

    def heard(self, running: Running, read: Read) -> None:
        """Tell the core what a worker has said about itself."""
        for said in read.messages:
            self.loop.tell(
                ev.Notified(running.serial, said.ready, said.beat, said.hung, said.stopping, said.extend, said.status)
            )
            if said.mainpid and not running.warned:
                running.warned = True
                self.loop.log_worker("warning", "main_pid_ignored", running, reason="a worker cannot name another")
        if read.refused:
            self.rejected += read.refused
            if not running.refused:
                running.refused = True
                error = "cannot accept a message: not from the worker or a descendant of it, or too long"
                self.loop.log_worker("warning", "message_refused", running, error=error)

    def _hang_up(self, running: Running) -> None:
        """Read the last words of a worker that has ended."""
        channel = running.channel
        if channel is None:
            return
        for _ in range(LAST_WORDS):
            read = channel.read(running.pid, running.uid)
            self.heard(running, read)
            if not read.more:
                break
        running.channel = None
        self.loop.unwatch(channel.fd)
        self.beats.remove(channel.fd)
        channel.close()

    # -- reaping ---------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Collect children that have ended, up to a batch; the rest in the next turn."""
        for _ in range(REAP_BATCH):
            try:
                dead = kernel.peek()
            except ChildProcessError:
                self.changed = False
                self._check_groups()
                self.loop.tell(ev.Childless())
                return
            if dead is None:
                self.changed = False
                return
            if dead.pid in self._by_pid:
                self._reap_worker(self._by_pid[dead.pid], dead.outcome)
            elif dead.pid in self._hooks:
                self._reap_hook(self._hooks.pop(dead.pid), dead.outcome)
            else:
                self._reap_orphan(dead.pid)

    def _reap_orphan(self, pid: int) -> None:
        group = -1
        if self._groups:
            try:
                group = os.getpgid(pid)
            except OSError:
                group = -1
        kernel.reap(pid)
        if pid in self.readers:
            self.readers.discard(pid)
            return
        self.orphans += 1
        left = self._groups.get(group)
        if left is not None and not kernel.group_exists(group):
            self._group_gone(left)

    def _reap_worker(self, running: Running, outcome: ev.Outcome) -> None:
        self._read_status(running)
        self._hang_up(running)
        # The zombie still owns its group's number: this reaches only what it left behind.
        kernel.send_group(running.pid, signal.SIGTERM)
        running.alive = False
        del self._by_pid[running.pid]
        cpu = kernel.reap_worker(running.pid)
        oom = outcome.signal == signal.SIGKILL and self.look_for_oom()
        alone = not kernel.group_exists(running.pid)
        if not alone:
            self._groups[running.pid] = running
        self.loop.ended(running)
        self.loop.tell(ev.Exited(running.serial, outcome, alone, running.error, chance(), cpu, oom))
        if alone:
            del self.by_serial[running.serial]

    def look_for_oom(self) -> bool:
        """Whether the kernel has killed something for want of memory since the last look."""
        try:
            from entrypoint.config.cgroup import oom_kills

            count = oom_kills()
        except (OSError, ValueError):
            return False
        before, self.oom_kills = self.oom_kills, count
        return count is not None and before is not None and count > before

    def _group_gone(self, running: Running) -> None:
        del self._groups[running.pid]
        del self.by_serial[running.serial]
        self.loop.tell(ev.GroupGone(running.serial, chance()))

    def _check_groups(self) -> None:
        """Some processes are collected by parents of their own: look whether a group has ended unseen."""
        for running in list(self._groups.values()):
            if not kernel.group_exists(running.pid):
                self._group_gone(running)

    # -- lifecycle commands ----------------------------------------------------------------------------------

    def run_hook(self, order: act.RunHook) -> None:
        """Run a command beside a worker, as if it were the worker."""
        running = self.by_serial.get(order.serial)
        if running is None or not running.alive:
            return
        process = running.template.process._replace(argv=order.command.argv, display=order.command.display)
        try:
            task = spawn.Task(process, running.identity, [], main_pid=running.pid)
            child = spawn.spawn(self.loop.around, task, self.programs)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
            self.loop.tell(ev.HookEnded(order.serial, order.hook, f"cannot run {order.command.display}: {reason}"))
            return
        running.hook = self._hooks[child.pid] = Hook(order.hook, running, child)

    def kill_hook(self, order: act.KillHook) -> None:
        """End a worker's lifecycle command, whose end then concerns nobody."""
        running = self.by_serial.get(order.serial)
        hook = running.hook if running is not None else None
        if running is None or hook is None:
            return
        running.hook = hook.worker = None
        kernel.send_group(hook.pid, signal.SIGKILL)
        try:
            kernel.send(hook.pid, signal.SIGKILL)
        except PermissionError:  # it has become another user's
            pass

    def _reap_hook(self, hook: Hook, outcome: ev.Outcome) -> None:
        kernel.reap(hook.pid)
        error, child = "", hook.child
        if child.status >= 0:
            error = spawn.outcome(child, os.read(child.status, 4096), self.programs)  # its writer is gone: no waiting
            os.close(child.status)
        if hook.worker is None:
            return
        hook.worker.hook = None
        if outcome.status and not error:
            error = f"ended by {outcome.text}"
        self.loop.tell(ev.HookEnded(hook.worker.serial, hook.name, error))

    # -- ending ----------------------------------------------------------------------------------------------

    def kill_tree(self, order: act.KillTree) -> None:
        """SIGKILL a worker and all that belongs to it."""
        running = self.by_serial.get(order.serial)
        if running is None or not (running.alive or running.pid in self._groups):
            return
        processes.kill_tree(running.pid, alive=running.alive)
        if not running.alive and not kernel.group_exists(running.pid):
            self._group_gone(running)

    def sweep(self, order: act.Sweep) -> tuple[int, int]:
        """Signal whatever is left; returns how many there were, and how many may not be signalled."""
        left = processes.descendants(os.getpid())
        self.changed = True
        return len(left), processes.signal_each(left, order.signum)


def chance() -> float:
    """A random number in [0, 1) for jitter; `random` would cost an import, and every fork a reseeding."""
    return int.from_bytes(os.urandom(4), "big") / 2**32
