"""Where the lines go: the master's standard output."""

from __future__ import annotations

import os
import select

from entrypoint.logger.pipes import grow

PIPE_BUF = 4096  # bytes that a pipe takes as a whole: nobody else's line gets in between
PATIENCE = 1.0  # seconds that a reader may let us wait at the end


class StuckError(Exception):
    """The end has come, and nobody reads."""


class Sink:
    """Written as fast as its reader reads, which may be never; the master's hanging up is noticed all the same."""

    def __init__(self, fd: int, channel: int) -> None:
        self._fd = fd
        self._channel = channel
        self._ending = False
        self._grown = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._poll.register(channel, select.POLLRDHUP)

    def write(self, text: bytes) -> int:
        """Write whole lines; returns how many of them could not be written. Raises StuckError."""
        dropped = start = 0
        while start < len(text):
            end = len(text)
            if end - start > PIPE_BUF:
                end = text.rfind(b"\n", start, start + PIPE_BUF) + 1 or text.find(b"\n", start) + 1
            dropped += self._write(text[start:end])
            start = end
        return dropped

    def _write(self, chunk: bytes) -> int:
        if len(chunk) > PIPE_BUF and not self._grown:  # with room for all of it, it is still written as a whole
            self._grown = True
            grow(self._fd)
        lines = chunk.count(b"\n")
        while chunk:
            self._wait()
            try:
                chunk = chunk[os.write(self._fd, chunk) :]
            except BlockingIOError:  # somebody has made it so
                continue
            except OSError:  # closed, or a full disk
                return lines
        return 0

    def _wait(self) -> None:
        while True:
            ready = self._poll.poll(PATIENCE * 1000 if self._ending else None)
            if not ready:
                raise StuckError
            for fd, _ in ready:
                if fd == self._fd:
                    return
                self._ending = True
                self._poll.unregister(self._channel)
