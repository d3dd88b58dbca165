"""What workers write, where it is to be framed: their pipes, and the line to the logger, which reads them."""

# The master makes the pipes and holds on to their read ends: a logger that is killed breaks none, and the next one gets
# the descriptors again and goes on with what is there. The master never reads a byte of them itself. It talks to the
# logger through a queue, and waits for neither the logger nor who reads the log.
#
# The last lines of a worker that ended come from the logger a moment later. Only the log waits for them, a little, and
# only when the master gives up.
#
# A process that a worker left behind may hold its pipes. Nothing waits for that: its lines go on as that worker's until
# it ends or the logger has stopped, which is before the last sweep.

from __future__ import annotations

import _socket
import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from entrypoint.linux.signals import signal
from entrypoint.logger.messages import added, exited
from entrypoint.master.helpers.helper import Helper
from entrypoint.master.reactor import NEVER

if TYPE_CHECKING:
    from typing import Any

    from entrypoint.config.spec import Spec
    from entrypoint.master.helpers.helper import Spawn
    from entrypoint.master.log import Log
    from entrypoint.master.part import Tell
    from entrypoint.master.processes.pipes import Pipes
    from entrypoint.master.reactor import Reactor
    from entrypoint.master.running import Running

REMEMBERED = 64  # workers that have ended, by their last lines
PATIENCE = 1.0  # seconds that the log waits for a worker's last lines; the logger itself may just be starting
STOP_TIME = 5.0  # seconds that the logger gets for what is left at the end; it gives up sooner when nobody reads


def needed(spec: Spec) -> bool:
    """Whether any output has to be framed."""
    return any(pool.output == "json" for pool in spec.pools)


class Logger(Helper):
    """The pipes that are open; a new logger gets all of them again."""

    name = "logger"

    def __init__(self, reactor: Reactor, tell: Tell, spawn: Spawn, log: Log) -> None:
        super().__init__(reactor, tell, spawn, log)
        self._timer = reactor.timer(self.end_wait)  # the log has waited long enough
        self._open: dict[int, tuple[bytes, tuple[int, int]]] = {}  # what to tell of it, and its read ends, by serial
        self._ended: set[int] = set()  # those of them whose worker has ended
        self._last: dict[int, list[str]] = {}  # last lines of workers that have ended; empty until they are told
        self._messages: deque[tuple[bytes, tuple[int, ...]]] = deque()  # to send
        self._awaited: set[int] = set()
        self._stopping = False

    def add(self, running: Running, pipes: Pipes) -> None:
        """Have the output of a new worker framed."""
        text = added(running.serial, running.order.pool, running.slot, running.pid)
        self._open[running.serial] = text, pipes.readers
        self._say(text, pipes.readers)

    def begin(self) -> None:
        """Tell a new one of every pipe that is open."""
        for serial, (text, readers) in self._open.items():
            self._say(text, readers)
            if serial in self._ended:
                self._say(exited(serial))

    def ended(self, running: Running) -> None:
        """A worker has ended: its last lines are of interest. Or the logger has."""
        if running.serial in self._open:
            self._ended.add(running.serial)
            self._remember(running.serial)
            self._say(exited(running.serial))
        super().ended(running)

    def stop(self, signum: int) -> bool:
        """Ask it to finish, if that is what the signal is for: it reads the end of the line when it gets there.

        A signal might reach it before it has a handler, or before the last output.
        """
        if signum != signal.SIGTERM or self._ours < 0:
            return False
        self._stopping = True
        self._write()
        return True

    # -- last lines ------------------------------------------------------------------------------------------

    def last(self, serial: int) -> list[str] | None:
        """The last lines of a worker that has ended, filled in as soon as they are told; None: not captured."""
        return self._last.get(serial)

    def await_last(self, serial: int) -> list[str] | None:
        """The same, and let the log wait a little for them."""
        if self._ours >= 0 and serial in self._open and not self._last.get(serial):
            self._awaited.add(serial)
            self._timer.arm(time.monotonic() + PATIENCE)
            self._log.held = True
        return self.last(serial)

    def end_wait(self) -> None:
        """They were told, or were not in time."""
        self._awaited.clear()
        self._timer.arm(NEVER)
        self._log.held = False

    def _remember(self, serial: int) -> list[str]:
        lines = self._last.setdefault(serial, [])
        if len(self._last) > REMEMBERED:
            del self._last[next(iter(self._last))]
        return lines

    # -- the line --------------------------------------------------------------------------------------------

    def told(self, line: bytes) -> None:
        """It has read to some end, or lost something."""
        import json

        try:
            said: dict[str, Any] = json.loads(line)
        except (ValueError, RecursionError):
            return
        if "dropped" in said:
            self._log.dropped += int(said["dropped"])
        elif "last" in said:
            self._remember(said["last"])[:] = said["lines"]
            self._awaited.discard(said["last"])
            if not self._awaited:
                self.end_wait()
        elif said.get("ended") in self._open:
            _, readers = self._open.pop(said["ended"])
            self._ended.discard(said["ended"])
            for fd in readers:
                os.close(fd)

    def close(self) -> None:
        """Hang up."""
        super().close()
        self._messages.clear()
        self._stopping = False
        self.end_wait()

    def _say(self, text: bytes, descriptors: tuple[int, ...] = ()) -> None:
        if self._ours < 0:  # a new one is told everything
            return
        self._messages.append((text, descriptors))
        if not self._writing:
            self._write()

    def _write(self) -> None:
        """Send what can be sent; descriptors go with the first byte of their message."""
        ours = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, self._ours)
        try:
            while self._messages:
                text, descriptors = self._messages[0]
                rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in descriptors)
                control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if descriptors else []
                sent = ours.sendmsg([text], control, _socket.MSG_NOSIGNAL)
                if sent < len(text):
                    self._messages[0] = text[sent:], ()
                else:
                    self._messages.popleft()
            if self._stopping:
                ours.shutdown(_socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:  # it has ended, which is told by its exit; or the kernel carries too many descriptors for it
            ours.detach()
            self._kill()
            return
        ours.detach()
        self._watch_writing(wanted=bool(self._messages))
