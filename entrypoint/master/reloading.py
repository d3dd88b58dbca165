"""Reading the configuration again, in a child, while everything goes on."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from entrypoint.config.signals import signal
from entrypoint.core import actions as act
from entrypoint.core import events as ev
from entrypoint.core.model import NEVER
from entrypoint.master import kernel, loader
from entrypoint.master.log import wall_clock

if TYPE_CHECKING:
    from entrypoint.config.spec import Spec
    from entrypoint.master.loop import Loop

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

    def __init__(self, loop: Loop, source: Source, spec: Spec) -> None:
        self.loop = loop
        self.source = source
        self.sha256 = spec.sha256
        self.loaded_at = wall_clock()
        self.error = ""  # why the latest reading changed nothing
        self.deadline = NEVER
        self._queue: list[act.Reload] = []
        self._pid = 0
        self._fd = -1
        self._data = bytearray()

    def file_changed(self) -> None:
        """The file does not say any more what the master runs by."""
        self.loop.log.emit("info", "config_changed", config=self.source.path)
        self.request(act.Reload(roll_all=False))

    def request(self, order: act.Reload) -> None:
        """Read the configuration as soon as nobody does; requests that nobody waits for are one."""
        if not self.source.path:
            self.loop.tell(ev.SpecChanged(self.loop.core.spec, order.roll_all, order.asker))
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
            pid, fd = loader.start(source.path, source.sets, source.workers, source.command)
        except OSError as error:
            self._done(loader.Answer(None, (), (f"cannot load {source.path}: {error.strerror}",)))
            return
        finally:
            kernel.unblock_signals()
        os.set_blocking(fd, False)
        self._pid, self._fd = pid, fd
        self.deadline = time.monotonic() + LOAD_TIME
        self.loop.children.readers.add(pid)
        self.loop.watch(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        self._data += data
        if not data:
            self._finish(loader.answer(self.source.path, bytes(self._data)))

    def due(self, now: float) -> None:
        """Give up on a reader that hangs."""
        if now >= self.deadline:
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
        if self._pid in self.loop.children.readers:  # not reaped yet: the pid is its own
            kernel.send(self._pid, signal.SIGKILL)

    def _finish(self, answer: loader.Answer) -> None:
        self._forget()
        self._done(answer)

    def _forget(self) -> None:
        self.loop.unwatch(self._fd)
        os.close(self._fd)
        self._pid, self._fd, self.deadline = 0, -1, NEVER
        self._data.clear()

    def _done(self, answer: loader.Answer) -> None:
        order = self._queue.pop(0)
        errors = answer.errors
        if answer.spec is not None:
            error = self.loop.bind(answer.spec)
            errors = (error,) if error else ()
        if answer.sha256:
            self.loop.followed(answer.sha256)
        if answer.spec is None or errors:
            self.error = "; ".join(errors)[:1000]
            self.loop.tell(ev.SpecRejected(errors, order.asker))
        else:
            self.error = ""
            self.sha256, self.loaded_at = answer.spec.sha256, wall_clock()
            for warning in answer.warnings:
                self.loop.log.emit("warning", "config_warning", reason=warning)
            self.loop.take(answer.spec, order)
        self._next()
