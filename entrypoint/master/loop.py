"""The loop: facts from the kernel to the core, orders from the core to the kernel."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any

from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.core.model import NEVER
from entrypoint.core.step import new_master, step
from entrypoint.master import kernel, processes, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.config.spec import Pool, Process, Spec
    from entrypoint.master.log import Log
    from entrypoint.master.sockets import Sockets
    from entrypoint.master.spawn import Surroundings

REAP_BATCH = 200  # children collected before signals and deadlines get a look
MAX_SLEEP = 1e6  # seconds; epoll takes no longer timeout
BUG_PAUSE = 0.02  # seconds
LOG_DELAY = 0.02  # seconds
LOG_LATENCY = 1.0  # seconds that a line waits at most while other work does not end
LIMITS_INTERVAL = 10.0  # between two looks at the container's limits


class Running:
    """A worker's process."""

    __slots__ = ("alive", "error", "pid", "pool", "serial", "slot", "status")

    def __init__(self, serial: int, pool: str, slot: int, pid: int, status: int) -> None:
        self.serial = serial
        self.pool = pool
        self.slot = slot
        self.pid = pid
        self.status = status  # the pipe that tells whether its program was executed; -1 once it has
        self.error = ""  # why its program never ran
        self.alive = True  # not reaped: the pid is its own


