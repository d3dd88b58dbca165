"""The loop: facts from the kernel to the core, orders from the core to the kernel."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Any

from entrypoint.config.signals import signal, signal_name
from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.core.model import NEVER
from entrypoint.core.step import new_master, step
from entrypoint.master import helper, kernel, processes
from entrypoint.master.children import Children
from entrypoint.master.monitor import Monitor
from entrypoint.master.monitor import needed as monitor_needed
from entrypoint.master.output import STOP_TIME, Output
from entrypoint.master.output import needed as output_needed
from entrypoint.master.reloading import Reloader
from entrypoint.master.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.config.spec import Spec
    from entrypoint.core.actions import Action
    from entrypoint.master.children import Running
    from entrypoint.master.control import Control
    from entrypoint.master.helper import Helper
    from entrypoint.master.log import Log
    from entrypoint.master.reloading import Source
    from entrypoint.master.sockets import Sockets
    from entrypoint.master.spawn import Surroundings

MAX_SLEEP = 1e6  # seconds; epoll takes no longer timeout
LEAST_EVENTS = 64
BUG_PAUSE = 0.02  # seconds
LOG_DELAY = 0.02  # seconds
LOG_LATENCY = 1.0  # seconds that a line waits at most while other work does not end
LIMITS_INTERVAL = 10.0  # between two looks at the container's limits


class Loop:
    """The master at work."""

    def __init__(
        self,
        spec: Spec,
        source: Source,
        around: Surroundings,
        *,
        signals: kernel.Signals,
        sockets: Sockets | None,
        observed: Sockets | None,
        log: Log,
    ) -> None:
        self.core = new_master(spec)
        self.around = around
        self.uid = os.getuid()
        self.signals = signals
        self.sockets = sockets
        self.log = log
        self.children = Children(self)
        self.monitor = Monitor(self)
        self.output = Output(self)
        self.helpers: dict[str, Helper] = {self.monitor.name: self.monitor, self.output.name: self.output}
        self._observed = observed  # the socket that HTTP is served on
        self.reloader = Reloader(self, source, spec)
        self.requests = Requests(self)
        self.control: Control | None = None
        self.exit: act.Exit | None = None
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], Any]] = {}
        self.lag = Lag()
        self._first_time = not self.core.forward_all  # what has time until the first workers run is still to be done
        self._log_waits = False
        self._log_due = NEVER
        self._selectors_changed = False
        self._autos: dict[str, Any] = {}
        self._limits_at = NEVER
        self._own_deadline = 0.0  # the earliest of those that the core does not know, as of the last sleep
        self._orders: dict[type, Callable[[Any], None]] = {
            act.Spawn: self._spawn,
            act.Signal: self._signal,
            act.KillTree: self.children.kill_tree,
            act.Select: self._select,
            act.CheckQueue: self._check_queue,
            act.CloseSockets: self._close_sockets,
            act.Inspect: self._inspect,
            act.RunHook: self.children.run_hook,
            act.KillHook: self.children.kill_hook,
            act.Reload: self.reloader.request,
            act.Answer: self.requests.answer,
            act.RolloutEnded: self.requests.rollout_ended,
            act.Sweep: self._sweep,
            act.Report: self._report,
            act.Exit: self._exit,
        }

    # -- the loop --------------------------------------------------------------------------------------------

    def run(self) -> act.Exit:
        """Run until the core says to exit."""
        self.watch(self.signals.fd, self.signals.drain)
        self._capture(self.core.spec)
        self.tell(ev.Started())
        self._observe(self.core.spec)
        self._follow(self.core.spec)
        # From here on nothing is raised: what fails is reported, and tried again at a deadline if it matters.
        while self.exit is None:
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - PID 1 must not die of a surprise
                self._bug(error)
        return self.exit

    def _turn(self) -> None:
        """Handle everything that has happened, then sleep until something does."""
        taken = self.signals.take()
        if any(signum != signal.SIGCHLD for signum in taken):
            try:
                self._hear(0.0)  # what was before them, that a worker's program runs say, is told before them
            except Exception as error:  # noqa: BLE001 - no signal is to be lost
                self._bug(error)
        for signum in taken:
            if signum == signal.SIGCHLD:
                self.children.changed = True
            else:
                name = signal_name(signum)
                self.requests.signals[name] = self.requests.signals.get(name, 0) + 1
                self.log.emit("info", "signal_received", signal=name)
                self.tell(ev.SignalReceived(signum))
        if self.children.changed:
            self.children.reap()
        now = time.monotonic()
        deadline = self.core.next_deadline()
        if min(deadline, self.children.beats.deadline) <= now:
            self.children.beats.hear()
        if deadline <= now:
            self.lag.note(now, now - deadline)
            # What workers said meanwhile has been read. If it is so late, the master did not run, and they may have
            # had more to say; nobody is to die of that.
            if now - deadline > self.core.stall:
                self.tell(ev.Stalled(now - deadline))
            self.tell(ev.Ticked())
            deadline = self.core.next_deadline()
        if now >= self._own_deadline:
            self._own_deadlines(now)
        if self.exit is None:
            self._sleep(deadline, busy=self.children.changed or bool(self.signals.pending) or deadline <= now)

    def _own_deadlines(self, now: float) -> None:
        if now >= self._limits_at:
            self._read_limits(now)
        if now >= self.reloader.deadline:
            self.reloader.due(now)
        if now >= self.output.deadline:
            self.output.end_wait()
        if self.control is not None and now >= self.control.deadline:
            self.control.due(now)

    def _sleep(self, deadline: float, *, busy: bool) -> None:
        """Wait for the next fact, no longer than the deadline; not at all while there is work left."""
        if not busy:
            if self._selectors_changed:
                self._apply_selectors()
            if self._first_time:
                self._settle_in()
        self._wait_for_log()
        own = min(self._limits_at, self.reloader.deadline, self.output.deadline)
        if self.control is not None:
            own = min(own, self.control.deadline)
        self._own_deadline = own
        timeout = min(deadline, own, self.children.beats.deadline) - time.monotonic()
        if busy or timeout < 0:
            timeout = 0.0
        elif self.log.pending:  # to be written when nothing else happens, and that includes an exec under way
            timeout = min(timeout, LOG_DELAY if self.children.executing else 0.0)
        heard = self._hear(timeout)
        self._write_log(idle=not heard and not busy)

    def _hear(self, timeout: float) -> int:
        """Wait for facts and handle them: of everybody who has one, before a deadline is judged. Returns how many."""
        most = max(LEAST_EVENTS, len(self._handlers))
        ready = self._epoll.poll(None if timeout == NEVER else min(timeout, MAX_SLEEP), most)
        for fd, _ in ready:
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        return len(ready)

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

    def tell(self, event: ev.Event) -> None:
        """Tell the core, and carry out what it orders; an order may produce the next fact at once."""
        for order in step(self.core, event, time.monotonic()):
            self._carry_out(order)

    def _carry_out(self, order: Action) -> None:
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

    def watch(self, fd: int, handler: Callable[[], Any], mask: int = select.EPOLLIN) -> None:
        """Call `handler` whenever something happens on the descriptor. Raises OSError."""
        self._handlers[fd] = handler
        self._epoll.register(fd, mask)

    def rewatch(self, fd: int, mask: int) -> None:
        """Watch it for something else, or once more. Raises OSError."""
        self._epoll.modify(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Do so no longer; to be called before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    # -- orders ----------------------------------------------------------------------------------------------

    def _spawn(self, order: act.Spawn) -> None:
        if order.pool in self.core.helpers:
            self.helpers[order.pool].spawn(order)
        else:
            self.children.spawn(order)

    def _signal(self, order: act.Signal) -> None:
        running = self.children.by_serial.get(order.serial)
        if running is None or not running.alive:
            return
        if running.order.pool == self.output.name and self.output.stop(order.signum):
            return
        try:
            kernel.send(running.pid, order.signum)
        except PermissionError:
            self.log_worker("error", "signal_refused", running, signal=signal_name(order.signum))

    def _select(self, order: act.Select) -> None:
        running = self.children.by_serial.get(order.serial)
        if self.sockets and running is not None:
            self.sockets.select(running.template.sockets, running.slot, chosen=order.chosen)
            if order.chosen:
                self._selectors_changed = True
            else:  # a stop signal may follow: the kernel must know first
                self._apply_selectors()

    def _apply_selectors(self) -> None:
        self._selectors_changed = False
        for message in self.sockets.apply() if self.sockets else ():
            self.log.emit("warning", "selector_refused", error=message)

    def _check_queue(self, order: act.CheckQueue) -> None:
        running = self.children.by_serial.get(order.serial)
        waiting, busy = 0, False
        if self.sockets and running is not None and running.alive:
            waiting = self.sockets.waiting(running.template.sockets, running.slot)
            busy = processes.is_busy(running.pid)
        self.tell(ev.QueueChecked(order.serial, waiting, busy))

    def _close_sockets(self, order: act.CloseSockets) -> None:
        if self.sockets is None:
            return
        if not order.forget:  # the end begins, and who reads the configuration would hold on to them
            self.reloader.stop()
        closed = self.sockets.forget(order.sockets) if order.forget else self.sockets.close(order.sockets)
        for name, queued in closed.items():
            self.log.emit("warning" if queued else "debug", "socket_closed", socket=name, queued=queued)

    def _inspect(self, order: act.Inspect) -> None:
        running = self.children.by_serial.get(order.serial)
        if running is not None and running.alive:
            self.monitor.watch(running, order)

    def _sweep(self, order: act.Sweep) -> None:
        self.reloader.stop()
        left, refused = self.children.sweep(order)
        if left:
            self.log.emit("info", "sweep", signal=signal_name(order.signum), processes=left, refused=refused)

    def _report(self, order: act.Report) -> None:
        fields: dict[str, Any] = {}
        if order.pool:
            fields["pool"] = order.pool
        if order.slot is not None:
            fields["slot"] = order.slot
        running = self.children.by_serial.get(order.serial) if order.serial else None
        if running is not None:
            fields["pid"] = running.pid
        for key, value in order.fields.items():
            fields[key] = signal_name(value) if key == "signal" and isinstance(value, int) else value
        if order.event == "giving_up" and (last := self.output.last(order.serial)) is not None:
            fields["last_output"] = last
            self.output.wait_for(order.serial)
        self.log.emit(order.level, order.event, **fields)
        if order.level != "debug":
            self.requests.note(order.event, fields)

    def _exit(self, order: act.Exit) -> None:
        self.exit = order

    def log_worker(self, level: str, event: str, running: Running, **fields: Any) -> None:
        """Log something about a worker."""
        identity = running.identity
        self.log.emit(level, event, pool=identity.pool, slot=identity.slot, pid=running.pid, **fields)

    # -- the configuration -----------------------------------------------------------------------------------

    def bind(self, spec: Spec) -> str:
        """Bind what a new configuration adds; returns why that is not possible, and then nothing has changed."""
        if not spec.sockets and self.sockets is None:
            return ""
        from entrypoint.master.sockets import SocketError, Sockets

        sockets = self.sockets if self.sockets is not None else Sockets()
        try:
            sockets.prepare(spec.sockets)
        except (SocketError, OSError) as error:
            return str(error)
        self.sockets = sockets
        return ""

    def take(self, spec: Spec, order: act.Reload) -> None:
        """Run by a new configuration from now on."""
        self.log.configure(spec.log.level, "auto")
        self._capture(spec)
        self.tell(ev.SpecChanged(spec, order.roll_all, order.asker))
        self._follow(self.core.spec)

    def _observe(self, spec: Spec) -> None:
        """Have HTTP served, from before the init commands to the end."""
        if not spec.observer.enabled or self._observed is None:
            return
        from entrypoint.master.observer import Observer

        [(_, listener)] = self._observed.of_worker((spec.observer.socket,), 0)
        self.helpers[Observer.name] = Observer(self, listener)
        self.tell(ev.HelperWanted(Observer.name, helper.process(Observer.name)))
        address = self._observed.address(spec.observer.socket)
        self.log.emit("info", "observer_listens", bind=address)

    def _follow(self, spec: Spec) -> None:
        """See to what a configuration needs beside its workers."""
        self._autos = {p.name: p.auto for p in spec.pools if p.auto is not None}
        self._limits_at = time.monotonic() + LIMITS_INTERVAL if self._autos else NEVER
        if not self.core.forward_all and monitor_needed(spec):
            self.tell(ev.HelperWanted(self.monitor.name, helper.process(self.monitor.name)))
            if spec.reload.watch:
                self.monitor.follow(self.reloader.source.path, self.reloader.sha256)

    def _capture(self, spec: Spec) -> None:
        """Have output framed where that is wanted; before there is any, so that nobody can end with nobody to read."""
        if output_needed(spec):
            self.tell(ev.HelperWanted(self.output.name, helper.process(self.output.name), STOP_TIME))

    def followed(self, sha256: str) -> None:
        """The configuration file was read, whatever came of it."""
        if self.core.spec.reload.watch:
            self.monitor.follow(self.reloader.source.path, sha256)

    def ended(self, running: Running) -> None:
        """A child of ours has been reaped."""
        for each in self.helpers.values():
            each.ended(running)

    def _read_limits(self, now: float) -> None:
        """Follow the container's limits, which Kubernetes may change in place."""
        from entrypoint.config.cgroup import auto_workers, limits

        self._limits_at = now + LIMITS_INTERVAL
        found = limits(environ=self.around.environ)
        for name, auto in self._autos.items():
            count, _ = auto_workers(auto, found, self.around.environ)
            self.tell(ev.Resized(name, count))

    # -- the rest --------------------------------------------------------------------------------------------

    def _settle_in(self) -> None:
        """Do what the first workers need not wait for."""
        self._first_time = False
        if self.core.spec.control.enabled:
            self._open_control()
        self.children.look_for_oom()

    def _open_control(self) -> None:
        """Listen for requests; where no place can be written, everything else works."""
        try:
            from entrypoint.config.location import find_control
            from entrypoint.master import control

            places = find_control(self.core.spec.control.socket, self.around.environ)
            self.control = control.listen(places, self.watch, self.unwatch, self.requests.handle)
        except OSError as error:
            self.log.emit("warning", "no_control_socket", error=error.strerror or str(error))
        else:
            self.log.emit("debug", "control_socket_opened", path=self.control.path)

    def _wait_for_log(self) -> None:
        """Be woken when a log that could not be written can be."""
        output = self.log.output
        if output is None or self.log.blocked == self._log_waits:
            return
        try:
            if self.log.blocked:
                self.watch(output.fd, lambda: self.log.flush(64), select.EPOLLOUT)
            else:
                self.unwatch(output.fd)
            self._log_waits = self.log.blocked
        except OSError:  # a file cannot be waited on, and is never full for a moment only
            self._handlers.pop(output.fd, None)


class Lag:
    """How late the loop is at its deadlines: the worst of the last one to two minutes."""

    WINDOW = 60.0  # seconds

    def __init__(self) -> None:
        self._since = self._before = self._worst = 0.0

    def note(self, now: float, late: float) -> None:
        """It was so many seconds late."""
        self._turn(now)
        self._worst = max(self._worst, late)

    def peak(self, now: float) -> float:
        """The worst of late."""
        self._turn(now)
        return max(self._worst, self._before)

    def _turn(self, now: float) -> None:
        passed = now - self._since
        if passed >= self.WINDOW:
            self._before = self._worst if passed < 2 * self.WINDOW else 0.0
            self._since, self._worst = now, 0.0
