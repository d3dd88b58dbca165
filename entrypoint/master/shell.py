"""The shell: facts from the kernel to the core, orders from the core to the kernel.

It puts the parts of the master together, and is the only one that knows them all. Each part owns one thing, gets the
few functions that it needs, and brings the orders that it carries out.
"""

# What came before a signal is told before it. A TERM that overtook the news that a worker's program runs would have its
# `pre_stop` skipped. So the descriptors are looked at once more between taking a signal and telling of it.
#
# Everybody is heard before a deadline is judged: a turn reads all messages that are there, then looks at deadlines.

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.core.step import new_master, step
from entrypoint.linux import kernel, terminal
from entrypoint.linux.signals import signal, signal_name
from entrypoint.master.configuration.limits import Limits
from entrypoint.master.configuration.reloading import Reloader
from entrypoint.master.control.requests import Requests
from entrypoint.master.helpers import helper
from entrypoint.master.helpers.logger import STOP_TIME, Logger
from entrypoint.master.helpers.logger import needed as logger_needed
from entrypoint.master.helpers.monitor import Monitor
from entrypoint.master.helpers.monitor import needed as monitor_needed
from entrypoint.master.journal import Journal
from entrypoint.master.notify.messages import Messages
from entrypoint.master.processes.children import Children
from entrypoint.master.processes.hooks import Hooks
from entrypoint.master.processes.launcher import Launcher
from entrypoint.master.processes.reaper import Reaper
from entrypoint.master.reactor import Reactor
from entrypoint.master.snapshot import Snapshot
from entrypoint.master.sockets.serving import Serving

if TYPE_CHECKING:
    from entrypoint.config.spec import Spec
    from entrypoint.core.actions import Action
    from entrypoint.master.configuration.reloading import Source
    from entrypoint.master.helpers.helper import Helper
    from entrypoint.master.helpers.observer import Observer
    from entrypoint.master.log import Log
    from entrypoint.master.part import Orders
    from entrypoint.master.processes.spawn import Surroundings
    from entrypoint.master.running import Running
    from entrypoint.master.sockets.held import Sockets

BUG_PAUSE = 0.02  # seconds
LOG_DELAY = 0.02  # seconds that the log waits for an exec under way


