"""The dialogue with the master, and one task for each thing that it wants to know.

A process of its own for looking: a probe can hang in DNS, TLS or a dead mount, /proc takes long with thousands of
descriptors, and an HTTP client is a lot of code. None of that may delay a TERM, cost PID 1 memory, or fork from it.
Here it may take its time, with asyncio; it exists only where the configuration needs it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from entrypoint.monitor.commands import Commands
from entrypoint.monitor.messages import Follow, Forget, Watch
from entrypoint.record import unpack

if TYPE_CHECKING:
    from entrypoint.monitor.follow import Follower
    from entrypoint.monitor.messages import Message
    from entrypoint.monitor.timing import Timing

MAX_REASON = 256  # characters
MAX_REASON_BYTES = 800  # so that a line has at most 1024
MAX_UNREAD = 1 << 20  # bytes that the master has not read yet, beyond which it is spared what it can do without
RESOLVERS = 256  # names are looked up in threads, made as they are needed; a slow one must not delay another


def run(channel: int, timing: Timing) -> int:
    """Serve the master on that descriptor until it hangs up; returns the exit code."""
    asyncio.run(_serve(channel, timing))
    return 0


async def _serve(channel: int, timing: Timing) -> None:
    from concurrent.futures import ThreadPoolExecutor

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(RESOLVERS))
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=channel))
    async with asyncio.TaskGroup() as tasks:  # an error in any task ends the process, and the master starts it anew
        monitor = Monitor(writer, tasks, timing)
        loop.add_signal_handler(signal.SIGTERM, monitor.end)
        while message := await _receive(reader):
            monitor.handle(message)
        monitor.end()


async def _receive(reader: asyncio.StreamReader) -> Message | None:
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        message: Message = unpack(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return message


class Monitor:
    """Does what the master says and tells it what is seen."""

    def __init__(self, writer: asyncio.StreamWriter, tasks: asyncio.TaskGroup, timing: Timing) -> None:
        self._writer = writer
        self._tasks = tasks
        self._timing = timing
        self._commands = Commands()
        self._looking = asyncio.Lock()
        self._watches: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._follower: Follower | None = None

    def handle(self, message: Message) -> None:
        """Act on a message of the master."""
        if isinstance(message, Watch):
            self._watch(message)
        elif isinstance(message, Forget):
            self._forget(message.serial, message.kind)
        elif isinstance(message, Follow):
            self._follow(message)
        elif self._follower is not None:
            self._follower.loaded(message.sha256)

    def tell(self, saw: str, **fields: Any) -> None:
        """Send a line to the master; never waits for it."""
        transport = self._writer.transport
        if transport.is_closing():  # the master is gone, as is about to be read
            return
        if saw == "failing" and transport.get_write_buffer_size() > MAX_UNREAD:
            return
        if "reason" in fields:
            fields["reason"] = tidy(fields["reason"])
        line = json.dumps({"saw": saw, **fields}, ensure_ascii=False, separators=(",", ":"))
        self._writer.write(line.encode() + b"\n")

    def end(self) -> None:
        """End the process at once: a thread that still looks up a name would hold up an orderly end."""
        self._commands.kill()
        os._exit(0)

    def _watch(self, watch: Watch) -> None:
        self._forget(watch.serial, watch.kind)
        if watch.probe is None:
            from entrypoint.monitor.accepting import accepting

            work = accepting(watch, self._looking, self._timing, self.tell)
        else:
            from entrypoint.monitor.probes import Question, ask_again_and_again

            work = ask_again_and_again(watch, Question(watch.probe, watch, self._commands), self.tell)
        key = watch.serial, watch.kind
        task = self._watches[key] = self._tasks.create_task(work)
        task.add_done_callback(lambda ended: self._watches.get(key) is ended and self._watches.pop(key))

    def _forget(self, serial: int, kind: str) -> None:
        task = self._watches.pop((serial, kind), None)
        if task is not None:
            task.cancel()

    def _follow(self, message: Follow) -> None:
        from entrypoint.monitor.follow import Follower

        if self._follower is None:
            self._follower = Follower(self._timing, self.tell)
            self._tasks.create_task(self._follower.run())
        self._follower.follow(message.path, message.sha256)


def tidy(reason: str) -> str:
    """A reason on one line, printable and not too long."""
    words = "".join(char if char.isprintable() else " " for char in reason[: 8 * MAX_REASON]).split()
    return " ".join(words)[:MAX_REASON].encode()[:MAX_REASON_BYTES].decode(errors="ignore")
