"""The master's log: one line an event, written so that no reader can ever block the master."""

# Lines are queued as plain values. What renders them is imported when the first line is due to be written, which is
# after the first workers were spawned; and a line that cannot be written is kept for a while, then dropped and counted.
#
# Standard output is opened again through /proc/self/fd with O_NONBLOCK. Set on the inherited description, the flag
# would be seen by whoever shares it, and their `print` would fail. A socket cannot be opened again: there it is
# MSG_DONTWAIT. Where /proc refuses, it is `pwritev` with RWF_NOWAIT. A regular file is written through the inherited
# descriptor: a second description would have a position of its own, and overwrite the workers' lines.

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from entrypoint.master.spared import Spared

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
MAX_QUEUED = 4096  # lines kept while nobody reads
MAX_LINE = 4096  # bytes; PIPE_BUF, so that a line on a pipe is whole or not there
MAX_VALUE = 1000  # characters of one field, fewer where the line would get too long


class Output:
    """A descriptor that is written without ever blocking, though it is shared with others who rely on its flags."""

    def __init__(self, fd: int) -> None:
        self.fd = fd  # to wait on until it is writable
        self._write: Callable[[bytes], int]
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            import socket

            self._flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            self._socket = socket.socket(fileno=os.dup(fd))
            self._write = self._send
            return
        if stat.S_ISREG(mode):  # the workers' position in it must be ours too, and a file never makes anybody wait
            self._write = self._plain
            return
        try:
            # O_NONBLOCK on `fd` itself would be seen by every worker: an open file description of our own it must be.
            self.fd = os.open(
                f"/proc/self/fd/{fd}",
                os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
            )
            self._write = self._plain
        except OSError:  # a pipe made by another user, or no /proc
            self._write = self._no_wait

    def write(self, data: bytes) -> int:
        """Write what fits; returns how many bytes did. Raises OSError (EAGAIN when nothing fits)."""
        return self._write(data)

    def _plain(self, data: bytes) -> int:
        return os.write(self.fd, data)

    def _send(self, data: bytes) -> int:
        return self._socket.send(data, self._flags)

    def _no_wait(self, data: bytes) -> int:
        try:
            return os.pwritev(self.fd, [data], -1, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        return os.write(self.fd, data)  # a terminal of another user: it blocks only while somebody stops it


class Log:
    """What the master has to say. Never raises."""

    def __init__(self, fd: int = 1, *, level: str = "info", style: str = "auto") -> None:
        self.dropped = 0
        self.blocked = False  # wait until `output` is writable
        self.held = False  # a line is still to be completed
        self.output: Output | None = None
        self._threshold = LEVELS[level]
        self._queue: deque[tuple[float, str, str, dict[str, Any]]] = deque()
        self._rest = b""  # of a line that was written in part
        self._render: Callable[[dict[str, Any]], str] | None = None
        self._told = 0  # drops that the log itself has told of
        self._spare = -1  # a descriptor to import what renders with
        try:
            self.output = Output(fd)
            self._console = style == "console" or (style == "auto" and os.isatty(fd))
            if style == "plain":
                self._render = plain
        except OSError:  # closed: there is nobody to tell
            self._console = False

    def configure(self, level: str, style: str) -> None:
        """Change the level and the form of the lines to come."""
        self._threshold = LEVELS[level]
        if style != "auto":
            self._console = style == "console"

    def keep_descriptor(self) -> None:
        """Hold one for the import of what renders: by then there may be no other. Raises OSError."""
        if self._render is None:
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def emit(self, level: str, event: str, **fields: Any) -> None:
        """Queue one line."""
        if LEVELS[level] < self._threshold:
            return
        if len(self._queue) >= MAX_QUEUED:
            self.dropped += 1
            return
        self._queue.append((time.time(), level, event, fields))

    @property
    def pending(self) -> bool:
        """Whether a line waits that could be written now."""
        return bool(self._queue or self._rest) and not self.blocked and not self.held

    def flush(self, most: int = MAX_QUEUED) -> None:
        """Write queued lines, as many as `most`, as far as the output takes them now."""
        self.blocked = False
        if self.output is None:
            self.dropped += len(self._queue)
            self._queue.clear()
            return
        told, tell = self._told, True
        while most and (self._rest or self._queue or (tell and self.dropped > self._told)):
            if not self._rest:
                told = self._told
                self._rest = self._next_line(tell=tell)
                most -= 1
            try:
                self._rest = self._rest[self.output.write(self._rest) :]
            except BlockingIOError:
                self.blocked = True
                return
            except OSError:  # closed (EPIPE), or a full disk: this line is lost, the next may not be
                self._rest = b""
                if self._told == told:
                    self.dropped += 1
                self._told = told  # if it was this that was to be told
                tell = False  # not again before there is something else to say, or it would never end

    def finish(self, patience: float) -> None:
        """Write what is left, waiting for the reader no longer than `patience` seconds."""
        until = time.monotonic() + patience
        self.flush()
        while self.blocked and self.output is not None and (left := until - time.monotonic()) > 0:
            import select

            poll = select.poll()
            poll.register(self.output.fd, select.POLLOUT)
            if not poll.poll(left * 1000):
                return
            self.flush()

    def _next_line(self, *, tell: bool) -> bytes:
        if tell and self.dropped > self._told and len(self._queue) < MAX_QUEUED // 2:
            count, self._told = self.dropped - self._told, self.dropped
            fields: dict[str, Any] = {"count": count, "total": self.dropped}
            item = (time.time(), "warning", "log_lines_dropped", fields)
        else:
            item = self._queue.popleft()
        when, level, event, fields = item
        if self._render is None:  # the first line: what renders it is imported now
            if self._spare >= 0:
                os.close(self._spare)
                self._spare = -1
            self._render = renderer(console=self._console)
        longest = MAX_VALUE
        while True:
            line: dict[str, Any] = {"timestamp": timestamp(when), "level": level, "event": event}
            for key, value in fields.items():
                line[key] = value[:longest] + "…" if isinstance(value, str) and len(value) > longest else value
            try:
                data = self._render(line).encode("utf-8", "backslashreplace") + b"\n"
            except Exception as error:  # noqa: BLE001 - a line that cannot be rendered must not end PID 1
                why = f"cannot render {event}: {type(error)}"
                return f'{{"level": "error", "event": "bug", "error": "{why}"}}\n'.encode()
            if len(data) <= MAX_LINE or not longest:
                return data
            longest //= 2  # a character may take six bytes; cut off, the line would not be JSON any more


def wall_clock() -> float:
    """The time of day in seconds, for people to read: nothing may be decided by it."""
    return time.time()


def timestamp(when: float) -> str:
    """RFC 3339 in UTC with microseconds; `when` is wall-clock time in seconds."""
    seconds, fraction = divmod(round(when * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:06d}Z"


def plain(line: dict[str, Any]) -> str:
    """What the user of a command line gets to read."""
    return f"entrypoint: {line.get('error') or line['event']}"


def renderer(*, console: bool) -> Callable[[dict[str, Any]], str]:
    """What turns a line into text: for people, structlog does."""
    if not console:
        from json import JSONEncoder

        return JSONEncoder(default=repr).encode
    spared = Spared("asyncio")  # for asynchronous loggers: 50 ms, 6 MB
    try:
        import structlog
    finally:
        spared.end()
    last = structlog.dev.ConsoleRenderer(colors=True)
    return lambda line: str(last(None, "", line))
