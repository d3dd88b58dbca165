"""The line to a process of the master's own. It may be slow, stopped or killed at any time: nothing waits for it."""

# One that cannot run says so on its line, which is logged once and not at each attempt.
#
# Helpers owe no signs of life, which would wake a master that has nothing to do. An observer that hangs fails the
# liveness probe; one that ends, for whatever reason, is started again at once.

from __future__ import annotations

import _socket
import os
import select
from typing import TYPE_CHECKING

from entrypoint.core import events as ev
from entrypoint.linux import kernel
from entrypoint.linux.signals import signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.config.spec import Process
    from entrypoint.core import actions as act
    from entrypoint.master.log import Log
    from entrypoint.master.part import Tell
    from entrypoint.master.reactor import Reactor
    from entrypoint.master.running import Running

    Spawn = Callable[[act.Spawn, list[int]], Running | None]

MAX_PENDING = 16 << 20  # bytes that it has not read; more, and it does not work any more
MAX_LINE = 4096
LAST_MESSAGES = 1000  # read of one that has ended
CHUNK = 1 << 16


def process(name: str) -> Process:
    """How it is started: as the master itself, isolated from whatever its environment would make Python do."""
    from entrypoint.config.spec import Process
    from entrypoint.interpreter import command

    return Process(command(name), f"entrypoint {name}")


class Helper:
    """The master's end of a connection to a process that is started with the other end as descriptor 3."""

    name = ""

    def __init__(self, reactor: Reactor, tell: Tell, spawn: Spawn, log: Log) -> None:
        """`spawn` starts a process with these descriptors as 3, 4 and so on."""
        self.pid = 0
        self._running: Running | None = None
        self._failure = ""  # the last one that it had; a bug is told once, not at each attempt
        self._reactor = reactor
        self._tell = tell
        self._spawn = spawn
        self._log = log
        self._ours = -1
        self._pending = bytearray()
        self._rest = b""
        self._writing = False

    def spawn(self, order: act.Spawn) -> None:
        """Start one, and tell it what it has to know."""
        self.close()
        try:
            ours, theirs = (s.detach() for s in _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM))
        except OSError as error:
            self._tell(ev.SpawnRefused(order.serial, f"cannot spawn {self.name}: {error.strerror}"))
            return
        os.set_blocking(ours, False)
        running = self._spawn(order, [theirs, *self.descriptors()])
        os.close(theirs)
        if running is None:
            os.close(ours)
            return
        self._ours, self.pid, self._running = ours, running.pid, running
        self._reactor.watch(ours, self._ready)
        self.begin()

    def ended(self, running: Running) -> None:
        """A process has ended; perhaps this one."""
        if running.pid == self.pid:
            for _ in range(LAST_MESSAGES):  # what it said before
                if self._ours < 0:
                    break
                self._ready()
            self.close()

    # -- for those that are one ------------------------------------------------------------------------------

    def stop(self, signum: int) -> bool:  # noqa: ARG002 - some have a way of their own
        """Do what the signal asks for in another way; whether there is one."""
        return False

    def descriptors(self) -> list[int]:
        """What it gets as 4, 5 and so on."""
        return []

    def begin(self) -> None:
        """Tell a new one what it has to know."""

    def told(self, line: bytes) -> None:
        """It says something."""

    # -- the line --------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send it as soon as it can be read; to nobody if there is none, since a new one is told everything."""
        if self._ours < 0:
            return
        self._pending += data
        if len(self._pending) > MAX_PENDING:
            self._kill()
        elif not self._writing:
            self._write()

    def _write(self) -> None:
        try:
            del self._pending[: os.write(self._ours, self._pending)]
        except BlockingIOError:
            pass
        except OSError:  # it has ended; that is told by its exit
            self._pending.clear()
        self._watch_writing(wanted=bool(self._pending))

    def _watch_writing(self, *, wanted: bool) -> None:
        """Be called when it can be written to, if there is something left to write."""
        if wanted != self._writing:
            self._writing = wanted
            self._reactor.rewatch(self._ours, select.EPOLLIN | (select.EPOLLOUT if self._writing else 0))

    def _ready(self) -> None:
        if self._writing:
            self._write()
        try:
            data = os.read(self._ours, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b'{"failed"'):
                self._failed(line)
            else:
                self.told(line)
        if len(self._rest) > MAX_LINE:  # it is out of its mind
            self._kill()

    def _failed(self, line: bytes) -> None:
        """It cannot go on, and says why before it ends."""
        import json

        try:
            said = json.loads(line)
            error, where = str(said["failed"])[:500], str(said.get("where", ""))[-900:]
        except (ValueError, RecursionError):
            return
        if where and error != self._failure:
            self._log.emit("error", "bug", error=error, where=where)
        self._failure = error
        if self._running is not None:
            self._running.error = error  # told with the exit that follows

    def _kill(self) -> None:
        kernel.send(self.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._ours >= 0:
            self._reactor.unwatch(self._ours)
            os.close(self._ours)
        self._ours = -1
        self.pid = 0
        self._pending.clear()
        self._rest = b""
        self._writing = False
