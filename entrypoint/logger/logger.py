"""The logger: workers' pipes in, lines of the log out.

It writes as fast as its reader reads. When that is never, the workers' pipes fill up, and the workers wait as they
would without it. The master waits for nobody.
"""

from __future__ import annotations

import _socket
import array
import json
import os
import select
from collections import deque
from typing import TYPE_CHECKING

from entrypoint.logger.lines import Clock, Framer
from entrypoint.logger.pipes import LAST_LINES, Copier, CopyError, Life, Stream
from entrypoint.logger.sink import Sink, StuckError

if TYPE_CHECKING:
    from typing import Any

LAST_CHARACTERS = 200  # of each
LAST_BYTES = 3000  # of all of them, as JSON: they have to fit into a termination message
STREAMS = ("stdout", "stderr")
MESSAGE = 1 << 16
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0  # seconds between looks at the rest of a line, should nothing announce it


class Logger:
    """The dialogue with the master, and a turn for each stream that has something."""

    def __init__(self, channel: int, out: int) -> None:
        self._channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, channel)
        self._sink = Sink(out, channel)
        self._clock = Clock()
        self._copier: Copier | None
        try:
            self._copier = Copier()
        except CopyError:
            self._copier = None
        self._epoll = select.epoll()
        self._epoll.register(channel, select.EPOLLIN)
        if self._copier is not None:
            self._epoll.register(self._copier.signals, select.EPOLLIN)
        self._workers: dict[int, Life] = {}
        self._streams: dict[int, Stream] = {}
        self._queue: deque[Stream] = deque()
        self._partial: set[Stream] = set()  # with a line in their pipe that is not whole
        self._pause = FIRST_PAUSE
        self._dropped = 0  # lines
        self._rest = b""
        self._descriptors: deque[int] = deque()
        self._ending = False

    def run(self) -> int:
        """Run until the master hangs up and everything is written."""
        try:
            while not self._ending:
                self._turn()
            self._finish()
        except StuckError:
            return 1
        except (BrokenPipeError, ConnectionError):  # the master is gone
            return 0
        return 0

    def _turn(self) -> None:
        events = self._epoll.poll(self._patience())
        if not events and not self._queue:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._look_again()
        for fd, mask in events:
            if fd in self._streams:
                stream = self._streams[fd]
                stream.hung_up = stream.hung_up or bool(mask & select.EPOLLHUP)
                self._pause = FIRST_PAUSE
                self._enqueue(stream)
            elif fd == self._channel.fileno():
                self._hear()
            else:
                self._signalled()
        for _ in range(len(self._queue)):
            self._advance(self._queue.popleft())

    def _patience(self) -> float | None:
        if self._queue:
            return 0
        return self._pause if self._partial else None

    def _signalled(self) -> None:
        """Somebody writes to a pipe that has the beginning of a line in it."""
        if self._copier is not None:
            os.read(self._copier.signals, 128)
        self._look_again()

    def _look_again(self) -> None:
        for stream in self._partial:
            if stream.available() != stream.left:
                self._enqueue(stream)

    # -- the streams -----------------------------------------------------------------------------------------

    def _enqueue(self, stream: Stream) -> None:
        if not stream.queued:
            stream.queued = True
            self._queue.append(stream)

    def _advance(self, stream: Stream, *, final: bool = False) -> None:
        """Write some of what a stream has; what is left of it has to wait for another turn."""
        stream.queued = False
        data, ended = stream.look()
        framed = stream.framer.frame(data, self._clock.now(), final=final or ended)
        if framed.consumed:
            dropped = self._sink.write(framed.text)
            stream.drop(framed.consumed)
            stream.worker.last.extend(line[:LAST_CHARACTERS] for line in framed.lines[-LAST_LINES:])
            if dropped:
                self._tell({"dropped": dropped})
        before, stream.left = stream.left, len(data) - framed.consumed
        stream.owed -= framed.consumed
        if ended and not stream.left:
            self._close(stream)
        elif stream.hung_up or stream.available() > stream.left:
            if not framed.consumed and before == stream.left:  # as much as can be seen at once, and no end of a line
                stream.take()
            self._enqueue(stream)
        else:
            self._rest_of(stream)
        self._account(stream.worker)

    def _rest_of(self, stream: Stream) -> None:
        """Nothing more is there than perhaps the beginning of a line."""
        stream.owed = 0
        self._partial.discard(stream)
        if stream.left and stream.wait_for_the_rest():
            self._partial.add(stream)
            if stream.available() != stream.left:  # while the wait was being arranged
                self._enqueue(stream)

    def _close(self, stream: Stream) -> None:
        worker = stream.worker
        self._epoll.unregister(stream.fd)
        self._partial.discard(stream)
        del self._streams[stream.fd]
        stream.close()
        stream.owed = 0
        worker.streams.remove(stream)
        if not worker.streams:
            self._tell_last(worker)
            self._tell({"ended": worker.serial})
            del self._workers[worker.serial]

    def _account(self, worker: Life) -> None:
        """Tell the last lines of a worker that has ended when all that it wrote is read, whoever holds its pipes."""
        if worker.exited and all(stream.owed <= 0 for stream in worker.streams):
            worker.exited = False
            self._tell_last(worker)

    def _finish(self) -> None:
        """Write what is there. Raises StuckError."""
        for stream in self._streams.values():
            stream.owed = stream.available()  # whoever goes on writing is not waited for
            self._enqueue(stream)
        while self._queue:
            stream = self._queue.popleft()
            stream.queued = False
            if stream.owed > 0 or stream.hung_up:
                self._advance(stream)
        for stream in list(self._streams.values()):
            if stream.left:
                self._advance(stream, final=True)

    # -- the master ------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        data, ancillary, _, _ = self._channel.recvmsg(MESSAGE, 4096)
        for level, kind, content in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                self._descriptors.extend(array.array("i", content))
        self._ending = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "add" in message:
                self._add(message)
            else:
                self._exited(message["exited"])

    def _add(self, message: dict[str, Any]) -> None:
        worker = self._workers[message["add"]] = Life(message["add"])
        for name in STREAMS:
            fd = self._descriptors.popleft()
            framer = Framer(name, message["pool"], message["slot"], message["pid"])
            stream = self._streams[fd] = Stream(fd, framer, worker, self._copier)
            worker.streams.append(stream)
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def _exited(self, serial: int) -> None:
        worker = self._workers.get(serial)
        if worker is None:
            return
        worker.exited = True
        for stream in worker.streams:
            stream.owed = stream.available()
            self._enqueue(stream)

    def _tell_last(self, worker: Life) -> None:
        lines = list(worker.last)
        while len(json.dumps(lines)) > LAST_BYTES:
            lines.pop(0)
        self._tell({"last": worker.serial, "lines": lines})

    def _tell(self, message: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")
