"""Reading the configuration again, in a child, while everything goes on."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from entrypoint.core import actions as act
from entrypoint.linux import kernel
from entrypoint.linux.signals import signal
from entrypoint.master.configuration import loader
from entrypoint.master.log import timestamp, wall_clock
from entrypoint.master.reactor import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from entrypoint.config.spec import Socket, Spec
    from entrypoint.master.log import Log
    from entrypoint.master.part import Orders
    from entrypoint.master.processes.reaper import Reaper
    from entrypoint.master.reactor import Reactor

LOAD_TIME = 30.0  # seconds; a reader that takes longer hangs on a dead file system
CHUNK = 1 << 16


class Source:
    """Where the configuration comes from: the file, and what the command line lays over it."""

    __slots__ = ("command", "path", "sets", "workers")

    def __init__(self, path: str, sets: tuple[str, ...], workers: int | None, command: tuple[str, ...]) -> None:
        self.path = path  # empty: there is no file
        self.sets = sets
        self.workers = workers
        self.command = command


class Reloader:
    """One reading at a time; what is asked for meanwhile waits its turn."""

    def __init__(
        self,
        source: Source,
        spec: Spec,
        reactor: Reactor,
        reaper: Reaper,
        log: Log,
        *,
        bind: Callable[[tuple[Socket, ...]], str],
        read: Callable[[str], None],
        done: Callable[[act.Reload, Spec | None, tuple[str, ...]], None],
    ) -> None:
        """`spec` is what the master runs by.

        `bind` gets the sockets of a new one, and says why that is not possible; `read` is told the hash of what was
        read, whatever came of it; `done` gets the new configuration, or why there is none.
        """
        self.orders: Orders = {act.Reload: self.request}
        self.source = source
        self.sha256 = spec.sha256
        self.loaded_at = wall_clock()
        self.error = ""  # why the latest reading changed nothing
        self._spec = spec
        self._reactor = reactor
        self._reaper = reaper
        self._log = log
        self._bind = bind
        self._tell_read = read
        self._tell_done = done
        self._timer = reactor.timer(self._give_up)
        self._queue: list[act.Reload] = []
        self._pid = 0
        self._fd = -1
        self._data = bytearray()

    def file_changed(self) -> None:
        """The file does not say any more what the master runs by."""
        self._log.emit("info", "config_changed", config=self.source.path)
        self.request(act.Reload(roll_all=False))

    def request(self, order: act.Reload) -> None:
        """Read the configuration as soon as nobody does; requests that nobody waits for are one."""
        if not self.source.path:
            self._tell_done(order, self._spec, ())
            return
        waiting = self._queue[1:] if self._pid else self._queue
        for number, other in enumerate(waiting, len(self._queue) - len(waiting)):
            if not other.asker and not order.asker:
                self._queue[number] = act.Reload(other.roll_all or order.roll_all)
                return
        self._queue.append(order)
        self._next()

    def _next(self) -> None:
        if self._pid or not self._queue:
            return
        source = self.source
        kernel.block_signals()  # they stay so in the child, which has no use for the master's handlers
        try:
            pid, fd = loader.start(source.path, source.sets, source.workers, source.command, streams=False)
        except OSError as error:
            self._done(loader.Answer(None, (), (f"cannot load {source.path}: {error.strerror}",)))
            return
        finally:
            kernel.unblock_signals()
        os.set_blocking(fd, False)
        self._pid, self._fd = pid, fd
        self._timer.arm(time.monotonic() + LOAD_TIME)
        self._reaper.expect(pid, lambda _outcome: kernel.reap(pid))
        self._reactor.watch(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        self._data += data
        if not data:
            self._finish(loader.answer(self.source.path, bytes(self._data)))

    def _give_up(self) -> None:
        """The reader hangs."""
        self._kill()
        error = f"cannot load {self.source.path}: reading it takes longer than {LOAD_TIME:g} s"
        self._finish(loader.Answer(None, (), (error,)))

    def stop(self) -> None:
        """The master is on its way out: a reader would hold on to its sockets."""
        self._queue.clear()
        if self._pid:
            self._kill()
            self._forget()

    def _kill(self) -> None:
        if self._reaper.is_expected(self._pid):
            kernel.send(self._pid, signal.SIGKILL)

    def _finish(self, answer: loader.Answer) -> None:
        self._forget()
        self._done(answer)

    def _forget(self) -> None:
        self._reactor.unwatch(self._fd)
        os.close(self._fd)
        self._pid, self._fd = 0, -1
        self._timer.arm(NEVER)
        self._data.clear()

    def _done(self, answer: loader.Answer) -> None:
        order = self._queue.pop(0)
        errors = answer.errors
        if answer.spec is not None:
            error = self._bind(answer.spec.sockets)
            errors = (error,) if error else ()
        if answer.sha256:
            self._tell_read(answer.sha256)
        if answer.spec is None or errors:
            self.error = "; ".join(errors)[:1000]
            self._tell_done(order, None, errors)
        else:
            self.error = ""
            self._spec, self.sha256, self.loaded_at = answer.spec, answer.spec.sha256, wall_clock()
            for warning in answer.warnings:
                self._log.emit("warning", "config_warning", reason=warning)
            self._tell_done(order, answer.spec, ())
        self._next()

    def describe(self) -> dict[str, Any]:
        """The configuration as the status shows it."""
        return {
            "path": self.source.path,
            "sha256": self.sha256,
            "loaded_at": timestamp(self.loaded_at),
            "error": self.error,
        }
