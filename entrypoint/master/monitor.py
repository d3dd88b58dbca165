"""The line to the monitor, the process that looks at workers and files from outside on the master's behalf.

It may be slow, stopped or killed at any time: nothing here waits for it, and a new one is told everything again.
"""

from __future__ import annotations

import _socket
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

from entrypoint.core import events as ev
from entrypoint.master import kernel
from entrypoint.monitor.messages import Follow, Forget, Loaded, Watch, encode

if TYPE_CHECKING:
    from typing import Any

    from entrypoint.config.spec import Pool, Process, Spec
    from entrypoint.core import actions as act
    from entrypoint.master.children import Running
    from entrypoint.master.loop import Loop
    from entrypoint.monitor.messages import Message

NAME = "monitor"
MAX_PENDING = 4 << 20  # bytes that it has not read; more, and it does not work any more
MAX_LINE = 4096


def process() -> Process:
    """How it is started: as the master itself, isolated from whatever its environment would make Python do."""
    from entrypoint.config.spec import Process

    main = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "__main__.py")
    return Process((sys.executable, "-I", "-S", main, NAME), "entrypoint monitor")


def needed(spec: Spec) -> bool:
    """Whether anything has to be looked at."""
    return spec.reload.watch or any(_looks_at(pool) for pool in spec.pools)


def _looks_at(pool: Pool) -> bool:
    return pool.liveness is not None or pool.ready.when in ("accepting", "probe")


class Monitor:
    """What it is to look at, and the connection to it while there is one."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.pid = 0
        self._ours = -1
        self._pending = bytearray()
        self._rest = b""
        self._writing = False
        self._follow: Follow | None = None
        self._watches: dict[tuple[int, str], Watch] = {}

    # -- the process -----------------------------------------------------------------------------------------

    def spawn(self, order: act.Spawn) -> None:
        """Start one, and tell it everything."""
        self._close()
        try:
            ours, theirs = (s.detach() for s in _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM))
        except OSError as error:
            self.loop.tell(ev.SpawnRefused(order.serial, f"cannot spawn {NAME}: {error.strerror}"))
            return
        os.set_blocking(ours, False)
        self.loop.children.spawn(order, theirs)
        os.close(theirs)
        running = self.loop.children.by_serial.get(order.serial)
        if running is None:
            os.close(ours)
            return
        self._ours, self.pid = ours, running.pid
        self.loop.watch(ours, self._ready)
        if self._follow is not None:
            self._send(self._follow)
        for watch in self._watches.values():
            self._send(watch)

    def ended(self, running: Running) -> None:
        """A process ended: a worker that need not be looked at any more, or the monitor."""
        if running.pid == self.pid:
            self._close()
        for kind in ("ready", "live"):
            if self._watches.pop((running.serial, kind), None) is not None:
                self._send(Forget(running.serial, kind))

    # -- what it is told -------------------------------------------------------------------------------------

    def follow(self, path: str, sha256: str) -> None:
        """Have the configuration file followed; it was read with this content."""
        if self._follow is None:
            self._follow = Follow(path, sha256)
            self._send(self._follow)
        else:
            self._follow = self._follow._replace(sha256=sha256)
            self._send(Loaded(sha256))

    def watch(self, running: Running, order: act.Inspect) -> None:
        """Have a worker looked at."""
        if order.kind == "live" and order.probe is None:
            self._watches.pop((running.serial, "live"), None)
            self._send(Forget(running.serial, "live"))
            return
        sockets, template = self.loop.sockets, running.template
        inodes = sockets.inodes(template.sockets, running.slot) if sockets and template.sockets else ()
        watch = Watch(
            running.serial, running.pid, order.kind, order.probe, inodes, 0.0, template.process, running.identity
        )
        self._watches[running.serial, order.kind] = watch
        self._send(watch)

    def _send(self, message: Message) -> None:
        if self._ours < 0:
            return  # it is told when there is one
        self._pending += encode(message)
        if len(self._pending) > MAX_PENDING:
            kernel.send(self.pid, signal.SIGKILL)
            self._close()
        elif not self._writing:
            self._write()

    def _write(self) -> None:
        try:
            del self._pending[: os.write(self._ours, self._pending)]
        except BlockingIOError:
            pass
        except OSError:  # it has ended; that is told by its exit
            self._pending.clear()
        if bool(self._pending) != self._writing:
            self._writing = bool(self._pending)
            mask = select.EPOLLIN | (select.EPOLLOUT if self._writing else 0)
            self.loop.unwatch(self._ours)
            self.loop.watch(self._ours, self._ready, mask)

    # -- what it tells ---------------------------------------------------------------------------------------

    def _ready(self) -> None:
        if self._pending:
            self._write()
        try:
            data = os.read(self._ours, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._told(line)
        if len(self._rest) > MAX_LINE:  # it is out of its mind
            kernel.send(self.pid, signal.SIGKILL)
            self._close()

    def _told(self, line: bytes) -> None:
        import json

        try:
            fact: dict[str, Any] = json.loads(line)
            saw, serial, reason = fact["saw"], int(fact.get("serial", 0)), str(fact.get("reason", ""))[:256]
            kind = str(fact.get("kind", ""))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if saw == "config":
            self.loop.reloader.file_changed()
        elif saw == "ready" and self._watches.pop((serial, "ready"), None):
            self.loop.tell(ev.Proved(serial))
        elif saw == "blind" and self._watches.pop((serial, "ready"), None):
            self.loop.tell(ev.Hidden(serial, reason))
        elif saw == "not_live" and self._watches.pop((serial, "live"), None):
            self.loop.tell(ev.NotLive(serial, reason))
        elif saw == "failing" and (serial, kind) in self._watches:
            running = self.loop.children.by_serial.get(serial)
            if running is not None:
                self.loop.log_worker("warning", "probe_failing", running, kind=kind, error=reason)

    def _close(self) -> None:
        if self._ours >= 0:
            self.loop.unwatch(self._ours)
            os.close(self._ours)
        self._ours = -1
        self.pid = 0
        self._pending.clear()
        self._rest = b""
        self._writing = False