class Loop:
    """The master at work."""

    def __init__(
        self, spec: Spec, around: Surroundings, signals: kernel.Signals, sockets: Sockets | None, log: Log
    ) -> None:
        self.core = new_master(spec)
        self.pools: dict[str, Pool] = {p.name: p for p in spec.pools}
        self.commands: dict[str, Process] = {p.name: p.process for p in spec.pools}
        self.commands.update({f"init:{i.name}": i.process for i in spec.init})
        self.around = around
        self.signals = signals
        self.sockets = sockets
        self.log = log
        self.orphans = 0
        self.helpers: set[int] = set()  # children of ours that are neither workers nor orphans
        self.exit: act.Exit | None = None
        self._by_serial: dict[int, Running] = {}
        self._by_pid: dict[int, Running] = {}
        self._groups: dict[int, Running] = {}  # groups that outlived their leader, by its pid
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._log_waits = False
        self._log_due = NEVER
        self._executing = 0  # workers between fork and exec
        self._selectors_changed = False
        self._children_changed = True
        self._autos = {p.name: p.auto for p in spec.pools if p.auto is not None}
        self._limits_at = time.monotonic() + LIMITS_INTERVAL if self._autos else NEVER
        self._orders: dict[type, Callable[[Any], None]] = {
            act.Spawn: self._spawn,
            act.Signal: self._signal,
            act.KillTree: self._kill_tree,
            act.Select: self._select,
            act.CheckQueue: self._check_queue,
            act.CloseSockets: self._close_sockets,
            act.Sweep: self._sweep,
            act.Report: self._report,
            act.Exit: self._exit,
        }

    # -- the loop --------------------------------------------------------------------------------------------

    def run(self) -> act.Exit:
        """Run until the core says to exit."""
        self._watch(self.signals.fd, self._woken)
        self._tell(ev.Started())
        # From here on nothing is raised: what fails is reported, and tried again at a deadline if it matters.
        while self.exit is None:
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - PID 1 must not die of a surprise
                self._bug(error)
        return self.exit

    def _turn(self) -> None:
        """Handle everything that has happened, then sleep until something does."""
        for signum in self.signals.take():
            if signum == signal.SIGCHLD:
                self._children_changed = True
            else:
                self.log.emit("info", "signal_received", signal=signal_name(signum))
                self._tell(ev.SignalReceived(signum))
        if self._children_changed:
            self._reap()
        now = time.monotonic()
        deadline = self.core.next_deadline()
        if deadline <= now:
            self._tell(ev.Ticked())
            deadline = self.core.next_deadline()
        if now >= self._limits_at:
            self._read_limits(now)
        if self.exit is None:
            self._sleep(deadline, busy=self._children_changed or bool(self.signals.pending) or deadline <= now)

    def _sleep(self, deadline: float, *, busy: bool) -> None:
        """Wait for the next fact, no longer than the deadline; not at all while there is work left."""
        if self._selectors_changed and not busy:
            self._apply_selectors()
        self._wait_for_log()
        timeout = min(deadline, self._limits_at) - time.monotonic()
        if busy or timeout < 0:
            timeout = 0.0
        elif self.log.pending:  # to be written when nothing else happens, and that includes an exec under way
            timeout = min(timeout, LOG_DELAY if self._executing else 0.0)
        for fd, _ in (ready := self._epoll.poll(None if timeout == NEVER else min(timeout, MAX_SLEEP), 64)):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        self._write_log(idle=not ready and not busy)

    def _write_log(self, *, idle: bool) -> None:
        """Write when nothing else is to be done; under a load without end, in one go now and then."""
        if not self.log.pending:
            self._log_due = NEVER
        elif idle:
            self.log.flush(64)
        elif self._log_due == NEVER:
            self._log_due = time.monotonic() + LOG_LATENCY
        elif time.monotonic() >= self._log_due:
            self._log_due = NEVER
            self.log.flush()

    def _tell(self, event: ev.Event) -> None:
        """Tell the core, and carry out what it orders; an order may produce the next fact at once."""
        for order in step(self.core, event, time.monotonic()):
            try:
                self._orders[type(order)](order)
            except Exception as error:  # noqa: BLE001 - one failed order must not cancel the others
                self._bug(error)

    def _bug(self, error: Exception) -> None:
        where = ""
        try:
            import traceback

            where = traceback.format_exc()[-900:]
        except (OSError, ImportError):  # no descriptor left to read the module with
            pass
        self.log.emit("error", "bug", error=f"cannot go on as planned: {error!r}", where=where)
        time.sleep(BUG_PAUSE)  # whatever it is, it must not become a busy loop

    def _watch(self, fd: int, handler: Callable[[], None], mask: int = select.EPOLLIN) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, mask)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _woken(self) -> None:
        self.signals.drain()

    # -- children --------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Collect children that have ended, up to a batch; the rest in the next turn."""
        for _ in range(REAP_BATCH):
            try:
                dead = kernel.peek()
            except ChildProcessError:
                self._children_changed = False
                self._check_groups()
                self._tell(ev.Childless())
                return
            if dead is None:
                self._children_changed = False
                return
            running = self._by_pid.get(dead.pid)
            if running is None:
                self._reap_orphan(dead.pid)
            else:
                self._reap_worker(running, dead.outcome)

    def _reap_orphan(self, pid: int) -> None:
        group = -1
        if self._groups:
            try:
                group = os.getpgid(pid)
            except OSError:
                group = -1
        kernel.reap(pid)
        if pid in self.helpers:
            self.helpers.discard(pid)
            return
        self.orphans += 1
        left = self._groups.get(group)
        if left is not None and not kernel.group_exists(group):
            self._group_gone(left)

    def _reap_worker(self, running: Running, outcome: ev.Outcome) -> None:
        self._read_status(running)
        # The zombie still owns its group's number: this reaches only what it left behind.
        kernel.send_group(running.pid, signal.SIGTERM)
        running.alive = False
        del self._by_pid[running.pid]
        kernel.reap(running.pid)
        alone = not kernel.group_exists(running.pid)
        if not alone:
            self._groups[running.pid] = running
        self._tell(ev.Exited(running.serial, outcome, alone, running.error, chance()))
        if alone:
            del self._by_serial[running.serial]

    def _group_gone(self, running: Running) -> None:
        del self._groups[running.pid]
        del self._by_serial[running.serial]
        self._tell(ev.GroupGone(running.serial, chance()))

    def _check_groups(self) -> None:
        """Some processes are collected by parents of their own: look whether a group has ended unseen."""
        for running in list(self._groups.values()):
            if not kernel.group_exists(running.pid):
                self._group_gone(running)

    def _read_status(self, running: Running) -> None:
        """Learn what came of the exec: end of file when the program runs, else why it does not."""
        if running.status < 0:
            return
        try:
            message = os.read(running.status, 4096)
        except BlockingIOError:  # not known yet
            return
        self._unwatch(running.status)
        os.close(running.status)
        running.status = -1
        self._executing -= 1
        if message:
            running.error = message.decode("utf-8", "replace")  # told with the exit that follows
        else:
            self._tell(ev.Executed(running.serial))

    # -- orders ----------------------------------------------------------------------------------------------

    def _spawn(self, order: act.Spawn) -> None:
        pool = self.pools.get(order.pool)
        names = pool.sockets if pool is not None else ()
        try:
            task = spawn.Task(
                self.commands[order.pool],
                spawn.Identity(order.pool, order.slot, order.generation),
                self.sockets.of_worker(names, order.slot) if self.sockets else [],
                foreground=pool is not None and pool.foreground,
            )
            child = spawn.spawn(self.around, task)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
            self._tell(ev.SpawnRefused(order.serial, f"cannot spawn {order.pool}/{order.slot}: {reason}"))
            return
        os.set_blocking(child.status, False)
        running = Running(order.serial, order.pool, order.slot, child.pid, child.status)
        self._by_serial[order.serial] = self._by_pid[child.pid] = running
        self._executing += 1
        self._tell(ev.Spawned(order.serial))
        self._watch(child.status, lambda: self._read_status(running))

    def _signal(self, order: act.Signal) -> None:
        running = self._by_serial.get(order.serial)
        if running is None or not running.alive:
            return
        try:
            kernel.send(running.pid, order.signum)
        except PermissionError:
            self._log_worker("error", "signal_refused", running, signal=signal_name(order.signum))

    def _kill_tree(self, order: act.KillTree) -> None:
        running = self._by_serial.get(order.serial)
        if running is None or not (running.alive or running.pid in self._groups):
            return
        processes.kill_tree(running.pid, alive=running.alive)
        if not running.alive and not kernel.group_exists(running.pid):
            self._group_gone(running)

    def _select(self, order: act.Select) -> None:
        running = self._by_serial.get(order.serial)
        if self.sockets and running is not None and running.pool in self.pools:
            self.sockets.select(self.pools[running.pool].sockets, running.slot, chosen=order.chosen)
            if order.chosen:
                self._selectors_changed = True
            else:  # a stop signal may follow: the kernel must know first
                self._apply_selectors()

    def _apply_selectors(self) -> None:
        self._selectors_changed = False
        for message in self.sockets.apply() if self.sockets else ():
            self.log.emit("warning", "selector_refused", error=message)

    def _check_queue(self, order: act.CheckQueue) -> None:
        running = self._by_serial.get(order.serial)
        waiting = 0
        if self.sockets and running is not None and running.pool in self.pools:
            waiting = self.sockets.waiting(self.pools[running.pool].sockets, running.slot)
        self._tell(ev.QueueChecked(order.serial, waiting))

    def _close_sockets(self, order: act.CloseSockets) -> None:
        closed = self.sockets.close(order.sockets) if self.sockets else {}
        for name, queued in closed.items():
            self.log.emit("warning" if queued else "debug", "socket_closed", socket=name, queued=queued)

    def _sweep(self, order: act.Sweep) -> None:
        left = processes.descendants(os.getpid())
        refused = processes.signal_each(left, order.signum)
        if left:
            self.log.emit("info", "sweep", signal=signal_name(order.signum), processes=len(left), refused=refused)
        self._children_changed = True

    def _report(self, order: act.Report) -> None:
        fields: dict[str, Any] = {}
        if order.pool:
            fields["pool"] = order.pool
        if order.slot is not None:
            fields["slot"] = order.slot
        running = self._by_serial.get(order.serial) if order.serial else None
        if running is not None:
            fields["pid"] = running.pid
        for key, value in order.fields.items():
            fields[key] = signal_name(value) if key == "signal" and isinstance(value, int) else value
        self.log.emit(order.level, order.event, **fields)

    def _exit(self, order: act.Exit) -> None:
        self.exit = order

    def _log_worker(self, level: str, event: str, running: Running, **fields: Any) -> None:
        self.log.emit(level, event, pool=running.pool, slot=running.slot, pid=running.pid, **fields)

    # -- the rest --------------------------------------------------------------------------------------------

    def _wait_for_log(self) -> None:
        """Be woken when a log that could not be written can be."""
        output = self.log.output
        if output is None or self.log.blocked == self._log_waits:
            return
        try:
            if self.log.blocked:
                self._watch(output.fd, lambda: self.log.flush(64), select.EPOLLOUT)
            else:
                self._unwatch(output.fd)
            self._log_waits = self.log.blocked
        except OSError:  # a file cannot be waited on, and is never full for a moment only
            self._handlers.pop(output.fd, None)

    def _read_limits(self, now: float) -> None:
        """Follow the container's limits, which Kubernetes may change in place."""
        from entrypoint.config.cgroup import auto_workers, limits

        self._limits_at = now + LIMITS_INTERVAL
        found = limits(environ=self.around.environ)
        for name, auto in self._autos.items():
            count, _ = auto_workers(auto, found, self.around.environ)
            self._tell(ev.Resized(name, count))


def chance() -> float:
    """A random number in [0, 1) for jitter; `random` would cost an import, and every fork a reseeding."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


def signal_name(number: int) -> str:
    """`TERM` for 15; the number where it has no name."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)