class Shell:
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
        """`sockets` are those of workers, `observed` the one that HTTP is served on."""
        self.exit: act.Exit | None = None
        self._core = new_master(spec)
        self._environ = around.environ
        self._signals = signals
        self._observed = observed
        self._log = log
        self._lag = Lag()
        self._called = False  # the helpers are wanted
        self._settled = self._core.forward_all  # what has time until the first workers run has been done
        self._observer: Observer | None = None

        reactor = self._reactor = Reactor()
        self.reaper = Reaper(lambda: self.tell(ev.Childless()))
        self._messages = Messages(reactor, self.tell, log)
        self._launcher = Launcher(around)
        workers: dict[int, Running] = {}  # by serial; kept by `Children`
        self.serving = Serving(sockets, log, self.tell, workers)
        self._children = Children(
            self._launcher,
            reactor,
            self.reaper,
            self.tell,
            log,
            messages=self._messages,
            sockets_of=self.serving.of_worker,
            workers=workers,
        )
        hooks = Hooks(self._launcher, self.reaper, self.tell, workers)
        self.logger = Logger(reactor, self.tell, self._children.spawn, log)
        self._children.on_captured = self.logger.add
        self._reloader = Reloader(
            source, spec, reactor, self.reaper, log, bind=self.serving.bind, read=self._was_read, done=self._reloaded
        )
        self._monitor = Monitor(
            reactor,
            self.tell,
            self._children.spawn,
            log,
            workers=workers,
            inodes=self.serving.inodes,
            file_changed=self._reloader.file_changed,
        )
        self._limits = Limits(reactor, self.tell, around.environ)
        self._snapshot = Snapshot(
            self._core,
            pids=self._children.pids,
            config=self._reloader.describe,
            sockets=self.serving.describe,
            master=self._figures,
        )
        self._requests = Requests(self.tell, self._snapshot)
        self._journal = Journal(reactor, log, workers, last_lines=self.logger.await_last, note=self._snapshot.note)
        self._helpers: dict[str, Helper] = {}
        self._children.on_ended = [self._monitor.ended, self.logger.ended]
        self._orders: Orders = {}
        for part in (
            self._children, hooks, self.serving, self._monitor, self._reloader, self._requests, self._journal
        ):  # fmt: skip
            self._orders |= part.orders
        # What concerns more than one of them.
        self._orders |= {
            act.Spawn: self._spawn,
            act.Signal: self._signal,
            act.CloseSockets: self._close_sockets,
            act.Sweep: self._sweep,
            act.Exit: self._exit,
        }

    # -- the loop --------------------------------------------------------------------------------------------

    def run(self) -> act.Exit:
        """Run until the core says to exit."""
        self._reactor.watch(self._signals.fd, self._signals.drain)
        spec = self._core.spec
        self._capture(spec)
        self.tell(ev.Started())
        # From here on nothing is raised: what fails is reported, and tried again at a deadline if it matters.
        while self.exit is None:
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - PID 1 must not die of a surprise
                self._bug(error)
        return self.exit

    def _turn(self) -> None:
        """Handle everything that has happened, then sleep until something does."""
        self._take_signals()
        if self.reaper.changed:
            self.reaper.reap()
        now = time.monotonic()
        deadline = self._core.next_deadline()
        if deadline <= now:
            self._messages.beats.timer.arm(now)  # everybody is heard before a deadline is judged
        self._reactor.run_due(now)
        if deadline <= now:
            self._lag.note(now, now - deadline)
            # If it is so late, the master did not run, and they may have had more to say; nobody is to die of that.
            if now - deadline > self._core.stall:
                self.tell(ev.Stalled(now - deadline))
            self.tell(ev.Ticked())
            deadline = self._core.next_deadline()
        if self.exit is None:
            self._sleep(deadline, busy=self.reaper.changed or bool(self._signals.pending) or deadline <= now)

    def _take_signals(self) -> None:
        taken = self._signals.take()
        if any(signum != signal.SIGCHLD for signum in taken):
            try:
                self._reactor.poll(0.0)  # what was before them, that a worker's program runs say, is told before them
            except Exception as error:  # noqa: BLE001 - no signal is to be lost
                self._bug(error)
        for signum in taken:
            if signum == signal.SIGCHLD:
                self.reaper.changed = True
            else:
                name = signal_name(signum)
                self._snapshot.note_signal(name)
                self._log.emit("info", "signal_received", signal=name)
                self.tell(ev.SignalReceived(signum, of_terminal=signum == signal.SIGWINCH and terminal.any_open()))

    def _sleep(self, deadline: float, *, busy: bool) -> None:
        """Wait for the next fact, no longer than the deadline; not at all while there is work left."""
        if not busy:
            self.serving.apply()
            if not self._settled:
                self._settle_in()
        self._journal.wait_for_reader()
        timeout = min(deadline, self._reactor.deadline) - time.monotonic()
        if busy or timeout < 0:
            timeout = 0.0
        elif self._log.pending:  # to be written when nothing else happens, and that includes an exec under way
            timeout = min(timeout, LOG_DELAY if self._children.executing else 0.0)
        heard = self._reactor.poll(timeout)
        self._journal.write(idle=not heard and not busy)

    def tell(self, event: ev.Event) -> None:
        """Tell the core, and carry out what it orders; an order may produce the next fact at once."""
        for order in step(self._core, event, time.monotonic()):
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
        self._log.emit("error", "bug", error=f"cannot go on as planned: {error!r}", where=where)
        time.sleep(BUG_PAUSE)  # whatever it is, it must not become a busy loop

    # -- orders that concern several parts -------------------------------------------------------------------

    def _spawn(self, order: act.Spawn) -> None:
        if order.pool in self._core.helpers:
            self._helpers[order.pool].spawn(order)
        else:
            self._children.spawn(order)
            self._call_helpers()

    def _signal(self, order: act.Signal) -> None:
        running = self._children.by_serial.get(order.serial)
        line = self._helpers.get(running.order.pool) if running is not None and running.alive else None
        if line is None or not line.stop(order.signum):
            self._children.signal(order)

    def _close_sockets(self, order: act.CloseSockets) -> None:
        if not order.forget:  # the end begins, and who reads the configuration would hold on to them
            self._reloader.stop()
        self.serving.close(order)

    def _sweep(self, order: act.Sweep) -> None:
        self._reloader.stop()
        self._children.sweep(order)

    def _exit(self, order: act.Exit) -> None:
        self.exit = order

    # -- the configuration -----------------------------------------------------------------------------------

    def _reloaded(self, order: act.Reload, spec: Spec | None, errors: tuple[str, ...]) -> None:
        """Run by a new configuration from now on, or tell why not."""
        if spec is None:
            self.tell(ev.SpecRejected(errors, order.asker))
            return
        self._log.configure(spec.log.level, "auto")
        self._capture(spec)
        self.tell(ev.SpecChanged(spec, order.roll_all, order.asker))
        self._follow(self._core.spec)

    def _call_helpers(self) -> None:
        """Have the master's own processes, once.

        The order of the first spawns is: the logger, which is to be there before there is output; the first worker or
        init command, which nothing else is to delay; the observer and the monitor; all other workers. So whatever
        the kernel refuses then, somebody answers who asks how things are.
        """
        if not self._called:
            self._called = True
            self._observe(self._core.spec)
            self._follow(self._core.spec)

    def _observe(self, spec: Spec) -> None:
        """Have HTTP served, from the first spawn to the end."""
        if not spec.observer.enabled or self._observed is None:
            return
        from entrypoint.master.helpers.observer import Observer

        [(_, listener)] = self._observed.of_worker((spec.observer.socket,), 0)
        observer = Observer(
            self._reactor,
            self.tell,
            self._children.spawn,
            self._log,
            listener=listener,
            address=self._observed.address(spec.observer.socket),
            snapshot=self._snapshot,
        )
        self._children.on_ended.append(observer.ended)
        self._want(observer)
        self._observer = observer
        if self._settled:
            observer.wake()

    def _follow(self, spec: Spec) -> None:
        """See to what a configuration needs beside its workers."""
        self._limits.follow(spec)
        if not self._core.forward_all and monitor_needed(spec):
            self._want(self._monitor)
            if spec.reload.watch:
                self._monitor.follow(self._reloader.source.path, self._reloader.sha256)

    def _capture(self, spec: Spec) -> None:
        """Have output framed where that is wanted; before there is any, so that nobody can end with nobody to read."""
        if logger_needed(spec):
            self._want(self.logger, STOP_TIME)

    def _want(self, line: Helper, *stop_time: float) -> None:
        """Have a process of the master's own."""
        self._helpers[line.name] = line
        self.tell(ev.HelperWanted(line.name, helper.process(line.name), *stop_time))

    def _was_read(self, sha256: str) -> None:
        """The configuration file was read, whatever came of it."""
        if self._core.spec.reload.watch:
            self._monitor.follow(self._reloader.source.path, sha256)

    # -- the rest --------------------------------------------------------------------------------------------

    def _settle_in(self) -> None:
        """Do what the first workers need not wait for."""
        self._settled = True
        self._call_helpers()  # there may be no workers
        if self._core.spec.control.enabled:
            self._open_control()
        self._children.look_for_oom()
        if self._observer is not None:
            self._observer.wake()

    def _open_control(self) -> None:
        """Listen for requests; where no place can be written, everything else works."""
        try:
            from entrypoint.config.control import find_control
            from entrypoint.master.control import server as control

            places = find_control(self._core.spec.control.socket, self._environ)
            server = control.listen(places, self._reactor.watch, self._reactor.unwatch, self._requests.handle)
        except OSError as error:
            self._log.emit("warning", "no_control_socket", error=error.strerror or str(error))
        else:
            self._requests.control = server
            self._reactor.attend(server)
            self._log.emit("debug", "control_socket_opened", path=server.path)

    def _figures(self) -> dict[str, Any]:
        """What metrics tell of the master itself."""
        return {
            "loop_lag_seconds": round(self._lag.peak(time.monotonic()), 6),
            "orphans_reaped": self.reaper.orphans,
            "log_lines_dropped": self._log.dropped,
            "notify_rejected": self._messages.rejected,
            "config_reload_ok": not self._reloader.error,
            "config_reload_time": round(self._reloader.loaded_at, 3),
        }

    def close(self) -> None:
        """Leave no files of sockets behind, and terminals as they were."""
        self._launcher.close()
        if self._requests.control is not None:
            self._requests.control.close()
        for held in (self.serving.held, self._observed):
            if held is not None:
                held.unlink()


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
